// What a config means where it is silent, where it says a thing twice, and where the two versions of Transformers part.
#include <gtest/gtest.h>

#include <cmath>

#include "model/bind.h"
#include "support/tiny_model.h"

namespace saif {
namespace {

using test::TinyModel;

std::string test_name() { return testing::UnitTest::GetInstance()->current_test_info()->name(); }

using Keys = std::vector<std::pair<std::string, Json>>;

// A config of 3 blocks, 4 heads of 8, context 256, and `more` in it.
Json config_of(const std::string& type, const Keys& more = {}) {
  Json config = Json::object({{"model_type", type},
                              {"hidden_size", 32},
                              {"num_hidden_layers", 3},
                              {"num_attention_heads", 4},
                              {"intermediate_size", 40},
                              {"vocab_size", 50},
                              {"max_position_embeddings", 256}});
  if (type != "gpt_neox" && type != "stablelm") config["rms_norm_eps"] = 1e-5;
  if (type.starts_with("gemma")) config["head_dim"] = 8;
  if (!type.starts_with("gemma")) config["hidden_act"] = "gelu";
  for (const auto& [key, value] : more) config[key] = value;
  return config;
}

// As the family reads it; no tensors are bound.
Architecture read(const Json& config) {
  const TensorSource source(SafetensorsFolder::open(TinyModel().write(test_name())));
  ConfigReader reader("config.json", config);
  const std::string type = reader.text("model_type");
  const ModelPlan plan = family_of_model_type(type).from_config(reader, type, source);
  reader.finish();
  return plan.arch;
}

// The error's message; empty when the config is read.
std::string refusal(const Json& config) {
  try {
    read(config);
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "";
}

void expect_refused(const Json& config, std::initializer_list<const char*> parts) {
  const std::string message = refusal(config);
  for (const char* part : parts) EXPECT_NE(message.find(part), std::string::npos) << part << " in: " << message;
}

std::vector<int64_t> windows(const Json& config) {
  std::vector<int64_t> out;
  for (const LayerSpec& layer : read(config).layers) out.push_back(layer.window);
  return out;
}

// Of heads of 8.
Json longrope(const Keys& more = {}) {
  Json rope = Json::object({{"rope_type", "longrope"},
                            {"short_factor", Json::Array{1.0, 1.5, 2.0, 2.5}},
                            {"long_factor", Json::Array{2.0, 3.0, 4.0, 5.0}}});
  for (const auto& [key, value] : more) rope[key] = value;
  return rope;
}

RopeSpec rope_of(const Json& config) { return read(config).layers.at(0).rope; }

TEST(Defaults, SlidingWindow) {
  using Windows = std::vector<int64_t>;
  EXPECT_EQ(windows(config_of("mistral")), Windows(3, 4096));
  EXPECT_EQ(windows(config_of("mistral", {{"sliding_window", nullptr}})), Windows(3, 0));
  EXPECT_EQ(windows(config_of("mistral", {{"sliding_window", 7}})), Windows(3, 7));
  EXPECT_EQ(windows(config_of("llama")), Windows(3, 0));
  EXPECT_EQ(windows(config_of("phi3")), Windows(3, 0));
  for (const char* type : {"qwen2", "qwen3"}) {
    Json config = config_of(type, {{"use_sliding_window", true}, {"max_window_layers", 1}});
    EXPECT_EQ(windows(config), (Windows{0, 4096, 4096})) << type;
    config["sliding_window"] = nullptr;
    EXPECT_EQ(windows(config), Windows(3, 0)) << type;
  }
  EXPECT_EQ(windows(config_of("qwen2", {{"sliding_window", 7}})), Windows(3, 0));
  const Keys experts = {
      {"use_sliding_window", true}, {"num_experts", 4}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 8}};
  EXPECT_EQ(windows(config_of("qwen3_moe", experts)), Windows(3, 4096));
}

TEST(Defaults, MaxWindowLayers) {
  Json config = config_of("qwen2", {{"use_sliding_window", true}, {"sliding_window", 7}, {"num_hidden_layers", 20}});
  EXPECT_EQ(windows(config), std::vector<int64_t>(20, 0));
  config["num_hidden_layers"] = 30;
  // The tiny file has 30 tensors.
  const std::vector<int64_t> found = windows(config);
  EXPECT_EQ(found[27], 0);
  EXPECT_EQ(found[28], 7);
  config["max_window_layers"] = "all";
  expect_refused(config, {"max_window_layers", "all"});
}

TEST(Defaults, SoftCaps) {
  const auto caps = [](const Json& config) {
    const Architecture arch = read(config);
    return std::pair(arch.attention_softcap, arch.logit_softcap);
  };
  EXPECT_EQ(caps(config_of("gemma2")), std::pair(50.0F, 30.0F));
  EXPECT_EQ(caps(config_of("gemma2", {{"attn_logit_softcapping", nullptr}})), std::pair(0.0F, 30.0F));
  EXPECT_EQ(caps(config_of("gemma2", {{"final_logit_softcapping", nullptr}})), std::pair(50.0F, 0.0F));
  EXPECT_EQ(caps(config_of("gemma2", {{"attn_logit_softcapping", 8.0}, {"final_logit_softcapping", 5.0}})),
            std::pair(8.0F, 5.0F));
  EXPECT_EQ(caps(config_of("gemma3_text")), std::pair(0.0F, 0.0F));
  // Transformers' class has the key and does not apply it.
  EXPECT_EQ(caps(config_of("gemma3_text", {{"attn_logit_softcapping", 8.0}, {"final_logit_softcapping", 5.0}})),
            std::pair(0.0F, 5.0F));
  expect_refused(config_of("gemma2", {{"attn_logit_softcapping", 0.0}}), {"attn_logit_softcapping", "positive"});
}

TEST(Defaults, ActivationOfGemma) {
  const auto activation = [](const std::string& type, const Keys& more) {
    return read(config_of(type, more)).activation;
  };
  for (const char* type : {"gemma2", "gemma3_text"}) {
    EXPECT_EQ(activation(type, {}), "gelu_tanh");
    EXPECT_EQ(activation(type, {{"hidden_act", "relu"}}), "gelu_tanh");
    EXPECT_EQ(activation(type, {{"hidden_act", "relu"}, {"hidden_activation", "silu"}}), "silu");
    EXPECT_EQ(activation(type, {{"hidden_activation", "gelu"}}), "gelu_erf");
  }
  EXPECT_EQ(activation("gemma", {}), "gelu_tanh");
  EXPECT_EQ(activation("gemma", {{"hidden_activation", "relu"}}), "gelu_tanh");
  EXPECT_EQ(activation("gemma", {{"hidden_act", "relu"}}), "relu");
  // The published files.
  EXPECT_EQ(activation("gemma", {{"hidden_act", "gelu"}}), "gelu_tanh");
  EXPECT_EQ(activation("gemma", {{"hidden_act", "gelu"}, {"hidden_activation", nullptr}}), "gelu_tanh");
  EXPECT_EQ(activation("gemma", {{"hidden_act", "gelu_pytorch_tanh"}, {"hidden_activation", "gelu_pytorch_tanh"}}),
            "gelu_tanh");
}

TEST(Defaults, KeysThatChangeNothing) {
  const Json config = config_of("llama", {{"hidden_act", "gelu_fast"},
                                          {"attention_probs_dropout_prob", 0.1},
                                          {"hidden_dropout_prob", 0.1},
                                          {"is_decoder", true}});
  EXPECT_EQ(read(config).activation, "gelu_tanh");
  EXPECT_EQ(refusal(config_of("gpt_neox", {{"is_decoder", false}})), "");
}

TEST(LongRope, AttentionFactorComesFromFactor) {
  const auto usual = [](double factor, double original) {
    return std::sqrt(1 + std::log(factor) / std::log(original));
  };
  const auto v5 = [](const Keys& more) { return config_of("llama", {{"rope_parameters", longrope(more)}}); };
  const auto v4 = [](const Keys& more) { return config_of("llama", {{"rope_scaling", longrope(more)}}); };
  for (const auto& config : {v5({{"factor", 17.0}, {"original_max_position_embeddings", 64}}),
                             v4({{"factor", 17.0}, {"original_max_position_embeddings", 64}})}) {
    const RopeSpec rope = rope_of(config);
    EXPECT_DOUBLE_EQ(rope.attention_factor, usual(17, 64));
    EXPECT_EQ(rope.factor, 17);
    EXPECT_EQ(rope.original_context, 64);
  }
  EXPECT_DOUBLE_EQ(rope_of(v4({{"factor", 17.0}})).attention_factor, usual(17, 256));
  EXPECT_DOUBLE_EQ(rope_of(v4({{"original_max_position_embeddings", 64}})).attention_factor, usual(4, 64));
  EXPECT_DOUBLE_EQ(rope_of(v4({{"factor", 0.5}})).attention_factor, 1);
  EXPECT_DOUBLE_EQ(rope_of(v4({{"factor", 17.0}, {"attention_factor", 1.25}})).attention_factor, 1.25);
  expect_refused(v4({{"factor", 17.0}, {"original_max_position_embeddings", 1}}), {"original_max_position_embeddings"});
}

// Transformers 5 takes `factor`, 4 the ratio of the contexts where the original one stands at top level.
TEST(LongRope, FactorAgainstTheContexts) {
  Json config = config_of("phi3", {{"original_max_position_embeddings", 64}});
  config["rope_scaling"] = longrope({{"factor", 4.0}});
  EXPECT_EQ(rope_of(config).factor, 4);
  config["rope_scaling"] = longrope({{"factor", 11.0}});
  expect_refused(config, {"\"factor\" is 11.0", "is 4.0", "attention_factor"});
  config["rope_scaling"]["attention_factor"] = 1.25;
  EXPECT_EQ(rope_of(config).attention_factor, 1.25);
}

TEST(LongRope, PublishedPhi3) {
  Json config = config_of("phi3", {{"original_max_position_embeddings", 4096}, {"max_position_embeddings", 131072}});
  for (const char* name : {"su", "longrope"}) {
    Json scaling = longrope();
    std::erase_if(scaling.members(), [](const auto& member) { return member.first == "rope_type"; });
    scaling["type"] = name;
    config["rope_scaling"] = scaling;
    const RopeSpec rope = rope_of(config);
    EXPECT_EQ(rope.original_context, 4096);
    EXPECT_EQ(rope.factor, 32);
    EXPECT_DOUBLE_EQ(rope.attention_factor, std::sqrt(1 + std::log(32.0) / std::log(4096.0)));
  }
  std::erase_if(config.members(), [](const auto& member) { return member.first.starts_with("original"); });
  EXPECT_EQ(rope_of(config).original_context, 4096);
}

TEST(OriginalContext, BesideTheScalingAndInIt) {
  const char* key = "original_max_position_embeddings";
  const auto scaling = [&](const std::string& type, bool within) {
    Json json = longrope();
    if (type == "yarn") json = Json::object({{"factor", 4.0}});
    if (type == "llama3") json = Json::object({{"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}});
    json["rope_type"] = type;
    if (within) json[key] = 64;
    return json;
  };
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    for (const char* type : {"longrope", "yarn", "llama3"}) {
      Json config = config_of("llama", {{name, scaling(type, true)}});
      EXPECT_EQ(rope_of(config).original_context, 64) << type;
      config[key] = 64;
      EXPECT_EQ(rope_of(config).original_context, 64) << type;
      config[key] = 32;
      expect_refused(config, {name, key, "is 64", "is 32"});
      config[name] = scaling(type, false);
      // Transformers 4 does not read it for yarn there, and knows no rope_parameters.
      if (std::string(type) == "yarn" && std::string(name) == "rope_scaling") {
        expect_refused(config, {name, key, "32", "256"});
        config[key] = 256;
        EXPECT_EQ(rope_of(config).original_context, 256);
      } else {
        EXPECT_EQ(rope_of(config).original_context, 32) << type;
      }
    }
  }
  EXPECT_EQ(rope_of(config_of("llama", {{"rope_scaling", scaling("yarn", false)}})).original_context, 256);
  expect_refused(config_of("llama", {{"rope_scaling", scaling("llama3", false)}}), {key, "missing"});
  // Phi 3's class has a default, which goes before what the scaling says.
  expect_refused(config_of("phi3", {{"rope_parameters", scaling("longrope", true)}}), {key, "is 64", "4096"});
}

TEST(Rotation, OfAShareOfTheHeads) {
  for (const char* type : {"llama", "mistral", "granite", "qwen2", "qwen3", "gemma", "gemma2", "olmo2"}) {
    Json rope = Json::object({{"rope_type", "default"}, {"rope_theta", 100.0}, {"partial_rotary_factor", 0.5}});
    expect_refused(config_of(type, {{"rope_parameters", rope}}), {"partial_rotary_factor", "0.5"});
    expect_refused(config_of(type, {{"partial_rotary_factor", 0.5}}), {"partial_rotary_factor", "0.5"});
    rope["partial_rotary_factor"] = 1.0;
    EXPECT_EQ(refusal(config_of(type, {{"rope_parameters", rope}})), "");
  }
  Json rope = Json::object({{"rope_type", "default"}, {"partial_rotary_factor", 0.5}});
  for (const char* type : {"phi3", "stablelm", "gpt_neox"}) {
    EXPECT_EQ(rope_of(config_of(type, {{"rope_parameters", rope}})).rotary_dim, 4) << type;
  }
  expect_refused(config_of("phi3", {{"rope_parameters", rope}, {"partial_rotary_factor", 1.0}}),
                 {"partial_rotary_factor", "1.0", "0.5", "rope_parameters"});
}

TEST(Rotation, KeysOfGptNeox) {
  EXPECT_EQ(rope_of(config_of("gpt_neox")).theta, 10000);
  EXPECT_EQ(rope_of(config_of("gpt_neox")).rotary_dim, 2);
  EXPECT_EQ(rope_of(config_of("gpt_neox", {{"rotary_emb_base", 77.0}, {"rotary_pct", 0.5}})).theta, 77);
  EXPECT_EQ(refusal(config_of("gpt_neox", {{"rotary_emb_base", 77}, {"rope_theta", 77.0}})), "");
  EXPECT_EQ(refusal(config_of("gpt_neox", {{"rotary_pct", 0.5}, {"partial_rotary_factor", 0.5}})), "");
  expect_refused(config_of("gpt_neox", {{"rope_theta", 77.0}}), {"rope_theta", "77.0", "rotary_emb_base", "10000.0"});
  expect_refused(config_of("gpt_neox", {{"partial_rotary_factor", 0.5}}), {"partial_rotary_factor", "0.5", "0.25"});
  const Json rope = Json::object({{"rope_type", "default"}, {"rope_theta", 77.0}, {"partial_rotary_factor", 0.5}});
  expect_refused(config_of("gpt_neox", {{"rope_parameters", rope}, {"rotary_pct", 0.25}}),
                 {"rotary_pct", "0.25", "rope_parameters", "0.5"});
  EXPECT_EQ(refusal(config_of("gpt_neox", {{"rope_parameters", rope}, {"rope_theta", 77.0}})), "");
}

TEST(Rotation, TwoNamesOfItsType) {
  Json scaling = Json::object({{"type", "linear"}, {"rope_type", "linear"}, {"factor", 4.0}});
  EXPECT_EQ(rope_of(config_of("llama", {{"rope_scaling", scaling}})).scaling, "linear");
  scaling["rope_type"] = "default";
  expect_refused(config_of("llama", {{"rope_scaling", scaling}}), {"\"type\"", "linear", "\"rope_type\"", "default"});
}

TEST(Rotation, SpellingsOfGemma3) {
  const auto thetas = [](const Keys& more) {
    const Architecture arch = read(config_of("gemma3_text", more));
    return std::pair(arch.layers.at(2).rope.theta, arch.layers.at(0).rope.theta);  // full, local
  };
  const Json types = Json::Array{"sliding_attention", "sliding_attention", "full_attention"};
  const Json plain = Json::object({{"rope_type", "default"}});
  Json nested = Json::object({{"full_attention", plain}, {"sliding_attention", plain}});
  EXPECT_EQ(thetas({{"layer_types", types}}), std::pair(1e6, 1e4));
  EXPECT_EQ(thetas({{"layer_types", types}, {"rope_parameters", nested}}), std::pair(1e6, 1e4));
  EXPECT_EQ(
      thetas({{"layer_types", types}, {"rope_parameters", nested}, {"rope_theta", 77}, {"rope_local_base_freq", 55}}),
      std::pair(77.0, 55.0));
  nested["full_attention"]["rope_theta"] = 88.0;
  expect_refused(config_of("gemma3_text", {{"rope_parameters", nested}, {"rope_theta", 77.0}}),
                 {"rope_theta", "77.0", "full_attention", "88.0"});
  Json flat = Json::object({{"rope_type", "default"}, {"rope_theta", 77.0}});
  expect_refused(config_of("gemma3_text", {{"rope_parameters", flat}}), {"rope_parameters", "full_attention"});
  // Transformers 5 passes over a `type` without rope_type here, 4 goes by it.
  const Json linear = Json::object({{"type", "linear"}, {"factor", 8.0}});
  expect_refused(config_of("gemma3_text", {{"rope_scaling", linear}}), {"rope_scaling", "\"type\"", "rope_type"});
  Json both = Json::object({{"full_attention", longrope({{"original_max_position_embeddings", 64}})},
                            {"sliding_attention", longrope({{"original_max_position_embeddings", 32}})}});
  expect_refused(config_of("gemma3_text", {{"rope_parameters", both}}), {"64", "32"});
}

TEST(Defaults, LocalBlocksOfGemma3) {
  using Windows = std::vector<int64_t>;
  const auto found = [](const Keys& more) {
    Json config = config_of("gemma3_text", more);
    config["num_hidden_layers"] = 7;
    config["sliding_window"] = 9;
    return windows(config);
  };
  EXPECT_EQ(found({}), (Windows{9, 9, 9, 9, 9, 0, 9}));
  EXPECT_EQ(found({{"sliding_window_pattern", 3}}), (Windows{9, 9, 0, 9, 9, 0, 9}));
  EXPECT_EQ(found({{"_sliding_window_pattern", 3}}), (Windows{9, 9, 9, 9, 9, 0, 9}));
}

}  // namespace
}  // namespace saif
