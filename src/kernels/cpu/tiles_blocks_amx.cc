#include "kernels/cpu/tiles_blocks.h"

#if defined(__x86_64__)

#include <bit>
#include <type_traits>

#include "kernels/cpu/int8_types_avx512-inl.h"
#include "kernels/cpu/tiles_amx-inl.h"

namespace saif::cpu::tiles {

namespace {

using int8::Decoded;

constexpr int64_t kChunk = 256;  // inputs decoded at a time
constexpr int64_t kGroup = 64;   // codes of a vector

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

// 16 signed bytes.
SAIF_AMX SAIF_INLINE __m512 floats_of(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(int8::bytes16(p)));
}

// Of Q8_0, from where they are stored: 64 codes of two blocks.
SAIF_AMX SAIF_INLINE void bytes_to_values(const uint8_t* first, const uint8_t* second, __m512i* values) {
  values[0] = (__m512i)_mm512_cvtne2ps_pbh(floats_of(first + 16), floats_of(first));
  values[1] = (__m512i)_mm512_cvtne2ps_pbh(floats_of(second + 16), floats_of(second));
}

// kGroups groups of a row to its place in each tile, and its scales.
template <class Type, int kGroups>
SAIF_AMX SAIF_INLINE void pack_chunk(const uint8_t* p, uint16_t* to, float* scales, float* offsets) {
  Decoded d;
  Type::template decode<kGroups>(p, d);
  if constexpr (Type::kHalves) {
    _mm512_storeu_ps(scales, d.scales);
    if constexpr (Type::kMin) _mm512_storeu_ps(offsets, d.min);
  } else {
    _mm256_storeu_ps(scales, _mm512_castps512_ps256(d.scales));
    if constexpr (Type::kMin) _mm256_storeu_ps(offsets, _mm512_castps512_ps256(d.min));
  }
  SAIF_UNROLL
  for (int g = 0; g < kGroups; ++g) {
    __m512i values[2];
    if constexpr (std::is_same_v<Type, int8::Q80>) {
      const uint8_t* block = p + 2 * g * Type::kBytes + 2;
      bytes_to_values(block, block + Type::kBytes, values);
    } else {
      values_of<Type>(d.codes[g], values);
    }
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

// n inputs of a row that there is not.
template <class Type>
void pack_nothing(int64_t n, uint16_t* to, float* scales, float* offsets) {
  const int64_t steps = n / kInputs<Type>;
  for (int64_t step = 0; step < steps; ++step) {
    std::fill_n(to + step * kTileOutputs * kInputs<Type>, kInputs<Type>, uint16_t{0});
  }
  std::fill_n(scales, steps, 0.0F);
  std::fill_n(offsets, steps, 0.0F);
}

template <class Type>
SAIF_AMX void pack_as(const WeightTile& w, const TileRange& range, const TilesAhead& ahead, const PackedPanel& packed) {
  const int64_t row_bytes = w.in / Type::kInputs * Type::kBytes;
  constexpr int64_t kChunkBytes = kChunk / Type::kInputs * Type::kBytes;
  const int64_t first = range.first * kTileInputs, last = std::min(w.in, first + range.count * kTileInputs);
  const auto* data = static_cast<const uint8_t*>(w.data) + first / kChunk * kChunkBytes;
  Fetch fetch(ahead);
  const int64_t calls = (last - first + kChunk - 1) / kChunk * kPanelOutputs;
  const int64_t lines = (fetch.lines() + calls - 1) / calls;
  for (int64_t row = 0; row < kPanelOutputs; ++row) {
    const int64_t t = row / kTileOutputs, r = row % kTileOutputs;
    uint16_t* to = packed.weights + t * range.count * kPackedTile + r * kInputs<Type>;
    float *scales = packed.scales + row * kPanelSteps, *offsets = packed.offsets + row * kPanelSteps;
    const uint8_t* p = data + row * row_bytes;
    for (int64_t input = first; input < last; input += kChunk) {
      fetch.step(lines);
      const int64_t n = std::min(kChunk, last - input);
      if (row < w.rows) {
        pack_groups<Type>(p, n / kGroup, to, scales, offsets);
      } else {
        pack_nothing<Type>(n, to, scales, offsets);
      }
      p += kChunkBytes;
      to += kChunk / kTileInputs * kPackedTile;
      scales += kChunk / kInputs<Type>;
      offsets += kChunk / kInputs<Type>;
    }
  }
}

// --- products

// Where a tile of outputs finds its parts; scales and offsets [16 outputs][kPanelSteps].
struct PackedTile {
  const uint16_t* weights;
  const float *scales, *offsets;
};

// One tile of outputs and 16 rows: [16 outputs][16 rows] of sums, a vector an output. x_sums [steps of 16 inputs][16].
template <class Type>
SAIF_AMX void multiply_tile(const uint32_t* b, const float* x_sums, int64_t steps, const PackedTile& packed, bool first,
                            float* out) {
  constexpr int kAtOnce = 4;  // tiles of products on the way
  constexpr int64_t kWeights = kTileOutputs * kInputs<Type>, kWords = kInputs<Type> / 2 * kTileRows;
  alignas(64) float products[kAtOnce][kTileOutputs * kTileRows];
  __m512 sums[kTileOutputs];
  SAIF_UNROLL
  for (int i = 0; i < kTileOutputs; ++i) sums[i] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(out + 16 * i);
  const uint16_t* weights = packed.weights;
#define SAIF_TILE_STEP(j, a, x)                 \
  if ((j) < n) {                                \
    _tile_zero(j);                              \
    _tile_loadd(a, weights, 2 * kInputs<Type>); \
    _tile_loadd(x, b, kLine);                   \
    _tile_dpbf16ps(j, a, x);                    \
    _tile_stored(j, products[j], kLine);        \
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
    for (int64_t j = 0; j < n; ++j, x_sums += kInputs<Type> / 16 * kTileRows) {
      const float *scale = packed.scales + step + j, *offset = packed.offsets + step + j;
      __m512 x = _mm512_setzero_ps();
      if constexpr (Type::kMin) {
        x = _mm512_loadu_ps(x_sums);
        if constexpr (!Type::kHalves) x = _mm512_add_ps(x, _mm512_loadu_ps(x_sums + kTileRows));
      }
      SAIF_UNROLL
      for (int i = 0; i < kTileOutputs; ++i) {
        sums[i] =
            _mm512_fmadd_ps(_mm512_load_ps(products[j] + 16 * i), _mm512_set1_ps(scale[i * kPanelSteps]), sums[i]);
        if constexpr (Type::kMin) sums[i] = _mm512_fmadd_ps(x, _mm512_set1_ps(offset[i * kPanelSteps]), sums[i]);
      }
    }
  }
#undef SAIF_TILE_STEP
  SAIF_UNROLL
  for (int i = 0; i < kTileOutputs; ++i) _mm512_storeu_ps(out + 16 * i, sums[i]);
}

template <class Type>
SAIF_AMX void multiply_as(const TileRows& x, const WeightTile& w, const TileRange& range, const PackedPanel& packed,
                          const TilesAhead& ahead, float* sums) {
  configure_for(kTileRows, kInputs<Type>);
  const int64_t steps = std::min(w.in - range.first * kTileInputs, range.count * kTileInputs) / kInputs<Type>;
  Fetch fetch(ahead);
  const int64_t lines = (fetch.lines() + x.groups - 1) / x.groups;
  for (int64_t g = 0; g < x.groups; ++g) {
    fetch.step(lines);
    for (int64_t t = 0; t < 2; ++t) {
      const int64_t scales = t * kTileOutputs * kPanelSteps;
      const PackedTile tile{packed.weights + t * range.count * kPackedTile, packed.scales + scales,
                            packed.offsets + scales};
      multiply_tile<Type>(x.tile(g, range.first), x.tile_sums(g, range.first), steps, tile, range.first == 0,
                          sums + (2 * g + t) * kTileOutputs * kTileRows);
    }
  }
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
