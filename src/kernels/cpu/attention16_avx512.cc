#include "kernels/cpu/attention16.h"

#if defined(__x86_64__)

#include <algorithm>

#include "kernels/cpu/avx512-inl.h"

namespace saif::cpu {

namespace avx512 {
namespace {

constexpr int kBlocks = 4;  // of 16 keys, or of 16 columns of values, at a time: 6 x 4 sums of 32 registers

SAIF_AVX512 SAIF_INLINE __m512 dot(__m512 sum, uint32_t word, __m512i pairs) {
  return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(static_cast<int>(word)), (__m512bh)pairs);
}

SAIF_AVX512 void pack_queries(const float* const* q, int n_q, int64_t d_head, uint32_t* words) {
  for (int i = 0; i < n_q; ++i) {
    for (int64_t d = 0; d < d_head; d += 32) {
      const auto mask = [&](int64_t from) {
        return static_cast<__mmask16>((1U << std::clamp<int64_t>(d_head - from, 0, 16)) - 1);
      };
      const __m512 low = _mm512_maskz_loadu_ps(mask(d), q[i] + d),
                   high = _mm512_maskz_loadu_ps(mask(d + 16), q[i] + d + 16);
      alignas(64) uint32_t pairs[16];
      _mm512_store_si512(pairs, (__m512i)_mm512_cvtne2ps_pbh(high, low));
      const int64_t n = std::min<int64_t>(16, (d_head - d + 1) / 2);
      for (int64_t j = 0; j < n; ++j) words[(d / 2 + j) * n_q + i] = pairs[j];
    }
  }
}

template <int kQ, int kN>
SAIF_AVX512 SAIF_INLINE void score_blocks(const uint32_t* q, const uint16_t* keys, int64_t pairs, float* out,
                                          int64_t stride) {
  __m512 sums[kQ][kN];
  SAIF_UNROLL
  for (int i = 0; i < kQ; ++i) {
    SAIF_UNROLL
    for (int j = 0; j < kN; ++j) sums[i][j] = _mm512_setzero_ps();
  }
  const int64_t block = pairs * 2 * kKvBlock;
  for (int64_t d = 0; d < pairs; ++d, q += kQ, keys += 2 * kKvBlock) {
    __m512i key[kN];
    SAIF_UNROLL
    for (int j = 0; j < kN; ++j) key[j] = _mm512_loadu_si512(keys + j * block);
    SAIF_UNROLL
    for (int i = 0; i < kQ; ++i) {
      SAIF_UNROLL
      for (int j = 0; j < kN; ++j) sums[i][j] = dot(sums[i][j], q[i], key[j]);
    }
  }
  SAIF_UNROLL
  for (int i = 0; i < kQ; ++i) {
    SAIF_UNROLL
    for (int j = 0; j < kN; ++j) _mm512_storeu_ps(out + i * stride + j * kKvBlock, sums[i][j]);
  }
}

template <int kQ>
SAIF_AVX512 void score_as(const uint32_t* q, const uint16_t* keys, int64_t n_blocks, int64_t d_head, float* out,
                          int64_t stride) {
  const int64_t pairs = (d_head + 1) / 2, block = pairs * 2 * kKvBlock;
  int64_t b = 0;
  for (; b + kBlocks <= n_blocks; b += kBlocks) {
    score_blocks<kQ, kBlocks>(q, keys + b * block, pairs, out + b * kKvBlock, stride);
  }
  for (; b < n_blocks; ++b) score_blocks<kQ, 1>(q, keys + b * block, pairs, out + b * kKvBlock, stride);
}

void score(const uint32_t* q, int n_q, const uint16_t* keys, int64_t n_blocks, int64_t d_head, float* out,
           int64_t stride) {
  switch (n_q) {
    case 1:
      return score_as<1>(q, keys, n_blocks, d_head, out, stride);
    case 2:
      return score_as<2>(q, keys, n_blocks, d_head, out, stride);
    case 3:
      return score_as<3>(q, keys, n_blocks, d_head, out, stride);
    case 4:
      return score_as<4>(q, keys, n_blocks, d_head, out, stride);
    case 5:
      return score_as<5>(q, keys, n_blocks, d_head, out, stride);
    default:
      return score_as<6>(q, keys, n_blocks, d_head, out, stride);
  }
}

// --- values

// Pairs of probabilities, the first in the upper half as in a pair of values; n floats to n / 2 words.
SAIF_AVX512 void pack_weights(const float* p, int64_t n, uint32_t* words) {
  for (int64_t t = 0; t < n; t += 32) {
    const auto mask = [&](int64_t from) {
      return static_cast<__mmask16>((1U << std::clamp<int64_t>(n - from, 0, 16)) - 1);
    };
    const __m512 low = _mm512_maskz_loadu_ps(mask(t), p + t), high = _mm512_maskz_loadu_ps(mask(t + 16), p + t + 16);
    const auto pairs = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    _mm512_storeu_si512(words + t / 2, _mm512_rol_epi32(pairs, 16));
  }
}

// Words [0, n) of weights meet n pairs of values at v, of which the bits in `keep` count.
template <int kQ, int kN>
SAIF_AVX512 SAIF_INLINE void add_columns(const uint32_t* words, int64_t stride, const uint16_t* v, int64_t n,
                                         int64_t d_head, int64_t column, uint32_t keep, float* sums) {
  __mmask16 mask[kN];
  __m512 s[kQ][kN];
  SAIF_UNROLL
  for (int j = 0; j < kN; ++j) {
    mask[j] = static_cast<__mmask16>((1U << std::clamp<int64_t>(d_head - column - 16 * j, 0, 16)) - 1);
  }
  SAIF_UNROLL
  for (int i = 0; i < kQ; ++i) {
    SAIF_UNROLL
    for (int j = 0; j < kN; ++j) s[i][j] = _mm512_maskz_loadu_ps(mask[j], sums + i * d_head + column + 16 * j);
  }
  const __m512i bits = _mm512_set1_epi32(static_cast<int>(keep));
  v += 2 * column;
  for (int64_t t = 0; t < n; ++t, v += 2 * d_head) {
    __m512i value[kN];
    SAIF_UNROLL
    for (int j = 0; j < kN; ++j) {
      value[j] = _mm512_and_si512(_mm512_maskz_loadu_epi32(mask[j], v + 32 * j), bits);
    }
    SAIF_UNROLL
    for (int i = 0; i < kQ; ++i) {
      SAIF_UNROLL
      for (int j = 0; j < kN; ++j) s[i][j] = dot(s[i][j], words[i * stride + t], value[j]);
    }
  }
  SAIF_UNROLL
  for (int i = 0; i < kQ; ++i) {
    SAIF_UNROLL
    for (int j = 0; j < kN; ++j) _mm512_mask_storeu_ps(sums + i * d_head + column + 16 * j, mask[j], s[i][j]);
  }
}

template <int kQ>
SAIF_AVX512 void add_pairs(const uint32_t* words, int64_t stride, const uint16_t* v, int64_t n, int64_t d_head,
                           uint32_t keep, float* sums) {
  int64_t c = 0;
  for (; c + 16 * (kBlocks - 1) < d_head; c += 16 * kBlocks) {
    add_columns<kQ, kBlocks>(words, stride, v, n, d_head, c, keep, sums);
  }
  for (; c < d_head; c += 16) add_columns<kQ, 1>(words, stride, v, n, d_head, c, keep, sums);
}

template <int kQ>
SAIF_AVX512 void add_as(const float* p, int64_t stride, const uint16_t* values, int64_t low, int64_t high,
                        int64_t d_head, uint32_t* words, float* sums) {
  const auto single = [&](int64_t t) {  // a token whose pair is not wanted
    const bool is_first = t % 2 == 0;
    uint32_t weights[kQ];
    for (int i = 0; i < kQ; ++i) {
      const uint32_t weight = f32_to_bf16(p[i * stride + t - low]);
      weights[i] = is_first ? weight << 16 : weight;
    }
    add_pairs<kQ>(weights, 1, values + t / 2 * 2 * d_head, 1, d_head, is_first ? 0xffff0000U : 0xffffU, sums);
  };
  int64_t t = low;
  if (t % 2 != 0 && t < high) single(t++);
  const int64_t pairs = (high - t) / 2, words_stride = pairs + 16;
  if (pairs > 0) {
    for (int i = 0; i < kQ; ++i) pack_weights(p + i * stride + t - low, 2 * pairs, words + i * words_stride);
    add_pairs<kQ>(words, words_stride, values + t / 2 * 2 * d_head, pairs, d_head, 0xffffffffU, sums);
    t += 2 * pairs;
  }
  if (t < high) single(t);
}

void add(const float* p, int64_t stride, int n_q, const uint16_t* values, int64_t low, int64_t high, int64_t d_head,
         uint32_t* words, float* sums) {
  switch (n_q) {
    case 1:
      return add_as<1>(p, stride, values, low, high, d_head, words, sums);
    case 2:
      return add_as<2>(p, stride, values, low, high, d_head, words, sums);
    case 3:
      return add_as<3>(p, stride, values, low, high, d_head, words, sums);
    case 4:
      return add_as<4>(p, stride, values, low, high, d_head, words, sums);
    case 5:
      return add_as<5>(p, stride, values, low, high, d_head, words, sums);
    default:
      return add_as<6>(p, stride, values, low, high, d_head, words, sums);
  }
}

constexpr Attention16 kFast{pack_queries, score, add};

}  // namespace
}  // namespace avx512

const Attention16* attention16_avx512() { return &avx512::kFast; }

}  // namespace saif::cpu

#else

namespace saif::cpu {
const Attention16* attention16_avx512() { return nullptr; }
}  // namespace saif::cpu

#endif  // __x86_64__
