// The one thread pool: OpenMP's. parallel_for(n, grain, body) calls body(begin, end) on disjoint ranges that cover
// [0, n). Which thread gets which range must never matter to a result. Exceptions must not leave the body.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace saif {

inline int max_threads() { return omp_get_max_threads(); }
inline void set_threads(int n) { omp_set_num_threads(n); }

template <typename Body>
void parallel_for(int64_t n, int64_t grain, const Body& body) {
  if (n <= 0) return;
  const int64_t chunks = (n + grain - 1) / grain;
  if (chunks <= 1 || omp_in_parallel()) {
    body(int64_t{0}, n);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t c = 0; c < chunks; ++c) body(c * grain, std::min(n, (c + 1) * grain));
}

}  // namespace saif
