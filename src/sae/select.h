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
// Of the k largest a row keeps a few k that may still be among them.
class Selector {
 public:
  // decoder_norms [d_sae]: for rank_by_decoder_norm only. Both must outlive the selector.
  Selector(const SaeSource& source, const std::vector<float>& decoder_norms, int64_t rows);
  // How many latents add() may be given at a time, at most and save for the last ones.
  int64_t tile() const { return tile_; }
  // h [rows, n]: pre-activations of latents [first, first + n); in order, without gaps.
  void add(Mat<const float> h, int64_t first);
  // The active latents of each row.
  std::vector<Selected> take();

 private:
  struct Candidates {  // for the k largest
    std::vector<float> ranks;
    float least = 0;  // of the k largest so far: only what is larger can still be among them
  };
  template <typename Counts, typename Value>
  void add_where(Mat<const float> h, int64_t first, const Counts& counts, const Value& value);
  template <typename Rank>
  void add_ranked(Mat<const float> h, int64_t first, const Rank& rank);
  void add_group_maxima(Mat<const float> h, int64_t first);
  void keep_largest(Selected& row, Candidates& candidates) const;

  const SaeSource& source_;
  const std::vector<float>& decoder_norms_;
  int64_t tile_;
  std::vector<Selected> rows_;
  std::vector<Candidates> candidates_;
};

// kMatchingPursuit. residual [n, d_in] enters as the prepared input and is used up; h [n, d_sae] is scratch.
void pursue(const SaeSource& source, Backend& backend, Mat<float> residual, Mat<float> h, std::vector<Selected>& rows);

// Appends rows to CSR.
void append(const std::vector<Selected>& rows, SparseLatents& latents);

}  // namespace saif
