// Gao et al. 2024 (arXiv 2406.04093): the k largest positive pre-activations of each row.
#include "sae/kinds/kind.h"

namespace saif {
namespace {

class TopK final : public TrainingKind {
 public:
  explicit TopK(int64_t k) : k_(k) {}

  void select(Mat<const float> h, Backend& backend, SparseEntries& live) override {
    append_top(h, k_, nullptr, backend, live);
  }

  void save(SaeConfig& config, SaeWeights& /*weights*/) override {
    config.kind = SaeKind::kTopK;
    config.k = k_;
  }

 private:
  int64_t k_;
};

}  // namespace

void append_top(Mat<const float> h, int64_t k, const std::vector<int32_t>* names, Backend& backend,
                SparseEntries& out) {
  std::vector<int32_t> index_data(static_cast<size_t>(h.rows() * k));
  std::vector<float> value_data(index_data.size());
  const Mat<int32_t> index(index_data.data(), h.rows(), k);
  const Mat<float> value(value_data.data(), h.rows(), k);
  backend.top_k(h, k, true, index, value);
  for (int64_t r = 0; r < h.rows(); ++r) {
    for (int64_t i = 0; i < k && index(r, i) >= 0; ++i) {
      out.latents.push_back(names != nullptr ? (*names)[static_cast<size_t>(index(r, i))] : index(r, i));
      out.values.push_back(value(r, i));
    }
    out.offsets.push_back(static_cast<int64_t>(out.latents.size()));
  }
}

std::unique_ptr<TrainingKind> make_topk(const SaeTrainOptions& options) { return std::make_unique<TopK>(options.k); }

}  // namespace saif
