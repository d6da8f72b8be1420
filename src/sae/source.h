// What a loader hands over, whatever the file's format: a canonical configuration and views of the stored matrices.
// Each format is one file of loaders/ and one line of loaders/registry.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "saif/sae.h"

namespace saif {

struct SaeSource {
  SaeConfig config;
  std::string path;                   // what the caller named
  std::vector<std::string> files;     // whose bytes make up the SAE, for the hash
  std::shared_ptr<const void> owner;  // keeps the views alive
  TensorView w_enc;                   // [d_in, d_sae], or [d_sae, d_in] when encoder_rows
  bool encoder_rows = false;
  TensorView w_dec;                                  // [d_sae, d_out]
  float encoder_scale = 1.0f, decoder_scale = 1.0f;  // multiply the stored matrices (folded input normalisation)
  std::vector<float> latent_scale;       // [d_sae] or empty: multiplies h, that is W_enc's columns and b_enc
  std::vector<float> decoder_row_scale;  // [d_sae] or empty: multiplies W_dec's rows
  std::vector<float> b_enc, b_dec, threshold;
  std::vector<float> gate_bias, magnitude_scale, magnitude_bias;  // kGated: b_gate, exp(r_mag), b_mag; b_enc is zero
  TensorView w_glu;                                               // glu: as w_enc, and in its orientation
  std::vector<float> b_glu;
  TensorView w_skip;  // skip: [d_out, d_in]
  bool fast = false;  // SaeLoadOptions::fast
};

struct SaeLoader {
  const char* format;
  bool (*recognises)(const std::string& path);  // looks at names only, reads no weights
  SaeSource (*load)(const std::string& path, const SaeLoadOptions& options);
};

// The canonical SAE behind Sae::load and Sae::from_weights. `verify`: every weight is checked now.
std::shared_ptr<const Sae> make_sae(SaeSource source, bool verify);

// Throws kBadFormat naming file and tensor when a value is not finite. `first_row` is added to the row in the message.
void require_finite(const TensorView& view, const std::string& file, const std::string& tensor);

// Throws kInvalidArgument naming the first row and column that is NaN or infinite: nothing that an SAE made of them
// would mean anything. `first_row` is added to the row; `what`: "input".
void require_finite_rows(Mat<const float> x, int64_t first_row, const char* what, const std::string& sae);

// A copy with rows and columns exchanged, [rows, cols] -> [cols, rows], in the same type (2 or 4 bytes per element).
Tensor transposed(const TensorView& view);

// Euclidean norm of every row of [rows, cols].
std::vector<float> row_norms(const TensorView& view);

}  // namespace saif
