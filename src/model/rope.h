// Tables of rotary position embeddings.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"
#include "saif/model.h"

namespace saif {

// Angle per position of each pair of a head, [rotary_dim / 2], after scaling.
std::vector<double> rope_frequencies(const RopeSpec& spec, int64_t rotary_dim);

// cos and sin of position * frequency, computed in double; grows by doubling. Not thread-safe.
class RopeCache {
 public:
  RopeCache(const RopeSpec& spec, int64_t rotary_dim);
  // Covers positions [0, n_positions). Valid until the next call.
  RopeTable table(int64_t n_positions);

 private:
  std::vector<double> frequencies_;
  std::vector<float> cos_, sin_;  // [n_positions, rotary_dim / 2]
  int64_t rotary_dim_, n_positions_ = 0;
};

}  // namespace saif
