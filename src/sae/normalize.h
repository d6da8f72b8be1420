// SAELens' normalize_activations: rows on their way into an SAE, and back out.
#pragma once

#include <span>
#include <string>

#include "saif/tensor.h"

namespace saif {

// out[r] = normalised x[r]. none; constant_norm_rescale: x sqrt(d) / |x|; layer_norm: (x - mean) / (std + 1e-5), std
// unbiased. An all-zero row stays zero.
void normalize_rows(const std::string& kind, Mat<const float> x, Mat<float> out);

// y[r] (a reconstruction of normalised x[r]) back in x's scale. layer_norm: y std + mean, eps left out.
void undo_normalization(const std::string& kind, Mat<const float> x, Mat<float> y);

// What undo_normalization multiplies a reconstruction of this row by: what a latent adds is that much larger in x's
// scale. none: 1.
double undo_factor(const std::string& kind, std::span<const float> x);

}  // namespace saif
