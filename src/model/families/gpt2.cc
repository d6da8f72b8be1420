// GPT-2: LayerNorm, learned positions, stacked projections stored [in, out], an MLP without a gate.
#include <cmath>

#include "model/families/family.h"

namespace saif {
namespace {

void set_common(Architecture& arch) {
  arch.norm = NormKind::kLayer;
  arch.gated_mlp = false;
  arch.learned_positions = true;
  set_layers(arch, {});
}

ModelPlan from_config(ConfigReader& config, const std::string& /*model_type*/, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  read_common_keys(config, "GPT2LMHeadModel");
  config.ignore({"reorder_and_upcast_attn"}, "scores are float32 here in any case");
  config.ignore({"n_ctx"}, "n_positions says it");
  config.require("scale_attn_weights", true, "scores are scaled by the heads' width");
  arch.d_model = config.size("n_embd");
  arch.n_layers = config.size("n_layer");
  arch.n_heads = arch.n_kv_heads = config.size("n_head");
  arch.d_head = arch.d_model / arch.n_heads;
  arch.d_mlp = config.size("n_inner", 4 * arch.d_model);
  arch.vocab = config.size("vocab_size");
  arch.context = config.size("n_positions");
  arch.norm_eps = static_cast<float>(config.number("layer_norm_epsilon", 1e-5));
  arch.tied_embeddings = config.boolean("tie_word_embeddings", true);
  arch.activation = read_activation(config, "activation_function");
  check_dimensions(config.source(), arch, tensors);
  set_common(arch);
  if (config.boolean("scale_attn_by_inverse_layer_idx", false)) {
    for (size_t i = 0; i < arch.layers.size(); ++i) arch.layers[i].attention_scale /= static_cast<float>(i + 1);
  }

  // The published gpt2 has no prefix.
  const std::string prefix = tensors.find("wte.weight") != nullptr ? "" : "transformer.";
  std::vector<NamedRole> outer = {{"wte", TensorRole::kEmbedding},
                                  {"wpe", TensorRole::kPositions},
                                  {"ln_f", TensorRole::kFinalNorm, Bias::kRequired}};
  add_tensors(plan, tensors, -1, prefix, outer);
  if (!arch.tied_embeddings) plan.tensors.push_back({TensorRole::kUnembedding, -1, "lm_head.weight"});
  if (arch.tied_embeddings) ignore_tied(plan, "lm_head.weight", prefix + "wte.weight");
  plan.ignored.push_back({".attn.bias", "the causal mask"});
  plan.ignored.push_back({".attn.masked_bias", "the causal mask"});
  std::vector<NamedRole> roles = stacked_qkv(arch, "attn.c_attn", Bias::kRequired, true);
  roles.push_back({"ln_1", TensorRole::kLn1, Bias::kRequired});
  roles.push_back({"ln_2", TensorRole::kLn2, Bias::kRequired});
  for (const auto& [name, role] :
       {std::pair("attn.c_proj", TensorRole::kO), {"mlp.c_fc", TensorRole::kGate}, {"mlp.c_proj", TensorRole::kDown}}) {
    roles.push_back({name, role, Bias::kRequired});
    roles.back().transposed = true;
  }
  for (int i = 0; i < arch.n_layers; ++i) add_tensors(plan, tensors, i, prefix + "h." + std::to_string(i) + ".", roles);
  return plan;
}

ModelPlan from_gguf(ConfigReader& config, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  read_gguf_dimensions(config, arch, tensors);
  arch.norm_eps = static_cast<float>(config.number("attention.layer_norm_epsilon"));
  arch.activation = "gelu_tanh";
  check_dimensions(config.source(), arch, tensors);
  set_common(arch);
  add_gguf_outer_tensors(plan, tensors, Bias::kRequired);
  plan.tensors.push_back({TensorRole::kPositions, -1, "position_embd.weight"});
  std::vector<NamedRole> roles = stacked_qkv(arch, "attn_qkv", Bias::kRequired);
  for (const auto& [name, role] : {std::pair("attn_norm", TensorRole::kLn1),
                                   {"ffn_norm", TensorRole::kLn2},
                                   {"attn_output", TensorRole::kO},
                                   {"ffn_up", TensorRole::kGate},
                                   {"ffn_down", TensorRole::kDown}}) {
    roles.push_back({name, role, Bias::kRequired});
  }
  for (int i = 0; i < arch.n_layers; ++i) add_tensors(plan, tensors, i, "blk." + std::to_string(i) + ".", roles);
  return plan;
}

}  // namespace

extern const Family kGpt2Family;
const Family kGpt2Family = {"gpt2", {"gpt2"}, {"gpt2"}, from_config, from_gguf};

}  // namespace saif
