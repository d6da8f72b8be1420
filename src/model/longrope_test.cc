// LongRoPE where only some blocks have it.
#include <gtest/gtest.h>

#include "model/loaded_model.h"
#include "support/run_model.h"
#include "support/tiny_model.h"

namespace saif {
namespace {

using test::TinyModel;

std::string test_name() { return testing::UnitTest::GetInstance()->current_test_info()->name(); }

// A Gemma 3 of TinyModel's sizes; its first two blocks are local, the last is not.
TinyModel tiny_gemma3() {
  TinyModel tiny;
  tiny.config["model_type"] = "gemma3_text";
  tiny.config["architectures"] = Json::Array{"Gemma3ForCausalLM"};
  tiny.config["sliding_window"] = 64;
  tiny.config["layer_types"] = Json::Array{"sliding_attention", "sliding_attention", "full_attention"};
  std::erase_if(tiny.config.members(), [](const auto& member) { return member.first == "rope_theta"; });
  for (int layer = 0; layer < 3; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    for (const auto& [name, width] : {std::pair("pre_feedforward_layernorm", 24),
                                      {"post_feedforward_layernorm", 24},
                                      {"self_attn.q_norm", 6},
                                      {"self_attn.k_norm", 6}}) {
      tiny.tensors.emplace(prefix + name + ".weight", Tensor::zeros(DType::kF32, {width}));
    }
  }
  return tiny;
}

std::vector<float> logits_of(const TinyModel& tiny, const std::string& name, int32_t n) {
  const auto model = load_model(tiny.write(test_name() + name), {"f32"}, [] { return make_ref_backend(); });
  Forward forward(model);
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < n; ++i) tokens.push_back((7 * i + 3) % 50);
  return test::Sequence(forward, model->architecture()).append(tokens);
}

// Divisors of 1 turn nothing another way: blocks with such a longrope, and those without, stay where they are.
TEST(LongRope, InBlocksOfOneTypeOnly) {
  const Json ones = Json::Array{1.0, 1.0, 1.0}, plain = Json::object({{"rope_type", "default"}, {"rope_theta", 50.0}});
  const Json scaled = Json::object({{"rope_type", "longrope"},
                                    {"rope_theta", 50.0},
                                    {"short_factor", ones},
                                    {"long_factor", ones},
                                    {"attention_factor", 1.0},
                                    {"original_max_position_embeddings", 64}});
  TinyModel tiny = tiny_gemma3();
  tiny.config["rope_parameters"] = Json::object({{"full_attention", plain}, {"sliding_attention", plain}});
  for (const int32_t n : {20, 200}) {
    tiny.config["rope_parameters"] = Json::object({{"full_attention", plain}, {"sliding_attention", plain}});
    const std::vector<float> expected = logits_of(tiny, "plain", n);
    tiny.config["rope_parameters"]["full_attention"] = scaled;
    EXPECT_EQ(logits_of(tiny, "full", n), expected) << n;
    tiny.config["rope_parameters"] = Json::object({{"full_attention", plain}, {"sliding_attention", scaled}});
    EXPECT_EQ(logits_of(tiny, "local", n), expected) << n;
  }
}

}  // namespace
}  // namespace saif
