// What the files with AVX-512 intrinsics share. They are compiled for the baseline; every function carries its own
// target and runs only on a CPU with it.
#pragma once

#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12: _mm512_undefined_ps in its own header
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/linear.h"

// One target for all, so that everything inlines; only code for bfloat16 products uses the bfloat16 instructions, and
// compilers do not come upon them by themselves.
#define SAIF_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,f16c,fma,avx512bf16")))
// Arrays of vectors live in registers only when every loop over them is unrolled early.
#define SAIF_UNROLL _Pragma("GCC unroll 16")
#define SAIF_INLINE inline __attribute__((always_inline))
#define SAIF_LAMBDA __attribute__((always_inline))

namespace saif::cpu::avx512 {

constexpr int kLanes = 16;
constexpr int kDirectRows = 8;

// The first n of 16 lanes; none where n is negative.
SAIF_AVX512 SAIF_INLINE __mmask16 first_of_16(int64_t n) {
  return static_cast<__mmask16>((1U << std::clamp<int64_t>(n, 0, 16)) - 1);
}

SAIF_AVX512 SAIF_INLINE void store_sums(__m512 sum, const LinearOutput& out, int64_t r, int64_t c) {
  const __mmask16 mask = first_of_16(out.cols - c);
  float* y = out.y + r * out.stride + c;
  if (out.bias != nullptr) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, out.bias + c));
  if (out.accumulate) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), sum);
  _mm512_mask_storeu_ps(y, mask, sum);
}

// 16 rows of 16 words become 16 columns.
SAIF_AVX512 SAIF_INLINE void transpose(__m512i* t) {
  __m512i a[16];
  SAIF_UNROLL
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_epi32(t[i], t[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi32(t[i], t[i + 1]);
  }
  SAIF_UNROLL
  for (int i = 0; i < 16; i += 4) {
    t[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
    t[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
    t[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
    t[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
  SAIF_UNROLL
  for (int i = 0; i < 4; ++i) {
    a[i] = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x88);
    a[i + 4] = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xdd);
    a[i + 8] = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x88);
    a[i + 12] = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xdd);
  }
  SAIF_UNROLL
  for (int i = 0; i < 8; ++i) {
    t[i] = _mm512_shuffle_i32x4(a[i], a[i + 8], 0x88);
    t[i + 8] = _mm512_shuffle_i32x4(a[i], a[i + 8], 0xdd);
  }
}

}  // namespace saif::cpu::avx512
