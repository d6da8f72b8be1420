// Moves and roundings: compiled for the baseline.
#include <algorithm>

#include "kernels/cpu/attention.h"

namespace saif::cpu {

namespace {

// Rows [0, n) of one head's keys into lanes [lane, lane + n) of its block [d_head][16].
void store_keys(const float* k, int64_t stride, int64_t n, int64_t d_head, float* block, int64_t lane) {
  if (n == kKvBlock) {
    for (int64_t d = 0; d < d_head; ++d) {
      for (int64_t t = 0; t < kKvBlock; ++t) block[d * kKvBlock + t] = k[t * stride + d];
    }
    return;
  }
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t d = 0; d < d_head; ++d) block[d * kKvBlock + lane + t] = k[t * stride + d];
  }
}

void store_key16(const float* k, int64_t d_head, uint16_t* block, int64_t lane) {
  for (int64_t d = 0; d < d_head; ++d) block[(d / 2 * kKvBlock + lane) * 2 + d % 2] = f32_to_bf16(k[d]);
  if (d_head % 2 != 0) block[(d_head / 2 * kKvBlock + lane) * 2 + 1] = 0;
}

void store_kv16(Mat<const float> k, Mat<const float> v, int64_t d_head, const KvView& segment, int64_t at) {
  const int64_t n_heads = k.cols() / d_head, blocks = segment.capacity / kKvBlock;
  const int64_t block_size = (d_head + 1) / 2 * 2 * kKvBlock;
  for (int64_t r = 0; r < k.rows(); ++r) {
    const int64_t token = at + r;
    for (int64_t head = 0; head < n_heads; ++head) {
      uint16_t* block = segment.k16 + (head * blocks + token / kKvBlock) * block_size;
      store_key16(k.row(r) + head * d_head, d_head, block, token % kKvBlock);
      const int64_t value = head * segment.v16_tokens() + segment.v16_lead() + token;
      uint16_t* values = segment.v16 + value / 2 * 2 * d_head + 1 - value % 2;
      const float* from = v.row(r) + head * d_head;
      for (int64_t c = 0; c < d_head; ++c) values[2 * c] = f32_to_bf16(from[c]);
    }
  }
}

}  // namespace

void store_kv(Mat<const float> k, Mat<const float> v, int64_t d_head, const KvView& segment, int64_t at) {
  if (segment.k16 != nullptr) return store_kv16(k, v, d_head, segment, at);
  const int64_t n_heads = k.cols() / d_head, blocks = segment.capacity / kKvBlock;
  for (int64_t r = 0; r < k.rows();) {
    const int64_t token = at + r, lane = token % kKvBlock, n = std::min(kKvBlock - lane, k.rows() - r);
    for (int64_t head = 0; head < n_heads; ++head) {
      float* block = segment.k + (head * blocks + token / kKvBlock) * d_head * kKvBlock;
      store_keys(k.row(r) + head * d_head, k.stride(), n, d_head, block, lane);
      float* values = segment.v + (head * segment.capacity + token) * d_head;
      for (int64_t t = 0; t < n; ++t) std::copy_n(v.row(r + t) + head * d_head, d_head, values + t * d_head);
    }
    r += n;
  }
}

}  // namespace saif::cpu
