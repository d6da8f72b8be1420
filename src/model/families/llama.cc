// Llama 2 and 3, Mistral, SmolLM2, TinyLlama, Granite: RMSNorm, rotary embeddings, grouped heads, gated MLP.
#include <cmath>

#include "model/families/family.h"

namespace saif {
namespace {

// Granite: a Llama whose summands, scores and logits are scaled.
void read_granite_scales(ConfigReader& config, Architecture& arch) {
  arch.embed_scale = static_cast<float>(config.number("embedding_multiplier", 1.0));
  arch.residual_scale = static_cast<float>(config.number("residual_multiplier", 1.0));
  const double logits = config.number("logits_scaling", 1.0), scores = config.number("attention_multiplier", 1.0);
  if (logits == 0) config.fail("logits_scaling", "0", "another number");
  arch.logit_scale = static_cast<float>(1.0 / logits);
  for (LayerSpec& layer : arch.layers) layer.attention_scale = static_cast<float>(scores);
}

ModelPlan from_config(ConfigReader& config, const std::string& model_type, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  const bool mistral = model_type == "mistral", granite = model_type == "granite";
  read_common_keys(config, mistral ? "MistralForCausalLM" : granite ? "GraniteForCausalLM" : "LlamaForCausalLM");
  read_dimensions(config, arch);
  arch.norm_eps = static_cast<float>(config.number("rms_norm_eps"));
  arch.tied_embeddings = config.boolean("tie_word_embeddings", false);
  arch.activation = read_activation(config, "hidden_act");
  check_dimensions(config.source(), arch, tensors);
  set_layers(arch, read_rope(config, arch), mistral ? read_window(config, 4096) : 0);
  if (granite) read_granite_scales(config, arch);
  const Bias attention = !mistral && config.boolean("attention_bias", false) ? Bias::kRequired : Bias::kNone;
  const Bias mlp = !mistral && config.boolean("mlp_bias", false) ? Bias::kRequired : Bias::kNone;

  add_outer_tensors(plan, tensors);
  const NamedRole roles[] = {
      {"input_layernorm", TensorRole::kLn1},           {"self_attn.q_proj", TensorRole::kQ, attention},
      {"self_attn.k_proj", TensorRole::kK, attention}, {"self_attn.v_proj", TensorRole::kV, attention},
      {"self_attn.o_proj", TensorRole::kO, attention}, {"post_attention_layernorm", TensorRole::kLn2},
      {"mlp.gate_proj", TensorRole::kGate, mlp},       {"mlp.up_proj", TensorRole::kUp, mlp},
      {"mlp.down_proj", TensorRole::kDown, mlp},
  };
  for (int i = 0; i < arch.n_layers; ++i) {
    add_tensors(plan, tensors, i, "model.layers." + std::to_string(i) + ".", roles);
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
  // Granite's files have these keys, under an architecture of its own.
  arch.embed_scale = static_cast<float>(config.number("embedding_scale", 1.0));
  arch.residual_scale = static_cast<float>(config.number("residual_scale", 1.0));
  arch.logit_scale = static_cast<float>(1.0 / config.number("logit_scale", 1.0));
  if (config.present("attention.scale")) {
    for (LayerSpec& layer : arch.layers) layer.attention_scale = static_cast<float>(config.number("attention.scale"));
  }
  add_gguf_outer_tensors(plan, tensors);
  for (int i = 0; i < arch.n_layers; ++i) {
    add_tensors(plan, tensors, i, "blk." + std::to_string(i) + ".", gguf_block_roles(true, arch));
  }
  return plan;
}

}  // namespace

extern const Family kLlamaFamily;
const Family kLlamaFamily = {"llama", {"llama", "mistral", "granite"}, {"llama", "granite"}, from_config, from_gguf};

}  // namespace saif
