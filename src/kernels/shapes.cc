#include "kernels/shapes.h"

#include <string>

#include "base/check.h"

namespace saif::internal {

namespace {
std::string pair_text(int64_t found, int64_t expected) {
  return "found " + std::to_string(found) + ", expected " + std::to_string(expected);
}
}  // namespace

void check_weight(const WeightView& w, const char* what) {
  SAIF_CHECK(w.data != nullptr && w.out > 0 && w.in > 0, std::string(what) + ": empty weight matrix");
  SAIF_CHECK(w.dtype == DType::kF32 || w.dtype == DType::kF16 || w.dtype == DType::kBf16,
             std::string(what) + ": weights of dtype " + name_of(w.dtype) + ", expected F32, F16 or BF16");
  if (!w.blocks) return;
  const GgmlTypeInfo& info = info_of(*w.blocks);
  SAIF_CHECK(info.can_dequantize, std::string(what) + ": blocks of type " + info.name + " cannot be dequantised");
  SAIF_CHECK(w.dtype != DType::kF16, std::string(what) + ": blocks are read as F32 or BF16, not F16");
  SAIF_CHECK(w.in % info.block == 0, std::string(what) + ": rows of " + std::to_string(w.in) +
                                         " are not whole blocks of " + std::to_string(info.block) + " (" + info.name +
                                         ")");
}

void check_dictionary(const WeightView& w, const char* what) {
  check_weight(w, what);
  SAIF_CHECK(!w.blocks, std::string(what) + ": expected a plain dictionary, found blocks of " + name_of(*w.blocks));
}

void check_linear(Mat<const float> x, std::span<const LinearPart> parts) {
  for (const LinearPart& part : parts) {
    check_weight(part.w, "linear");
    SAIF_CHECK(part.w.in == x.cols(),
               "linear: columns of x against `in` of the weight: " + pair_text(x.cols(), part.w.in));
    SAIF_CHECK(part.y.cols() == part.w.out,
               "linear: columns of y against `out` of the weight: " + pair_text(part.y.cols(), part.w.out));
    SAIF_CHECK(part.y.rows() == x.rows(), "linear: rows of y against rows of x: " + pair_text(part.y.rows(), x.rows()));
  }
}

void check_gated_mlp(Mat<const float> x, const GatedMlp& mlp) {
  check_weight(mlp.gate, "gated_mlp");
  check_weight(mlp.up, "gated_mlp");
  for (const WeightView* w : {&mlp.gate, &mlp.up}) {
    SAIF_CHECK(w->in == x.cols(), "gated_mlp: columns of x against `in` of gate and up: " + pair_text(x.cols(), w->in));
    SAIF_CHECK(w->out == mlp.down.w.in,
               "gated_mlp: `out` of gate and up against `in` of down: " + pair_text(w->out, mlp.down.w.in));
  }
  check_linear({nullptr, x.rows(), mlp.down.w.in}, {&mlp.down, 1});
}

void check_embed(const WeightView& w, std::span<const int32_t> ids, Mat<float> y) {
  check_weight(w, "embed");
  SAIF_CHECK(y.rows() == static_cast<int64_t>(ids.size()) && y.cols() == w.in, "embed: shape of y");
  for (const int32_t id : ids) {
    SAIF_CHECK(id >= 0 && id < w.out,
               "embed: id " + std::to_string(id) + " outside [0, " + std::to_string(w.out) + ")");
  }
}

void check_same(Mat<const float> x, Mat<const float> y, const char* what) {
  SAIF_CHECK(x.rows() == y.rows() && x.cols() == y.cols(),
             std::string(what) + ": shapes differ: [" + std::to_string(x.rows()) + ", " + std::to_string(x.cols()) +
                 "] and [" + std::to_string(y.rows()) + ", " + std::to_string(y.cols()) + "]");
}

void check_rope(Mat<float> x, int64_t d_head, std::span<const int32_t> positions, const RopeTable& table) {
  SAIF_CHECK(d_head > 0 && x.cols() % d_head == 0, "rope: columns are not whole heads of " + std::to_string(d_head));
  SAIF_CHECK(x.rows() == static_cast<int64_t>(positions.size()), "rope: one position per row is needed");
  SAIF_CHECK(
      table.rotary_dim % 2 == 0 && table.rotary_dim <= d_head,
      "rope: rotary_dim " + std::to_string(table.rotary_dim) + " is odd or exceeds d_head " + std::to_string(d_head));
  SAIF_CHECK(table.cos.cols() * 2 == table.rotary_dim && table.sin.cols() * 2 == table.rotary_dim,
             "rope: tables have another width than rotary_dim / 2");
  for (const int32_t position : positions) {
    SAIF_CHECK(
        position >= 0 && position < table.cos.rows() && position < table.sin.rows(),
        "rope: position " + std::to_string(position) + " outside the table of " + std::to_string(table.cos.rows()));
  }
}

void check_kv_store(Mat<const float> k, Mat<const float> v, int64_t d_head, const KvView& segment, int64_t at) {
  check_same(k, v, "kv_store");
  SAIF_CHECK(d_head > 0 && k.cols() % d_head == 0,
             "kv_store: columns are not whole heads of " + std::to_string(d_head));
  const bool wide = segment.k != nullptr && segment.v != nullptr,
             half = segment.k16 != nullptr && segment.v16 != nullptr;
  SAIF_CHECK(wide != half && segment.capacity % kKvBlock == 0, "kv_store: bad segment");
  SAIF_CHECK(at >= 0 && at + k.rows() <= segment.capacity,
             "kv_store: tokens [" + std::to_string(at) + ", " + std::to_string(at + k.rows()) +
                 ") exceed the segment's capacity of " + std::to_string(segment.capacity));
}

void check_attention(Mat<const float> q, std::span<const AttentionRun> runs, const AttentionShape& shape) {
  SAIF_CHECK(shape.n_heads > 0 && shape.n_kv_heads > 0 && shape.d_head > 0 && shape.n_heads % shape.n_kv_heads == 0,
             "attention: " + std::to_string(shape.n_heads) + " heads do not share " + std::to_string(shape.n_kv_heads) +
                 " kv heads");
  SAIF_CHECK(q.cols() == shape.n_heads * shape.d_head,
             "attention: columns of q: " + pair_text(q.cols(), shape.n_heads * shape.d_head));
  for (const AttentionRun& run : runs) {
    SAIF_CHECK(run.row >= 0 && run.n_rows >= 0 && run.position >= 0 && run.row + run.n_rows <= q.rows(),
               "attention: a run exceeds the rows of q");
    int64_t end = 0;
    for (const KvView& view : run.chain) {
      SAIF_CHECK(view.begin == end, "attention: gap in a KV chain: segment begins at " + std::to_string(view.begin) +
                                        ", expected " + std::to_string(end));
      SAIF_CHECK(view.length >= 0 && view.length <= view.capacity && view.capacity % kKvBlock == 0,
                 "attention: bad KV segment");
      end = view.begin + view.length;
    }
    SAIF_CHECK(end >= run.position + run.n_rows,
               "attention: KV chain too short: " + pair_text(end, run.position + run.n_rows));
  }
}

void check_attention_pattern(Mat<const float> pattern, const AttentionRun& run, const AttentionShape& shape) {
  SAIF_CHECK(pattern.rows() == run.n_rows && pattern.cols() == shape.n_heads * (run.position + run.n_rows),
             "attention pattern: expected [n_rows, n_heads * (position + n_rows)]");
}

void check_find_top(Mat<const float> rank, Mat<const float> value, int64_t k, std::span<const TopCandidates> rows) {
  SAIF_CHECK(k > 0 && rank.rows() == value.rows() && rank.cols() == value.cols() &&
                 rank.rows() == static_cast<int64_t>(rows.size()),
             "find_top: a value and candidates for every rank, k positive");
}

void check_top_k(Mat<const float> x, int64_t k, Mat<const int32_t> out_index, Mat<const float> out_value) {
  SAIF_CHECK(k > 0 && x.cols() > 0, "top_k: k and the columns of x must be positive");
  SAIF_CHECK(
      out_index.rows() == x.rows() && out_index.cols() == k && out_value.rows() == x.rows() && out_value.cols() == k,
      "top_k: outputs must be [rows of x, k]");
}

void check_sparse(std::span<const int64_t> offsets, std::span<const int32_t> indices, int64_t n_rows,
                  int64_t n_latents) {
  SAIF_CHECK(static_cast<int64_t>(offsets.size()) == n_rows + 1 && offsets.front() == 0,
             "sparse: offsets: " + pair_text(static_cast<int64_t>(offsets.size()), n_rows + 1));
  for (size_t r = 0; r + 1 < offsets.size(); ++r) SAIF_CHECK(offsets[r] <= offsets[r + 1], "sparse: offsets descend");
  SAIF_CHECK(offsets.back() <= static_cast<int64_t>(indices.size()), "sparse: offsets exceed the entries");
  for (int64_t i = 0; i < offsets.back(); ++i) {
    SAIF_CHECK(indices[i] >= 0 && indices[i] < n_latents,
               "sparse: index " + std::to_string(indices[i]) + " outside [0, " + std::to_string(n_latents) + ")");
  }
}

}  // namespace saif::internal
