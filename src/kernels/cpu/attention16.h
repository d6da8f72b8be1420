// The two products of attention over bfloat16 keys and values, with queries and probabilities rounded to bfloat16 and
// sums in float32. A word is a pair of bfloat16 as in KvView.
//
// Values of a pair of tokens are added in the tokens' order, one rounding each, and a token that is left out adds exact
// zeros: so a sum does not depend on how tokens are paired, that is on where a segment begins.
#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

namespace saif::cpu {

struct Attention16 {
  static constexpr int kMaxQueries = 6;

  // x[2 i], x[2 i + 1] of each query to word i * n_q + query; a last single x is paired with 0.
  void (*pack_queries)(const float* const* q, int n_q, int64_t d_head, uint32_t* words);
  // out[i * stride + 16 b + t] = query i . key t of block b
  void (*score)(const uint32_t* q, int n_q, const uint16_t* keys, int64_t n_blocks, int64_t d_head, float* out,
                int64_t stride);
  // sums[i * d_head + c] += p[i * stride + t - low] v[t][c] for tokens [low, high) of the segment that begins at
  // `values`. `words`: scratch for n_q * ((high - low) / 2 + 16) words.
  void (*add)(const float* p, int64_t stride, int n_q, const uint16_t* values, int64_t low, int64_t high,
              int64_t d_head, uint32_t* words, float* sums);
};

const Attention16& attention16(Isa isa);
const Attention16* attention16_avx512();  // nullptr where it is not compiled

}  // namespace saif::cpu
