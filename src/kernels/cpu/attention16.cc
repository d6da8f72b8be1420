// For CPUs without bfloat16 dot products: bfloat16 is widened, float32 multiplied.
#include "kernels/cpu/attention16.h"

#include <algorithm>
#include <cmath>

namespace saif::cpu {

namespace {

float first(uint32_t word) { return bf16_to_f32(static_cast<uint16_t>(word)); }
float second(uint32_t word) { return bf16_to_f32(static_cast<uint16_t>(word >> 16)); }

void pack_queries(const float* const* q, int n_q, int64_t d_head, uint32_t* words) {
  for (int64_t d = 0; d < d_head; d += 2) {
    for (int i = 0; i < n_q; ++i) {
      const uint32_t high = d + 1 < d_head ? f32_to_bf16(q[i][d + 1]) : 0;
      *words++ = f32_to_bf16(q[i][d]) | high << 16;
    }
  }
}

void score(const uint32_t* q, int n_q, const uint16_t* keys, int64_t n_blocks, int64_t d_head, float* out,
           int64_t stride) {
  const int64_t pairs = (d_head + 1) / 2;
  for (int64_t b = 0; b < n_blocks; ++b) {
    for (int i = 0; i < n_q; ++i) {
      float sums[kKvBlock] = {};
      const uint16_t* k = keys + b * pairs * 2 * kKvBlock;
      for (int64_t d = 0; d < pairs; ++d, k += 2 * kKvBlock) {
        const float q0 = first(q[d * n_q + i]), q1 = second(q[d * n_q + i]);
        for (int64_t t = 0; t < kKvBlock; ++t) sums[t] += q0 * bf16_to_f32(k[2 * t]) + q1 * bf16_to_f32(k[2 * t + 1]);
      }
      std::copy_n(sums, kKvBlock, out + i * stride + b * kKvBlock);
    }
  }
}

void add(const float* p, int64_t stride, int n_q, const uint16_t* values, int64_t low, int64_t high, int64_t d_head,
         uint32_t*, float* sums) {
  for (int64_t t = low; t < high; ++t) {
    const uint16_t* v = values + t / 2 * 2 * d_head + (t % 2 == 0 ? 1 : 0);
    for (int i = 0; i < n_q; ++i) {
      const float weight = bf16_to_f32(f32_to_bf16(p[i * stride + t - low]));
      for (int64_t c = 0; c < d_head; ++c) sums[i * d_head + c] += weight * bf16_to_f32(v[2 * c]);
    }
  }
}

constexpr Attention16 kPlain{pack_queries, score, add};

}  // namespace

const Attention16& attention16(Isa isa) {
  const Attention16* fast = isa == Isa::kAvx512Bf16 ? attention16_avx512() : nullptr;
  return fast != nullptr ? *fast : kPlain;
}

}  // namespace saif::cpu
