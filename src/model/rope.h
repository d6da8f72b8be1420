// Tables of rotary position embeddings.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"
#include "saif/model.h"

namespace saif {

// Angle per position of each pair of a head, [rotary_dim / 2], after scaling. `is_long`: of a prompt beyond the
// original context, where longrope has other divisors.
std::vector<double> rope_frequencies(const RopeSpec& spec, bool is_long = false);

// cos and sin of position * frequency, computed in double; grows by doubling. Row 2 p of the table is position p of a
// short prompt, row 2 p + 1 of a long one where the two differ; else row p is position p. Not thread-safe.
class RopeCache {
 public:
  explicit RopeCache(const RopeSpec& spec);
  bool has_long() const { return frequencies_.size() == 2; }
  // Covers positions [0, n_positions). Valid until the next call.
  RopeTable table(int64_t n_positions);

 private:
  std::vector<std::vector<double>> frequencies_;  // of short prompts, and of long ones where they differ
  std::vector<float> cos_, sin_;                  // [n_positions * frequencies, rotary_dim / 2]
  double attention_factor_;
  int64_t rotary_dim_, n_positions_ = 0;
};

}  // namespace saif
