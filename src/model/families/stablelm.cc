// StableLM: LayerNorm, partial rotation, gated MLP, parallel or sequential blocks, norms of each head by its own
// weights.
#include "model/families/family.h"

namespace saif {
namespace {

ModelPlan from_config(ConfigReader& config, const std::string& /*model_type*/, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  read_common_keys(config, "StableLmForCausalLM");
  read_dimensions(config, arch);
  arch.norm = NormKind::kLayer;
  arch.norm_eps = static_cast<float>(config.number("layer_norm_eps", 1e-5));
  arch.parallel_block = arch.shared_norm = config.boolean("use_parallel_residual", false);
  arch.head_norms_differ = config.boolean("qk_layernorm", false);
  arch.tied_embeddings = config.boolean("tie_word_embeddings", false);
  arch.activation = read_activation(config, "hidden_act");
  check_dimensions(config.source(), arch, tensors);
  set_layers(arch, read_rope(config, arch, {.partial = 0.25, .may_be_partial = true}));
  const Bias qkv = config.boolean("use_qkv_bias", false) ? Bias::kRequired : Bias::kNone;
  add_outer_tensors(plan, tensors, Bias::kRequired);
  std::vector<NamedRole> roles = {
      {"input_layernorm", TensorRole::kLn1, Bias::kRequired},
      {"self_attn.q_proj", TensorRole::kQ, qkv},
      {"self_attn.k_proj", TensorRole::kK, qkv},
      {"self_attn.v_proj", TensorRole::kV, qkv},
      {"self_attn.o_proj", TensorRole::kO},
      {"mlp.gate_proj", TensorRole::kGate},
      {"mlp.up_proj", TensorRole::kUp},
      {"mlp.down_proj", TensorRole::kDown},
  };
  if (!arch.parallel_block) roles.push_back({"post_attention_layernorm", TensorRole::kLn2, Bias::kRequired});
  const auto head_norms = [&](const std::string& name, TensorRole role, int64_t heads) {
    for (int64_t h = 0; h < heads; ++h) {
      roles.push_back({"self_attn." + name + ".norms." + std::to_string(h),
                       role,
                       Bias::kNone,
                       false,
                       {heads * arch.d_head, h * arch.d_head},
                       arch.d_head});
    }
  };
  if (arch.head_norms_differ) {
    head_norms("q_layernorm", TensorRole::kQNorm, arch.n_heads);
    head_norms("k_layernorm", TensorRole::kKNorm, arch.n_kv_heads);
  }
  for (int i = 0; i < arch.n_layers; ++i) {
    add_tensors(plan, tensors, i, "model.layers." + std::to_string(i) + ".", roles);
  }
  return plan;
}

ModelPlan from_gguf(ConfigReader& config, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  read_gguf_dimensions(config, arch, tensors);
  arch.norm = NormKind::kLayer;
  arch.norm_eps = static_cast<float>(config.number("attention.layer_norm_epsilon"));
  arch.parallel_block = arch.shared_norm = config.boolean("use_parallel_residual", false);
  check_dimensions(config.source(), arch, tensors);
  set_layers(arch, read_gguf_rope(config, plan, tensors));
  add_gguf_outer_tensors(plan, tensors, Bias::kRequired);
  std::vector<NamedRole> roles;
  for (const NamedRole& role : gguf_block_roles(false, plan.arch)) {
    if (role.role != TensorRole::kLn2 || !arch.parallel_block) roles.push_back(role);
  }
  for (int i = 0; i < arch.n_layers; ++i) add_tensors(plan, tensors, i, "blk." + std::to_string(i) + ".", roles);
  return plan;
}

}  // namespace

extern const Family kStableLmFamily;
const Family kStableLmFamily = {"stablelm", {"stablelm"}, {"stablelm"}, from_config, from_gguf};

}  // namespace saif
