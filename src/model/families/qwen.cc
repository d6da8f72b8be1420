// Qwen 2 and 2.5 (biases of queries, keys and values), Qwen 3 (normed queries and keys) and its mixtures of experts.
#include <algorithm>

#include "model/families/family.h"

namespace saif {
namespace {

// Sliding windows from max_window_layers on, where they are in use at all.
void read_windows(ConfigReader& config, Architecture& arch, bool by_layer) {
  const bool in_use = config.boolean("use_sliding_window", false);
  const int64_t window = read_window(config, 4096);
  int64_t first = 28;
  if (const Json* layers = config.find("max_window_layers"); layers != nullptr) {
    if (!layers->is_int() || layers->as_int() < 0) config.fail("max_window_layers", layers->dump(), "an integer");
    first = layers->as_int();
  }
  if (!in_use || window == 0) {
    read_layer_types(
        config, arch, 0, [](int64_t, int64_t) { return false; }, 0);
  } else if (by_layer) {
    read_layer_types(
        config, arch, window, [](int64_t layer, int64_t n) { return layer >= n; }, first);
  } else {
    for (LayerSpec& layer : arch.layers) layer.window = window;
  }
}

void read_experts(ConfigReader& config, Architecture& arch) {
  arch.n_experts = config.present("num_local_experts") ? config.size("num_local_experts") : config.size("num_experts");
  config.find("num_experts");
  arch.experts_per_token = config.size("num_experts_per_tok");
  arch.d_expert = config.size("moe_intermediate_size");
  arch.expert_weights_sum_to_one = config.boolean("norm_topk_prob", false);
  check_experts(config, arch, config.present("num_local_experts") ? "num_local_experts" : "num_experts",
                "num_experts_per_tok");
  const int64_t step = config.size("decoder_sparse_step", 1);
  const Json* dense = config.find("mlp_only_layers");
  for (int64_t i = 0; i < arch.n_layers; ++i) {
    const bool listed =
        dense != nullptr && dense->is_array() &&
        std::ranges::any_of(dense->items(), [&](const Json& item) { return item.is_int() && item.as_int() == i; });
    arch.layers[static_cast<size_t>(i)].experts = !listed && (i + 1) % step == 0;
  }
}

void add_mlp(ModelPlan& plan, const TensorSource& tensors, int layer, const std::string& prefix) {
  const auto mlp = [&](const std::string& name, int expert) {
    NamedRole roles[] = {{name + "gate_proj", TensorRole::kGate},
                         {name + "up_proj", TensorRole::kUp},
                         {name + "down_proj", TensorRole::kDown}};
    for (NamedRole& role : roles) role.expert = expert;
    add_tensors(plan, tensors, layer, prefix, roles);
  };
  if (!plan.arch.layers[static_cast<size_t>(layer)].experts) return mlp("mlp.", -1);
  const NamedRole router[] = {{"mlp.gate", TensorRole::kRouter}};
  add_tensors(plan, tensors, layer, prefix, router);
  for (int e = 0; e < plan.arch.n_experts; ++e) mlp("mlp.experts." + std::to_string(e) + ".", e);
}

ModelPlan from_config(ConfigReader& config, const std::string& model_type, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  const bool second = model_type == "qwen2", mixture = model_type == "qwen3_moe";
  read_common_keys(config, second ? "Qwen2ForCausalLM" : mixture ? "Qwen3MoeForCausalLM" : "Qwen3ForCausalLM");
  read_dimensions(config, arch);
  arch.norm_eps = static_cast<float>(config.number("rms_norm_eps"));
  arch.tied_embeddings = config.boolean("tie_word_embeddings", false);
  arch.activation = read_activation(config, "hidden_act");
  check_dimensions(config.source(), arch, tensors);
  set_layers(arch, read_rope(config, arch));
  read_windows(config, arch, !mixture);
  if (mixture) read_experts(config, arch);
  const bool has_bias = !second && config.boolean("attention_bias", false);
  const Bias qkv = second || has_bias ? Bias::kRequired : Bias::kNone, o = has_bias ? Bias::kRequired : Bias::kNone;

  add_outer_tensors(plan, tensors);
  std::vector<NamedRole> roles = {
      {"input_layernorm", TensorRole::kLn1},     {"self_attn.q_proj", TensorRole::kQ, qkv},
      {"self_attn.k_proj", TensorRole::kK, qkv}, {"self_attn.v_proj", TensorRole::kV, qkv},
      {"self_attn.o_proj", TensorRole::kO, o},   {"post_attention_layernorm", TensorRole::kLn2},
  };
  if (!second) {
    for (const auto& [name, role] :
         {std::pair("self_attn.q_norm", TensorRole::kQNorm), {"self_attn.k_norm", TensorRole::kKNorm}}) {
      roles.push_back({name, role});
      roles.back().length = arch.d_head;
    }
  }
  for (int i = 0; i < arch.n_layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    add_tensors(plan, tensors, i, prefix, roles);
    add_mlp(plan, tensors, i, prefix);
  }
  return plan;
}

ModelPlan from_gguf(ConfigReader& config, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  read_gguf_experts(config, arch);
  read_gguf_dimensions(config, arch, tensors);
  arch.norm_eps = static_cast<float>(config.number("attention.layer_norm_rms_epsilon"));
  check_dimensions(config.source(), arch, tensors);
  set_layers(arch, read_gguf_rope(config, plan, tensors));
  for (LayerSpec& layer : arch.layers) layer.experts = arch.n_experts > 0;
  add_gguf_outer_tensors(plan, tensors);
  std::vector<NamedRole> roles = gguf_block_roles(false, arch);
  if (tensors.find("blk.0.attn_q_norm.weight") != nullptr) {
    for (const auto& [name, role] :
         {std::pair("attn_q_norm", TensorRole::kQNorm), {"attn_k_norm", TensorRole::kKNorm}}) {
      roles.push_back({name, role});
      roles.back().length = arch.d_head;
    }
  }
  for (int i = 0; i < arch.n_layers; ++i) add_tensors(plan, tensors, i, "blk." + std::to_string(i) + ".", roles);
  return plan;
}

}  // namespace

extern const Family kQwenFamily;
const Family kQwenFamily = {
    "qwen", {"qwen2", "qwen3", "qwen3_moe"}, {"qwen2", "qwen3", "qwen3moe"}, from_config, from_gguf};

}  // namespace saif
