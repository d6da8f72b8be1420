// TransformerLens' names of the values in comments: resid_pre -> ln1 -> q, k, v -> z -> attn_out -> resid_mid -> ln2 ->
// mlp.pre -> mlp.post -> mlp_out -> resid_post.
#include "model/forward.h"

#include <algorithm>

#include "base/check.h"
#include "base/parallel.h"
#include "model/forward_impl.h"

namespace saif {
namespace {

Activation activation_of(const std::string& name) {
  if (name == "silu") return Activation::kSilu;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  if (name == "gelu_erf") return Activation::kGeluErf;
  SAIF_CHECK(name == "relu", "activation " + name);
  return Activation::kRelu;
}

}  // namespace

Forward::Impl::Impl(std::shared_ptr<const Model> loaded)
    : owner(std::move(loaded)),
      model([&]() -> const LoadedModel& {
        const auto* known = dynamic_cast<const LoadedModel*>(owner.get());
        SAIF_CHECK(known != nullptr, "a model that Model::load made");
        return *known;
      }()),
      arch(model.architecture()),
      weights(model.weights()),
      activation(activation_of(arch.activation)),
      backend(model.make_backend()) {
  std::vector<const RopeSpec*> distinct;
  for (const LayerSpec& layer : arch.layers) {
    const auto same = [&](const RopeSpec* known) { return *known == layer.rope; };
    const auto it = std::ranges::find_if(distinct, same);
    rope_of_layer_.push_back(static_cast<size_t>(it - distinct.begin()));
    if (it != distinct.end()) continue;
    distinct.push_back(&layer.rope);
    rope_caches_.emplace_back(layer.rope);
  }
}

Mat<float> Forward::Impl::run(ForwardBatch& batch) {
  begin(batch);
  Mat<float> x = embed();  // [rows, d_model], float32: the residual stream
  for (int layer = 0; layer <= batch.last_layer; ++layer) {
    x = block(layer, x);
    if (batch.release_kv_layers) release(layer);
  }
  return logits(x);
}

Mat<float> Forward::Impl::embed() {
  const Mat<float> x = residual_.take(static_cast<int64_t>(rows_.size()), arch.d_model);
  backend->embed(weights.embedding, batch_->tokens, arch.embed_scale, x);
  show(ask(SiteKind::kEmbed), x);
  if (arch.learned_positions) {
    const Mat<float> positions = out_.take(x.rows(), arch.d_model);
    backend->embed(weights.positions, positions_, 1.0F, positions);
    show(ask(SiteKind::kPosEmbed), positions);
    backend->add(positions, x);
  }
  return x;
}

Mat<float> Forward::Impl::block(int layer, Mat<float> x) {
  const BlockWeights& w = weights.blocks[static_cast<size_t>(layer)];
  const int64_t rows = x.rows(), d_queries = arch.n_heads * arch.d_head, d_keys = arch.n_kv_heads * arch.d_head;
  show(ask(SiteKind::kResidPre, layer), x);
  // Rows that nobody keeps end in the last block with their keys and values.
  const bool last = layer == batch_->last_layer && !batch_->all_rows;
  const Tap tap_ln1 = ask(SiteKind::kLn1, layer);
  const bool norm_on_the_way = arch.pre_norms && !tap_ln1 && !last && !arch.parallel_block;
  Mat<float> h = x;
  if (arch.pre_norms && !norm_on_the_way) {
    h = norm(x, w.ln1, normed_.take(rows, arch.d_model));
    show(tap_ln1, h);
  }

  const Tap tap_q = ask(SiteKind::kQ, layer);
  const bool queries_later = last && !tap_q;
  Mat<float> q = q_.take(rows, d_queries);
  const Mat<float> k = k_.take(rows, d_keys), v = v_.take(rows, d_keys);
  if (queries_later) {
    linear(h, {part(w.k, k), part(w.v, v)});
  } else {
    if (norm_on_the_way) {
      norm_linear(x, w.ln1, {part(w.q, q), part(w.k, k), part(w.v, v)});
    } else {
      linear(h, {part(w.q, q), part(w.k, k), part(w.v, v)});
    }
    pairs_to_halves(w.q, q);
    show(tap_q, q);
  }
  finish_keys(layer, k, v);
  if (last) {
    x = gather(x, kept_residual_);
    h = gather(h, kept_normed_);
    keep_rows();
    if (x.rows() == 0) return x;
    q = queries_later ? queries(w.q, h) : kept_queries(q);
  }
  norm_heads(w.q_norm, q);
  rotate(layer, q);

  const Mat<float> z = z_.take(x.rows(), d_queries);
  attend(layer, q, z);
  show(ask(SiteKind::kZ, layer), z);
  Mat<float> beside;  // what the MLP of a parallel block reads: rows that attention has not changed
  if (arch.parallel_block) {
    beside = arch.shared_norm ? h : norm(x, w.ln2, beside_.take(x.rows(), arch.d_model));
    if (!arch.shared_norm) show(ask(SiteKind::kLn2, layer), beside);
  }
  project(z, w.o, w.post_attn, ask(SiteKind::kAttnOut, layer), x);
  if (!arch.parallel_block) show(ask(SiteKind::kResidMid, layer), x);
  mlp(layer, x, beside);
  show(ask(SiteKind::kResidPost, layer), x);
  return x;
}

Mat<float> Forward::Impl::queries(const LinearWeights& w, Mat<const float> h) {
  const Mat<float> q = q_.take(h.rows(), arch.n_heads * arch.d_head);
  linear(h, {part(w, q)});
  pairs_to_halves(w, q);
  return q;
}

Mat<float> Forward::Impl::kept_queries(Mat<float> q) {
  const Mat<float> gathered = gather(q, z_);  // whose value is not there yet
  const Mat<float> kept = q_.take(gathered.rows(), gathered.cols());
  std::copy_n(gathered.data(), gathered.rows() * gathered.cols(), kept.data());
  return kept;
}

void Forward::Impl::finish_keys(int layer, Mat<float> k, Mat<float> v) {
  const BlockWeights& w = weights.blocks[static_cast<size_t>(layer)];
  pairs_to_halves(w.k, k);
  show(ask(SiteKind::kK, layer), k);
  show(ask(SiteKind::kV, layer), v);
  norm_heads(w.k_norm, k);
  rotate(layer, k);
  store(layer, k, v);
}

// The final norm and logits of the kept rows.
Mat<float> Forward::Impl::logits(Mat<float> x) {
  if (batch_->last_layer + 1 < arch.n_layers) return {};
  const Tap tap_norm = ask(SiteKind::kFinalNorm), tap_logits = ask(SiteKind::kLogits);
  if (x.rows() == 0 || !(batch_->logits || tap_norm || tap_logits)) return {};
  const Mat<float> h = norm(x, weights.final_norm, normed_.take(x.rows(), arch.d_model));
  show(tap_norm, h);
  if (!batch_->logits && !tap_logits) return {};
  const Mat<float> out = logits_.take(x.rows(), arch.vocab);
  const float* bias = weights.unembedding_bias.empty() ? nullptr : weights.unembedding_bias.data();
  linear(h, {{weights.unembedding, bias, out, false}});
  if (arch.logit_scale != 1.0F) multiply(out, arch.logit_scale);
  if (arch.logit_softcap > 0) backend->softcap(arch.logit_softcap, out);
  show(tap_logits, out);
  return batch_->logits ? out : Mat<float>();
}

void Forward::Impl::attend(int layer, Mat<float> q, Mat<float> z) {
  views_.clear();
  for (const Run& run : runs_) {
    const auto& chain = run.from->chain;
    for (size_t i = 0; i < chain.size(); ++i) {
      SAIF_CHECK(chain[i]->has_layer(layer), "a KV chain without keys of block " + std::to_string(layer));
      KvView view = chain[i]->view(layer);
      const int64_t end = i + 1 < chain.size() ? chain[i + 1]->begin() : run.position + run.n_rows;
      view.length = std::min(view.length, end - view.begin);
      views_.push_back(view);
    }
  }
  attention_runs_.clear();
  size_t first = 0;
  for (const Run& run : runs_) {
    const size_t n = run.from->chain.size();
    attention_runs_.push_back({run.row, run.n_rows, run.position, {views_.data() + first, n}});
    first += n;
  }
  const LayerSpec& spec = arch.layers[static_cast<size_t>(layer)];
  const AttentionShape shape{arch.n_heads,         arch.n_kv_heads,        arch.d_head,
                             spec.attention_scale, arch.attention_softcap, spec.window};
  const Tap tap = ask(SiteKind::kPattern, layer);
  backend->attention(q, attention_runs_, shape, z);
  if (tap) show_pattern(tap, shape, q, z);
}

// Shows the probabilities, [rows, n_heads * max_keys_], each head's padded with zeros. Only rows whose probabilities an
// editor changed get their z from them: attention() stays the one definition of all others, to the last bit.
void Forward::Impl::show_pattern(const Tap& tap, const AttentionShape& shape, Mat<float> q, Mat<float> z) {
  const Mat<float> padded = padded_.take(q.rows(), arch.n_heads * max_keys_);
  std::fill_n(padded.data(), padded.rows() * padded.cols(), 0.0F);
  const auto copy_heads = [&](const AttentionRun& run, const Mat<float>& pattern, bool to_padded) {
    const int64_t n_keys = run.position + run.n_rows;
    for (int64_t r = 0; r < run.n_rows; ++r) {
      for (int64_t head = 0; head < arch.n_heads; ++head) {
        float* a = pattern.row(r) + head * n_keys;
        float* b = padded.row(run.row + r) + head * max_keys_;
        std::copy_n(to_padded ? a : b, n_keys, to_padded ? b : a);
      }
    }
  };
  for (const AttentionRun& run : attention_runs_) {
    const Mat<float> pattern = pattern_.take(run.n_rows, arch.n_heads * (run.position + run.n_rows));
    backend->attention_pattern(q, run, shape, pattern);
    copy_heads(run, pattern, true);
  }
  std::vector<float> before;
  if (tap.edited) before.assign(padded.data(), padded.data() + padded.rows() * padded.cols());
  show(tap, padded);
  if (!tap.edited) return;
  const auto changed = [&](int64_t row) {
    const float* now = padded.row(row);
    return !std::equal(now, now + padded.cols(), before.data() + row * padded.cols());
  };
  const Mat<float> applied = applied_.take(z.rows(), z.cols());
  for (const AttentionRun& run : attention_runs_) {
    const Mat<float> pattern = pattern_.take(run.n_rows, arch.n_heads * (run.position + run.n_rows));
    copy_heads(run, pattern, false);
    backend->attention_apply(pattern, run, shape, applied);
    for (int64_t r = run.row; r < run.row + run.n_rows; ++r) {
      if (changed(r)) std::copy_n(applied.row(r), z.cols(), z.row(r));
    }
  }
}

void Forward::Impl::store(int layer, Mat<const float> k, Mat<const float> v) {
  kv_runs_.clear();
  for (const Run& run : runs_) {
    KvSegment& segment = *run.from->chain.back();
    SAIF_CHECK(run.at == 0 || segment.has_layer(layer),
               "a KV segment whose earlier tokens have no keys of block " + std::to_string(layer));
    kv_runs_.push_back({run.row, run.n_rows, run.at, segment.view_to_store(layer, run.at, run.n_rows)});
  }
  backend->kv_store_runs(k, v, arch.d_head, kv_runs_);
}

void Forward::Impl::begin(ForwardBatch& batch) {
  const auto rows = static_cast<int64_t>(batch.tokens.size());
  SAIF_CHECK(static_cast<int64_t>(batch.rows.size()) == rows && rows > 0, "forward: one RowInfo per token");
  SAIF_CHECK(batch.last_layer >= 0 && batch.last_layer < arch.n_layers, "forward: last_layer");
  SAIF_CHECK(!batch.logits || batch.last_layer + 1 == arch.n_layers, "forward: logits need every block");
  batch_ = &batch;
  rows_ = batch.rows;
  runs_.clear();
  positions_.clear();
  rope_rows_.clear();
  max_keys_ = 0;
  int64_t row = 0;
  for (const ForwardRun& run : batch.runs) {
    SAIF_CHECK(run.row == row && run.n_rows > 0 && !run.chain.empty(), "forward: runs must cover the rows in order");
    KvSegment& own = *run.chain.back();
    SAIF_CHECK(run.position == own.end(), "forward: a run begins at " + std::to_string(run.position) +
                                              ", its segment ends at " + std::to_string(own.end()));
    for (size_t i = 0; i < run.chain.size(); ++i) {
      const int64_t reached = i == 0 ? 0 : run.chain[i - 1]->end();
      const int64_t start = run.chain[i]->begin();
      SAIF_CHECK(i == 0 ? start == 0 : start <= reached && start >= run.chain[i - 1]->begin(),
                 "forward: a gap in a KV chain before position " + std::to_string(start));
    }
    const bool is_long = rope_context_ > 0 && (run.long_prompt || run.position + run.n_rows > rope_context_);
    runs_.push_back({&run, row, run.n_rows, run.position, own.length(), is_long});
    own.grow_to(own.length() + run.n_rows);
    for (int64_t i = 0; i < run.n_rows; ++i) place(run.position + i, is_long);
    row += run.n_rows;
    max_keys_ = std::max(max_keys_, run.position + run.n_rows);
  }
  SAIF_CHECK(row == rows, "forward: runs must cover the rows in order");
  for (size_t i = 0; i < batch.kept_rows.size(); ++i) {
    SAIF_CHECK(
        batch.kept_rows[i] >= 0 && batch.kept_rows[i] < rows && (i == 0 || batch.kept_rows[i - 1] < batch.kept_rows[i]),
        "forward: kept_rows must ascend and exist");
  }
}

// From here on only the kept rows exist.
void Forward::Impl::keep_rows() {
  const std::vector<Run> all = runs_;
  const std::vector<int32_t> all_positions = positions_;
  runs_.clear();
  positions_.clear();
  rope_rows_.clear();
  kept_info_.clear();
  max_keys_ = 0;
  size_t of = 0;
  for (const int64_t row : batch_->kept_rows) {
    while (row >= all[of].row + all[of].n_rows) ++of;
    const int64_t position = all_positions[static_cast<size_t>(row)];
    const auto kept = static_cast<int64_t>(kept_info_.size());
    const bool continues =
        !runs_.empty() && runs_.back().from == all[of].from && runs_.back().position + runs_.back().n_rows == position;
    if (continues) {
      ++runs_.back().n_rows;
    } else {
      runs_.push_back({all[of].from, kept, 1, position, 0, all[of].is_long});
    }
    place(position, all[of].is_long);
    kept_info_.push_back(batch_->rows[static_cast<size_t>(row)]);
    max_keys_ = std::max(max_keys_, position + 1);
  }
  rows_ = kept_info_;
}

Mat<float> Forward::Impl::gather(Mat<float> x, Buffer& to) const {
  const auto& kept = batch_->kept_rows;
  const Mat<float> out = to.take(static_cast<int64_t>(kept.size()), x.cols());
  for (size_t i = 0; i < kept.size(); ++i) {
    std::copy_n(x.row(kept[i]), x.cols(), out.row(static_cast<int64_t>(i)));
  }
  return out;
}

void Forward::Impl::place(int64_t position, bool is_long) {
  positions_.push_back(static_cast<int32_t>(position));
  rope_rows_.push_back(static_cast<int32_t>(2 * position + is_long));
}

void Forward::Impl::rotate(int layer, Mat<float> x) {
  if (arch.layers[static_cast<size_t>(layer)].rope.rotary_dim == 0) return;
  RopeCache& cache = rope_caches_[rope_of_layer_[static_cast<size_t>(layer)]];
  backend->rope(x, arch.d_head, cache.has_long() ? rope_rows_ : positions_, cache.table(max_keys_));
}

// Of each head, value 2 i + p goes to p * d_head / 2 + i. Moving the product's few columns costs less than a copy of
// the matrix with its rows moved, and two processes go on sharing its pages.
void Forward::Impl::pairs_to_halves(const LinearWeights& w, Mat<float> x) {
  if (!w.paired) return;
  const int64_t half = arch.d_head / 2;
  const Mat<float> pairs = pairs_.take(x.rows(), x.cols());
  parallel_for(x.rows(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::copy_n(x.row(r), x.cols(), pairs.row(r));
      for (int64_t head = 0; head < x.cols(); head += arch.d_head) {
        const float* from = pairs.row(r) + head;
        float *first = x.row(r) + head, *second = first + half;
        for (int64_t i = 0; i < half; ++i) {
          first[i] = from[2 * i];
          second[i] = from[2 * i + 1];
        }
      }
    }
  });
}

void Forward::Impl::linear(Mat<const float> x, std::initializer_list<LinearPart> parts) {
  backend->linear(x, {parts.begin(), parts.size()}, model.compute());
}

void Forward::Impl::release(int layer) {
  for (const ForwardRun& run : batch_->runs) {
    for (KvSegment* segment : run.chain) segment->release_layer(layer);
  }
}

Forward::Impl::Tap Forward::Impl::ask(SiteKind kind, int layer) const {
  const Site site{kind, layer};
  return {site, batch_->observer != nullptr && batch_->observer->wants(site),
          batch_->editor != nullptr && batch_->editor->wants(site)};
}

void Forward::Impl::show(const Tap& tap, Mat<float> values) {
  if (tap.edited) batch_->editor->edit(tap.site, rows_, values);
  if (tap.observed) batch_->observer->observe(tap.site, rows_, values);
}

Forward::Forward(std::shared_ptr<const Model> model) : impl_(std::make_unique<Impl>(std::move(model))) {}
Forward::~Forward() = default;
Mat<float> Forward::run(ForwardBatch& batch) { return impl_->run(batch); }
Backend& Forward::backend() { return *impl_->backend; }

}  // namespace saif
