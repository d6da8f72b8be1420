#include "sae/row_math.h"

#include <cmath>

// Sanitizers cannot run the chooser, clang-tidy does not need it.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define SAIF_CLONES __attribute__((target_clones("avx512f", "avx2,fma", "default"), optimize("no-math-errno")))
#else
#define SAIF_CLONES
#endif

namespace saif {
namespace {

constexpr int64_t kScan = 32;  // columns that are dismissed together when none is above its cut

// Four rows at once: y passes through the registers a quarter as often.
SAIF_CLONES void add_scaled4(float* y, const float* const* x, const float* a, int64_t n) {
  const float *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
  const float a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3];
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = ((((y[i] + a0 * x0[i]) + a1 * x1[i]) + a2 * x2[i]) + a3 * x3[i]);
}

}  // namespace

SAIF_CLONES void add_scaled(float* y, const float* x, float a, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

SAIF_CLONES float dot(const float* x, const float* y, int64_t n) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

SAIF_CLONES void subtract_scale(float* y, const float* x, float factor, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = (y[i] - x[i]) * factor;
}

SAIF_CLONES void scale_row(float* y, float factor, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] *= factor;
}

SAIF_CLONES void adam(float* w, const float* g, float* m, float* v, const AdamStep& s, int64_t n) {
  const float b1 = s.beta1, b2 = s.beta2, c1 = 1.0f - s.beta1, c2 = 1.0f - s.beta2, eps = s.eps;
  const float rate = s.rate / s.correction1, root = 1.0f / std::sqrt(s.correction2);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    m[i] = b1 * m[i] + c1 * g[i];
    v[i] = b2 * v[i] + c2 * g[i] * g[i];
    w[i] -= rate * m[i] / (__builtin_sqrtf(v[i]) * root + eps);
  }
}

SAIF_CLONES void round_bf16(const float* x, uint16_t* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits = 0;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    y[i] = static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
  }
}

SAIF_CLONES int64_t first_not_finite(const float* x, int64_t n) {
  constexpr uint32_t kExponent = 0x7f800000U;
  const auto bad = [x](int64_t i) {
    uint32_t bits = 0;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    return (bits & kExponent) == kExponent;
  };
  int32_t any = 0;
#pragma omp simd reduction(| : any)
  for (int64_t i = 0; i < n; ++i) any |= bad(i) ? 1 : 0;
  for (int64_t i = 0; any != 0 && i < n; ++i) {
    if (bad(i)) return i;
  }
  return -1;
}

SAIF_CLONES int64_t collect_above(const float* h, const float* cut, int64_t n, int32_t* index, float* value) {
  int64_t found = 0;
  for (int64_t begin = 0; begin < n; begin += kScan) {
    const int64_t end = begin + kScan < n ? begin + kScan : n;
    int32_t any = 0;
#pragma omp simd reduction(| : any)
    for (int64_t c = begin; c < end; ++c) any |= h[c] > cut[c] ? 1 : 0;
    if (any == 0) continue;
    for (int64_t c = begin; c < end; ++c) {
      index[found] = static_cast<int32_t>(c);
      value[found] = h[c];
      found += h[c] > cut[c] ? 1 : 0;
    }
  }
  return found;
}

void gather(float* y, Mat<const float> rows, std::span<const int32_t> index, const float* a) {
  const int64_t n = rows.cols();
  size_t i = 0;
  for (; i + 4 <= index.size(); i += 4) {
    const float* x[4] = {rows.row(index[i]), rows.row(index[i + 1]), rows.row(index[i + 2]), rows.row(index[i + 3])};
    add_scaled4(y, x, a + i, n);
  }
  for (; i < index.size(); ++i) add_scaled(y, rows.row(index[i]), a[i], n);
}

}  // namespace saif
