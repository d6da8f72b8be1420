// The arithmetic of one training step of a top-k SAE, on rows in cache. All functions are parallel, and what they
// compute does not depend on the number of threads: sums run in a fixed order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

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
  std::vector<float> column_values, column_gradients;

  void clear();
  // Fills the column_* arrays.
  void transpose(int64_t n_latents);
};

// target[r] = base - x[r] + sum of the row's entries in the dictionary (with base nullptr: no base), multiplied by
// `factor`; gradients of the entries = dot(target[r], their dictionary row); squared[r] = |residual|^2 before the
// factor. x may be target.
struct ResidualTask {
  Mat<const float> x;
  const float* base = nullptr;  // [cols] or nullptr
  Mat<const float> dictionary;  // [n_latents, cols]
  float factor = 1.0f;
  Mat<float> target;
  std::span<double> squared;  // [rows]
};
void residual_and_gradients(const ResidualTask& task, SparseEntries& entries);

struct AdamStep {
  float rate = 0;  // learning rate of this step
  float beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f;
  float correction1 = 1, correction2 = 1;  // 1 - beta^t
};

struct Moments {
  Tensor first, second;  // of the parameter's shape
};

// Parameters [n_latents, cols] with their moments; shadow: the same rounded to bfloat16, or nullptr.
struct RowParameters {
  Mat<float> value;
  Moments* moments = nullptr;
  uint16_t* shadow = nullptr;
};

// One source of a gradient: gradient[j] += sum over column entries of weight * rows[r].
struct GradientPart {
  const SparseEntries* entries = nullptr;
  Mat<const float> encoder_rows;  // met by the entries' gradients: what entered the encoder
  Mat<const float> decoder_rows;  // met by the entries' values: d loss / d reconstruction
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
