#include <algorithm>
#include <cmath>
#include <map>

#include "model/families/family.h"

namespace saif {

void read_common_keys(ConfigReader& config, std::string_view class_name) {
  if (const Json* classes = config.find("architectures"); classes != nullptr) {
    const std::string expected = "[\"" + std::string(class_name) + "\"]";
    if (classes->dump() != expected) config.fail("architectures", classes->dump(), expected);
  }
  config.ignore({"dtype", "torch_dtype"}, "each tensor carries its own type");
  config.ignore({"transformers_version", "_name_or_path", "_commit_hash", "transformers.js_config", "unsloth_version",
                 "unsloth_fixed", "is_llama_config"},
                "where the file comes from");
  config.ignore({"use_cache", "_attn_implementation_autoset", "_flash_attn_2_enabled", "pretraining_tp",
                 "chunk_size_feed_forward", "torchscript", "return_dict", "output_attentions", "output_hidden_states"},
                "how Transformers runs, not what it computes");
  config.ignore({"initializer_range", "attention_dropout", "hidden_dropout", "resid_pdrop", "attn_pdrop", "embd_pdrop",
                 "classifier_dropout", "output_router_logits", "router_aux_loss_coef", "router_jitter_noise"},
                "training only");
  config.ignore({"bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id"},
                "read with the tokenizer");
  config.ignore({"id2label", "label2id", "problem_type", "task_specific_params", "summary_type", "summary_use_proj",
                 "summary_activation", "summary_proj_to_labels", "summary_first_dropout"},
                "classification only");
  config.require("use_bidirectional_attention", false, "a token sees itself and what is before it");
  config.require("quantization_config", nullptr, "the tensors would have to be dequantised");
  config.require("is_encoder_decoder", false, "decoders only");
  config.require("add_cross_attention", false, "decoders only");
  config.require("pruned_heads", Json::object(), "all heads are computed");
  config.require("rope_interleaved", false, "rotation pairs are halves of a head");
  config.require("is_decoder", false, "what it says is about encoders");
}

void read_dimensions(ConfigReader& config, Architecture& arch) {
  arch.d_model = config.size("hidden_size");
  arch.n_layers = config.size("num_hidden_layers");
  arch.n_heads = config.size("num_attention_heads");
  arch.n_kv_heads = config.size("num_key_value_heads", arch.n_heads);
  arch.d_head = config.size("head_dim", std::max<int64_t>(1, arch.d_model / arch.n_heads));
  arch.d_mlp = config.size("intermediate_size");
  arch.vocab = config.size("vocab_size");
  arch.context = config.size("max_position_embeddings");
}

void check_dimensions(const std::string& source, const Architecture& arch, const TensorSource& tensors) {
  const auto refuse = [&](const std::string& found, const std::string& expected) {
    throw Error(Errc::kBadFormat, source + ": found " + found + ", expected " + expected);
  };
  if (arch.n_heads % arch.n_kv_heads != 0) {
    refuse(std::to_string(arch.n_heads) + " heads on " + std::to_string(arch.n_kv_heads) + " key-value heads",
           "a multiple");
  }
  if (arch.norm_eps < 0) refuse("norm epsilon " + std::to_string(arch.norm_eps), "no negative one");
  if (arch.n_layers > static_cast<int64_t>(tensors.tensors().size())) {
    refuse(std::to_string(arch.n_layers) + " blocks",
           "no more blocks than there are tensors (" + std::to_string(tensors.tensors().size()) + ")");
  }
}

namespace {

std::vector<float> read_divisors(ConfigReader& scaling, std::string_view key, int64_t n) {
  const Json* value = scaling.find(key);
  std::vector<float> out;
  if (value != nullptr && value->is_array()) {
    for (const Json& item : value->items()) {
      if (!item.is_number() || item.as_double() <= 0) scaling.fail(key, item.dump(), "positive numbers");
      out.push_back(static_cast<float>(item.as_double()));
    }
  }
  if (static_cast<int64_t>(out.size()) != n) {
    scaling.fail(key, std::to_string(out.size()) + " numbers", std::to_string(n) + ", one for each rotated pair");
  }
  return out;
}

// Transformers' _compute_yarn_parameters.
void read_yarn(ConfigReader& scaling, const Architecture& arch, RopeSpec& rope) {
  rope.original_context = scaling.size("original_max_position_embeddings", arch.context);
  rope.factor =
      scaling.number("factor", static_cast<double>(arch.context) / static_cast<double>(rope.original_context));
  rope.beta_fast = scaling.number("beta_fast", 32.0);
  rope.beta_slow = scaling.number("beta_slow", 1.0);
  rope.truncate = scaling.boolean("truncate", true);
  const double mscale = scaling.number("mscale", 0.0), mscale_all = scaling.number("mscale_all_dim", 0.0);
  const auto magnitude = [&](double m) { return rope.factor <= 1 ? 1.0 : 0.1 * m * std::log(rope.factor) + 1.0; };
  const double usual = mscale != 0 && mscale_all != 0 ? magnitude(mscale) / magnitude(mscale_all) : magnitude(1);
  rope.attention_factor = scaling.number("attention_factor", usual);
  if (rope.theta <= 1) scaling.fail("rope_theta", std::to_string(rope.theta), "more than 1 under yarn");
}

// LongRoPE (Ding et al. 2024, arXiv 2402.13753; Transformers' _compute_longrope_parameters).
void read_longrope(ConfigReader& scaling, int64_t original, const Architecture& arch, RopeSpec& rope) {
  rope.original_context = scaling.size("original_max_position_embeddings", original);
  rope.frequency_divisors = read_divisors(scaling, "short_factor", rope.rotary_dim / 2);
  rope.long_divisors = read_divisors(scaling, "long_factor", rope.rotary_dim / 2);
  rope.factor = static_cast<double>(arch.context) / static_cast<double>(rope.original_context);
  scaling.ignore({"factor"}, "follows from the contexts");
  const double usual =
      rope.factor <= 1 ? 1.0
                       : std::sqrt(1 + std::log(rope.factor) / std::log(static_cast<double>(rope.original_context)));
  rope.attention_factor = scaling.number("attention_factor", usual);
}

// The scaling fields, spelled alike in both versions but for the type's key. `original`: a config's own key.
void read_scaling(ConfigReader& scaling, int64_t original, const Architecture& arch, RopeSpec& rope) {
  std::string type = scaling.text("rope_type", scaling.text("type", "default"));
  scaling.find("type");
  if (type == "su") type = "longrope";  // its name in early Phi-3 files
  if (type == "default") {
    scaling.ignore({"original_max_position_embeddings", "factor"}, "not used by this rope_type");
    return;
  }
  rope.scaling = type;
  if (type == "linear" || type == "llama3") {
    rope.factor = scaling.number("factor");
    if (rope.factor < 1.0) scaling.fail("factor", std::to_string(rope.factor), "at least 1");
  }
  if (type == "linear") {
    scaling.ignore({"original_max_position_embeddings"}, "not used by this rope_type");
  } else if (type == "llama3") {
    rope.low_freq_factor = scaling.number("low_freq_factor");
    rope.high_freq_factor = scaling.number("high_freq_factor");
    rope.original_context = scaling.size("original_max_position_embeddings");
    if (rope.low_freq_factor <= 0 || rope.high_freq_factor <= rope.low_freq_factor) {
      scaling.fail("high_freq_factor", std::to_string(rope.high_freq_factor),
                   "more than low_freq_factor, which is above 0");
    }
  } else if (type == "yarn") {
    read_yarn(scaling, arch, rope);
  } else if (type == "longrope") {
    read_longrope(scaling, original, arch, rope);
  } else {
    throw Error(Errc::kUnsupported,
                scaling.source() + ": rope_type \"" + type +
                    "\" is not implemented; implemented are default, linear, llama3, yarn, longrope");
  }
}

int64_t rotated(ConfigReader& config, std::string_view key, const Architecture& arch, double fallback) {
  const double partial = config.number(key, fallback);
  const auto dim = static_cast<int64_t>(static_cast<double>(arch.d_head) * partial);
  if (partial <= 0 || partial > 1 || dim < 2 || dim % 2 != 0) {
    config.fail(key, std::to_string(partial),
                "a share of the heads' width " + std::to_string(arch.d_head) + " that is even and not 0");
  }
  return dim;
}

}  // namespace

RopeSpec read_rope_parameters(ConfigReader& parameters, const Architecture& arch, RopeDefaults defaults) {
  RopeSpec rope;
  rope.theta = parameters.number("rope_theta", defaults.theta);
  if (rope.theta <= 0) parameters.fail("rope_theta", std::to_string(rope.theta), "a positive number");
  rope.rotary_dim = rotated(parameters, "partial_rotary_factor", arch, defaults.partial);
  read_scaling(parameters, arch.context, arch, rope);
  parameters.finish();
  return rope;
}

RopeSpec read_rope(ConfigReader& config, const Architecture& arch, RopeDefaults defaults) {
  const bool has_theta = config.present("rope_theta");
  RopeSpec rope;
  rope.theta = config.number("rope_theta", defaults.theta);
  if (rope.theta <= 0) config.fail("rope_theta", std::to_string(rope.theta), "a positive number");
  const int64_t original = config.size("original_max_position_embeddings", arch.context);
  if (config.present("rope_parameters")) {
    if (config.present("rope_scaling")) {
      throw Error(Errc::kBadFormat, config.source() + ": found rope_scaling and rope_parameters, expected one of them");
    }
    ConfigReader parameters = config.nested("rope_parameters");
    defaults.partial = config.number("partial_rotary_factor", defaults.partial);
    RopeSpec read = read_rope_parameters(parameters, arch, {rope.theta, defaults.partial});
    if (has_theta && read.theta != rope.theta) {
      config.fail("rope_theta", std::to_string(rope.theta),
                  "rope_parameters' rope_theta " + std::to_string(read.theta));
    }
    return read;
  }
  rope.rotary_dim = rotated(config, "partial_rotary_factor", arch, defaults.partial);
  ConfigReader scaling = config.nested("rope_scaling");
  read_scaling(scaling, original, arch, rope);
  scaling.finish();
  return rope;
}

void set_layers(Architecture& arch, const RopeSpec& rope, int64_t window) {
  LayerSpec layer;
  layer.window = window;
  layer.rope = rope;
  layer.attention_scale = 1.0F / std::sqrt(static_cast<float>(arch.d_head));
  arch.layers.assign(static_cast<size_t>(arch.n_layers), layer);
}

void check_experts(ConfigReader& config, const Architecture& arch, std::string_view count, std::string_view used) {
  constexpr int64_t kMost = 4096;  // each has places of its own before its tensors are looked for
  if (arch.n_experts > kMost) {
    config.fail(count, std::to_string(arch.n_experts), "at most " + std::to_string(kMost) + " experts");
  }
  if (arch.experts_per_token > arch.n_experts) {
    config.fail(used, std::to_string(arch.experts_per_token),
                "at most the " + std::to_string(arch.n_experts) + " experts");
  }
}

void read_layer_types(ConfigReader& config, Architecture& arch, int64_t window,
                      bool (*is_local)(int64_t layer, int64_t n), int64_t n) {
  const Json* types = config.find("layer_types");
  if (types != nullptr && (!types->is_array() || static_cast<int64_t>(types->size()) != arch.n_layers)) {
    config.fail("layer_types", types->dump(),
                "a list with a type for each of the " + std::to_string(arch.n_layers) + " blocks");
  }
  for (int64_t i = 0; i < arch.n_layers; ++i) {
    bool local = is_local(i, n);
    if (types != nullptr) {
      const Json& type = types->items()[static_cast<size_t>(i)];
      local = type.is_string() && type.as_string() == "sliding_attention";
      if (!local && !(type.is_string() && type.as_string() == "full_attention")) {
        config.fail("layer_types", type.dump(), "sliding_attention or full_attention");
      }
    }
    if (local && window <= 0) config.fail("layer_types", "sliding_attention", "a sliding_window for it");
    arch.layers[static_cast<size_t>(i)].window = local ? window : 0;
  }
}

void add_tensors(ModelPlan& plan, const TensorSource& tensors, int layer, const std::string& prefix,
                 std::span<const NamedRole> roles) {
  for (const NamedRole& r : roles) {
    TensorSlot slot{r.role, layer, prefix + r.name + ".weight"};
    slot.paired_rows = r.paired_rows;
    slot.transposed = r.transposed;
    slot.rows = r.rows;
    slot.length = r.length;
    slot.expert = r.expert;
    plan.tensors.push_back(slot);
    slot.name = prefix + r.name + ".bias";
    slot.bias = true;
    slot.transposed = false;
    const bool there = tensors.find(slot.name) != nullptr;
    if (r.bias == Bias::kRequired || (r.bias == Bias::kIfPresent && there)) plan.tensors.push_back(slot);
  }
}

void ignore_tied(ModelPlan& plan, const std::string& unembedding, const std::string& embedding) {
  plan.ignored.push_back({unembedding, "tie_word_embeddings: the embedding serves", embedding});
}

void add_outer_tensors(ModelPlan& plan, const TensorSource& tensors, Bias norm_bias) {
  std::vector<NamedRole> roles = {{"model.embed_tokens", TensorRole::kEmbedding},
                                  {"model.norm", TensorRole::kFinalNorm, norm_bias}};
  if (!plan.arch.tied_embeddings) roles.push_back({"lm_head", TensorRole::kUnembedding});
  add_tensors(plan, tensors, -1, "", roles);
  plan.ignored.push_back({"rotary_emb.inv_freq", "computed from rope_theta"});
  if (plan.arch.tied_embeddings) ignore_tied(plan, "lm_head.weight", "model.embed_tokens.weight");
}

std::vector<NamedRole> stacked_qkv(const Architecture& arch, const std::string& name, Bias bias, bool transposed) {
  const int64_t queries = arch.n_heads * arch.d_head, keys = arch.n_kv_heads * arch.d_head;
  const int64_t total = queries + 2 * keys;
  std::vector<NamedRole> roles = {{name, TensorRole::kQ, bias, false, {total, 0}},
                                  {name, TensorRole::kK, bias, false, {total, queries}},
                                  {name, TensorRole::kV, bias, false, {total, queries + keys}}};
  for (NamedRole& role : roles) role.transposed = transposed;
  return roles;
}

std::string read_activation(ConfigReader& config, std::string_view key) {
  static const std::map<std::string, std::string> kNames = {{"silu", "silu"},
                                                            {"swish", "silu"},
                                                            {"gelu", "gelu_erf"},
                                                            {"gelu_new", "gelu_tanh"},
                                                            {"gelu_pytorch_tanh", "gelu_tanh"},
                                                            {"relu", "relu"}};
  const std::string found = config.text(key);
  const auto it = kNames.find(found);
  if (it == kNames.end()) config.fail(key, "\"" + found + "\"", "silu, gelu, gelu_new, gelu_pytorch_tanh or relu");
  return it->second;
}

}  // namespace saif
