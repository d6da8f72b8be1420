// Relu with an L1 penalty on activations times decoder norm (Bricken et al. 2023, "Towards Monosemanticity"; the norms
// are one): P = c / B sum_r sum_j a_rj |W_dec[j]| / s.
#include <numeric>

#include "sae/kinds/kind.h"

namespace saif {
namespace {

class Relu final : public TrainingKind {
 public:
  explicit Relu(const SaeTrainOptions& options) : options_(options), zero_(static_cast<size_t>(options.d_sae), 0.0f) {}

  double start_rate() const override { return start_rate_of(options_); }
  float resampled_norm() const override { return 0.2f; }

  void start(const KindStart& start, std::span<float> b_enc) override {
    for (size_t j = 0; j < b_enc.size(); ++j) b_enc[j] -= start.cuts[j];
  }

  void select(Mat<const float> h, Backend& /*backend*/, SparseEntries& live) override { append_above(h, zero_, live); }

  double penalise(TrainStep& step) override {
    const double weight = options_.l1_coefficient * step.warmth / (static_cast<double>(step.rows) * step.scale);
    for (float& g : step.live.gradients) g += static_cast<float>(weight);
    return weight * std::accumulate(step.live.values.begin(), step.live.values.end(), 0.0);
  }

  void save(SaeConfig& config, SaeWeights& /*weights*/) override { config.kind = SaeKind::kStandard; }

 private:
  SaeTrainOptions options_;
  std::vector<float> zero_;
};

}  // namespace

std::unique_ptr<TrainingKind> make_relu(const SaeTrainOptions& options) { return std::make_unique<Relu>(options); }

}  // namespace saif
