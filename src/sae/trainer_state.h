// Everything a trainer must remember between two steps, and its file.
#pragma once

#include <string>
#include <vector>

#include "sae/kinds/kind.h"
#include "saif/sae.h"

namespace saif {

struct TrainerState {
  SaeWeights weights;
  Moments encoder, decoder, encoder_bias, decoder_bias;  // of w_enc, w_dec, b_enc, b_dec
  Tensor since_fired;                                    // I64 [d_sae]: tokens since a latent last fired
  Moments skip;                                          // of w_skip, where there is one
  double scale = 1.0;                                    // s: root mean square distance of rows from b_dec at the start
  double encoder_scale = 1.0;  // norm of an encoder row at the start: 1, a transcoder's s over its input's
  int64_t steps = 0;

  void allocate(int64_t d_in, int64_t d_out, int64_t d_sae, bool with_skip);
  // Bit for bit, atomically, with the kind's own vectors; `identity` says what the state belongs to: load refuses
  // another one.
  void save(const std::string& file, const std::string& identity, const std::vector<KindVector*>& vectors) const;
  void load(const std::string& file, const std::string& identity, const std::vector<KindVector*>& vectors);
};

// Throws kInvalidArgument naming the option.
void check_train_options(const SaeTrainOptions& options, int64_t d_in);
void check_transcoder_options(const SaeTrainOptions& options);

}  // namespace saif
