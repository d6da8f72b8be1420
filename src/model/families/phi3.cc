// Phi 3, 3.5 and 4 mini: stacked projections, partial rotation, longrope.
#include "model/families/family.h"

namespace saif {
namespace {

// gate and up stacked in one matrix.
void add_block(ModelPlan& plan, const TensorSource& tensors, int layer, const std::string& prefix,
               std::vector<NamedRole> roles, const std::string& gate_up) {
  const int64_t d_mlp = plan.arch.d_mlp;
  roles.push_back({gate_up, TensorRole::kGate, Bias::kNone, false, {2 * d_mlp, 0}});
  roles.push_back({gate_up, TensorRole::kUp, Bias::kNone, false, {2 * d_mlp, d_mlp}});
  add_tensors(plan, tensors, layer, prefix, roles);
}

ModelPlan from_config(ConfigReader& config, const std::string& /*model_type*/, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  read_common_keys(config, "Phi3ForCausalLM");
  config.ignore({"auto_map"}, "where the file comes from");
  config.require("attention_bias", false, "phi3 has no biases");
  read_dimensions(config, arch);
  arch.norm_eps = static_cast<float>(config.number("rms_norm_eps"));
  arch.tied_embeddings = config.boolean("tie_word_embeddings", false);
  arch.activation = read_activation(config, "hidden_act");
  check_dimensions(config.source(), arch, tensors);
  set_layers(arch, read_rope(config, arch, {.may_be_partial = true, .original = 4096}), read_window(config, 0));
  add_outer_tensors(plan, tensors);
  std::vector<NamedRole> roles = stacked_qkv(arch, "self_attn.qkv_proj", Bias::kNone);
  roles.push_back({"input_layernorm", TensorRole::kLn1});
  roles.push_back({"self_attn.o_proj", TensorRole::kO});
  roles.push_back({"post_attention_layernorm", TensorRole::kLn2});
  roles.push_back({"mlp.down_proj", TensorRole::kDown});
  for (int i = 0; i < arch.n_layers; ++i) {
    add_block(plan, tensors, i, "model.layers." + std::to_string(i) + ".", roles, "mlp.gate_up_proj");
  }
  return plan;
}

ModelPlan from_gguf(ConfigReader& config, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  read_gguf_dimensions(config, arch, tensors);
  arch.norm_eps = static_cast<float>(config.number("attention.layer_norm_rms_epsilon"));
  check_dimensions(config.source(), arch, tensors);
  const Json* window = config.find("attention.sliding_window");  // 0: none
  set_layers(arch, read_gguf_rope(config, plan, tensors), window != nullptr && window->is_int() ? window->as_int() : 0);
  add_gguf_outer_tensors(plan, tensors);
  std::vector<NamedRole> roles = stacked_qkv(arch, "attn_qkv", Bias::kNone);
  roles.push_back({"attn_norm", TensorRole::kLn1});
  roles.push_back({"attn_output", TensorRole::kO});
  roles.push_back({"ffn_norm", TensorRole::kLn2});
  roles.push_back({"ffn_down", TensorRole::kDown});
  for (int i = 0; i < arch.n_layers; ++i) {
    add_block(plan, tensors, i, "blk." + std::to_string(i) + ".", roles, "ffn_up");
  }
  return plan;
}

}  // namespace

extern const Family kPhi3Family;
const Family kPhi3Family = {"phi3", {"phi3"}, {"phi3"}, from_config, from_gguf};

}  // namespace saif
