// Mixtral: Mistral with a mixture of experts in every block.
#include "model/families/family.h"

namespace saif {
namespace {

ModelPlan from_config(ConfigReader& config, const std::string& /*model_type*/, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  read_common_keys(config, "MixtralForCausalLM");
  read_dimensions(config, arch);
  arch.norm_eps = static_cast<float>(config.number("rms_norm_eps"));
  arch.tied_embeddings = config.boolean("tie_word_embeddings", false);
  arch.activation = read_activation(config, "hidden_act");
  arch.n_experts = config.size("num_local_experts");
  arch.experts_per_token = config.size("num_experts_per_tok");
  arch.d_expert = arch.d_mlp;
  check_experts(config, arch, "num_local_experts", "num_experts_per_tok");
  check_dimensions(config.source(), arch, tensors);
  set_layers(arch, read_rope(config, arch, {.theta = 1e6}), read_window(config, 0));
  for (LayerSpec& layer : arch.layers) layer.experts = true;

  add_outer_tensors(plan, tensors);
  std::vector<NamedRole> roles = {
      {"input_layernorm", TensorRole::kLn1},          {"self_attn.q_proj", TensorRole::kQ},
      {"self_attn.k_proj", TensorRole::kK},           {"self_attn.v_proj", TensorRole::kV},
      {"self_attn.o_proj", TensorRole::kO},           {"post_attention_layernorm", TensorRole::kLn2},
      {"block_sparse_moe.gate", TensorRole::kRouter},
  };
  for (int e = 0; e < arch.n_experts; ++e) {
    const std::string name = "block_sparse_moe.experts." + std::to_string(e) + ".";
    for (const auto& [part, role] :
         {std::pair("w1", TensorRole::kGate), {"w3", TensorRole::kUp}, {"w2", TensorRole::kDown}}) {
      roles.push_back({name + part, role});
      roles.back().expert = e;
    }
  }
  for (int i = 0; i < arch.n_layers; ++i) {
    add_tensors(plan, tensors, i, "model.layers." + std::to_string(i) + ".", roles);
  }
  return plan;
}

}  // namespace

extern const Family kMixtralFamily;
const Family kMixtralFamily = {"mixtral", {"mixtral"}, {}, from_config, nullptr};

}  // namespace saif
