// Products on AVX-512, in intrinsics: Highway 1.0 has no target with the bfloat16 dot product.
#include "kernels/cpu/linear.h"

#if defined(__x86_64__)

#include <algorithm>

#include "kernels/cpu/avx512-inl.h"
#include "kernels/cpu/blocks_avx512.h"

namespace saif::cpu {

namespace {

using avx512::first_of_16;
using avx512::kDirectRows;
using avx512::kLanes;
using avx512::store_sums;
using avx512::transpose;
constexpr int kPanels = 3;
constexpr int kRows = 8;  // rows x panels = 24 accumulators of the 32 registers

// --- operands: BF16 pairs by vdpbf16ps, or float32 by fma

template <typename T>
SAIF_AVX512 SAIF_INLINE const T* at(const WeightTile& w, int64_t row, int64_t input) {
  return static_cast<const T*>(w.data) + row * w.in + input;
}

SAIF_AVX512 SAIF_INLINE __m512 widen_bf16(__m256i v) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}

// float32 rounded to the nearest bfloat16, ties to even; NaN stays NaN.
SAIF_AVX512 SAIF_INLINE __m512 round_bf16(__m512 v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  up = _mm512_mask_or_epi32(up, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), bits, _mm512_set1_epi32(0x400000));
  return _mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(static_cast<int>(0xffff0000U))));
}

// n valid elements of 16, as float32
template <DType kType>
SAIF_AVX512 SAIF_INLINE __m512 load_f32(const WeightTile& w, int64_t row, int64_t input, int64_t n) {
  const __mmask16 mask = first_of_16(n);
  if constexpr (kType == DType::kF32) return _mm512_maskz_loadu_ps(mask, at<float>(w, row, input));
  const __m256i half = _mm256_maskz_loadu_epi16(mask, at<uint16_t>(w, row, input));
  if constexpr (kType == DType::kBf16) return widen_bf16(half);
  return _mm512_cvtph_ps(half);
}

template <bool kRound>
struct F32Op {
  static constexpr int64_t kInputs = 1;
  SAIF_AVX512 static SAIF_INLINE __m512 multiply(__m512 sum, __m512i x, __m512i w) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(w), sum);
  }
  template <DType kType>
  SAIF_AVX512 static SAIF_INLINE __m512i load(const WeightTile& w, int64_t row, int64_t input, int64_t n) {
    const __m512 v = load_f32<kType>(w, row, input, n);
    return _mm512_castps_si512(kRound && kType != DType::kBf16 ? round_bf16(v) : v);
  }
};

struct Bf16Op {
  static constexpr int64_t kInputs = 2;
  SAIF_AVX512 static SAIF_INLINE __m512 multiply(__m512 sum, __m512i x, __m512i w) {
    return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)w);
  }
  template <DType kType>
  SAIF_AVX512 static SAIF_INLINE __m512i load(const WeightTile& w, int64_t row, int64_t input, int64_t n) {
    if constexpr (kType == DType::kBf16) {
      const __mmask32 mask = n >= 32 ? 0xffffffffU : (1U << n) - 1;
      return _mm512_maskz_loadu_epi16(mask, at<uint16_t>(w, row, input));
    }
    return (__m512i)_mm512_cvtne2ps_pbh(load_f32<kType>(w, row, input + 16, n - 16), load_f32<kType>(w, row, input, n));
  }
};

// --- 16 outputs x 16 units: rows of the weight become units of the panel

// Column block [unit, unit + 16) of up to 16 rows, transposed; missing rows and inputs are zero.
template <class Op, DType kType>
SAIF_AVX512 SAIF_INLINE void load_block_as(const WeightTile& w, int64_t row, int64_t unit, __m512i* t) {
  const int64_t input = unit * Op::kInputs, n = w.in - input;
  if (w.rows - row >= 16) {
    SAIF_UNROLL
    for (int i = 0; i < 16; ++i) t[i] = Op::template load<kType>(w, row + i, input, n);
  } else {
    SAIF_UNROLL
    for (int i = 0; i < 16; ++i) {
      t[i] = row + i < w.rows ? Op::template load<kType>(w, row + i, input, n) : _mm512_setzero_si512();
    }
  }
  transpose(t);
}

template <class Op>
SAIF_AVX512 SAIF_INLINE void load_block(const WeightTile& w, int64_t row, int64_t unit, __m512i* t) {
  switch (w.dtype) {
    case DType::kBf16:
      return load_block_as<Op, DType::kBf16>(w, row, unit, t);
    case DType::kF16:
      return load_block_as<Op, DType::kF16>(w, row, unit, t);
    default:
      return load_block_as<Op, DType::kF32>(w, row, unit, t);
  }
}

// --- many rows

template <class Op>
SAIF_AVX512 void pack(const WeightTile& w, int64_t n_units, uint32_t* packed) {
  const int64_t panels = (w.rows + kLanes - 1) / kLanes;
  for (int64_t p = 0; p < panels; ++p) {
    for (int64_t u = 0; u < n_units; u += kUnitBlock) {
      __m512i t[16];
      load_block<Op>(w, p * kLanes, u, t);
      SAIF_UNROLL
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(packed + ((u + i) * panels + p) * kLanes, t[i]);
    }
  }
}

template <class Op, int kM, int kN>
SAIF_AVX512 void multiply_tile(const UnitRows& x, int64_t row, const uint32_t* packed, const LinearOutput& out,
                               const Ahead& ahead) {
  __m512 sums[kM][kN];
  SAIF_UNROLL
  for (int r = 0; r < kM; ++r) {
    SAIF_UNROLL
    for (int p = 0; p < kN; ++p) sums[r][p] = _mm512_setzero_ps();
  }
  const uint32_t* rows = x.data + row * x.n_units;
  const char *next = ahead.data, *const last = ahead.data + ahead.bytes;
  for (int64_t block = 0; block < x.n_units; block += kUnitBlock) {
    const int64_t share = ahead.bytes * kUnitBlock / x.n_units;  // of this step; the tail is not worth a branch
    for (const char* end = std::min(last, next + share); next < end; next += 64) _mm_prefetch(next, _MM_HINT_T1);
    for (int64_t u = block; u < block + kUnitBlock; ++u, packed += kN * kLanes) {
      __m512i w[kN];
      SAIF_UNROLL
      for (int p = 0; p < kN; ++p) w[p] = _mm512_loadu_si512(packed + p * kLanes);
      SAIF_UNROLL
      for (int r = 0; r < kM; ++r) {
        const __m512i pair = _mm512_set1_epi32(static_cast<int>(rows[r * x.n_units + u]));
        SAIF_UNROLL
        for (int p = 0; p < kN; ++p) sums[r][p] = Op::multiply(sums[r][p], pair, w[p]);
      }
    }
  }
  SAIF_UNROLL
  for (int r = 0; r < kM; ++r) {
    SAIF_UNROLL
    for (int p = 0; p < kN; ++p) store_sums(sums[r][p], out, row + r, p * kLanes);
  }
}

template <class Op, int kN>
SAIF_AVX512 void multiply_rest(const UnitRows& x, int64_t row, const uint32_t* packed, const LinearOutput& out) {
  switch (x.rows - row) {
    case 1:
      return multiply_tile<Op, 1, kN>(x, row, packed, out, {});
    case 2:
      return multiply_tile<Op, 2, kN>(x, row, packed, out, {});
    case 3:
      return multiply_tile<Op, 3, kN>(x, row, packed, out, {});
    case 4:
      return multiply_tile<Op, 4, kN>(x, row, packed, out, {});
    case 5:
      return multiply_tile<Op, 5, kN>(x, row, packed, out, {});
    case 6:
      return multiply_tile<Op, 6, kN>(x, row, packed, out, {});
    case 7:
      return multiply_tile<Op, 7, kN>(x, row, packed, out, {});
    default:
      return;
  }
}

template <class Op, int kN>
SAIF_AVX512 void multiply_rows(const UnitRows& x, const uint32_t* packed, const LinearOutput& out, const Ahead& ahead) {
  // Each tile asks for its share, in whole cache lines.
  const int64_t tiles = std::max<int64_t>(1, x.rows / kRows);
  const int64_t share = (ahead.bytes / tiles + 63) / 64 * 64;
  Ahead rest = ahead;
  int64_t row = 0;
  for (; row + kRows <= x.rows; row += kRows) {
    const Ahead part{rest.data, std::min(rest.bytes, share)};
    multiply_tile<Op, kRows, kN>(x, row, packed, out, part);
    rest = {rest.data + part.bytes, rest.bytes - part.bytes};
  }
  multiply_rest<Op, kN>(x, row, packed, out);
}

template <class Op>
SAIF_AVX512 void multiply(const UnitRows& x, const uint32_t* packed, const LinearOutput& out, const Ahead& ahead) {
  switch ((out.cols + kLanes - 1) / kLanes) {
    case 1:
      return multiply_rows<Op, 1>(x, packed, out, ahead);
    case 2:
      return multiply_rows<Op, 2>(x, packed, out, ahead);
    default:
      return multiply_rows<Op, kPanels>(x, packed, out, ahead);
  }
}

// --- few rows: a block is transposed in registers and used at once

// The next panel of the weights is fetched into L2 at the pace at which this one is read.
template <class Op, int kM>
SAIF_AVX512 void direct_rows(const UnitRows& x, const WeightTile& w, const LinearOutput& out) {
  const int64_t row_bytes = w.in * static_cast<int64_t>(size_of(w.dtype));
  const int64_t panel_bytes = kLanes * row_bytes, n_blocks = x.n_units / kUnitBlock;
  const int64_t step = (panel_bytes + n_blocks - 1) / n_blocks;
  for (int64_t row = 0; row < w.rows; row += kLanes) {
    __m512 sums[kM];
    SAIF_UNROLL
    for (int r = 0; r < kM; ++r) sums[r] = _mm512_setzero_ps();
    const char* next = static_cast<const char*>(w.data) + row * row_bytes + panel_bytes;
    for (int64_t u = 0; u < x.n_units; u += kUnitBlock) {
      for (int64_t b = 0; b < step; b += 64) _mm_prefetch(next + b, _MM_HINT_T1);
      next += step;
      __m512i t[16];
      load_block<Op>(w, row, u, t);
      SAIF_UNROLL
      for (int i = 0; i < 16; ++i) {
        SAIF_UNROLL
        for (int r = 0; r < kM; ++r) {
          const __m512i pair = _mm512_set1_epi32(static_cast<int>(x.data[r * x.n_units + u + i]));
          sums[r] = Op::multiply(sums[r], pair, t[i]);
        }
      }
    }
    SAIF_UNROLL
    for (int r = 0; r < kM; ++r) store_sums(sums[r], out, r, row);
  }
}

template <class Op>
SAIF_AVX512 void direct(const UnitRows& x, const WeightTile& w, const LinearOutput& out) {
  switch (x.rows) {
    case 1:
      return direct_rows<Op, 1>(x, w, out);
    case 2:
      return direct_rows<Op, 2>(x, w, out);
    case 3:
      return direct_rows<Op, 3>(x, w, out);
    case 4:
      return direct_rows<Op, 4>(x, w, out);
    case 5:
      return direct_rows<Op, 5>(x, w, out);
    case 6:
      return direct_rows<Op, 6>(x, w, out);
    case 7:
      return direct_rows<Op, 7>(x, w, out);
    default:
      return direct_rows<Op, 8>(x, w, out);
  }
}

// --- x to units

SAIF_AVX512 SAIF_INLINE __m512 load_x(const float* x, int64_t i, int64_t n) {
  return _mm512_maskz_loadu_ps(first_of_16(n - i), x + i);
}

template <bool kRound>
SAIF_AVX512 void units_f32(const float* x, int64_t n, uint32_t* units, int64_t n_units) {
  for (int64_t u = 0; u < n_units; u += 16) {
    const __m512 v = load_x(x, u, n);
    _mm512_mask_storeu_ps(units + u, first_of_16(n_units - u), kRound ? round_bf16(v) : v);
  }
}

SAIF_AVX512 void units_bf16(const float* x, int64_t n, uint32_t* units, int64_t n_units) {
  for (int64_t u = 0; u < n_units; u += 16) {
    const __m512 low = load_x(x, 2 * u, n), high = load_x(x, 2 * u + 16, n);
    _mm512_mask_storeu_epi32(units + u, first_of_16(n_units - u), (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
}

SAIF_AVX512 void sum_bf16(const uint32_t* units, int64_t n_units, float* sums) {
  const auto ones = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  for (int64_t u = 0; u < n_units; u += kSumUnits) {
    const __m512i pairs = _mm512_maskz_loadu_epi32(0xff, units + u);
    sums[u / kSumUnits] = _mm512_reduce_add_ps(_mm512_dpbf16_ps(_mm512_setzero_ps(), (__m512bh)pairs, ones));
  }
}

template <class Op>
constexpr LinearKernel make_kernel(void (*round)(const float*, int64_t, uint32_t*, int64_t),
                                   const BlockKernel* (*blocks)(GgmlType) = nullptr,
                                   void (*sum)(const uint32_t*, int64_t, float*) = nullptr) {
  return {kLanes, kPanels, Op::kInputs, kDirectRows, round, pack<Op>, multiply<Op>, direct<Op>, blocks, sum};
}

constexpr LinearKernel kF32 = make_kernel<F32Op<false>>(units_f32<false>);
constexpr LinearKernel kRounded = make_kernel<F32Op<true>>(units_f32<true>);
constexpr LinearKernel kBf16 = make_kernel<Bf16Op>(units_bf16, block_kernel_avx512, sum_bf16);
constexpr LinearKernel kAsTiles = make_kernel<Bf16Op>(units_bf16, block_kernel_as_tiles, sum_bf16);

}  // namespace

LinearKernels linear_kernels_avx512(Isa isa) {
  return {&kF32, isa == Isa::kAmx ? &kAsTiles : isa == Isa::kAvx512Bf16 ? &kBf16 : &kRounded};
}

}  // namespace saif::cpu

#endif  // __x86_64__
