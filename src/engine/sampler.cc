#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/rng.h"

namespace saif {
namespace {

constexpr size_t kBlock = 64;  // logits summarised by one maximum

void require(bool good, const std::string& who, const char* field, double found, const char* expected) {
  if (good) return;
  throw Error(Errc::kInvalidArgument, who + ": " + field + " is " + std::to_string(found) + ", must be " + expected);
}

// NaN is passed over; -infinity when nothing else is there. Sixteen maxima at a time, which no step waits for.
float maximum(const float* x, size_t n) {
  constexpr size_t kLanes = 16;
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, -std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] = lanes[j] < x[i + j] ? x[i + j] : lanes[j];
  }
  for (; i < n; ++i) lanes[0] = std::max(lanes[0], x[i]);
  return *std::max_element(lanes, lanes + kLanes);
}

// exp(x) for x <= 0 to a relative error of 2e-7; 0 below -87. Branch-free, so that loops over it become vector code.
inline float exp_of(float x) {
  const float t = std::max(x, -87.0F) * 1.44269504F;
  const float whole = static_cast<float>(static_cast<int32_t>(t - 0.5F));
  const float f = (t - whole) * 0.693147181F;
  float p = 1.0F / 720.0F;
  p = p * f + 1.0F / 120.0F;
  p = p * f + 1.0F / 24.0F;
  p = p * f + 1.0F / 6.0F;
  p = p * f + 0.5F;
  p = p * f + 1.0F;
  p = p * f + 1.0F;
  const int32_t bits = (static_cast<int32_t>(whole) + 127) << 23;
  return x < -87.0F ? 0.0F : p * std::bit_cast<float>(bits);
}

// Sum over a block, in a fixed order.
float sum_exp(const float* x, size_t n, float max, float inverse_temperature) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (size_t i = 0; i < n; ++i) sum += exp_of((x[i] - max) * inverse_temperature);
  return sum;
}

size_t blocks_of(size_t n) { return (n + kBlock - 1) / kBlock; }

}  // namespace

void check_sampling(const SamplingOptions& o, const std::string& who) {
  require(o.temperature >= 0 && std::isfinite(o.temperature), who, "temperature", o.temperature, "0 (greedy) or more");
  require(o.top_k >= 0, who, "top_k", o.top_k, "0 (off) or more");
  require(o.top_p > 0 && o.top_p <= 1, who, "top_p", o.top_p, "above 0 and at most 1 (off)");
  require(o.min_p >= 0 && o.min_p <= 1, who, "min_p", o.min_p, "from 0 (off) to 1");
  require(o.repetition_penalty > 0 && std::isfinite(o.repetition_penalty), who, "repetition_penalty",
          o.repetition_penalty, "above 0 (1 is off)");
}

Sampler::Sampler(const SamplingOptions& options, uint64_t stream, int n_logprobs)
    : options_(options), stream_(stream), n_logprobs_(n_logprobs) {}

int32_t Sampler::choose(std::span<float> logits) {
  summarise(logits);
  if (!std::isfinite(max_)) return -1;
  if (n_logprobs_ > 0) note_logprobs(logits);
  if (options_.repetition_penalty != 1.0 && !seen_.empty()) {
    penalise(logits);
  }
  const int32_t id = options_.temperature > 0 ? draw(logits) : best(logits);
  const auto known = std::lower_bound(seen_.begin(), seen_.end(), id);
  const bool is_known = known != seen_.end() && *known == id;
  if (n_logprobs_ > 0) {
    const bool changed = is_known && options_.repetition_penalty != 1.0;
    const float raw = changed ? raw_[static_cast<size_t>(known - seen_.begin())] : logits[static_cast<size_t>(id)];
    logprobs_.chosen = static_cast<float>(static_cast<double>(raw) - raw_log_sum_);
  }
  if (!is_known) seen_.insert(known, id);
  ++n_chosen_;
  return id;
}

void Sampler::summarise(std::span<const float> logits) {
  has_mass_ = false;
  block_max_.resize(blocks_of(logits.size()));
  for (size_t b = 0; b < block_max_.size(); ++b) summarise_block(logits, b);
  max_ = maximum(block_max_.data(), block_max_.size());
}

void Sampler::summarise_block(std::span<const float> logits, size_t b) {
  block_max_[b] = maximum(logits.data() + b * kBlock, std::min(kBlock, logits.size() - b * kBlock));
}

// seen_ ascends, so that its tokens of a block follow each other.
void Sampler::penalise(std::span<float> logits) {
  const auto penalty = static_cast<float>(options_.repetition_penalty);
  raw_.clear();
  for (const int32_t id : seen_) {
    float& logit = logits[static_cast<size_t>(id)];
    raw_.push_back(logit);
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
  has_mass_ = false;
  size_t done = block_max_.size();
  for (const int32_t id : seen_) {
    const size_t b = static_cast<size_t>(id) / kBlock;
    if (b != done) summarise_block(logits, b);
    done = b;
  }
  max_ = maximum(block_max_.data(), block_max_.size());
}

int32_t Sampler::best(std::span<const float> logits) const {
  const auto block = static_cast<size_t>(std::find(block_max_.begin(), block_max_.end(), max_) - block_max_.begin());
  const auto first = logits.begin() + static_cast<int64_t>(block * kBlock);
  return static_cast<int32_t>(std::find(first, logits.end(), max_) - logits.begin());
}

void Sampler::collect(std::span<const float> logits, float threshold) {
  candidates_.clear();
  for (size_t b = 0; b < block_max_.size(); ++b) {
    if (!(block_max_[b] > threshold)) continue;
    const size_t end = std::min(logits.size(), (b + 1) * kBlock);
    for (size_t i = b * kBlock; i < end; ++i)
      if (logits[i] > threshold) candidates_.push_back({logits[i], static_cast<int32_t>(i)});
  }
}

double Sampler::mass(std::span<const float> logits) {
  const auto scale = static_cast<float>(1.0 / options_.temperature);
  if (has_mass_) return mass_;
  block_mass_.resize(block_max_.size());
  double total = 0;
  for (size_t b = 0; b < block_max_.size(); ++b) {
    const size_t n = std::min(kBlock, logits.size() - b * kBlock);
    block_mass_[b] = static_cast<double>(sum_exp(logits.data() + b * kBlock, n, max_, scale));
    total += block_mass_[b];
  }
  has_mass_ = true;
  return mass_ = total;
}

int32_t Sampler::draw(std::span<const float> logits) {
  Rng rng(static_cast<uint64_t>(options_.seed), stream_);
  rng.seek(n_chosen_);
  const double u = rng.uniform();
  const bool whole = options_.top_k == 0 && options_.top_p >= 1.0 && options_.min_p <= 0.0;
  return whole ? draw_from_all(logits, u) : draw_from_head(logits, u);
}

int32_t Sampler::draw_from_all(std::span<const float> logits, double u) {
  const auto scale = static_cast<float>(1.0 / options_.temperature);
  double left = u * mass(logits);
  size_t block = 0;
  while (block + 1 < block_mass_.size() && left >= block_mass_[block]) left -= block_mass_[block++];
  int32_t last = -1;  // likeliest to be hit when rounding leaves a rest
  for (size_t i = block * kBlock; i < std::min(logits.size(), (block + 1) * kBlock); ++i) {
    const double p = static_cast<double>(exp_of((logits[i] - max_) * scale));
    if (p <= 0) continue;
    last = static_cast<int32_t>(i);
    if (left < p) return last;
    left -= p;
  }
  return last >= 0 ? last : best(logits);
}

// Lowers the threshold until the candidates hold what the filters can keep, then sorts them.
void Sampler::collect_head(std::span<const float> logits, size_t k) {
  const double floor_p = options_.min_p > 0 ? options_.temperature * std::log(options_.min_p) : -HUGE_VAL;
  // Mass that is enough: top-p of everything, unless top-k shrinks what top-p looks at.
  const double enough = k > 0 || options_.top_p >= 1.0 ? HUGE_VAL : options_.top_p * mass(logits);
  for (double depth = 4 * options_.temperature;; depth *= 2) {
    const bool all = depth > 1e4 * std::max(1.0, options_.temperature);
    const float threshold = all ? -std::numeric_limits<float>::infinity() : static_cast<float>(max_ - depth);
    collect(logits, threshold);
    double sum = 0;
    if (k == 0 && options_.top_p < 1.0)
      for (const Candidate& c : candidates_) sum += std::exp((c.logit - max_) / options_.temperature);
    // What min-p drops may be left out unless top-p has to weigh it.
    const bool below_floor = -depth < floor_p && (k == 0 || options_.top_p >= 1.0);
    if (all || (k > 0 && candidates_.size() >= k) || sum > enough || below_floor) break;
  }
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  std::sort(candidates_.begin(), candidates_.end(), better);
  if (k > 0 && candidates_.size() > k) {
    const float kth = candidates_[k - 1].logit;  // those tied with the k-th stay, as in Transformers
    while (candidates_.size() > k && candidates_.back().logit < kth) candidates_.pop_back();
  }
}

// How many of the sorted candidates top-p keeps: those before which less than top_p of the total lies.
size_t Sampler::cut_top_p(double total) const {
  double before = 0;
  size_t n = 0;
  while (n < candidates_.size() && (n == 0 || before < options_.top_p * total))
    before += std::exp((candidates_[n++].logit - max_) / options_.temperature);
  return n;
}

int32_t Sampler::draw_from_head(std::span<const float> logits, double u) {
  const auto k = static_cast<size_t>(std::min<int64_t>(options_.top_k, static_cast<int64_t>(logits.size())));
  collect_head(logits, k);
  const auto weight = [&](const Candidate& c) { return std::exp((c.logit - max_) / options_.temperature); };
  if (options_.top_p < 1.0) {
    double total = 0;
    if (k > 0)
      for (const Candidate& c : candidates_) total += weight(c);
    else
      total = mass(logits);
    candidates_.resize(cut_top_p(total));
  }
  const double least = options_.min_p;
  while (candidates_.size() > 1 && weight(candidates_.back()) < least) candidates_.pop_back();
  double total = 0;
  for (const Candidate& c : candidates_) total += weight(c);
  double left = u * total;
  for (const Candidate& c : candidates_) {
    left -= weight(c);
    if (left < 0) return c.id;
  }
  return candidates_.back().id;
}

void Sampler::note_logprobs(std::span<const float> logits) {
  double sum = 0;
  for (size_t b = 0; b < block_max_.size(); ++b)
    sum += static_cast<double>(
        sum_exp(logits.data() + b * kBlock, std::min(kBlock, logits.size() - b * kBlock), max_, 1.0F));
  raw_log_sum_ = static_cast<double>(max_) + std::log(sum);
  const auto k = std::min(static_cast<size_t>(n_logprobs_), logits.size());
  for (float depth = 8;; depth *= 2) {
    const bool all = depth > 1e4F;
    collect(logits, all ? -std::numeric_limits<float>::infinity() : max_ - depth);
    if (all || candidates_.size() >= k) break;
  }
  const size_t n = std::min(k, candidates_.size());
  std::partial_sort(
      candidates_.begin(), candidates_.begin() + static_cast<int64_t>(n), candidates_.end(),
      [](const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; });
  logprobs_.top.clear();
  for (size_t i = 0; i < n; ++i)
    logprobs_.top.emplace_back(candidates_[i].id,
                               static_cast<float>(static_cast<double>(candidates_[i].logit) - raw_log_sum_));
}

}  // namespace saif
