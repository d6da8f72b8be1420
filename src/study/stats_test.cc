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

// Reference value: Newcombe 1998, table of examples, method 10; the others by its formula in Python.
TEST(PairedDifference, AgreesWithNewcombe) {
  struct Case {
    PairedCounts counts;
    double low, high;
  };
  for (const Case& c : {Case{{36, 12, 2, 0}, 0.0569, 0.3404}, Case{{20, 12, 2, 16}, 0.05615642, 0.32920700},
                        Case{{36, 14, 0, 0}, 0.15283952, 0.41665124}, Case{{29, 6, 8, 57}, -0.09493953, 0.05528169}}) {
    const Interval i = paired_difference_interval(c.counts);
    EXPECT_NEAR(i.low, c.low, 4e-5);
    EXPECT_NEAR(i.high, c.high, 4e-5);
    const auto [a, b, d, e] = c.counts;
    const Interval other = paired_difference_interval({a, d, b, e});
    EXPECT_NEAR(other.low, -i.high, 1e-12);
    EXPECT_NEAR(other.high, -i.low, 1e-12);
  }
  EXPECT_THROW(paired_difference_interval({}), Error);
  EXPECT_THROW(paired_difference_interval({5, -1, 0, 0}), Error);
}

// Two methods that succeed on the same easy items: 0.7 and 0.4, correlated.
TEST(PairedDifference, CoversAPlantedDifference) {
  int covered = 0;
  constexpr int kTrials = 3000;
  for (int t = 0; t < kTrials; ++t) {
    Rng rng(11, static_cast<uint64_t>(t));
    PairedCounts counts;
    for (int i = 0; i < 60; ++i) {
      const bool easy = rng.uniform() < 0.5;
      const bool first = rng.uniform() < (easy ? 0.9 : 0.5), second = rng.uniform() < (easy ? 0.7 : 0.1);
      ++(first ? (second ? counts.both : counts.only_first) : (second ? counts.only_second : counts.neither));
    }
    covered += paired_difference_interval(counts).contains(0.3) ? 1 : 0;
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

TEST(Mean, OfValuesAndOfNone) {
  EXPECT_DOUBLE_EQ(mean(std::vector<double>{2, 4, 4, 4, 5, 5, 7, 9}), 5);
  EXPECT_EQ(mean({}), 0);
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

// Counted by hand: how many of the 2^n patterns of signs give a sum as large.
TEST(SignFlip, IsExactOnFewItems) {
  EXPECT_DOUBLE_EQ(sign_flip_test(std::vector<int64_t>{1, 2, 3, 4, 5}), 2.0 / 32);
  EXPECT_DOUBLE_EQ(sign_flip_test(std::vector<int64_t>{-1, 2, 3, 4, 5}), 4.0 / 32);
  EXPECT_DOUBLE_EQ(sign_flip_test(std::vector<int64_t>{0, 0, 7, -7, 3}), 1);
  EXPECT_DOUBLE_EQ(sign_flip_test(std::vector<int64_t>{3, 3, 3, -3}), 10.0 / 16);
  EXPECT_EQ(sign_flip_test(std::vector<int64_t>{0, 0}), 1);
  EXPECT_EQ(sign_flip_test({}), 1);
  EXPECT_NEAR(sign_flip_test(std::vector<int64_t>(30, 5)) / 0x1p-29, 1, 1e-9);
}

// All wordings of a content move together: a test that took them for independent would reject far too often.
TEST(SignFlip, RejectsAtTheNominalRateUnderTheNull) {
  for (const int items : {16, 60}) {
    int rejected = 0;
    constexpr int kTrials = 1000;
    for (int t = 0; t < kTrials; ++t) {
      Rng rng(9, static_cast<uint64_t>(t));
      std::vector<int64_t> d(static_cast<size_t>(items));
      for (int64_t& x : d) x = static_cast<int64_t>(rng.below(3)) * 8 - 8;
      rejected += sign_flip_test(d) <= 0.05 ? 1 : 0;
    }
    EXPECT_NEAR(rejected / double{kTrials}, 0.045, 0.025) << items;
  }
}

TEST(Jaccard, OfTopSets) {
  const std::vector<int32_t> a = {1, 2, 3}, b = {3, 4}, twice = {1, 1, 2, 3};
  EXPECT_DOUBLE_EQ(jaccard(a, b), 0.25);
  EXPECT_DOUBLE_EQ(jaccard(a, twice), 1);
  EXPECT_DOUBLE_EQ(jaccard(a, {}), 0);
  EXPECT_DOUBLE_EQ(jaccard({}, {}), 1);
}

}  // namespace
}  // namespace saif
