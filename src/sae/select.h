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

// rows[r] = the active latents of the pre-activations h[r]. decoder_norms [d_sae]: for rank_by_decoder_norm only.
void select_latents(const SaeSource& source, const std::vector<float>& decoder_norms, Backend& backend, Mat<float> h,
                    std::vector<Selected>& rows);

// kMatchingPursuit. residual [n, d_in] enters as the prepared input and is used up; h [n, d_sae] is scratch.
void pursue(const SaeSource& source, Backend& backend, Mat<float> residual, Mat<float> h, std::vector<Selected>& rows);

// Appends rows to CSR.
void append(const std::vector<Selected>& rows, SparseLatents& latents);

}  // namespace saif
