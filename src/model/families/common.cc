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
  config.ignore({"initializer_range", "attention_dropout", "attention_probs_dropout_prob", "hidden_dropout",
                 "hidden_dropout_prob", "resid_pdrop", "attn_pdrop", "embd_pdrop", "classifier_dropout",
                 "output_router_logits", "router_aux_loss_coef", "router_jitter_noise"},
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
  config.ignore({"is_decoder"}, "these families' models are decoders whatever it says");
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

void set_layers(Architecture& arch, const RopeSpec& rope, int64_t window) {
  LayerSpec layer;
  layer.window = window;
  layer.rope = rope;
  layer.attention_scale = 1.0F / std::sqrt(static_cast<float>(arch.d_head));
  arch.layers.assign(static_cast<size_t>(arch.n_layers), layer);
}

int64_t read_window(ConfigReader& config, int64_t usual) {
  if (config.absent("sliding_window")) return usual;
  return config.present("sliding_window") ? config.size("sliding_window") : 0;
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
  static const std::map<std::string, std::string> kNames = {
      {"silu", "silu"},          {"swish", "silu"},          {"gelu", "gelu_erf"},
      {"gelu_new", "gelu_tanh"}, {"gelu_fast", "gelu_tanh"}, {"gelu_pytorch_tanh", "gelu_tanh"},
      {"relu", "relu"}};
  const std::string found = config.text(key);
  const auto it = kNames.find(found);
  if (it == kNames.end())
    config.fail(key, "\"" + found + "\"", "silu, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh or relu");
  return it->second;
}

}  // namespace saif
