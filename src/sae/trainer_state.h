// Everything a trainer must remember between two steps, and its file.
#pragma once

#include <string>

#include "sae/adam.h"
#include "saif/sae.h"

namespace saif {

struct TrainerState {
  SaeWeights weights;
  Moments encoder, decoder, encoder_bias, decoder_bias;  // of w_enc, w_dec, b_enc, b_dec
  Tensor since_fired;                                    // I64 [d_sae]: tokens since a latent last fired
  double scale = 1.0;                                    // root mean square distance of rows from b_dec at the start
  int64_t steps = 0;

  void allocate(int64_t d_in, int64_t d_sae);
  // Bit for bit, atomically; `identity` says what the state belongs to: load refuses another one.
  void save(const std::string& file, const std::string& identity) const;
  void load(const std::string& file, const std::string& identity);
};

// Throws kInvalidArgument naming the option.
void check_train_options(const SaeTrainOptions& options, int64_t d_in);

}  // namespace saif
