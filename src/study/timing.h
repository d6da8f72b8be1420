// Wall-clock times of short pieces of work.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <vector>

namespace saif {

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

template <typename F>
double seconds_of(const F& f) {
  const Stopwatch watch;
  f();
  return watch.seconds();
}

// The shortest of several runs: at least `min_runs` after one that is not counted, then until `budget` seconds passed.
template <typename F>
double best_seconds(double budget, int min_runs, const F& f) {
  f();
  const Stopwatch watch;
  double best = std::numeric_limits<double>::infinity();
  for (int run = 0; run < min_runs || watch.seconds() < budget; ++run) best = std::min(best, seconds_of(f));
  return best;
}

// How several runs of the same work become one figure.
struct Repeat {
  double budget = 0;     // seconds, about
  bool typical = false;  // the median of the runs, of which one may be enough; else the shortest
  double pick(std::vector<double> seconds) const {
    const auto at = seconds.begin() + (typical ? static_cast<int64_t>(seconds.size() / 2) : 0);
    std::nth_element(seconds.begin(), at, seconds.end());
    return *at;
  }
  // f() returns its seconds.
  template <typename F>
  double operator()(const F& f) const {
    std::vector<double> seconds;
    const Stopwatch watch;
    while (seconds.size() < (typical ? 1U : 2U) || watch.seconds() < budget) seconds.push_back(f());
    return pick(std::move(seconds));
  }
};

}  // namespace saif
