#include "study/explain.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"

namespace saif {
namespace {

// One row per list of (latent, value).
SparseLatents rows_of(const std::vector<std::vector<std::pair<int32_t, float>>>& rows) {
  SparseLatents out;
  for (const auto& row : rows) {
    for (const auto& [latent, value] : row) {
      out.indices.push_back(latent);
      out.values.push_back(value);
    }
    out.row_offsets.push_back(static_cast<int64_t>(out.indices.size()));
  }
  return out;
}

TEST(LatentWatcher, CountsContextsAndCoactivity) {
  const std::vector<int32_t> watched = {3};
  LatentWatcher watcher(10, watched, {.contexts = 2, .window = 1, .neighbours = 2});
  const std::vector<std::string> a = {"<s>", "x", "y", "z"}, b = {"<s>", "p", "q"}, c = {"<s>", "u"};
  watcher.add(rows_of({{{3, 99}}, {{1, 1}, {3, 2}}, {{3, 10}, {7, 1}}, {{1, 1}}}), a, 1);
  watcher.add(rows_of({{{3, 99}}, {{1, 1}}, {{3, 4}, {7, 1}}}), b, 1);
  watcher.add(rows_of({{{3, 99}}, {{3, 3}, {8, 1}}}), c, 1);
  const LatentExplanation e = watcher.explanation(0);
  EXPECT_EQ(e.density.hits, 4);  // first tokens are not counted
  EXPECT_EQ(e.density.n, 6);
  EXPECT_DOUBLE_EQ(e.maximum, 10);
  ASSERT_EQ(e.contexts.size(), 2U);
  EXPECT_EQ(e.contexts[0].tokens, (std::vector<std::string>{"x", "y", "z"}));
  EXPECT_EQ(e.contexts[0].activations, (std::vector<double>{2, 10, 0}));
  EXPECT_EQ(e.contexts[0].peak, 1U);
  EXPECT_EQ(e.contexts[1].tokens, (std::vector<std::string>{"p", "q"}));
  ASSERT_EQ(e.coactive.size(), 2U);  // 7: both on 2, either on 4; 8: 1 of 4; 1: 1 of 6
  EXPECT_EQ(e.coactive[0].index, 7);
  EXPECT_DOUBLE_EQ(e.coactive[0].value, 0.5);
  EXPECT_EQ(e.coactive[1].index, 8);
  EXPECT_DOUBLE_EQ(e.coactive[1].value, 0.25);
}

TEST(LatentWatcher, TheHistogramHoldsEveryToken) {
  const std::vector<int32_t> watched = {0};
  LatentWatcher watcher(1, watched, {});
  std::vector<std::vector<std::pair<int32_t, float>>> rows;
  std::vector<std::string> tokens;
  for (int i = 1; i <= 20; ++i) {
    rows.push_back({{0, static_cast<float>(i)}});
    tokens.emplace_back("t");
  }
  watcher.add(rows_of(rows), tokens, 0);
  const LatentExplanation e = watcher.explanation(0);
  ASSERT_EQ(e.histogram.size(), 10U);
  for (const auto& bin : e.histogram) EXPECT_EQ(bin.tokens, 2) << bin.low;
}

TEST(LatentWatcher, SameWordsAreShownOnceAndSilenceIsNoText) {
  const std::vector<int32_t> watched = {0, 1};
  LatentWatcher watcher(2, watched, {.contexts = 3});
  for (int i = 0; i < 4; ++i) watcher.add(rows_of({{}, {{0, 5.0f}}}), std::vector<std::string>{"a", "b"}, 0);
  EXPECT_EQ(watcher.explanation(0).contexts.size(), 1U);
  EXPECT_EQ(watcher.explanation(0).density.hits, 4);
  EXPECT_TRUE(watcher.explanation(1).contexts.empty());
  EXPECT_TRUE(watcher.explanation(1).histogram.empty());
}

std::shared_ptr<const Sae> sae_with_decoder(Tensor w_dec) {
  SaeConfig config;
  config.kind = SaeKind::kStandard;
  config.d_sae = w_dec.shape()[0];
  config.d_in = config.d_out = w_dec.shape()[1];
  SaeWeights w{Tensor::zeros(DType::kF32, w_dec.shape()),
               Tensor::zeros(DType::kF32, {config.d_sae}),
               std::move(w_dec),
               Tensor::zeros(DType::kF32, {config.d_in}),
               {}};
  return Sae::from_weights(config, std::move(w));
}

Tensor random_rows(int64_t rows, int64_t columns, uint64_t seed) {
  Rng rng(seed);
  Tensor out(DType::kF32, {rows, columns});
  for (int64_t i = 0; i < rows * columns; ++i) out.as<float>()[i] = static_cast<float>(rng.normal());
  return out;
}

TEST(NearestByDecoder, FindsThePlantedTwin) {
  Tensor w = random_rows(2500, 16, 1);  // more than one chunk
  for (int64_t c = 0; c < 16; ++c) w.f32()(2400, c) = 3.0f * w.f32()(7, c);
  const std::vector<int32_t> latents = {7, 2400};
  const auto nearest = nearest_by_decoder(*sae_with_decoder(std::move(w)), latents, 3);
  EXPECT_EQ(nearest[0][0].index, 2400);
  EXPECT_NEAR(nearest[0][0].value, 1.0, 1e-6);
  EXPECT_EQ(nearest[1][0].index, 7);
  ASSERT_EQ(nearest[0].size(), 3U);
  EXPECT_GE(nearest[0][1].value, nearest[0][2].value);
  EXPECT_LT(nearest[0][1].value, 0.999);
}

TEST(Proximity, APlantedLatentIsNearAndRandomOnesAreNot) {
  const Tensor words = random_rows(4, 64, 2), pool = random_rows(300, 64, 3), others = random_rows(400, 64, 4);
  Tensor row = random_rows(1, 64, 5);
  for (int64_t w = 0; w < 4; ++w) {
    for (int64_t c = 0; c < 64; ++c) row.f32()(0, c) += (w == 2 ? 2.0f : 1.0f) * words.f32()(w, c);
  }
  const Proximity planted = proximity_of({row.f32(), others.f32(), words.f32(), pool.f32(), 499, 0});
  EXPECT_GT(planted.cosine, 0.3);
  EXPECT_DOUBLE_EQ(planted.p_latents, 1.0 / 401);
  EXPECT_DOUBLE_EQ(planted.p_words, 1.0 / 500);
  EXPECT_EQ(planted.nearest, 2U);
  // Of random latents the p-values are uniform: few are small, and they are not all large.
  int small_latents = 0, small_words = 0, below_half = 0;
  for (int64_t r = 0; r < 100; ++r) {
    const Tensor other = random_rows(1, 64, 100 + static_cast<uint64_t>(r));
    const Proximity p = proximity_of({other.f32(), others.f32(), words.f32(), pool.f32(), 499, 0});
    small_latents += p.p_latents < 0.05;
    small_words += p.p_words < 0.05;
    below_half += p.p_latents < 0.5;
  }
  EXPECT_LT(small_latents, 15);
  EXPECT_LT(small_words, 15);
  EXPECT_GT(below_half, 30);
  EXPECT_LT(below_half, 70);
}

TEST(Proximity, WithoutWordsNothingIsClaimed) {
  const Tensor row = random_rows(1, 8, 1), others = random_rows(20, 8, 2);
  const Proximity p = proximity_of({row.f32(), others.f32(), Mat<const float>(nullptr, 0, 8), {}, 99, 0});
  EXPECT_EQ(p.p_latents, 1);
  EXPECT_EQ(p.p_words, 1);
}

TEST(InstructionWords, AreWhatTheTaskIsAbout) {
  const auto has = [](const std::vector<std::string>& words, const char* word) {
    return std::find(words.begin(), words.end(), word) != words.end();
  };
  const std::vector<std::string> french = instruction_words(load_task("french"));
  EXPECT_TRUE(has(french, "French") && has(french, "Französisch"));
  EXPECT_FALSE(has(french, "Answer") || has(french, "answer") || has(french, "please") || has(french, "English"));
  const std::vector<std::string> poem = instruction_words(load_task("poem"));
  EXPECT_TRUE(has(poem, "poem") && has(poem, "verse"));
  EXPECT_FALSE(has(poem, "the"));
}

}  // namespace
}  // namespace saif
