// SAEs written as sparsify reads them, and read again.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "base/file.h"
#include "base/rng.h"
#include "formats/safetensors.h"
#include "saif/sae.h"
#include "support/paths.h"

namespace saif {
namespace {

namespace fs = std::filesystem;

std::string temporary_folder(const std::string& name) {
  const std::string path = testing::TempDir() + "/saif_export_" + std::to_string(getpid()) + "_" + name;
  fs::remove_all(path);
  fs::create_directories(path);
  return path;
}

std::shared_ptr<const Sae> random_topk(bool subtract, bool rescale) {
  SaeConfig config;
  config.d_in = config.d_out = 12;
  config.d_sae = 40;
  config.k = 5;
  config.apply_b_dec_to_input = subtract;
  config.rescale_acts_by_decoder_norm = rescale;
  config.site = "blocks.7.hook_resid_post";
  SaeWeights w;
  w.w_enc = Tensor(DType::kF32, {40, 12});
  w.b_enc = Tensor(DType::kF32, {40});
  w.w_dec = Tensor(DType::kF32, {40, 12});
  w.b_dec = Tensor(DType::kF32, {12});
  Rng rng(4);
  for (Tensor* t : {&w.w_enc, &w.b_enc, &w.w_dec, &w.b_dec}) {
    for (int64_t i = 0; i < t->elements(); ++i) t->as<float>()[i] = static_cast<float>(rng.normal());
  }
  for (int64_t c = 0; c < 12; ++c) w.w_dec.f32()(3, c) = 0.0f;  // a dead decoder row
  return Sae::from_weights(config, std::move(w));
}

Tensor random_rows(int64_t rows, int64_t cols) {
  Tensor x(DType::kF32, {rows, cols});
  Rng rng(8);
  for (int64_t i = 0; i < x.elements(); ++i) x.as<float>()[i] = static_cast<float>(2.0 * rng.normal());
  return x;
}

void expect_same(const Sae& a, const Sae& b, Mat<const float> x) {
  const SparseLatents la = a.encode(x), lb = b.encode(x);
  ASSERT_EQ(la.indices, lb.indices);
  for (size_t i = 0; i < la.values.size(); ++i)
    ASSERT_NEAR(la.values[i], lb.values[i], 1e-4 * (1 + std::abs(la.values[i])));
  const Tensor ya = a.decode(la, x), yb = b.decode(lb, x);
  for (int64_t i = 0; i < ya.elements(); ++i) ASSERT_NEAR(ya.as<float>()[i], yb.as<float>()[i], 2e-4);
}

TEST(ExportSparsify, TopKInAllItsVariantsIsReadBackTheSame) {
  const Tensor x = random_rows(50, 12);
  for (const bool subtract : {false, true}) {
    for (const bool rescale : {false, true}) {
      const std::string folder = temporary_folder("topk");
      const auto sae = random_topk(subtract, rescale);
      const std::string written = sae->save_as("sparsify", folder, DType::kF32);
      EXPECT_EQ(written, folder + "/layers.7");
      const auto again = Sae::load(written);
      EXPECT_EQ(again->config().format, "sparsify");
      EXPECT_EQ(again->config().site, "blocks.7.hook_resid_post");
      expect_same(*sae, *again, x.f32());
      EXPECT_EQ(again->save_as("sparsify", written, DType::kF32), written);  // already in the hookpoint's folder
      fs::remove_all(folder);
    }
  }
}

TEST(ExportSparsify, FilesAreThoseOfTheLibrary) {
  const std::string folder = temporary_folder("layout"),
                    written = random_topk(true, false)->save_as("sparsify", folder, DType::kBf16);
  const Json config = read_json_file(written + "/cfg.json");
  std::vector<std::string> keys;
  for (const auto& [key, value] : config.members()) keys.push_back(key);
  EXPECT_EQ(keys, (std::vector<std::string>{"activation", "expansion_factor", "normalize_decoder", "num_latents", "k",
                                            "multi_topk", "skip_connection", "transcode", "d_in"}));
  EXPECT_EQ(config.at("num_latents").as_int(), 40);
  const SafetensorsFile file = SafetensorsFile::open(written + "/sae.safetensors");
  EXPECT_EQ(file.at("encoder.weight").shape, (std::vector<int64_t>{40, 12}));
  EXPECT_EQ(file.at("W_dec").shape, (std::vector<int64_t>{40, 12}));
  EXPECT_EQ(file.at("encoder.bias").dtype, DType::kBf16);
  EXPECT_EQ(file.at("b_dec").shape, (std::vector<int64_t>{12}));
  EXPECT_EQ(file.names().size(), 4U);
  fs::remove_all(folder);
}

TEST(ExportSparsify, PublicFilesSurviveTheRoundTrip) {
  for (const char* name :
       {"sparsify-topk", "sparsify-groupmax", "sparsify-transcode-skip", "sae_lens-topk", "sae_lens-topk-rescale"}) {
    const std::string data = std::string("data/saes/") + name;
    SAIF_REQUIRE_SHARED(data);
    const auto sae = Sae::load(
        test::shared_dir(data + "/" + read_json_file(test::shared_dir(data + "/meta.json")).at("load").as_string()));
    const std::string folder = temporary_folder(name);
    const auto again = Sae::load(sae->save_as("sparsify", folder, DType::kF32));
    EXPECT_EQ(again->config().site, sae->config().site) << name;
    EXPECT_EQ(again->config().site_out, sae->config().site_out) << name;
    const SafetensorsFile expected = SafetensorsFile::open(test::shared_dir(data + "/expected.safetensors"));
    const Tensor x = to_f32(expected.at("x"));
    expect_same(*sae, *again, x.f32().rows_range(0, 48));
    fs::remove_all(folder);
  }
}

TEST(ExportSparsify, WhatItCannotSayIsRefused) {
  const std::string folder = temporary_folder("refused");
  const auto message = [&](const std::shared_ptr<const Sae>& sae, const std::string& format) {
    try {
      (void)sae->save_as(format, folder, DType::kF32);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  SaeConfig config = random_topk(true, false)->config();
  const auto with = [&](const SaeConfig& changed) {
    SaeWeights w;
    w.w_enc = Tensor::zeros(DType::kF32, {40, 12});
    w.b_enc = Tensor::zeros(DType::kF32, {40});
    w.w_dec = Tensor::zeros(DType::kF32, {40, 12});
    w.b_dec = Tensor::zeros(DType::kF32, {12});
    w.threshold = Tensor::zeros(DType::kF32, {40});
    return Sae::from_weights(changed, std::move(w));
  };
  SaeConfig changed = config;
  changed.kind = SaeKind::kJumpRelu;
  EXPECT_NE(message(with(changed), "sparsify").find("architecture jumprelu"), std::string::npos);
  changed = config;
  changed.normalize = "layer_norm";
  EXPECT_NE(message(with(changed), "sparsify").find("layer_norm"), std::string::npos);
  changed = config;
  changed.site = "blocks.3.ln1.hook_normalized";
  EXPECT_NE(message(with(changed), "sparsify").find("no module's output"), std::string::npos);
  EXPECT_NE(message(with(config), "onnx").find("expected sae_lens or sparsify"), std::string::npos);
  EXPECT_TRUE(fs::is_empty(folder));
  fs::remove_all(folder);
}

}  // namespace
}  // namespace saif
