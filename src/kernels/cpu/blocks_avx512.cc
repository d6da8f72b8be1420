#include "kernels/cpu/blocks_avx512.h"

#if defined(__x86_64__)

#include <algorithm>
#include <utility>

#include "kernels/cpu/block_types_avx512-inl.h"

namespace saif::cpu {

namespace avx512 {
namespace {

constexpr int64_t kChunk = 256, kGroup = 32, kGroupUnits = 16;

// Eight units of half a group of each panel, in order, each handed to its panel's sink. The panels take turns, so that
// the chains of their sums overlap.
template <class Type, int kHalf, int kI, int kPanels, class Sink>
SAIF_AVX512 SAIF_INLINE void unit_of(const Words (&w)[kPanels], const Chunk (&c)[kPanels], int64_t g, int64_t unit,
                                     Sink (&sinks)[kPanels]) {
  const int64_t s = g * Type::kScales + (Type::kScales == 2 ? kHalf : 0);
  SAIF_UNROLL
  for (int p = 0; p < kPanels; ++p) {
    __m512 values[2];
    SAIF_UNROLL
    for (int h = 0; h < 2; ++h) {
      const __m512 code = Type::template value<kI, kHalf>(w[p].v[kI / 4 * 2 + h], c[p].fifth[g][h]);
      const __m512 scale = _mm512_load_ps(c[p].scale[s][h]);
      if constexpr (Type::kOffset) {
        values[h] = _mm512_fmadd_ps(code, scale, _mm512_load_ps(c[p].offset[s][h]));
      } else {
        values[h] = _mm512_mul_ps(code, scale);
      }
    }
    sinks[p](unit + 8 * kHalf + kI, (__m512i)_mm512_cvtne2ps_pbh(values[1], values[0]));
  }
}

template <class Type, int kHalf, int kPanels, class Sink, int... kI>
SAIF_AVX512 SAIF_INLINE void half_group(const Words (&w)[kPanels], const Chunk (&c)[kPanels], int64_t g, int64_t unit,
                                        Sink (&sinks)[kPanels], std::integer_sequence<int, kI...>) {
  (unit_of<Type, kHalf, kI>(w, c, g, unit, sinks), ...);
}

template <class Type, int kPanels, class Sink>
SAIF_AVX512 SAIF_INLINE void group(const Rows (&rows)[kPanels], const Chunk (&c)[kPanels], int64_t g, int64_t unit,
                                   Sink (&sinks)[kPanels]) {
  constexpr auto kUnits = std::make_integer_sequence<int, 8>();
  Words w[kPanels];
  SAIF_UNROLL
  for (int p = 0; p < kPanels; ++p) w[p] = Type::words(rows[p], g, 0);
  half_group<Type, 0>(w, c, g, unit, sinks, kUnits);
  if constexpr (!Type::kBothNibbles) {
    SAIF_UNROLL
    for (int p = 0; p < kPanels; ++p) w[p] = Type::words(rows[p], g, 1);
  }
  half_group<Type, 1>(w, c, g, unit, sinks, kUnits);
}

template <class Type>
SAIF_INLINE int64_t row_bytes(int64_t in) {
  return in / (kChunk / Type::kPerChunk) * Type::kBytes;
}

// Groups of the chunk that begins at `input`.
SAIF_INLINE int64_t groups_at(int64_t in, int64_t input) { return std::min(kChunk, in - input) / kGroup; }

template <class Type>
SAIF_INLINE Rows next_chunk(const Rows& rows) {
  return {rows.data + Type::kPerChunk * Type::kBytes, rows.stride};
}

// The scales of the chunk at `input`, where there is one.
template <class Type>
SAIF_INLINE void fetch(const Rows& rows, int64_t in, int64_t input, Chunk& c) {
  if (input < in) Type::fetch(rows, groups_at(in, input), c);
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
    Store sinks[] = {{packed + p * kLanes, panels * kLanes}};
    Rows rows[] = {{static_cast<const uint8_t*>(w.data) + p * kLanes * stride, stride}};
    Chunk c[1];
    fetch<Type>(rows[0], w.in, 0, c[0]);
    for (int64_t input = 0; input < w.in; input += kChunk, rows[0] = next_chunk<Type>(rows[0])) {
      const int64_t groups = groups_at(w.in, input);
      Type::scales(groups, c[0]);
      fetch<Type>(next_chunk<Type>(rows[0]), w.in, input + kChunk, c[0]);
      for (int64_t g = 0; g < groups; ++g) group<Type>(rows, c, g, input / 2 + g * kGroupUnits, sinks);
    }
  }
}

// --- few rows: two panels in turn where their sums leave room, since one sum's chain is slower than the weights

template <int kM>
struct Multiply {
  const uint32_t* x[kM];
  __m512 sums[kM];
  SAIF_AVX512 SAIF_INLINE void operator()(int64_t unit, __m512i pairs) {
    SAIF_UNROLL
    for (int r = 0; r < kM; ++r) {
      const __m512i pair = _mm512_set1_epi32(static_cast<int>(x[r][unit]));
      sums[r] = _mm512_dpbf16_ps(sums[r], (__m512bh)pair, (__m512bh)pairs);
    }
  }
};

// Up to kM rows; past the last one they repeat it.
template <class Type, int kM, int kPanels>
SAIF_AVX512 void direct_panels(const UnitRows& x, const WeightTile& w, int64_t row, const LinearOutput& out) {
  const int64_t stride = row_bytes<Type>(w.in);
  Rows rows[kPanels];
  Multiply<kM> sinks[kPanels];
  SAIF_UNROLL
  for (int p = 0; p < kPanels; ++p) {
    rows[p] = {static_cast<const uint8_t*>(w.data) + (row + p * kLanes) * stride, stride};
    SAIF_UNROLL
    for (int r = 0; r < kM; ++r) {
      sinks[p].x[r] = x.data + std::min<int64_t>(r, x.rows - 1) * x.n_units;
      sinks[p].sums[r] = _mm512_setzero_ps();
    }
  }
  // The next panels are fetched into L2 at the pace at which these are read.
  const auto* next = reinterpret_cast<const char*>(rows[0].data + kPanels * kLanes * stride);
  const int64_t step = kPanels * kLanes * stride / (w.in / kGroup);
  Chunk c[kPanels];
  SAIF_UNROLL
  for (int p = 0; p < kPanels; ++p) fetch<Type>(rows[p], w.in, 0, c[p]);
  for (int64_t input = 0; input < w.in; input += kChunk) {
    const int64_t groups = groups_at(w.in, input);
    SAIF_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      Type::scales(groups, c[p]);
      fetch<Type>(next_chunk<Type>(rows[p]), w.in, input + kChunk, c[p]);
    }
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t b = 0; b < step; b += 64) _mm_prefetch(next + b, _MM_HINT_T1);
      next += step;
      group<Type>(rows, c, g, input / 2 + g * kGroupUnits, sinks);
    }
    SAIF_UNROLL
    for (int p = 0; p < kPanels; ++p) rows[p] = next_chunk<Type>(rows[p]);
  }
  SAIF_UNROLL
  for (int p = 0; p < kPanels; ++p) {
    SAIF_UNROLL
    for (int r = 0; r < kM; ++r) {
      if (r < x.rows) store_sums(sinks[p].sums[r], out, r, row + p * kLanes);
    }
  }
}

template <class Type, int kM>
int64_t panel_pairs(const UnitRows& x, const WeightTile& w, const LinearOutput& out) {
  int64_t row = 0;
  for (; row + 2 * kLanes <= w.rows; row += 2 * kLanes) direct_panels<Type, kM, 2>(x, w, row, out);
  return row;
}

template <class Type>
void direct(const UnitRows& x, const WeightTile& w, const LinearOutput& out) {
  int64_t row = 0;
  if (x.rows == 1) {
    row = panel_pairs<Type, 1>(x, w, out);
  } else if (x.rows == 2) {
    row = panel_pairs<Type, 2>(x, w, out);
  } else if (x.rows <= 4) {
    row = panel_pairs<Type, 4>(x, w, out);
  }
  for (; row < w.rows; row += kLanes) direct_panels<Type, kDirectRows, 1>(x, w, row, out);
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
