// Statistics of shares, means and rankings. Pure functions; everything random takes a seed and is reproducible on any
// thread count. Throws kInvalidArgument for impossible arguments.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace saif {

struct Interval {
  double low = 0, high = 0;
  bool contains(double x) const { return low <= x && x <= high; }
};

// Score interval of a share (Wilson 1927): (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n). n = 0: [0, 1].
Interval wilson_interval(int64_t successes, int64_t n, double level = 0.95);

// Interval of p1 - p2 of two independent shares, from their Wilson intervals (Newcombe 1998, method 10):
// d - sqrt((p1-l1)^2 + (u2-p2)^2), d + sqrt((u1-p1)^2 + (p2-l2)^2). Needs n1, n2 > 0.
Interval newcombe_interval(int64_t successes1, int64_t n1, int64_t successes2, int64_t n2, double level = 0.95);

// Two-sided exact p of McNemar's test on paired outcomes: b items only method 1 got right, c only method 2.
// min(1, 2 P(X <= min(b, c))), X ~ Binomial(b + c, 1/2). 1 when b + c = 0.
double mcnemar_exact(int64_t b, int64_t c);

// Adjusted p-values, in the order given (Benjamini & Hochberg 1995): min over ranks r >= rank(i) of p_(r) m / r, at
// most
// 1. Rejecting those <= q keeps the false discovery rate at q for independent or positively dependent tests.
std::vector<double> benjamini_hochberg(std::span<const double> p_values);

double mean(std::span<const double> values);                // 0 of none
double standard_deviation(std::span<const double> values);  // with n - 1; 0 of fewer than two

// Percentile interval of the mean (Efron 1979): `resamples` draws with replacement; quantiles by linear interpolation.
// One value gives a point, none throws.
struct BootstrapOptions {
  int64_t resamples = 2000;
  double level = 0.95;
  uint64_t seed = 0;
};
Interval bootstrap_mean(std::span<const double> values, BootstrapOptions options);
inline Interval bootstrap_mean(std::span<const double> values) { return bootstrap_mean(values, BootstrapOptions{}); }

// Two-sided p of the difference of means under exchange of group labels: (1 + #{|d*| >= |d|}) / (1 + permutations)
// (Phipson & Smyth 2010, so that p is never 0). Needs one value or more in each group.
struct PermutationOptions {
  int64_t permutations = 9999;
  uint64_t seed = 0;
};
double permutation_test(std::span<const double> a, std::span<const double> b, PermutationOptions options);
inline double permutation_test(std::span<const double> a, std::span<const double> b) {
  return permutation_test(a, b, PermutationOptions{});
}

// |A and B| / |A or B| of two sets of indices (duplicates count once); 1 when both are empty.
double jaccard(std::span<const int64_t> a, std::span<const int64_t> b);
// The indices of the k largest scores, ties by lower index; all when k exceeds the size.
std::vector<int64_t> top_k_indices(std::span<const double> scores, int64_t k);

// The quantile function of the standard normal, |error| < 1e-9, 0 < p < 1.
double normal_quantile(double p);

}  // namespace saif
