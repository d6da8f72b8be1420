// Configs and tensors as closed worlds.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "model/bind.h"
#include "model/loaded_model.h"
#include "model/rope.h"
#include "support/run_model.h"
#include "support/tiny_model.h"

namespace saif {
namespace {

using test::TinyModel;

std::string test_name() { return testing::UnitTest::GetInstance()->current_test_info()->name(); }

std::shared_ptr<const LoadedModel> load(const TinyModel& tiny, const std::string& dtype = "f32") {
  return load_model(tiny.write(test_name()), {dtype}, [] { return make_ref_backend(); });
}

// The error's message; empty when the model loads.
std::string refusal(const TinyModel& tiny) {
  try {
    load(tiny);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

#define EXPECT_MENTIONS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(Config, IsReadIntoAnArchitecture) {
  const auto model = load(TinyModel());
  const Architecture& arch = model->architecture();
  EXPECT_EQ(arch.family, "llama");
  EXPECT_EQ(arch.d_model, 24);
  EXPECT_EQ(arch.n_layers, 3);
  EXPECT_EQ(arch.n_heads, 4);
  EXPECT_EQ(arch.n_kv_heads, 2);
  EXPECT_EQ(arch.d_head, 6);
  EXPECT_EQ(arch.d_mlp, 40);
  EXPECT_EQ(arch.vocab, 50);
  EXPECT_EQ(arch.context, 256);
  EXPECT_FLOAT_EQ(arch.layers.at(0).attention_scale, 1.0F / std::sqrt(6.0F));
  EXPECT_EQ(arch.layers.size(), 3U);
  EXPECT_EQ(arch.to_json().at("d_mlp").as_int(), 40);
  EXPECT_EQ(model->name(), "saif_tiny_IsReadIntoAnArchitecture");
}

TEST(Config, AnUnknownKeyIsNamed) {
  TinyModel tiny;
  tiny.config["attn_logit_softcapping"] = 50.0;
  EXPECT_MENTIONS(refusal(tiny), "unknown key \"attn_logit_softcapping\" (50.0)");
}

TEST(Config, AMissingKeyIsNamed) {
  TinyModel tiny;
  std::erase_if(tiny.config.members(), [](const auto& member) { return member.first == "hidden_size"; });
  EXPECT_MENTIONS(refusal(tiny), "\"hidden_size\" is missing");
}

TEST(Config, WrongValuesAreNamed) {
  const std::pair<const char*, Json> wrong[] = {{"hidden_size", "24"},
                                                {"hidden_size", 0},
                                                {"num_hidden_layers", int64_t{1} << 40},
                                                {"num_hidden_layers", 100000},
                                                {"rms_norm_eps", "small"},
                                                {"tie_word_embeddings", 1},
                                                {"hidden_act", "swiglu"},
                                                {"num_key_value_heads", 3},
                                                {"rope_scaling", Json::array()},
                                                {"architectures", "Bert"},
                                                {"head_dim", 5},
                                                {"model_type", "gpt5"},
                                                {"rope_interleaved", true},
                                                {"quantization_config", 4}};
  for (const auto& [key, value] : wrong) {
    TinyModel tiny;
    tiny.config[key] = value;
    EXPECT_NE(refusal(tiny), "") << key;
  }
}

TEST(Config, BothSpellingsOfRotation) {
  TinyModel v4;
  v4.config["rope_theta"] = 500000.0;
  v4.config["rope_scaling"] = Json::object({{"type", "linear"}, {"factor", 4.0}});
  TinyModel v5;
  std::erase_if(v5.config.members(), [](const auto& member) { return member.first == "rope_theta"; });
  v5.config["rope_parameters"] = Json::object({{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 500000.0}});
  const auto a = load(v4), b = load(v5);
  EXPECT_EQ(a->architecture().layers[0].rope, b->architecture().layers[0].rope);
  EXPECT_EQ(a->architecture().layers[0].rope.scaling, "linear");
  EXPECT_EQ(a->architecture().layers[0].rope.theta, 500000.0);

  v4.config["rope_scaling"] = Json::object({{"rope_type", "dynamic"}, {"factor", 4.0}});
  EXPECT_MENTIONS(refusal(v4), "\"dynamic\" is not implemented");
  v4.config["rope_scaling"] = Json::object({{"type", "linear"}, {"factor", 4.0}, {"beta_fast", 32}});
  EXPECT_MENTIONS(refusal(v4), "unknown key \"beta_fast\"");
  v5.config["rope_theta"] = 10000.0;
  EXPECT_MENTIONS(refusal(v5), "\"rope_theta\"");
}

TEST(Config, SlidingWindowOfMistralIsOnEveryLayer) {
  TinyModel tiny;
  tiny.config["model_type"] = "mistral";
  tiny.config["architectures"] = Json::Array{"MistralForCausalLM"};
  tiny.config["sliding_window"] = 8;
  const auto model = load(tiny);
  for (const LayerSpec& layer : model->architecture().layers) EXPECT_EQ(layer.window, 8);
  tiny.config["sliding_window"] = nullptr;
  EXPECT_EQ(load(tiny)->architecture().layers[0].window, 0);
}

TEST(Config, LayerTypesAreChecked) {
  TinyModel tiny(3, true);
  tiny.config["model_type"] = "qwen2";
  tiny.config["architectures"] = Json::Array{"Qwen2ForCausalLM"};
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    std::erase_if(tiny.config.members(), [&](const auto& member) { return member.first == key; });
  }
  std::erase_if(tiny.tensors, [](const auto& tensor) {
    return tensor.first.ends_with("bias") &&
           (tensor.first.find("o_proj") != std::string::npos || tensor.first.find("mlp") != std::string::npos);
  });
  EXPECT_EQ(load(tiny)->architecture().layers[2].window, 0);
  tiny.config["use_sliding_window"] = true;
  tiny.config["sliding_window"] = 8;
  tiny.config["max_window_layers"] = 1;
  EXPECT_EQ(load(tiny)->architecture().layers[0].window, 0);
  EXPECT_EQ(load(tiny)->architecture().layers[2].window, 8);
  tiny.config["layer_types"] = Json::Array{"sliding_attention", "full_attention", "full_attention"};
  EXPECT_EQ(load(tiny)->architecture().layers[0].window, 8);
  EXPECT_EQ(load(tiny)->architecture().layers[2].window, 0);
  tiny.config["layer_types"] = Json::Array{"sliding_attention", "full_attention"};
  EXPECT_MENTIONS(refusal(tiny), "a type for each of the 3 blocks");
  tiny.config["layer_types"] = Json::Array{"sliding_attention", "full_attention", "linear_attention"};
  EXPECT_MENTIONS(refusal(tiny), "linear_attention");
}

TEST(Rope, YarnKeepsFastPairsAndStretchesSlowOnes) {
  RopeSpec spec;
  spec.rotary_dim = 64;
  const std::vector<double> plain = rope_frequencies(spec);
  spec.scaling = "yarn";
  spec.factor = 8;
  spec.original_context = 2048;
  const std::vector<double> scaled = rope_frequencies(spec);
  EXPECT_EQ(scaled[0], plain[0]);
  EXPECT_DOUBLE_EQ(scaled[31], plain[31] / 8);
  for (size_t i = 1; i < plain.size(); ++i) EXPECT_LE(scaled[i] / plain[i], scaled[i - 1] / plain[i - 1] + 1e-12);
}

TEST(Rope, LongPromptsHaveRowsOfTheirOwn) {
  RopeSpec spec;
  spec.rotary_dim = 4;
  spec.scaling = "longrope";
  spec.frequency_divisors = {1, 2};
  spec.long_divisors = {3, 4};
  RopeCache cache(spec);
  ASSERT_TRUE(cache.has_long());
  const RopeTable table = cache.table(10);
  EXPECT_EQ(table.cos(2 * 7, 0), static_cast<float>(std::cos(7.0)));
  EXPECT_EQ(table.cos(2 * 7 + 1, 0), static_cast<float>(std::cos(7.0 / 3.0)));
}

TEST(Tensors, MissingUnknownAndMisshapen) {
  TinyModel missing;
  missing.tensors.erase("model.layers.1.mlp.up_proj.weight");
  EXPECT_MENTIONS(refusal(missing), "model.layers.1.mlp.up_proj.weight is missing");
  TinyModel unknown;
  unknown.tensors.emplace("model.layers.0.self_attn.q_norm.weight", Tensor::zeros(DType::kF32, {6}));
  EXPECT_MENTIONS(refusal(unknown), "model.layers.0.self_attn.q_norm.weight");
  TinyModel misshapen;
  misshapen.tensors["model.layers.2.mlp.up_proj.weight"] = Tensor::zeros(DType::kF32, {24, 40});
  EXPECT_MENTIONS(refusal(misshapen),
                  "model.layers.2.mlp.up_proj.weight: found [24, 40], expected [d_mlp 40, d_model 24]");
  TinyModel norm;
  norm.tensors["model.norm.weight"] = Tensor::zeros(DType::kF32, {23});
  EXPECT_MENTIONS(refusal(norm), "model.norm.weight: found [23], expected [d_model 24]");
  TinyModel integers;
  integers.tensors["lm_head.weight"] = Tensor::zeros(DType::kI32, {50, 24});
  EXPECT_MENTIONS(refusal(integers), "lm_head.weight is stored as I32");
  TinyModel bias;
  bias.tensors.emplace("model.layers.0.self_attn.q_proj.bias", Tensor::zeros(DType::kF32, {24}));
  EXPECT_MENTIONS(refusal(bias), "announces no such bias");
  TinyModel announced;
  announced.config["attention_bias"] = true;
  EXPECT_MENTIONS(refusal(announced), "self_attn.q_proj.bias is missing");
}

TEST(Tensors, IgnoredOnesAreNoted) {
  TinyModel tiny;
  tiny.config["tie_word_embeddings"] = true;
  tiny.tensors.at("lm_head.weight") = convert(tiny.tensors.at("model.embed_tokens.weight").view(), DType::kF32);
  tiny.tensors.emplace("model.layers.0.self_attn.rotary_emb.inv_freq", Tensor::zeros(DType::kF32, {3}));
  const auto model = load(tiny);
  std::string notes;
  for (const std::string& note : model->notes()) notes += note + "\n";
  EXPECT_MENTIONS(notes, "rotary_emb.inv_freq");
  EXPECT_MENTIONS(notes, "lm_head.weight");
  EXPECT_EQ(model->weights().unembedding.data, model->weights().embedding.data);
}

TEST(Tensors, AnotherUnembeddingOfATiedModelIsRefused) {
  TinyModel tiny;
  tiny.config["tie_word_embeddings"] = true;
  for (const char* part : {"tie_word_embeddings", "lm_head.weight", "model.embed_tokens.weight", "false"}) {
    EXPECT_NE(refusal(tiny).find(part), std::string::npos) << refusal(tiny);
  }
  tiny.tensors.at("lm_head.weight") = convert(tiny.tensors.at("model.embed_tokens.weight").view(), DType::kF32);
  EXPECT_EQ(refusal(tiny), "");
  tiny.tensors.at("lm_head.weight").as<float>()[50 * 24 - 1] += 1;
  EXPECT_NE(refusal(tiny), "");
  tiny.tensors.erase("lm_head.weight");
  EXPECT_EQ(refusal(tiny), "");
}

TEST(Tensors, LieWhereTheyAreWhenTheTypeAllows) {
  TinyModel tiny;
  auto& embedding = tiny.tensors["model.embed_tokens.weight"];
  embedding = convert(embedding.view(), DType::kBf16);
  const auto f32 = load(tiny, "f32");
  EXPECT_EQ(f32->weights().memory.matrices(), 0U);
  EXPECT_EQ(f32->weights().embedding.dtype, DType::kBf16);
  const auto bf16 = load(tiny, "bf16");
  EXPECT_EQ(bf16->weights().memory.matrices(), 22U);  // all matrices but the embedding
  EXPECT_EQ(bf16->dtype(), "bf16");
  const float value = tiny.tensors["lm_head.weight"].as<float>()[7];
  EXPECT_EQ(static_cast<const uint16_t*>(bf16->weights().unembedding.data)[7], f32_to_bf16(value));
}

// That the forward pass puts the product's columns back is what the goldens of GGUF files show, at the sites q and k.
TEST(Tensors, ResidentMatricesAreCopiesOfTheSameBits) {
  const TinyModel tiny;
  const std::string folder = tiny.write("resident");
  LoadOptions options{"f32"};
  const auto mapped = load_model(folder, options, [] { return make_ref_backend(); });
  options.weights = "resident";
  const auto resident = load_model(folder, options, [] { return make_ref_backend(); });
  const ModelWeights &a = mapped->weights(), &b = resident->weights();
  EXPECT_EQ(a.memory.matrices(), 0U);
  EXPECT_EQ(b.memory.matrices(), 7U * a.blocks.size() + 2);
  EXPECT_FALSE(mapped->in_own_memory());
  EXPECT_TRUE(resident->in_own_memory());
  const auto equal = [](const WeightView& x, const WeightView& y) {
    const auto bytes = static_cast<size_t>(x.out * x.row_bytes());
    return x.data != y.data && x.out == y.out && x.in == y.in && std::memcmp(x.data, y.data, bytes) == 0;
  };
  EXPECT_TRUE(equal(a.embedding, b.embedding));
  EXPECT_TRUE(equal(a.unembedding, b.unembedding));
  for (size_t l = 0; l < a.blocks.size(); ++l) {
    const BlockWeights &x = a.blocks[l], &y = b.blocks[l];
    EXPECT_TRUE(equal(x.q.w, y.q.w) && equal(x.k.w, y.k.w) && equal(x.v.w, y.v.w) && equal(x.o.w, y.o.w));
    EXPECT_TRUE(equal(x.mlp.gate.w, y.mlp.gate.w) && equal(x.mlp.up.w, y.mlp.up.w));
    EXPECT_TRUE(equal(x.mlp.down.w, y.mlp.down.w));
  }
}

TEST(Tensors, WeightMemoryKeepsWhatItGave) {
  WeightMemory memory;
  std::vector<std::byte*> given;
  const size_t sizes[] = {1, 64, 100, 3 << 20, 700'000, 90 << 20, 1};
  for (const size_t size : sizes) {
    given.push_back(memory.take(size));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(given.back()) % 64, 0U);
    std::memset(given.back(), static_cast<int>(given.size()), size);
  }
  for (size_t i = 0; i < given.size(); ++i) {
    EXPECT_EQ(given[i][0], static_cast<std::byte>(i + 1));
    EXPECT_EQ(given[i][sizes[i] - 1], static_cast<std::byte>(i + 1));
  }
}

TEST(Tensors, PairedRowsStayWhereTheyLie) {
  const TinyModel tiny;
  Tensor q(DType::kF32, {24, 24}), bias(DType::kF32, {24});
  for (int64_t i = 0; i < int64_t{24} * 24; ++i) q.as<float>()[i] = static_cast<float>(i);
  for (int64_t i = 0; i < 24; ++i) bias.as<float>()[i] = static_cast<float>(i);
  const std::string path = testing::TempDir() + "/saif_paired";
  make_directories(path);
  const NamedTensor named[] = {{"q", q.view()}, {"o", q.view()}, {"bias", bias.view()}};
  write_safetensors(path + "/model.safetensors", named);
  const TensorSource source(SafetensorsFolder::open(path));
  ModelPlan plan;
  plan.arch = load(tiny)->architecture();
  plan.tensors = {{TensorRole::kQ, 0, "q"}, {TensorRole::kQ, 0, "bias", true}, {TensorRole::kO, 0, "o"}};
  plan.tensors[0].paired_rows = plan.tensors[1].paired_rows = true;
  std::vector<std::string> notes;
  const ModelWeights weights = bind_weights(plan, source, {Compute::kF32, DType::kF32}, notes);
  EXPECT_EQ(weights.blocks[0].q.w.data, source.find("q")->data);
  EXPECT_EQ(weights.memory.matrices(), 0U);
  EXPECT_TRUE(weights.blocks[0].q.paired);
  EXPECT_FALSE(weights.blocks[0].o.paired);
  EXPECT_EQ(weights.blocks[0].q.bias, std::vector<float>(bias.as<float>(), bias.as<float>() + 24));
}

TEST(Rope, Llama3ScalingAndDivisors) {
  RopeSpec spec;
  spec.theta = 500000;
  spec.rotary_dim = 128;
  const std::vector<double> plain = rope_frequencies(spec);
  spec.scaling = "llama3";
  spec.factor = 8;
  spec.low_freq_factor = 1;
  spec.high_freq_factor = 4;
  spec.original_context = 8192;
  const std::vector<double> scaled = rope_frequencies(spec);
  EXPECT_EQ(scaled[0], plain[0]);                 // a short wave
  EXPECT_DOUBLE_EQ(scaled[63], plain[63] / 8.0);  // a long one
  // Pair 32: wavelength 2 pi sqrt(500000) = 4442.9, between 8192 / 4 and 8192.
  const double smooth = (8192.0 / (2 * std::acos(-1.0) / plain[32]) - 1) / 3;
  EXPECT_NEAR(scaled[32] / plain[32], smooth + (1 - smooth) / 8, 1e-12);
  RopeSpec divided;
  divided.theta = 500000;
  divided.rotary_dim = 128;
  for (size_t i = 0; i < plain.size(); ++i) {
    divided.frequency_divisors.push_back(static_cast<float>(plain[i] / scaled[i]));
  }
  const std::vector<double> by_divisors = rope_frequencies(divided);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_NEAR(by_divisors[i] / scaled[i], 1, 1e-6);
}

TEST(Rope, TablesGrowAndKeepTheirValues) {
  RopeSpec spec;
  spec.rotary_dim = 8;
  RopeCache cache(spec);
  const float before = cache.table(10).cos(7, 1);
  const RopeTable grown = cache.table(5000);
  EXPECT_GE(grown.cos.rows(), 5000);
  EXPECT_EQ(grown.cos(7, 1), before);
  EXPECT_EQ(grown.sin(4999, 0), static_cast<float>(std::sin(4999.0)));
}

TEST(Sites, NamesRoundTrip) {
  for (const char* name :
       {"hook_embed", "blocks.24.hook_resid_pre", "blocks.0.ln1.hook_normalized", "blocks.3.attn.hook_q",
        "blocks.3.attn.hook_pattern", "blocks.29.hook_resid_post", "ln_final.hook_normalized", "logits"}) {
    EXPECT_EQ(Site::parse(name, 30).name(), name);
  }
  EXPECT_EQ(Site::parse("blocks.24.hook_resid_post"), (Site{SiteKind::kResidPost, 24}));
}

TEST(Sites, ErrorsOfferTheNearest) {
  const auto message = [](const char* name) -> std::string {
    try {
      Site::parse(name, 30);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::kNotFound);
      return error.what();
    }
    return "";
  };
  EXPECT_MENTIONS(message("blocks.24.hook_resid_pst"), "\"blocks.24.hook_resid_post\"");
  EXPECT_MENTIONS(message("blocks.30.hook_resid_post"), "the model has 30 blocks, 0 to 29");
  EXPECT_MENTIONS(message("hook_q"), "nearest");
  EXPECT_MENTIONS(message("blocks.99999999999999.hook_q"), "nearest");
  EXPECT_MENTIONS(message("blocks.-1.hook_resid_post"), "nearest");
  EXPECT_MENTIONS(message(""), "nearest");
}

TEST(Resolve, SaysWhatToPutWhere) {
  try {
    resolve_model("no/such/model");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Errc::kNotFound);
    EXPECT_MENTIONS(std::string(error.what()), "smollm2");
  }
  EXPECT_THROW(Model::load(testing::TempDir()), Error);
  EXPECT_THROW(Model::load("smollm2", {"f64"}), Error);
}

TEST(LoadedModel, UnembedAndEmbeddingRow) {
  const TinyModel tiny;
  const auto model = load(tiny);
  const std::vector<float> row = model->embedding_row(3);
  const float* expected = tiny.tensors.at("model.embed_tokens.weight").as<float>() + 3 * 24;
  EXPECT_EQ(row, std::vector<float>(expected, expected + 24));
  EXPECT_THROW(model->embedding_row(50), Error);
  EXPECT_THROW(model->embedding_row(-1), Error);

  // logits = unembed(resid_post of the last block).
  Forward forward(model);
  test::Recorder recorder;
  const std::vector<float> logits = test::Sequence(forward, model->architecture()).append({3, 1, 4}, {&recorder});
  std::vector<float> residual = recorder.all("blocks.2.hook_resid_post"), again(150);
  model->unembed(Mat<const float>(residual.data(), 3, 24), true, Mat<float>(again.data(), 3, 50));
  EXPECT_EQ(again, logits);
  EXPECT_EQ(model->sha256().size(), 64U);
}

}  // namespace
}  // namespace saif
