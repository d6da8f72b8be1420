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
#include <vector>

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

// Tasks [0, n), a run of neighbours for each thread. Who is done with its own takes from the end of another's.
class TaskRuns {
 public:
  TaskRuns(int64_t n, int threads) : runs_(static_cast<size_t>(threads)) {
    for (int t = 0; t < threads; ++t) runs_[static_cast<size_t>(t)] = join(n * t / threads, n * (t + 1) / threads);
  }
  // The next task of a thread; -1: none is left.
  int64_t take(int thread) {
    const auto own = static_cast<size_t>(thread);
    for (size_t i = 0; i < runs_.size(); ++i) {
      std::atomic<uint64_t>& run = runs_[(own + i) % runs_.size()];
      uint64_t now = run.load(std::memory_order_relaxed);
      for (int64_t begin = begin_of(now), end = end_of(now); begin < end; begin = begin_of(now), end = end_of(now)) {
        const uint64_t rest = i == 0 ? join(begin + 1, end) : join(begin, end - 1);
        if (run.compare_exchange_weak(now, rest, std::memory_order_relaxed)) return i == 0 ? begin : end - 1;
      }
    }
    return -1;
  }

 private:
  static uint64_t join(int64_t begin, int64_t end) {
    return static_cast<uint64_t>(begin) | static_cast<uint64_t>(end) << 32;
  }
  static int64_t begin_of(uint64_t run) { return static_cast<int64_t>(run & 0xffffffffU); }
  static int64_t end_of(uint64_t run) { return static_cast<int64_t>(run >> 32); }

  std::vector<std::atomic<uint64_t>> runs_;  // begin, and end in the upper half
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
