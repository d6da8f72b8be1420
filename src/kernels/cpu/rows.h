// Operations on rows, one instruction set each. Serial: the backend cuts the rows into parallel ranges.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

namespace saif::cpu {

struct RowOps {
  void (*embed)(const WeightView& w, std::span<const int32_t> ids, float scale, Mat<float> y);
  void (*rms_norm)(Mat<const float> x, const float* weight, float offset, float eps, Mat<float> y);
  void (*layer_norm)(Mat<const float> x, const float* weight, const float* bias, float eps, Mat<float> y);
  void (*add)(Mat<const float> x, Mat<float> y);
  void (*glu)(Activation activation, Mat<const float> gate, Mat<const float> up, Mat<float> y);
  void (*activate)(Activation activation, Mat<float> x);
  void (*softcap)(float cap, Mat<float> x);
  void (*rope)(Mat<float> x, int64_t d_head, std::span<const int32_t> positions, const RopeTable& table);
  void (*log_sum_exp)(Mat<const float> logits, std::span<float> out);
  void (*argmax)(Mat<const float> logits, std::span<int32_t> out);
  void (*top_k)(Mat<const float> x, bool positive_only, Mat<int32_t> out_index, Mat<float> out_value);
  void (*find_top)(Mat<const float> rank, Mat<const float> value, int64_t first, int64_t k,
                   std::span<TopCandidates> rows);
};
const RowOps& row_ops(Isa isa);

struct SparseOps {
  // One row each.
  void (*decode)(std::span<const int32_t> indices, std::span<const float> values, const WeightView& dictionary,
                 float* y);
  void (*dot)(const float* x, std::span<const int32_t> indices, const WeightView& dictionary, float* out);
  void (*outer)(std::span<const int32_t> rows, std::span<const float> values, Mat<const float> x, float* gradient);
};
const SparseOps& sparse_ops(Isa isa);

}  // namespace saif::cpu
