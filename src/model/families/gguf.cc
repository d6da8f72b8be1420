// What the GGUF files of all families share.
#include <algorithm>
#include <cmath>

#include "model/families/family.h"

namespace saif {
namespace {

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

}  // namespace

void read_gguf_experts(ConfigReader& config, Architecture& arch) {
  arch.n_experts = config.size("expert_count", 0);
  if (arch.n_experts == 0) return;
  arch.experts_per_token = config.size("expert_used_count");
  arch.d_expert = config.present("expert_feed_forward_length") ? config.size("expert_feed_forward_length")
                                                               : same_for_all_blocks(config, "feed_forward_length");
  arch.expert_weights_sum_to_one = true;
  check_experts(config, arch, "expert_count", "expert_used_count");
}

void read_gguf_dimensions(ConfigReader& config, Architecture& arch, const TensorSource& tensors) {
  arch.d_model = config.size("embedding_length");
  arch.n_layers = config.size("block_count");
  arch.n_heads = same_for_all_blocks(config, "attention.head_count");
  arch.n_kv_heads = same_for_all_blocks(config, "attention.head_count_kv", arch.n_heads);
  arch.d_head = config.size("attention.key_length", std::max<int64_t>(1, arch.d_model / arch.n_heads));
  config.require("attention.value_length", arch.d_head, "values as wide as keys");
  arch.d_mlp = same_for_all_blocks(config, "feed_forward_length");
  const SourceTensor* embedding = tensors.find("token_embd.weight");
  const bool has_rows = embedding != nullptr && embedding->shape.size() == 2;
  arch.vocab = config.size("vocab_size", has_rows ? std::optional(embedding->shape[0]) : std::nullopt);
  arch.context = config.size("context_length");
  arch.tied_embeddings = tensors.find("output.weight") == nullptr;
  config.ignore({"tensor_data_layout"}, "GGUF fixes the order of rows");
  if (arch.n_experts == 0) {
    config.require("expert_count", 0, "this family has no mixture of experts here");
    config.require("expert_used_count", 0, "this family has no mixture of experts here");
  }
}

RopeSpec read_gguf_rope(ConfigReader& config, ModelPlan& plan, const TensorSource& tensors) {
  const Architecture& arch = plan.arch;
  RopeSpec rope;
  rope.theta = config.number("rope.freq_base", 10000.0);
  rope.rotary_dim = config.size("rope.dimension_count", arch.d_head);
  if (rope.rotary_dim % 2 != 0 || rope.rotary_dim > arch.d_head) {
    config.fail("rope.dimension_count", std::to_string(rope.rotary_dim),
                "an even number up to the heads' width " + std::to_string(arch.d_head));
  }
  const std::string type = config.text("rope.scaling.type", "none");
  const int64_t original = config.size("rope.scaling.original_context_length", arch.context);
  config.ignore({"rope.scaling.finetuned"}, "how it was trained");
  if (type == "linear") {
    rope.scaling = "linear";
    rope.factor = config.number("rope.scaling.factor");
  } else if (type == "yarn") {
    rope.scaling = "yarn";
    rope.factor = config.number("rope.scaling.factor");
    rope.original_context = original;
    rope.beta_fast = config.number("rope.scaling.yarn_beta_fast", 32.0);
    rope.beta_slow = config.number("rope.scaling.yarn_beta_slow", 1.0);
    const double usual = rope.factor <= 1 ? 1.0 : 0.1 * std::log(rope.factor) + 1.0;
    rope.attention_factor = config.number("rope.scaling.attn_factor", usual);
  } else if (type == "none") {
    config.ignore({"rope.scaling.factor"}, "rope.scaling.type is none");
    if (tensors.find("rope_factors_long.weight") == nullptr) {
      config.ignore({"rope.scaling.attn_factor"}, "rope.scaling.type is none");
    }
  } else if (type != "longrope") {
    config.fail("rope.scaling.type", "\"" + type + "\"", "none, linear, yarn or longrope");
  }
  const auto divisors = [&](const char* name, std::vector<float>& to) {
    const SourceTensor* tensor = tensors.find(name);
    if (tensor == nullptr) return false;
    to = read_vector(*tensor, rope.rotary_dim / 2, "rotary pairs");
    plan.ignored.push_back({name, "read as the divisors of the rotation's frequencies"});
    return true;
  };
  divisors("rope_freqs.weight", rope.frequency_divisors);
  const bool is_short = divisors("rope_factors_short.weight", rope.frequency_divisors);
  const bool is_long = divisors("rope_factors_long.weight", rope.long_divisors);
  if (is_short != is_long) {
    throw Error(Errc::kNotFound, config.source() + ": one of rope_factors_short and rope_factors_long is missing");
  }
  if (is_long) {
    rope.scaling = "longrope";
    rope.original_context = original;
    rope.factor = static_cast<double>(arch.context) / static_cast<double>(original);
    rope.attention_factor = config.number("rope.scaling.attn_factor", 1.0);
  }
  return rope;
}

void add_gguf_outer_tensors(ModelPlan& plan, const TensorSource& tensors, Bias norm_bias) {
  std::vector<NamedRole> roles = {{"token_embd", TensorRole::kEmbedding},
                                  {"output_norm", TensorRole::kFinalNorm, norm_bias}};
  if (!plan.arch.tied_embeddings) roles.push_back({"output", TensorRole::kUnembedding, Bias::kIfPresent});
  add_tensors(plan, tensors, -1, "", roles);
}

std::vector<NamedRole> gguf_block_roles(bool paired_rows, const Architecture& arch) {
  constexpr Bias kBias = Bias::kIfPresent;
  std::vector<NamedRole> roles = {
      {"attn_norm", TensorRole::kLn1, kBias},         {"attn_q", TensorRole::kQ, kBias, paired_rows},
      {"attn_k", TensorRole::kK, kBias, paired_rows}, {"attn_v", TensorRole::kV, kBias},
      {"attn_output", TensorRole::kO, kBias},         {"ffn_norm", TensorRole::kLn2, kBias}};
  if (arch.n_experts == 0) {
    for (const auto& [name, role] :
         {std::pair("ffn_gate", TensorRole::kGate), {"ffn_up", TensorRole::kUp}, {"ffn_down", TensorRole::kDown}}) {
      roles.push_back({name, role, kBias});
    }
    return roles;
  }
  roles.push_back({"ffn_gate_inp", TensorRole::kRouter});
  for (int e = 0; e < arch.n_experts; ++e) {  // each tensor holds all experts
    for (const auto& [name, role] : {std::pair("ffn_gate_exps", TensorRole::kGate),
                                     {"ffn_up_exps", TensorRole::kUp},
                                     {"ffn_down_exps", TensorRole::kDown}}) {
      roles.push_back({name, role});
      roles.back().expert = e;
    }
  }
  return roles;
}

}  // namespace saif
