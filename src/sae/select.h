// Which latents of a row are active: the activation functions of all kinds of SAE.
#pragma once

#include <vector>

#include "kernels/backend.h"
#include "sae/source.h"

namespace saif {

// Active latents of one row, in ascending order of index.
struct Selected {
  std::vector<int32_t> indices;
  std::vector<float> values;
};

// Chooses while pre-activations come in, some latents at a time, so that they never have to be there all at once.
class Selector {
 public:
  // decoder_norms [d_sae]: for rank_by_decoder_norm only. All must outlive the selector.
  Selector(const SaeSource& source, const std::vector<float>& decoder_norms, Backend& backend);
  // How many latents add() may be given at a time, at most and save for the last ones.
  int64_t tile() const { return tile_; }
  void begin(int64_t rows);
  // h [rows, n]: pre-activations of latents [first, first + n); in order, without gaps.
  void add(Mat<const float> h, int64_t first);
  // Appends the active latents of each row.
  void finish(SparseLatents& latents);

 private:
  template <typename Counts, typename Value>
  void add_where(Mat<const float> h, int64_t first, const Counts& counts, const Value& value);
  template <typename Rank>
  void add_ranked(Mat<const float> h, int64_t first, const Rank& rank);
  bool is_ranked() const;
  std::span<TopCandidates> candidates_of(Mat<const float> h);
  void add_group_maxima(Mat<const float> h, int64_t first);

  const SaeSource& source_;
  const std::vector<float>& decoder_norms_;
  Backend& backend_;
  int64_t tile_;
  int64_t n_rows_ = 0;
  std::vector<Selected> rows_;
  std::vector<TopCandidates> candidates_;  // for the k largest
  Tensor ranks_;
};

// kMatchingPursuit. residual [n, d_in] enters as the prepared input and is used up; h [n, d_sae] is scratch.
void pursue(const SaeSource& source, Backend& backend, Mat<float> residual, Mat<float> h, std::vector<Selected>& rows);

// Appends a row to CSR.
void append(const std::vector<int32_t>& indices, const std::vector<float>& values, SparseLatents& latents);

}  // namespace saif
