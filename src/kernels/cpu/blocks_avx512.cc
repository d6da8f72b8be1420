#include "kernels/cpu/blocks_avx512.h"

#if defined(__x86_64__)

#include <algorithm>
#include <utility>

#include "kernels/cpu/block_types_avx512-inl.h"

namespace saif::cpu {

namespace avx512 {
namespace {

constexpr int64_t kChunk = 256, kChunkUnits = kChunk / 2, kGroup = 32, kHalfUnits = 8;

// 16 rows at a chunk of them.
struct Panel {
  Rows rows;
  Codes codes;
  Chunk chunk;
};

// fn(panel, unit of the half, pairs) for the eight units of half a group of each panel, in order. The panels take
// turns, so that the chains of their sums overlap.
template <class Type, int kHalf, int kN, class Fn, int... kI>
SAIF_AVX512 SAIF_INLINE void each_unit(const Words (&w)[kN], const Panel (&panels)[kN], int64_t g, const Fn& fn,
                                       std::integer_sequence<int, kI...>) {
  const auto each_panel = [&](auto i) SAIF_AVX512 SAIF_LAMBDA {
    SAIF_UNROLL
    for (int p = 0; p < kN; ++p) fn(p, i.value, Type::template pair<i.value, kHalf>(w[p], panels[p].chunk, g));
  };
  (each_panel(std::integral_constant<int, kI>()), ...);
}

// fn(panel, half, unit of the half, pairs) for the sixteen units of a group.
template <class Type, int kN, class Fn>
SAIF_AVX512 SAIF_INLINE void each_unit_of_group(const Panel (&panels)[kN], int64_t g, const Fn& fn) {
  constexpr auto kUnits = std::make_integer_sequence<int, kHalfUnits>();
  Words w[kN];
  SAIF_UNROLL
  for (int p = 0; p < kN; ++p) w[p] = Type::words(panels[p].rows, panels[p].codes, g, 0);
  each_unit<Type, 0>(
      w, panels, g, [&](int p, int i, __m512i v) SAIF_AVX512 SAIF_LAMBDA { fn(p, 0, i, v); }, kUnits);
  if constexpr (!Type::kBothNibbles) {
    SAIF_UNROLL
    for (int p = 0; p < kN; ++p) w[p] = Type::words(panels[p].rows, panels[p].codes, g, 1);
  }
  each_unit<Type, 1>(
      w, panels, g, [&](int p, int i, __m512i v) SAIF_AVX512 SAIF_LAMBDA { fn(p, 1, i, v); }, kUnits);
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

// The panels of a matrix from a row on, at their first chunk.
template <class Type, int kN>
SAIF_AVX512 SAIF_INLINE void begin(const WeightTile& w, int64_t row, Panel (&panels)[kN]) {
  const int64_t stride = row_bytes<Type>(w.in);
  SAIF_UNROLL
  for (int p = 0; p < kN; ++p) {
    panels[p].rows = {static_cast<const uint8_t*>(w.data) + (row + p * kLanes) * stride, stride};
    Type::fetch(panels[p].rows, groups_at(w.in, 0), panels[p].chunk);
  }
}

// Unpacks what the groups of the chunk at `input` share, and fetches the same of the next one. Returns the groups.
template <class Type, int kN>
SAIF_AVX512 SAIF_INLINE int64_t unpack_chunk(const WeightTile& w, int64_t input, Panel (&panels)[kN]) {
  const int64_t groups = groups_at(w.in, input), next = input + kChunk;
  SAIF_UNROLL
  for (int p = 0; p < kN; ++p) {
    Type::scales(groups, panels[p].chunk);
    Type::load(panels[p].rows, panels[p].codes);
    if (next < w.in) Type::fetch(next_chunk<Type>(panels[p].rows), groups_at(w.in, next), panels[p].chunk);
  }
  return groups;
}

template <class Type, int kN>
SAIF_INLINE void advance(Panel (&panels)[kN]) {
  SAIF_UNROLL
  for (int p = 0; p < kN; ++p) panels[p].rows = next_chunk<Type>(panels[p].rows);
}

SAIF_AVX512 SAIF_INLINE __m512 add_product(__m512 sum, uint32_t x, __m512i pairs) {
  return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(static_cast<int>(x)), (__m512bh)pairs);
}

// What a block, that of scale s, adds: scale * (sum of code * x) + offset * (sum of x).
template <class Type>
SAIF_AVX512 SAIF_INLINE __m512 add_block(__m512 sum, __m512 products, const Chunk& c, int64_t s, float x_sum) {
  sum = _mm512_fmadd_ps(products, _mm512_load_ps(c.scale[s]), sum);
  if constexpr (Type::kOffset) sum = _mm512_fmadd_ps(_mm512_load_ps(c.offset[s]), _mm512_set1_ps(x_sum), sum);
  return sum;
}

// Sum of x of scale s of a chunk; `halves` are those of its 16 inputs each.
template <class Type>
SAIF_INLINE float sum_of_block(const float* halves, int64_t s) {
  return Type::kScales == 2 ? halves[s] : halves[2 * s] + halves[2 * s + 1];
}

// --- few rows

// A block's products with a row: pair by pair, or as a tile sums them.
struct PairSum {
  __m512 v;
  SAIF_AVX512 static SAIF_INLINE PairSum zero() { return {_mm512_setzero_ps()}; }
  SAIF_AVX512 SAIF_INLINE void add(uint32_t x, __m512i pairs) { v = add_product(v, x, pairs); }
  SAIF_AVX512 SAIF_INLINE __m512 total() const { return v; }
};
struct TileSum {
  __m512 first, second;
  SAIF_AVX512 static SAIF_INLINE TileSum zero() { return {_mm512_setzero_ps(), _mm512_setzero_ps()}; }
  SAIF_AVX512 SAIF_INLINE void add(uint32_t x, __m512i pairs) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
    first = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(x << 16))),
                            _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)), first);
    second = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(x & 0xffff0000U))),
                             _mm512_castsi512_ps(_mm512_and_si512(pairs, upper)), second);
  }
  SAIF_AVX512 SAIF_INLINE __m512 total() const { return _mm512_add_ps(first, second); }
};

// Up to kM rows; past the last one they repeat it.
template <class Type, class Sum, int kM, int kN>
SAIF_AVX512 void direct_panels(const UnitRows& x, const WeightTile& w, int64_t row, const LinearOutput& out) {
  const uint32_t* units[kM];
  const float* halves[kM];
  __m512 sums[kN][kM];
  SAIF_UNROLL
  for (int r = 0; r < kM; ++r) {
    const int64_t from = std::min<int64_t>(r, x.rows - 1);
    units[r] = x.data + from * x.n_units;
    halves[r] = x.sums + from * (x.n_units / kHalfUnits);
    SAIF_UNROLL
    for (int p = 0; p < kN; ++p) sums[p][r] = _mm512_setzero_ps();
  }
  Panel panels[kN];
  begin<Type>(w, row, panels);
  // The next panels are fetched into L2 at the pace at which these are read.
  const int64_t bytes = kN * kLanes * row_bytes<Type>(w.in), step = bytes / (w.in / kGroup);
  const auto* next = reinterpret_cast<const char*>(panels[0].rows.data) + bytes;
  for (int64_t input = 0; input < w.in; input += kChunk) {
    const int64_t groups = unpack_chunk<Type>(w, input, panels);
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t b = 0; b < step; b += 64) _mm_prefetch(next + b, _MM_HINT_T1);
      next += step;
      Sum products[kN][kM];
      const int64_t unit = input / 2 + g * 2 * kHalfUnits;
      each_unit_of_group<Type>(panels, g, [&](int p, int half, int i, __m512i pairs) SAIF_AVX512 SAIF_LAMBDA {
        const bool first = i == 0 && (Type::kScales == 2 || half == 0);
        const bool last = i == kHalfUnits - 1 && (Type::kScales == 2 || half == 1);
        const int64_t s = Type::kScales == 2 ? 2 * g + half : g;
        SAIF_UNROLL
        for (int r = 0; r < kM; ++r) {
          if (first) products[p][r] = Sum::zero();
          products[p][r].add(units[r][unit + kHalfUnits * half + i], pairs);
        }
        if (!last) return;
        SAIF_UNROLL
        for (int r = 0; r < kM; ++r) {
          sums[p][r] = add_block<Type>(sums[p][r], products[p][r].total(), panels[p].chunk, s,
                                       sum_of_block<Type>(halves[r] + input / 16, s));
        }
      });
    }
    advance<Type>(panels);
  }
  SAIF_UNROLL
  for (int p = 0; p < kN; ++p) {
    SAIF_UNROLL
    for (int r = 0; r < kM; ++r) {
      if (r < x.rows) store_sums(sums[p][r], out, r, row + p * kLanes);
    }
  }
}

// Two panels in turn where their sums leave room, since one sum's chain is slower than the weights.
template <class Type, class Sum, int kM>
int64_t panel_pairs(const UnitRows& x, const WeightTile& w, const LinearOutput& out) {
  int64_t row = 0;
  for (; row + 2 * kLanes <= w.rows; row += 2 * kLanes) direct_panels<Type, Sum, kM, 2>(x, w, row, out);
  return row;
}

template <class Type, class Sum>
void direct(const UnitRows& x, const WeightTile& w, const LinearOutput& out) {
  int64_t row = 0;
  if (x.rows == 1) {
    row = panel_pairs<Type, Sum, 1>(x, w, out);
  } else if (x.rows == 2) {
    row = panel_pairs<Type, Sum, 2>(x, w, out);
  } else if (x.rows <= 4) {
    row = panel_pairs<Type, Sum, 4>(x, w, out);
  }
  for (; row < w.rows; row += kLanes) direct_panels<Type, Sum, kDirectRows, 1>(x, w, row, out);
}

// --- many rows: a chunk of up to three panels is packed into L1 and meets all of them

constexpr int kPanels = 3, kTileRows = 4;  // 12 sums and the 12 of a block's products, of 32 registers

template <int kN>
struct PackedChunk {
  alignas(64) uint32_t pairs[kChunkUnits * kN * kLanes];  // [unit][panel][lane]
  Panel panels[kN];
};

template <class Type, int kN>
SAIF_AVX512 void pack_chunk(int64_t groups, PackedChunk<kN>& to) {
  for (int64_t g = 0; g < groups; ++g) {
    uint32_t* pairs = to.pairs + g * 2 * kHalfUnits * kN * kLanes;
    each_unit_of_group<Type>(to.panels, g, [&](int p, int half, int i, __m512i unit) SAIF_AVX512 SAIF_LAMBDA {
      _mm512_store_si512(pairs + ((kHalfUnits * half + i) * kN + p) * kLanes, unit);
    });
  }
}

// sums [rows][kN][kLanes] += the chunk's; or =, for the first one.
template <class Type, int kM, int kN>
SAIF_AVX512 void multiply_tile(const UnitRows& x, int64_t row, int64_t input, int64_t groups, const PackedChunk<kN>& w,
                               float* sums) {
  constexpr int64_t kUnits = Type::kScales == 1 ? 2 * kHalfUnits : kHalfUnits;
  const uint32_t* units = x.data + row * x.n_units + input / 2;
  const float* halves = x.sums + row * (x.n_units / kHalfUnits) + input / 16;
  const uint32_t* pairs = w.pairs;
  sums += row * kN * kLanes;
  __m512 total[kM][kN];
  SAIF_UNROLL
  for (int r = 0; r < kM; ++r) {
    SAIF_UNROLL
    for (int p = 0; p < kN; ++p) {
      total[r][p] = input == 0 ? _mm512_setzero_ps() : _mm512_load_ps(sums + (r * kN + p) * kLanes);
    }
  }
  for (int64_t s = 0; s < groups * Type::kScales; ++s, units += kUnits) {
    __m512 products[kM][kN];
    SAIF_UNROLL
    for (int r = 0; r < kM; ++r) {
      SAIF_UNROLL
      for (int p = 0; p < kN; ++p) products[r][p] = _mm512_setzero_ps();
    }
    for (int64_t u = 0; u < kUnits; ++u, pairs += kN * kLanes) {
      SAIF_UNROLL
      for (int p = 0; p < kN; ++p) {
        const __m512i pair = _mm512_load_si512(pairs + p * kLanes);
        SAIF_UNROLL
        for (int r = 0; r < kM; ++r) products[r][p] = add_product(products[r][p], units[r * x.n_units + u], pair);
      }
    }
    SAIF_UNROLL
    for (int p = 0; p < kN; ++p) {
      SAIF_UNROLL
      for (int r = 0; r < kM; ++r) {
        total[r][p] = add_block<Type>(total[r][p], products[r][p], w.panels[p].chunk, s,
                                      sum_of_block<Type>(halves + r * (x.n_units / kHalfUnits), s));
      }
    }
  }
  SAIF_UNROLL
  for (int r = 0; r < kM; ++r) {
    SAIF_UNROLL
    for (int p = 0; p < kN; ++p) _mm512_store_ps(sums + (r * kN + p) * kLanes, total[r][p]);
  }
}

template <class Type, int kN>
SAIF_AVX512 void multiply_chunk(const UnitRows& x, int64_t input, int64_t groups, const PackedChunk<kN>& w, float* sums,
                                const Ahead& ahead) {
  const char *next = ahead.data, *const last = ahead.data + ahead.bytes;
  const int64_t share = (ahead.bytes / std::max<int64_t>(1, x.rows / kTileRows) + 63) / 64 * 64;
  int64_t row = 0;
  for (; row + kTileRows <= x.rows; row += kTileRows) {
    for (const char* end = std::min(last, next + share); next < end; next += 64) _mm_prefetch(next, _MM_HINT_T1);
    multiply_tile<Type, kTileRows, kN>(x, row, input, groups, w, sums);
  }
  switch (x.rows - row) {
    case 1:
      return multiply_tile<Type, 1, kN>(x, row, input, groups, w, sums);
    case 2:
      return multiply_tile<Type, 2, kN>(x, row, input, groups, w, sums);
    case 3:
      return multiply_tile<Type, 3, kN>(x, row, input, groups, w, sums);
    default:
      return;
  }
}

template <class Type, int kN>
SAIF_AVX512 void multiply_panels(const UnitRows& x, const WeightTile& w, const LinearOutput& out, const Ahead& ahead,
                                 float* sums) {
  PackedChunk<kN> packed;
  begin<Type>(w, 0, packed.panels);
  Ahead rest = ahead;
  const int64_t share = (ahead.bytes * kChunk / w.in + 63) / 64 * 64;
  for (int64_t input = 0; input < w.in; input += kChunk) {
    const int64_t groups = unpack_chunk<Type>(w, input, packed.panels);
    pack_chunk<Type>(groups, packed);
    advance<Type>(packed.panels);
    const Ahead part{rest.data, std::min(rest.bytes, share)};
    multiply_chunk<Type, kN>(x, input, groups, packed, sums, part);
    rest = {rest.data + part.bytes, rest.bytes - part.bytes};
  }
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int p = 0; p < kN; ++p) store_sums(_mm512_load_ps(sums + (r * kN + p) * kLanes), out, r, p * kLanes);
  }
}

template <class Type>
void multiply(const UnitRows& x, const WeightTile& w, const LinearOutput& out, const Ahead& ahead, float* sums) {
  switch (w.rows / kLanes) {
    case 1:
      return multiply_panels<Type, 1>(x, w, out, ahead, sums);
    case 2:
      return multiply_panels<Type, 2>(x, w, out, ahead, sums);
    default:
      return multiply_panels<Type, kPanels>(x, w, out, ahead, sums);
  }
}

template <class Type, class Sum>
const BlockKernel* kernel_of() {
  static constexpr BlockKernel kKernel{multiply<Type>, direct<Type, Sum>};
  return &kKernel;
}

template <class Sum>
const BlockKernel* kernel_by(GgmlType type) {
  switch (type) {
    case GgmlType::kQ40:
      return kernel_of<Q40, Sum>();
    case GgmlType::kQ41:
      return kernel_of<Q41, Sum>();
    case GgmlType::kQ50:
      return kernel_of<Q50, Sum>();
    case GgmlType::kQ51:
      return kernel_of<Q51, Sum>();
    case GgmlType::kQ80:
      return kernel_of<Q80, Sum>();
    case GgmlType::kQ2K:
      return kernel_of<Q2K, Sum>();
    case GgmlType::kQ3K:
      return kernel_of<Q3K, Sum>();
    case GgmlType::kQ4K:
      return kernel_of<Q4K, Sum>();
    case GgmlType::kQ5K:
      return kernel_of<Q5K, Sum>();
    case GgmlType::kQ6K:
      return kernel_of<Q6K, Sum>();
    case GgmlType::kIq4Nl:
      return kernel_of<Iq4Nl, Sum>();
    case GgmlType::kIq4Xs:
      return kernel_of<Iq4Xs, Sum>();
    default:
      return nullptr;
  }
}

}  // namespace
}  // namespace avx512

const BlockKernel* block_kernel_avx512(GgmlType type) { return avx512::kernel_by<avx512::PairSum>(type); }
const BlockKernel* block_kernel_as_tiles(GgmlType type) { return avx512::kernel_by<avx512::TileSum>(type); }

}  // namespace saif::cpu

#endif  // __x86_64__
