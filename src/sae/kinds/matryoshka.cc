// Bussmann et al. 2025 (arXiv 2503.17547): every prefix of the latents reconstructs on its own. With prefixes of m_1 <
// ... < m_P = d_sae latents of one selection of activations,
//   L = 1/P sum_p |sum_{j < m_p} a_j W_dec[j] + b_dec - y|^2 / (B s^2)
// A latent's gradients meet the sum of the residuals of all prefixes that hold it.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/parallel.h"
#include "sae/kinds/kind.h"

namespace saif {
namespace {

constexpr int64_t kRowsPerTask = 16;

class Matryoshka final : public TrainingKind {
 public:
  Matryoshka(std::vector<int64_t> ends, std::unique_ptr<TrainingKind> selection)
      : ends_(std::move(ends)), selection_(std::move(selection)) {}

  void start(const KindStart& start, std::span<float> b_enc) override { selection_->start(start, b_enc); }
  std::vector<KindVector*> vectors() override { return selection_->vectors(); }
  void select(Mat<const float> h, Backend& backend, SparseEntries& live) override {
    selection_->select(h, backend, live);
  }
  bool settle(SparseEntries& live, int64_t rows) override { return selection_->settle(live, rows); }
  void save(SaeConfig& config, SaeWeights& weights) override { selection_->save(config, weights); }

  double reconstruct(TrainStep& step, double& extra) override {
    const int64_t n = step.rows, cols = step.residual.cols();
    const auto prefixes = static_cast<int64_t>(ends_.size());
    if (sums_.empty() || sums_.shape() != std::vector<int64_t>{prefixes * n, cols}) {
      sums_ = Tensor(DType::kF32, {prefixes * n, cols});
    }
    step.live.gradients.resize(step.live.latents.size());
    std::vector<double> squared(static_cast<size_t>(n)), shorter(static_cast<size_t>(n));
    parallel_for(n, kRowsPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        row(step, r, squared[static_cast<size_t>(r)], shorter[static_cast<size_t>(r)]);
    });
    const double whole = std::accumulate(squared.begin(), squared.end(), 0.0);
    // The trainer counts the whole reconstruction once; here it weighs 1/P.
    extra += ((std::accumulate(shorter.begin(), shorter.end(), 0.0) + whole) / static_cast<double>(prefixes) - whole) /
             step.unit;
    step.outer = sums_.f32().rows_range(0, n);
    step.decoder_rows = sums_.f32();
    step.prefix_ends = ends_;
    return whole;
  }

 private:
  // Residuals of the row's prefixes, summed from the last to each; gradients of its entries.
  void row(TrainStep& step, int64_t r, double& squared, double& shorter) {
    const int64_t n = step.rows, cols = step.residual.cols();
    const auto prefixes = static_cast<int64_t>(ends_.size());
    SparseEntries& live = step.live;
    const float share = step.factor / static_cast<float>(prefixes);
    float* out = step.residual.row(r);  // grows from prefix to prefix
    if (!step.has_skip) std::fill_n(out, cols, 0.0f);
    add_scaled(out, step.b_dec, 1.0f, cols);
    std::vector<int64_t> ends(static_cast<size_t>(prefixes));
    int64_t at = live.offsets[static_cast<size_t>(r)];
    const int64_t first = at, last = live.offsets[static_cast<size_t>(r) + 1];
    for (int64_t p = 0; p < prefixes; ++p) {
      const int64_t begin = at;
      while (at < last && live.latents[static_cast<size_t>(at)] < ends_[static_cast<size_t>(p)]) ++at;
      gather(out, step.w_dec, {live.latents.data() + begin, static_cast<size_t>(at - begin)},
             live.values.data() + begin);
      ends[static_cast<size_t>(p)] = at;
      float* residual = sums_.f32().row(p * n + r);
      std::copy_n(out, cols, residual);
      subtract_scale(residual, step.target.row(r), 1.0f, cols);
      const double error = dot(residual, residual, cols);
      (p + 1 == prefixes ? squared : shorter) += error;
      scale_row(residual, share, cols);
    }
    subtract_scale(out, step.target.row(r), step.factor, cols);
    for (int64_t p = prefixes - 2; p >= 0; --p) {
      add_scaled(sums_.f32().row(p * n + r), sums_.f32().row((p + 1) * n + r), 1.0f, cols);
    }
    for (int64_t i = first, p = 0; i < last; ++i) {
      while (i >= ends[static_cast<size_t>(p)]) ++p;
      const float* dictionary = step.w_dec.row(live.latents[static_cast<size_t>(i)]);
      live.gradients[static_cast<size_t>(i)] = dot(sums_.f32().row(p * n + r), dictionary, cols);
    }
  }

  std::vector<int64_t> ends_;  // [P] latents of each prefix
  std::unique_ptr<TrainingKind> selection_;
  Tensor sums_;  // [P B, d_out]: block p holds the sum of the residuals of prefixes p, p + 1, ...
};

}  // namespace

std::unique_ptr<TrainingKind> make_matryoshka(const SaeTrainOptions& options, std::unique_ptr<TrainingKind> selection) {
  std::vector<int64_t> ends;
  for (const double share : options.prefixes) {
    const auto end = std::max<int64_t>(1, std::llround(share * static_cast<double>(options.d_sae)));
    if (end < options.d_sae && (ends.empty() || end > ends.back())) ends.push_back(end);
  }
  ends.push_back(options.d_sae);
  return std::make_unique<Matryoshka>(std::move(ends), std::move(selection));
}

}  // namespace saif
