#include "kernels/cpu/attention.h"

#include <algorithm>
#include <limits>

#include "kernels/shapes.h"

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace saif::cpu::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

const hn::CappedTag<float, kKvBlock> kVector;
const hn::CappedTag<float, 1> kSingle;
using V = hn::Vec<decltype(kVector)>;
constexpr auto kLanes = static_cast<int64_t>(hn::MaxLanes(hn::CappedTag<float, kKvBlock>()));
constexpr int kQueries = Attention16::kMaxQueries;  // queries of a tile
constexpr int kWide =
    kLanes == 16 ? 4 : 2;  // vectors of a value row at a time: 6 x 4 sums of 32 registers, 6 x 2 of 16
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// A tile of queries and its scratch. Scores of query i for absolute position t: scores[i * stride + t - base].
struct Tile {
  int64_t n = 0, base = 0, end = 0, stride = 0;  // keys [base, end); base is a multiple of 16
  int64_t head[kQueries] = {}, position[kQueries] = {}, visible[kQueries] = {};  // query i sees [visible, position]
  int64_t row[kQueries] = {};
  float* q = nullptr;         // [d_head][n]
  uint32_t* q16 = nullptr;    // [(d_head + 1) / 2][n], where keys are bfloat16
  uint32_t* words = nullptr;  // scratch of Attention16::add
  float* scores = nullptr;    // [n][stride], 16 floats of slack at either end
  float* sums = nullptr;      // [n][d_head]
};

// Scores of kN vectors of keys at k + j * [step] for kQ queries.
template <int kQ, int kN>
HWY_INLINE void score_vectors(const Tile& tile, int64_t d_head, const float* k0, const float* k1, float* out) {
  V sums[kQ][kN];
  HWY_UNROLL(16)
  for (int i = 0; i < kQ; ++i) {
    HWY_UNROLL(16)
    for (int j = 0; j < kN; ++j) sums[i][j] = hn::Zero(kVector);
  }
  const float* q = tile.q;
  for (int64_t d = 0; d < d_head; ++d, q += kQ) {
    const V key0 = hn::LoadU(kVector, k0 + d * kKvBlock);
    const V key1 = kN > 1 ? hn::LoadU(kVector, k1 + d * kKvBlock) : key0;
    HWY_UNROLL(16)
    for (int i = 0; i < kQ; ++i) {
      const V value = hn::Set(kVector, q[i]);
      sums[i][0] = hn::MulAdd(value, key0, sums[i][0]);
      if constexpr (kN > 1) sums[i][1] = hn::MulAdd(value, key1, sums[i][1]);
    }
  }
  HWY_UNROLL(16)
  for (int i = 0; i < kQ; ++i) {
    HWY_UNROLL(16)
    for (int j = 0; j < kN; ++j) hn::StoreU(sums[i][j], kVector, out + i * tile.stride + j * kLanes);
  }
}

template <int kQ>
void score_view(const AttentionInput& input, const Tile& tile, int64_t kv_head, const KvView& view) {
  const AttentionShape& shape = input.shape;
  const int64_t low = std::max<int64_t>(0, tile.base - view.begin);
  const int64_t high = std::min(view.length, tile.end - view.begin);
  if (low >= high) return;
  if (view.k16 != nullptr) {
    const int64_t block = low / kKvBlock, n = (high + kKvBlock - 1) / kKvBlock - block;
    const int64_t first = kv_head * (view.capacity / kKvBlock) + block;
    input.in_bf16.score(tile.q16, kQ, view.k16 + first * ((shape.d_head + 1) / 2 * 2 * kKvBlock), n, shape.d_head,
                        tile.scores + view.begin - tile.base + block * kKvBlock, tile.stride);
    return;
  }
  constexpr int64_t kPerBlock = kKvBlock / kLanes;
  const float* keys = view.k + kv_head * view.capacity * shape.d_head;
  const auto at = [&](int64_t v)
                      HWY_ATTR { return keys + (v / kPerBlock) * kKvBlock * shape.d_head + (v % kPerBlock) * kLanes; };
  const int64_t last = (high + kLanes - 1) / kLanes;
  int64_t v = low / kLanes;
  float* out = tile.scores + view.begin - tile.base;
  for (; v + 2 <= last; v += 2) score_vectors<kQ, 2>(tile, shape.d_head, at(v), at(v + 1), out + v * kLanes);
  if (v < last) score_vectors<kQ, 1>(tile, shape.d_head, at(v), at(v), out + v * kLanes);
}

// As SoftmaxFunction. Blocks of 16 without a visible score are set to 0 unread.
float softmax(float* p, int64_t width, int64_t low, int64_t high_end, const AttentionShape& shape) {
  const int64_t from = low / kKvBlock * kKvBlock, to = (high_end + kKvBlock - 1) / kKvBlock * kKvBlock;
  V high = hn::Set(kVector, kMinusInfinity);
  const V scale = hn::Set(kVector, shape.scale), cap = hn::Set(kVector, shape.softcap);
  std::fill(p + from, p + low, 0.0f);
  std::fill(p + high_end, p + to, 0.0f);
  for (int64_t t = from; t < to; t += kLanes) {
    V s = hn::Mul(hn::LoadU(kVector, p + t), scale);
    if (shape.softcap > 0.0f) s = hn::Mul(cap, fast_tanh(kVector, hn::Div(s, cap)));
    hn::StoreU(s, kVector, p + t);
  }
  std::fill(p + from, p + low, kMinusInfinity);
  std::fill(p + high_end, p + to, kMinusInfinity);
  for (int64_t t = from; t < to; t += kLanes) high = hn::Max(high, hn::LoadU(kVector, p + t));
  high = hn::MaxOfLanes(kVector, high);
  std::fill(p, p + from, 0.0f);
  std::fill(p + to, p + width, 0.0f);
  alignas(64) float lanes[kKvBlock] = {};
  for (int64_t j = 0; j < kKvBlock; j += kLanes) {
    V sum = hn::Zero(kVector);
    for (int64_t t = from + j; t < to; t += kKvBlock) {
      const V e = fast_exp(kVector, hn::Sub(hn::LoadU(kVector, p + t), high));
      hn::StoreU(e, kVector, p + t);
      sum = hn::Add(sum, e);
    }
    hn::StoreU(sum, kVector, lanes + j);
  }
  for (int64_t n = kKvBlock / 2; n > 0; n /= 2) {
    for (int64_t j = 0; j < n; ++j) lanes[j] += lanes[j + n];
  }
  return 1.0f / lanes[0];
}

// sums[i][c..] += p[i][t] * v[t][c..] for t in [0, n), kN vectors of columns.
template <int kQ, int kN, class D>
HWY_INLINE void add_columns(D d, const Tile& tile, const float* p, const float* v, int64_t n, int64_t d_head,
                            float* sums) {
  constexpr auto kStep = static_cast<int64_t>(hn::MaxLanes(D()));
  hn::Vec<D> s[kQ][kN];
  HWY_UNROLL(16)
  for (int i = 0; i < kQ; ++i) {
    HWY_UNROLL(16)
    for (int j = 0; j < kN; ++j) s[i][j] = hn::LoadU(d, sums + i * d_head + j * kStep);
  }
  for (int64_t t = 0; t < n; ++t, v += d_head) {
    hn::Vec<D> value[kN];
    HWY_UNROLL(16)
    for (int j = 0; j < kN; ++j) value[j] = hn::LoadU(d, v + j * kStep);
    HWY_UNROLL(16)
    for (int i = 0; i < kQ; ++i) {
      const auto weight = hn::Set(d, p[i * tile.stride + t]);
      HWY_UNROLL(16)
      for (int j = 0; j < kN; ++j) s[i][j] = hn::MulAdd(weight, value[j], s[i][j]);
    }
  }
  HWY_UNROLL(16)
  for (int i = 0; i < kQ; ++i) {
    HWY_UNROLL(16)
    for (int j = 0; j < kN; ++j) hn::StoreU(s[i][j], d, sums + i * d_head + j * kStep);
  }
}

template <int kQ>
void add_values(const Tile& tile, const float* p, const float* v, int64_t n, int64_t d_head, float* sums) {
  int64_t c = 0;
  for (; c + kWide * kLanes <= d_head; c += kWide * kLanes) {
    add_columns<kQ, kWide>(kVector, tile, p, v + c, n, d_head, sums + c);
  }
  for (; c + kLanes <= d_head; c += kLanes) add_columns<kQ, 1>(kVector, tile, p, v + c, n, d_head, sums + c);
  for (; c < d_head; ++c) add_columns<kQ, 1>(kSingle, tile, p, v + c, n, d_head, sums + c);
}

// Adds values of positions [from, to) to queries [i, i + kQ).
template <int kQ>
void add_range(const AttentionInput& input, const Tile& tile, const AttentionTask& task, int64_t i, int64_t from,
               int64_t to) {
  const int64_t d_head = input.shape.d_head;
  for (const KvView& view : task.run->chain) {
    const int64_t low = std::max(from, view.begin), high = std::min(to, view.begin + view.length);
    if (low >= high) continue;
    const float* p = tile.scores + i * tile.stride + low - tile.base;
    if (view.v16 != nullptr) {
      const int64_t first = view.begin - view.v16_lead();
      input.in_bf16.add(p, tile.stride, kQ, view.v16 + task.kv_head * view.v16_tokens() * d_head, low - first,
                        high - first, d_head, tile.words, tile.sums + i * d_head);
      continue;
    }
    const float* v = view.v + (task.kv_head * view.capacity + low - view.begin) * d_head;
    add_values<kQ>(tile, p, v, high - low, d_head, tile.sums + i * d_head);
  }
}

// Keys that all queries see are shared; a key that one does not see never meets it, not even with weight 0.
template <int kQ>
void attend_tile(const AttentionInput& input, const AttentionTask& task, const Tile& tile) {
  const AttentionShape& shape = input.shape;
  const int64_t d_head = shape.d_head;
  for (const KvView& view : task.run->chain) score_view<kQ>(input, tile, task.kv_head, view);
  float scale[kQ];
  const int64_t width = (tile.end - tile.base + kKvBlock - 1) / kKvBlock * kKvBlock;
  for (int i = 0; i < kQ; ++i) {
    scale[i] = softmax(tile.scores + i * tile.stride, width, tile.visible[i] - tile.base,
                       tile.position[i] + 1 - tile.base, shape);
  }
  std::fill_n(tile.sums, kQ * d_head, 0.0f);
  const int64_t from = *std::max_element(tile.visible, tile.visible + kQ);
  const int64_t to = std::max(from, *std::min_element(tile.position, tile.position + kQ) + 1);
  for (int i = 0; i < kQ; ++i) {
    add_range<1>(input, tile, task, i, tile.visible[i], std::min(from, tile.position[i] + 1));
  }
  add_range<kQ>(input, tile, task, 0, from, to);
  for (int i = 0; i < kQ; ++i) {
    if (tile.position[i] >= from) add_range<1>(input, tile, task, i, to, tile.position[i] + 1);
  }
  for (int i = 0; i < kQ; ++i) {
    float* z = input.z.row(tile.row[i]) + tile.head[i] * d_head;
    for (int64_t c = 0; c < d_head; ++c) z[c] = tile.sums[i * d_head + c] * scale[i];
  }
}

Tile make_tile(const AttentionInput& input, const AttentionTask& task, int64_t first, Scratch& scratch) {
  const AttentionShape& shape = input.shape;
  const int64_t group = shape.n_heads / shape.n_kv_heads;
  Tile tile;
  tile.n = std::min<int64_t>(kQueries, task.first + task.count - first);
  for (int64_t i = 0; i < tile.n; ++i) {
    const int64_t row = (first + i) / group;
    tile.head[i] = task.kv_head * group + (first + i) % group;
    tile.row[i] = task.run->row + row;
    tile.position[i] = task.run->position + row;
    tile.visible[i] = internal::first_visible(tile.position[i], shape.window);
  }
  tile.base = tile.visible[0] / kKvBlock * kKvBlock;
  tile.end = tile.position[tile.n - 1] + 1;
  tile.stride = (tile.end - tile.base + kKvBlock - 1) / kKvBlock * kKvBlock + 2 * kKvBlock;
  const bool in_bf16 = task.run->chain[0].k16 != nullptr;
  const int64_t n_words = in_bf16 ? kQueries * (shape.d_head / 2 + 1 + tile.stride / 2 + 2 * kKvBlock) : 0;
  float* memory = scratch.get<float>(2 * kQueries * shape.d_head + kQueries * tile.stride + 2 * kKvBlock + n_words);
  tile.scores = memory + kKvBlock;
  tile.q = tile.scores + kQueries * tile.stride + kKvBlock;
  tile.sums = tile.q + kQueries * shape.d_head;
  if (in_bf16) {
    tile.q16 = reinterpret_cast<uint32_t*>(tile.sums + kQueries * shape.d_head);
    tile.words = tile.q16 + kQueries * (shape.d_head / 2 + 1);
    const float* q[kQueries] = {};
    for (int64_t i = 0; i < tile.n; ++i) q[i] = input.q.row(tile.row[i]) + tile.head[i] * shape.d_head;
    input.in_bf16.pack_queries(q, static_cast<int>(tile.n), shape.d_head, tile.q16);
    return tile;
  }
  for (int64_t i = 0; i < tile.n; ++i) {
    const float* q = input.q.row(tile.row[i]) + tile.head[i] * shape.d_head;
    for (int64_t d = 0; d < shape.d_head; ++d) tile.q[d * tile.n + i] = q[d];
  }
  return tile;
}

void attend_task(const AttentionInput& input, const AttentionTask& task, Scratch& scratch) {
  for (int64_t first = task.first; first < task.first + task.count; first += kQueries) {
    const Tile tile = make_tile(input, task, first, scratch);
    switch (tile.n) {
      case 1:
        attend_tile<1>(input, task, tile);
        break;
      case 2:
        attend_tile<2>(input, task, tile);
        break;
      case 3:
        attend_tile<3>(input, task, tile);
        break;
      case 4:
        attend_tile<4>(input, task, tile);
        break;
      case 5:
        attend_tile<5>(input, task, tile);
        break;
      default:
        attend_tile<kQueries>(input, task, tile);
        break;
    }
  }
}

}  // namespace

AttendFunction attend_function() { return attend_task; }
SoftmaxFunction softmax_of_target() { return softmax; }

}  // namespace saif::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace saif::cpu {

AttendFunction attend(Isa isa){SAIF_PICK_TARGET(isa, attend_function)} SoftmaxFunction softmax_function(Isa isa) {
  SAIF_PICK_TARGET(isa, softmax_of_target)
}

}  // namespace saif::cpu
#endif  // HWY_ONCE
