// How 256 inputs of one row of each block type become unsigned codes, in order, and float32 scales.
//
// A weight is scale * (code - bias) + min. `decode` reads kGroups groups of 64 inputs; types with blocks of 256 are
// always read whole.
#pragma once

#include <cstring>

#include "kernels/cpu/avx512-inl.h"

#define SAIF_VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c,fma")))

namespace saif::cpu::int8 {

struct Decoded {
  __m512i codes[4];  // of each group of 64
  __m512 scales;     // of each 16 inputs where kHalves, else, in eight lanes, of each 32
  __m512 min;        // the same; only where kMin
};

template <typename T>
SAIF_INLINE T load(const uint8_t* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

SAIF_VNNI SAIF_INLINE float half(const uint8_t* p) { return _cvtsh_ss(load<uint16_t>(p)); }
SAIF_VNNI SAIF_INLINE __m128i bytes16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
SAIF_VNNI SAIF_INLINE __m256i bytes32(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

// Shifts right by n0..n3 in the four quarters.
SAIF_VNNI SAIF_INLINE __m512i shift_quarters(__m512i v, int n0, int n1, int n2, int n3) {
  return _mm512_srlv_epi64(v, _mm512_setr_epi64(n0, n0, n1, n1, n2, n2, n3, n3));
}
SAIF_VNNI SAIF_INLINE __m512i low_bits(__m512i v, int mask) {
  return _mm512_and_si512(v, _mm512_set1_epi8(static_cast<char>(mask)));
}

// 16 bytes at each of two addresses: low nibbles then high ones of the first, then of the second.
SAIF_VNNI SAIF_INLINE __m512i nibbles16(const uint8_t* a, const uint8_t* b) {
  const __m512i both = _mm512_mask_broadcast_i32x4(_mm512_broadcast_i32x4(bytes16(a)), 0xff00, bytes16(b));
  return low_bits(shift_quarters(both, 0, 4, 0, 4), 15);
}
// 32 bytes: low nibbles, then high ones.
SAIF_VNNI SAIF_INLINE __m512i nibbles32(const uint8_t* p) {
  return low_bits(shift_quarters(_mm512_broadcast_i64x4(bytes32(p)), 0, 0, 4, 4), 15);
}
// 32 bytes: the two bits from `bit` on, then the two above them.
SAIF_VNNI SAIF_INLINE __m512i two_bits(const uint8_t* p, int bit) {
  return low_bits(shift_quarters(_mm512_broadcast_i64x4(bytes32(p)), bit, bit, bit + 2, bit + 2), 3);
}
// Adds `by` where bit `bit` of the first 32 codes' bytes at p, or bit + 1 of the other 32 codes', is set.
SAIF_VNNI SAIF_INLINE __m512i add_where(__m512i codes, const uint8_t* p, int bit, int by) {
  const __m512i tested = _mm512_inserti64x4(_mm512_set1_epi8(static_cast<char>(1 << bit)),
                                            _mm256_set1_epi8(static_cast<char>(2 << bit)), 1);
  const __mmask64 set = _mm512_test_epi8_mask(_mm512_broadcast_i64x4(bytes32(p)), tested);
  return _mm512_mask_add_epi8(codes, set, codes, _mm512_set1_epi8(static_cast<char>(by)));
}

// --- scales

// The scales of a group from those of eight blocks of 32, or of sixteen of 16.
SAIF_VNNI SAIF_INLINE __m512 of_blocks(__m512 scales, int group) {
  const __m512i first = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  return _mm512_permutexvar_ps(_mm512_add_epi32(first, _mm512_set1_epi32(2 * group)), scales);
}
SAIF_VNNI SAIF_INLINE __m512 of_halves(__m512 scales, int group) {
  const __m512i first = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  return _mm512_permutexvar_ps(_mm512_add_epi32(first, _mm512_set1_epi32(4 * group)), scales);
}
// The scale of each lane of a group, which is 4 inputs.
template <class Type>
SAIF_VNNI SAIF_INLINE __m512 scale_of(const Decoded& d, int group) {
  return Type::kHalves ? of_halves(d.scales, group) : of_blocks(d.scales, group);
}
// The minimum of each 16 inputs of all groups.
template <class Type>
SAIF_VNNI SAIF_INLINE __m512 min_of(const Decoded& d) {
  const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return Type::kHalves ? d.min : _mm512_permutexvar_ps(twice, d.min);
}
SAIF_VNNI SAIF_INLINE __m256 bytes_to_floats(uint64_t eight) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(eight))));
}

// float16 values kStep bytes apart, zeros past n.
template <int kStep, int kN>
SAIF_VNNI SAIF_INLINE __m256 halves(const uint8_t* p) {
  const auto at = [&](int i) { return i < kN ? load<int16_t>(p + (i < kN ? i : 0) * kStep) : int16_t{0}; };
  return _mm256_cvtph_ps(_mm_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)));
}

// --- types

// kBias as a shift of -128 to the right; kNoBias: codes are the values.
constexpr int kNoBias = -1;

// Blocks of 32: d (and m) as float16, perhaps 32 fifth bits, then 16 bytes of nibbles.
template <int kTypeBytes, bool kTypeMin, bool kFifth, int kTypeShift>
struct Small {
  static constexpr int kBytes = kTypeBytes, kInputs = 32, kShift = kTypeShift;
  static constexpr bool kMin = kTypeMin, kHalves = false;
  static constexpr int kCodes = kBytes - 16, kFifthAt = kCodes - 4;
  template <int kGroups>
  SAIF_VNNI static SAIF_INLINE void decode(const uint8_t* p, Decoded& d) {
    SAIF_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      const uint8_t *a = p + 2 * g * kBytes, *b = a + kBytes;
      d.codes[g] = nibbles16(a + kCodes, b + kCodes);
      if constexpr (kFifth) {
        const uint64_t bits = load<uint32_t>(a + kFifthAt) | uint64_t{load<uint32_t>(b + kFifthAt)} << 32;
        d.codes[g] = _mm512_mask_add_epi8(d.codes[g], bits, d.codes[g], _mm512_set1_epi8(16));
      }
    }
    d.scales = _mm512_castps256_ps512(halves<kBytes, 2 * kGroups>(p));
    // w = d c + m
    if constexpr (kMin) d.min = _mm512_castps256_ps512(halves<kBytes, 2 * kGroups>(p + 2));
  }
};
using Q40 = Small<18, false, false, 4>;
using Q41 = Small<20, true, false, kNoBias>;
using Q50 = Small<22, false, true, 3>;
using Q51 = Small<24, true, true, kNoBias>;

SAIF_VNNI SAIF_INLINE __m512i steps(__m512i nibbles) {  // of IQ4_NL and IQ4_XS, + 128
  const __m128i table = _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, static_cast<char>(129), static_cast<char>(141),
                                      static_cast<char>(153), static_cast<char>(166), static_cast<char>(181),
                                      static_cast<char>(197), static_cast<char>(217), static_cast<char>(241));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), nibbles);
}

struct Iq4Nl {
  static constexpr int kBytes = 18, kInputs = 32, kShift = 0;
  static constexpr bool kMin = false, kHalves = false;
  template <int kGroups>
  SAIF_VNNI static SAIF_INLINE void decode(const uint8_t* p, Decoded& d) {
    Q40::decode<kGroups>(p, d);
    SAIF_UNROLL
    for (int g = 0; g < kGroups; ++g) d.codes[g] = steps(d.codes[g]);
  }
};

struct Q80 {
  static constexpr int kBytes = 34, kInputs = 32, kShift = 0;
  static constexpr bool kMin = false, kHalves = false;
  template <int kGroups>
  SAIF_VNNI static SAIF_INLINE void decode(const uint8_t* p, Decoded& d) {
    d.scales = _mm512_castps256_ps512(halves<kBytes, 2 * kGroups>(p));
    SAIF_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      const uint8_t* a = p + 2 * g * kBytes + 2;
      const __m512i codes = _mm512_inserti64x4(_mm512_castsi256_si512(bytes32(a)), bytes32(a + kBytes), 1);
      d.codes[g] = _mm512_xor_si512(codes, _mm512_set1_epi8(static_cast<char>(0x80)));
    }
  }
};

// Q4_K, Q5_K: scales and minima of six bits in 12 bytes.
struct SixBits {
  static constexpr int kInputs = 256, kShift = kNoBias;
  static constexpr bool kMin = true, kHalves = false;
  SAIF_VNNI static SAIF_INLINE void scales(const uint8_t* p, Decoded& d) {
    const uint32_t a = load<uint32_t>(p + 4), b = load<uint32_t>(p + 8), both = load<uint32_t>(p + 12);
    const uint32_t scale_high = (both & 0x0f0f0f0fU) | ((a >> 6) & 0x03030303U) << 4;
    const uint32_t min_high = ((both >> 4) & 0x0f0f0f0fU) | ((b >> 6) & 0x03030303U) << 4;
    const __m256 scale = bytes_to_floats((a & 0x3f3f3f3fU) | uint64_t{scale_high} << 32);
    const __m256 min = bytes_to_floats((b & 0x3f3f3f3fU) | uint64_t{min_high} << 32);
    d.scales = _mm512_castps256_ps512(_mm256_mul_ps(scale, _mm256_set1_ps(half(p))));
    d.min = _mm512_castps256_ps512(_mm256_mul_ps(min, _mm256_set1_ps(-half(p + 2))));
  }
};

struct Q4K : SixBits {
  static constexpr int kBytes = 144;
  template <int>
  SAIF_VNNI static SAIF_INLINE void decode(const uint8_t* p, Decoded& d) {
    scales(p, d);
    SAIF_UNROLL
    for (int g = 0; g < 4; ++g) d.codes[g] = nibbles32(p + 16 + 32 * g);
  }
};

struct Q5K : SixBits {
  static constexpr int kBytes = 176;
  template <int>
  SAIF_VNNI static SAIF_INLINE void decode(const uint8_t* p, Decoded& d) {
    scales(p, d);
    SAIF_UNROLL
    for (int g = 0; g < 4; ++g) d.codes[g] = add_where(nibbles32(p + 48 + 32 * g), p + 16, 2 * g, 16);
  }
};

struct Q6K {
  static constexpr int kBytes = 210, kInputs = 256, kShift = 2;
  static constexpr bool kMin = false, kHalves = true;
  template <int>
  SAIF_VNNI static SAIF_INLINE void decode(const uint8_t* p, Decoded& d) {
    d.scales = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes16(p + 192))), _mm512_set1_ps(half(p + 208)));
    SAIF_UNROLL
    for (int g = 0; g < 4; ++g) {
      const __m512i low = _mm512_srli_epi16(_mm512_loadu_si512(p + 64 * (g / 2)), 4 * (g % 2));
      const __m512i high = two_bits(p + 128 + 32 * (g / 2), 4 * (g % 2));
      d.codes[g] = _mm512_or_si512(low_bits(low, 15), _mm512_slli_epi16(high, 4));
    }
  }
};

struct Q2K {
  static constexpr int kBytes = 84, kInputs = 256, kShift = kNoBias;
  static constexpr bool kMin = true, kHalves = true;
  template <int>
  SAIF_VNNI static SAIF_INLINE void decode(const uint8_t* p, Decoded& d) {
    const __m128i both = bytes16(p), nibble = _mm_set1_epi8(15);
    const __m512i scale = _mm512_cvtepu8_epi32(_mm_and_si128(both, nibble));
    const __m512i min = _mm512_cvtepu8_epi32(_mm_and_si128(_mm_srli_epi16(both, 4), nibble));
    d.scales = _mm512_mul_ps(_mm512_cvtepi32_ps(scale), _mm512_set1_ps(half(p + 80)));
    d.min = _mm512_mul_ps(_mm512_cvtepi32_ps(min), _mm512_set1_ps(-half(p + 82)));
    SAIF_UNROLL
    for (int g = 0; g < 4; ++g) {
      d.codes[g] = two_bits(p + 16 + 32 * (g / 2), 4 * (g % 2));
    }
  }
};

struct Q3K {
  static constexpr int kBytes = 110, kInputs = 256, kShift = 5;
  static constexpr bool kMin = false, kHalves = true;
  template <int>
  SAIF_VNNI static SAIF_INLINE void decode(const uint8_t* p, Decoded& d) {
    const uint64_t nibbles = load<uint64_t>(p + 96);
    const uint32_t high = load<uint32_t>(p + 104);
    const auto top = [&](int shift) { return uint64_t{((high >> shift) & 0x03030303U) << 4}; };
    const uint64_t first = (nibbles & 0x0f0f0f0f0f0f0f0fULL) | top(0) | top(2) << 32;
    const uint64_t second = ((nibbles >> 4) & 0x0f0f0f0f0f0f0f0fULL) | top(4) | top(6) << 32;
    const __m128i codes = _mm_set_epi64x(static_cast<int64_t>(second), static_cast<int64_t>(first));
    const __m512i scale = _mm512_sub_epi32(_mm512_cvtepu8_epi32(codes), _mm512_set1_epi32(32));
    d.scales = _mm512_mul_ps(_mm512_cvtepi32_ps(scale), _mm512_set1_ps(half(p + 108)));
    SAIF_UNROLL
    for (int g = 0; g < 4; ++g) {
      d.codes[g] = add_where(two_bits(p + 32 + 32 * (g / 2), 4 * (g % 2)), p, 2 * g, 4);
    }
  }
};

struct Iq4Xs {
  static constexpr int kBytes = 136, kInputs = 256, kShift = 0;
  static constexpr bool kMin = false, kHalves = false;
  template <int>
  SAIF_VNNI static SAIF_INLINE void decode(const uint8_t* p, Decoded& d) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i low = _mm256_srlv_epi32(_mm256_set1_epi32(load<int32_t>(p + 4)), _mm256_slli_epi32(lanes, 2));
    const __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(load<uint16_t>(p + 2)), _mm256_slli_epi32(lanes, 1));
    const __m256i scale = _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi32(15)),
                                          _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4));
    const __m256 signed_scale = _mm256_cvtepi32_ps(_mm256_sub_epi32(scale, _mm256_set1_epi32(32)));
    d.scales = _mm512_castps256_ps512(_mm256_mul_ps(signed_scale, _mm256_set1_ps(half(p))));
    SAIF_UNROLL
    for (int g = 0; g < 4; ++g) {
      d.codes[g] = steps(nibbles16(p + 8 + 32 * g, p + 24 + 32 * g));
    }
  }
};

}  // namespace saif::cpu::int8
