// The state of a forward pass; its parts are in forward.cc (blocks, attention) and forward_mlp.cc.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "model/forward.h"
#include "model/loaded_model.h"
#include "model/rope.h"

namespace saif {

// Memory of a value that is written anew in each block; grows, never shrinks.
class Buffer {
 public:
  Mat<float> take(int64_t rows, int64_t cols) {
    if (rows * cols > size_) {
      memory_ = Tensor(DType::kF32, {rows * cols});
      size_ = rows * cols;
    }
    return {memory_.as<float>(), rows, cols};
  }

 private:
  Tensor memory_;
  int64_t size_ = 0;
};

// x *= by
void multiply(Mat<float> x, float by);

struct Forward::Impl {
  explicit Impl(std::shared_ptr<const Model> loaded);

  Mat<float> run(ForwardBatch& batch);

 private:
  // Whether somebody looks at a site or changes it; asked once per site and call.
  struct Tap {
    Site site;
    bool observed = false, edited = false;
    explicit operator bool() const { return observed || edited; }
  };
  Tap ask(SiteKind kind, int layer = -1) const;
  void show(const Tap& tap, Mat<float> values);

  void begin(ForwardBatch& batch);
  Mat<float> embed();
  Mat<float> block(int layer, Mat<float> x);
  Mat<float> queries(const LinearWeights& w, Mat<const float> h);
  Mat<float> kept_queries(Mat<float> q);                    // of all rows, which it overwrites
  void finish_keys(int layer, Mat<float> k, Mat<float> v);  // shown, normed, rotated, stored
  void attend(int layer, Mat<float> q, Mat<float> z);
  void show_pattern(const Tap& tap, const AttentionShape& shape, Mat<float> q, Mat<float> z);
  void mlp(int layer, Mat<float> x, Mat<const float> beside);
  void mlp_in_pieces(const BlockWeights& w, Mat<float> x);
  Mat<float> hidden(const MlpWeights& w, Mat<const float> h, const Tap& tap_pre, const Tap& tap_post);
  void gated_mlp(const MlpWeights& w, const NormWeights* before, Mat<const float> x, const LinearPart& down);
  Mat<float> mixture(const BlockWeights& w, Mat<const float> h);
  void project(Mat<const float> x, const LinearWeights& w, const NormWeights& post, const Tap& tap,
               Mat<float> residual);
  void add_product(const LinearWeights& w, const NormWeights& post, const Tap& tap, Mat<float> residual,
                   const std::function<void(const LinearPart&)>& product);
  void add_to(const NormWeights& post, const Tap& tap, Mat<float> out, Mat<float> residual);
  Mat<float> logits(Mat<float> x);

  void store(int layer, Mat<const float> k, Mat<const float> v);
  void place(int64_t position, bool is_long);
  void keep_rows();
  Mat<float> gather(Mat<float> x, Buffer& to) const;
  Mat<float> norm(Mat<const float> x, const NormWeights& w, Mat<float> y);
  void norm_heads(const NormWeights& w, Mat<float> x);
  void rotate(int layer, Mat<float> x);
  void pairs_to_halves(const LinearWeights& w, Mat<float> x);
  void linear(Mat<const float> x, std::initializer_list<LinearPart> parts);
  // linear() of the normed rows, which nobody looks at.
  void norm_linear(Mat<const float> x, const NormWeights& w, std::initializer_list<LinearPart> parts);
  static LinearPart part(const LinearWeights& w, Mat<float> y, bool accumulate = false) {
    return {w.w, w.bias_data(), y, accumulate};
  }
  void release(int layer);

 public:
  const std::shared_ptr<const Model> owner;
  const LoadedModel& model;
  const Architecture& arch;
  const ModelWeights& weights;
  const Activation activation;
  const std::unique_ptr<Backend> backend;

 private:
  const int64_t rope_context_ = arch.rope_context();
  std::vector<RopeCache> rope_caches_;
  std::vector<size_t> rope_of_layer_;

  // Consecutive rows of one sequence, as attention sees them.
  struct Run {
    const ForwardRun* from = nullptr;
    int64_t row = 0, n_rows = 0, position = 0;
    int64_t at = 0;  // of the first row, in tokens from the begin of the chain's last segment
    bool is_long = false;
  };
  // State of the current call.
  ForwardBatch* batch_ = nullptr;
  std::vector<Run> runs_;           // of all rows, then of the kept ones
  std::vector<RowInfo> kept_info_;  // of kept rows
  std::span<const RowInfo> rows_;   // of the rows that exist now
  std::vector<int32_t> positions_;  // of all rows, then of the kept ones
  std::vector<int32_t> rope_rows_;  // likewise: of tables that have rows of long prompts
  int64_t max_keys_ = 0;

  std::vector<KvView> views_;
  std::vector<AttentionRun> attention_runs_;
  std::vector<KvRun> kv_runs_;
  std::vector<std::vector<std::pair<int64_t, float>>> chosen_;  // of each expert: rows and weights
  Buffer residual_, kept_residual_, normed_, kept_normed_, beside_, q_, k_, v_, pairs_, z_, gate_, up_, out_, router_,
      routed_, answered_, logits_, pattern_, padded_, applied_;
};

}  // namespace saif
