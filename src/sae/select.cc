#include "sae/select.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/parallel.h"

namespace saif {
namespace {

void select_top_k(Backend& backend, Mat<const float> h, int64_t k, bool positive_only, std::vector<Selected>& rows) {
  std::vector<int32_t> indices(static_cast<size_t>(h.rows() * k));
  std::vector<float> values(indices.size());
  const Mat<int32_t> index(indices.data(), h.rows(), k);
  const Mat<float> value(values.data(), h.rows(), k);
  backend.top_k(h, k, positive_only, index, value);
  for (int64_t r = 0; r < h.rows(); ++r) {
    const auto used = std::find(index.row(r), index.row(r) + k, -1) - index.row(r);
    rows[static_cast<size_t>(r)] = {{index.row(r), index.row(r) + used}, {value.row(r), value.row(r) + used}};
  }
}

// Ranked by h |decoder row|, valued h. A zero decoder row ranks lowest and, its product being 0, is dropped.
void select_ranked(Backend& backend, Mat<const float> h, int64_t k, const std::vector<float>& norms,
                   std::vector<Selected>& rows) {
  Tensor ranked(DType::kF32, {h.rows(), h.cols()});
  const Mat<float> product = ranked.f32();
  for (int64_t r = 0; r < h.rows(); ++r) {
    for (int64_t c = 0; c < h.cols(); ++c) product(r, c) = h(r, c) * norms[static_cast<size_t>(c)];
  }
  select_top_k(backend, product, k, true, rows);
  for (int64_t r = 0; r < h.rows(); ++r) {
    Selected& row = rows[static_cast<size_t>(r)];
    for (size_t i = 0; i < row.indices.size(); ++i) row.values[i] = h(r, row.indices[i]);
  }
}

void select_by_magnitude(Backend& backend, Mat<const float> h, int64_t k, std::vector<Selected>& rows) {
  Tensor magnitude(DType::kF32, {h.rows(), h.cols()});
  const Mat<float> m = magnitude.f32();
  for (int64_t r = 0; r < h.rows(); ++r) {
    for (int64_t c = 0; c < h.cols(); ++c) m(r, c) = std::abs(h(r, c));
  }
  select_top_k(backend, m, k, true, rows);
  for (int64_t r = 0; r < h.rows(); ++r) {
    Selected& row = rows[static_cast<size_t>(r)];
    for (size_t i = 0; i < row.indices.size(); ++i) row.values[i] = h(r, row.indices[i]);
  }
}

void select_group_maxima(Mat<const float> h, int64_t groups, std::vector<Selected>& rows) {
  const int64_t width = h.cols() / groups;
  for (int64_t r = 0; r < h.rows(); ++r) {
    for (int64_t g = 0; g < groups; ++g) {
      const float* begin = h.row(r) + g * width;
      const float* largest = std::max_element(begin, begin + width);
      if (!(*largest > 0.0f)) continue;
      rows[static_cast<size_t>(r)].indices.push_back(static_cast<int32_t>(largest - h.row(r)));
      rows[static_cast<size_t>(r)].values.push_back(*largest);
    }
  }
}

// Calls active(j, h, value) for every latent of every row; it says whether the latent fires and may change the value.
template <typename Active>
void select_where(Mat<const float> h, std::vector<Selected>& rows, const Active& active) {
  parallel_for(h.rows(), 8, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = h.row(r);
      Selected& out = rows[static_cast<size_t>(r)];
      for (int64_t j = 0; j < h.cols(); ++j) {
        float value = row[j];
        if (!active(static_cast<size_t>(j), value)) continue;
        out.indices.push_back(static_cast<int32_t>(j));
        out.values.push_back(value);
      }
    }
  });
}

// The row of the dictionary that fits each residual best is taken off it. Returns whether a row goes on.
class Pursuit {
 public:
  Pursuit(const SaeSource& source, Mat<float> residual)
      : source_(source), residual_(residual), taken_(static_cast<size_t>(residual.rows())), done_(taken_.size(), 0) {}

  bool all_done() const {
    return std::all_of(done_.begin(), done_.end(), [](char done) { return done != 0; });
  }

  // h: the residuals' products with all rows.
  void step(Mat<const float> h) {
    const SaeConfig& config = source_.config;
    for (int64_t r = 0; r < h.rows(); ++r) {
      const auto i = static_cast<size_t>(r);
      if (done_[i] != 0) continue;
      const auto best = std::max_element(h.row(r), h.row(r) + h.cols()) - h.row(r);
      const float value = h(r, best);
      const bool grown = value > 0.0f && take(r, static_cast<int32_t>(best), value);
      const bool close = config.residual_threshold > 0 && norm(r) < config.residual_threshold;
      // Without a positive product every further step would be the same one.
      if ((config.stop_on_duplicate_support && !grown) || close || !(value > 0.0f)) done_[i] = 1;
    }
  }

  void finish(std::vector<Selected>& rows) const {
    for (size_t r = 0; r < taken_.size(); ++r) {
      for (const auto& [index, value] : taken_[r]) {
        rows[r].indices.push_back(index);
        rows[r].values.push_back(value);
      }
    }
  }

 private:
  // Whether the latent is new to the row.
  bool take(int64_t r, int32_t latent, float value) {
    const TensorView& w = source_.w_dec;
    const size_t row_bytes = static_cast<size_t>(w.shape[1]) * size_of(w.dtype);
    const auto* data = static_cast<const std::byte*>(w.data) + static_cast<size_t>(latent) * row_bytes;
    const Tensor row = to_f32({w.dtype, {w.shape[1]}, data});
    for (int64_t c = 0; c < residual_.cols(); ++c) residual_(r, c) -= value * row.as<float>()[c];
    const auto [at, inserted] = taken_[static_cast<size_t>(r)].emplace(latent, 0.0f);
    at->second += value;
    return inserted;
  }

  double norm(int64_t r) const {
    double sum = 0;
    for (int64_t c = 0; c < residual_.cols(); ++c) sum += static_cast<double>(residual_(r, c)) * residual_(r, c);
    return std::sqrt(sum);
  }

  const SaeSource& source_;
  Mat<float> residual_;
  std::vector<std::map<int32_t, float>> taken_;
  std::vector<char> done_;
};

}  // namespace

void select_latents(const SaeSource& source, const std::vector<float>& decoder_norms, Backend& backend, Mat<float> h,
                    std::vector<Selected>& rows) {
  const SaeConfig& config = source.config;
  switch (config.kind) {
    case SaeKind::kTopK:
      if (config.rank_by_decoder_norm) return select_ranked(backend, h, config.k, decoder_norms, rows);
      return select_top_k(backend, h, config.k, !config.keep_negative, rows);
    case SaeKind::kAbsTopK:
      return select_by_magnitude(backend, h, config.k, rows);
    case SaeKind::kGroupMax:
      return select_group_maxima(h, config.k, rows);
    case SaeKind::kGated:
      return select_where(h, rows, [&](size_t j, float& value) {
        const bool open = value + source.gate_bias[j] > 0.0f;
        value = value * source.magnitude_scale[j] + source.magnitude_bias[j];
        return open && value > 0.0f;
      });
    case SaeKind::kJumpRelu:  // strictly above
      return select_where(h, rows, [&](size_t j, float& v) { return v > 0.0f && v > source.threshold[j]; });
    default:
      return select_where(h, rows, [](size_t, float& value) { return value > 0.0f; });
  }
}

void pursue(const SaeSource& source, Backend& backend, Mat<float> residual, Mat<float> h, std::vector<Selected>& rows) {
  const SaeConfig& config = source.config;
  Pursuit pursuit(source, residual);
  const WeightView dictionary{source.w_dec.data, source.w_dec.dtype, config.d_sae, config.d_in};
  for (int64_t i = 0; i < config.max_iterations && !pursuit.all_done(); ++i) {
    const LinearPart part{dictionary, nullptr, h, false};
    backend.linear(residual, {&part, 1}, Compute::kF32);
    pursuit.step(h);
  }
  pursuit.finish(rows);
}

void append(const std::vector<Selected>& rows, SparseLatents& latents) {
  for (const Selected& row : rows) {
    latents.indices.insert(latents.indices.end(), row.indices.begin(), row.indices.end());
    latents.values.insert(latents.values.end(), row.values.begin(), row.values.end());
    latents.row_offsets.push_back(static_cast<int64_t>(latents.indices.size()));
  }
}

}  // namespace saif
