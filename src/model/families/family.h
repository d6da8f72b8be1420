// What a family file gives: an Architecture and the place of every tensor. A family reads a config and maps names; it
// holds no arithmetic. To add one: a file that defines `const Family k...`, and a line in registry.cc.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/config_reader.h"
#include "model/tensor_source.h"
#include "saif/model.h"

namespace saif {

enum class TensorRole {
  kEmbedding,    // [vocab, d_model]
  kPositions,    // [context, d_model]
  kUnembedding,  // [vocab, d_model]
  kFinalNorm,    // [d_model], as the norms of a block
  kLn1,
  kLn2,
  kPostAttn,
  kPostMlp,
  kQNorm,  // [TensorSlot::length]
  kKNorm,
  kQ,       // [n_heads * d_head, d_model]
  kK,       // [n_kv_heads * d_head, d_model]
  kV,       // [n_kv_heads * d_head, d_model]
  kO,       // [d_model, n_heads * d_head]
  kGate,    // [d_mlp, d_model], of an expert [d_expert, d_model]
  kUp,      // the same
  kDown,    // [d_model, d_mlp], of an expert [d_model, d_expert]
  kRouter,  // [n_experts, d_model]
};

// Which rows of a stored matrix a role takes, where several share one: row r is row first + r / block * stride + r %
// block of `total`. The default: all rows.
struct RowSelection {
  int64_t total = 0, first = 0;
  int64_t block = 0, stride = 0;  // 0: consecutive rows
  bool all() const { return total == 0; }
};

struct TensorSlot {
  TensorRole role;
  int layer = -1;
  std::string name;   // in the checkpoint
  bool bias = false;  // the bias of the role's matrix or norm
  // The rows of each head are stored as pairs (0, d/2), (1, d/2 + 1), ...: the forward pass puts the product back.
  bool paired_rows = false;
  bool transposed = false;  // stored [in, out]; the selected rows are then columns
  RowSelection rows = {};
  int64_t length = 0;  // of a norm; 0: d_model
  int expert = -1;
};

struct IgnoredTensors {
  std::string suffix;  // names that end so
  std::string reason;
  std::string copy_of = "";  // must hold the same bytes as this tensor
};

struct ModelPlan {
  Architecture arch;
  std::vector<TensorSlot> tensors;
  std::vector<IgnoredTensors> ignored;
};

struct Family {
  std::string_view name;
  std::vector<std::string_view> model_types;         // config.json's model_type
  std::vector<std::string_view> gguf_architectures;  // general.architecture
  // The readers hold every key but model_type; for GGUF the keys that begin with the architecture's name, without it.
  ModelPlan (*from_config)(ConfigReader& config, const std::string& model_type, const TensorSource& tensors);
  ModelPlan (*from_gguf)(ConfigReader& config, const TensorSource& tensors);
};

// Throw kUnsupported listing the families that are known.
const Family& family_of_model_type(const std::string& model_type);
const Family& family_of_gguf(const std::string& architecture);

// For family files.

// Keys of every Transformers config that do not change a forward pass, and those that only one value is implemented of;
// `architectures` must hold `class_name`.
void read_common_keys(ConfigReader& config, std::string_view class_name);
// hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, intermediate_size, vocab_size,
// max_position_embeddings, tie_word_embeddings. The caller reads the norm's epsilon and the activation.
void read_dimensions(ConfigReader& config, Architecture& arch);
// Throws kBadFormat when the dimensions contradict each other or the tensors cannot be that many blocks.
void check_dimensions(const std::string& source, const Architecture& arch, const TensorSource& tensors);
// What a family's Transformers class takes where the config is silent, and where it looks.
struct RopeDefaults {
  double theta = 10000.0, partial = 1.0;
  bool may_be_partial = false;  // a share of each head may turn; else another one than 1 is refused
  int64_t original = 0;         // original_max_position_embeddings, which goes before the scaling's own; 0: none
  const char* theta_key = "rope_theta";  // beside rope_parameters
  const char* partial_key = "partial_rotary_factor";
};
// rope_theta, rope_scaling, partial_rotary_factor (Transformers 4) or rope_parameters (5), of heads arch.d_head wide.
RopeSpec read_rope(ConfigReader& config, const Architecture& arch, const RopeDefaults& defaults = {});
// Of one layer type, `parameters` an object within rope_parameters; theta_key may stand in `config` too.
RopeSpec read_layer_rope(ConfigReader& config, ConfigReader& parameters, const Architecture& arch,
                         const RopeDefaults& defaults);
// sliding_window; null: 0, full attention; absent: the class's `usual`.
int64_t read_window(ConfigReader& config, int64_t usual);
// Throws, naming the keys, when more experts are chosen than there are, or when there are more than any model has.
void check_experts(ConfigReader& config, const Architecture& arch, std::string_view count, std::string_view used);
// All blocks alike, attention scaled by 1 / sqrt(d_head).
void set_layers(Architecture& arch, const RopeSpec& rope, int64_t window = 0);
// layer_types where present (each sliding_attention or full_attention), else `is_local`: sets the blocks' windows.
void read_layer_types(ConfigReader& config, Architecture& arch, int64_t window,
                      bool (*is_local)(int64_t layer, int64_t n), int64_t n);
// The name in Architecture::activation of a Transformers activation; throws kUnsupported.
std::string read_activation(ConfigReader& config, std::string_view key);

// Tensors NAME.weight and NAME.bias.
enum class Bias { kNone, kRequired, kIfPresent };
struct NamedRole {
  std::string name;  // within a block: between its prefix and ".weight"
  TensorRole role;
  Bias bias = Bias::kNone;
  bool paired_rows = false;
  RowSelection rows = {};
  int64_t length = 0;
  int expert = -1;
  bool transposed = false;
};
void add_tensors(ModelPlan& plan, const TensorSource& tensors, int layer, const std::string& prefix,
                 std::span<const NamedRole> roles);
// The unembedding of a tied model, should the file hold one too: a copy of the embedding, or the model is refused,
// since Transformers 4 computes with the embedding and 5 with it.
void ignore_tied(ModelPlan& plan, const std::string& unembedding, const std::string& embedding);
// Names of Transformers' model: embed_tokens, norm, lm_head (absent where tied), rotary_emb.inv_freq.
void add_outer_tensors(ModelPlan& plan, const TensorSource& tensors, Bias norm_bias = Bias::kNone);
// q, k, v stacked: rows of [n_heads * d_head], then twice [n_kv_heads * d_head].
std::vector<NamedRole> stacked_qkv(const Architecture& arch, const std::string& name, Bias bias,
                                   bool transposed = false);

// GGUF: expert_count and what belongs to it; 0 experts where the file has no such key. Before read_gguf_dimensions().
void read_gguf_experts(ConfigReader& config, Architecture& arch);
// embedding_length, block_count, attention.head_count, ... ; vocab from the embedding; scale 1 / sqrt(d_head).
void read_gguf_dimensions(ConfigReader& config, Architecture& arch, const TensorSource& tensors);
// rope.freq_base, rope.scaling.*, rope.dimension_count, rope_freqs.weight.
RopeSpec read_gguf_rope(ConfigReader& config, ModelPlan& plan, const TensorSource& tensors);
// token_embd, output_norm, output (absent where tied).
void add_gguf_outer_tensors(ModelPlan& plan, const TensorSource& tensors, Bias norm_bias = Bias::kNone);
// attn_q, attn_k, attn_v, attn_output, ffn_gate, ffn_up, ffn_down (biases where present), attn_norm, ffn_norm; of a
// mixture ffn_gate_inp and all experts of ffn_gate_exps, ffn_up_exps, ffn_down_exps.
std::vector<NamedRole> gguf_block_roles(bool paired_rows, const Architecture& arch);

}  // namespace saif
