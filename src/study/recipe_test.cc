#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>

#include "base/rng.h"
#include "saif/study.h"
#include "support/message_of.h"

namespace saif {
namespace {

using test::message_of;

constexpr int64_t kDModel = 8, kDSae = 64;

std::shared_ptr<const Sae> random_sae() {
  Rng rng(3);
  SaeConfig config;
  config.kind = SaeKind::kTopK;
  config.d_in = config.d_out = kDModel;
  config.d_sae = kDSae;
  config.k = 4;
  config.site = "blocks.1.hook_resid_post";
  SaeWeights w{Tensor::zeros(DType::kF32, {kDSae, kDModel}),
               Tensor::zeros(DType::kF32, {kDSae}),
               Tensor::zeros(DType::kF32, {kDSae, kDModel}),
               Tensor::zeros(DType::kF32, {kDModel}),
               {}};
  for (int64_t i = 0; i < kDSae * kDModel; ++i) {
    w.w_enc.as<float>()[i] = w.w_dec.as<float>()[i] = static_cast<float>(rng.normal());
  }
  return Sae::from_weights(config, std::move(w));
}

Discovery example() {
  Discovery d;
  d.task = "french";
  d.site = "blocks.1.hook_resid_post";
  d.placement = "post";
  d.stats = "all";
  for (int32_t j = 0; j < 30; ++j) {
    LatentStats s;
    s.index = j;
    s.sensitivity = 1.0 - 0.01 * j;
    s.specificity = 0.5;
    s.mean = 1.0 + j;
    s.std = 0.5;
    d.latents.push_back(s);
  }
  d.diffmean = {1, 2, 3, 4, 5, 6, 7, 8};
  d.mean_neg.assign(8, 0.f);
  for (int64_t j = 0; j < kDSae; ++j) d.firing_rate.push_back(static_cast<float>(j) / kDSae);
  return d;
}

TEST(Recipe, SaifIsTheWeightedSumOfDecoderRows) {
  const auto sae = random_sae();
  Recipe r;
  r.k = 3;
  r.beta = 2.0;
  r.rank = "sensitivity";
  const SteeringVector v = build_vector(example(), *sae, r);
  const Tensor rows = sae->decoder_rows(std::vector<int32_t>{0, 1, 2});
  for (int64_t c = 0; c < kDModel; ++c) {
    const double expected = 2.0 * rows.f32()(0, c) + 3.0 * rows.f32()(1, c) + 4.0 * rows.f32()(2, c);
    EXPECT_NEAR(v.vector[static_cast<size_t>(c)], expected, 1e-4);
  }
}

TEST(Recipe, TheEditIsTheRecipes) {
  const auto sae = random_sae();
  Recipe r;
  r.k = 2;
  r.scale = 1.5;
  EXPECT_EQ(build_vector(example(), *sae, r).op, EditOp::kAdd);
  r.op = "project";
  const SteeringVector v = build_vector(example(), *sae, r);
  EXPECT_EQ(v.op, EditOp::kProject);
  EXPECT_EQ(v.scale, 1.5);
  EXPECT_NE(label_of(r).find("project"), std::string::npos);
  r.op = "push";
  const std::string message = message_of([&] { build_vector(example(), *sae, r); });
  for (const char* part : {"push", "add", "project"}) EXPECT_NE(message.find(part), std::string::npos) << message;
}

// An SAE that normalises its input speaks of rows of another length than the residual stream has.
TEST(Recipe, VectorsAreInTheScaleOfTheResidualStream) {
  Discovery d = example();
  const SteeringVector plain = build_vector(d, *random_sae(), {});
  d.row_scale = 4;
  const SteeringVector scaled = build_vector(d, *random_sae(), {});
  for (size_t i = 0; i < plain.vector.size(); ++i) EXPECT_FLOAT_EQ(scaled.vector[i], 4 * plain.vector[i]);
}

TEST(Recipe, TheRankingDecidesWhichLatents) {
  Recipe r;
  r.k = 2;
  r.rank = "specific_mean";  // the means grow with the index
  const SteeringVector v = build_vector(example(), *random_sae(), r);
  EXPECT_EQ(v.origin.at("latents").dump(), "[29,28]");
}

TEST(Recipe, ControlsHaveTheNormOfWhatTheyControl) {
  const auto sae = random_sae();
  Recipe r;
  const double norm = build_vector(example(), *sae, r).norm();
  for (const char* method : {"random", "random_latents"}) {
    Recipe control = r;
    control.method = method;
    const SteeringVector v = build_vector(example(), *sae, control);
    EXPECT_NEAR(v.norm(), norm, 1e-4 * norm) << method;
    control.seed = 1;
    EXPECT_NE(build_vector(example(), *sae, control).vector, v.vector) << method;
  }
}

TEST(Recipe, NoVectorOfNothingAndNoneThatIsNotFinite) {
  const auto sae = random_sae();
  const auto refusal = [&](const std::function<void(Recipe&)>& change) {
    Recipe r;
    change(r);
    return message_of([&] { build_vector(example(), *sae, r); });
  };
  EXPECT_NE(refusal([](Recipe& r) { r.method = "none"; }).find("has no vector"), std::string::npos);
  EXPECT_NE(refusal([](Recipe& r) { r.beta = std::nan(""); }).find("beta"), std::string::npos);
  EXPECT_NE(refusal([](Recipe& r) { r.beta = 1e300; }).find("not finite"), std::string::npos);
  EXPECT_NE(refusal([](Recipe& r) { r.scale = INFINITY; }).find("scale"), std::string::npos);
  EXPECT_NE(refusal([](Recipe& r) { r.decay = -1; }).find("decay is -1"), std::string::npos);
}

TEST(Recipe, ControlsHaveSeveralDraws) {
  const auto sae = random_sae();
  Recipe r;
  r.draws = 4;
  EXPECT_EQ(build_vectors(example(), *sae, r, 9).size(), 1U);
  r.method = "prompt";
  EXPECT_TRUE(build_vectors(example(), *sae, r, 9).empty());
  for (const char* method : {"random", "random_latents"}) {
    r.method = method;
    const Vectors all = build_vectors(example(), *sae, r, 9);
    ASSERT_EQ(all.size(), 4U);
    std::set<std::vector<float>> different;
    for (const auto& v : all) {
      different.insert(v->vector);
      EXPECT_NEAR(v->norm(), all.front()->norm(), 1e-4 * v->norm());
    }
    EXPECT_EQ(different.size(), 4U) << method;
  }
  EXPECT_EQ(build_vectors(example(), *sae, r, 3).size(), 3U) << "more draws than prompts";
  r.draws = 0;
  EXPECT_EQ(build_vectors(example(), *sae, r, 9).size(), 9U) << "one for every prompt";
  r.draws = -1;
  EXPECT_NE(message_of([&] { build_vectors(example(), *sae, r, 9); }).find("1 or more"), std::string::npos);
}

// One direction that happens to do something would else count for every task.
TEST(Recipe, ControlsOfDifferentTasksAndSitesAreDifferent) {
  const auto sae = random_sae();
  Recipe r;
  r.method = "random";
  Discovery here = example(), other_task = example(), other_site = example();
  other_task.task = "german";
  other_site.site = "blocks.2.hook_resid_post";
  const std::vector<float> v = build_vector(here, *sae, r).vector;
  EXPECT_EQ(build_vector(here, *sae, r).vector, v);
  for (const Discovery* d : {&other_task, &other_site}) {
    const std::vector<float> w = build_vector(*d, *sae, r).vector;
    double product = 0, norms = 0;
    for (size_t i = 0; i < v.size(); ++i) {
      product += v[i] * w[i];
      norms += v[i] * v[i];
    }
    EXPECT_LT(std::abs(product / norms), 0.99);
  }
}

TEST(Recipe, RandomLatentsFireAsOftenAndAreOthers) {
  Recipe r;
  r.method = "random_latents";
  r.rank = "sensitivity";
  r.k = 5;
  const SteeringVector v = build_vector(example(), *random_sae(), r);
  std::set<int64_t> chosen;
  for (const Json& j : v.origin.at("latents").items()) {
    EXPECT_GE(j.as_int(), 5);   // none of the five themselves
    EXPECT_LE(j.as_int(), 30);  // and near them in firing rate
    chosen.insert(j.as_int());
  }
  EXPECT_EQ(chosen.size(), 5u);
}

TEST(Recipe, RefusesWhatCannotBe) {
  const auto sae = random_sae();
  Recipe r;
  r.k = 65;
  EXPECT_NE(message_of([&] { build_vector(example(), *sae, r); }).find("1 to 64"), std::string::npos);
  r.k = 40;
  EXPECT_NE(message_of([&] { build_vector(example(), *sae, r); }).find("keeps 30"), std::string::npos);
  r.k = 5;
  r.method = "magic";
  EXPECT_NE(message_of([&] { build_vector(example(), *sae, r); }).find("magic"), std::string::npos);
  r.method = "saif";
  Discovery silent = example();
  for (LatentStats& s : silent.latents) s.mean = s.std = 0;
  EXPECT_NE(message_of([&] { build_vector(silent, *sae, r); }).find("zero"), std::string::npos);
}

TEST(Discovery, SurvivesJson) {
  Discovery d = example();
  d.latents[0].ci = {0.25, 0.75};
  d.latents[0].top = {{" dans", 3.5}};
  d.latents[0].flags = {"dense"};
  const Json once = d.to_json();
  EXPECT_EQ(Discovery::from_json(once).to_json().dump(), once.dump());
}

}  // namespace
}  // namespace saif
