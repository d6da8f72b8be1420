#include <algorithm>

#include "kernels/cpu/attention.h"

#if defined(__x86_64__)

#include "kernels/cpu/tiles_amx-inl.h"
#include "kernels/shapes.h"

namespace saif::cpu {

namespace tiles {
namespace {

constexpr int64_t kQueries = kTileRows, kKeys = kKvBlock, kSum = KvView::kSum;
constexpr int64_t kTileWords = 256;  // of a tile: 16 rows of 16 pairs
static_assert(kSum == kTileInputs && kKeys == kTileRows);

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// What a task's tiles of queries share. Positions [base, end) are those that any of them sees.
struct Work {
  const AttentionInput* input = nullptr;
  const AttentionTask* task = nullptr;
  SoftmaxFunction softmax = nullptr;
  int64_t d_head = 0, base = 0, width = 0, stride = 0;  // width: of all scores, a multiple of 32; stride of their rows
  uint32_t* q = nullptr;                                // [d_head / 32][16 queries][16 pairs]
  float* scores = nullptr;                              // [16][stride], 16 floats of slack before and after
  uint32_t* weights = nullptr;                          // [16][width / 2] pairs, the second position first
  float* sums = nullptr;                                // [16][d_head]
  const uint32_t** values = nullptr;                    // of each 32 positions: [16 pairs][d_head]
};

// Tokens [from, to) of a view, counted as v16 does, to the places of the same positions in [16 pairs][d_head].
void copy_values(const uint16_t* v16, int64_t from, int64_t to, int64_t d_head, uint32_t* group) {
  auto* out = reinterpret_cast<uint16_t*>(group);
  for (int64_t t = from; t < to; ++t) {
    const uint16_t* pair = v16 + t / 2 * 2 * d_head;
    uint16_t* to_pair = out + t % kSum / 2 * 2 * d_head;
    if (t % 2 == 0 && t + 1 < to) {
      std::copy_n(pair, 2 * d_head, to_pair);
      ++t;
      continue;
    }
    for (int64_t c = 1 - t % 2; c < 2 * d_head; c += 2) to_pair[c] = pair[c];
  }
}

// Where each 32 positions' values lie: in a view that holds them all, else copied together, zeros where none are.
void find_values(const Work& work, uint32_t* room) {
  const int64_t d_head = work.d_head, words = kSum / 2 * d_head;
  for (int64_t g = 0; g < work.width / kSum; ++g) {
    const int64_t first = work.base + g * kSum;
    uint32_t* copy = nullptr;
    work.values[g] = nullptr;
    for (const KvView& view : work.task->run->chain) {
      const int64_t low = std::max(first, view.begin), high = std::min(first + kSum, view.begin + view.length);
      if (low >= high) continue;
      const uint16_t* v16 = view.v16 + work.task->kv_head * view.v16_tokens() * d_head;
      const int64_t lead = view.begin - view.v16_lead();
      if (high - low == kSum) {
        work.values[g] = reinterpret_cast<const uint32_t*>(v16 + (first - lead) * d_head);
        break;
      }
      if (copy == nullptr) {
        copy = room;
        room += words;
        std::fill_n(copy, words, 0U);
        work.values[g] = copy;
      }
      copy_values(v16, low - lead, high - lead, d_head, copy);
    }
  }
}

// Scores of 16 keys, or of two blocks of 16, at k16 for all queries.
template <int kBlocks>
SAIF_AMX SAIF_INLINE void score_blocks(const Work& work, const uint32_t* k16, float* out) {
  const int64_t tiles = work.d_head / kTileInputs, block = tiles * kTileWords;
  _tile_zero(0);
  if constexpr (kBlocks > 1) _tile_zero(1);
  for (int64_t d = 0; d < tiles; ++d) {
    _tile_loadd(4, work.q + d * kTileWords, kLine);
    _tile_loadd(6, k16 + d * kTileWords, kLine);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kBlocks > 1) {
      _tile_loadd(7, k16 + block + d * kTileWords, kLine);
      _tile_dpbf16ps(1, 4, 7);
    }
  }
  _tile_stored(0, out, 4 * work.stride);
  if constexpr (kBlocks > 1) _tile_stored(1, out + kKeys, 4 * work.stride);
}

// What a view's last block writes past its end, the next view's first one writes over.
SAIF_AMX void score(const Work& work, int64_t from, int64_t to) {
  SAIF_TILE_FENCE();
  const int64_t block_words = work.d_head / 2 * kKeys;
  for (const KvView& view : work.task->run->chain) {
    const int64_t low = std::max<int64_t>(0, from - view.begin), high = std::min(view.length, to - view.begin);
    if (low >= high) continue;
    int64_t b = low / kKeys;
    const int64_t last = (high + kKeys - 1) / kKeys;
    const auto* k16 =
        reinterpret_cast<const uint32_t*>(view.k16) + work.task->kv_head * (view.capacity / kKeys) * block_words;
    float* out = work.scores + view.begin - work.base;
    for (; b + 2 <= last; b += 2) score_blocks<2>(work, k16 + b * block_words, out + b * kKeys);
    if (b < last) score_blocks<1>(work, k16 + b * block_words, out + b * kKeys);
  }
  SAIF_TILE_FENCE();
}

// Probabilities [from, to) of a query, both multiples of 32, as pairs.
SAIF_AVX512 void pack_weights(const float* p, int64_t from, int64_t to, uint32_t* pairs) {
  for (int64_t t = from; t < to; t += kSum) {
    _mm512_storeu_si512(pairs + t / 2, _mm512_rol_epi32(pairs_of(p + t, kSum), 16));
  }
}

// sums [16][d_head] of positions [base + from, base + to), both multiples of 32.
SAIF_AMX void add_values(const Work& work, int64_t from, int64_t to) {
  SAIF_TILE_FENCE();
  const int64_t row = 4 * work.d_head, weights_row = 2 * work.width;
  for (int64_t c = 0; c < work.d_head; c += kTileInputs) {
    _tile_zero(0);
    _tile_zero(1);
    for (int64_t t = from; t < to; t += kSum) {
      const uint32_t* v = work.values[t / kSum] + c;
      _tile_loadd(4, work.weights + t / 2, weights_row);
      _tile_loadd(6, v, row);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, v + kKeys, row);
      _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, work.sums + c, row);
    _tile_stored(1, work.sums + c + kKeys, row);
  }
  SAIF_TILE_FENCE();
}

// Queries [first, first + n) of the task's kv head.
SAIF_AVX512 void attend_queries(const Work& work, int64_t first, int64_t n) {
  const AttentionShape& shape = work.input->shape;
  const AttentionTask& task = *work.task;
  const int64_t group = shape.n_heads / shape.n_kv_heads, d_head = work.d_head;
  int64_t row[kQueries] = {}, column[kQueries] = {}, visible[kQueries] = {}, position[kQueries] = {};
  for (int64_t i = 0; i < n; ++i) {
    row[i] = task.run->row + (first + i) / group;
    column[i] = (task.kv_head * group + (first + i) % group) * d_head;
    position[i] = task.run->position + (first + i) / group;
    visible[i] = internal::first_visible(position[i], shape.window);
    const float* q = work.input->q.row(row[i]) + column[i];
    for (int64_t d = 0; d < d_head; d += kTileInputs) {
      _mm512_storeu_si512(work.q + d / kTileInputs * kTileWords + i * 16, pairs_of(q + d, kTileInputs));
    }
  }
  const int64_t from = visible[0] / kSum * kSum, to = position[n - 1] + 1;
  score(work, from, to);
  const int64_t begin = from - work.base, end = round_up(to - work.base, kSum);
  float scale[kQueries] = {};
  for (int64_t i = 0; i < n; ++i) {
    float* p = work.scores + i * work.stride + begin;
    scale[i] = work.softmax(p, end - begin, visible[i] - from, position[i] + 1 - from, shape);
    pack_weights(work.scores + i * work.stride, begin, end, work.weights + i * work.width / 2);
  }
  for (int64_t i = n; i < kQueries; ++i) {
    std::fill(work.weights + i * work.width / 2 + begin / 2, work.weights + i * work.width / 2 + end / 2, 0U);
  }
  add_values(work, begin, end);
  for (int64_t i = 0; i < n; ++i) {
    float* z = work.input->z.row(row[i]) + column[i];
    const float* sums = work.sums + i * d_head;
    for (int64_t c = 0; c < d_head; c += 16) {
      _mm512_storeu_ps(z + c, _mm512_mul_ps(_mm512_loadu_ps(sums + c), _mm512_set1_ps(scale[i])));
    }
  }
}

void attend_task(const AttentionInput& input, const AttentionTask& task, Scratch& scratch) {
  const AttentionShape& shape = input.shape;
  const int64_t group = shape.n_heads / shape.n_kv_heads, d_head = shape.d_head;
  const int64_t first_position = task.run->position + task.first / group;
  const int64_t end = task.run->position + (task.first + task.count - 1) / group + 1;
  Work work;
  work.input = &input;
  work.task = &task;
  work.softmax = softmax_function(Isa::kAvx512Bf16);
  work.d_head = d_head;
  work.base = internal::first_visible(first_position, shape.window) / kSum * kSum;
  work.width = round_up(end - work.base, kSum);
  work.stride = work.width + 2 * kKeys;
  const int64_t groups = work.width / kSum, q_words = d_head / kTileInputs * kTileWords;
  const auto copies = std::min<int64_t>(groups, static_cast<int64_t>(task.run->chain.size()) + 1);
  const int64_t words = q_words + kQueries * (work.stride + work.width / 2 + d_head) + 2 * kKeys + 2 * groups +
                        copies * kSum / 2 * d_head;
  auto* memory = scratch.get<uint32_t>(words);
  work.values = reinterpret_cast<const uint32_t**>(memory);  // first: what is aligned to 64 bytes is to 8, too
  work.q = memory + 2 * groups;
  work.scores = reinterpret_cast<float*>(work.q + q_words) + kKeys;
  work.weights = work.q + q_words + kQueries * work.stride + 2 * kKeys;
  work.sums = reinterpret_cast<float*>(work.weights + kQueries * work.width / 2);
  find_values(work, work.weights + kQueries * (work.width / 2 + d_head));
  std::fill_n(work.q, q_words, 0U);
  configure_for(kTileRows, kTileInputs);
  for (int64_t first = 0; first < task.count; first += kQueries) {
    attend_queries(work, task.first + first, std::min(kQueries, task.count - first));
  }
  release_tiles();
}

}  // namespace
}  // namespace tiles

AttendFunction attend_on_tiles() { return tile_kernel() != nullptr ? tiles::attend_task : nullptr; }

}  // namespace saif::cpu

#else

namespace saif::cpu {
AttendFunction attend_on_tiles() { return nullptr; }
}  // namespace saif::cpu

#endif  // __x86_64__
