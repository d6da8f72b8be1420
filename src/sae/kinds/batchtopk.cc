// Bussmann et al. 2024 (arXiv 2412.06410): the B k largest positive pre-activations of a batch of B rows. Saved as
// JumpReLU whose threshold is the mean, over the last steps, of the smallest activation of a batch.
#include <algorithm>
#include <cmath>

#include "sae/kinds/kind.h"

namespace saif {
namespace {

constexpr float kMeanRate = 0.01f;  // of the running mean, as SAELens has it
constexpr float kMeanSteps = 20;    // a short training's mean is over about so many steps
constexpr float kMargin = 0.9f;     // of the last batch's cut: pre-activations below it are not even looked at
constexpr double kGuess = 1.5;      // times as many candidates as needed, of the first rows ever

class BatchTopK final : public TrainingKind {
 public:
  BatchTopK(int64_t k, int64_t d_sae)
      : k_(k), cut_(static_cast<size_t>(d_sae), -1.0f), mean_(make_kind_vector("mean_cut", 1, 0)) {
    mean_.value.as<float>()[0] = -1.0f;
  }

  void start(const KindStart& start, std::span<float> /*b_enc*/) override {
    rate_ = std::clamp(kMeanSteps / static_cast<float>(start.total_steps), kMeanRate, 1.0f);
  }

  std::vector<KindVector*> vectors() override { return {&mean_}; }

  // The cut is a guess that saves work; settle() sees to it that it never changes what is selected.
  void select(Mat<const float> h, Backend& /*backend*/, SparseEntries& live) override {
    if (cut_[0] < 0) guess(h);
    append_above(h, cut_, live);
  }

  bool settle(SparseEntries& live, int64_t rows) override {
    const auto wanted = static_cast<size_t>(rows * k_);
    if (live.latents.size() < wanted && cut_[0] > 0) {
      set_cut(++misses_ < 4 ? cut_[0] * 0.6f : 0.0f);
      return false;
    }
    misses_ = 0;
    if (live.latents.size() > wanted) keep(live, wanted);
    if (live.values.empty()) return true;
    const float least = *std::min_element(live.values.begin(), live.values.end());
    set_cut(least * kMargin);
    float& mean = mean_.value.as<float>()[0];
    mean = mean < 0 ? least : mean + rate_ * (least - mean);
    return true;
  }

  void save(SaeConfig& config, SaeWeights& weights) override {
    config.kind = SaeKind::kJumpRelu;
    weights.threshold = Tensor(DType::kF32, {config.d_sae});
    std::fill_n(weights.threshold.as<float>(), config.d_sae, std::max(0.0f, mean_.value.as<float>()[0]));
  }

 private:
  void set_cut(float cut) { std::fill(cut_.begin(), cut_.end(), cut); }

  void guess(Mat<const float> h) {
    std::vector<float> all;
    all.reserve(static_cast<size_t>(h.rows() * h.cols()));
    for (int64_t r = 0; r < h.rows(); ++r) all.insert(all.end(), h.row(r), h.row(r) + h.cols());
    const auto at = std::min(static_cast<size_t>(kGuess * static_cast<double>(h.rows() * k_)), all.size() - 1);
    const auto place = all.begin() + static_cast<std::ptrdiff_t>(at);
    std::nth_element(all.begin(), place, all.end(), std::greater<>());
    set_cut(std::max(0.0f, *place));
  }

  // Keeps the `wanted` largest; of equal ones the first.
  static void keep(SparseEntries& live, size_t wanted) {
    std::vector<float> sorted = live.values;
    const auto place = sorted.begin() + static_cast<std::ptrdiff_t>(wanted) - 1;
    std::nth_element(sorted.begin(), place, sorted.end(), std::greater<>());
    const float least = *place;
    auto ties = static_cast<int64_t>(wanted) -
                std::count_if(live.values.begin(), live.values.end(), [&](float v) { return v > least; });
    size_t from = 0, to = 0;
    for (size_t r = 0; r + 1 < live.offsets.size(); ++r) {
      for (const auto end = static_cast<size_t>(live.offsets[r + 1]); from < end; ++from) {
        const float v = live.values[from];
        if (v < least || (v == least && ties-- <= 0)) continue;
        live.latents[to] = live.latents[from];
        live.values[to++] = v;
      }
      live.offsets[r + 1] = static_cast<int64_t>(to);
    }
    live.latents.resize(to);
    live.values.resize(to);
  }

  int64_t k_;
  std::vector<float> cut_;  // [d_sae], all equal; below 0: none yet
  int misses_ = 0;
  float rate_ = kMeanRate;
  KindVector mean_;
};

}  // namespace

std::unique_ptr<TrainingKind> make_batch_topk(const SaeTrainOptions& options) {
  return std::make_unique<BatchTopK>(options.k, options.d_sae);
}

}  // namespace saif
