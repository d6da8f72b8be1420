#include "kernels/backend.h"

#include "kernels/cpu/linear.h"
#include "kernels/shapes.h"

namespace saif {

namespace {

using cpu::Isa;

struct IsaName {
  const char* name;
  Isa isa;
};
// best first
constexpr IsaName kIsas[] = {
    {"avx512bf16", Isa::kAvx512Bf16}, {"avx512", Isa::kAvx512}, {"avx2", Isa::kAvx2}, {"generic", Isa::kGeneric}};

bool has(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512cd");
  switch (isa) {
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
    if (!name.empty())
      throw Error(Errc::kUnsupported, "this CPU has no " + name + "; leave the instruction set to saif");
  }
  throw Error(Errc::kUnsupported, "instruction set '" + name + "', expected avx512bf16, avx512, avx2 or generic");
}

const char* name_of(Isa isa) {
  for (const IsaName& candidate : kIsas) {
    if (candidate.isa == isa) return candidate.name;
  }
  return "?";
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(Isa isa) : isa_(isa), linear_(isa) {}

  std::string name() const override { return std::string("cpu (") + name_of(isa_) + ")"; }
  bool has_fast_bf16() const override { return isa_ == Isa::kAvx512Bf16; }

  void linear(Mat<const float> x, std::span<const LinearPart> parts, Compute compute) override {
    internal::check_linear(x, parts);
    linear_.run(x, parts, compute);
  }

  void embed(const WeightView& w, std::span<const int32_t> ids, float scale, Mat<float> y) override {
    ref_->embed(w, ids, scale, y);
  }
  void rms_norm(Mat<const float> x, const float* weight, float offset, float eps, Mat<float> y) override {
    ref_->rms_norm(x, weight, offset, eps, y);
  }
  void layer_norm(Mat<const float> x, const float* weight, const float* bias, float eps, Mat<float> y) override {
    ref_->layer_norm(x, weight, bias, eps, y);
  }
  void add(Mat<const float> x, Mat<float> y) override { ref_->add(x, y); }
  void glu(Activation act, Mat<const float> gate, Mat<const float> up, Mat<float> y) override {
    ref_->glu(act, gate, up, y);
  }
  void activate(Activation act, Mat<float> x) override { ref_->activate(act, x); }
  void softcap(float cap, Mat<float> x) override { ref_->softcap(cap, x); }
  void rope(Mat<float> x, int64_t d_head, std::span<const int32_t> positions, const RopeTable& table) override {
    ref_->rope(x, d_head, positions, table);
  }
  void kv_store(Mat<const float> k, Mat<const float> v, int64_t d_head, const KvView& segment, int64_t at) override {
    ref_->kv_store(k, v, d_head, segment, at);
  }
  void attention(Mat<const float> q, std::span<const AttentionRun> runs, const AttentionShape& shape,
                 Mat<float> z) override {
    ref_->attention(q, runs, shape, z);
  }
  void attention_pattern(Mat<const float> q, const AttentionRun& run, const AttentionShape& shape,
                         Mat<float> pattern) override {
    ref_->attention_pattern(q, run, shape, pattern);
  }
  void attention_apply(Mat<const float> pattern, const AttentionRun& run, const AttentionShape& shape,
                       Mat<float> z) override {
    ref_->attention_apply(pattern, run, shape, z);
  }
  void log_sum_exp(Mat<const float> logits, std::span<float> out) override { ref_->log_sum_exp(logits, out); }
  void argmax(Mat<const float> logits, std::span<int32_t> out) override { ref_->argmax(logits, out); }
  void top_k(Mat<const float> x, int64_t k, bool positive_only, Mat<int32_t> out_index, Mat<float> out_value) override {
    ref_->top_k(x, k, positive_only, out_index, out_value);
  }
  void sparse_decode(std::span<const int64_t> offsets, std::span<const int32_t> indices, std::span<const float> values,
                     const WeightView& dictionary, Mat<float> y) override {
    ref_->sparse_decode(offsets, indices, values, dictionary, y);
  }
  void sparse_dot(Mat<const float> x, std::span<const int64_t> offsets, std::span<const int32_t> indices,
                  const WeightView& dictionary, std::span<float> out) override {
    ref_->sparse_dot(x, offsets, indices, dictionary, out);
  }
  void sparse_outer(std::span<const int64_t> column_offsets, std::span<const int32_t> rows,
                    std::span<const float> values, Mat<const float> x, Mat<float> gradient) override {
    ref_->sparse_outer(column_offsets, rows, values, x, gradient);
  }

 private:
  Isa isa_;
  cpu::Linear linear_;
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
