// What distinguishes the kinds of SAE in training: which latents of a row are active, how the loss beside the
// reconstruction and straight-through estimators change the gradients of their pre-activations, and what is saved. All
// else is the trainer's (trainer.cc). Equations: docs/sae_training.md.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "sae/adam.h"
#include "saif/sae.h"

namespace saif {

// A vector that a kind learns or remembers beside the weights; part of the training state.
struct KindVector {
  std::string name;
  Tensor value;  // F32 [n]
  Moments moments;
  float unit = 0;               // its natural scale; 0: not learnt by Adam
  std::vector<float> gradient;  // of the step, of value / unit
};
KindVector make_kind_vector(const std::string& name, int64_t n, float unit);

// One step, as far as a kind sees it.
struct TrainStep {
  int64_t rows = 0;
  double unit = 1;          // B s^2: the loss is sum |x^ - y|^2 / unit
  float factor = 1;         // 2 / unit
  float scale = 1;          // s
  double warmth = 1;        // 0 to 1: how much of the sparsity penalty applies
  Mat<const float> target;  // [B, d_out] y
  Mat<const float> w_dec;   // [d_sae, d_out]
  const float* b_enc = nullptr;
  const float* b_dec = nullptr;
  Mat<float> residual;  // [B, d_out]: holds what a skip connection gives, if there is one; then factor (x^ - y)
  bool has_skip = false;
  SparseEntries live;  // entries by row, ascending latents; value 0: no activation, but a gradient of its own

  // What a kind that reconstructs several times says of it; reset before every step.
  Mat<const float> outer;         // [B, d_out] d loss / d b_dec by row
  Mat<const float> decoder_rows;  // as in GradientPart
  std::span<const int64_t> prefix_ends = {};
};

// What the start of training shows of the pre-activations z W_enc.
struct KindStart {
  int64_t total_steps = 1;
  std::span<const float> cuts;  // [d_sae]: what each latent exceeds on a share `rate` of the sample
  float scale = 1;              // s
  float unit = 1;               // s / sqrt(d_in): what z W_enc is in the mean, for random unit rows
};

class TrainingKind {
 public:
  virtual ~TrainingKind() = default;

  // Share of the sample that KindStart::cuts is exceeded on; 0: not asked for.
  virtual double start_rate() const { return 0; }
  virtual void start(const KindStart& start, std::span<float> b_enc) {
    (void)start;
    (void)b_enc;
  }
  // Norm of the encoder row of a latent that starts again, in mean norms of the living: it must be among the largest to
  // be chosen at all, and need not where every positive pre-activation is active (0.2: Bricken et al. 2023).
  virtual float resampled_norm() const { return 1.0f; }
  virtual std::vector<KindVector*> vectors() { return {}; }

  // Appends the entries of the rows whose pre-activations h [n, d_sae] are; called for the batch's rows in order.
  virtual void select(Mat<const float> h, Backend& backend, SparseEntries& live) = 0;
  // Looks at the whole batch. False: the rows must be selected once more.
  virtual bool settle(SparseEntries& live, int64_t rows) {
    (void)live;
    (void)rows;
    return true;
  }
  // Fills residual and live.gradients (d loss / d activation). Returns sum |x^ - y|^2 of the whole reconstruction and
  // adds what other reconstructions cost to `extra`, a part of the loss.
  virtual double reconstruct(TrainStep& step, double& extra);
  // Adds the penalty to live.gradients and makes them gradients of pre-activations. Returns the penalty.
  virtual double penalise(TrainStep& step) {
    (void)step;
    return 0;
  }
  // After the rows were updated: gradients of vectors(); may correct b_enc's [d_sae].
  virtual void finish(const TrainStep& step, std::span<float> bias_gradient) {
    (void)step;
    (void)bias_gradient;
  }
  // Kind, k and the tensors of SaeWeights that only this kind has.
  virtual void save(SaeConfig& config, SaeWeights& weights) = 0;
};

// Of checked options (check_train_options).
std::unique_ptr<TrainingKind> make_training_kind(const SaeTrainOptions& options);

// One per file of this folder.
std::unique_ptr<TrainingKind> make_relu(const SaeTrainOptions& options);
std::unique_ptr<TrainingKind> make_topk(const SaeTrainOptions& options);
std::unique_ptr<TrainingKind> make_batch_topk(const SaeTrainOptions& options);
std::unique_ptr<TrainingKind> make_jump_relu(const SaeTrainOptions& options);
std::unique_ptr<TrainingKind> make_gated(const SaeTrainOptions& options);
std::unique_ptr<TrainingKind> make_matryoshka(const SaeTrainOptions& options, std::unique_ptr<TrainingKind> selection);

// Share of rows on which a latent fires when training starts, for kinds whose sparsity a penalty decides: twice k
// active.
double start_rate_of(const SaeTrainOptions& options);

// Appends the entries h > cut [d_sae] of all rows, in order.
void append_above(Mat<const float> h, std::span<const float> cut, SparseEntries& out);

// Appends the k largest positive entries of each row; names: what the columns are called (nullptr: themselves).
void append_top(Mat<const float> h, int64_t k, const std::vector<int32_t>* names, Backend& backend, SparseEntries& out);

}  // namespace saif
