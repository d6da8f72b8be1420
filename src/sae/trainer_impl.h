// The trainer's inside: trainer.cc makes steps, trainer_start.cc begins and begins again.
#pragma once

#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "sae/kinds/kind.h"
#include "sae/trainer_state.h"

namespace saif {

struct SaeTrainer::Impl {
  SaeTrainOptions options;
  int64_t d_in = 0, d_out = 0, total_steps = 0;
  bool transcoder = false;
  std::unique_ptr<Backend> backend = make_cpu_backend();
  std::unique_ptr<TrainingKind> kind;
  Compute compute = Compute::kF32;
  TrainerState state;
  Tensor shadow;  // W_enc in bfloat16 [d_sae, d_in], where the product runs in it

  // Of the step in progress.
  Tensor input;  // [B, d_in] what enters the encoder: x - b_dec; a transcoder's x
  Tensor residual, error, auxiliary_residual, pre, dead_pre;
  TrainStep now;
  SparseEntries auxiliary;
  std::vector<int32_t> dead;

  // trainer_start.cc
  void initialise(Mat<const float> sample, Mat<const float> target);
  void resample();

  // trainer.cc
  void begin(const SaeTrainOptions& with, int64_t steps, Mat<const float> sample, Mat<const float> target);
  void refresh_shadow();
  StepStats run(Mat<const float> x, Mat<const float> target);

 private:
  void draw_rows();
  void start_kind(Mat<const float> sample);
  std::vector<float> cuts_of(Mat<const float> in, double rate);

  double learning_rate() const;
  void find_dead();
  void prepare(Mat<const float> x, Mat<const float> target);
  void encode();
  double auxiliary_pass();
  void update(Mat<const float> x, const AdamStep& step);
  void update_skip(Mat<const float> x, const AdamStep& step);
  void count_fired();
};

// Throws kInvalidArgument "sae train: ..." when the condition does not hold.
void require_training(bool condition, const std::string& message);

}  // namespace saif
