// What the files with tile instructions share; see avx512-inl.h for how targets are chosen.
#pragma once

#include <algorithm>

#include "kernels/cpu/avx512-inl.h"
#include "kernels/cpu/tiles.h"

#define SAIF_AMX  \
  __attribute__(( \
      target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,f16c,fma,avx512bf16")))
// GCC does not know that tile instructions touch memory.
#define SAIF_TILE_FENCE() asm volatile("" ::: "memory")

namespace saif::cpu::tiles {

using avx512::first_of_16;

constexpr int64_t kLine = 64;
constexpr int64_t kPackedTile = kTileOutputs * kTileInputs;  // bfloat16 values

// --- registers: 0 to 3 sums [tile of outputs + 2 group], 4 and 5 weights, 6 and 7 rows

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t column_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

struct Shape {
  int64_t width = 0, inputs = 0;
  bool operator==(const Shape&) const = default;
};
inline Shape& current_shape() {
  static thread_local Shape shape;
  return shape;
}

// A thread's tile registers, for products of so many rows: tiles of weights hold 32 inputs, or 16. What it has already
// is left as it is, as a change costs some hundred cycles.
SAIF_AMX inline void configure_for(int64_t width, int64_t inputs) {
  if (current_shape() == Shape{width, inputs}) return;
  current_shape() = {width, inputs};
  TileConfig config;
  for (int t = 0; t < 8; ++t) {
    const bool weights = t == 4 || t == 5, rows = t > 5;
    config.rows[t] = static_cast<uint8_t>(rows ? inputs / 2 : kTileOutputs);
    config.column_bytes[t] = static_cast<uint16_t>(weights ? 2 * inputs : 4 * width);
  }
  const TileConfig* all = &config;
  asm volatile("" : "+r"(all)::"memory");  // GCC takes the instruction for one that reads 8 bytes
  _tile_loadconfig(all);
}

SAIF_AMX inline void release_tiles() {
  current_shape() = {};
  _tile_release();
}

// --- what is fetched ahead, some lines at a time

class Fetch {
 public:
  explicit Fetch(const TilesAhead& ahead) : ahead_(ahead), row_(ahead.data), left_(ahead.rows * ahead.lines) {}
  int64_t lines() const { return left_; }
  SAIF_AVX512 SAIF_INLINE void step(int64_t n) {
    for (n = std::min(n, left_), left_ -= n; n > 0; --n) {
      _mm_prefetch(row_ + at_, _MM_HINT_T1);
      at_ += kLine;
      if (at_ == ahead_.lines * kLine) {
        at_ = 0;
        row_ += ahead_.row_bytes;
      }
    }
  }

 private:
  TilesAhead ahead_;
  const char* row_;
  int64_t at_ = 0, left_;
};

// 32 floats, of which n are there, as 16 pairs
SAIF_AVX512 SAIF_INLINE __m512i pairs_of(const float* x, int64_t n) {
  const __m512 low = _mm512_maskz_loadu_ps(first_of_16(n), x);
  const __m512 high = _mm512_maskz_loadu_ps(first_of_16(n - 16), x + 16);
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

// Of 16 units of 16 rows, one row per lane, the sums of their first and last 16 inputs: [2][16]. To the bits of
// LinearKernel::sum, which adds within a row.
SAIF_AVX512 SAIF_INLINE void sum_units(const __m512i* units, float* sums) {
  const auto ones = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  SAIF_UNROLL
  for (int half = 0; half < 2; ++half) {
    __m512 v[8];
    SAIF_UNROLL
    for (int i = 0; i < 8; ++i) v[i] = _mm512_dpbf16_ps(_mm512_setzero_ps(), (__m512bh)units[8 * half + i], ones);
    for (int step = 4; step > 0; step /= 2) {
      for (int i = 0; i < step; ++i) v[i] = _mm512_add_ps(v[i], v[i + step]);
    }
    _mm512_storeu_ps(sums + half * kTileRows, v[0]);
  }
}

}  // namespace saif::cpu::tiles
