// GPT-NeoX and Pythia: LayerNorm, partial rotation, parallel or sequential blocks, an MLP without a gate.
#include "model/families/family.h"

namespace saif {
namespace {

// Transformers' class passes over the keys that other families have.
void check_passed_over(ConfigReader& config, const Architecture& arch, const RopeSpec& rope) {
  constexpr std::string_view kTodo =
      "GPT-NeoX is read by rotary_emb_base and rotary_pct or by rope_parameters; remove it";
  if (config.number("rope_theta", rope.theta) != rope.theta) {
    config.conflict("rope_theta", "\"rotary_emb_base\" (or its default) is " + Json(rope.theta).dump(), kTodo);
  }
  if (!config.present("partial_rotary_factor")) return;
  const auto width = static_cast<double>(arch.d_head);
  if (static_cast<int64_t>(config.number("partial_rotary_factor") * width) != rope.rotary_dim) {
    const Json turned(static_cast<double>(rope.rotary_dim) / width);
    config.conflict("partial_rotary_factor", "\"rotary_pct\" (or its default) is " + turned.dump(), kTodo);
  }
}

ModelPlan from_config(ConfigReader& config, const std::string& /*model_type*/, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  read_common_keys(config, "GPTNeoXForCausalLM");
  read_dimensions(config, arch);
  arch.n_kv_heads = arch.n_heads;
  arch.norm = NormKind::kLayer;
  arch.norm_eps = static_cast<float>(config.number("layer_norm_eps", 1e-5));
  arch.gated_mlp = false;
  arch.parallel_block = config.boolean("use_parallel_residual", true);
  arch.tied_embeddings = config.boolean("tie_word_embeddings", false);
  arch.activation = read_activation(config, "hidden_act");
  check_dimensions(config.source(), arch, tensors);
  const RopeSpec rope = read_rope(config, arch, {10000.0, 0.25, true, 0, "rotary_emb_base", "rotary_pct"});
  check_passed_over(config, arch, rope);
  set_layers(arch, rope);
  const Bias attention = config.boolean("attention_bias", true) ? Bias::kRequired : Bias::kNone;

  const NamedRole outer[] = {{"gpt_neox.embed_in", TensorRole::kEmbedding},
                             {"gpt_neox.final_layer_norm", TensorRole::kFinalNorm, Bias::kRequired}};
  add_tensors(plan, tensors, -1, "", outer);
  if (!arch.tied_embeddings) plan.tensors.push_back({TensorRole::kUnembedding, -1, "embed_out.weight"});
  if (!arch.tied_embeddings && tensors.find("embed_out.weight") == nullptr) plan.tensors.back().name = "lm_head.weight";
  if (arch.tied_embeddings) ignore_tied(plan, "embed_out.weight", "gpt_neox.embed_in.weight");
  for (const char* suffix : {".attention.bias", ".attention.masked_bias"}) {
    plan.ignored.push_back({suffix, "the causal mask"});
  }
  plan.ignored.push_back({"rotary_emb.inv_freq", "computed from rope_theta"});
  // Rows of query_key_value: [head, (q, k, v), d_head].
  const int64_t d = arch.d_head, total = 3 * arch.n_heads * d;
  const std::string stacked = "attention.query_key_value";
  const NamedRole roles[] = {{"input_layernorm", TensorRole::kLn1, Bias::kRequired},
                             {"post_attention_layernorm", TensorRole::kLn2, Bias::kRequired},
                             {stacked, TensorRole::kQ, attention, false, {total, 0, d, 3 * d}},
                             {stacked, TensorRole::kK, attention, false, {total, d, d, 3 * d}},
                             {stacked, TensorRole::kV, attention, false, {total, 2 * d, d, 3 * d}},
                             {"attention.dense", TensorRole::kO, attention},
                             {"mlp.dense_h_to_4h", TensorRole::kGate, Bias::kRequired},
                             {"mlp.dense_4h_to_h", TensorRole::kDown, Bias::kRequired}};
  for (int i = 0; i < arch.n_layers; ++i) {
    add_tensors(plan, tensors, i, "gpt_neox.layers." + std::to_string(i) + ".", roles);
  }
  return plan;
}

ModelPlan from_gguf(ConfigReader& config, const TensorSource& tensors) {
  ModelPlan plan;
  Architecture& arch = plan.arch;
  read_gguf_dimensions(config, arch, tensors);
  arch.norm = NormKind::kLayer;
  arch.norm_eps = static_cast<float>(config.number("attention.layer_norm_epsilon"));
  arch.gated_mlp = false;
  arch.parallel_block = config.boolean("use_parallel_residual", true);
  arch.activation = "gelu_erf";
  check_dimensions(config.source(), arch, tensors);
  set_layers(arch, read_gguf_rope(config, plan, tensors));
  add_gguf_outer_tensors(plan, tensors, Bias::kRequired);
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

extern const Family kGptNeoxFamily;
const Family kGptNeoxFamily = {"gpt_neox", {"gpt_neox"}, {"gptneox"}, from_config, from_gguf};

}  // namespace saif
