// OLMo 2: blocks read the residual stream as it is and norm what they add; queries and keys are normed over all heads.
#include "model/families/family.h"

namespace saif {
namespace {

void set_common(Architecture& arch) {
  arch.pre_norms = false;
  arch.post_norms = true;
}

ModelPlan from_config(ConfigReader& config, const std::string& /*model_type*/, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  read_common_keys(config, "Olmo2ForCausalLM");
  read_dimensions(config, arch);
  set_common(arch);
  arch.norm_eps = static_cast<float>(config.number("rms_norm_eps", 1e-5));
  arch.tied_embeddings = config.boolean("tie_word_embeddings", false);
  arch.activation = read_activation(config, "hidden_act");
  check_dimensions(config.source(), arch, tensors);
  set_layers(arch, read_rope(config, arch));
  const Bias bias = config.boolean("attention_bias", false) ? Bias::kRequired : Bias::kNone;
  add_outer_tensors(plan, tensors);
  std::vector<NamedRole> roles = {
      {"self_attn.q_proj", TensorRole::kQ, bias},
      {"self_attn.k_proj", TensorRole::kK, bias},
      {"self_attn.v_proj", TensorRole::kV, bias},
      {"self_attn.o_proj", TensorRole::kO, bias},
      {"post_attention_layernorm", TensorRole::kPostAttn},
      {"mlp.gate_proj", TensorRole::kGate},
      {"mlp.up_proj", TensorRole::kUp},
      {"mlp.down_proj", TensorRole::kDown},
      {"post_feedforward_layernorm", TensorRole::kPostMlp},
      {"self_attn.q_norm", TensorRole::kQNorm, Bias::kNone, false, {}, arch.n_heads * arch.d_head},
      {"self_attn.k_norm", TensorRole::kKNorm, Bias::kNone, false, {}, arch.n_kv_heads * arch.d_head},
  };
  for (int i = 0; i < arch.n_layers; ++i) {
    add_tensors(plan, tensors, i, "model.layers." + std::to_string(i) + ".", roles);
  }
  return plan;
}

ModelPlan from_gguf(ConfigReader& config, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  read_gguf_dimensions(config, arch, tensors);
  set_common(arch);
  arch.norm_eps = static_cast<float>(config.number("attention.layer_norm_rms_epsilon"));
  check_dimensions(config.source(), arch, tensors);
  set_layers(arch, read_gguf_rope(config, plan, tensors));
  add_gguf_outer_tensors(plan, tensors);
  std::vector<NamedRole> roles;
  for (const NamedRole& role : gguf_block_roles(false, plan.arch)) {
    if (role.role != TensorRole::kLn1 && role.role != TensorRole::kLn2) roles.push_back(role);
  }
  roles.push_back({"post_attention_norm", TensorRole::kPostAttn});
  roles.push_back({"post_ffw_norm", TensorRole::kPostMlp});
  roles.push_back({"attn_q_norm", TensorRole::kQNorm, Bias::kNone, false, {}, arch.n_heads * arch.d_head});
  roles.push_back({"attn_k_norm", TensorRole::kKNorm, Bias::kNone, false, {}, arch.n_kv_heads * arch.d_head});
  for (int i = 0; i < arch.n_layers; ++i) add_tensors(plan, tensors, i, "blk." + std::to_string(i) + ".", roles);
  return plan;
}

}  // namespace

extern const Family kOlmo2Family;
const Family kOlmo2Family = {"olmo2", {"olmo2"}, {"olmo2"}, from_config, from_gguf};

}  // namespace saif
