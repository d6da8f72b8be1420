// Rajamanoharan et al. 2024 (arXiv 2407.14435): a_j = h_j [h_j > theta_j] with learnt thresholds. The step is flat, so
// theta learns through a rectangle of width e around it (their equations 11 and 12):
//   d a_j / d theta_j = -(theta_j / e) K((h_j - theta_j) / e),   d [h_j > theta_j] / d theta_j = -(1 / e) K(...)
// with K(u) = 1 for |u| < 1/2. Penalty on L0 = mean number of active latents: "target" c (L0 / k - 1)^2 (their
// section 6 on fixing the sparsity), "linear" c L0 / k.
#include <algorithm>
#include <cmath>

#include "sae/kinds/kind.h"

namespace saif {
namespace {

constexpr float kLeastThreshold = 1e-3f;  // in units of s / sqrt(d_in): thresholds stay positive

class JumpRelu final : public TrainingKind {
 public:
  explicit JumpRelu(const SaeTrainOptions& options) : options_(options), cut_(static_cast<size_t>(options.d_sae)) {}

  double start_rate() const override { return start_rate_of(options_) / 2; }

  void start(const KindStart& start, std::span<float> /*b_enc*/) override {
    unit_ = make_kind_vector("unit", 1, 0);
    unit_.value.as<float>()[0] = start.unit;
    threshold_ = make_kind_vector("threshold", options_.d_sae, start.scale);
    for (int64_t j = 0; j < options_.d_sae; ++j) {
      threshold_.value.as<float>()[j] = std::max(start.cuts[static_cast<size_t>(j)], kLeastThreshold * start.unit);
    }
  }

  std::vector<KindVector*> vectors() override { return {&threshold_, &unit_}; }

  // Active latents, and those in the lower half of the rectangle, as entries of value 0.
  void select(Mat<const float> h, Backend& /*backend*/, SparseEntries& live) override {
    const float* theta = threshold_.value.as<float>();
    if (live.rows() == 0) {
      for (size_t j = 0; j < cut_.size(); ++j) cut_[j] = std::max(0.0f, theta[j] - width() / 2);
      near_.clear();
    }
    const size_t before = live.latents.size();
    append_above(h, cut_, live);
    near_.resize(live.latents.size());
    for (size_t i = before; i < near_.size(); ++i) {
      const float t = theta[live.latents[i]];
      near_[i] = std::abs(live.values[i] - t) < width() / 2 ? 1 : 0;
      if (live.values[i] <= t) live.values[i] = 0.0f;
    }
  }

  double penalise(TrainStep& step) override {
    SparseEntries& live = step.live;
    const auto active = std::count_if(live.values.begin(), live.values.end(), [](float v) { return v > 0; });
    const double l0 = static_cast<double>(active) / static_cast<double>(step.rows);
    const double share = l0 / static_cast<double>(options_.k), weight = options_.l0_coefficient * step.warmth;
    const bool linear = options_.l0_penalty == "linear";
    // d penalty / d one more activation in the batch
    const double slope = weight * (linear ? 1.0 : 2.0 * (share - 1.0)) / static_cast<double>(options_.k * step.rows);
    const float* theta = threshold_.value.as<float>();
    pulls_.assign(live.latents.size(), 0.0f);
    for (size_t i = 0; i < pulls_.size(); ++i) {
      const float g = live.gradients[i];
      if (near_[i] != 0) pulls_[i] = -(theta[live.latents[i]] * g + static_cast<float>(slope)) / width();
      if (live.values[i] == 0.0f) live.gradients[i] = 0.0f;
    }
    return weight * (linear ? share : (share - 1.0) * (share - 1.0));
  }

  void finish(const TrainStep& step, std::span<float> /*bias_gradient*/) override {
    std::fill(threshold_.gradient.begin(), threshold_.gradient.end(), 0.0f);
    for (size_t i = 0; i < pulls_.size(); ++i) {
      if (near_[i] == 0) continue;
      threshold_.gradient[static_cast<size_t>(step.live.latents[i])] += pulls_[i] * threshold_.unit;
    }
  }

  void save(SaeConfig& config, SaeWeights& weights) override {
    config.kind = SaeKind::kJumpRelu;
    weights.threshold = threshold_.value.clone();
    float* theta = weights.threshold.as<float>();
    for (int64_t j = 0; j < config.d_sae; ++j) theta[j] = std::max(theta[j], 0.0f);
  }

 private:
  float width() const { return static_cast<float>(options_.bandwidth) * unit_.value.as<float>()[0]; }

  SaeTrainOptions options_;
  KindVector threshold_, unit_;
  std::vector<float> cut_;    // [d_sae] lower edge of the rectangle
  std::vector<int8_t> near_;  // by entry: inside the rectangle
  std::vector<float> pulls_;  // by entry: d loss / d threshold
};

}  // namespace

std::unique_ptr<TrainingKind> make_jump_relu(const SaeTrainOptions& options) {
  return std::make_unique<JumpRelu>(options);
}

}  // namespace saif
