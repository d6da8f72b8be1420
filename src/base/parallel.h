// The one thread pool: OpenMP's. parallel_for(n, grain, body) calls body(begin, end) on disjoint ranges that cover
// [0, n). Which thread gets which range must never matter to a result.
// What a body throws reaches the caller: the first exception ends the handing out of work and is thrown again once all
// threads are done. None may leave an OpenMP region, whose runtime would end the program: a loop written by hand that
// can throw (it allocates, or calls what it was given) runs its bodies under a FirstError.
#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>

namespace saif {

inline int max_threads() { return omp_get_max_threads(); }
inline void set_threads(int n) { omp_set_num_threads(n); }

// Keeps the first exception of the bodies that the threads of a region run.
class FirstError {
 public:
  // body(), or nothing once a body has thrown.
  template <typename Body>
  void run(const Body& body) noexcept {
    if (failed_.load(std::memory_order_relaxed)) return;
    try {
      body();
    } catch (...) {
      if (failed_.exchange(true)) return;
      error_ = std::current_exception();
      kept_.store(true, std::memory_order_release);
    }
  }
  // After the region.
  void rethrow() const {
    if (kept_.load(std::memory_order_acquire)) std::rethrow_exception(error_);
  }

 private:
  std::atomic<bool> failed_ = false, kept_ = false;
  std::exception_ptr error_;
};

template <typename Body>
void parallel_for(int64_t n, int64_t grain, const Body& body) {
  if (n <= 0) return;
  const int64_t chunks = (n + grain - 1) / grain;
  if (chunks <= 1 || omp_in_parallel()) {
    body(int64_t{0}, n);
    return;
  }
  FirstError errors;
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t c = 0; c < chunks; ++c) errors.run([&] { body(c * grain, std::min(n, (c + 1) * grain)); });
  errors.rethrow();
}

}  // namespace saif
