#include "sae/normalize.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace saif {
namespace {

constexpr double kLayerNormEps = 1e-5;

struct Moments {
  double mean = 0, deviation = 0;  // unbiased
};

Moments moments_of(const float* x, int64_t n) {
  Moments m;
  for (int64_t c = 0; c < n; ++c) m.mean += x[c];
  m.mean /= static_cast<double>(n);
  double sum = 0;
  for (int64_t c = 0; c < n; ++c) sum += (x[c] - m.mean) * (x[c] - m.mean);
  m.deviation = n > 1 ? std::sqrt(sum / static_cast<double>(n - 1)) : 0.0;
  return m;
}

// sqrt(d) / |x|; 0 for a row of zeros, where the libraries give NaN.
double rescale_factor(const float* x, int64_t n) {
  double sum = 0;
  for (int64_t c = 0; c < n; ++c) sum += static_cast<double>(x[c]) * x[c];
  return sum > 0 ? std::sqrt(static_cast<double>(n) / sum) : 0.0;
}

}  // namespace

void normalize_rows(const std::string& kind, Mat<const float> x, Mat<float> out) {
  const int64_t n = x.cols();
  for (int64_t r = 0; r < x.rows(); ++r) {
    const float* in = x.row(r);
    float* y = out.row(r);
    if (kind == "none") {
      std::copy(in, in + n, y);
    } else if (kind == "constant_norm_rescale") {
      const double factor = rescale_factor(in, n);
      for (int64_t c = 0; c < n; ++c) y[c] = static_cast<float>(in[c] * factor);
    } else {
      SAIF_CHECK(kind == "layer_norm", kind);
      const Moments m = moments_of(in, n);
      for (int64_t c = 0; c < n; ++c) y[c] = static_cast<float>((in[c] - m.mean) / (m.deviation + kLayerNormEps));
    }
  }
}

double undo_factor(const std::string& kind, std::span<const float> x) {
  if (kind == "none") return 1;
  const auto n = static_cast<int64_t>(x.size());
  if (kind == "layer_norm") return moments_of(x.data(), n).deviation;
  SAIF_CHECK(kind == "constant_norm_rescale", kind);
  const double factor = rescale_factor(x.data(), n);
  return factor > 0 ? 1 / factor : 0;
}

void undo_normalization(const std::string& kind, Mat<const float> x, Mat<float> y) {
  const int64_t n = y.cols();
  for (int64_t r = 0; r < y.rows(); ++r) {
    float* out = y.row(r);
    if (kind == "constant_norm_rescale") {
      const double factor = rescale_factor(x.row(r), x.cols());
      for (int64_t c = 0; c < n; ++c) out[c] = factor > 0 ? static_cast<float>(out[c] / factor) : 0.0f;
    } else {
      SAIF_CHECK(kind == "layer_norm", kind);
      const Moments m = moments_of(x.row(r), x.cols());
      for (int64_t c = 0; c < n; ++c) out[c] = static_cast<float>(out[c] * m.deviation + m.mean);
    }
  }
}

}  // namespace saif
