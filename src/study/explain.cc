#include "study/explain.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/rng.h"
#include "tensor/rows.h"

namespace saif {
namespace {

constexpr int kBins = 10;
constexpr int64_t kDecoderRows = 1024;  // read at a time

double cosine(std::span<const float> a, std::span<const float> b) {
  double product = 0;
  for (size_t i = 0; i < a.size(); ++i) product += static_cast<double>(a[i]) * b[i];
  const double norms = norm_of(a) * norm_of(b);
  return norms > 0 ? product / norms : 0.0;
}

double mean_cosine(std::span<const float> row, Mat<const float> words) {
  double sum = 0;
  for (int64_t w = 0; w < words.rows(); ++w) sum += cosine(row, words.row_span(w));
  return sum / static_cast<double>(std::max<int64_t>(1, words.rows()));
}

// Larger value first, then the lower index; at most `count`.
void keep_nearest(std::vector<LatentExplanation::Neighbour>& all, int count) {
  const auto n = static_cast<std::ptrdiff_t>(std::min(all.size(), static_cast<size_t>(std::max(count, 0))));
  std::partial_sort(all.begin(), all.begin() + n, all.end(), [](const auto& a, const auto& b) {
    return a.value != b.value ? a.value > b.value : a.index < b.index;
  });
  all.resize(static_cast<size_t>(n));
}

}  // namespace

LatentWatcher::LatentWatcher(int64_t d_sae, std::span<const int32_t> latents, const ExplainOptions& options)
    : options_(options), fired_(static_cast<size_t>(d_sae), 0) {
  for (const int32_t j : latents) {
    numbers_.emplace(j, watched_.size());
    watched_.push_back({j, {}, std::vector<int64_t>(static_cast<size_t>(d_sae), 0), {}});
  }
}

void LatentWatcher::add(const SparseLatents& latents, std::span<const std::string> tokens, int64_t counted_from) {
  SAIF_CHECK(latents.rows() == static_cast<int64_t>(tokens.size()), "one row a token");
  std::map<size_t, std::vector<float>> activations;  // of the watched latents that fire
  for (int64_t r = 0; r < latents.rows(); ++r) {
    std::vector<int32_t> active;
    for (int64_t e = latents.row_offsets[static_cast<size_t>(r)]; e < latents.row_offsets[static_cast<size_t>(r) + 1];
         ++e) {
      const int32_t j = latents.indices[static_cast<size_t>(e)];
      const float value = latents.values[static_cast<size_t>(e)];
      if (value <= 0) continue;
      active.push_back(j);
      const auto at = numbers_.find(j);
      if (at == numbers_.end()) continue;
      auto& values = activations[at->second];
      values.resize(tokens.size(), 0.0f);
      values[static_cast<size_t>(r)] = value;
    }
    if (r < counted_from) continue;
    ++tokens_;
    for (const int32_t j : active) ++fired_[static_cast<size_t>(j)];
    for (const int32_t j : active) {
      const auto at = numbers_.find(j);
      if (at == numbers_.end()) continue;
      Watched& watched = watched_[at->second];
      watched.values.push_back(activations[at->second][static_cast<size_t>(r)]);
      for (const int32_t other : active) ++watched.together[static_cast<size_t>(other)];
    }
  }
  for (const auto& [number, values] : activations) add_context(watched_[number], values, tokens, counted_from);
}

void LatentWatcher::add_context(Watched& watched, const std::vector<float>& activations,
                                std::span<const std::string> tokens, int64_t counted_from) const {
  const auto first = activations.begin() + std::min<std::ptrdiff_t>(counted_from, std::ssize(activations));
  const auto peak = std::max_element(first, activations.end());
  if (peak == activations.end() || *peak <= 0) return;
  const auto wanted = static_cast<size_t>(std::max(options_.contexts, 0));
  if (watched.contexts.size() >= wanted && (wanted == 0 || watched.contexts.back().first >= *peak)) return;
  const auto at = static_cast<size_t>(peak - activations.begin());
  const auto window = static_cast<size_t>(std::max(options_.window, 0));
  const size_t begin = at > window ? at - window : 0, end = std::min(tokens.size(), at + window + 1);
  LatentExplanation::Context context;
  for (size_t t = begin; t < end; ++t) {
    context.tokens.push_back(tokens[t]);
    context.activations.push_back(activations[t]);
  }
  context.peak = at - begin;
  for (const auto& [value, other] : watched.contexts) {
    if (other.tokens == context.tokens) return;  // the same words from another text
  }
  const auto place = std::find_if(watched.contexts.begin(), watched.contexts.end(),
                                  [&](const auto& other) { return other.first < *peak; });
  watched.contexts.insert(place, {*peak, std::move(context)});
  if (watched.contexts.size() > wanted) watched.contexts.pop_back();
}

LatentExplanation LatentWatcher::explanation(size_t number) const {
  const Watched& watched = watched_.at(number);
  LatentExplanation out;
  out.index = watched.index;
  out.density = {static_cast<int64_t>(watched.values.size()), tokens_};
  for (const float v : watched.values) out.maximum = std::max(out.maximum, static_cast<double>(v));
  for (int b = 0; b < kBins && out.maximum > 0; ++b) {
    out.histogram.push_back({out.maximum * b / kBins, out.maximum * (b + 1) / kBins, 0});
  }
  for (const float v : watched.values) {
    const int bin = static_cast<int>(std::ceil(v / out.maximum * kBins)) - 1;
    ++out.histogram[static_cast<size_t>(std::clamp(bin, 0, kBins - 1))].tokens;
  }
  for (const auto& [peak, context] : watched.contexts) out.contexts.push_back(context);
  for (size_t j = 0; j < fired_.size(); ++j) {
    const int64_t both = watched.together[j];
    if (both == 0 || static_cast<int32_t>(j) == watched.index) continue;
    const int64_t either = out.density.hits + fired_[j] - both;
    out.coactive.push_back({static_cast<int32_t>(j), static_cast<double>(both) / static_cast<double>(either)});
  }
  keep_nearest(out.coactive, options_.neighbours);
  return out;
}

std::vector<std::vector<LatentExplanation::Neighbour>> nearest_by_decoder(const Sae& sae,
                                                                          std::span<const int32_t> latents, int count) {
  std::vector<std::vector<LatentExplanation::Neighbour>> out(latents.size());
  const Tensor own = sae.decoder_rows(latents);
  for (int64_t begin = 0; begin < sae.config().d_sae; begin += kDecoderRows) {
    std::vector<int32_t> indices(static_cast<size_t>(std::min(kDecoderRows, sae.config().d_sae - begin)));
    std::iota(indices.begin(), indices.end(), static_cast<int32_t>(begin));
    const Tensor rows = sae.decoder_rows(indices);
    for (size_t i = 0; i < latents.size(); ++i) {
      for (size_t r = 0; r < indices.size(); ++r) {
        if (indices[r] == latents[i]) continue;
        const double value =
            cosine(own.f32().row_span(static_cast<int64_t>(i)), rows.f32().row_span(static_cast<int64_t>(r)));
        out[i].push_back({indices[r], value});
      }
      keep_nearest(out[i], count);
    }
  }
  return out;
}

Proximity proximity_of(const ProximityInput& in) {
  Proximity out;
  if (in.words.rows() == 0) return out;
  const std::span<const float> row = in.row.row_span(0);
  out.cosine = mean_cosine(row, in.words);
  out.nearest_cosine = -1;
  for (int64_t w = 0; w < in.words.rows(); ++w) {
    const double value = cosine(row, in.words.row_span(w));
    if (value > out.nearest_cosine) {
      out.nearest_cosine = value;
      out.nearest = static_cast<size_t>(w);
    }
  }
  int64_t as_near = 0;
  for (int64_t r = 0; r < in.others.rows(); ++r) as_near += mean_cosine(in.others.row_span(r), in.words) >= out.cosine;
  out.p_latents = static_cast<double>(1 + as_near) / static_cast<double>(1 + in.others.rows());
  std::vector<double> pool;
  for (int64_t v = 0; v < in.pool.rows(); ++v) pool.push_back(cosine(row, in.pool.row_span(v)));
  if (pool.size() < static_cast<size_t>(in.words.rows())) return out;
  as_near = 0;
  Rng rng(in.seed);
  for (int d = 0; d < in.draws; ++d) {
    double sum = 0;
    for (int64_t w = 0; w < in.words.rows(); ++w) {  // without replacement: the drawn ones move to the front
      std::swap(pool[static_cast<size_t>(w)],
                pool[static_cast<size_t>(w) + rng.below(pool.size() - static_cast<size_t>(w))]);
      sum += pool[static_cast<size_t>(w)];
    }
    as_near += sum / static_cast<double>(in.words.rows()) >= out.cosine;
  }
  out.p_words = static_cast<double>(1 + as_near) / static_cast<double>(1 + in.draws);
  return out;
}

}  // namespace saif
