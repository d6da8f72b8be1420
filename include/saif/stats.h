// Statistics of shares, means and rankings. Pure functions; everything random takes a seed and is reproducible on any
// thread count and thread-safe. Throws kInvalidArgument for impossible arguments.
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

// Outcomes of two methods on the same items.
struct PairedCounts {
  int64_t both = 0, only_first = 0, only_second = 0, neither = 0;
};
// Interval of p1 - p2 of paired shares, from their Wilson intervals and the correlation of the outcomes (Newcombe 1998,
// Stat. Med. 17:2635, method 10, with its continuity correction of phi). Needs one item or more.
Interval paired_difference_interval(const PairedCounts& counts, double level = 0.95);

// Two-sided exact p of McNemar's test on paired outcomes: b items only method 1 got right, c only method 2.
// min(1, 2 P(X <= min(b, c))), X ~ Binomial(b + c, 1/2). 1 when b + c = 0.
double mcnemar_exact(int64_t b, int64_t c);

// Adjusted p-values, in the order given (Benjamini & Hochberg 1995): min over ranks r >= rank(i) of p_(r) m / r,
// at most 1. Rejecting those <= q keeps the false discovery rate at q for independent or positively dependent tests.
std::vector<double> benjamini_hochberg(std::span<const double> p_values);

// Two-sided p that differences of paired items are as likely with the other sign (Fisher's randomisation test of their
// sum): exact over all sign patterns up to 30 items, the normal approximation beyond. Integers, so that equal sums are
// equal; 1 when all are 0.
double sign_flip_test(std::span<const int64_t> differences);

double mean(std::span<const double> values);  // 0 of none

// Percentile interval of the mean (Efron 1979): `resamples` draws with replacement; quantiles by linear interpolation.
// Equal values, or one, give a point; none throws.
struct BootstrapOptions {
  int64_t resamples = 2000;
  double level = 0.95;
  uint64_t seed = 0;
};
Interval bootstrap_mean(std::span<const double> values, BootstrapOptions options);
inline Interval bootstrap_mean(std::span<const double> values) { return bootstrap_mean(values, BootstrapOptions{}); }

// |A and B| / |A or B| of two sets of indices (duplicates count once); 1 when both are empty.
double jaccard(std::span<const int32_t> a, std::span<const int32_t> b);

// The quantile function of the standard normal, |error| < 1e-9, 0 < p < 1.
double normal_quantile(double p);

}  // namespace saif
