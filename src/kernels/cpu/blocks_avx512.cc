#include "kernels/cpu/blocks_avx512.h"

#if defined(__x86_64__)

#include <algorithm>
#include <utility>

#include "kernels/cpu/block_types_avx512-inl.h"

namespace saif::cpu {

namespace avx512 {
namespace {

constexpr int64_t kChunk = 256, kGroup = 32, kGroupUnits = 16;

// Eight units of half a group, in order, each handed to the sink.
template <class Type, int kHalf, class Sink, int... kI>
SAIF_AVX512 SAIF_INLINE void half_group(const Words& w, const Chunk& c, int64_t g, int64_t unit, Sink& sink,
                                        std::integer_sequence<int, kI...>) {
  const int64_t s = g * Type::kScales + (Type::kScales == 2 ? kHalf : 0);
  const auto widen = [&](__m512 value, int rows) SAIF_AVX512 {
    const __m512 scale = _mm512_load_ps(c.scale[s][rows]);
    if constexpr (Type::kOffset) return _mm512_fmadd_ps(value, scale, _mm512_load_ps(c.offset[s][rows]));
    return _mm512_mul_ps(value, scale);
  };
  const auto one = [&]<int kUnit>(std::integral_constant<int, kUnit>) SAIF_AVX512 {
    const __m512 low = Type::template value<kUnit, kHalf>(w.v[kUnit / 4 * 2], c.fifth[g][0]);
    const __m512 high = Type::template value<kUnit, kHalf>(w.v[kUnit / 4 * 2 + 1], c.fifth[g][1]);
    sink(unit + 8 * kHalf + kUnit, (__m512i)_mm512_cvtne2ps_pbh(widen(high, 1), widen(low, 0)));
  };
  (one(std::integral_constant<int, kI>()), ...);
}

template <class Type, class Sink>
SAIF_AVX512 SAIF_INLINE void group(const Rows& rows, const Chunk& c, int64_t g, int64_t unit, Sink& sink) {
  constexpr auto kUnits = std::make_integer_sequence<int, 8>();
  Words w = Type::words(rows, g, 0);
  half_group<Type, 0>(w, c, g, unit, sink, kUnits);
  if constexpr (!Type::kBothNibbles) w = Type::words(rows, g, 1);
  half_group<Type, 1>(w, c, g, unit, sink, kUnits);
}

template <class Type>
SAIF_INLINE int64_t row_bytes(int64_t in) {
  return in / (kChunk / Type::kPerChunk) * Type::kBytes;
}

// --- many rows

struct Store {
  uint32_t* packed;
  int64_t stride;
  SAIF_AVX512 SAIF_INLINE void operator()(int64_t unit, __m512i pairs) const {
    _mm512_storeu_si512(packed + unit * stride, pairs);
  }
};

template <class Type>
SAIF_AVX512 void pack(const WeightTile& w, int64_t, uint32_t* packed) {
  const int64_t panels = w.rows / kLanes, stride = row_bytes<Type>(w.in);
  for (int64_t p = 0; p < panels; ++p) {
    const Store sink{packed + p * kLanes, panels * kLanes};
    Rows rows{static_cast<const uint8_t*>(w.data) + p * kLanes * stride, stride};
    for (int64_t input = 0; input < w.in; input += kChunk, rows.data += Type::kPerChunk * Type::kBytes) {
      const int64_t groups = std::min(kChunk, w.in - input) / kGroup;
      Chunk c;
      Type::scales(rows, groups, c);
      for (int64_t g = 0; g < groups; ++g) group<Type>(rows, c, g, input / 2 + g * kGroupUnits, sink);
    }
  }
}

// --- few rows: two panels in turn where their sums leave room, since one sum's chain is slower than the weights

template <int kM>
struct Multiply {
  const uint32_t* x = nullptr;
  int64_t n_units = 0;
  __m512 sums[kM];
  SAIF_AVX512 SAIF_INLINE void operator()(int64_t unit, __m512i pairs) {
    SAIF_UNROLL
    for (int r = 0; r < kM; ++r) {
      const __m512i pair = _mm512_set1_epi32(static_cast<int>(x[r * n_units + unit]));
      sums[r] = _mm512_dpbf16_ps(sums[r], (__m512bh)pair, (__m512bh)pairs);
    }
  }
};

template <class Type, int kM, int kPanels>
SAIF_AVX512 void direct_panels(const UnitRows& x, const WeightTile& w, int64_t row, const LinearOutput& out) {
  const int64_t stride = row_bytes<Type>(w.in);
  Rows rows[kPanels];
  Multiply<kM> sinks[kPanels];
  SAIF_UNROLL
  for (int p = 0; p < kPanels; ++p) {
    rows[p] = {static_cast<const uint8_t*>(w.data) + (row + p * kLanes) * stride, stride};
    sinks[p].x = x.data;
    sinks[p].n_units = x.n_units;
    SAIF_UNROLL
    for (int r = 0; r < kM; ++r) sinks[p].sums[r] = _mm512_setzero_ps();
  }
  // The next panels are fetched into L2 at the pace at which these are read.
  const auto* next = reinterpret_cast<const char*>(rows[0].data + kPanels * kLanes * stride);
  const int64_t step = kPanels * kLanes * stride / (w.in / kGroup);
  Chunk c[kPanels];
  for (int64_t input = 0; input < w.in; input += kChunk) {
    const int64_t groups = std::min(kChunk, w.in - input) / kGroup;
    SAIF_UNROLL
    for (int p = 0; p < kPanels; ++p) Type::scales(rows[p], groups, c[p]);
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t b = 0; b < step; b += 64) _mm_prefetch(next + b, _MM_HINT_T1);
      next += step;
      SAIF_UNROLL
      for (int p = 0; p < kPanels; ++p) group<Type>(rows[p], c[p], g, input / 2 + g * kGroupUnits, sinks[p]);
    }
    SAIF_UNROLL
    for (int p = 0; p < kPanels; ++p) rows[p].data += Type::kPerChunk * Type::kBytes;
  }
  SAIF_UNROLL
  for (int p = 0; p < kPanels; ++p) {
    SAIF_UNROLL
    for (int r = 0; r < kM; ++r) store_sums(sinks[p].sums[r], out, r, row + p * kLanes);
  }
}

template <class Type, int kM>
SAIF_AVX512 void direct_rows(const UnitRows& x, const WeightTile& w, const LinearOutput& out) {
  int64_t row = 0;
  if constexpr (kM <= 4) {
    for (; row + 2 * kLanes <= w.rows; row += 2 * kLanes) direct_panels<Type, kM, 2>(x, w, row, out);
  }
  for (; row < w.rows; row += kLanes) direct_panels<Type, kM, 1>(x, w, row, out);
}

template <class Type>
void direct(const UnitRows& x, const WeightTile& w, const LinearOutput& out) {
  constexpr decltype(&direct_rows<Type, 1>) kByRows[] = {
      direct_rows<Type, 1>, direct_rows<Type, 2>, direct_rows<Type, 3>, direct_rows<Type, 4>,
      direct_rows<Type, 5>, direct_rows<Type, 6>, direct_rows<Type, 7>, direct_rows<Type, 8>};
  kByRows[x.rows - 1](x, w, out);
}

template <class Type>
const BlockKernel* kernel_of() {
  static constexpr BlockKernel kKernel{pack<Type>, direct<Type>};
  return &kKernel;
}

}  // namespace
}  // namespace avx512

const BlockKernel* block_kernel_avx512(GgmlType type) {
  switch (type) {
    case GgmlType::kQ40:
      return avx512::kernel_of<avx512::Q40>();
    case GgmlType::kQ41:
      return avx512::kernel_of<avx512::Q41>();
    case GgmlType::kQ50:
      return avx512::kernel_of<avx512::Q50>();
    case GgmlType::kQ51:
      return avx512::kernel_of<avx512::Q51>();
    case GgmlType::kQ80:
      return avx512::kernel_of<avx512::Q80>();
    case GgmlType::kQ2K:
      return avx512::kernel_of<avx512::Q2K>();
    case GgmlType::kQ3K:
      return avx512::kernel_of<avx512::Q3K>();
    case GgmlType::kQ4K:
      return avx512::kernel_of<avx512::Q4K>();
    case GgmlType::kQ5K:
      return avx512::kernel_of<avx512::Q5K>();
    case GgmlType::kQ6K:
      return avx512::kernel_of<avx512::Q6K>();
    case GgmlType::kIq4Nl:
      return avx512::kernel_of<avx512::Iq4Nl>();
    case GgmlType::kIq4Xs:
      return avx512::kernel_of<avx512::Iq4Xs>();
    default:
      return nullptr;
  }
}

}  // namespace saif::cpu

#endif  // __x86_64__
