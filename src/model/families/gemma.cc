// Gemma 1, 2 and 3 (text): norms by 1 + w, scaled embeddings, GeGLU; Gemma 2 soft-caps and post-norms, Gemma 2 and 3
// local blocks, Gemma 3 normed queries and keys and another rotation in local blocks.
#include <cmath>

#include "model/families/family.h"

namespace saif {
namespace {

// Gemma 1 goes by hidden_act, whose "gelu" in the published files means its tanh form; 2 and 3 by hidden_activation.
std::string activation_of(ConfigReader& config, int version) {
  const char* key = version == 1 ? "hidden_act" : "hidden_activation";
  config.ignore({version == 1 ? "hidden_activation" : "hidden_act"}, std::string(key) + " or its default says it");
  if (!config.present(key)) return "gelu_tanh";
  const std::string name = read_activation(config, key);
  return version == 1 && name == "gelu_erf" ? "gelu_tanh" : name;
}

// Absent: what the class takes; null: none.
float read_softcap(ConfigReader& config, std::string_view key, double usual) {
  if (!config.absent(key) && !config.present(key)) return 0;
  const double cap = config.number(key, usual);
  if (cap < 0 || (cap == 0 && config.present(key))) config.fail(key, std::to_string(cap), "a positive number or null");
  return static_cast<float>(cap);
}

bool every_other(int64_t layer, int64_t /*n*/) { return layer % 2 == 0; }
bool all_but_every_nth(int64_t layer, int64_t n) { return (layer + 1) % n != 0; }

// Local blocks rotate with a base of their own and, in Transformers 4's spelling, without scaling.
void read_gemma3_ropes(ConfigReader& config, Architecture& arch) {
  const RopeDefaults global_defaults{.theta = 1e6}, local_defaults{.theta = 1e4, .theta_key = "rope_local_base_freq"};
  if (config.present("original_max_position_embeddings")) {
    config.fail("original_max_position_embeddings", "at the top level",
                "it where the scaling is: Transformers passes over it here");
  }
  RopeSpec global, local;
  ConfigReader parameters = config.nested("rope_parameters");
  if (config.present("rope_parameters")) {
    if (config.present("rope_scaling")) {
      config.fail("rope_scaling", "beside rope_parameters", "one of them");
    }
    ConfigReader full = parameters.nested("full_attention"), sliding = parameters.nested("sliding_attention");
    if (parameters.present("rope_type") || parameters.present("rope_theta")) {
      config.fail("rope_parameters", "not by layer type",
                  "full_attention and sliding_attention in it: Transformers passes over what is beside them");
    }
    parameters.finish();
    global = read_layer_rope(config, full, arch, global_defaults);
    local = read_layer_rope(config, sliding, arch, local_defaults);
  } else {
    if (ConfigReader scaling = config.nested("rope_scaling");
        scaling.present("type") && !scaling.present("rope_type")) {
      scaling.fail("type", scaling.find("type")->dump(), "\"rope_type\": Transformers 5 passes over \"type\" here");
    }
    global = read_rope(config, arch, global_defaults);
    local.theta = config.number("rope_local_base_freq", local_defaults.theta);
    if (local.theta <= 0) config.fail("rope_local_base_freq", std::to_string(local.theta), "a positive number");
    local.rotary_dim = arch.d_head;
  }
  if (global.scaling == "longrope" && local.scaling == "longrope" &&
      global.original_context != local.original_context) {
    throw Error(Errc::kUnsupported, config.source() + ": rope_parameters: full_attention and sliding_attention have " +
                                        std::to_string(global.original_context) + " and " +
                                        std::to_string(local.original_context) +
                                        " as original_max_position_embeddings; only one length is implemented at which "
                                        "prompts begin to be long");
  }
  for (LayerSpec& layer : arch.layers) layer.rope = layer.window > 0 ? local : global;
}

void add_block_tensors(ModelPlan& plan, const TensorSource& tensors, int version, Bias bias) {
  std::vector<NamedRole> roles = {
      {"input_layernorm", TensorRole::kLn1},      {"self_attn.q_proj", TensorRole::kQ, bias},
      {"self_attn.k_proj", TensorRole::kK, bias}, {"self_attn.v_proj", TensorRole::kV, bias},
      {"self_attn.o_proj", TensorRole::kO, bias}, {"mlp.gate_proj", TensorRole::kGate},
      {"mlp.up_proj", TensorRole::kUp},           {"mlp.down_proj", TensorRole::kDown},
  };
  if (version == 1) {
    roles.push_back({"post_attention_layernorm", TensorRole::kLn2});
  } else {
    roles.push_back({"post_attention_layernorm", TensorRole::kPostAttn});
    roles.push_back({"pre_feedforward_layernorm", TensorRole::kLn2});
    roles.push_back({"post_feedforward_layernorm", TensorRole::kPostMlp});
  }
  if (version == 3) {
    for (const auto& [name, role] :
         {std::pair("self_attn.q_norm", TensorRole::kQNorm), {"self_attn.k_norm", TensorRole::kKNorm}}) {
      roles.push_back({name, role});
      roles.back().length = plan.arch.d_head;
    }
  }
  for (int i = 0; i < plan.arch.n_layers; ++i) {
    add_tensors(plan, tensors, i, "model.layers." + std::to_string(i) + ".", roles);
  }
}

void set_scales(Architecture& arch, double query_pre_attn_scalar) {
  arch.embed_scale = static_cast<float>(std::sqrt(static_cast<double>(arch.d_model)));
  for (LayerSpec& layer : arch.layers) {
    layer.attention_scale = static_cast<float>(1.0 / std::sqrt(query_pre_attn_scalar));
  }
}

ModelPlan from_config(ConfigReader& config, const std::string& model_type, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  const int version = model_type == "gemma" ? 1 : model_type == "gemma2" ? 2 : 3;
  read_common_keys(config, version == 1   ? "GemmaForCausalLM"
                           : version == 2 ? "Gemma2ForCausalLM"
                                          : "Gemma3ForCausalLM");
  read_dimensions(config, arch);
  arch.d_head = config.size("head_dim", 256);
  arch.norm_eps = static_cast<float>(config.number("rms_norm_eps", 1e-6));
  arch.norm_offset = 1.0F;
  arch.tied_embeddings = config.boolean("tie_word_embeddings", true);
  arch.activation = activation_of(config, version);
  arch.post_norms = version > 1;
  check_dimensions(config.source(), arch, tensors);
  set_layers(arch, {});
  if (version > 1) {
    if (version == 2) {
      arch.attention_softcap = read_softcap(config, "attn_logit_softcapping", 50.0);
    } else {
      config.ignore({"attn_logit_softcapping"}, "Transformers' Gemma 3 does not apply it");
    }
    arch.logit_softcap = read_softcap(config, "final_logit_softcapping", version == 2 ? 30.0 : 0.0);
    config.ignore({"cache_implementation"}, "how Transformers runs, not what it computes");
    // Written by Transformers, which reads layer_types or the key without the underscore.
    config.ignore({"_sliding_window_pattern"}, "layer_types or sliding_window_pattern say it");
    const int64_t window = read_window(config, 4096), n = config.size("sliding_window_pattern", 6);
    read_layer_types(config, arch, window, version == 2 ? every_other : all_but_every_nth, n);
  }
  if (version == 3) {
    read_gemma3_ropes(config, arch);
  } else {
    const RopeSpec rope = read_rope(config, arch);
    for (LayerSpec& layer : arch.layers) layer.rope = rope;
  }
  set_scales(arch, version == 1 ? static_cast<double>(arch.d_head) : config.number("query_pre_attn_scalar", 256));
  add_outer_tensors(plan, tensors);
  add_block_tensors(plan, tensors, version, config.boolean("attention_bias", false) ? Bias::kRequired : Bias::kNone);
  return plan;
}

// The files hold 1 + w. No key carries query_pre_attn_scalar or which blocks are local: by what the published models
// do.
ModelPlan from_gguf(ConfigReader& config, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  const bool post_norms = tensors.find("blk.0.post_ffw_norm.weight") != nullptr;
  const bool head_norms = tensors.find("blk.0.attn_q_norm.weight") != nullptr;
  read_gguf_dimensions(config, arch, tensors);
  arch.norm_eps = static_cast<float>(config.number("attention.layer_norm_rms_epsilon"));
  arch.activation = "gelu_tanh";
  arch.post_norms = post_norms;
  check_dimensions(config.source(), arch, tensors);
  RopeSpec rope = read_gguf_rope(config, plan, tensors);
  set_layers(arch, rope);
  if (post_norms) {
    arch.attention_softcap = static_cast<float>(config.number("attn_logit_softcapping", 0.0));
    arch.logit_softcap = static_cast<float>(config.number("final_logit_softcapping", 0.0));
    const int64_t window = config.size("attention.sliding_window", 4096);
    for (int64_t i = 0; i < arch.n_layers; ++i) {
      const bool local = head_norms ? all_but_every_nth(i, 6) : every_other(i, 0);
      LayerSpec& layer = arch.layers[static_cast<size_t>(i)];
      layer.window = local ? window : 0;
      if (!head_norms || !local) continue;
      layer.rope = {};
      layer.rope.rotary_dim = rope.rotary_dim;
      layer.rope.theta = config.number("rope.freq_base_swa", 10000.0);
    }
    config.ignore({"attention.sliding_window_pattern"}, "the family's");
  }
  // Gemma 2 27B scales by d_model / n_heads, the others by the heads' width.
  const bool wide = post_norms && !head_norms && arch.n_layers == 46;
  set_scales(arch, static_cast<double>(wide ? arch.d_model / arch.n_heads : arch.d_head));
  add_gguf_outer_tensors(plan, tensors);
  std::vector<NamedRole> roles = gguf_block_roles(false, plan.arch);
  if (post_norms) {
    roles.push_back({"post_attention_norm", TensorRole::kPostAttn});
    roles.push_back({"post_ffw_norm", TensorRole::kPostMlp});
  }
  if (head_norms) {
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

extern const Family kGemmaFamily;
const Family kGemmaFamily = {
    "gemma", {"gemma", "gemma2", "gemma3_text"}, {"gemma", "gemma2", "gemma3"}, from_config, from_gguf};

}  // namespace saif
