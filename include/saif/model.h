// A model as data: Architecture and LayerSpec describe it, families/ read them from a config, one forward pass serves
// all. Immutable after load; thread-safe; shared as shared_ptr<const Model>.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "saif/control.h"
#include "saif/error.h"
#include "saif/json.h"
#include "saif/tensor.h"

namespace saif {

enum class SiteKind {
  kEmbed,      // hook_embed                       [d_model] of the token; what enters block 0 but for kPosEmbed
  kPosEmbed,   // hook_pos_embed                   [d_model] learned positions (GPT-2)
  kResidPre,   // blocks.L.hook_resid_pre          [d_model]
  kLn1,        // blocks.L.ln1.hook_normalized     [d_model] with the norm's weight
  kQ,          // blocks.L.attn.hook_q             [n_heads * d_head] before its norm and rotation
  kK,          // blocks.L.attn.hook_k             [n_kv_heads * d_head] before its norm and rotation
  kV,          // blocks.L.attn.hook_v             [n_kv_heads * d_head]
  kPattern,    // blocks.L.attn.hook_pattern       [n_heads * n_keys]
  kZ,          // blocks.L.attn.hook_z             [n_heads * d_head] input of the output projection
  kAttnOut,    // blocks.L.hook_attn_out           [d_model] what attention adds
  kResidMid,   // blocks.L.hook_resid_mid          [d_model]
  kLn2,        // blocks.L.ln2.hook_normalized     [d_model]
  kMlpPre,     // blocks.L.mlp.hook_pre            [d_mlp] gate before its activation; not of a mixture of experts
  kMlpPost,    // blocks.L.mlp.hook_post           [d_mlp] input of the down projection
  kMlpOut,     // blocks.L.hook_mlp_out            [d_model] what the MLP adds
  kResidPost,  // blocks.L.hook_resid_post         [d_model]; of the last block: before the final norm
  kFinalNorm,  // ln_final.hook_normalized         [d_model] the LM head's input, weight included
  kLogits,     // logits                           [vocab]
};

// A place in the forward pass, under TransformerLens' names.
struct Site {
  SiteKind kind = SiteKind::kResidPost;
  int layer = -1;  // -1 where a site has no layer
  bool operator==(const Site&) const = default;
  std::string name() const;
  // Throws kNotFound offering the nearest known name; checks the layer against n_layers when that is > 0.
  static Site parse(std::string_view name, int n_layers = 0);
};

struct RopeSpec {
  double theta = 10000.0;
  int64_t rotary_dim = 0;        // leading dimensions of each head that are rotated; 0: none
  std::string scaling = "none";  // none | linear | llama3 | yarn | longrope
  double factor = 1.0, low_freq_factor = 1.0, high_freq_factor = 4.0;
  double beta_fast = 32.0, beta_slow = 1.0;  // yarn: rotations within the original context that bound the blend
  bool truncate = true;                      // yarn: these bounds are rounded to whole pairs
  double attention_factor = 1.0;             // multiplies cos and sin
  int64_t original_context = 0;
  // Frequencies are divided by these, [rotary_dim / 2]; empty: not. longrope: in prompts within the original context,
  // and in longer ones.
  std::vector<float> frequency_divisors, long_divisors;
  bool operator==(const RopeSpec&) const = default;
};

struct LayerSpec {
  int64_t window = 0;  // 0: full attention
  RopeSpec rope;
  float attention_scale = 1.0f;  // multiplies q.k
  bool experts = false;          // the MLP is a mixture of experts
};

enum class NormKind { kRms, kLayer };

struct Architecture {
  std::string family;  // "llama"
  int64_t d_model = 0, n_layers = 0, n_heads = 0, n_kv_heads = 0, d_head = 0, d_mlp = 0, vocab = 0, context = 0;
  NormKind norm = NormKind::kRms;
  float norm_eps = 1e-5f;
  float norm_offset = 0.0f;        // 1 where norms store w and mean 1 + w
  bool pre_norms = true;           // attention and MLP read normed rows
  bool post_norms = false;         // what they add is normed
  bool parallel_block = false;     // attention and MLP read the same rows: no kResidMid
  bool shared_norm = false;        // of a parallel block: the MLP reads kLn1
  bool head_norms_differ = false;  // norms of queries and keys have weights of their own for each head
  bool gated_mlp = true;           // act(gate) * up; else act(up), under the name of gate
  float embed_scale = 1.0f;
  float residual_scale = 1.0f;  // of what attention and MLP add
  float logit_scale = 1.0f;
  float attention_softcap = 0.0f, logit_softcap = 0.0f;
  bool learned_positions = false;
  bool tied_embeddings = false;
  std::string activation = "silu";
  int64_t n_experts = 0, experts_per_token = 0, d_expert = 0;
  bool expert_weights_sum_to_one = true;  // of the chosen experts
  std::vector<LayerSpec> layers;
  int64_t width(const Site& site) const;  // of a row at the site; 0 for kPattern (depends on the row)
  bool computes(const Site& site) const;  // false where the family has no such value
  // Of so many tokens: beyond rope_context(). Known before its first row, since it decides about all of them.
  bool is_long_prompt(size_t tokens) const {
    return rope_context() > 0 && static_cast<int64_t>(tokens) > rope_context();
  }
  int64_t rope_context() const;  // prompts longer than this take longrope's long divisors; 0: no longrope
  Json to_json() const;
  DType kv_dtype = DType::kF32;  // of keys and values: not the model's, but LoadOptions'
};

// What one row of a batch is.
struct RowInfo {
  int64_t sequence = 0;  // the caller's number of the prompt or request
  int64_t position = 0;  // from 0
  int32_t token = 0;
  // Under a prompt trie one computed row may belong to several sequences; `sequence` is then the first of them.
};

// Sees activations; cannot alter a run. Called on one thread, rows in any order.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual bool wants(const Site& site) const = 0;
  virtual void observe(const Site& site, std::span<const RowInfo> rows, Mat<const float> values) = 0;
};

// May alter activations, row by row, in float32.
class Editor {
 public:
  virtual ~Editor() = default;
  virtual bool wants(const Site& site) const = 0;
  virtual void edit(const Site& site, std::span<const RowInfo> rows, Mat<float> values) = 0;
};

struct LoadOptions {
  std::string dtype = "auto";  // auto | bf16 | f32: the type weights and activations meet in; auto: bf16 where fast
  // Matrices of GGUF block types: keep (used as they lie: less memory, twice as fast or more for few rows at a time; no
  // weight is rounded), widen (copied to bfloat16 or float32: a tenth faster for many rows; each weight is rounded to
  // that), auto (keep where this CPU multiplies them fast, but see many_rows). int8: as keep, but products take
  // activations rounded to 8 bits per 32 of them, as llama.cpp does (about 1 % noise in each product). Answers of the
  // three differ by these roundings; each is batch-invariant.
  std::string quantised = "auto";
  // What `auto` is for: many rows at a time, as in a study, rather than few. It widens then, where all copies together
  // take 4 GiB or less.
  bool many_rows = false;
  // Keys and values in memory: f32, bf16 (half the memory, and attention by bfloat16 products where the CPU has them),
  // auto (bf16 where such products are several times as fast and the model does not run in f32).
  std::string kv = "auto";
  // Instruction set of the kernels: auto (the best that this CPU has), amx, avx512bf16, avx512, avx2 or generic.
  std::string isa = "auto";
  // mapped: matrices are used where they lie in the file, where their type allows: nothing to load, and processes share
  // them. resident: copied into memory of our own, in huge pages: read 1.4 times as fast where memory is what decoding
  // waits for.
  std::string weights = "mapped";
};

class Model {
 public:
  // A Hugging Face folder, a .gguf file, or a short name ("smollm2"). Throws Error naming what is wrong.
  static std::shared_ptr<const Model> load(const std::string& path_or_name, const LoadOptions& options = {});
  virtual ~Model() = default;

  virtual const Architecture& architecture() const = 0;
  virtual const std::string& path() const = 0;         // the resolved folder or file
  virtual const std::string& name() const = 0;         // "SmolLM2 135M Instruct" or the folder's name
  virtual const std::string& dtype() const = 0;        // "bf16" or "f32"
  virtual const std::string& sha256() const = 0;       // of the weights (computed once, on demand, cached by file)
  virtual std::vector<std::string> notes() const = 0;  // what was read, ignored and why
  virtual bool in_own_memory() const = 0;              // most weights lie in this process's memory, not in mapped files
  virtual double bytes_per_weight() const = 0;         // mean of the blocks' and the unembedding's matrices in memory

  // Rows of the unembedding [vocab, d_model] and the final norm applied to rows, float32: for logit lenses.
  // logits[i] = W_U LN(x[i]).  x [n, d_model] -> out [n, vocab].
  virtual void unembed(Mat<const float> x, bool apply_norm, Mat<float> out) const = 0;
  virtual std::vector<float> embedding_row(int32_t id) const = 0;
};

// The file or folder a MODEL argument means: a path that exists, or a short name in the cache directory. Throws
// kNotFound saying what to put where.
std::string resolve_model(const std::string& path_or_name);

}  // namespace saif
