#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/rng.h"

namespace saif {
namespace {

std::vector<float> random_logits(size_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(n);
  for (float& v : x) v = static_cast<float>(3 * rng.normal());
  return x;
}

// Probabilities after Transformers' processors and warpers, written down plainly.
std::vector<double> plain(const std::vector<float>& logits, const SamplingOptions& o) {
  const size_t n = logits.size();
  std::vector<double> l(n), p(n);
  for (size_t i = 0; i < n; ++i) l[i] = logits[i] / o.temperature;
  std::vector<size_t> by(n);
  for (size_t i = 0; i < n; ++i) by[i] = i;
  std::stable_sort(by.begin(), by.end(), [&](size_t a, size_t b) { return l[a] > l[b]; });
  if (o.top_k > 0) {
    const double kth = l[by[std::min<size_t>(o.top_k, n) - 1]];
    for (double& v : l)
      if (v < kth) v = -INFINITY;
  }
  const auto softmax = [&] {
    double sum = 0;
    for (size_t i = 0; i < n; ++i) sum += p[i] = std::exp(l[i] - l[by[0]]);
    for (double& v : p) v /= sum;
  };
  softmax();
  if (o.top_p < 1) {
    double before = 0;
    for (const size_t i : by) {
      if (before >= o.top_p) l[i] = -INFINITY;
      before += p[i];
    }
    softmax();
  }
  for (size_t i = 0; i < n; ++i)
    if (p[i] < o.min_p * p[by[0]]) l[i] = -INFINITY;
  softmax();
  return p;
}

void expect_frequencies(const SamplingOptions& options, size_t n_logits) {
  const std::vector<float> logits = random_logits(n_logits, 5);
  const std::vector<double> p = plain(logits, options);
  constexpr int kDraws = 20000;
  std::map<int32_t, int> counts;
  for (int i = 0; i < kDraws; ++i) {
    std::vector<float> copy = logits;
    ++counts[Sampler(options, static_cast<uint64_t>(i), 0).choose(copy)];
  }
  for (size_t i = 0; i < n_logits; ++i) {
    const double expected = p[i] * kDraws;
    EXPECT_NEAR(counts[static_cast<int32_t>(i)], expected, 5 * std::sqrt(expected) + (expected > 0 ? 3 : 0)) << i;
  }
}

TEST(Sampler, DrawsFollowTransformersFilters) {
  expect_frequencies({.temperature = 1.3}, 200);
  expect_frequencies({.temperature = 0.7, .top_k = 12}, 200);
  expect_frequencies({.temperature = 1.5, .top_p = 0.8}, 200);
  expect_frequencies({.temperature = 1.5, .min_p = 0.1}, 200);
  expect_frequencies({.temperature = 2.0, .top_k = 30, .top_p = 0.9, .min_p = 0.08}, 150);
  expect_frequencies({.temperature = 5.0, .top_k = 1000, .top_p = 0.95}, 100);
}

TEST(Sampler, GreedyTakesTheLowestOfTies) {
  std::vector<float> x(300, 0.0F);
  x[77] = x[140] = x[299] = 2.0F;
  EXPECT_EQ(Sampler({}, 0, 0).choose(x), 77);
  x[299] = 3.0F;
  EXPECT_EQ(Sampler({}, 0, 0).choose(x), 299);
}

TEST(Sampler, PenaltySeesGeneratedTokensOnly) {
  SamplingOptions options;
  options.repetition_penalty = 2.0;
  Sampler sampler(options, 0, 2);
  const std::vector<float> x = {3.0F, 2.0F, -1.0F, 1.8F};
  const double log_sum = std::log(std::exp(3.0) + std::exp(2.0) + std::exp(-1.0) + std::exp(1.8));
  const int32_t expected[] = {0, 1, 3, 0};  // 3, then 2, then 1.8, then 3 / 2
  for (const int32_t id : expected) {
    std::vector<float> copy = x;
    EXPECT_EQ(sampler.choose(copy), id);
    EXPECT_NEAR(sampler.logprobs().chosen, x[static_cast<size_t>(id)] - log_sum, 1e-5);  // raw, unpenalised
    ASSERT_EQ(sampler.logprobs().top.size(), 2U);
    EXPECT_EQ(sampler.logprobs().top[0].first, 0);
    EXPECT_EQ(sampler.logprobs().top[1].first, 1);
    EXPECT_NEAR(sampler.logprobs().top[1].second, 2 - log_sum, 1e-5);
  }
  std::vector<float> negative = {-1.0F, -1.5F};
  Sampler low(options, 0, 0);
  EXPECT_EQ(low.choose(negative), 0);
  negative = {-1.0F, -1.5F};
  EXPECT_EQ(low.choose(negative), 1);  // -1 * 2 < -1.5
}

TEST(Sampler, SameSeedAndStreamSameChoices) {
  const SamplingOptions options{.temperature = 1.0, .seed = 7};
  const auto choices = [&](uint64_t stream) {
    Sampler sampler(options, stream, 0);
    std::vector<int32_t> ids;
    for (uint64_t i = 0; i < 20; ++i) {
      std::vector<float> x = random_logits(1000, i);
      ids.push_back(sampler.choose(x));
    }
    return ids;
  };
  EXPECT_EQ(choices(3), choices(3));
  EXPECT_NE(choices(3), choices(4));
}

TEST(Sampler, RefusesWhatIsNotFinite) {
  std::vector<float> x(100, std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(Sampler({}, 0, 0).choose(x), -1);
  std::vector<float> y(100, 1.0F);
  y[3] = INFINITY;
  EXPECT_EQ(Sampler({.temperature = 1.0}, 0, 0).choose(y), -1);
}

TEST(Sampler, OptionsAreChecked) {
  for (const SamplingOptions& bad :
       {SamplingOptions{.temperature = -1.0}, SamplingOptions{.temperature = NAN}, SamplingOptions{.top_k = -2},
        SamplingOptions{.top_p = 0.0}, SamplingOptions{.top_p = 1.1}, SamplingOptions{.min_p = -0.1},
        SamplingOptions{.repetition_penalty = 0.0}})
    EXPECT_THROW(check_sampling(bad, "request 0"), Error);
}

}  // namespace
}  // namespace saif
