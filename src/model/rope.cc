#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"

namespace saif {
namespace {

// Llama 3: long waves are stretched by `factor`, short ones kept, those between blended (Transformers'
// _compute_llama3_parameters).
double llama3_frequency(double frequency, const RopeSpec& spec) {
  const double wavelength = 2 * std::numbers::pi / frequency;
  const auto context = static_cast<double>(spec.original_context);
  if (wavelength > context / spec.low_freq_factor) return frequency / spec.factor;
  if (wavelength < context / spec.high_freq_factor) return frequency;
  const double smooth = (context / wavelength - spec.low_freq_factor) / (spec.high_freq_factor - spec.low_freq_factor);
  return (1 - smooth) * frequency / spec.factor + smooth * frequency;
}

// YaRN (Peng et al. 2023, arXiv 2309.00071; Transformers' _compute_yarn_parameters): pairs that turn often within the
// original context keep their frequency, slow ones are stretched, those between blended by a linear ramp over pairs.
class YarnRamp {
 public:
  explicit YarnRamp(const RopeSpec& spec) : spec_(spec) {
    low_ = pair_of(spec.beta_fast);
    high_ = pair_of(spec.beta_slow);
    if (spec.truncate) {
      low_ = std::floor(low_);
      high_ = std::ceil(high_);
    }
    low_ = std::max(low_, 0.0);
    high_ = std::min(high_, static_cast<double>(spec.rotary_dim) - 1);
    if (low_ == high_) high_ += 0.001;
  }
  double frequency(double plain, size_t pair) const {
    const double kept = 1 - std::clamp((static_cast<double>(pair) - low_) / (high_ - low_), 0.0, 1.0);
    return plain / spec_.factor * (1 - kept) + plain * kept;
  }

 private:
  // The pair that turns so many times within the original context.
  double pair_of(double rotations) const {
    const auto context = static_cast<double>(spec_.original_context), dim = static_cast<double>(spec_.rotary_dim);
    return dim * std::log(context / (rotations * 2 * std::numbers::pi)) / (2 * std::log(spec_.theta));
  }
  const RopeSpec& spec_;
  double low_, high_;
};

}  // namespace

std::vector<double> rope_frequencies(const RopeSpec& spec, bool is_long) {
  std::vector<double> out(static_cast<size_t>(spec.rotary_dim / 2));
  const std::vector<float>& divisors =
      is_long && !spec.long_divisors.empty() ? spec.long_divisors : spec.frequency_divisors;
  for (size_t i = 0; i < out.size(); ++i) {
    const double frequency = std::pow(spec.theta, -2.0 * static_cast<double>(i) / static_cast<double>(spec.rotary_dim));
    out[i] = frequency;
    if (spec.scaling == "linear") out[i] = frequency / spec.factor;
    if (spec.scaling == "llama3") out[i] = llama3_frequency(frequency, spec);
    if (spec.scaling == "yarn") out[i] = YarnRamp(spec).frequency(frequency, i);
    if (!divisors.empty()) out[i] /= divisors[i];
  }
  return out;
}

RopeCache::RopeCache(const RopeSpec& spec)
    : frequencies_{rope_frequencies(spec)}, attention_factor_(spec.attention_factor), rotary_dim_(spec.rotary_dim) {
  if (!spec.long_divisors.empty()) frequencies_.push_back(rope_frequencies(spec, true));
}

RopeTable RopeCache::table(int64_t n_positions) {
  const int64_t half = rotary_dim_ / 2, kinds = static_cast<int64_t>(frequencies_.size());
  if (n_positions > n_positions_) {
    const int64_t wanted = std::max<int64_t>({n_positions, 2 * n_positions_, 256});
    cos_.resize(static_cast<size_t>(wanted * kinds * half));
    sin_.resize(static_cast<size_t>(wanted * kinds * half));
    for (int64_t row = n_positions_ * kinds; row < wanted * kinds; ++row) {
      const std::vector<double>& frequencies = frequencies_[static_cast<size_t>(row % kinds)];
      const int64_t position = row / kinds;
      for (int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(position) * frequencies[static_cast<size_t>(i)];
        cos_[static_cast<size_t>(row * half + i)] = static_cast<float>(std::cos(angle) * attention_factor_);
        sin_[static_cast<size_t>(row * half + i)] = static_cast<float>(std::sin(angle) * attention_factor_);
      }
    }
    n_positions_ = wanted;
  }
  const int64_t rows = n_positions_ * kinds;
  return {Mat<const float>(cos_.data(), rows, half), Mat<const float>(sin_.data(), rows, half), rotary_dim_};
}

}  // namespace saif
