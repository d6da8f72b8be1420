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

}  // namespace

std::vector<double> rope_frequencies(const RopeSpec& spec, int64_t rotary_dim) {
  std::vector<double> out(static_cast<size_t>(rotary_dim / 2));
  for (size_t i = 0; i < out.size(); ++i) {
    const double frequency = std::pow(spec.theta, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim));
    out[i] = frequency;
    if (spec.scaling == "linear") out[i] = frequency / spec.factor;
    if (spec.scaling == "llama3") out[i] = llama3_frequency(frequency, spec);
    if (!spec.frequency_divisors.empty()) out[i] /= spec.frequency_divisors[i];
  }
  return out;
}

RopeCache::RopeCache(const RopeSpec& spec, int64_t rotary_dim)
    : frequencies_(rope_frequencies(spec, rotary_dim)), rotary_dim_(rotary_dim) {}

RopeTable RopeCache::table(int64_t n_positions) {
  const auto half = static_cast<int64_t>(frequencies_.size());
  if (n_positions > n_positions_) {
    const int64_t wanted = std::max<int64_t>({n_positions, 2 * n_positions_, 256});
    cos_.resize(static_cast<size_t>(wanted * half));
    sin_.resize(static_cast<size_t>(wanted * half));
    for (int64_t p = n_positions_; p < wanted; ++p) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(p) * frequencies_[static_cast<size_t>(i)];
        cos_[static_cast<size_t>(p * half + i)] = static_cast<float>(std::cos(angle));
        sin_[static_cast<size_t>(p * half + i)] = static_cast<float>(std::sin(angle));
      }
    }
    n_positions_ = wanted;
  }
  return {Mat<const float>(cos_.data(), n_positions_, half), Mat<const float>(sin_.data(), n_positions_, half),
          rotary_dim_};
}

}  // namespace saif
