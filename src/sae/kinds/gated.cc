// Rajamanoharan et al. 2024 (arXiv 2404.16014). With h = z W_enc + b_gate the gate, exp(r) (h - b_gate) + b_mag the
// magnitude m:   a_j = [h_j > 0] relu(m_j).   Beside the reconstruction (their equation 8):
//   P = c / B sum_r sum_j relu(h_rj) |W_dec[j]| / s,   V = sum_r |relu(h_r) W_dec + b_dec - y_r|^2 / (B s^2)
// where V, the reconstruction via the gate, sees W_dec and b_dec as constants. The trainer's b_enc is b_gate.
#include <cmath>
#include <numeric>

#include "base/parallel.h"
#include "sae/kinds/kind.h"

namespace saif {
namespace {

class Gated final : public TrainingKind {
 public:
  explicit Gated(const SaeTrainOptions& options) : options_(options), zero_(static_cast<size_t>(options.d_sae), 0.0f) {}

  double start_rate() const override { return start_rate_of(options_); }
  float resampled_norm() const override { return 0.2f; }

  void start(const KindStart& start, std::span<float> b_enc) override {
    log_scale_ = make_kind_vector("r_mag", options_.d_sae, 1.0f);
    magnitude_bias_ = make_kind_vector("b_mag", options_.d_sae, start.scale);
    for (size_t j = 0; j < b_enc.size(); ++j) {
      magnitude_bias_.value.as<float>()[j] = b_enc[j];  // of a transcoder: centres its input
      b_enc[j] -= start.cuts[j];
    }
  }

  std::vector<KindVector*> vectors() override { return {&log_scale_, &magnitude_bias_}; }

  void select(Mat<const float> h, Backend& /*backend*/, SparseEntries& live) override { append_above(h, zero_, live); }

  double reconstruct(TrainStep& step, double& extra) override {
    gate_.offsets = step.live.offsets;
    gate_.latents = step.live.latents;
    gate_.values = step.live.values;
    if (via_gate_.empty() || via_gate_.shape() != std::vector<int64_t>{step.rows, step.residual.cols()}) {
      via_gate_ = Tensor(DType::kF32, {step.rows, step.residual.cols()});
    }
    if (step.has_skip) std::copy_n(step.residual.data(), via_gate_.elements(), via_gate_.as<float>());
    std::vector<double> squared(static_cast<size_t>(step.rows));
    residual_and_gradients({step.target, step.b_dec, step.w_dec, step.factor, via_gate_.f32(), squared, step.has_skip},
                           gate_);
    extra += std::accumulate(squared.begin(), squared.end(), 0.0) / step.unit;
    const float* r = log_scale_.value.as<float>();
    const float* b_mag = magnitude_bias_.value.as<float>();
    for (size_t i = 0; i < gate_.latents.size(); ++i) {
      const int32_t j = gate_.latents[i];
      step.live.values[i] = std::max(0.0f, std::exp(r[j]) * (gate_.values[i] - step.b_enc[j]) + b_mag[j]);
    }
    return TrainingKind::reconstruct(step, extra);
  }

  double penalise(TrainStep& step) override {
    const double weight = options_.l1_coefficient * step.warmth / (static_cast<double>(step.rows) * step.scale);
    const float* r = log_scale_.value.as<float>();
    magnitude_.resize(gate_.latents.size());
    for (size_t i = 0; i < magnitude_.size(); ++i) {
      float& g = step.live.gradients[i];
      magnitude_[i] = step.live.values[i] > 0 ? g : 0.0f;
      g = magnitude_[i] * std::exp(r[gate_.latents[i]]) + gate_.gradients[i] + static_cast<float>(weight);
    }
    return weight * std::accumulate(gate_.values.begin(), gate_.values.end(), 0.0);
  }

  void finish(const TrainStep& step, std::span<float> bias_gradient) override {
    const SparseEntries& live = step.live;
    const float* r = log_scale_.value.as<float>();
    const float* b_mag = magnitude_bias_.value.as<float>();
    parallel_for(static_cast<int64_t>(bias_gradient.size()), 256, [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) {
        float sum = 0, stretch = 0;
        for (int64_t i = live.column_offsets[j]; i < live.column_offsets[j + 1]; ++i) {
          const auto entry = static_cast<size_t>(live.column_entries[i]);
          sum += magnitude_[entry];
          stretch += magnitude_[entry] * (live.values[entry] - b_mag[j]);
        }
        const auto at = static_cast<size_t>(j);
        log_scale_.gradient[at] = stretch;
        magnitude_bias_.gradient[at] = sum * magnitude_bias_.unit;
        bias_gradient[at] -= sum * std::exp(r[j]);  // the magnitude does not move with b_gate
      }
    });
  }

  void save(SaeConfig& config, SaeWeights& weights) override {
    config.kind = SaeKind::kGated;
    weights.r_mag = log_scale_.value.clone();
    weights.b_mag = magnitude_bias_.value.clone();
  }

 private:
  SaeTrainOptions options_;
  KindVector log_scale_, magnitude_bias_;
  std::vector<float> zero_;
  SparseEntries gate_;            // the active latents with the gate's values
  Tensor via_gate_;               // [B, d_out] factor times the residual of the reconstruction via the gate
  std::vector<float> magnitude_;  // by entry: d loss / d magnitude
};

}  // namespace

std::unique_ptr<TrainingKind> make_gated(const SaeTrainOptions& options) { return std::make_unique<Gated>(options); }

}  // namespace saif
