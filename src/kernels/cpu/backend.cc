#include "kernels/backend.h"

#include <algorithm>

#include "base/check.h"
#include "base/parallel.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/int8.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/tiles.h"
#include "kernels/shapes.h"

namespace saif {

namespace {

using cpu::Isa;

struct IsaName {
  const char* name;
  Isa isa;
};
// best first
constexpr IsaName kIsas[] = {{"amx", Isa::kAmx},
                             {"avx512bf16", Isa::kAvx512Bf16},
                             {"avx512", Isa::kAvx512},
                             {"avx2", Isa::kAvx2},
                             {"generic", Isa::kGeneric}};

bool has(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512cd");
  switch (isa) {
    case Isa::kAmx:
      return avx512 && __builtin_cpu_supports("avx512bf16") && cpu::tile_kernel() != nullptr;
    case Isa::kAvx512Bf16:
      return avx512 && __builtin_cpu_supports("avx512bf16");
    case Isa::kAvx512:
      return avx512;
    case Isa::kAvx2:
      return avx2;
    default:
      return true;
  }
#else
  return isa == Isa::kGeneric;
#endif
}

Isa choose(const std::string& name) {
  for (const IsaName& candidate : kIsas) {
    if (!name.empty() && name != candidate.name) continue;
    if (has(candidate.isa)) return candidate.isa;
    if (!name.empty()) throw Error(Errc::kUnsupported, "this CPU has no " + name + "; use auto");
  }
  throw Error(Errc::kUnsupported, "instruction set '" + name + "', expected amx, avx512bf16, avx512, avx2 or generic");
}

const char* name_of(Isa isa) {
  for (const IsaName& candidate : kIsas) {
    if (candidate.isa == isa) return candidate.name;
  }
  return "?";
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(Isa isa)
      : isa_(isa),
        tiles_(isa),
        linear_(cpu::without_tiles(isa)),
        few_blocks_(isa),
        int8_(cpu::without_tiles(isa)),
        rows_(cpu::row_ops(cpu::without_tiles(isa))),
        sparse_(cpu::sparse_ops(cpu::without_tiles(isa))),
        attend_(cpu::attend(cpu::without_tiles(isa))),
        attend_on_tiles_(isa == Isa::kAmx ? cpu::attend_on_tiles() : nullptr) {}

  std::string name() const override { return std::string("cpu (") + name_of(isa_) + ")"; }
  bool has_fast_bf16() const override { return cpu::without_tiles(isa_) == Isa::kAvx512Bf16; }
  bool has_bf16_attention(int64_t d_head) const override {
    return attend_on_tiles_ != nullptr && d_head % cpu::kTileHead == 0;
  }
  bool has_int8() const override { return int8_.available(); }

  void linear(Mat<const float> x, std::span<const LinearPart> parts, Compute compute) override {
    internal::check_linear(x, parts);
    linear_of(plain_rows(x), parts, compute);
  }

  void norm_linear(Mat<const float> x, const RmsNorm& norm, std::span<const LinearPart> parts,
                   Compute compute) override {
    internal::check_linear(x, parts);
    linear_of(normed_rows(x, norm), parts, compute);
  }
  void gated_mlp(Mat<const float> x, const GatedMlp& mlp, Compute compute) override {
    internal::check_gated_mlp(x, mlp);
    const cpu::RowSource in = mlp.norm.weight != nullptr ? normed_rows(x, mlp.norm) : plain_rows(x);
    const auto combine = [&](Mat<const float> gate, Mat<const float> up, Mat<float> y) {
      rows_.glu(mlp.activation, gate, up, y);
    };
    LinearPart gate{mlp.gate, mlp.gate_bias, {}}, up{mlp.up, mlp.up_bias, {}};
    const bool few_blocks = x.rows() <= cpu::kFewBlockRows && (mlp.gate.blocks || mlp.up.blocks || mlp.down.w.blocks);
    const bool on_tiles = tiles_.takes(mlp.gate) && tiles_.takes(mlp.up) && tiles_.takes(mlp.down.w) && !few_blocks;
    if (compute == Compute::kBf16 && on_tiles) {
      return tiles_.run_gated(in, {gate, up, combine}, mlp.down);
    }
    if (compute != Compute::kInt8 && !linear_.are_few(x.rows(), compute)) {
      return linear_.run_gated(in, {gate, up, combine}, mlp.down, compute);
    }
    const int64_t rows = x.rows(), hidden = mlp.gate.out;
    gate.y = {gate_.get<float>(rows * hidden), rows, hidden};
    up.y = {up_.get<float>(rows * hidden), rows, hidden};
    const LinearPart parts[] = {gate, up};
    linear_of(in, parts, compute);
    const auto combined = [&](int64_t r, float* scratch) {
      combine(gate.y.rows_range(r, r + 1), up.y.rows_range(r, r + 1), {scratch, 1, hidden});
      return scratch;
    };
    linear_of({rows, hidden, combined}, {&mlp.down, 1}, compute);
  }

  void embed(const WeightView& w, std::span<const int32_t> ids, float scale, Mat<float> y) override {
    internal::check_embed(w, ids, y);
    by_rows(y.rows(), y.cols(), [&](int64_t b, int64_t e) {
      if (w.blocks) return embed_blocks(w, ids.data() + b, scale, y.rows_range(b, e));
      rows_.embed(w, ids.subspan(static_cast<size_t>(b), static_cast<size_t>(e - b)), scale, y.rows_range(b, e));
    });
  }
  void rms_norm(Mat<const float> x, const float* weight, float offset, float eps, Mat<float> y) override {
    internal::check_same(x, y, "rms_norm");
    by_rows(x.rows(), x.cols(),
            [&](int64_t b, int64_t e) { rows_.rms_norm(x.rows_range(b, e), weight, offset, eps, y.rows_range(b, e)); });
  }
  void layer_norm(Mat<const float> x, const float* weight, const float* bias, float eps, Mat<float> y) override {
    internal::check_same(x, y, "layer_norm");
    by_rows(x.rows(), x.cols(),
            [&](int64_t b, int64_t e) { rows_.layer_norm(x.rows_range(b, e), weight, bias, eps, y.rows_range(b, e)); });
  }
  void add(Mat<const float> x, Mat<float> y) override {
    internal::check_same(x, y, "add");
    by_rows(x.rows(), x.cols(), [&](int64_t b, int64_t e) { rows_.add(x.rows_range(b, e), y.rows_range(b, e)); });
  }
  void glu(Activation act, Mat<const float> gate, Mat<const float> up, Mat<float> y) override {
    internal::check_same(gate, up, "glu");
    internal::check_same(gate, y, "glu");
    by_rows(y.rows(), 4 * y.cols(), [&](int64_t b, int64_t e) {
      rows_.glu(act, gate.rows_range(b, e), up.rows_range(b, e), y.rows_range(b, e));
    });
  }
  void activate(Activation act, Mat<float> x) override {
    by_rows(x.rows(), 4 * x.cols(), [&](int64_t b, int64_t e) { rows_.activate(act, x.rows_range(b, e)); });
  }
  void softcap(float cap, Mat<float> x) override {
    SAIF_CHECK(cap > 0.0f, "softcap: the cap must be positive");
    by_rows(x.rows(), 4 * x.cols(), [&](int64_t b, int64_t e) { rows_.softcap(cap, x.rows_range(b, e)); });
  }
  void rope(Mat<float> x, int64_t d_head, std::span<const int32_t> positions, const RopeTable& table) override {
    internal::check_rope(x, d_head, positions, table);
    by_rows(x.rows(), x.cols(), [&](int64_t b, int64_t e) {
      rows_.rope(x.rows_range(b, e), d_head, positions.subspan(static_cast<size_t>(b), static_cast<size_t>(e - b)),
                 table);
    });
  }
  void kv_store(Mat<const float> k, Mat<const float> v, int64_t d_head, const KvView& segment, int64_t at) override {
    internal::check_kv_store(k, v, d_head, segment, at);
    const int64_t blocks = ceil_blocks(at + k.rows()) - at / kKvBlock;
    by_rows(blocks, kKvBlock * k.cols(), [&](int64_t b, int64_t e) {
      const int64_t first = std::max<int64_t>(0, (at / kKvBlock + b) * kKvBlock - at);
      const int64_t last = std::min(k.rows(), (at / kKvBlock + e) * kKvBlock - at);
      cpu::store_kv(k.rows_range(first, last), v.rows_range(first, last), d_head, segment, at + first);
    });
  }
  void kv_store_runs(Mat<const float> k, Mat<const float> v, int64_t d_head, std::span<const KvRun> runs) override {
    if (runs.size() == 1) return Backend::kv_store_runs(k, v, d_head, runs);
    for (const KvRun& run : runs) {
      const int64_t end = run.row + run.n_rows;
      internal::check_kv_store(k.rows_range(run.row, end), v.rows_range(run.row, end), d_head, run.segment, run.at);
    }
    const auto n = static_cast<int64_t>(runs.size());
    by_rows(n, 8 * k.rows() * k.cols() / std::max<int64_t>(n, 1), [&](int64_t b, int64_t e) {
      for (const KvRun& run : runs.subspan(static_cast<size_t>(b), static_cast<size_t>(e - b))) {
        const int64_t end = run.row + run.n_rows;
        cpu::store_kv(k.rows_range(run.row, end), v.rows_range(run.row, end), d_head, run.segment, run.at);
      }
    });
  }

  void attention(Mat<const float> q, std::span<const AttentionRun> runs, const AttentionShape& shape,
                 Mat<float> z) override {
    internal::check_attention(q, runs, shape);
    internal::check_same(q, z, "attention");
    constexpr int64_t kTaskQueries = 96;
    const int64_t group = shape.n_heads / shape.n_kv_heads;
    std::vector<cpu::AttentionTask> tasks;
    int64_t work = 0;
    for (const AttentionRun& run : runs) {
      work += run.n_rows * (run.position + run.n_rows) * q.cols();
      for (int64_t head = 0; head < shape.n_kv_heads; ++head) {
        for (int64_t first = 0; first < run.n_rows * group; first += kTaskQueries) {
          tasks.push_back({&run, head, first, std::min(kTaskQueries, run.n_rows * group - first)});
        }
      }
    }
    const auto n = static_cast<int64_t>(tasks.size());
    scratch_.resize(std::max(scratch_.size(), static_cast<size_t>(max_threads())));
    const cpu::AttentionInput input{q, shape, z, cpu::attention16(cpu::without_tiles(isa_))};
    const bool in_bf16 = !runs.empty() && !runs.front().chain.empty() && runs.front().chain.front().k16 != nullptr;
    const bool on_tiles = in_bf16 && has_bf16_attention(shape.d_head);
    const cpu::AttendFunction attend = on_tiles ? attend_on_tiles_ : attend_;
    const int64_t grain = work < kSerialWork ? n : std::max<int64_t>(1, n / (8 * max_threads()));
    parallel_for(n, std::max<int64_t>(grain, 1), [&](int64_t b, int64_t e) {
      cpu::Scratch& scratch = scratch_[omp_in_parallel() ? static_cast<size_t>(omp_get_thread_num()) : 0];
      for (int64_t t = b; t < e; ++t) attend(input, tasks[static_cast<size_t>(t)], scratch);
    });
  }
  void attention_pattern(Mat<const float> q, const AttentionRun& run, const AttentionShape& shape,
                         Mat<float> pattern) override {
    ref_->attention_pattern(q, run, shape, pattern);
  }
  void attention_apply(Mat<const float> pattern, const AttentionRun& run, const AttentionShape& shape,
                       Mat<float> z) override {
    ref_->attention_apply(pattern, run, shape, z);
  }

  void log_sum_exp(Mat<const float> logits, std::span<float> out) override {
    SAIF_CHECK(static_cast<int64_t>(out.size()) == logits.rows(), "log_sum_exp: one output per row");
    by_rows(logits.rows(), 4 * logits.cols(), [&](int64_t b, int64_t e) {
      rows_.log_sum_exp(logits.rows_range(b, e), out.subspan(static_cast<size_t>(b), static_cast<size_t>(e - b)));
    });
  }
  void argmax(Mat<const float> logits, std::span<int32_t> out) override {
    SAIF_CHECK(static_cast<int64_t>(out.size()) == logits.rows(), "argmax: one output per row");
    by_rows(logits.rows(), logits.cols(), [&](int64_t b, int64_t e) {
      rows_.argmax(logits.rows_range(b, e), out.subspan(static_cast<size_t>(b), static_cast<size_t>(e - b)));
    });
  }

  void top_k(Mat<const float> x, int64_t k, bool positive_only, Mat<int32_t> out_index, Mat<float> out_value) override {
    internal::check_top_k(x, k, out_index, out_value);
    by_rows(x.rows(), 2 * x.cols(), [&](int64_t b, int64_t e) {
      rows_.top_k(x.rows_range(b, e), positive_only, out_index.rows_range(b, e), out_value.rows_range(b, e));
    });
  }
  void find_top(Mat<const float> rank, Mat<const float> value, int64_t first, int64_t k,
                std::span<TopCandidates> rows) override {
    internal::check_find_top(rank, value, k, rows);
    by_rows(rank.rows(), 2 * rank.cols(), [&](int64_t b, int64_t e) {
      rows_.find_top(rank.rows_range(b, e), value.rows_range(b, e), first, k,
                     rows.subspan(static_cast<size_t>(b), static_cast<size_t>(e - b)));
    });
  }
  void sparse_decode(std::span<const int64_t> offsets, std::span<const int32_t> indices, std::span<const float> values,
                     const WeightView& dictionary, Mat<float> y) override {
    internal::check_dictionary(dictionary, "sparse_decode");
    internal::check_sparse(offsets, indices, y.rows(), dictionary.out);
    SAIF_CHECK(y.cols() == dictionary.in, "sparse_decode: columns of y");
    by_entries(offsets, y.cols(), [&](int64_t r, size_t at, size_t n) {
      sparse_.decode(indices.subspan(at, n), values.subspan(at, n), dictionary, y.row(r));
    });
  }
  void sparse_dot(Mat<const float> x, std::span<const int64_t> offsets, std::span<const int32_t> indices,
                  const WeightView& dictionary, std::span<float> out) override {
    internal::check_dictionary(dictionary, "sparse_dot");
    internal::check_sparse(offsets, indices, x.rows(), dictionary.out);
    SAIF_CHECK(x.cols() == dictionary.in, "sparse_dot: columns of x");
    by_entries(offsets, x.cols(), [&](int64_t r, size_t at, size_t n) {
      sparse_.dot(x.row(r), indices.subspan(at, n), dictionary, out.data() + at);
    });
  }
  void sparse_outer(std::span<const int64_t> column_offsets, std::span<const int32_t> rows,
                    std::span<const float> values, Mat<const float> x, Mat<float> gradient) override {
    internal::check_sparse(column_offsets, rows, gradient.rows(), x.rows());
    SAIF_CHECK(gradient.cols() == x.cols(), "sparse_outer: columns of the gradient");
    by_entries(column_offsets, x.cols(), [&](int64_t j, size_t at, size_t n) {
      sparse_.outer(rows.subspan(at, n), values.subspan(at, n), x, gradient.row(j));
    });
  }

 private:
  static cpu::RowSource plain_rows(Mat<const float> x) {
    return {x.rows(), x.cols(), [x](int64_t r, float*) { return x.row(r); }};
  }
  cpu::RowSource normed_rows(Mat<const float> x, const RmsNorm& norm) const {
    return {x.rows(), x.cols(), [this, x, norm](int64_t r, float* scratch) {
              rows_.rms_norm(x.rows_range(r, r + 1), norm.weight, norm.offset, norm.eps, {scratch, 1, x.cols()});
              return scratch;
            }};
  }

  void linear_of(const cpu::RowSource& x, std::span<const LinearPart> parts, Compute compute) {
    if (compute == Compute::kF32) return linear_.run(x, parts, compute);
    SAIF_CHECK(compute != Compute::kInt8 || has_int8(), "products of 8 bits on " + name());
    for (std::vector<LinearPart>* kind : {&int8_parts_, &tile_parts_, &few_parts_, &other_parts_}) kind->clear();
    const bool few = x.rows <= cpu::kFewBlockRows;
    for (const LinearPart& part : parts) {
      const bool int8 = compute == Compute::kInt8 && int8_.takes(part.w);
      const bool tiles = tiles_.takes(part.w);
      (int8 ? int8_parts_ : !tiles ? other_parts_ : few && part.w.blocks ? few_parts_ : tile_parts_).push_back(part);
    }
    int8_.run(x, int8_parts_);
    tiles_.run(x, tile_parts_);
    few_blocks_.run(x, few_parts_, Compute::kBf16);
    linear_.run(x, other_parts_, Compute::kBf16);
  }

  void embed_blocks(const WeightView& w, const int32_t* ids, float scale, Mat<float> y) const {
    Tensor row(w.dtype, {w.in});
    constexpr int32_t kFirst = 0;
    for (int64_t r = 0; r < y.rows(); ++r) {
      const auto* blocks = static_cast<const std::byte*>(w.data) + ids[r] * w.row_bytes();
      dequantize_tile(*w.blocks, blocks, w.in, w.dtype, row.data());
      rows_.embed({row.data(), w.dtype, 1, w.in}, {&kFirst, 1}, scale, y.rows_range(r, r + 1));
    }
  }

  static constexpr int64_t kSerialWork = 1 << 15;  // elements touched below which waking threads costs more

  static int64_t ceil_blocks(int64_t tokens) { return (tokens + kKvBlock - 1) / kKvBlock; }
  template <class Body>
  static void by_rows(int64_t rows, int64_t row_work, const Body& body) {
    parallel_for(rows, std::max<int64_t>(1, kSerialWork / std::max<int64_t>(row_work, 1)), body);
  }
  // body(row, first entry, number of entries)
  template <class Body>
  static void by_entries(std::span<const int64_t> offsets, int64_t cols, const Body& body) {
    const int64_t rows = static_cast<int64_t>(offsets.size()) - 1;
    by_rows(rows, offsets.back() * cols / std::max<int64_t>(rows, 1) + 16, [&](int64_t b, int64_t e) {
      for (int64_t r = b; r < e; ++r) {
        const auto at = static_cast<size_t>(offsets[r]), n = static_cast<size_t>(offsets[r + 1]) - at;
        if (n > 0) body(r, at, n);
      }
    });
  }

  Isa isa_;
  cpu::TileLinear tiles_;
  cpu::Linear linear_;
  cpu::Linear few_blocks_;  // of matrices that tiles_ takes for more rows: to the same bits
  cpu::Int8Linear int8_;
  std::vector<LinearPart> int8_parts_, tile_parts_, few_parts_, other_parts_;
  cpu::Scratch gate_, up_;  // of a gated MLP of few rows
  const cpu::RowOps& rows_;
  const cpu::SparseOps& sparse_;
  cpu::AttendFunction attend_, attend_on_tiles_;
  std::vector<cpu::Scratch> scratch_;  // one per thread
  std::unique_ptr<Backend> ref_ = make_ref_backend();
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const std::string& isa) { return std::make_unique<CpuBackend>(choose(isa)); }

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const IsaName& candidate : kIsas) {
    if (has(candidate.isa)) names.emplace_back(candidate.name);
  }
  return names;
}

}  // namespace saif
