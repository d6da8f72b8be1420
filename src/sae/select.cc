#include "sae/select.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "base/parallel.h"
#include "tensor/rows.h"

namespace saif {
namespace {

constexpr int64_t kTile = 8192;  // latents: the pre-activations of 512 rows take 8 MB

// Latents are looked at in blocks, most of which hold nothing that counts.
constexpr int64_t kBlock = 32;

template <typename Counts>
bool any_of_block(int64_t begin, const Counts& counts) {
  int hits = 0;
  for (int64_t c = begin; c < begin + kBlock; ++c) hits += counts(c) ? 1 : 0;
  return hits > 0;
}

// visit(c) for every column of which counts(c), in order.
template <typename Counts, typename Visit>
void visit_where(int64_t cols, const Counts& counts, const Visit& visit) {
  for (int64_t begin = 0; begin < cols; begin += kBlock) {
    if (begin + kBlock <= cols && !any_of_block(begin, counts)) continue;
    for (int64_t c = begin; c < std::min(begin + kBlock, cols); ++c) {
      if (counts(c)) visit(c);
    }
  }
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
      const bool close = config.residual_threshold > 0 && norm_of(residual_.row_span(r)) < config.residual_threshold;
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
    const Tensor row = to_f32(row_of(source_.w_dec, latent));
    for (int64_t c = 0; c < residual_.cols(); ++c) residual_(r, c) -= value * row.as<float>()[c];
    const auto [at, inserted] = taken_[static_cast<size_t>(r)].emplace(latent, 0.0f);
    at->second += value;
    return inserted;
  }

  const SaeSource& source_;
  Mat<float> residual_;
  std::vector<std::map<int32_t, float>> taken_;
  std::vector<char> done_;
};

}  // namespace

Selector::Selector(const SaeSource& source, const std::vector<float>& decoder_norms, Backend& backend)
    : source_(source), decoder_norms_(decoder_norms), backend_(backend), tile_(kTile) {
  const SaeConfig& config = source.config;
  if (config.kind == SaeKind::kGroupMax) {  // whole groups at a time
    const int64_t width = config.d_sae / config.k;
    tile_ = (kTile + width - 1) / width * width;
  }
}

void Selector::begin(int64_t rows) {
  n_rows_ = rows;
  const auto n = static_cast<size_t>(rows);
  if (is_ranked()) {
    const bool ranks_all = source_.config.kind == SaeKind::kTopK && source_.config.keep_negative;
    candidates_.resize(std::max(candidates_.size(), n));
    for (TopCandidates& row : candidates_) row.clear(ranks_all ? -std::numeric_limits<float>::infinity() : 0.0f);
  } else {
    rows_.resize(std::max(rows_.size(), n));
    for (Selected& row : rows_) {
      row.indices.clear();
      row.values.clear();
    }
  }
}

std::span<TopCandidates> Selector::candidates_of(Mat<const float> h) {
  return std::span(candidates_).first(static_cast<size_t>(h.rows()));
}

bool Selector::is_ranked() const {
  return source_.config.kind == SaeKind::kTopK || source_.config.kind == SaeKind::kAbsTopK;
}

// counts(j, h) says whether latent j fires (without branches, so that it can be asked for many at once), with value(j,
// h).
template <typename Counts, typename Value>
void Selector::add_where(Mat<const float> h, int64_t first, const Counts& counts, const Value& value) {
  parallel_for(h.rows(), 8, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = h.row(r);
      Selected& out = rows_[static_cast<size_t>(r)];
      visit_where(
          h.cols(), [&](int64_t c) { return counts(static_cast<size_t>(first + c), row[c]); },
          [&](int64_t c) {
            out.indices.push_back(static_cast<int32_t>(first + c));
            out.values.push_back(value(static_cast<size_t>(first + c), row[c]));
          });
    }
  });
}

// The k of largest rank(j, h); ties: the lowest index.
template <typename Rank>
void Selector::add_ranked(Mat<const float> h, int64_t first, const Rank& rank) {
  if (ranks_.elements() < h.rows() * h.cols()) ranks_ = Tensor(DType::kF32, {h.rows() * h.cols()});
  const Mat<float> ranks(ranks_.as<float>(), h.rows(), h.cols());
  parallel_for(h.rows(), 8, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t c = 0; c < h.cols(); ++c) ranks(r, c) = rank(static_cast<size_t>(first + c), h(r, c));
    }
  });
  backend_.find_top(ranks, h, first, source_.config.k, candidates_of(h));
}

void Selector::add_group_maxima(Mat<const float> h, int64_t first) {
  const int64_t width = source_.config.d_sae / source_.config.k;
  parallel_for(h.rows(), 8, [&](int64_t from, int64_t to) {
    for (int64_t r = from; r < to; ++r) {
      for (int64_t g = 0; g + width <= h.cols(); g += width) {
        const float* begin = h.row(r) + g;
        const float* largest = std::max_element(begin, begin + width);
        if (!(*largest > 0.0f)) continue;
        rows_[static_cast<size_t>(r)].indices.push_back(static_cast<int32_t>(first + (largest - h.row(r))));
        rows_[static_cast<size_t>(r)].values.push_back(*largest);
      }
    }
  });
}

void Selector::add(Mat<const float> h, int64_t first) {
  const auto as_it_is = [](size_t, float v) { return v; };
  switch (source_.config.kind) {
    case SaeKind::kTopK:
      // A zero decoder row ranks lowest and, its product being 0, is dropped.
      if (source_.config.rank_by_decoder_norm) {
        return add_ranked(h, first, [&](size_t j, float v) { return v * decoder_norms_[j]; });
      }
      return backend_.find_top(h, h, first, source_.config.k, candidates_of(h));
    case SaeKind::kAbsTopK:
      return add_ranked(h, first, [](size_t, float v) { return std::abs(v); });
    case SaeKind::kGroupMax:
      return add_group_maxima(h, first);
    case SaeKind::kGated: {
      const float *gate = source_.gate_bias.data(), *scale = source_.magnitude_scale.data();
      const float* bias = source_.magnitude_bias.data();
      const auto value = [=](size_t j, float v) { return v * scale[j] + bias[j]; };
      return add_where(
          h, first, [=](size_t j, float v) { return (v + gate[j] > 0.0f) & (value(j, v) > 0.0f); }, value);
    }
    case SaeKind::kJumpRelu: {  // strictly above
      const float* threshold = source_.threshold.data();
      return add_where(
          h, first, [=](size_t j, float v) { return (v > 0.0f) & (v > threshold[j]); }, as_it_is);
    }
    default:
      return add_where(
          h, first, [](size_t, float v) { return v > 0.0f; }, as_it_is);
  }
}

void Selector::finish(SparseLatents& latents) {
  if (!is_ranked()) {
    for (int64_t r = 0; r < n_rows_; ++r) {
      const Selected& row = rows_[static_cast<size_t>(r)];
      append(row.indices, row.values, latents);
    }
    return;
  }
  parallel_for(n_rows_, 64, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) candidates_[static_cast<size_t>(r)].keep(source_.config.k);
  });
  for (int64_t r = 0; r < n_rows_; ++r) {
    const TopCandidates& row = candidates_[static_cast<size_t>(r)];
    append(row.index, row.value, latents);
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

void append(const std::vector<int32_t>& indices, const std::vector<float>& values, SparseLatents& latents) {
  latents.indices.insert(latents.indices.end(), indices.begin(), indices.end());
  latents.values.insert(latents.values.end(), values.begin(), values.end());
  latents.row_offsets.push_back(static_cast<int64_t>(latents.indices.size()));
}

}  // namespace saif
