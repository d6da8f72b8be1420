// Attention over a chain of KV segments. Scores of a query are put into one buffer by absolute position, whatever the
// segments; the softmax sums 16 lanes by position mod 16; values are added in order of position. So neither the cut
// of the chain nor the queries that share a tile change a bit.
#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/attention16.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/linear.h"

namespace saif::cpu {

// Queries [first, first + count) of a run that share a kv head; query i is row i / group, head i % group of the group.
struct AttentionTask {
  const AttentionRun* run = nullptr;
  int64_t kv_head = 0, first = 0, count = 0;
};

struct AttentionInput {
  Mat<const float> q;
  const AttentionShape& shape;
  Mat<float> z;
  const Attention16& in_bf16;  // for segments in bfloat16
};

// What Backend::kv_store does, serial and unchecked.
void store_kv(Mat<const float> k, Mat<const float> v, int64_t d_head, const KvView& segment, int64_t at);

using AttendFunction = void (*)(const AttentionInput& input, const AttentionTask& task, Scratch& scratch);
AttendFunction attend(Isa isa);

// Scores [low, high) of a query become exp(scale * score - max), capped before if the shape says so, all others of
// [0, width) 0; returns 1 / their sum. width is a multiple of 16; p has 16 floats of slack past it.
using SoftmaxFunction = float (*)(float* p, int64_t width, int64_t low, int64_t high, const AttentionShape& shape);
SoftmaxFunction softmax_function(Isa isa);

// The same on tile registers (Intel AMX), for keys and values in bfloat16 and heads of a multiple of 32: 16 queries
// meet 16 keys at a time, and values are summed by 32 positions, those that a multiple of 32 begins. So a token that is
// not visible is multiplied by 0: it adds nothing as long as it is finite. nullptr where the CPU has no tiles.
AttendFunction attend_on_tiles();
constexpr int64_t kTileHead = 32;

}  // namespace saif::cpu
