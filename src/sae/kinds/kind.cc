#include "sae/kinds/kind.h"

#include <numeric>

#include "base/parallel.h"

namespace saif {
namespace {

constexpr int64_t kRowsPerTask = 16;

}  // namespace

KindVector make_kind_vector(const std::string& name, int64_t n, float unit) {
  const auto zeros = [&] { return Tensor::zeros(DType::kF32, {n}); };
  KindVector v{name, zeros(), {}, unit, {}};
  if (unit == 0) return v;
  v.moments = {zeros(), zeros()};
  v.gradient.assign(static_cast<size_t>(n), 0.0f);
  return v;
}

double TrainingKind::reconstruct(TrainStep& step, double& extra) {
  (void)extra;
  std::vector<double> squared(static_cast<size_t>(step.rows));
  residual_and_gradients({step.target, step.b_dec, step.w_dec, step.factor, step.residual, squared, step.has_skip},
                         step.live);
  return std::accumulate(squared.begin(), squared.end(), 0.0);
}

double start_rate_of(const SaeTrainOptions& options) {
  return std::min(0.5, 2.0 * static_cast<double>(options.k) / static_cast<double>(options.d_sae));
}

void append_above(Mat<const float> h, std::span<const float> cut, SparseEntries& out) {
  struct Part {
    std::vector<int32_t> latents;
    std::vector<float> values;
    std::vector<int64_t> counts;
  };
  const int64_t tasks = (h.rows() + kRowsPerTask - 1) / kRowsPerTask, n = h.cols();
  std::vector<Part> parts(static_cast<size_t>(tasks));
  parallel_for(tasks, 1, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> latents(static_cast<size_t>(n));
    std::vector<float> values(static_cast<size_t>(n));
    for (int64_t t = begin; t < end; ++t) {
      Part& part = parts[static_cast<size_t>(t)];
      for (int64_t r = t * kRowsPerTask; r < std::min(h.rows(), (t + 1) * kRowsPerTask); ++r) {
        const int64_t found = collect_above(h.row(r), cut.data(), n, latents.data(), values.data());
        part.latents.insert(part.latents.end(), latents.begin(), latents.begin() + found);
        part.values.insert(part.values.end(), values.begin(), values.begin() + found);
        part.counts.push_back(found);
      }
    }
  });
  for (const Part& part : parts) {
    out.latents.insert(out.latents.end(), part.latents.begin(), part.latents.end());
    out.values.insert(out.values.end(), part.values.begin(), part.values.end());
    for (const int64_t count : part.counts) out.offsets.push_back(out.offsets.back() + count);
  }
}

std::unique_ptr<TrainingKind> make_training_kind(const SaeTrainOptions& options) {
  if (options.kind == "relu") return make_relu(options);
  if (options.kind == "batchtopk") return make_batch_topk(options);
  if (options.kind == "jumprelu") return make_jump_relu(options);
  if (options.kind == "gated") return make_gated(options);
  if (options.kind == "matryoshka") return make_matryoshka(options, make_batch_topk(options));
  if (options.kind == "matryoshka-topk") return make_matryoshka(options, make_topk(options));
  return make_topk(options);
}

}  // namespace saif
