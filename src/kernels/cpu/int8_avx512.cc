#include "kernels/cpu/int8.h"

#if defined(__x86_64__)

#include <algorithm>
#include <limits>
#include <string>

#include "base/check.h"
#include "kernels/cpu/int8_types_avx512-inl.h"

namespace saif::cpu {

namespace int8 {
namespace {

constexpr int kTileOutputs = 2, kTileRows = 4;

// A chunk of x's rows.
struct Codes {
  const int8_t* codes;
  const int32_t* offsets;
  const float *scales, *sums;
};

SAIF_INLINE Codes codes_at(const Int8Rows& x, int64_t row, int64_t input) {
  const int64_t i = row * x.n + input;
  return {x.codes + i, x.offsets + i / 4, x.scales + i / 4, x.sums + i / 16};
}

// sum += one group of 64: (q . c) d s in 16 lanes of 4 inputs
template <int kShift>
SAIF_VNNI SAIF_INLINE __m512 add_group(__m512 sum, __m512i codes, __m512 scale, const Codes& x, int g) {
  __m512i dot = _mm512_setzero_si512();
  if constexpr (kShift >= 0) dot = _mm512_srai_epi32(_mm512_load_si512(x.offsets + 16 * g), kShift);
  dot = _mm512_dpbusd_epi32(dot, codes, _mm512_load_si512(x.codes + 64 * g));
  const __m512 both = _mm512_mul_ps(scale, _mm512_load_ps(x.scales + 16 * g));
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), both, sum);
}

template <bool kMin>
SAIF_VNNI SAIF_INLINE __m512 add_min(__m512 sum, __m512 min, const Codes& x) {
  return kMin ? _mm512_fmadd_ps(min, _mm512_load_ps(x.sums), sum) : sum;
}

// The one order in which lanes meet.
SAIF_VNNI SAIF_INLINE float total(__m512 v) {
  const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

SAIF_INLINE void put(float sum, const LinearOutput& out, int64_t r, int64_t c) {
  float& y = out.y[r * out.stride + c];
  if (out.bias != nullptr) sum += out.bias[c];
  y = out.accumulate ? y + sum : sum;
}

template <class Type>
SAIF_INLINE int64_t row_bytes(int64_t in) {
  return in / Type::kInputs * Type::kBytes;
}
template <class Type>
constexpr int64_t kChunkBytes = kInt8Chunk / Type::kInputs * Type::kBytes;

// --- few rows: a chunk is decoded in registers and used at once

template <class Type, int kGroups, int kM>
SAIF_VNNI SAIF_INLINE void direct_chunk(const uint8_t* p, const Codes (&x)[kM], int64_t at, __m512 (&sums)[kM]) {
  Decoded d;
  Type::template decode<kGroups>(p, d);
  SAIF_UNROLL
  for (int r = 0; r < kM; ++r) {
    const Codes c{x[r].codes + at, x[r].offsets + at / 4, x[r].scales + at / 4, x[r].sums + at / 16};
    SAIF_UNROLL
    for (int g = 0; g < kGroups; ++g)
      sums[r] = add_group<Type::kShift>(sums[r], d.codes[g], scale_of<Type>(d, g), c, g);
    if constexpr (Type::kMin) sums[r] = add_min<true>(sums[r], min_of<Type>(d), c);
  }
}

template <class Type, int kM>
SAIF_VNNI SAIF_INLINE void direct_tail(const uint8_t* p, int64_t groups, const Codes (&x)[kM], int64_t at,
                                       __m512 (&sums)[kM]) {
  if constexpr (Type::kInputs == 32) {
    if (groups == 1) direct_chunk<Type, 1>(p, x, at, sums);
    if (groups == 2) direct_chunk<Type, 2>(p, x, at, sums);
    if (groups == 3) direct_chunk<Type, 3>(p, x, at, sums);
  }
}

// Up to kM rows; past the last one they repeat it.
template <class Type, int kM>
SAIF_VNNI void direct_rows(const Int8Rows& x, const WeightTile& w, const LinearOutput& out) {
  constexpr int64_t kAhead = 4096;  // bytes: over the end of the page, where hardware stops
  Codes from[kM];
  for (int r = 0; r < kM; ++r) from[r] = codes_at(x, std::min<int64_t>(r, x.rows - 1), 0);
  const auto* p = static_cast<const uint8_t*>(w.data);
  for (int64_t row = 0; row < w.rows; ++row, p += row_bytes<Type>(w.in)) {
    __m512 sums[kM];
    SAIF_UNROLL
    for (int r = 0; r < kM; ++r) sums[r] = _mm512_setzero_ps();
    const uint8_t* q = p;
    int64_t at = 0;
    for (; at + kInt8Chunk <= w.in; at += kInt8Chunk, q += kChunkBytes<Type>) {
      for (int64_t b = 0; b < kChunkBytes<Type>; b += 64) _mm_prefetch(q + kAhead + b, _MM_HINT_T0);
      direct_chunk<Type, 4>(q, from, at, sums);
    }
    direct_tail<Type>(q, (w.in - at) / kInt8Group, from, at, sums);
    SAIF_UNROLL
    for (int r = 0; r < kM; ++r) {
      if (r < x.rows) put(total(sums[r]), out, r, row);
    }
  }
}

// --- many rows: outputs are decoded once; two of them meet four rows at a time

struct alignas(64) Stored {  // a chunk of one output
  int8_t codes[4][64];
  float scale[4][16], min[16];
};

template <class Type, int kGroups>
SAIF_VNNI SAIF_INLINE void store_chunk(const uint8_t* p, Stored& s) {
  Decoded d;
  Type::template decode<kGroups>(p, d);
  SAIF_UNROLL
  for (int g = 0; g < kGroups; ++g) {
    _mm512_store_si512(s.codes[g], d.codes[g]);
    _mm512_store_ps(s.scale[g], scale_of<Type>(d, g));
  }
  if constexpr (Type::kMin) _mm512_store_ps(s.min, min_of<Type>(d));
}

template <class Type>
SAIF_VNNI void store_row(const uint8_t* p, int64_t in, Stored* s) {
  int64_t at = 0;
  for (; at + kInt8Chunk <= in; at += kInt8Chunk, p += kChunkBytes<Type>) store_chunk<Type, 4>(p, *s++);
  if constexpr (Type::kInputs == 32) {
    const int64_t groups = (in - at) / kInt8Group;
    if (groups == 1) store_chunk<Type, 1>(p, *s);
    if (groups == 2) store_chunk<Type, 2>(p, *s);
    if (groups == 3) store_chunk<Type, 3>(p, *s);
  }
}

// Rows [row, row + kM) of x and outputs [first, first + kN).
template <class Type, int kM, int kN>
SAIF_VNNI void tile(const Int8Rows& x, int64_t row, const Stored* stored, int64_t in, const LinearOutput& out,
                    int64_t first) {
  const int64_t chunks = x.n / kInt8Chunk;
  __m512 sums[kN][kM];
  SAIF_UNROLL
  for (int n = 0; n < kN; ++n) {
    SAIF_UNROLL
    for (int m = 0; m < kM; ++m) sums[n][m] = _mm512_setzero_ps();
  }
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const Stored* w = stored + first * chunks + chunk;
    const auto groups = static_cast<int>(std::min<int64_t>(4, (in - chunk * kInt8Chunk) / kInt8Group));
    Codes c[kM];
    SAIF_UNROLL
    for (int m = 0; m < kM; ++m) c[m] = codes_at(x, row + m, chunk * kInt8Chunk);
    for (int g = 0; g < groups; ++g) {
      SAIF_UNROLL
      for (int n = 0; n < kN; ++n) {
        const Stored& s = w[n * chunks];
        const __m512i codes = _mm512_load_si512(s.codes[g]);
        const __m512 scale = _mm512_load_ps(s.scale[g]);
        SAIF_UNROLL
        for (int m = 0; m < kM; ++m) sums[n][m] = add_group<Type::kShift>(sums[n][m], codes, scale, c[m], g);
      }
    }
    if constexpr (Type::kMin) {
      SAIF_UNROLL
      for (int n = 0; n < kN; ++n) {
        const __m512 min = _mm512_load_ps(w[n * chunks].min);
        SAIF_UNROLL
        for (int m = 0; m < kM; ++m) sums[n][m] = add_min<true>(sums[n][m], min, c[m]);
      }
    }
  }
  SAIF_UNROLL
  for (int n = 0; n < kN; ++n) {
    SAIF_UNROLL
    for (int m = 0; m < kM; ++m) put(total(sums[n][m]), out, row + m, first + n);
  }
}

template <class Type, int kM>
void tiles(const Int8Rows& x, int64_t row, const Stored* stored, const WeightTile& w, const LinearOutput& out) {
  int64_t first = 0;
  for (; first + kTileOutputs <= w.rows; first += kTileOutputs) {
    tile<Type, kM, kTileOutputs>(x, row, stored, w.in, out, first);
  }
  for (; first < w.rows; ++first) tile<Type, kM, 1>(x, row, stored, w.in, out, first);
}

template <class Type>
void many_rows(const Int8Rows& x, const WeightTile& w, const LinearOutput& out, Stored* stored) {
  const int64_t chunks = x.n / kInt8Chunk;
  for (int64_t o = 0; o < w.rows; ++o) {
    store_row<Type>(static_cast<const uint8_t*>(w.data) + o * row_bytes<Type>(w.in), w.in, stored + o * chunks);
  }
  int64_t row = 0;
  for (; row + kTileRows <= x.rows; row += kTileRows) tiles<Type, kTileRows>(x, row, stored, w, out);
  for (; row < x.rows; ++row) tiles<Type, 1>(x, row, stored, w, out);
}

template <class Type>
void multiply_as(const Int8Rows& x, const WeightTile& w, const LinearOutput& out, void* scratch) {
  switch (x.rows) {
    case 1:
      return direct_rows<Type, 1>(x, w, out);
    case 2:
      return direct_rows<Type, 2>(x, w, out);
    case 3:
    case 4:
      return direct_rows<Type, 4>(x, w, out);
    case 5:
    case 6:
    case 7:
    case 8:
      return direct_rows<Type, 8>(x, w, out);
    default:
      return many_rows<Type>(x, w, out, static_cast<Stored*>(scratch));
  }
}

void multiply(const Int8Rows& x, const WeightTile& w, const LinearOutput& out, void* scratch) {
  switch (*w.blocks) {
    case GgmlType::kQ40:
      return multiply_as<Q40>(x, w, out, scratch);
    case GgmlType::kQ41:
      return multiply_as<Q41>(x, w, out, scratch);
    case GgmlType::kQ50:
      return multiply_as<Q50>(x, w, out, scratch);
    case GgmlType::kQ51:
      return multiply_as<Q51>(x, w, out, scratch);
    case GgmlType::kQ80:
      return multiply_as<Q80>(x, w, out, scratch);
    case GgmlType::kQ2K:
      return multiply_as<Q2K>(x, w, out, scratch);
    case GgmlType::kQ3K:
      return multiply_as<Q3K>(x, w, out, scratch);
    case GgmlType::kQ4K:
      return multiply_as<Q4K>(x, w, out, scratch);
    case GgmlType::kQ5K:
      return multiply_as<Q5K>(x, w, out, scratch);
    case GgmlType::kQ6K:
      return multiply_as<Q6K>(x, w, out, scratch);
    case GgmlType::kIq4Nl:
      return multiply_as<Iq4Nl>(x, w, out, scratch);
    case GgmlType::kIq4Xs:
      return multiply_as<Iq4Xs>(x, w, out, scratch);
    default:
      SAIF_CHECK(false, std::string("products of 8 bits with ") + name_of(*w.blocks));
  }
}

// --- x to 8 bits

SAIF_VNNI __m512 load_x(const float* x, int64_t i, int64_t in) {
  const int64_t left = std::clamp<int64_t>(in - i, 0, 16);
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << left) - 1), x + (left > 0 ? i : 0));
}

constexpr float kMax = std::numeric_limits<float>::max(), kNan = std::numeric_limits<float>::quiet_NaN();

SAIF_VNNI void round(const float* x, int64_t in, const Int8Rows& y) {
  for (int64_t i = 0; i < y.n; i += kInt8Block) {
    const __m512 a = load_x(x, i, in), b = load_x(x, i + 16, in);
    const __m512 high = _mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b));
    const bool finite =
        _mm512_cmp_ps_mask(_mm512_add_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)), _mm512_set1_ps(kMax), _CMP_NLE_UQ) == 0;
    const float max = _mm512_reduce_max_ps(high), scale = finite ? max / 127.0F : kNan;  // infinity and NaN spread
    const __m512 inverse = _mm512_set1_ps(max > 0 ? 127.0F / max : 0.0F);
    const __m512i qa = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse));
    const __m512i qb = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
    _mm_store_si128(reinterpret_cast<__m128i*>(y.codes + i), _mm512_cvtsepi32_epi8(qa));
    _mm_store_si128(reinterpret_cast<__m128i*>(y.codes + i + 16), _mm512_cvtsepi32_epi8(qb));
    const __m256i codes = _mm256_load_si256(reinterpret_cast<const __m256i*>(y.codes + i));
    const __m256i fours = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), codes);
    _mm256_store_si256(reinterpret_cast<__m256i*>(y.offsets + i / 4),
                       _mm256_slli_epi32(_mm256_sub_epi32(_mm256_setzero_si256(), fours), 7));
    _mm256_store_ps(y.scales + i / 4, _mm256_set1_ps(scale));
    y.sums[i / 16] = scale * static_cast<float>(_mm512_reduce_add_epi32(qa));
    y.sums[i / 16 + 1] = scale * static_cast<float>(_mm512_reduce_add_epi32(qb));
  }
}

int64_t scratch_bytes(int64_t n) { return n / kInt8Chunk * static_cast<int64_t>(sizeof(Stored)); }

constexpr Int8Kernel kKernel{round, scratch_bytes, multiply};

}  // namespace
}  // namespace int8

const Int8Kernel* int8_kernel(Isa isa) {
  const bool wide = isa == Isa::kAvx512 || isa == Isa::kAvx512Bf16;
  return wide && __builtin_cpu_supports("avx512vnni") ? &int8::kKernel : nullptr;
}

}  // namespace saif::cpu

#else

namespace saif::cpu {
const Int8Kernel* int8_kernel(Isa) { return nullptr; }
}  // namespace saif::cpu

#endif  // __x86_64__
