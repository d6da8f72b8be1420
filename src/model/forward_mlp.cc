// MLPs, mixtures of experts and norms of the forward pass.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <span>

#include "base/check.h"
#include "base/parallel.h"
#include "model/forward_impl.h"

namespace saif {
namespace {

// Rows whose hidden activations of the MLP are computed at a time, so that they stay in cache.
constexpr int64_t kMlpRows = 512;

}  // namespace

void multiply(Mat<float> x, float by) {
  parallel_for(x.rows(), 16, [&](int64_t begin, int64_t end) {
    for (float& v : std::span(x.row(begin), static_cast<size_t>((end - begin) * x.cols()))) v *= by;
  });
}

void norm_rows(Backend& backend, const Architecture& arch, const NormWeights& w, Mat<const float> x, Mat<float> y) {
  if (arch.norm == NormKind::kLayer) {
    backend.layer_norm(x, w.weight.data(), w.bias.empty() ? nullptr : w.bias.data(), arch.norm_eps, y);
  } else {
    backend.rms_norm(x, w.weight.data(), arch.norm_offset, arch.norm_eps, y);
  }
}

// `beside`: the normed rows of a parallel block, empty otherwise.
void Forward::Impl::mlp(int layer, Mat<float> x, Mat<const float> beside) {
  const BlockWeights& w = weights.blocks[static_cast<size_t>(layer)];
  const bool experts = arch.layers[static_cast<size_t>(layer)].experts;
  const Tap tap_in = ask(SiteKind::kLn2, layer), tap_pre = ask(SiteKind::kMlpPre, layer);
  const Tap tap_post = ask(SiteKind::kMlpPost, layer), tap_out = ask(SiteKind::kMlpOut, layer);
  if (!tap_in && !tap_pre && !tap_post && !tap_out && !arch.parallel_block && !experts) {
    mlp_in_pieces(w, x);
    return;
  }
  Mat<const float> h = beside;
  if (!arch.parallel_block) {
    h = x;
    if (arch.pre_norms) {
      const Mat<float> normed = norm(x, w.ln2, normed_.take(x.rows(), arch.d_model));
      show(tap_in, normed);
      h = normed;
    }
  }
  if (experts) {
    add_to(w.post_mlp, tap_out, mixture(w, h), x);
  } else {
    project(hidden(w.mlp, h, tap_pre, tap_post), w.mlp.down, w.post_mlp, tap_out, x);
  }
}

void Forward::Impl::norm_linear(Mat<const float> x, const NormWeights& w, std::initializer_list<LinearPart> parts) {
  if (arch.norm == NormKind::kRms) {
    const RmsNorm rms{w.weight.data(), arch.norm_offset, arch.norm_eps};
    return backend->norm_linear(x, rms, {parts.begin(), parts.size()}, model.compute());
  }
  linear(norm(x, w, normed_.take(x.rows(), x.cols())), parts);
}

void Forward::Impl::mlp_in_pieces(const BlockWeights& w, Mat<float> x) {
  for (int64_t first = 0; first < x.rows(); first += kMlpRows) {
    const Mat<float> piece = x.rows_range(first, std::min(x.rows(), first + kMlpRows));
    if (!arch.gated_mlp) {
      Mat<const float> h = piece;
      if (arch.pre_norms) h = norm(piece, w.ln2, normed_.take(piece.rows(), arch.d_model));
      project(hidden(w.mlp, h, {}, {}), w.mlp.down, w.post_mlp, {}, piece);
    } else {
      add_product(w.mlp.down, w.post_mlp, {}, piece,
                  [&](const LinearPart& down) { gated_mlp(w.mlp, &w.ln2, piece, down); });
    }
  }
}

// The whole MLP of x, normed where the architecture does so and `before` is given; nobody looks inside.
void Forward::Impl::gated_mlp(const MlpWeights& w, const NormWeights* before, Mat<const float> x,
                              const LinearPart& down) {
  GatedMlp mlp{{}, activation, w.gate.w, w.up.w, w.gate.bias_data(), w.up.bias_data(), down};
  Mat<const float> h = x;
  if (before != nullptr && arch.pre_norms) {
    if (arch.norm == NormKind::kRms) {
      mlp.norm = {before->weight.data(), arch.norm_offset, arch.norm_eps};
    } else {
      h = norm(x, *before, normed_.take(x.rows(), x.cols()));
    }
  }
  backend->gated_mlp(h, mlp, model.compute());
}

// The hidden activations of an MLP for rows h: [rows, d_mlp], valid until the next call.
Mat<float> Forward::Impl::hidden(const MlpWeights& w, Mat<const float> h, const Tap& tap_pre, const Tap& tap_post) {
  const Mat<float> gate = gate_.take(h.rows(), w.gate.w.out);
  if (arch.gated_mlp) {
    const Mat<float> up = up_.take(h.rows(), w.gate.w.out);
    linear(h, {part(w.gate, gate), part(w.up, up)});
    show(tap_pre, gate);
    backend->glu(activation, gate, up, gate);
  } else {
    linear(h, {part(w.gate, gate)});
    show(tap_pre, gate);
    backend->activate(activation, gate);
  }
  show(tap_post, gate);
  return gate;
}

// Each row's best experts by the router's softmax, mixed with its probabilities. A row's sum runs over its experts in
// their order, so that it does not depend on the batch.
Mat<float> Forward::Impl::mixture(const BlockWeights& w, Mat<const float> h) {
  const Mat<float> scores = router_.take(h.rows(), arch.n_experts);
  linear(h, {part(w.router, scores)});
  chosen_.assign(static_cast<size_t>(arch.n_experts), {});
  std::vector<int64_t> order(static_cast<size_t>(arch.n_experts));
  for (int64_t row = 0; row < h.rows(); ++row) {
    float* p = scores.row(row);
    const float high = *std::max_element(p, p + arch.n_experts);
    float sum = 0, kept = 0;
    for (int64_t e = 0; e < arch.n_experts; ++e) sum += p[e] = std::exp(p[e] - high);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return p[a] > p[b]; });
    for (int64_t i = 0; i < arch.experts_per_token; ++i) kept += p[order[static_cast<size_t>(i)]];
    const float divisor = arch.expert_weights_sum_to_one ? kept : sum;
    for (int64_t i = 0; i < arch.experts_per_token; ++i) {
      const int64_t e = order[static_cast<size_t>(i)];
      chosen_[static_cast<size_t>(e)].emplace_back(row, p[e] / divisor);
    }
  }
  const Mat<float> out = out_.take(h.rows(), arch.d_model);
  std::fill_n(out.data(), out.rows() * out.cols(), 0.0F);
  for (size_t e = 0; e < chosen_.size(); ++e) {
    const auto& rows = chosen_[e];
    if (rows.empty()) continue;
    const auto n = static_cast<int64_t>(rows.size());
    const Mat<float> in = routed_.take(n, arch.d_model), answer = answered_.take(n, arch.d_model);
    for (int64_t i = 0; i < n; ++i) std::copy_n(h.row(rows[static_cast<size_t>(i)].first), arch.d_model, in.row(i));
    gated_mlp(w.experts[e], nullptr, in, part(w.experts[e].down, answer));
    for (int64_t i = 0; i < n; ++i) {
      const auto [row, weight] = rows[static_cast<size_t>(i)];
      for (int64_t c = 0; c < arch.d_model; ++c) out.row(row)[c] += weight * answer.row(i)[c];
    }
  }
  return out;
}

// residual += x w^T + bias
void Forward::Impl::project(Mat<const float> x, const LinearWeights& w, const NormWeights& post, const Tap& tap,
                            Mat<float> residual) {
  add_product(w, post, tap, residual, [&](const LinearPart& to) { linear(x, {to}); });
}

// residual += what `product` gives with weights w, in one step when nobody wants the summand and nothing happens to it.
void Forward::Impl::add_product(const LinearWeights& w, const NormWeights& post, const Tap& tap, Mat<float> residual,
                                const std::function<void(const LinearPart&)>& product) {
  if (!tap && !post.present() && arch.residual_scale == 1.0F) return product(part(w, residual, true));
  const Mat<float> out = out_.take(residual.rows(), arch.d_model);
  product(part(w, out));
  add_to(post, tap, out, residual);
}

// residual += scale * norm(out)
void Forward::Impl::add_to(const NormWeights& post, const Tap& tap, Mat<float> out, Mat<float> residual) {
  if (post.present()) norm(out, post, out);
  if (arch.residual_scale != 1.0F) multiply(out, arch.residual_scale);
  show(tap, out);
  backend->add(out, residual);
}

Mat<float> Forward::Impl::norm(Mat<const float> x, const NormWeights& w, Mat<float> y) {
  norm_rows(*backend, arch, w, x, y);
  return y;
}

// Queries or keys, [rows, heads * d_head]: of each head, or of all heads side by side.
void Forward::Impl::norm_heads(const NormWeights& w, Mat<float> x) {
  if (!w.present()) return;
  const auto width = static_cast<int64_t>(w.weight.size());
  if (!arch.head_norms_differ) {
    const Mat<float> parts(x.data(), x.rows() * x.cols() / width, width);
    norm(parts, w, parts);
    return;
  }
  static const std::vector<float> ones(4096, 1.0F);
  SAIF_CHECK(arch.d_head <= 4096, "heads of 4096 at most");
  const Mat<float> heads(x.data(), x.rows() * x.cols() / arch.d_head, arch.d_head);
  backend->layer_norm(heads, ones.data(), nullptr, arch.norm_eps, heads);
  for (int64_t r = 0; r < x.rows(); ++r) {
    for (int64_t c = 0; c < width; ++c) x.row(r)[c] *= w.weight[static_cast<size_t>(c)];
  }
}

}  // namespace saif
