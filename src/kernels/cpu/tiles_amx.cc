#include "kernels/cpu/tiles.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "kernels/cpu/tiles_amx-inl.h"
#include "kernels/cpu/tiles_blocks.h"

namespace saif::cpu {

namespace tiles {
namespace {

using avx512::store_sums;
using avx512::transpose;

void release() { release_tiles(); }

// --- x

SAIF_AVX512 void pack_rows(const float* const* rows, int64_t n, int64_t cols, const TileRows& group,
                           uint32_t* scratch) {
  const int64_t units = group.k_tiles * kTileInputs / 2;
  const bool single = group.width == 1;
  uint32_t* to = single ? group.data : scratch;
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t u = 0; u < units; u += 16) {
      _mm512_storeu_si512(to + r * units + u, pairs_of(rows[r] + 2 * u, cols - 2 * u));
    }
  }
  if (single) return;
  for (int64_t u = 0; u < units; u += 16) {
    __m512i t[16];
    SAIF_UNROLL
    for (int r = 0; r < 16; ++r) t[r] = r < n ? _mm512_loadu_si512(to + r * units + u) : _mm512_setzero_si512();
    transpose(t);
    if (group.sums != nullptr) sum_units(t, group.sums + u / 8 * kTileRows);
    SAIF_UNROLL
    for (int i = 0; i < 16; ++i) _mm512_storeu_si512(group.data + (u + i) * kTileRows, t[i]);
  }
}

// --- weights

// 32 inputs of a row, of which n are there.
template <DType kType>
SAIF_AVX512 SAIF_INLINE __m512i load_inputs(const char* row, int64_t input, int64_t n) {
  if constexpr (kType == DType::kBf16) {
    const auto* p = reinterpret_cast<const uint16_t*>(row) + input;
    if (n >= kTileInputs) return _mm512_loadu_si512(p);
    return _mm512_maskz_loadu_epi16((1U << n) - 1, p);
  } else if constexpr (kType == DType::kF16) {
    const auto* p = reinterpret_cast<const uint16_t*>(row) + input;
    const __m512 low = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_of_16(n), p));
    const __m512 high = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_of_16(n - 16), p + 16));
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
  } else {
    return pairs_of(reinterpret_cast<const float*>(row) + input, n);
  }
}

template <DType kType>
SAIF_AVX512 void pack_panel_as(const WeightTile& w, const TileRange& range, const TilesAhead& ahead, uint16_t* packed) {
  const int64_t row_bytes = w.in * static_cast<int64_t>(size_of(kType));
  const auto* data = static_cast<const char*>(w.data);
  Fetch fetch(ahead);
  const int64_t lines = (fetch.lines() + range.count - 1) / range.count;
  for (int64_t k = 0; k < range.count; ++k) {
    fetch.step(lines);
    const int64_t input = (range.first + k) * kTileInputs, n = w.in - input;
    uint16_t* to = packed + k * 2 * kPackedTile;
    for (int64_t r = 0; r < w.rows; ++r) {
      _mm512_storeu_si512(to + r * kTileInputs, load_inputs<kType>(data + r * row_bytes, input, n));
    }
    for (int64_t r = w.rows; r < kPanelOutputs; ++r) {
      _mm512_storeu_si512(to + r * kTileInputs, _mm512_setzero_si512());
    }
  }
}

void pack_panel(const WeightTile& w, const TileRange& range, const TilesAhead& ahead, const PackedPanel& packed) {
  if (w.blocks) return pack_block_panel(w, range, ahead, packed);
  switch (w.dtype) {
    case DType::kBf16:
      return pack_panel_as<DType::kBf16>(w, range, ahead, packed.weights);
    case DType::kF16:
      return pack_panel_as<DType::kF16>(w, range, ahead, packed.weights);
    default:
      return pack_panel_as<DType::kF32>(w, range, ahead, packed.weights);
  }
}

// --- products

// Where a panel's weights lie: those of an output `row` bytes after those of the one before it, and of the next 32
// inputs `step` values on.
struct PanelWeights {
  const uint16_t* data = nullptr;
  int64_t row = 0, step = 0;

  const uint16_t* second() const { return data + kTileOutputs * row / 2; }
};

// The panel with one or two groups of rows, b and b + next; sums [kGroups][2][16][width].
template <int kGroups>
SAIF_AMX SAIF_INLINE void multiply_groups(const uint32_t* b, int64_t next, int64_t width, const TileRange& range,
                                          const PanelWeights& w, Fetch& fetch, int64_t lines, float* sums) {
  const int64_t row = 4 * width, tile = kTileOutputs * width, words = kTileInputs / 2 * width;
  if (range.first == 0) {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (kGroups > 1) {
      _tile_zero(2);
      _tile_zero(3);
    }
  } else {
    _tile_loadd(0, sums, row);
    _tile_loadd(1, sums + tile, row);
    if constexpr (kGroups > 1) {
      _tile_loadd(2, sums + 2 * tile, row);
      _tile_loadd(3, sums + 3 * tile, row);
    }
  }
  const uint32_t* second = b + next;
  const uint16_t *a = w.data, *a_second = w.second();
  for (int64_t k = 0; k < range.count; ++k) {
    fetch.step(lines);
    _tile_loadd(4, a, w.row);
    _tile_stream_loadd(6, b, row);  // of rows each line is read once, of the panel for every group
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, a_second, w.row);
    _tile_dpbf16ps(1, 5, 6);
    if constexpr (kGroups > 1) {
      _tile_stream_loadd(7, second, row);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
    a += w.step;
    a_second += w.step;
    b += words;
    second += words;
  }
  _tile_stored(0, sums, row);
  _tile_stored(1, sums + tile, row);
  if constexpr (kGroups > 1) {
    _tile_stored(2, sums + 2 * tile, row);
    _tile_stored(3, sums + 3 * tile, row);
  }
}

SAIF_AMX void multiply_plain(const TileRows& x, const TileRange& range, const PanelWeights& w, const TilesAhead& ahead,
                             float* sums) {
  configure_for(x.width, kTileInputs);
  SAIF_TILE_FENCE();
  Fetch fetch(ahead);
  const int64_t steps = std::max<int64_t>(1, (x.groups + 1) / 2 * range.count);
  const int64_t lines = (fetch.lines() + steps - 1) / steps;
  const int64_t group_words = x.k_tiles * x.tile_words(), group_sums = kPanelOutputs * x.width;
  int64_t g = 0;
  for (; g + 2 <= x.groups; g += 2) {
    multiply_groups<2>(x.tile(g, range.first), group_words, x.width, range, w, fetch, lines, sums + g * group_sums);
  }
  if (g < x.groups) {
    multiply_groups<1>(x.tile(g, range.first), 0, x.width, range, w, fetch, lines, sums + g * group_sums);
  }
  SAIF_TILE_FENCE();
}

void multiply(const TileRows& x, const WeightTile& w, const TileRange& range, const PackedPanel& packed,
              const TilesAhead& ahead, float* sums) {
  if (w.blocks) return multiply_block_panel(x, w, range, packed, ahead, sums);
  multiply_plain(x, range, {packed.weights, kLine, 2 * kPackedTile}, ahead, sums);
}

void multiply_in_place(const TileRows& x, const WeightTile& w, const TilesAhead& ahead, float* sums) {
  const PanelWeights weights{static_cast<const uint16_t*>(w.data), 2 * w.in, kTileInputs};
  multiply_plain(x, {0, x.k_tiles}, weights, ahead, sums);
}

// --- sums

SAIF_AVX512 void store(const TileRows& x, const float* sums, const LinearOutput& out) {
  const int64_t tiles = (out.cols + kTileOutputs - 1) / kTileOutputs;
  if (x.width == 1) {
    for (int64_t t = 0; t < tiles; ++t) store_sums(_mm512_loadu_ps(sums + 16 * t), out, 0, 16 * t);
    return;
  }
  for (int64_t g = 0; g < x.groups; ++g) {
    for (int64_t t = 0; t < tiles; ++t) {
      const float* tile = sums + (2 * g + t) * kTileOutputs * kTileRows;
      __m512i v[16];
      SAIF_UNROLL
      for (int i = 0; i < 16; ++i) v[i] = _mm512_loadu_si512(tile + 16 * i);
      transpose(v);
      const int64_t first = g * kTileRows, n = std::min(kTileRows, x.rows - first);
      for (int64_t r = first + kTileRows; r < std::min(first + 2 * kTileRows, x.rows); ++r) {
        __builtin_prefetch(out.y + r * out.stride + kTileOutputs * t, 1);
      }
      if (n == kTileRows) {
        SAIF_UNROLL
        for (int r = 0; r < 16; ++r) store_sums(_mm512_castsi512_ps(v[r]), out, first + r, kTileOutputs * t);
        continue;
      }
      alignas(64) float rows[16][16];
      SAIF_UNROLL
      for (int r = 0; r < 16; ++r) _mm512_store_si512(rows[r], v[r]);
      for (int64_t r = 0; r < n; ++r) store_sums(_mm512_load_ps(rows[r]), out, first + r, kTileOutputs * t);
    }
  }
}

SAIF_AVX512 void add_bias(const TileRows& x, const float* bias, int64_t outputs, float* sums) {
  for (int64_t g = 0; g < x.groups; ++g) {
    for (int64_t o = 0; o < outputs; ++o) {
      float* to = sums + (g * kPanelOutputs + o) * x.width;
      for (int64_t r = 0; r < x.width; ++r) to[r] += bias[o];
    }
  }
}

SAIF_AVX512 void round(const float* sums, const TileRows& to, int64_t k_tile) {
  if (to.width == 1) {
    _mm512_storeu_si512(to.tile(0, k_tile), pairs_of(sums, kTileInputs));
    return;
  }
  // 16 values of one output, then 16 of the next: pairs of both
  alignas(64) constexpr uint16_t kSideBySide[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                    8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i order = _mm512_load_si512(kSideBySide);
  for (int64_t g = 0; g < to.groups; ++g) {
    __m512i t[16];
    uint32_t* tile = to.tile(g, k_tile);
    const float* from = sums + g * kPanelOutputs * kTileRows;
    SAIF_UNROLL
    for (int u = 0; u < kTileInputs / 2; ++u) {
      t[u] = _mm512_permutexvar_epi16(order, pairs_of(from + 32 * u, kTileInputs));
      _mm512_storeu_si512(tile + u * kTileRows, t[u]);
    }
    if (to.sums != nullptr) sum_units(t, to.tile_sums(g, k_tile));
  }
}

constexpr TileKernel kKernel{release, pack_rows, pack_panel, multiply,    multiply_in_place,
                             store,   add_bias,  round,      takes_blocks};

// The CPU has tiles of bfloat16, and the system keeps them for this process.
bool available() {
  constexpr unsigned kTile = 1U << 24, kBf16 = 1U << 22;
  if (!__builtin_cpu_supports("avx512vnni") || !__builtin_cpu_supports("avx512vbmi")) return false;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx & kTile) == 0 || (edx & kBf16) == 0) return false;
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace
}  // namespace tiles

const TileKernel* tile_kernel() {
  static const bool available = tiles::available();
  return available ? &tiles::kKernel : nullptr;
}

}  // namespace saif::cpu

#else

namespace saif::cpu {
const TileKernel* tile_kernel() { return nullptr; }
}  // namespace saif::cpu

#endif  // __x86_64__
