#include "saif/stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "saif/error.h"

namespace saif {
namespace {

// Reference values: scipy.stats.norm.ppf.
TEST(NormalQuantile, AgreesWithScipy) {
  EXPECT_NEAR(normal_quantile(0.975), 1.959963984540054, 1e-12);
  EXPECT_NEAR(normal_quantile(0.995), 2.5758293035489004, 1e-12);
  EXPECT_NEAR(normal_quantile(0.5), 0, 1e-12);
  EXPECT_NEAR(normal_quantile(0.001), -3.090232306167813, 1e-12);
  EXPECT_NEAR(normal_quantile(1e-10), -6.361340902404056, 1e-10);
  EXPECT_THROW(normal_quantile(0), Error);
  EXPECT_THROW(normal_quantile(1), Error);
}

// Reference values: statsmodels proportion_confint(method="wilson").
TEST(Wilson, AgreesWithStatsmodels) {
  struct Case {
    int64_t k, n;
    double level, low, high;
  };
  for (const Case& c : {Case{0, 10, .95, 0.0, 0.27753279986288926}, Case{10, 10, .95, 0.7224672001371106, 1.0},
                        Case{8, 10, .95, 0.49016247153664183, 0.9433178485456247},
                        Case{83, 100, .95, 0.7445199523239887, 0.8910643388594006},
                        Case{5, 24, .95, 0.09244825352851854, 0.40470453253188665},
                        Case{50, 200, .99, 0.1800213778139066, 0.33603325939926487}}) {
    const Interval i = wilson_interval(c.k, c.n, c.level);
    EXPECT_NEAR(i.low, c.low, 1e-12) << c.k << "/" << c.n;
    EXPECT_NEAR(i.high, c.high, 1e-12) << c.k << "/" << c.n;
  }
}

TEST(Wilson, EdgesAndBadArguments) {
  EXPECT_EQ(wilson_interval(0, 0).low, 0);
  EXPECT_EQ(wilson_interval(0, 0).high, 1);
  EXPECT_THROW(wilson_interval(3, 2), Error);
  EXPECT_THROW(wilson_interval(-1, 2), Error);
  EXPECT_THROW(wilson_interval(1, 2, 1.0), Error);
  EXPECT_THROW(wilson_interval(1, 2, std::numeric_limits<double>::quiet_NaN()), Error);
}

// A planted share must lie in the interval about as often as the level says.
TEST(Wilson, CoversAPlantedShare) {
  for (const double share : {0.05, 0.3, 0.8}) {
    int covered = 0;
    constexpr int kTrials = 4000;
    for (int t = 0; t < kTrials; ++t) {
      Rng rng(7, static_cast<uint64_t>(t));
      int hits = 0;
      for (int i = 0; i < 60; ++i) hits += rng.uniform() < share ? 1 : 0;
      covered += wilson_interval(hits, 60).contains(share) ? 1 : 0;
    }
    EXPECT_NEAR(covered / double{kTrials}, 0.95, 0.03) << share;
  }
}

// Reference values: statsmodels confint_proportions_2indep(method="newcomb").
TEST(Newcombe, AgreesWithStatsmodels) {
  struct Case {
    int64_t k1, n1, k2, n2;
    double low, high;
  };
  for (const Case& c :
       {Case{56, 70, 48, 80, 0.05243147240236498, 0.33387265403690614}, Case{10, 10, 0, 10, 0.6075093504305241, 1.0},
        Case{9, 10, 3, 10, 0.1705227239345029, 0.809017973535488},
        Case{0, 20, 0, 20, -0.1611251580528194, 0.1611251580528194}}) {
    const Interval i = newcombe_interval(c.k1, c.n1, c.k2, c.n2);
    EXPECT_NEAR(i.low, c.low, 1e-12);
    EXPECT_NEAR(i.high, c.high, 1e-12);
  }
  EXPECT_THROW(newcombe_interval(0, 0, 1, 2), Error);
}

TEST(Newcombe, CoversAPlantedDifference) {
  int covered = 0;
  constexpr int kTrials = 3000;
  for (int t = 0; t < kTrials; ++t) {
    Rng rng(11, static_cast<uint64_t>(t));
    int a = 0, b = 0;
    for (int i = 0; i < 50; ++i) a += rng.uniform() < 0.7 ? 1 : 0;
    for (int i = 0; i < 40; ++i) b += rng.uniform() < 0.4 ? 1 : 0;
    covered += newcombe_interval(a, 50, b, 40).contains(0.3) ? 1 : 0;
  }
  EXPECT_NEAR(covered / double{kTrials}, 0.95, 0.02);
}

// Reference values: scipy.stats.binomtest(min(b, c), b + c, 0.5).pvalue.
TEST(McNemar, AgreesWithScipy) {
  EXPECT_NEAR(mcnemar_exact(5, 15), 0.04138946533203125, 1e-12);
  EXPECT_NEAR(mcnemar_exact(15, 5), 0.04138946533203125, 1e-12);
  EXPECT_NEAR(mcnemar_exact(0, 6), 0.03125, 1e-12);
  EXPECT_NEAR(mcnemar_exact(12, 30), 0.007915897334896727, 1e-12);
  EXPECT_NEAR(mcnemar_exact(200, 300) / 8.940066542253288e-06, 1, 1e-9);
  EXPECT_EQ(mcnemar_exact(1, 1), 1);
  EXPECT_EQ(mcnemar_exact(7, 7), 1);
  EXPECT_EQ(mcnemar_exact(0, 0), 1);
  EXPECT_THROW(mcnemar_exact(-1, 3), Error);
}

// Reference values: statsmodels multipletests(method="fdr_bh").
TEST(BenjaminiHochberg, AgreesWithStatsmodels) {
  const std::vector<double> p = {.01, .04, .03, .005, .5, .9, .02};
  const std::vector<double> want = {0.035, 0.056, 0.0525, 0.035, 0.5833333333333334, 0.9, 0.04666666666666667};
  const std::vector<double> got = benjamini_hochberg(p);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-12) << i;
  EXPECT_TRUE(benjamini_hochberg({}).empty());
  EXPECT_THROW(benjamini_hochberg(std::vector<double>{1.5}), Error);
}

// 900 true nulls and 100 planted effects: the share of false discoveries stays near q times the share of nulls.
TEST(BenjaminiHochberg, ControlsPlantedFalseDiscoveries) {
  double share = 0;
  constexpr int kTrials = 100;
  for (int t = 0; t < kTrials; ++t) {
    Rng rng(3, static_cast<uint64_t>(t));
    std::vector<double> p(1000);
    for (size_t i = 0; i < p.size(); ++i) p[i] = i < 100 ? rng.uniform() * 1e-4 : rng.uniform();
    const std::vector<double> q = benjamini_hochberg(p);
    int found = 0, wrong = 0;
    for (size_t i = 0; i < q.size(); ++i) {
      if (q[i] > 0.1) continue;
      ++found;
      wrong += i >= 100 ? 1 : 0;
    }
    EXPECT_GE(found, 100);
    share += static_cast<double>(wrong) / found;
  }
  EXPECT_NEAR(share / kTrials, 0.09, 0.02);
}

TEST(Mean, AndStandardDeviation) {
  const std::vector<double> v = {2, 4, 4, 4, 5, 5, 7, 9};
  EXPECT_DOUBLE_EQ(mean(v), 5);
  EXPECT_NEAR(standard_deviation(v), std::sqrt(32.0 / 7), 1e-15);
  EXPECT_EQ(mean({}), 0);
  EXPECT_EQ(standard_deviation(std::vector<double>{3}), 0);
}

TEST(Bootstrap, IsReproducibleAndSeeded) {
  const std::vector<double> v = {1.03, 2.171, 3.0577, 3.7313, 10.0123};  // sums of draws rarely coincide
  const Interval a = bootstrap_mean(v), b = bootstrap_mean(v), c = bootstrap_mean(v, {.seed = 1});
  EXPECT_EQ(a.low, b.low);
  EXPECT_EQ(a.high, b.high);
  EXPECT_TRUE(a.low != c.low || a.high != c.high);
  EXPECT_TRUE(a.contains(4));
  EXPECT_LT(a.low, a.high);
  const Interval point = bootstrap_mean(std::vector<double>{2.5});
  EXPECT_EQ(point.low, 2.5);
  EXPECT_EQ(point.high, 2.5);
  EXPECT_THROW(bootstrap_mean({}), Error);
  EXPECT_THROW(bootstrap_mean(v, {.resamples = 0}), Error);
}

TEST(Bootstrap, CoversAPlantedMean) {
  int covered = 0;
  constexpr int kTrials = 400;
  for (int t = 0; t < kTrials; ++t) {
    Rng rng(5, static_cast<uint64_t>(t));
    std::vector<double> v(60);
    for (double& x : v) x = 2 + rng.normal();
    covered += bootstrap_mean(v, {.resamples = 400, .seed = static_cast<uint64_t>(t)}).contains(2) ? 1 : 0;
  }
  EXPECT_NEAR(covered / double{kTrials}, 0.94, 0.04);
}

TEST(Permutation, ExactOnSmallGroups) {
  // Of the 20 splits of {1,2,3} and {11,12,13} two are as extreme: p tends to 0.1.
  EXPECT_NEAR(permutation_test(std::vector<double>{1, 2, 3}, std::vector<double>{11, 12, 13}), 0.1, 0.015);
  EXPECT_EQ(permutation_test(std::vector<double>{4, 4}, std::vector<double>{4, 4, 4}), 1);
  // 0.1 + 0.2 + 0.3 depends on the order of summation; equal splits must still count.
  EXPECT_EQ(permutation_test(std::vector<double>{0.1, 0.2, 0.3}, std::vector<double>{0.3, 0.2, 0.1}), 1);
  EXPECT_THROW(permutation_test({}, std::vector<double>{1}), Error);
}

TEST(Permutation, RejectsAtTheNominalRateUnderTheNull) {
  int rejected = 0;
  constexpr int kTrials = 600;
  for (int t = 0; t < kTrials; ++t) {
    Rng rng(9, static_cast<uint64_t>(t));
    std::vector<double> a(12), b(9);
    for (double& x : a) x = rng.normal();
    for (double& x : b) x = rng.normal();
    rejected += permutation_test(a, b, {.permutations = 199, .seed = static_cast<uint64_t>(t)}) <= 0.05 ? 1 : 0;
  }
  EXPECT_NEAR(rejected / double{kTrials}, 0.05, 0.025);
}

TEST(Jaccard, OfTopSets) {
  const std::vector<int64_t> a = {1, 2, 3}, b = {3, 4}, twice = {1, 1, 2, 3};
  EXPECT_DOUBLE_EQ(jaccard(a, b), 0.25);
  EXPECT_DOUBLE_EQ(jaccard(a, twice), 1);
  EXPECT_DOUBLE_EQ(jaccard(a, {}), 0);
  EXPECT_DOUBLE_EQ(jaccard({}, {}), 1);
}

TEST(TopK, TiesGoToTheLowerIndex) {
  const std::vector<double> scores = {1, 5, 5, 0, 7};
  EXPECT_EQ(top_k_indices(scores, 2), (std::vector<int64_t>{4, 1}));
  EXPECT_EQ(top_k_indices(scores, 3), (std::vector<int64_t>{4, 1, 2}));
  EXPECT_EQ(top_k_indices(scores, 99).size(), 5U);
  EXPECT_TRUE(top_k_indices(scores, 0).empty());
  EXPECT_THROW(top_k_indices(scores, -1), Error);
  EXPECT_THROW(top_k_indices(std::vector<double>{std::numeric_limits<double>::quiet_NaN()}, 1), Error);
}

}  // namespace
}  // namespace saif
