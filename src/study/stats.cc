#include "saif/stats.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <set>
#include <string>

#include "base/rng.h"
#include "saif/error.h"

namespace saif {
namespace {

void require(bool holds, const std::string& message) {
  if (!holds) throw Error(Errc::kInvalidArgument, message);
}

void require_level(double level) {
  require(level > 0 && level < 1, "interval level: found " + std::to_string(level) + ", expected between 0 and 1");
}

// Quantile by linear interpolation between order statistics; `sorted` is not empty.
double quantile(std::span<const double> sorted, double q) {
  const double position = q * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(position);
  if (below + 1 >= sorted.size()) return sorted.back();
  const double part = position - static_cast<double>(below);
  return sorted[below] + part * (sorted[below + 1] - sorted[below]);
}

}  // namespace

double normal_quantile(double p) {
  require(p > 0 && p < 1, "normal quantile: found p = " + std::to_string(p) + ", expected between 0 and 1");
  if (p > 0.5) return -normal_quantile(1 - p);
  // Phi is increasing, so halving the bracket 100 times reaches the last bit.
  double low = -40, high = 0;
  for (int i = 0; i < 100; ++i) {
    const double middle = 0.5 * (low + high);
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
  }
  return high;
}

Interval wilson_interval(int64_t successes, int64_t n, double level) {
  require(0 <= successes && successes <= n,
          "share: found " + std::to_string(successes) + " of " + std::to_string(n) + ", expected 0 <= successes <= n");
  require_level(level);
  if (n == 0) return {0, 1};
  const double z = normal_quantile(0.5 + level / 2), count = static_cast<double>(n);
  const double p = static_cast<double>(successes) / count, z2 = z * z / count;
  const double centre = (p + z2 / 2) / (1 + z2);
  const double half = z / (1 + z2) * std::sqrt(p * (1 - p) / count + z2 / (4 * count));
  // At the ends the formula gives exactly 0 and 1; rounding may not.
  return {successes == 0 ? 0 : std::max(0.0, centre - half), successes == n ? 1 : std::min(1.0, centre + half)};
}

Interval paired_difference_interval(const PairedCounts& counts, double level) {
  const auto& [a, b, c, d] = counts;
  const int64_t n = a + b + c + d;
  require(a >= 0 && b >= 0 && c >= 0 && d >= 0 && n > 0, "difference of paired shares: found " + std::to_string(n) +
                                                             " items, expected counts >= 0 and one item or more");
  const double size = static_cast<double>(n);
  const double p1 = static_cast<double>(a + b) / size, p2 = static_cast<double>(a + c) / size;
  const Interval i1 = wilson_interval(a + b, n, level), i2 = wilson_interval(a + c, n, level);
  const double margins =
      static_cast<double>(a + b) * static_cast<double>(c + d) * static_cast<double>(a + c) * static_cast<double>(b + d);
  double cross = static_cast<double>(a) * static_cast<double>(d) - static_cast<double>(b) * static_cast<double>(c);
  if (cross > 0) cross = std::max(0.0, cross - size / 2);
  const double phi = margins > 0 ? cross / std::sqrt(margins) : 0;
  const auto half = [phi](double x, double y) { return std::sqrt(x * x - 2 * phi * x * y + y * y); };
  return {p1 - p2 - half(p1 - i1.low, i2.high - p2), p1 - p2 + half(i1.high - p1, p2 - i2.low)};
}

double mcnemar_exact(int64_t b, int64_t c) {
  require(b >= 0 && c >= 0, "McNemar: found a negative count, expected b, c >= 0");
  const int64_t n = b + c, least = std::min(b, c);
  // Summed from the largest term down, in logarithms, so that large counts neither overflow nor vanish.
  const auto log_choose = [n](int64_t k) {
    return std::lgamma(static_cast<double>(n) + 1) - std::lgamma(static_cast<double>(k) + 1) -
           std::lgamma(static_cast<double>(n - k) + 1);
  };
  double tail = 0;
  for (int64_t k = least; k >= 0; --k) {
    const double term = std::exp(log_choose(k) - static_cast<double>(n) * std::log(2.0));
    tail += term;
    if (term < tail * 1e-18) break;
  }
  return std::min(1.0, 2 * tail);
}

std::vector<double> benjamini_hochberg(std::span<const double> p_values) {
  for (const double p : p_values) {
    require(p >= 0 && p <= 1, "p-value: found " + std::to_string(p) + ", expected between 0 and 1");
  }
  std::vector<size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return p_values[i] < p_values[j]; });
  std::vector<double> adjusted(p_values.size());
  double least = 1;
  for (size_t rank = order.size(); rank-- > 0;) {
    const double scaled = p_values[order[rank]] * static_cast<double>(order.size()) / static_cast<double>(rank + 1);
    least = std::min(least, scaled);
    adjusted[order[rank]] = least;
  }
  return adjusted;
}

double sign_flip_test(std::span<const int64_t> differences) {
  constexpr size_t kExact = 30;
  int64_t sum = 0, most = 0;
  double squares = 0;
  for (const int64_t d : differences) {
    sum += d;
    most += std::abs(d);
    squares += static_cast<double>(d) * static_cast<double>(d);
  }
  if (most == 0) return 1;
  if (differences.size() > kExact) return std::erfc(std::abs(static_cast<double>(sum)) / std::sqrt(2 * squares));
  // ways[s + most]: share of the sign patterns whose sum is s.
  std::vector<double> ways(static_cast<size_t>(2 * most + 1)), next(ways.size());
  ways[static_cast<size_t>(most)] = 1;
  int64_t reach = 0;
  for (const int64_t d : differences) {
    const int64_t step = std::abs(d);
    if (step == 0) continue;
    std::fill(next.begin(), next.end(), 0.0);
    for (int64_t s = most - reach; s <= most + reach; ++s) {
      const double half = ways[static_cast<size_t>(s)] / 2;
      next[static_cast<size_t>(s - step)] += half;
      next[static_cast<size_t>(s + step)] += half;
    }
    reach += step;
    std::swap(ways, next);
  }
  double p = 0;
  for (int64_t s = std::abs(sum); s <= most; ++s) p += 2 * ways[static_cast<size_t>(most + s)];
  return sum == 0 ? 1 : std::min(1.0, p);
}

double mean(std::span<const double> values) {
  if (values.empty()) return 0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

Interval bootstrap_mean(std::span<const double> values, BootstrapOptions options) {
  require(!values.empty(), "bootstrap: found no values, expected one or more");
  require(options.resamples > 0,
          "bootstrap: found resamples = " + std::to_string(options.resamples) + ", expected > 0");
  require_level(options.level);
  std::vector<double> means(static_cast<size_t>(options.resamples));
  for (size_t r = 0; r < means.size(); ++r) {
    Rng rng(options.seed, r);  // a stream per resample: independent of the order they are drawn in
    double sum = 0;
    for (size_t i = 0; i < values.size(); ++i) sum += values[rng.below(values.size())];
    means[r] = sum / static_cast<double>(values.size());
  }
  std::sort(means.begin(), means.end());
  return {quantile(means, (1 - options.level) / 2), quantile(means, (1 + options.level) / 2)};
}

double jaccard(std::span<const int32_t> a, std::span<const int32_t> b) {
  const std::set<int32_t> in_a(a.begin(), a.end()), in_b(b.begin(), b.end());
  if (in_a.empty() && in_b.empty()) return 1;
  const auto both = std::count_if(in_a.begin(), in_a.end(), [&](int32_t x) { return in_b.contains(x); });
  return static_cast<double>(both) / static_cast<double>(in_a.size() + in_b.size() - static_cast<size_t>(both));
}

}  // namespace saif
