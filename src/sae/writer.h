// What the writers of SAE folders share: an SAE's weights with all scales folded in, and files that are whole or
// absent.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "sae/source.h"

namespace saif {

Tensor folded_encoder(const SaeSource& source);  // [d_in, d_sae] float32
Tensor folded_decoder(const SaeSource& source);  // [d_sae, d_out] float32
std::vector<float> folded_bias(const SaeSource& source);
Tensor to_tensor(const std::vector<float>& values);

// Creates the folder and takes its cfg.json away: without it the folder is no SAE, and an interrupted save cannot pass
// for a whole one. Throws kUnsupported for a dtype other than F32 and BF16.
void begin_folder(const std::string& folder, DType dtype);

// All in one type.
void write_weights(const std::string& file, const std::vector<std::pair<std::string, Tensor>>& tensors, DType dtype);

// SAELens 6: cfg.json and sae_weights.safetensors in `folder`. Throws kUnsupported for arithmetic that it has no
// architecture for.
void write_sae_lens(const std::string& folder, const SaeSource& source, DType dtype);

// sparsify: cfg.json and sae.safetensors in a folder named as the hookpoint ("layers.7"), which is `folder` if it has
// that name and otherwise made in it. Returns that folder. Top-k (with relu) and groupmax only.
std::string write_sparsify(const std::string& folder, const SaeSource& source, DType dtype);

}  // namespace saif
