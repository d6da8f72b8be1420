// What every long operation takes: somewhere to say how far it is, and a way to be stopped.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "saif/error.h"

namespace saif {

// Counters of a long operation. `total` 0: not known.
struct Progress {
  std::string stage;  // "prefill", "tuning", ...
  int64_t done = 0;
  int64_t total = 0;
  std::string note;  // free text: "L0 31.9  FVU 0.18"
};

// Passed by reference down a call tree; thread-safe.
class Control {
 public:
  std::function<void(const Progress&)> on_progress;  // called from one thread at a time; may be empty

  void request_stop() { stop_.store(true, std::memory_order_relaxed); }  // async-signal-safe
  bool stop_requested() const { return stop_.load(std::memory_order_relaxed); }
  // Throws Error{kInterrupted} once a stop was requested.
  void check(const std::string& what) const {
    if (stop_requested()) throw Error(Errc::kInterrupted, what + " was interrupted");
  }
  void report(const Progress& progress) const {
    if (on_progress) on_progress(progress);
  }

 private:
  std::atomic<bool> stop_{false};
};

}  // namespace saif
