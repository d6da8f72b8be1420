// The arithmetic of one training step of an SAE, on rows in cache. All functions are parallel, and what they
// compute does not depend on the number of threads: sums run in a fixed order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sae/row_math.h"
#include "saif/tensor.h"

namespace saif {

// Entries by row (CSR) and the same by latent (CSC).
struct SparseEntries {
  std::vector<int64_t> offsets{0};  // [rows + 1]
  std::vector<int32_t> latents;
  std::vector<float> values;     // activations
  std::vector<float> gradients;  // d loss / d activation

  std::vector<int64_t> column_offsets;  // [n_latents + 1]
  std::vector<int32_t> column_rows;     // ascending within a latent
  std::vector<int32_t> column_entries;  // where the entry lies in the arrays by row
  std::vector<float> column_values, column_gradients;

  int64_t rows() const { return static_cast<int64_t>(offsets.size()) - 1; }
  void clear();
  // Fills the column_* arrays; entries without value and gradient are left out.
  void transpose(int64_t n_latents);
};

// target[r] = base - x[r] + sum of the row's entries in the dictionary (with base nullptr: no base; onto_target: what
// stands in target[r] is part of the sum), multiplied by `factor`; gradients of the entries = dot(target[r], their
// dictionary row); squared[r] = |residual|^2 before the factor. x may be target.
struct ResidualTask {
  Mat<const float> x;
  const float* base = nullptr;  // [cols] or nullptr
  Mat<const float> dictionary;  // [n_latents, cols]
  float factor = 1.0f;
  Mat<float> target;
  std::span<double> squared;  // [rows]
  bool onto_target = false;
};
void residual_and_gradients(const ResidualTask& task, SparseEntries& entries);

struct Moments {
  Tensor first, second;  // of the parameter's shape
};

// Parameters [n_latents, cols] with their moments; shadow: the same rounded to bfloat16, or nullptr.
struct RowParameters {
  Mat<float> value;
  Moments* moments = nullptr;
  uint16_t* shadow = nullptr;
  float scale = 1.0f;  // the encoder's natural scale: multiplies the learning rate
};

// One source of a gradient: gradient[j] += sum over column entries of weight * rows[r].
struct GradientPart {
  const SparseEntries* entries = nullptr;
  Mat<const float> encoder_rows;  // met by the entries' gradients: what entered the encoder
  Mat<const float> decoder_rows;  // met by the entries' values: d loss / d reconstruction
  // Where not empty: latents below prefix_ends[0] meet the first of as many equal blocks of decoder_rows, and so on.
  std::span<const int64_t> prefix_ends = {};
  Mat<const float> decoder_rows_of(int64_t latent) const;
};

// For every latent: both gradient rows from the parts, Adam on both, the decoder's gradient without its component along
// the row and the row back at unit norm. `pull` [cols] = sum_j (sum of j's activation gradients) * W_enc[j], before the
// step; `bias_gradient` [n_latents] those sums.
void update_rows(std::span<const GradientPart> parts, const AdamStep& step, const RowParameters& encoder,
                 const RowParameters& decoder, std::span<float> bias_gradient, std::span<float> pull);

// Adam on a plain vector whose natural scale is `scale`: gradients are those of value / scale.
void update_vector(std::span<float> value, std::span<const float> gradient, float scale, const AdamStep& step,
                   Moments& moments);

}  // namespace saif
