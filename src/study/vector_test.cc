#include "saif/vector.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/file.h"
#include "base/rng.h"
#include "formats/safetensors.h"
#include "support/message_of.h"

namespace saif {
namespace {

using test::message_of;

Architecture tiny() {
  Architecture a;
  a.d_model = 4;
  a.n_layers = 3;
  a.layers.resize(3);
  return a;
}

std::string temporary(const std::string& name) {
  return testing::TempDir() + "saif_vector_" + std::to_string(::getpid()) + "_" + name;
}

SteeringVector example() {
  SteeringVector v;
  v.site = "blocks.1.hook_resid_post";
  v.vector = {1, -2, 0.5f, 3};
  return v;
}

std::vector<float> edited(const SteeringVector& v, double scale, std::vector<float> h, int64_t step) {
  const AppliedEdit edit = make_edit(v, scale, tiny());
  edit.edit->apply(Mat<float>(h.data(), 1, 4), std::span<const int64_t>(&step, 1));
  return h;
}

TEST(SteeringVector, SurvivesAFile) {
  SteeringVector v = example();
  v.op = EditOp::kProject;
  v.positions = EditPositions::kAll;
  v.norm_preserving = true;
  v.decay = 0.125;
  v.scale = 1.5;
  v.origin = Json::object({{"task", "french"}, {"k", 15}});
  const std::string path = temporary("round.safetensors");
  v.save(path);
  const SteeringVector w = SteeringVector::load(path);
  EXPECT_EQ(w.vector, v.vector);
  EXPECT_EQ(w.site, v.site);
  EXPECT_EQ(w.op, v.op);
  EXPECT_EQ(w.positions, v.positions);
  EXPECT_EQ(w.norm_preserving, true);
  EXPECT_EQ(w.decay, 0.125);
  EXPECT_EQ(w.scale, 1.5);
  EXPECT_EQ(w.origin.dump(), v.origin.dump());
  std::filesystem::remove(path);
}

TEST(SteeringVector, AddsItsScaleTimesItself) {
  EXPECT_EQ(edited(example(), 2.0, {1, 1, 1, 1}, 0), (std::vector<float>{3, -3, 2, 7}));
}

TEST(SteeringVector, DecaysOverGeneratedTokensOnly) {
  SteeringVector v = example();
  v.decay = 1.0;
  EXPECT_EQ(edited(v, 1.0, {0, 0, 0, 0}, 0), v.vector);
  EXPECT_EQ(edited(v, 1.0, {0, 0, 0, 0}, -5), v.vector);
  EXPECT_EQ(edited(v, 1.0, {0, 0, 0, 0}, 1), (std::vector<float>{0.5f, -1, 0.25f, 1.5f}));
}

TEST(SteeringVector, KeepsTheNormWhenAsked) {
  SteeringVector v = example();
  v.norm_preserving = true;
  const std::vector<float> h = edited(v, 3.0, {3, 0, 0, 4}, 0);
  double norm = 0;
  for (const float x : h) norm += static_cast<double>(x) * x;
  EXPECT_NEAR(std::sqrt(norm), 5.0, 1e-5);
}

TEST(SteeringVector, ProjectSetsTheComponent) {
  SteeringVector v = example();
  v.op = EditOp::kProject;
  const std::vector<float> h = edited(v, 2.0, {5, 6, 7, 8}, 0);
  double along = 0;
  for (size_t i = 0; i < 4; ++i) along += static_cast<double>(h[i]) * v.vector[i] / v.norm();
  EXPECT_NEAR(along, 2.0 * v.norm(), 1e-5);
}

TEST(SteeringVector, RefusesWhatDoesNotFit) {
  SteeringVector v = example();
  v.vector.push_back(1);
  EXPECT_NE(message_of([&] { make_edit(v, 1, tiny()); }).find("5 wide"), std::string::npos);
  v = example();
  v.site = "blocks.7.hook_resid_post";
  EXPECT_NE(message_of([&] { make_edit(v, 1, tiny()); }).find("7"), std::string::npos);
}

TEST(SteeringVector, FilesThatAreNoVectorsAreNamed) {
  const std::string path = temporary("bad.safetensors");
  const float x[4] = {1, 2, 3, 4};
  const NamedTensor other{"direction", {DType::kF32, {4}, x}};
  write_safetensors(path, {&other, 1}, {});
  EXPECT_NE(message_of([&] { SteeringVector::load(path); }).find("no tensor \"vector\""), std::string::npos);
  const NamedTensor unplaced{"vector", {DType::kF32, {4}, x}};
  write_safetensors(path, {&unplaced, 1}, {});
  EXPECT_NE(message_of([&] { SteeringVector::load(path); }).find("saif.site"), std::string::npos);
  write_safetensors(path, {&unplaced, 1}, {{"saif.site", "blocks.1.hook_resid_post"}, {"saif.op", "multiply"}});
  EXPECT_NE(message_of([&] { SteeringVector::load(path); }).find("multiply"), std::string::npos);
  std::filesystem::remove(path);
  EXPECT_NE(message_of([&] { SteeringVector::load(path); }).find(path), std::string::npos);
}

// An SAE of every kind of arithmetic that a latent's value or its row goes through, at a site of a model 12 wide.
std::shared_ptr<const Sae> random_sae(SaeKind kind, bool rescale, const std::string& normalize) {
  SaeConfig config;
  config.kind = kind;
  config.d_in = config.d_out = 12;
  config.d_sae = 40;
  config.k = kind == SaeKind::kTopK ? 5 : 0;
  config.rescale_acts_by_decoder_norm = rescale;
  config.site = "blocks.1.hook_resid_post";
  SaeWeights w;
  Rng rng(4);
  const auto fill = [&](Tensor& t, std::vector<int64_t> shape) {
    t = Tensor(DType::kF32, std::move(shape));
    for (int64_t i = 0; i < t.elements(); ++i) t.as<float>()[i] = static_cast<float>(rng.normal());
  };
  fill(w.w_enc, {40, 12});
  fill(w.b_enc, {40});
  fill(w.w_dec, {40, 12});
  fill(w.b_dec, {12});
  if (kind == SaeKind::kJumpRelu) w.threshold = Tensor::zeros(DType::kF32, {40});
  if (normalize == "none") return Sae::from_weights(config, std::move(w));
  const std::string folder = temporary("sae_" + normalize);
  std::filesystem::create_directories(folder);
  Sae::from_weights(config, std::move(w))->save(folder, DType::kF32);
  Json json = read_json_file(folder + "/cfg.json");
  json["normalize_activations"] = normalize;
  write_json_file(folder + "/cfg.json", json);
  auto sae = Sae::load(folder);
  std::filesystem::remove_all(folder);
  return sae;
}

void set_latent(SparseLatents& row, int32_t latent, float value) {
  const auto at = std::lower_bound(row.indices.begin(), row.indices.end(), latent) - row.indices.begin();
  if (at == static_cast<int64_t>(row.indices.size()) || row.indices[static_cast<size_t>(at)] != latent) {
    row.indices.insert(row.indices.begin() + at, latent);
    row.values.insert(row.values.begin() + at, 0.0f);
    ++row.row_offsets.back();
  }
  row.values[static_cast<size_t>(at)] = value;
}

float latent_value(const SparseLatents& row, int32_t latent) {
  const auto at = std::lower_bound(row.indices.begin(), row.indices.end(), latent) - row.indices.begin();
  return at < static_cast<int64_t>(row.indices.size()) && row.indices[static_cast<size_t>(at)] == latent
             ? row.values[static_cast<size_t>(at)]
             : 0.0f;
}

Architecture twelve_wide() {
  Architecture a = tiny();
  a.d_model = 12;
  return a;
}

// h + decode(a') - decode(a), by the SAE's own decoder.
TEST(LatentEdit, KeepsTheErrorOfEveryKindOfSae) {
  struct Case {
    SaeKind kind;
    bool rescale;
    std::string normalize;
  };
  for (const Case& c :
       {Case{SaeKind::kStandard, false, "none"}, Case{SaeKind::kJumpRelu, false, "none"},
        Case{SaeKind::kTopK, false, "none"}, Case{SaeKind::kTopK, true, "none"},
        Case{SaeKind::kStandard, false, "layer_norm"}, Case{SaeKind::kTopK, false, "constant_norm_rescale"}}) {
    const auto sae = random_sae(c.kind, c.rescale, c.normalize);
    Rng rng(6);
    std::vector<float> x(12);
    for (float& v : x) v = static_cast<float>(3 * rng.normal() + 1);
    const Mat<const float> row(x.data(), 1, 12);
    const SparseLatents before = sae->encode(row);
    ASSERT_GT(before.indices.size(), 1U);
    const int32_t active = before.indices.front(), silent = active == 39 ? 38 : 39;
    for (const LatentOp op : {LatentOp::kClamp, LatentOp::kMinClamp, LatentOp::kAblate}) {
      SparseLatents after = before;
      const std::vector<LatentTarget> targets = {{active, 0.25f}, {silent, 2.5f}};
      for (const LatentTarget& t : targets) {
        const float now = latent_value(before, t.latent);
        set_latent(after, t.latent,
                   op == LatentOp::kAblate  ? 0.0f
                   : op == LatentOp::kClamp ? t.value
                                            : std::max(now, t.value));
      }
      const Tensor was = sae->decode(before, row), is = sae->decode(after, row);
      std::vector<float> h = x;
      const int64_t step = 0;
      make_latent_edit(sae, op, targets, EditPositions::kAll, twelve_wide())
          .edit->apply(Mat<float>(h.data(), 1, 12), std::span<const int64_t>(&step, 1));
      for (size_t i = 0; i < 12; ++i) {
        ASSERT_NEAR(h[i], x[i] + is.as<float>()[i] - was.as<float>()[i], 2e-5)
            << name_of(c.kind) << " " << c.normalize << " " << static_cast<int>(op);
      }
    }
  }
}

TEST(LatentEdit, RefusesTranscodersAndOtherModels) {
  const auto sae = random_sae(SaeKind::kStandard, false, "none");
  EXPECT_NE(message_of([&] {
              make_latent_edit(sae, LatentOp::kAblate, {{0, 0.0f}}, EditPositions::kAll, tiny());
            }).find("12 wide"),
            std::string::npos);
  SaeConfig config = sae->config();
  config.kind = SaeKind::kStandard;
  config.transcoder = true;
  config.d_out = 4;
  config.site_out = "blocks.1.hook_mlp_out";
  SaeWeights w;
  w.w_enc = Tensor::zeros(DType::kF32, {40, 12});
  w.b_enc = Tensor::zeros(DType::kF32, {40});
  w.w_dec = Tensor::zeros(DType::kF32, {40, 4});
  w.b_dec = Tensor::zeros(DType::kF32, {4});
  const auto transcoder = Sae::from_weights(config, std::move(w));
  EXPECT_NE(message_of([&] {
              make_latent_edit(transcoder, LatentOp::kAblate, {{0, 0.0f}}, EditPositions::kAll, twelve_wide());
            }).find("transcoder"),
            std::string::npos);
}

TEST(SteerArgument, SplitsTheScaleOff) {
  EXPECT_EQ(parse_steer("a.safetensors").path, "a.safetensors");
  EXPECT_EQ(parse_steer("a.safetensors:1.5").scale, 1.5);
  EXPECT_EQ(parse_steer("a.safetensors:-2").path, "a.safetensors");
  EXPECT_NE(message_of([] { parse_steer("a.safetensors:big"); }).find("not a number"), std::string::npos);
}

}  // namespace
}  // namespace saif
