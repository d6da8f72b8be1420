#include "sae/select.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "base/parallel.h"
#include "tensor/rows.h"

namespace saif {
namespace {

constexpr int64_t kTile = 4096;  // latents: the pre-activations of 512 rows take 8 MB

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

bool ranks_all(const SaeConfig& config) { return config.kind == SaeKind::kTopK && config.keep_negative; }

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

Selector::Selector(const SaeSource& source, const std::vector<float>& decoder_norms, int64_t rows)
    : source_(source), decoder_norms_(decoder_norms), tile_(kTile), rows_(static_cast<size_t>(rows)) {
  const SaeConfig& config = source.config;
  if (config.kind == SaeKind::kGroupMax) {  // whole groups at a time
    const int64_t width = config.d_sae / config.k;
    tile_ = (kTile + width - 1) / width * width;
  }
  if (config.kind != SaeKind::kTopK && config.kind != SaeKind::kAbsTopK) return;
  candidates_.resize(rows_.size());
  const float least = ranks_all(config) ? -std::numeric_limits<float>::infinity() : 0.0f;
  for (Candidates& row : candidates_) row.least = least;
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
  const auto most = static_cast<size_t>(4 * source_.config.k + 64);
  parallel_for(h.rows(), 8, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = h.row(r);
      Selected& out = rows_[static_cast<size_t>(r)];
      Candidates& candidates = candidates_[static_cast<size_t>(r)];
      const auto counts = [&](int64_t c) { return rank(static_cast<size_t>(first + c), row[c]) > candidates.least; };
      visit_where(h.cols(), counts, [&](int64_t c) {
        out.indices.push_back(static_cast<int32_t>(first + c));
        out.values.push_back(row[c]);
        candidates.ranks.push_back(rank(static_cast<size_t>(first + c), row[c]));
        if (out.indices.size() >= most) keep_largest(out, candidates);
      });
    }
  });
}

void Selector::keep_largest(Selected& row, Candidates& candidates) const {
  const auto k = static_cast<size_t>(source_.config.k);
  if (row.indices.size() <= k) return;
  std::vector<size_t> order(row.indices.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto larger = [&](size_t a, size_t b) {  // places are in order of index
    return candidates.ranks[a] != candidates.ranks[b] ? candidates.ranks[a] > candidates.ranks[b] : a < b;
  };
  std::nth_element(order.begin(), order.begin() + static_cast<ptrdiff_t>(k) - 1, order.end(), larger);
  candidates.least = candidates.ranks[order[k - 1]];
  order.resize(k);
  std::sort(order.begin(), order.end());
  for (size_t i = 0; i < k; ++i) {  // order[i] >= i
    row.indices[i] = row.indices[order[i]];
    row.values[i] = row.values[order[i]];
    candidates.ranks[i] = candidates.ranks[order[i]];
  }
  row.indices.resize(k);
  row.values.resize(k);
  candidates.ranks.resize(k);
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
      return add_ranked(h, first, [](size_t, float v) { return v; });
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

std::vector<Selected> Selector::take() {
  for (size_t r = 0; r < candidates_.size(); ++r) keep_largest(rows_[r], candidates_[r]);
  return std::move(rows_);
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
