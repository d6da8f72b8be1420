// SAEs that belong to one site of a planted model, mislabelled and damaged: the check must name what was done to them.
#include "sae/diagnosis.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "sae/altered.h"
#include "sae/loaders/tensor_set.h"
#include "support/engine_fixtures.h"
#include "support/paths.h"

namespace saif {
namespace {

constexpr int64_t kWidth = 24, kPart = 8, kLatents = 16;
constexpr const char* kSite = "blocks.1.hook_resid_post";

class AnyText final : public test::LetterTokenizer {
 public:
  AnyText() : LetterTokenizer(std::vector<std::string>(50, "x")) {}
  std::vector<int32_t> encode(std::string_view text, EncodeOptions /*options*/) const override {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c) % 50);
    return ids;
  }
};

// Embeddings lie in columns 0 to 7, around a constant; block 0 writes to columns 8 to 15, block 1 much more to columns
// 16 to 23, block 2 still more to 8 to 15; attention adds nothing. So columns 16 to 23 are all of
// blocks.1.hook_resid_post and nothing of any other layer. `size` multiplies everything that is written.
std::shared_ptr<const Model> planted_model(const std::string& name, float size = 1.0f) {
  test::TinyModel tiny(5);
  for (auto& [key, tensor] : tiny.tensors) {
    const Mat<float> w = tensor.f32();
    if (key.ends_with("o_proj.weight")) std::fill_n(tensor.as<float>(), tensor.elements(), 0.0f);
    for (int64_t r = 0; r < w.rows(); ++r) {
      for (int64_t c = 0; c < w.cols(); ++c) {
        if (key == "model.embed_tokens.weight") w(r, c) = c < kPart ? size * (3.0f + 0.7f * w(r, c)) : 0.0f;
        if (!key.ends_with("down_proj.weight")) continue;
        const int layer = key[13] - '0';
        const int64_t part = layer == 1 ? 2 : 1;
        const float growth = layer == 0 ? 0.5f : (layer == 1 ? 5.0f : 60.0f);
        w(r, c) *= r / kPart == part ? size * growth : 0.0f;
      }
    }
  }
  return Model::load(tiny.write("diagnosis_" + name), {"f32"});
}

class Diagnosis : public testing::Test {
 protected:
  void SetUp() override {
    const std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    engine_ = std::make_unique<Engine>(planted_model(name), std::make_shared<AnyText>());
  }

  // +-1 on columns 16 to 23; b_dec holds what columns 0 to 7 are around. Kept where above the threshold.
  SaeConfig config_of(const std::string& site) const {
    SaeConfig config;
    config.kind = SaeKind::kJumpRelu;
    config.d_in = config.d_out = kWidth;
    config.d_sae = kLatents;
    config.site = site;
    config.model = engine_->model().name();
    return config;
  }

  static SaeWeights weights() {
    SaeWeights w;
    w.w_enc = Tensor::zeros(DType::kF32, {kLatents, kWidth});
    w.w_dec = Tensor::zeros(DType::kF32, {kLatents, kWidth});
    w.b_enc = Tensor::zeros(DType::kF32, {kLatents});
    w.b_dec = Tensor::zeros(DType::kF32, {kWidth});
    w.threshold = Tensor::zeros(DType::kF32, {kLatents});
    for (int64_t i = 0; i < kPart; ++i) {
      w.w_enc.f32()(i, 2 * kPart + i) = w.w_dec.f32()(i, 2 * kPart + i) = 1.0f;
      w.w_enc.f32()(kPart + i, 2 * kPart + i) = w.w_dec.f32()(kPart + i, 2 * kPart + i) = -1.0f;
      w.b_dec.as<float>()[i] = 3.0f;
    }
    return w;
  }

  static void scale(Tensor& tensor, double factor) {
    for (int64_t i = 0; i < tensor.elements(); ++i) {
      tensor.as<float>()[i] = static_cast<float>(tensor.as<float>()[i] * factor);
    }
  }

  // Matrices hold the same values with their bytes in the other order.
  static void transpose_bytes(Tensor& tensor) {
    const Tensor other = transposed(tensor.view());
    std::copy_n(other.as<float>(), other.elements(), tensor.as<float>());
  }

  // The message of the refusal; "" when it is accepted.
  std::string refusal(const SaeConfig& config, SaeWeights w) {
    try {
      last_ = check_sae(*Sae::from_weights(config, std::move(w)), *engine_, {}, {});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::kRefused) << error.what();
      return error.what();
    }
    return "";
  }

  std::unique_ptr<Engine> engine_;
  SaeFidelity last_;
};

#define EXPECT_MENTIONS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(Diagnosis, ItsOwnSiteIsAccepted) {
  EXPECT_EQ(refusal(config_of(kSite), weights()), "");
  EXPECT_LT(last_.fvu, 0.3);
}

TEST_F(Diagnosis, AWrongLayerIsNamed) {
  for (const char* wrong : {"blocks.0.hook_resid_post", "blocks.2.hook_resid_post", "blocks.1.hook_resid_pre"}) {
    const std::string message = refusal(config_of(wrong), weights());
    EXPECT_MENTIONS(message, kSite);  // or as (= ...) behind the name of what enters block 2
    EXPECT_MENTIONS(message, std::string("the site ") + wrong + " is wrong; pass --site");
  }
}

TEST_F(Diagnosis, AnotherSiteOfTheBlockIsNamed) {
  EXPECT_MENTIONS(refusal(config_of("blocks.1.hook_attn_out"), weights()), "at blocks.1.hook_resid_post");
  EXPECT_MENTIONS(refusal(config_of("blocks.1.hook_mlp_out"), weights()), "at blocks.1.hook_resid_post");
}

TEST_F(Diagnosis, AMissingInputScaleIsNamed) {
  // Trained on x s, s = sqrt(d) / mean |x|, with a threshold that most entries pass there and none here.
  constexpr float kSize = 0.01f;
  engine_ = std::make_unique<Engine>(planted_model("small", kSize), std::make_shared<AnyText>());
  const std::vector<std::vector<int32_t>> text = {AnyText().encode("The harbour was quiet when", {})};
  const Site site = Site::parse(kSite);
  const Engine::Capture capture = engine_->capture(text, {&site, 1}, false, {});
  const Mat<const float> x = capture.sites[0].second.f32();
  double norm = 0;
  for (int64_t r = 0; r < x.rows(); ++r) {
    double square = 0;
    for (int64_t c = 0; c < kWidth; ++c) square += static_cast<double>(x(r, c)) * x(r, c);
    norm += std::sqrt(square) / static_cast<double>(x.rows());
  }
  const double s = std::sqrt(static_cast<double>(kWidth)) / norm;
  ASSERT_GT(s, 5.0);
  SaeWeights w = weights();
  scale(w.b_dec, s * kSize);
  for (int64_t j = 0; j < kLatents; ++j) w.threshold.as<float>()[j] = 0.5f;
  SaeConfig config = config_of(kSite);
  config.published_l0 = 6.0;
  const std::string message = refusal(config, std::move(w));
  EXPECT_MENTIONS(message, "sqrt(d) / mean norm");
  EXPECT_MENTIONS(message, "norm_scaling_factor");
}

TEST_F(Diagnosis, ARescaledDecoderIsNamedWithItsFactor) {
  SaeWeights w = weights();
  scale(w.w_dec, 0.2);
  const std::string message = refusal(config_of(kSite), std::move(w));
  EXPECT_MENTIONS(message, "with its reconstruction times 5 this SAE");
}

TEST_F(Diagnosis, TransposedMatricesAreNamed) {
  SaeWeights encoder = weights(), decoder = weights(), both = weights();
  transpose_bytes(encoder.w_enc);
  transpose_bytes(decoder.w_dec);
  transpose_bytes(both.w_enc);
  transpose_bytes(both.w_dec);
  EXPECT_MENTIONS(refusal(config_of(kSite), std::move(encoder)), "with its encoder transposed");
  EXPECT_MENTIONS(refusal(config_of(kSite), std::move(decoder)), "with its decoder transposed");
  EXPECT_MENTIONS(refusal(config_of(kSite), std::move(both)), "with its encoder and decoder transposed");
}

TEST_F(Diagnosis, AnUnneededNormalisationIsNamed) {
  SaeConfig config = config_of(kSite);
  config.normalize = "constant_norm_rescale";
  SaeWeights w = weights();
  for (int64_t j = 0; j < kLatents; ++j) w.threshold.as<float>()[j] = 2.0f;
  EXPECT_MENTIONS(refusal(config, std::move(w)), "without input normalisation");
}

TEST_F(Diagnosis, AnSaeOfAnotherModelFitsNowhere) {
  SaeWeights w = weights();
  Rng rng(3);
  for (Tensor* t : {&w.w_enc, &w.w_dec}) {
    for (int64_t i = 0; i < t->elements(); ++i) t->as<float>()[i] = static_cast<float>(rng.normal());
  }
  const std::string message = refusal(config_of(kSite), std::move(w));
  EXPECT_MENTIONS(message, "neighbours of blocks.1.hook_resid_post fits");
  EXPECT_MENTIONS(message, "another model");
}

TEST(DiagnosisOfBundled, TheCauseIsFoundOnTheRealModel) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "minutes under sanitizers, which see the same code in the small models of this file";
#endif
  const std::string folder = test::source_dir("models/smollm2-135m-instruct/blocks.20.hook_resid_post");
  if (!file_exists(test::model_path("smollm2"))) GTEST_SKIP() << "the model smollm2 is not here";
  if (!directory_exists(folder)) GTEST_SKIP() << folder << " is not here";
  const auto model = Model::load(test::model_path("smollm2"));
  Engine engine(model, Tokenizer::load(model->path()));
  const auto sae = Sae::load(folder, {.verify = false});
  EXPECT_NO_THROW((void)check_sae(*sae, engine, {}, {}));
  const auto message = [&](const std::shared_ptr<const Sae>& changed) {
    return std::string(test::error_of([&] { (void)check_sae(*changed, engine, {}, {}); }).what());
  };
  const auto elsewhere = altered(*sae, [](SaeSource& s) { s.config.site = "blocks.20.hook_mlp_out"; });
  EXPECT_MENTIONS(message(elsewhere), "at blocks.20.hook_resid_post");
  const auto smaller = altered(*sae, [](SaeSource& s) { s.decoder_scale *= 0.25f; });
  EXPECT_MENTIONS(message(smaller), "with its reconstruction times 4.0");
  const auto turned = altered(*sae, [](SaeSource& s) {
    const std::vector<int64_t> shape = s.w_dec.shape;
    set_linear_decoder(s, s.w_dec);
    s.w_dec.shape = shape;
  });
  EXPECT_MENTIONS(message(turned), "with its decoder transposed");
}

}  // namespace
}  // namespace saif
