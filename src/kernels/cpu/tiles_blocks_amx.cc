#include "kernels/cpu/tiles_blocks.h"

#if defined(__x86_64__)

#include <string>

#include "base/check.h"
#include "kernels/cpu/int8_types_avx512-inl.h"
#include "kernels/cpu/tiles_amx-inl.h"

namespace saif::cpu::tiles {

namespace {

using avx512::transpose;
using int8::Decoded;

constexpr int64_t kChunk = 256;       // inputs decoded at a time
constexpr int64_t kGroup = 64;        // codes of a vector
constexpr int64_t kChunkScales = 16;  // room for a chunk's

template <class Type>
constexpr int64_t kInputs = Type::kHalves ? 16 : 32;  // that share a scale

// --- codes to bfloat16

// The upper and the lower bytes of i - kBias, i of [0, 64), as bfloat16.
template <int kBias>
struct Values {
  uint8_t high[64] = {}, low[64] = {};
  constexpr Values() {
    for (int i = 0; i < 64; ++i) {
      const auto bits = std::bit_cast<uint32_t>(static_cast<float>(i - kBias));
      high[i] = static_cast<uint8_t>(bits >> 24);
      low[i] = static_cast<uint8_t>(bits >> 16);
    }
  }
};

// 64 codes to two vectors of 32 values in the codes' order.
template <class Type>
SAIF_AMX SAIF_INLINE void values_of(__m512i codes, __m512i* values) {
  constexpr int kBias = Type::kShift == int8::kNoBias ? 0 : 128 >> std::max(Type::kShift, 0);
  if constexpr (kBias == 128) {  // of all 8 bits
    const __m512 bias = _mm512_set1_ps(kBias);
    const auto widen = [&](int quarter) SAIF_AMX SAIF_LAMBDA {
      const __m512i four =
          _mm512_permutexvar_epi64(_mm512_set_epi64(0, 0, 0, 0, 0, 0, 2 * quarter + 1, 2 * quarter), codes);
      return _mm512_sub_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm512_castsi512_si128(four))), bias);
    };
    values[0] = (__m512i)_mm512_cvtne2ps_pbh(widen(1), widen(0));
    values[1] = (__m512i)_mm512_cvtne2ps_pbh(widen(3), widen(2));
  } else {
    alignas(64) static constexpr Values<kBias> kValues;
    const __m512i lanes = _mm512_permutexvar_epi64(_mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0), codes);
    const __m512i high = _mm512_permutexvar_epi8(lanes, _mm512_load_si512(kValues.high));
    const __m512i low = _mm512_permutexvar_epi8(lanes, _mm512_load_si512(kValues.low));
    values[0] = _mm512_unpacklo_epi8(low, high);
    values[1] = _mm512_unpackhi_epi8(low, high);
  }
}

// kGroups groups of a row to its place in each tile, and its scales.
template <class Type, int kGroups>
SAIF_AMX SAIF_INLINE void pack_chunk(const uint8_t* p, uint16_t* to, float* scales, float* offsets) {
  Decoded d;
  Type::template decode<kGroups>(p, d);
  _mm512_store_ps(scales, d.scales);
  if constexpr (Type::kMin) _mm512_store_ps(offsets, d.min);
  SAIF_UNROLL
  for (int g = 0; g < kGroups; ++g) {
    __m512i values[2];
    values_of<Type>(d.codes[g], values);
    SAIF_UNROLL
    for (int i = 0; i < 2; ++i) {
      uint16_t* tile = to + (2 * g + i) * kPackedTile;
      if constexpr (Type::kHalves) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(tile), _mm512_castsi512_si256(values[i]));
        _mm256_store_si256(reinterpret_cast<__m256i*>(tile + kPackedTile / 2), _mm512_extracti64x4_epi64(values[i], 1));
      } else {
        _mm512_store_si512(tile, values[i]);
      }
    }
  }
}

template <class Type>
SAIF_AMX SAIF_INLINE void pack_groups(const uint8_t* p, int64_t groups, uint16_t* to, float* scales, float* offsets) {
  if (groups == 4) return pack_chunk<Type, 4>(p, to, scales, offsets);
  if constexpr (Type::kInputs == 32) {
    if (groups == 3) return pack_chunk<Type, 3>(p, to, scales, offsets);
    if (groups == 2) return pack_chunk<Type, 2>(p, to, scales, offsets);
    pack_chunk<Type, 1>(p, to, scales, offsets);
  }
}

// 16 rows of values, one value per step, to [step][16 rows].
SAIF_AVX512 SAIF_INLINE void put_by_step(const float (*rows)[kChunkScales], int64_t stride, int64_t n, float* to) {
  __m512i t[16];
  SAIF_UNROLL
  for (int r = 0; r < 16; ++r) t[r] = _mm512_castps_si512(_mm512_load_ps(rows[r]));
  transpose(t);
  alignas(64) float steps[16][16];
  SAIF_UNROLL
  for (int i = 0; i < 16; ++i) _mm512_store_si512(steps[i], t[i]);
  for (int64_t i = 0; i < n; ++i) _mm512_storeu_ps(to + i * kTileOutputs, _mm512_load_ps(steps[i * stride]));
}

template <class Type>
SAIF_AMX void pack_as(const WeightTile& w, const TileRange& range, const TilesAhead& ahead, const PackedPanel& packed) {
  const int64_t row_bytes = w.in / Type::kInputs * Type::kBytes;
  constexpr int64_t kChunkBytes = kChunk / Type::kInputs * Type::kBytes;
  const int64_t first = range.first * kTileInputs, last = std::min(w.in, first + range.count * kTileInputs);
  const int64_t steps = range.count * kTileInputs / kInputs<Type>;
  const auto* data = static_cast<const uint8_t*>(w.data) + first / kChunk * kChunkBytes;
  Fetch fetch(ahead);
  const int64_t calls = (last - first + kChunk - 1) / kChunk * kPanelOutputs;
  const int64_t lines = (fetch.lines() + calls - 1) / calls;
  for (int64_t t = 0; t < 2; ++t) {
    uint16_t* weights = packed.weights + t * range.count * kPackedTile;
    for (int64_t input = first; input < last; input += kChunk) {
      alignas(64) float scales[kTileOutputs][kChunkScales], offsets[kTileOutputs][kChunkScales];
      const int64_t n = std::min(kChunk, last - input), tile = (input - first) / kTileInputs;
      for (int64_t r = 0; r < kTileOutputs; ++r) {
        fetch.step(lines);
        const int64_t row = t * kTileOutputs + r;
        uint16_t* to = weights + tile * kPackedTile + r * kInputs<Type>;
        if (row < w.rows) {
          const uint8_t* p = data + row * row_bytes + (input - first) / kChunk * kChunkBytes;
          pack_groups<Type>(p, n / kGroup, to, scales[r], offsets[r]);
          continue;
        }
        _mm512_store_ps(scales[r], _mm512_setzero_ps());
        _mm512_store_ps(offsets[r], _mm512_setzero_ps());
        for (int64_t step = 0; step < n / kInputs<Type>; ++step) {
          std::fill_n(to + step * kTileOutputs * kInputs<Type>, kInputs<Type>, uint16_t{0});
        }
      }
      const int64_t step = (input - first) / kInputs<Type>, at = (t * steps + step) * kTileOutputs;
      put_by_step(scales, 1, n / kInputs<Type>, packed.scales + at);
      // Of 16 inputs each: a block of 32 has its offset twice.
      if constexpr (Type::kMin) put_by_step(offsets, kInputs<Type> / 16, n / kInputs<Type>, packed.offsets + at);
    }
  }
}

// --- products

constexpr int kAtOnce = 4;  // tiles of sums on the way

// Sums of a tile of outputs, [16 outputs][width]: a vector each, or all of them in one.
template <int kWidth>
struct Sums {
  __m512 v[kWidth];
};

template <class Type, int kWidth>
SAIF_AMX SAIF_INLINE void add_step(const float* products, const float* scales, const float* offsets, const float* x,
                                   Sums<kWidth>& sums) {
  __m512 row_sum = _mm512_setzero_ps();
  if constexpr (Type::kMin && kWidth == 16) {
    row_sum = _mm512_loadu_ps(x);
    if constexpr (!Type::kHalves) row_sum = _mm512_add_ps(row_sum, _mm512_loadu_ps(x + kWidth));
  } else if constexpr (Type::kMin) {
    row_sum = _mm512_set1_ps(Type::kHalves ? x[0] : x[0] + x[1]);
  }
  if constexpr (kWidth == 1) {
    sums.v[0] = _mm512_fmadd_ps(_mm512_load_ps(products), _mm512_loadu_ps(scales), sums.v[0]);
    if constexpr (Type::kMin) sums.v[0] = _mm512_fmadd_ps(row_sum, _mm512_loadu_ps(offsets), sums.v[0]);
  } else {
    SAIF_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      sums.v[i] = _mm512_fmadd_ps(_mm512_load_ps(products + 16 * i), _mm512_set1_ps(scales[i]), sums.v[i]);
      if constexpr (Type::kMin) sums.v[i] = _mm512_fmadd_ps(row_sum, _mm512_set1_ps(offsets[i]), sums.v[i]);
    }
  }
}

// One tile of outputs and one group of rows.
template <class Type, int kWidth>
SAIF_AMX void multiply_tile(const uint32_t* b, const float* x_sums, int64_t steps, const uint16_t* weights,
                            const float* scales, const float* offsets, bool first, float* out) {
  constexpr int64_t kRow = 4 * kWidth, kWeights = kTileOutputs * kInputs<Type>, kWords = kInputs<Type> / 2 * kWidth;
  constexpr int64_t kSumsOfStep = kInputs<Type> / 16 * kWidth;
  alignas(64) float products[kAtOnce][kTileOutputs * kWidth];
  Sums<kWidth> sums;
  SAIF_UNROLL
  for (int i = 0; i < kWidth; ++i) sums.v[i] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(out + 16 * i);
#define SAIF_TILE_STEP(j, a, x)                 \
  if ((j) < n) {                                \
    _tile_zero(j);                              \
    _tile_loadd(a, weights, 2 * kInputs<Type>); \
    _tile_loadd(x, b, kRow);                    \
    _tile_dpbf16ps(j, a, x);                    \
    _tile_stored(j, products[j], kRow);         \
    weights += kWeights;                        \
    b += kWords;                                \
  }
  for (int64_t step = 0; step < steps; step += kAtOnce) {
    const int64_t n = std::min<int64_t>(kAtOnce, steps - step);
    SAIF_TILE_FENCE();
    SAIF_TILE_STEP(0, 4, 6)
    SAIF_TILE_STEP(1, 5, 7)
    SAIF_TILE_STEP(2, 4, 6)
    SAIF_TILE_STEP(3, 5, 7)
    SAIF_TILE_FENCE();
    for (int64_t j = 0; j < n; ++j) {
      add_step<Type, kWidth>(products[j], scales, offsets, x_sums, sums);
      scales += kTileOutputs;
      offsets += kTileOutputs;
      x_sums += kSumsOfStep;
    }
  }
#undef SAIF_TILE_STEP
  SAIF_UNROLL
  for (int i = 0; i < kWidth; ++i) _mm512_storeu_ps(out + 16 * i, sums.v[i]);
}

template <class Type>
SAIF_AMX void multiply_as(const TileRows& x, const WeightTile& w, const TileRange& range, const PackedPanel& packed,
                          const TilesAhead& ahead, float* sums) {
  if constexpr (Type::kHalves) configure_for(x.width, kInputs<Type>);
  const int64_t inputs = std::min(w.in - range.first * kTileInputs, range.count * kTileInputs);
  const int64_t steps = inputs / kInputs<Type>, room = range.count * kTileInputs / kInputs<Type> * kTileOutputs;
  Fetch fetch(ahead);
  const int64_t lines = (fetch.lines() + x.groups - 1) / x.groups;
  for (int64_t g = 0; g < x.groups; ++g) {
    fetch.step(lines);
    const uint32_t* b = x.tile(g, range.first);
    const float* x_sums = x.sums != nullptr ? x.tile_sums(g, range.first) : nullptr;
    for (int64_t t = 0; t < (w.rows > kTileOutputs ? 2 : 1); ++t) {
      float* out = sums + (2 * g + t) * kTileOutputs * x.width;
      const uint16_t* weights = packed.weights + t * range.count * kPackedTile;
      const float *scales = packed.scales + t * room, *offsets = packed.offsets + t * room;
      if (x.width == 1) {
        multiply_tile<Type, 1>(b, x_sums, steps, weights, scales, offsets, range.first == 0, out);
      } else {
        multiply_tile<Type, 16>(b, x_sums, steps, weights, scales, offsets, range.first == 0, out);
      }
    }
    if (w.rows <= kTileOutputs) {
      std::fill_n(sums + (2 * g + 1) * kTileOutputs * x.width, kTileOutputs * x.width, 0.0F);
    }
  }
  if constexpr (Type::kHalves) configure_for(x.width, kTileInputs);
}

// --- types

using Pack = void (*)(const WeightTile&, const TileRange&, const TilesAhead&, const PackedPanel&);
using Multiply = void (*)(const TileRows&, const WeightTile&, const TileRange&, const PackedPanel&, const TilesAhead&,
                          float*);
struct Functions {
  Pack pack = nullptr;
  Multiply multiply = nullptr;
};
template <class Type>
constexpr Functions functions() {
  return {pack_as<Type>, multiply_as<Type>};
}

Functions functions_of(GgmlType type) {
  switch (type) {
    case GgmlType::kQ40:
      return functions<int8::Q40>();
    case GgmlType::kQ41:
      return functions<int8::Q41>();
    case GgmlType::kQ50:
      return functions<int8::Q50>();
    case GgmlType::kQ51:
      return functions<int8::Q51>();
    case GgmlType::kQ80:
      return functions<int8::Q80>();
    case GgmlType::kQ2K:
      return functions<int8::Q2K>();
    case GgmlType::kQ3K:
      return functions<int8::Q3K>();
    case GgmlType::kQ4K:
      return functions<int8::Q4K>();
    case GgmlType::kQ5K:
      return functions<int8::Q5K>();
    case GgmlType::kQ6K:
      return functions<int8::Q6K>();
    case GgmlType::kIq4Nl:
      return functions<int8::Iq4Nl>();
    case GgmlType::kIq4Xs:
      return functions<int8::Iq4Xs>();
    default:
      return {};
  }
}

}  // namespace

bool takes_blocks(const WeightView& w) { return functions_of(*w.blocks).pack != nullptr && w.in % kGroup == 0; }

void pack_block_panel(const WeightTile& w, const TileRange& range, const TilesAhead& ahead, const PackedPanel& packed) {
  functions_of(*w.blocks).pack(w, range, ahead, packed);
}

void multiply_block_panel(const TileRows& x, const WeightTile& w, const TileRange& range, const PackedPanel& packed,
                          const TilesAhead& ahead, float* sums) {
  functions_of(*w.blocks).multiply(x, w, range, packed, ahead, sums);
}

}  // namespace saif::cpu::tiles

#endif  // __x86_64__
