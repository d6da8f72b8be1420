// SAELens' normalize_activations: rows on their way into an SAE, and back out.
#pragma once

#include <string>

#include "saif/tensor.h"

namespace saif {

// out[r] = normalised x[r]. none; constant_norm_rescale: x sqrt(d) / |x|; layer_norm: (x - mean) / (std + 1e-5), std
// unbiased. An all-zero row stays zero.
void normalize_rows(const std::string& kind, Mat<const float> x, Mat<float> out);

// y[r] (a reconstruction of normalised x[r]) back in x's scale. layer_norm: y std + mean, eps left out.
void undo_normalization(const std::string& kind, Mat<const float> x, Mat<float> y);

}  // namespace saif
