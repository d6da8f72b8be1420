// How the codes of 16 rows of each block type become bfloat16 pairs with one row per lane.
//
// A chunk is up to 256 inputs of 16 rows: 8 groups of 32 inputs. Its scales are unpacked to float32, one lane per row.
// The codes of half a group are loaded as words: vector j holds bytes [4 j, 4 j + 4) of each row, in the order 0, 2, 1,
// 3, so that the two 16-bit halves of a lane hold the codes of neighbouring inputs in the same bits: shifted down, they
// name the values of a unit in a table of bfloat16. Every code is an integer of at most 8 bits, exact in bfloat16.
#pragma once

#include <array>
#include <bit>
#include <cstring>

#include "kernels/cpu/avx512-inl.h"

namespace saif::cpu::avx512 {

struct Words {
  __m512i v[4];
};

using Lanes = uint32_t[16];  // one word of each row

// The scales of a chunk, one lane per row. A weight is scale * code + offset.
struct Chunk {
  // As stored. fetch() fills it well before scales() reads it: a vector cannot be loaded from narrow stores under way.
  alignas(64) Lanes raw[16];
  alignas(64) float scale[16][16];
  alignas(64) float offset[16][16];
  alignas(64) Lanes fifth[8][2];  // Q5_0, Q5_1: the fifth bits of a group's halves
};

// The codes of a chunk of types whose groups share bytes, loaded once: 16 bytes of each row apiece.
struct Codes {
  Words pieces[12];
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

// 16 bytes of each row, each row's in its own order: one row per lane.
SAIF_AVX512 SAIF_INLINE Words load_lanes(const Rows& rows, int64_t offset) {
  const uint8_t* p = rows.data + offset;
  const int64_t s = rows.stride;
  const __m512i a = four_rows(p, 4 * s), b = four_rows(p + s, 4 * s);
  const __m512i c = four_rows(p + 2 * s, 4 * s), d = four_rows(p + 3 * s, 4 * s);
  const __m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
  const __m512i ab_high = _mm512_unpackhi_epi32(a, b), cd_high = _mm512_unpackhi_epi32(c, d);
  return {{_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd), _mm512_unpacklo_epi64(ab_high, cd_high),
           _mm512_unpackhi_epi64(ab_high, cd_high)}};
}

// The second byte of each lane changes place with the third.
SAIF_AVX512 SAIF_INLINE void pair_neighbours(Words& w) {
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
  SAIF_UNROLL
  for (int i = 0; i < 4; ++i) w.v[i] = _mm512_shuffle_epi8(w.v[i], order);
}

SAIF_AVX512 SAIF_INLINE Words load_words(const Rows& rows, int64_t offset) {
  Words w = load_lanes(rows, offset);
  pair_neighbours(w);
  return w;
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

// The same of four neighbouring words.
SAIF_AVX512 SAIF_INLINE void copy_four_words(const Rows& rows, int64_t offset, Lanes* out) {
  const Words w = load_lanes(rows, offset);
  SAIF_UNROLL
  for (int i = 0; i < 4; ++i) _mm512_store_si512(out[i], w.v[i]);
}

SAIF_AVX512 SAIF_INLINE __m512i word(const Lanes& w) { return _mm512_load_si512(w); }
SAIF_AVX512 SAIF_INLINE __m512 low_half(__m512i w) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(w)); }
SAIF_AVX512 SAIF_INLINE __m512 high_half(__m512i w) { return low_half(_mm512_srli_epi32(w, 16)); }

// (w >> shift) & mask
SAIF_AVX512 SAIF_INLINE __m512i field(__m512i w, int shift, int mask) {
  return _mm512_and_si512(_mm512_srl_epi32(w, _mm_cvtsi32_si128(shift)), _mm512_set1_epi32(mask));
}

// --- types. kPerChunk: blocks of a chunk. kScales: scales of a group. kOffset: has an added term. kBothNibbles: the
// second half of a group is the high nibbles of the same bytes. `pair` gives unit i of 8 of half a group.

// Integers as bfloat16: a table of 32 is named by the low five bits of each half lane.
template <size_t kN>
using Values = std::array<uint16_t, kN>;

template <size_t kN, class Value>
consteval Values<kN> values(const Value& value) {
  Values<kN> out{};
  for (size_t i = 0; i < kN; ++i) {
    out[i] = static_cast<uint16_t>(std::bit_cast<uint32_t>(static_cast<float>(value(static_cast<int>(i)))) >> 16);
  }
  return out;
}

constexpr int kSteps[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
alignas(64) constexpr auto kZeroTo15 = values<32>([](int i) { return i % 16; });
alignas(64) constexpr auto kZeroTo31 = values<32>([](int i) { return i; });
alignas(64) constexpr auto kMinus8To7 = values<32>([](int i) { return i % 16 - 8; });
alignas(64) constexpr auto kMinus16To15 = values<32>([](int i) { return i - 16; });
alignas(64) constexpr auto kMinus32To31 = values<64>([](int i) { return i - 32; });
alignas(64) constexpr auto kTwoBits = values<32>([](int i) { return i % 4; });
alignas(64) constexpr auto kThreeBits = values<32>([](int i) { return i % 8 - 4; });
alignas(64) constexpr auto kStepsTwice = values<32>([](int i) { return kSteps[i % 16]; });

SAIF_AVX512 SAIF_INLINE __m512i look_up(const Values<32>& table, __m512i codes) {
  return _mm512_permutexvar_epi16(codes, _mm512_load_si512(table.data()));
}

// The halves of a lane moved down, so that the codes of unit i lie in their low bits.
template <class Type, int kI, int kHalf>
SAIF_AVX512 SAIF_INLINE __m512i codes_of(const Words& w) {
  constexpr int kShift = 8 * (kI % 2) + (Type::kBothNibbles ? 4 * kHalf : 0);
  if constexpr (kShift == 0) return w.v[kI / 2];
  return _mm512_srli_epi16(w.v[kI / 2], kShift);
}

// Bytes [offset, offset + 16 n) of each row.
template <int kN>
SAIF_AVX512 SAIF_INLINE void load_pieces(const Rows& rows, int64_t offset, Words* out) {
  for (int i = 0; i < kN; ++i) out[i] = load_words(rows, offset + 16 * i);
}

// Whose groups share no bytes.
struct Separate {
  static SAIF_INLINE void load(const Rows&, Codes&) {}
};

// Codes of up to five bits.
template <class Type>
struct Coded {
  template <int kI, int kHalf>
  SAIF_AVX512 static SAIF_INLINE __m512i pair(const Words& w, const Chunk&, int64_t) {
    return look_up(Type::kTable, codes_of<Type, kI, kHalf>(w));
  }
};

// Blocks of 32: d, and perhaps m, as float16 at the beginning. A scale is d 2^kPower.
template <int kTypeBytes, bool kTypeOffset, int kPower = 0>
struct Small : Separate {
  static constexpr int kPerChunk = 8, kBytes = kTypeBytes, kScales = 1;
  static constexpr bool kOffset = kTypeOffset;
  static SAIF_INLINE void fetch(const Rows& rows, int64_t n, Chunk& c) { copy_words(rows, 0, kBytes, n, c.raw); }
  SAIF_AVX512 static SAIF_INLINE void scales(int64_t n, Chunk& c) {
    for (int64_t g = 0; g < n; ++g) {
      __m512 d = low_half(word(c.raw[g]));
      if (kPower != 0) d = _mm512_scalef_ps(d, _mm512_set1_ps(kPower));
      _mm512_store_ps(c.scale[g], d);
      if (kOffset) _mm512_store_ps(c.offset[g], high_half(word(c.raw[g])));
    }
  }
};

template <int kBytes, int kCodes, bool kOffset, const Values<32>& kTypeTable>
struct Nibbles : Small<kBytes, kOffset>, Coded<Nibbles<kBytes, kCodes, kOffset, kTypeTable>> {
  static constexpr bool kBothNibbles = true;
  static constexpr const Values<32>& kTable = kTypeTable;
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows& rows, const Codes&, int64_t g, int) {
    return load_words(rows, g * kBytes + kCodes);
  }
};
using Q40 = Nibbles<18, 2, false, kMinus8To7>;
using Q41 = Nibbles<20, 4, true, kZeroTo15>;
using Iq4Nl = Nibbles<18, 2, false, kStepsTwice>;

// The 16 bits of half a group in both halves of a lane, the upper ones one further down.
template <int kHalf>
SAIF_AVX512 SAIF_INLINE void put_fifth(__m512i lanes, Lanes& out) {
  constexpr char kA = 2 * kHalf, kB = kA + 1;
  const __m128i twice = _mm_setr_epi8(kA, kB, kA, kB, kA + 4, kB + 4, kA + 4, kB + 4, kA + 8, kB + 8, kA + 8, kB + 8,
                                      kA + 12, kB + 12, kA + 12, kB + 12);
  _mm512_store_si512(
      out, _mm512_srlv_epi16(_mm512_shuffle_epi8(lanes, _mm512_broadcast_i32x4(twice)), _mm512_set1_epi32(1 << 16)));
}

template <int kBytes, int kFifth, bool kOffset, const Values<32>& kTable>
struct NibblesAndBit : Small<kBytes, kOffset> {
  static constexpr bool kBothNibbles = true;
  static SAIF_INLINE void fetch(const Rows& rows, int64_t n, Chunk& c) {
    Small<kBytes, kOffset>::fetch(rows, n, c);
    copy_words(rows, kFifth, kBytes, n, c.raw + 8);
  }
  SAIF_AVX512 static SAIF_INLINE void scales(int64_t n, Chunk& c) {
    Small<kBytes, kOffset>::scales(n, c);
    for (int64_t g = 0; g < n; ++g) {
      put_fifth<0>(word(c.raw[8 + g]), c.fifth[g][0]);
      put_fifth<1>(word(c.raw[8 + g]), c.fifth[g][1]);
    }
  }
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows& rows, const Codes&, int64_t g, int) {
    return load_words(rows, g * kBytes + kFifth + 4);
  }
  template <int kI, int kHalf>
  SAIF_AVX512 static SAIF_INLINE __m512i pair(const Words& w, const Chunk& c, int64_t g) {
    const __m512i bits = word(c.fifth[g][kHalf]);  // bit 2 i goes to bit 4
    const __m512i fifth =
        kI <= 2 ? _mm512_slli_epi16(bits, kI <= 2 ? 4 - 2 * kI : 0) : _mm512_srli_epi16(bits, kI > 2 ? 2 * kI - 4 : 0);
    const __m512i nibbles = codes_of<NibblesAndBit, kI, kHalf>(w);
    return look_up(kTable, _mm512_ternarylogic_epi32(_mm512_set1_epi16(15), nibbles, fifth, 0xca));
  }
};
using Q50 = NibblesAndBit<22, 2, false, kMinus16To15>;
using Q51 = NibblesAndBit<24, 4, true, kZeroTo31>;

struct Q80 : Small<34, false, -24> {
  static constexpr bool kBothNibbles = false;
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows& rows, const Codes&, int64_t g, int half) {
    return load_lanes(rows, g * kBytes + 2 + 16 * half);
  }
  // Too many values for a table. Bytes at the top of a lane, 2^24 times too large, become float32; of each pair of
  // those the upper halves are all.
  template <int kI, int>
  SAIF_AVX512 static SAIF_INLINE __m512i pair(const Words& w, const Chunk&, int64_t) {
    const __m512i upper = _mm512_add_epi32(_mm512_set1_epi32((32 + 1) << 16 | 1), doubled_lanes());
    return _mm512_permutex2var_epi16(widened<2 * (kI % 2)>(w.v[kI / 2]), upper, widened<2 * (kI % 2) + 1>(w.v[kI / 2]));
  }

 private:
  // 2 i in both halves of lane i
  SAIF_AVX512 static SAIF_INLINE __m512i doubled_lanes() {
    const __m512i lane = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_or_si512(lane, _mm512_slli_epi32(lane, 16));
  }
  template <int kByte>
  SAIF_AVX512 static SAIF_INLINE __m512i widened(__m512i v) {
    constexpr char kNone = static_cast<char>(0x80);
    const __m128i order = _mm_setr_epi8(kNone, kNone, kNone, kByte, kNone, kNone, kNone, kByte + 4, kNone, kNone, kNone,
                                        kByte + 8, kNone, kNone, kNone, kByte + 12);
    __m512i top = _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(order));  // shuffles are what it waits for
    if (kByte == 0) top = _mm512_slli_epi32(v, 24);
    if (kByte == 3) top = _mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xff000000U)));
    return _mm512_castps_si512(_mm512_cvtepi32_ps(top));
  }
};

// Q4_K and Q5_K
struct SixBitScales {
  static constexpr int kPerChunk = 1, kScales = 1;
  static constexpr bool kOffset = true, kBothNibbles = false;
  SAIF_AVX512 static SAIF_INLINE void fetch(const Rows& rows, int64_t, Chunk& c) { copy_four_words(rows, 0, c.raw); }
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
      _mm512_store_ps(c.scale[i], _mm512_mul_ps(d, _mm512_cvtepi32_ps(scale)));
      _mm512_store_ps(c.offset[i], _mm512_mul_ps(dmin, _mm512_cvtepi32_ps(min)));
    }
  }
};

struct Q4K : SixBitScales, Coded<Q4K> {
  static constexpr int kBytes = 144;
  static constexpr const Values<32>& kTable = kZeroTo15;
  SAIF_AVX512 static SAIF_INLINE void load(const Rows& rows, Codes& codes) { load_pieces<8>(rows, 16, codes.pieces); }
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows&, const Codes& codes, int64_t g, int half) {
    Words w = codes.pieces[g / 2 * 2 + half];
    shift_right(w, static_cast<int>(4 * (g % 2)));
    return w;
  }
};

struct Q5K : SixBitScales, Coded<Q5K> {
  static constexpr int kBytes = 176;
  static constexpr const Values<32>& kTable = kZeroTo31;
  SAIF_AVX512 static SAIF_INLINE void load(const Rows& rows, Codes& codes) {
    load_pieces<8>(rows, 48, codes.pieces);
    load_pieces<2>(rows, 16, codes.pieces + 8);
  }
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows&, const Codes& codes, int64_t g, int half) {
    Words w = codes.pieces[g / 2 * 2 + half];
    shift_right(w, static_cast<int>(4 * (g % 2)));
    merge(w, codes.pieces[8 + half], static_cast<int>(4 - g), 15);
    return w;
  }
};

struct Q6K {
  static constexpr int kPerChunk = 1, kBytes = 210, kScales = 2;
  static constexpr bool kOffset = false, kBothNibbles = false;
  SAIF_AVX512 static SAIF_INLINE void fetch(const Rows& rows, int64_t, Chunk& c) {
    copy_four_words(rows, 192, c.raw);
    copy_words(rows, 206, 0, 1, c.raw + 4);  // d is its upper half
  }
  SAIF_AVX512 static SAIF_INLINE void scales(int64_t, Chunk& c) {
    const __m512 d = high_half(word(c.raw[4]));
    for (int i = 0; i < 16; ++i) {
      const __m512i top = _mm512_sll_epi32(word(c.raw[i / 4]), _mm_cvtsi32_si128(24 - 8 * (i % 4)));
      _mm512_store_ps(c.scale[i], _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_srai_epi32(top, 24))));
    }
  }
  SAIF_AVX512 static SAIF_INLINE void load(const Rows& rows, Codes& codes) { load_pieces<12>(rows, 0, codes.pieces); }
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows&, const Codes& codes, int64_t g, int half) {
    Words w = codes.pieces[g / 4 * 4 + g % 2 * 2 + half];
    shift_right(w, static_cast<int>(4 * (g % 4 / 2)));
    merge(w, codes.pieces[8 + g / 4 * 2 + half], static_cast<int>(4 - 2 * (g % 4)), 15);
    return w;
  }
  template <int kI, int kHalf>
  SAIF_AVX512 static SAIF_INLINE __m512i pair(const Words& w, const Chunk&, int64_t) {
    const uint16_t* table = kMinus32To31.data();
    return _mm512_permutex2var_epi16(_mm512_load_si512(table), codes_of<Q6K, kI, kHalf>(w),
                                     _mm512_load_si512(table + 32));
  }
};

struct Q2K : Coded<Q2K> {
  static constexpr int kPerChunk = 1, kBytes = 84, kScales = 2;
  static constexpr bool kOffset = true, kBothNibbles = false;
  static constexpr const Values<32>& kTable = kTwoBits;
  SAIF_AVX512 static SAIF_INLINE void fetch(const Rows& rows, int64_t, Chunk& c) {
    copy_four_words(rows, 0, c.raw);
    copy_words(rows, 80, 0, 1, c.raw + 4);
  }
  SAIF_AVX512 static SAIF_INLINE void scales(int64_t, Chunk& c) {
    const __m512 d = low_half(word(c.raw[4])), dmin = _mm512_sub_ps(_mm512_setzero_ps(), high_half(word(c.raw[4])));
    for (int i = 0; i < 16; ++i) {
      const __m512i w = word(c.raw[i / 4]);
      _mm512_store_ps(c.scale[i], _mm512_mul_ps(d, _mm512_cvtepi32_ps(field(w, 8 * (i % 4), 15))));
      _mm512_store_ps(c.offset[i], _mm512_mul_ps(dmin, _mm512_cvtepi32_ps(field(w, 8 * (i % 4) + 4, 15))));
    }
  }
  SAIF_AVX512 static SAIF_INLINE void load(const Rows& rows, Codes& codes) { load_pieces<4>(rows, 16, codes.pieces); }
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows&, const Codes& codes, int64_t g, int half) {
    Words w = codes.pieces[g / 4 * 2 + half];
    shift_right(w, static_cast<int>(2 * (g % 4)));
    return w;
  }
};

struct Q3K : Coded<Q3K> {
  static constexpr int kPerChunk = 1, kBytes = 110, kScales = 2;
  static constexpr bool kOffset = false, kBothNibbles = false;
  static constexpr const Values<32>& kTable = kThreeBits;
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
      _mm512_store_ps(c.scale[i], _mm512_mul_ps(d, _mm512_cvtepi32_ps(scale)));
    }
  }
  SAIF_AVX512 static SAIF_INLINE void load(const Rows& rows, Codes& codes) {
    load_pieces<4>(rows, 32, codes.pieces);
    load_pieces<2>(rows, 0, codes.pieces + 4);
  }
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows&, const Codes& codes, int64_t g, int half) {
    Words w = codes.pieces[g / 4 * 2 + half];
    shift_right(w, static_cast<int>(2 * (g % 4)));
    merge(w, codes.pieces[4 + half], static_cast<int>(2 - g), 3);
    return w;
  }
};

struct Iq4Xs : Separate, Coded<Iq4Xs> {
  static constexpr int kPerChunk = 1, kBytes = 136, kScales = 1;
  static constexpr bool kOffset = false, kBothNibbles = true;
  static constexpr const Values<32>& kTable = kStepsTwice;
  static SAIF_INLINE void fetch(const Rows& rows, int64_t, Chunk& c) { copy_words(rows, 0, 4, 2, c.raw); }
  SAIF_AVX512 static SAIF_INLINE void scales(int64_t, Chunk& c) {
    const __m512 d = low_half(word(c.raw[0]));
    for (int i = 0; i < 8; ++i) {
      const __m512i low = field(word(c.raw[1]), 4 * i, 15), high = field(word(c.raw[0]), 16 + 2 * i, 3);
      const __m512i scale = _mm512_sub_epi32(_mm512_or_si512(low, _mm512_slli_epi32(high, 4)), _mm512_set1_epi32(32));
      _mm512_store_ps(c.scale[i], _mm512_mul_ps(d, _mm512_cvtepi32_ps(scale)));
    }
  }
  SAIF_AVX512 static SAIF_INLINE Words words(const Rows& rows, const Codes&, int64_t g, int) {
    return load_words(rows, 8 + 16 * g);
  }
};

}  // namespace saif::cpu::avx512
