// Llama 2 and 3, Mistral, SmolLM2, TinyLlama: RMSNorm, rotary embeddings, grouped heads, gated MLP.
#include <algorithm>
#include <cmath>
#include <span>

#include "model/families/family.h"

namespace saif {
namespace {

struct Names {
  const char* role;  // within a block, between its prefix and ".weight" or ".bias"
  TensorRole weight;
  TensorRole bias;
};

void add_block(ModelPlan& plan, const TensorSource& tensors, int layer, const std::string& prefix,
               std::span<const Names> names, bool paired_rows) {
  for (const auto& [role, weight, bias] : names) {
    const bool paired = paired_rows && (weight == TensorRole::kQ || weight == TensorRole::kK);
    plan.tensors.push_back({weight, layer, prefix + role + ".weight", paired});
    if (weight == bias) continue;  // a norm
    const std::string bias_name = prefix + role + ".bias";
    if (tensors.find(bias_name) != nullptr) plan.tensors.push_back({bias, layer, bias_name, paired});
  }
}

constexpr Names kHuggingFaceNames[] = {
    {"input_layernorm", TensorRole::kLn1, TensorRole::kLn1},
    {"self_attn.q_proj", TensorRole::kQ, TensorRole::kQBias},
    {"self_attn.k_proj", TensorRole::kK, TensorRole::kKBias},
    {"self_attn.v_proj", TensorRole::kV, TensorRole::kVBias},
    {"self_attn.o_proj", TensorRole::kO, TensorRole::kOBias},
    {"post_attention_layernorm", TensorRole::kLn2, TensorRole::kLn2},
    {"mlp.gate_proj", TensorRole::kGate, TensorRole::kGateBias},
    {"mlp.up_proj", TensorRole::kUp, TensorRole::kUpBias},
    {"mlp.down_proj", TensorRole::kDown, TensorRole::kDownBias},
};

constexpr Names kGgufNames[] = {
    {"attn_norm", TensorRole::kLn1, TensorRole::kLn1},      {"attn_q", TensorRole::kQ, TensorRole::kQBias},
    {"attn_k", TensorRole::kK, TensorRole::kKBias},         {"attn_v", TensorRole::kV, TensorRole::kVBias},
    {"attn_output", TensorRole::kO, TensorRole::kOBias},    {"ffn_norm", TensorRole::kLn2, TensorRole::kLn2},
    {"ffn_gate", TensorRole::kGate, TensorRole::kGateBias}, {"ffn_up", TensorRole::kUp, TensorRole::kUpBias},
    {"ffn_down", TensorRole::kDown, TensorRole::kDownBias},
};

// The config says which biases exist: a bias that it does not announce must not be there, nor one that it does be
// absent.
void check_biases(const ConfigReader& config, const ModelPlan& plan, bool attention, bool mlp) {
  int64_t found_attention = 0, found_mlp = 0;
  for (const TensorSlot& slot : plan.tensors) {
    if (slot.role >= TensorRole::kQBias && slot.role <= TensorRole::kOBias) ++found_attention;
    if (slot.role >= TensorRole::kGateBias && slot.role <= TensorRole::kDownBias) ++found_mlp;
  }
  const auto check = [&](const char* key, bool announced, int64_t found, int64_t per_block) {
    const int64_t expected = announced ? per_block * plan.arch.n_layers : 0;
    if (found != expected) {
      throw Error(Errc::kMismatch, config.source() + ": \"" + key + "\" announces " + std::to_string(expected) +
                                       " bias tensors, the weights hold " + std::to_string(found));
    }
  };
  check("attention_bias", attention, found_attention, 4);
  check("mlp_bias", mlp, found_mlp, 3);
}

ModelPlan from_config(ConfigReader& config, const std::string& model_type, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  read_common_keys(config);
  if (const Json* classes = config.find("architectures"); classes != nullptr) {
    const std::string expected = model_type == "mistral" ? "[\"MistralForCausalLM\"]" : "[\"LlamaForCausalLM\"]";
    if (classes->dump() != expected) config.fail("architectures", classes->dump(), expected);
  }
  arch.d_model = config.size("hidden_size");
  arch.n_layers = config.size("num_hidden_layers");
  arch.n_heads = config.size("num_attention_heads");
  arch.n_kv_heads = config.size("num_key_value_heads", arch.n_heads);
  arch.d_head = config.size("head_dim", std::max<int64_t>(1, arch.d_model / arch.n_heads));
  arch.d_mlp = config.size("intermediate_size");
  arch.vocab = config.size("vocab_size");
  arch.context = config.size("max_position_embeddings");
  arch.norm_eps = static_cast<float>(config.number("rms_norm_eps"));
  arch.tied_embeddings = config.boolean("tie_word_embeddings", false);
  arch.activation = read_activation(config, "hidden_act");
  arch.attention_scale = 1.0F / std::sqrt(static_cast<float>(arch.d_head));
  LayerSpec layer{0, read_rope(config)};
  bool attention_bias = false, mlp_bias = false;
  if (model_type == "mistral") {
    if (config.present("sliding_window")) layer.window = config.size("sliding_window");
  } else {
    attention_bias = config.boolean("attention_bias", false);
    mlp_bias = config.boolean("mlp_bias", false);
  }
  check_dimensions(config.source(), arch, tensors);
  arch.layers.assign(static_cast<size_t>(arch.n_layers), layer);

  plan.tensors.push_back({TensorRole::kEmbedding, -1, "model.embed_tokens.weight"});
  plan.tensors.push_back({TensorRole::kFinalNorm, -1, "model.norm.weight"});
  if (!arch.tied_embeddings) plan.tensors.push_back({TensorRole::kUnembedding, -1, "lm_head.weight"});
  for (int i = 0; i < arch.n_layers; ++i) {
    add_block(plan, tensors, i, "model.layers." + std::to_string(i) + ".", kHuggingFaceNames, false);
  }
  check_biases(config, plan, attention_bias, mlp_bias);
  plan.ignored.push_back({"rotary_emb.inv_freq", "computed from rope_theta"});
  if (arch.tied_embeddings) plan.ignored.push_back({"lm_head.weight", "tie_word_embeddings: the embedding serves"});
  return plan;
}

// Some files give one value per block.
int64_t same_for_all_blocks(ConfigReader& config, std::string_view key, std::optional<int64_t> fallback = {}) {
  const Json* value = config.find(key);
  if (value == nullptr || !value->is_array()) return config.size(key, fallback);
  for (const Json& item : value->items()) {
    if (item.dump() != value->items()[0].dump()) config.fail(key, value->dump(), "the same value for all blocks");
  }
  if (value->size() == 0 || !value->items()[0].is_int()) config.fail(key, value->dump(), "integers");
  return value->items()[0].as_int();
}

ModelPlan from_gguf(ConfigReader& config, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  arch.d_model = config.size("embedding_length");
  arch.n_layers = config.size("block_count");
  arch.n_heads = same_for_all_blocks(config, "attention.head_count");
  arch.n_kv_heads = same_for_all_blocks(config, "attention.head_count_kv", arch.n_heads);
  arch.d_head = config.size("attention.key_length", std::max<int64_t>(1, arch.d_model / arch.n_heads));
  config.require("attention.value_length", arch.d_head, "values as wide as keys");
  config.require("rope.dimension_count", arch.d_head, "whole heads are rotated");
  arch.d_mlp = same_for_all_blocks(config, "feed_forward_length");
  const SourceTensor* embedding = tensors.find("token_embd.weight");
  const bool has_rows = embedding != nullptr && embedding->shape.size() == 2;
  arch.vocab = config.size("vocab_size", has_rows ? std::optional(embedding->shape[0]) : std::nullopt);
  arch.context = config.size("context_length");
  arch.attention_scale = 1.0F / std::sqrt(static_cast<float>(arch.d_head));
  arch.norm_eps = static_cast<float>(config.number("attention.layer_norm_rms_epsilon"));
  arch.tied_embeddings = tensors.find("output.weight") == nullptr;
  config.ignore({"tensor_data_layout"}, "GGUF fixes the order of rows");
  config.require("expert_count", 0, "no mixtures of experts");
  config.require("expert_used_count", 0, "no mixtures of experts");

  LayerSpec layer;
  RopeSpec& rope = layer.rope;
  rope.theta = config.number("rope.freq_base", 10000.0);
  if (const std::string type = config.text("rope.scaling.type", "none"); type == "linear") {
    rope.scaling = "linear";
    rope.factor = config.number("rope.scaling.factor");
  } else if (type == "none") {
    config.ignore({"rope.scaling.factor"}, "rope.scaling.type is none");
  } else {
    config.fail("rope.scaling.type", "\"" + type + "\"", "none or linear");
  }
  config.ignore({"rope.scaling.original_context_length", "rope.scaling.finetuned"}, "not used by this rope scaling");
  check_dimensions(config.source(), arch, tensors);
  if (const SourceTensor* divisors = tensors.find("rope_freqs.weight"); divisors != nullptr) {
    rope.frequency_divisors = read_vector(*divisors, arch.d_head / 2, "d_head / 2");
    plan.ignored.push_back({"rope_freqs.weight", "read as the divisors of the rotation's frequencies"});
  }
  arch.layers.assign(static_cast<size_t>(arch.n_layers), layer);

  plan.tensors.push_back({TensorRole::kEmbedding, -1, "token_embd.weight"});
  plan.tensors.push_back({TensorRole::kFinalNorm, -1, "output_norm.weight"});
  if (!arch.tied_embeddings) plan.tensors.push_back({TensorRole::kUnembedding, -1, "output.weight"});
  for (int i = 0; i < arch.n_layers; ++i) {
    add_block(plan, tensors, i, "blk." + std::to_string(i) + ".", kGgufNames, true);
  }
  return plan;
}

}  // namespace

extern const Family kLlamaFamily;
const Family kLlamaFamily = {"llama", {"llama", "mistral"}, {"llama"}, from_config, from_gguf};

}  // namespace saif
