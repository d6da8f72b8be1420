// How 16 rows of each block type become bfloat16 pairs with one row per lane.
//
// A chunk is up to 256 inputs of 16 rows: 8 groups of 32 inputs. Its scales are unpacked to float32 first. A group's
// codes are then loaded as words: vector 2 b + h holds bytes [8 b, 8 b + 8) of rows [8 h, 8 h + 8), one row per 64
// bits. Unit i of 8 needs bytes 2 i and 2 i + 1 of a row: they are widened to two float32 lanes of each row,
// multiplied, and rounded to bfloat16 pairwise, after which each 32-bit lane is one row's pair. Each value is rounded
// once to float32, as in tensor/ggml_types.cc, since products with a scale are exact; so the bits agree.
#pragma once

#include <cstring>

#include "kernels/cpu/avx512-inl.h"

namespace saif::cpu::avx512 {

struct Words {
  __m512i v[4];
};

using Lanes = uint32_t[16];  // one word of each row

// The scales of a chunk; [2]: rows 0..7 and 8..15, two lanes per row.
struct Chunk {
  // As stored. fetch() fills it well before scales() reads it: a vector cannot be loaded from narrow stores under way.
  alignas(64) Lanes raw[16];
  alignas(64) float scale[16][2][16];
  alignas(64) float offset[16][2][16];   // added to scale * code
  alignas(64) uint32_t fifth[8][2][16];  // Q5_0, Q5_1: bit 2 i of even lanes, bit 2 i + 1 of odd ones at bit 2 i
};

struct Rows {
  const uint8_t* data;
  int64_t stride;
};

SAIF_AVX512 SAIF_INLINE __m512i four_rows(const uint8_t* p, int64_t step) {
  const auto row = [&](int64_t r) { return reinterpret_cast<const __m128i*>(p + r * step); };
  __m256i low = _mm256_castsi128_si256(_mm_loadu_si128(row(0))), high = _mm256_castsi128_si256(_mm_loadu_si128(row(2)));
  low = _mm256_inserti128_si256(low, _mm_loadu_si128(row(1)), 1);
  high = _mm256_inserti128_si256(high, _mm_loadu_si128(row(3)), 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

// 16 bytes of each row.
SAIF_AVX512 SAIF_INLINE Words load_words(const Rows& rows, int64_t offset) {
  const uint8_t* p = rows.data + offset;
  const int64_t s = rows.stride;
  const __m512i even = four_rows(p, 2 * s), odd = four_rows(p + s, 2 * s);
  const __m512i even_high = four_rows(p + 8 * s, 2 * s), odd_high = four_rows(p + 9 * s, 2 * s);
  return {{_mm512_unpacklo_epi64(even, odd), _mm512_unpacklo_epi64(even_high, odd_high),
           _mm512_unpackhi_epi64(even, odd), _mm512_unpackhi_epi64(even_high, odd_high)}};
}

// Each row's even bytes to its first lane and its odd bytes to the second, so that a shift by 8 goes to the next unit.
SAIF_AVX512 SAIF_INLINE void part_even_and_odd(Words& w) {
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
  SAIF_UNROLL
  for (int i = 0; i < 4; ++i) w.v[i] = _mm512_shuffle_epi8(w.v[i], order);
}

SAIF_AVX512 SAIF_INLINE void shift_right(Words& w, int bits) {
  const __m128i count = _mm_cvtsi32_si128(bits);
  SAIF_UNROLL
  for (int i = 0; i < 4; ++i) w.v[i] = _mm512_srl_epi32(w.v[i], count);
}

// In each byte: the bits of `mask` from w, the others from high turned left by `turn` bits.
SAIF_AVX512 SAIF_INLINE void merge(Words& w, const Words& high, int turn, int mask) {
  const __m512i by = _mm512_set1_epi32(turn & 31), keep = _mm512_set1_epi8(static_cast<char>(mask));
  SAIF_UNROLL
  for (int i = 0; i < 4; ++i) {
    w.v[i] = _mm512_ternarylogic_epi32(keep, w.v[i], _mm512_rolv_epi32(high.v[i], by), 0xca);
  }
}

// --- scales: one lane per row at first

// Word i of each row is at offset + i * step.
SAIF_INLINE void copy_words(const Rows& rows, int64_t offset, int64_t step, int64_t n, Lanes* out) {
  const int64_t s = rows.stride, s3 = 3 * s;
  const uint8_t* p = rows.data + offset;
  for (int64_t i = 0; i < n; ++i, p += step) {
    const uint8_t* q = p;
    SAIF_UNROLL
    for (int64_t r = 0; r < kLanes; r += 4, q += 4 * s) {
      std::memcpy(&out[i][r], q, 4);
      std::memcpy(&out[i][r + 1], q + s, 4);
      std::memcpy(&out[i][r + 2], q + 2 * s, 4);
      std::memcpy(&out[i][r + 3], q + s3, 4);
    }
  }
}

SAIF_AVX512 SAIF_INLINE __m512i word(const Lanes& w) { return _mm512_load_si512(w); }
SAIF_AVX512 SAIF_INLINE __m512 low_half(__m512i w) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(w)); }
SAIF_AVX512 SAIF_INLINE __m512 high_half(__m512i w) { return low_half(_mm512_srli_epi32(w, 16)); }

// (w >> shift) & mask
SAIF_AVX512 SAIF_INLINE __m512i field(__m512i w, int shift, int mask) {
  return _mm512_and_si512(_mm512_srl_epi32(w, _mm_cvtsi32_si128(shift)), _mm512_set1_epi32(mask));
}

SAIF_AVX512 SAIF_INLINE __m512i doubled_index(int half) {
  const __m512i low = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return _mm512_add_epi32(low, _mm512_set1_epi32(8 * half));
}

SAIF_AVX512 SAIF_INLINE void put(__m512 lanes, float (*out)[16]) {
  _mm512_store_ps(out[0], _mm512_permutexvar_ps(doubled_index(0), lanes));
  _mm512_store_ps(out[1], _mm512_permutexvar_ps(doubled_index(1), lanes));
}

// The low (0) or high (1) float16 of each lane.
SAIF_AVX512 SAIF_INLINE void put_half(__m512i lanes, int which, float factor, float (*out)[16]) {
  const __m512i pairs = _mm512_slli_epi32(doubled_index(0), 1), next = _mm512_slli_epi32(doubled_index(1), 1);
  const __m512i order = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(pairs)),
                                           _mm512_cvtepi32_epi16(next), 1);  // a constant
  const __m512i halves =
      _mm512_permutexvar_epi16(_mm512_add_epi16(order, _mm512_set1_epi16(static_cast<short>(which))), lanes);
  const __m512 a = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
  const __m512 b = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
  _mm512_store_ps(out[0], _mm512_mul_ps(a, _mm512_set1_ps(factor)));
  _mm512_store_ps(out[1], _mm512_mul_ps(b, _mm512_set1_ps(factor)));
}

SAIF_AVX512 SAIF_INLINE void put_fifth(__m512i lanes, uint32_t (*out)[16]) {
  const __m512i odd = _mm512_set1_epi64(1LL << 32);
  _mm512_store_si512(out[0], _mm512_srlv_epi32(_mm512_permutexvar_epi32(doubled_index(0), lanes), odd));
  _mm512_store_si512(out[1], _mm512_srlv_epi32(_mm512_permutexvar_epi32(doubled_index(1), lanes), odd));
}

// --- types. kPerChunk: blocks of a chunk. kScales: scales of a group. kOffset: has an added term. kBothNibbles: the
// second half of a group is the high nibbles of the same bytes. `value` widens unit i's codes.

// Codes of up to four bits, named in a table of 16 float32 by the low bits of a lane.
template <class Type>
struct Coded {
  template <int kI, int kHalf>
  SAIF_AVX512 static SAIF_INLINE __m512 value(__m512i w, const uint32_t*) {
    constexpr int kShift = 8 * (kI % 4) + (Type::kBothNibbles ? 4 * kHalf : 0);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(w, kShift), _mm512_load_ps(Type::kTable));
  }
};

alignas(64) constexpr float kZeroTo15[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
alignas(64) constexpr float k16To31[16] = {16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
alignas(64) constexpr float kMinus8To7[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
alignas(64) constexpr float kMinus16ToMinus1[16] = {-16, -15, -14, -13, -12, -11, -10, -9,
                                                    -8,  -7,  -6,  -5,  -4,  -3,  -2,  -1};
alignas(64) constexpr float kTwoBits[16] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
alignas(64) constexpr float kThreeBits[16] = {-4, -3, -2, -1, 0, 1, 2, 3, -4, -3, -2, -1, 0, 1, 2, 3};
alignas(64) constexpr float kSteps[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// Signed bytes, moved to the top of a lane: 2^24 times too large, which their scales make good.
constexpr float kByteScale = 0x1p-24f;
struct Signed {
  template <int kI, int>
  SAIF_AVX512 static SAIF_INLINE __m512 value(__m512i w, const uint32_t*) {
    constexpr char kA = 2 * (kI % 4), kB = kA + 1, kNone = static_cast<char>(0x80);
    const __m128i order = _mm_setr_epi8(kNone, kNone, kNone, kA, kNone, kNone, kNone, kB, kNone, kNone, kNone, kA + 8,
                                        kNone, kNone, kNone, kB + 8);
    return _mm512_cvtepi32_ps(_mm512_shuffle_epi8(w, _mm512_broadcast_i32x4(order)));
  }
};

// Blocks of 32: d, and perhaps m, as float16 at the beginning.
template <int kBytes, bool kOffset>
struct Small {
  static SAIF_INLINE void fetch(const Rows& rows, int64_t n, Chunk& c) { copy_words(rows, 0, kBytes, n, c.raw); }
  SAIF_AVX512 static SAIF_INLINE void scales(int64_t n, float factor, Chunk& c) {
    for (int64_t g = 0; g < n; ++g) {
      put_half(word(c.raw[g]), 0, factor, c.scale[g]);
      if (kOffset) put_half(word(c.raw[g]), 1, 1.0f, c.offset[g]);
    }
  }
};

template <int kTypeBytes, int kCodes, bool kTypeOffset, const float* kTypeTable>
struct Nibbles : Coded<Nibbles<kTypeBytes, kCodes, kTypeOffset, kTypeTable>> {
  static constexpr int kPerChunk = 8, kBytes = kTypeBytes, kScales = 1;
  static constexpr bool kOffset = kTypeOffset, kBothNibbles = true;
  static constexpr const float* kTable = kTypeTable;
  static SAIF_INLINE void fetch(const Rows& rows, int64_t n, Chunk& c) { Small<kBytes, kOffset>::fetch(rows, n, c); }
  SAIF_AVX512 static SAIF_INLINE void scales(int64_t n, Chunk& c) { Small<kBytes, kOffset>::scales(n, 1.0f, c); }
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows& rows, int64_t g, int) {
    Words w = load_words(rows, g * kBytes + kCodes);
    part_even_and_odd(w);
    return w;
  }
};
using Q40 = Nibbles<18, 2, false, kMinus8To7>;
using Q41 = Nibbles<20, 4, true, kZeroTo15>;
using Iq4Nl = Nibbles<18, 2, false, kSteps>;

template <int kTypeBytes, int kFifth, bool kTypeOffset, const float* kLow, const float* kHigh>
struct NibblesAndBit {
  static constexpr int kPerChunk = 8, kBytes = kTypeBytes, kScales = 1;
  static constexpr bool kOffset = kTypeOffset, kBothNibbles = true;
  static SAIF_INLINE void fetch(const Rows& rows, int64_t n, Chunk& c) {
    Small<kBytes, kOffset>::fetch(rows, n, c);
    copy_words(rows, kFifth, kBytes, n, c.raw + 8);
  }
  SAIF_AVX512 static SAIF_INLINE void scales(int64_t n, Chunk& c) {
    Small<kBytes, kOffset>::scales(n, 1.0f, c);
    for (int64_t g = 0; g < n; ++g) put_fifth(word(c.raw[8 + g]), c.fifth[g]);
  }
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows& rows, int64_t g, int) {
    Words w = load_words(rows, g * kBytes + kFifth + 4);
    part_even_and_odd(w);
    return w;
  }
  template <int kI, int kHalf>
  SAIF_AVX512 static SAIF_INLINE __m512 value(__m512i w, const uint32_t* fifth) {
    constexpr int kTurn = (4 - 16 * kHalf - 2 * kI) & 31;  // bit 16 half + 2 i to bit 4
    const __m512i high = _mm512_rol_epi32(_mm512_load_si512(fifth), kTurn);
    const __m512i code =
        _mm512_ternarylogic_epi32(_mm512_set1_epi32(15), _mm512_srli_epi32(w, 8 * (kI % 4) + 4 * kHalf), high, 0xca);
    return _mm512_permutex2var_ps(_mm512_load_ps(kLow), code, _mm512_load_ps(kHigh));
  }
};
using Q50 = NibblesAndBit<22, 2, false, kMinus16ToMinus1, kZeroTo15>;
using Q51 = NibblesAndBit<24, 4, true, kZeroTo15, k16To31>;

struct Q80 : Signed {
  static constexpr int kPerChunk = 8, kBytes = 34, kScales = 1;
  static constexpr bool kOffset = false, kBothNibbles = false;
  static SAIF_INLINE void fetch(const Rows& rows, int64_t n, Chunk& c) { Small<kBytes, false>::fetch(rows, n, c); }
  SAIF_AVX512 static SAIF_INLINE void scales(int64_t n, Chunk& c) { Small<kBytes, false>::scales(n, kByteScale, c); }
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows& rows, int64_t g, int half) {
    return load_words(rows, g * kBytes + 2 + 16 * half);
  }
};

// Q4_K and Q5_K
struct SixBitScales {
  static constexpr int kPerChunk = 1, kScales = 1;
  static constexpr bool kOffset = true, kBothNibbles = false;
  static SAIF_INLINE void fetch(const Rows& rows, int64_t, Chunk& c) { copy_words(rows, 0, 4, 4, c.raw); }
  SAIF_AVX512 static SAIF_INLINE void scales(int64_t, Chunk& c) {
    const __m512 d = low_half(word(c.raw[0])), dmin = _mm512_sub_ps(_mm512_setzero_ps(), high_half(word(c.raw[0])));
    const __m512i a = word(c.raw[1]), b = word(c.raw[2]), both = word(c.raw[3]);
    for (int i = 0; i < 8; ++i) {
      const int byte = 8 * (i % 4);
      __m512i scale = field(a, byte, 63), min = field(b, byte, 63);
      if (i >= 4) {
        scale = _mm512_or_si512(field(both, byte, 15), _mm512_slli_epi32(field(a, byte + 6, 3), 4));
        min = _mm512_or_si512(field(both, byte + 4, 15), _mm512_slli_epi32(field(b, byte + 6, 3), 4));
      }
      put(_mm512_mul_ps(d, _mm512_cvtepi32_ps(scale)), c.scale[i]);
      put(_mm512_mul_ps(dmin, _mm512_cvtepi32_ps(min)), c.offset[i]);
    }
  }
};

struct Q4K : SixBitScales, Coded<Q4K> {
  static constexpr int kBytes = 144;
  static constexpr const float* kTable = kZeroTo15;
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows& rows, int64_t g, int half) {
    Words w = load_words(rows, 16 + 32 * (g / 2) + 16 * half);
    shift_right(w, static_cast<int>(4 * (g % 2)));
    part_even_and_odd(w);
    return w;
  }
};

struct Q5K : SixBitScales {
  static constexpr int kBytes = 176;
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows& rows, int64_t g, int half) {
    Words w = load_words(rows, 48 + 32 * (g / 2) + 16 * half);
    shift_right(w, static_cast<int>(4 * (g % 2)));
    merge(w, load_words(rows, 16 + 16 * half), static_cast<int>(4 - g), 15);
    part_even_and_odd(w);
    return w;
  }
  template <int kI, int>
  SAIF_AVX512 static SAIF_INLINE __m512 value(__m512i w, const uint32_t*) {
    const __m512i code = _mm512_srli_epi32(w, 8 * (kI % 4));
    return _mm512_permutex2var_ps(_mm512_load_ps(kZeroTo15), code, _mm512_load_ps(k16To31));
  }
};

struct Q6K : Signed {
  static constexpr int kPerChunk = 1, kBytes = 210, kScales = 2;
  static constexpr bool kOffset = false, kBothNibbles = false;
  static SAIF_INLINE void fetch(const Rows& rows, int64_t, Chunk& c) {
    copy_words(rows, 192, 4, 4, c.raw);
    copy_words(rows, 206, 0, 1, c.raw + 4);  // d is its upper half
  }
  SAIF_AVX512 static SAIF_INLINE void scales(int64_t, Chunk& c) {
    const __m512 d = _mm512_mul_ps(high_half(word(c.raw[4])), _mm512_set1_ps(kByteScale));
    for (int i = 0; i < 16; ++i) {
      const __m512i top = _mm512_sll_epi32(word(c.raw[i / 4]), _mm_cvtsi32_si128(24 - 8 * (i % 4)));
      put(_mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_srai_epi32(top, 24))), c.scale[i]);
    }
  }
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows& rows, int64_t g, int half) {
    Words w = load_words(rows, 64 * (g / 4) + 32 * (g % 2) + 16 * half);
    shift_right(w, static_cast<int>(4 * (g % 4 / 2)));
    merge(w, load_words(rows, 128 + 32 * (g / 4) + 16 * half), static_cast<int>(4 - 2 * (g % 4)), 15);
    SAIF_UNROLL
    for (int i = 0; i < 4; ++i) {
      w.v[i] = _mm512_sub_epi8(_mm512_and_si512(w.v[i], _mm512_set1_epi8(63)), _mm512_set1_epi8(32));
    }
    return w;
  }
};

struct Q2K : Coded<Q2K> {
  static constexpr int kPerChunk = 1, kBytes = 84, kScales = 2;
  static constexpr bool kOffset = true, kBothNibbles = false;
  static constexpr const float* kTable = kTwoBits;
  static SAIF_INLINE void fetch(const Rows& rows, int64_t, Chunk& c) {
    copy_words(rows, 0, 4, 4, c.raw);
    copy_words(rows, 80, 0, 1, c.raw + 4);
  }
  SAIF_AVX512 static SAIF_INLINE void scales(int64_t, Chunk& c) {
    const __m512 d = low_half(word(c.raw[4])), dmin = _mm512_sub_ps(_mm512_setzero_ps(), high_half(word(c.raw[4])));
    for (int i = 0; i < 16; ++i) {
      const __m512i w = word(c.raw[i / 4]);
      put(_mm512_mul_ps(d, _mm512_cvtepi32_ps(field(w, 8 * (i % 4), 15))), c.scale[i]);
      put(_mm512_mul_ps(dmin, _mm512_cvtepi32_ps(field(w, 8 * (i % 4) + 4, 15))), c.offset[i]);
    }
  }
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows& rows, int64_t g, int half) {
    Words w = load_words(rows, 16 + 32 * (g / 4) + 16 * half);
    shift_right(w, static_cast<int>(2 * (g % 4)));
    part_even_and_odd(w);
    return w;
  }
};

struct Q3K : Coded<Q3K> {
  static constexpr int kPerChunk = 1, kBytes = 110, kScales = 2;
  static constexpr bool kOffset = false, kBothNibbles = false;
  static constexpr const float* kTable = kThreeBits;
  static SAIF_INLINE void fetch(const Rows& rows, int64_t, Chunk& c) {
    copy_words(rows, 96, 4, 3, c.raw);
    copy_words(rows, 106, 0, 1, c.raw + 4);  // d is its upper half
  }
  SAIF_AVX512 static SAIF_INLINE void scales(int64_t, Chunk& c) {
    const __m512 d = high_half(word(c.raw[4]));
    for (int i = 0; i < 16; ++i) {
      const __m512i low = field(word(c.raw[i % 8 / 4]), 8 * (i % 4) + 4 * (i / 8), 15);
      const __m512i high = field(word(c.raw[2]), 8 * (i % 4) + 2 * (i / 4), 3);
      const __m512i scale = _mm512_sub_epi32(_mm512_or_si512(low, _mm512_slli_epi32(high, 4)), _mm512_set1_epi32(32));
      put(_mm512_mul_ps(d, _mm512_cvtepi32_ps(scale)), c.scale[i]);
    }
  }
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows& rows, int64_t g, int half) {
    Words w = load_words(rows, 32 + 32 * (g / 4) + 16 * half);
    shift_right(w, static_cast<int>(2 * (g % 4)));
    merge(w, load_words(rows, 16 * half), static_cast<int>(2 - g), 3);
    part_even_and_odd(w);
    return w;
  }
};

struct Iq4Xs : Coded<Iq4Xs> {
  static constexpr int kPerChunk = 1, kBytes = 136, kScales = 1;
  static constexpr bool kOffset = false, kBothNibbles = true;
  static constexpr const float* kTable = kSteps;
  static SAIF_INLINE void fetch(const Rows& rows, int64_t, Chunk& c) { copy_words(rows, 0, 4, 2, c.raw); }
  SAIF_AVX512 static SAIF_INLINE void scales(int64_t, Chunk& c) {
    const __m512 d = low_half(word(c.raw[0]));
    for (int i = 0; i < 8; ++i) {
      const __m512i low = field(word(c.raw[1]), 4 * i, 15), high = field(word(c.raw[0]), 16 + 2 * i, 3);
      const __m512i scale = _mm512_sub_epi32(_mm512_or_si512(low, _mm512_slli_epi32(high, 4)), _mm512_set1_epi32(32));
      put(_mm512_mul_ps(d, _mm512_cvtepi32_ps(scale)), c.scale[i]);
    }
  }
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows& rows, int64_t g, int) {
    Words w = load_words(rows, 8 + 16 * g);
    part_even_and_odd(w);
    return w;
  }
};

}  // namespace saif::cpu::avx512
