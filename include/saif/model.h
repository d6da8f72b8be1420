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
  kEmbed,      // hook_embed                       [d_model] what enters block 0
  kResidPre,   // blocks.L.hook_resid_pre          [d_model]
  kLn1,        // blocks.L.ln1.hook_normalized     [d_model] with the norm's weight
  kQ,          // blocks.L.attn.hook_q             [n_heads * d_head] before rotation
  kK,          // blocks.L.attn.hook_k             [n_kv_heads * d_head] before rotation
  kV,          // blocks.L.attn.hook_v             [n_kv_heads * d_head]
  kPattern,    // blocks.L.attn.hook_pattern       [n_heads * n_keys]
  kZ,          // blocks.L.attn.hook_z             [n_heads * d_head] input of the output projection
  kAttnOut,    // blocks.L.hook_attn_out           [d_model] what attention adds
  kResidMid,   // blocks.L.hook_resid_mid          [d_model]
  kLn2,        // blocks.L.ln2.hook_normalized     [d_model]
  kMlpPre,     // blocks.L.mlp.hook_pre            [d_mlp] gate before its activation
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
  std::string scaling = "none";  // none | linear | llama3 (more with later families)
  double factor = 1.0, low_freq_factor = 1.0, high_freq_factor = 4.0;
  int64_t original_context = 0;
  std::vector<float> frequency_divisors;  // GGUF's rope_freqs.weight; empty: from the fields above
  bool operator==(const RopeSpec&) const = default;
};

struct LayerSpec {
  int64_t window = 0;  // 0: full attention
  RopeSpec rope;
};

struct Architecture {
  std::string family;  // "llama"
  int64_t d_model = 0, n_layers = 0, n_heads = 0, n_kv_heads = 0, d_head = 0, d_mlp = 0, vocab = 0, context = 0;
  float norm_eps = 1e-5f;
  float norm_offset = 0.0f;  // 1 where norms store w and mean 1 + w
  float embed_scale = 1.0f;
  float attention_scale = 0.0f;  // multiplies q.k
  float attention_softcap = 0.0f, logit_softcap = 0.0f;
  bool tied_embeddings = false;
  std::string activation = "silu";
  std::vector<LayerSpec> layers;
  int64_t width(const Site& site) const;  // of a row at the site; 0 for kPattern (depends on the row)
  Json to_json() const;
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

  // Rows of the unembedding [vocab, d_model] and the final norm applied to rows, float32: for logit lenses.
  // logits[i] = W_U LN(x[i]).  x [n, d_model] -> out [n, vocab].
  virtual void unembed(Mat<const float> x, bool apply_norm, Mat<float> out) const = 0;
  virtual std::vector<float> embedding_row(int32_t id) const = 0;
};

// The file or folder a MODEL argument means: a path that exists, or a short name in the cache directory. Throws
// kNotFound saying what to put where.
std::string resolve_model(const std::string& path_or_name);

}  // namespace saif
