// Checks at the boundary of every operation, shared by the backends: shapes agree, pointers are there, indices in
// range. They throw Error{kInternal}; what passed them needs no further check in a kernel.
#pragma once

#include <span>

#include "kernels/backend.h"

namespace saif::internal {

void check_weight(const WeightView& w, const char* what);
void check_dictionary(const WeightView& w, const char* what);  // a weight that is not made of blocks
void check_linear(Mat<const float> x, std::span<const LinearPart> parts);
void check_gated_mlp(Mat<const float> x, const GatedMlp& mlp);
void check_embed(const WeightView& w, std::span<const int32_t> ids, Mat<float> y);
void check_same(Mat<const float> x, Mat<const float> y, const char* what);
void check_rope(Mat<float> x, int64_t d_head, std::span<const int32_t> positions, const RopeTable& table);
void check_kv_store(Mat<const float> k, Mat<const float> v, int64_t d_head, const KvView& segment, int64_t at);
void check_attention(Mat<const float> q, std::span<const AttentionRun> runs, const AttentionShape& shape);
void check_attention_pattern(Mat<const float> pattern, const AttentionRun& run, const AttentionShape& shape);
void check_find_top(Mat<const float> rank, Mat<const float> value, int64_t k, std::span<const TopCandidates> rows);
void check_top_k(Mat<const float> x, int64_t k, Mat<const int32_t> out_index, Mat<const float> out_value);
void check_sparse(std::span<const int64_t> offsets, std::span<const int32_t> indices, int64_t n_rows,
                  int64_t n_latents);

// First position that a query at `position` sees.
inline int64_t first_visible(int64_t position, int64_t window) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

}  // namespace saif::internal
