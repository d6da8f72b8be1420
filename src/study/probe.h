// Sparse probing of given activations; probe_sae brings them from a model.
#pragma once

#include <span>
#include <vector>

#include "saif/study.h"

namespace saif {

struct ProbeData {
  Mat<const float> activations;  // [n, d_in] one row a text
  const SparseLatents& latents;  // of the texts
  std::vector<int> label;        // [n] index of names
  std::vector<uint8_t> test;     // [n]
  std::vector<std::string> names;
};
ProbeResult probe(const ProbeData& data, const ProbeOptions& options);

// Mean of each latent over the rows [offsets[i], offsets[i + 1]) of text i.
SparseLatents mean_latents(const SparseLatents& rows, std::span<const int64_t> offsets);

}  // namespace saif
