// Wall-clock times of short pieces of work.
#pragma once

#include <algorithm>
#include <chrono>
#include <limits>

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

}  // namespace saif
