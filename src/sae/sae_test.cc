#include "saif/sae.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <numeric>

#include "base/file.h"
#include "base/rng.h"
#include "formats/safetensors.h"
#include "support/message_of.h"
#include "support/param_name.h"
#include "support/paths.h"

namespace saif {
namespace {

using test::message_of;

namespace fs = std::filesystem;

std::string temporary_folder(const std::string& name) {
  const std::string path = testing::TempDir() + "/saif_sae_" + std::to_string(getpid()) + "_" + name;
  fs::remove_all(path);
  fs::create_directories(path);
  return path;
}

Tensor dense(const SparseLatents& latents, int64_t d_sae) {
  Tensor out = Tensor::zeros(DType::kF32, {latents.rows(), d_sae});
  for (int64_t r = 0; r < latents.rows(); ++r) {
    for (int64_t i = latents.row_offsets[r]; i < latents.row_offsets[r + 1]; ++i) {
      out.f32()(r, latents.indices[i]) = latents.values[i];
    }
  }
  return out;
}

// The tolerance of the material's README: 1e-4 of the row's largest expected magnitude, plus 1e-5.
void expect_rows_near(Mat<const float> got, Mat<const float> expected, const std::string& what) {
  ASSERT_EQ(got.rows(), expected.rows()) << what;
  ASSERT_EQ(got.cols(), expected.cols()) << what;
  for (int64_t r = 0; r < got.rows(); ++r) {
    float largest = 0;
    bool has_nan = false;
    for (int64_t c = 0; c < got.cols(); ++c) {
      largest = std::max(largest, std::abs(expected(r, c)));
      has_nan = has_nan || std::isnan(expected(r, c));
    }
    for (int64_t c = 0; c < got.cols(); ++c) {
      ASSERT_TRUE(std::isfinite(got(r, c))) << what << " row " << r;
      if (has_nan) continue;
      ASSERT_NEAR(got(r, c), expected(r, c), 1e-4f * largest + 1e-5f) << what << " row " << r << " column " << c;
    }
  }
}

void expect_golden(const Sae& sae, const std::string& folder) {
  const SafetensorsFile expected = SafetensorsFile::open(folder + "/expected.safetensors");
  const Tensor x = to_f32(expected.at("x"));
  const SparseLatents latents = sae.encode(x.f32());
  expect_rows_near(dense(latents, sae.config().d_sae).f32(), to_f32(expected.at("latents")).f32(), folder + " latents");
  expect_rows_near(sae.decode(latents, x.f32()).f32(), to_f32(expected.at("recon")).f32(), folder + " recon");
}

// Values of some latents alone are those of the whole SAE, bit for bit; top-k codes have no such part.
void expect_subset(const Sae& sae, Mat<const float> x) {
  std::vector<int32_t> some = {static_cast<int32_t>(sae.config().d_sae - 1)};
  for (int32_t j = 0; j < sae.config().d_sae; j += 3) some.push_back(j);
  const auto part = sae.subset(some);
  const SaeKind kind = sae.config().kind;
  const bool alone = kind == SaeKind::kStandard || kind == SaeKind::kJumpRelu || kind == SaeKind::kGated;
  ASSERT_EQ(part != nullptr, alone) << name_of(kind);
  if (!alone) return;
  const Tensor all = dense(sae.encode(x), sae.config().d_sae);
  const Tensor few = dense(part->encode(x), part->config().d_sae);
  for (int64_t r = 0; r < x.rows(); ++r) {
    for (size_t i = 0; i < some.size(); ++i) {
      ASSERT_EQ(few.f32()(r, static_cast<int64_t>(i)), all.f32()(r, some[i])) << "row " << r << ", latent " << some[i];
    }
  }
  const Tensor rows = sae.decoder_rows(some);
  std::vector<int32_t> order(some.size());
  std::iota(order.begin(), order.end(), 0);
  const Tensor again = part->decoder_rows(order);
  EXPECT_EQ(std::memcmp(rows.data(), again.data(), rows.bytes()), 0);
}

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, LatentsAndReconstruction) {
  const std::string name = std::string("data/saes/sae_lens-") + GetParam();
  SAIF_REQUIRE_SHARED(name);
  SaeLoadOptions options;
  const Json meta = read_json_file(test::shared_dir(name + "/meta.json"));
  if (const Json* factor = meta.at("options").find("norm_scaling_factor"))
    options.norm_scaling_factor = factor->as_double();
  const auto sae = Sae::load(test::shared_dir(name + "/sae"), options);
  EXPECT_EQ(sae->config().model, "gpt2-small");
  EXPECT_FALSE(sae->config().site.empty());
  expect_golden(*sae, test::shared_dir(name));
  const SafetensorsFile expected = SafetensorsFile::open(test::shared_dir(name) + "/expected.safetensors");
  expect_subset(*sae, to_f32(expected.at("x")).f32());
  // Saved and loaded again it is the same SAE.
  const std::string folder = temporary_folder("again");
  sae->save(folder, DType::kF32);
  const auto again = Sae::load(folder);
  EXPECT_EQ(again->config().site, sae->config().site);
  expect_golden(*again, test::shared_dir(name));
  fs::remove_all(folder);
}

INSTANTIATE_TEST_SUITE_P(SaeLens, Golden,
                         testing::Values("standard", "standard-no_b_dec_to_input", "standard-hook_z",
                                         "standard-expected_average_only_in", "topk", "topk-rescale", "jumprelu",
                                         "jumprelu-layer_norm", "jumprelu-constant_norm_rescale",
                                         "jumprelu-no_b_dec_to_input-bfloat16", "batchtopk", "matryoshka_batchtopk",
                                         "legacy-standard", "legacy-topk-layer_norm", "gated", "abstopk",
                                         "matching_pursuit", "transcoder", "skip_transcoder", "jumprelu_transcoder",
                                         "jumprelu_skip_transcoder"),
                         test::param_name<const char*>);

class Bad : public testing::TestWithParam<const char*> {};

TEST_P(Bad, IsRefusedByName) {
  const std::string name = std::string("data/saes/bad/") + GetParam();
  SAIF_REQUIRE_SHARED(name);
  const Json meta = read_json_file(test::shared_dir(name + "/meta.json"));
  const std::string message = message_of([&] { Sae::load(test::shared_dir(name + "/sae")); });
  ASSERT_FALSE(message.empty()) << "was loaded";
  EXPECT_EQ(message.find('\n'), std::string::npos);
  for (const Json& word : meta.at("names").items()) {
    EXPECT_NE(message.find(word.as_string()), std::string::npos) << message << " lacks " << word.as_string();
  }
}

INSTANTIATE_TEST_SUITE_P(SaeLens, Bad,
                         testing::Values("expected_average_without_factor", "header_longer_than_file",
                                         "missing_threshold", "nan_weights", "overlapping_offsets", "topk_without_k",
                                         "transposed_W_dec", "truncated_safetensors", "unknown_architecture",
                                         "wrong_dtype"),
                         test::param_name<const char*>);

class Unsupported : public testing::TestWithParam<const char*> {};

TEST_P(Unsupported, ArchitectureIsRefusedByName) {
  const std::string name = std::string("data/saes/sae_lens-") + GetParam();
  SAIF_REQUIRE_SHARED(name);
  const std::string message = message_of([&] { Sae::load(test::shared_dir(name + "/sae")); });
  EXPECT_NE(message.find("architecture \"" + std::string(GetParam()) + "\""), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(SaeLens, Unsupported, testing::Values("temporal"), test::param_name<const char*>);

// Small weights for tests that need no outside material.
SaeWeights random_weights(int64_t d_in, int64_t d_sae, uint64_t seed) {
  Rng rng(seed);
  SaeWeights w;
  w.w_enc = Tensor(DType::kF32, {d_sae, d_in});
  w.b_enc = Tensor(DType::kF32, {d_sae});
  w.w_dec = Tensor(DType::kF32, {d_sae, d_in});
  w.b_dec = Tensor(DType::kF32, {d_in});
  w.threshold = Tensor(DType::kF32, {d_sae});
  for (Tensor* t : {&w.w_enc, &w.b_enc, &w.w_dec, &w.b_dec, &w.threshold}) {
    for (int64_t i = 0; i < t->elements(); ++i) t->as<float>()[i] = static_cast<float>(rng.normal());
  }
  return w;
}

SaeConfig small_config(SaeKind kind) {
  SaeConfig config;
  config.kind = kind;
  config.d_in = config.d_out = 24;
  config.d_sae = 80;
  config.k = 5;
  config.site = "blocks.3.hook_resid_post";
  config.model = "tiny";
  return config;
}

Tensor random_rows(int64_t rows, int64_t cols, uint64_t seed) {
  Rng rng(seed, 7);
  Tensor x(DType::kF32, {rows, cols});
  for (int64_t i = 0; i < x.elements(); ++i) x.as<float>()[i] = static_cast<float>(rng.normal());
  return x;
}

TEST(Sae, SubsetsHaveTheSameValues) {
  for (const SaeKind kind : {SaeKind::kStandard, SaeKind::kJumpRelu, SaeKind::kTopK}) {
    SaeConfig config;
    config.kind = kind;
    config.d_in = config.d_out = 24;
    config.d_sae = 100;
    config.k = 5;
    SaeWeights weights = random_weights(24, 100, 3);
    if (kind == SaeKind::kJumpRelu) {
      weights.threshold = Tensor(DType::kF32, {100});
      for (int i = 0; i < 100; ++i) weights.threshold.as<float>()[i] = 0.01f * static_cast<float>(i);
    }
    const auto sae = Sae::from_weights(config, std::move(weights));
    Tensor x(DType::kF32, {33, 24});
    Rng rng(4);
    for (int64_t i = 0; i < x.elements(); ++i) x.as<float>()[i] = static_cast<float>(rng.normal());
    expect_subset(*sae, x.f32());
    const int32_t outside[] = {3, 100};
    EXPECT_NE(message_of([&] { (void)sae->subset(outside); }).find("latent 100"), std::string::npos);
  }
}

TEST(Sae, EncodesARowAlikeAloneAndAmongOthers) {
  for (const SaeKind kind : {SaeKind::kStandard, SaeKind::kTopK, SaeKind::kJumpRelu}) {
    const auto sae = Sae::from_weights(small_config(kind), random_weights(24, 80, 1));
    const Tensor x = random_rows(300, 24, 2);
    const SparseLatents all = sae->encode(x.f32());
    ASSERT_EQ(all.rows(), 300);
    for (const int64_t r : {0, 255, 256, 299}) {
      const SparseLatents one = sae->encode(x.f32().rows_range(r, r + 1));
      const int64_t n = all.row_offsets[r + 1] - all.row_offsets[r];
      ASSERT_EQ(one.row_offsets[1], n);
      for (int64_t i = 0; i < n; ++i) {
        EXPECT_EQ(one.indices[i], all.indices[all.row_offsets[r] + i]);
        EXPECT_EQ(one.values[i], all.values[all.row_offsets[r] + i]);
      }
    }
  }
}

TEST(Sae, BfloatFilesHoldWeightsRoundedToNearestEven) {
  SaeWeights weights = random_weights(24, 80, 3);
  weights.w_dec.as<float>()[0] = 1.00390625f;  // halfway between 1 and the next bfloat16: to even, so 1
  weights.w_dec.as<float>()[1] = 1.01171875f;  // halfway again: to even, so up
  const auto sae = Sae::from_weights(small_config(SaeKind::kTopK), std::move(weights));
  const std::string folder = temporary_folder("bf16");
  sae->save(folder, DType::kBf16);
  const SafetensorsFile file = SafetensorsFile::open(folder + "/sae_weights.safetensors");
  EXPECT_EQ(file.at("W_enc").shape, (std::vector<int64_t>{24, 80}));
  EXPECT_EQ(file.at("W_dec").dtype, DType::kBf16);
  const Tensor stored = to_f32(file.at("W_dec"));
  EXPECT_EQ(stored.as<float>()[0], 1.0f);
  EXPECT_EQ(stored.as<float>()[1], 1.015625f);
  const Json config = read_json_file(folder + "/cfg.json");
  EXPECT_EQ(config.at("dtype").as_string(), "bfloat16");
  EXPECT_EQ(config.at("k").as_int(), 5);
  EXPECT_EQ(config.at("metadata").at("hook_name").as_string(), "blocks.3.hook_resid_post");
  fs::remove_all(folder);
}

TEST(Sae, DecoderRowsAndNormsAreThoseOfTheFile) {
  const auto sae = Sae::from_weights(small_config(SaeKind::kTopK), random_weights(24, 80, 4));
  const std::string folder = temporary_folder("rows");
  sae->save(folder, DType::kF32);
  const auto loaded = Sae::load(folder, {.verify = false});
  const std::vector<int32_t> wanted = {79, 0, 13};
  const Tensor rows = loaded->decoder_rows(wanted), same = sae->decoder_rows(wanted);
  EXPECT_EQ(rows.shape(), (std::vector<int64_t>{3, 24}));
  EXPECT_EQ(std::memcmp(rows.data(), same.data(), rows.bytes()), 0);
  double sum = 0;
  for (int64_t c = 0; c < 24; ++c) sum += static_cast<double>(rows.f32()(2, c)) * rows.f32()(2, c);
  EXPECT_NEAR(loaded->decoder_norms()[13], std::sqrt(sum), 1e-5);
  EXPECT_THROW((void)loaded->decoder_rows(std::vector<int32_t>{80}), Error);
  EXPECT_EQ(loaded->sha256().size(), 64U);
  fs::remove_all(folder);
}

TEST(Sae, RowsOfTheWrongWidthAreRefused) {
  const auto sae = Sae::from_weights(small_config(SaeKind::kTopK), random_weights(24, 80, 5));
  const Tensor x = random_rows(2, 25, 1);
  const std::string message = message_of([&] { (void)sae->encode(x.f32()); });
  EXPECT_NE(message.find("24"), std::string::npos) << message;
  EXPECT_NE(message.find("25"), std::string::npos) << message;
}

TEST(Sae, LatentsThatDoNotFitAreRefused) {
  const auto sae = Sae::from_weights(small_config(SaeKind::kTopK), random_weights(24, 80, 5));
  SparseLatents latents;
  latents.row_offsets = {0, 1};
  latents.indices = {80};
  latents.values = {1.0f};
  EXPECT_THROW((void)sae->decode(latents, {}), Error);
}

TEST(Sae, AZeroDecoderRowGivesNoNan) {
  SaeConfig config = small_config(SaeKind::kTopK);
  config.rescale_acts_by_decoder_norm = true;
  SaeWeights weights = random_weights(24, 80, 6);
  std::fill_n(weights.w_dec.as<float>(), 24, 0.0f);
  const auto sae = Sae::from_weights(config, std::move(weights));
  SparseLatents latents;
  latents.row_offsets = {0, 1};
  latents.indices = {0};
  latents.values = {2.0f};
  const Tensor y = sae->decode(latents, {});
  for (int64_t c = 0; c < 24; ++c) EXPECT_TRUE(std::isfinite(y.f32()(0, c)));
}

// One key of a good configuration changed: the message must name it.
struct Change {
  const char* key;
  Json value;
};

TEST(SaeLens, ConfigurationsAreAClosedWorld) {
  const auto sae = Sae::from_weights(small_config(SaeKind::kTopK), random_weights(24, 80, 7));
  const std::string folder = temporary_folder("closed");
  sae->save(folder, DType::kF32);
  const Json good = read_json_file(folder + "/cfg.json");
  const std::vector<Change> changes = {{"normalize_activations", "covariance_whitening"},
                                       {"reshape_activations", "fold"},
                                       {"d_sae", 81},
                                       {"finetuning_scaling_factor", true},
                                       {"k", 81},
                                       {"d_in", "many"},
                                       {"apply_b_dec_to_input", 1}};
  for (const Change& change : changes) {
    Json changed = good;
    changed[change.key] = change.value;
    write_json_file(folder + "/cfg.json", changed);
    const std::string message = message_of([&] { Sae::load(folder); });
    EXPECT_NE(message.find(change.key), std::string::npos) << change.key << ": " << message;
  }
  fs::remove(folder + "/cfg.json");
  EXPECT_NE(message_of([&] { Sae::load(folder); }).find("cfg.json"), std::string::npos);
  fs::remove_all(folder);
  EXPECT_THROW(Sae::load(folder), Error);
}

TEST(SaeLens, TheFactorOfTheAverageNormMayLieBeside) {
  const auto sae = Sae::from_weights(small_config(SaeKind::kTopK), random_weights(24, 80, 8));
  const std::string folder = temporary_folder("scaler");
  sae->save(folder, DType::kF32);
  Json config = read_json_file(folder + "/cfg.json");
  config["normalize_activations"] = "expected_average_only_in";
  write_json_file(folder + "/cfg.json", config);
  EXPECT_NE(message_of([&] { Sae::load(folder); }).find("expected_average_only_in"), std::string::npos);
  write_json_file(folder + "/activation_scaler.json", Json::object({{"scaling_factor", 0.5}}));
  const auto loaded = Sae::load(folder);
  EXPECT_FLOAT_EQ(loaded->decoder_norms()[3], 2.0f * sae->decoder_norms()[3]);
  fs::remove_all(folder);
}

TEST(SaeLens, AFullOrReadOnlyPlaceIsAnErrorThatNamesIt) {
  const auto sae = Sae::from_weights(small_config(SaeKind::kTopK), random_weights(24, 80, 9));
  const std::string message = message_of([&] { sae->save("/proc/saif_no_such_place", DType::kF32); });
  EXPECT_NE(message.find("/proc/saif_no_such_place"), std::string::npos) << message;
}

TEST(Fidelity, OfAPerfectDictionary) {
  SaeConfig config = small_config(SaeKind::kStandard);
  config.d_sae = 48;
  config.apply_b_dec_to_input = false;
  SaeWeights w = random_weights(24, 48, 10);
  std::memset(w.w_enc.data(), 0, w.w_enc.bytes());
  std::memset(w.w_dec.data(), 0, w.w_dec.bytes());
  std::memset(w.b_enc.data(), 0, w.b_enc.bytes());
  std::memset(w.b_dec.data(), 0, w.b_dec.bytes());
  for (int64_t i = 0; i < 24; ++i) {  // latent i is the positive part of coordinate i, latent 24 + i the negative one
    w.w_enc.f32()(i, i) = w.w_dec.f32()(i, i) = 1.0f;
    w.w_enc.f32()(24 + i, i) = w.w_dec.f32()(24 + i, i) = -1.0f;
  }
  const auto sae = Sae::from_weights(config, std::move(w));
  const Tensor x = random_rows(500, 24, 11);
  const SaeFidelity fidelity = measure_fidelity(*sae, x.f32());
  EXPECT_EQ(fidelity.tokens, 500);
  EXPECT_NEAR(fidelity.l0, 24.0, 1e-9);
  EXPECT_NEAR(fidelity.fvu, 0.0, 1e-12);
  EXPECT_EQ(fidelity.dead, 0.0);
  EXPECT_EQ(fidelity.dense, 1.0);
  EXPECT_EQ(fidelity.decoder_norm_max, 1.0);
}

// More latents than are looked at in one piece, with equal pre-activations in different pieces.
TEST(SaeSelection, ManyLatentsAgreeWithASortOfAll) {
  constexpr int64_t kIn = 4, kLatents = 9001, kRows = 5;
  for (const SaeKind kind : {SaeKind::kTopK, SaeKind::kStandard, SaeKind::kJumpRelu}) {
    SaeConfig config;
    config.kind = kind;
    config.d_in = config.d_out = kIn;
    config.d_sae = kLatents;
    config.k = 40;
    config.apply_b_dec_to_input = false;
    SaeWeights weights;
    weights.w_enc = Tensor(DType::kF32, {kLatents, kIn});
    weights.w_dec = Tensor::zeros(DType::kF32, {kLatents, kIn});
    weights.b_enc = Tensor(DType::kF32, {kLatents});
    weights.threshold = Tensor(DType::kF32, {kLatents});
    weights.b_dec = Tensor::zeros(DType::kF32, {kIn});
    uint64_t state = 5;
    const auto below = [&](uint64_t n) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      return static_cast<float>((state >> 33) % n);
    };
    for (int64_t j = 0; j < kLatents; ++j) {
      // Small integers: products are exact, and many are equal.
      for (int64_t c = 0; c < kIn; ++c) weights.w_enc.f32()(j, c) = below(7) - 3.0f;
      weights.b_enc.as<float>()[j] = below(3) - 1.0f;
      weights.threshold.as<float>()[j] = below(12);
    }
    Tensor x(DType::kF32, {kRows, kIn});
    for (int64_t i = 0; i < kRows * kIn; ++i) x.as<float>()[i] = below(5) - 2.0f;
    for (int64_t c = 0; c < kIn; ++c) x.f32()(4, c) = 0.0f;
    std::vector<float> dense(static_cast<size_t>(kLatents));
    std::vector<int32_t> order(dense.size());
    const Tensor w = convert(weights.w_enc.view(), DType::kF32), b = convert(weights.b_enc.view(), DType::kF32),
                 t = convert(weights.threshold.view(), DType::kF32);
    const auto sae = Sae::from_weights(config, std::move(weights));
    const SparseLatents found = sae->encode(x.f32());
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t j = 0; j < kLatents; ++j) {
        float h = b.as<float>()[j];
        for (int64_t c = 0; c < kIn; ++c) h += x.f32()(r, c) * w.f32()(j, c);
        const bool open = kind != SaeKind::kJumpRelu || h > t.as<float>()[j];
        dense[static_cast<size_t>(j)] = open ? std::max(h, 0.0f) : 0.0f;
      }
      std::iota(order.begin(), order.end(), 0);
      std::ranges::stable_sort(order, [&](int32_t a, int32_t b2) { return dense[a] > dense[b2]; });
      std::vector<int32_t> expected;
      for (size_t i = 0; i < (kind == SaeKind::kTopK ? 40U : order.size()) && dense[order[i]] > 0; ++i) {
        expected.push_back(order[i]);
      }
      std::ranges::sort(expected);
      const auto begin = found.row_offsets[r], end = found.row_offsets[r + 1];
      EXPECT_EQ(std::vector<int32_t>(found.indices.begin() + begin, found.indices.begin() + end), expected) << r;
      for (int64_t i = begin; i < end; ++i) EXPECT_EQ(found.values[i], dense[found.indices[i]]);
    }
  }
}

}  // namespace
}  // namespace saif
