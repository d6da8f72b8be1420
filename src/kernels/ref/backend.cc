// The plain reference: single loops in the order that the contract states, nothing clever.
#include "kernels/backend.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "kernels/shapes.h"

namespace saif {

namespace {

constexpr double kPi = 3.14159265358979323846;

float weight_at(const WeightView& w, int64_t i) {
  switch (w.dtype) {
    case DType::kBf16:
      return bf16_to_f32(static_cast<const uint16_t*>(w.data)[i]);
    case DType::kF16:
      return f16_to_f32(static_cast<const uint16_t*>(w.data)[i]);
    default:
      return static_cast<const float*>(w.data)[i];
  }
}

void weight_row(const WeightView& w, int64_t r, float* out) {
  if (w.blocks) {
    dequantize_tile(*w.blocks, static_cast<const std::byte*>(w.data) + r * w.row_bytes(), w.in, DType::kF32, out);
    for (int64_t c = 0; w.dtype == DType::kBf16 && c < w.in; ++c) out[c] = bf16_to_f32(f32_to_bf16(out[c]));
    return;
  }
  for (int64_t c = 0; c < w.in; ++c) out[c] = weight_at(w, r * w.in + c);
}

void round_to_bf16(std::vector<float>& v) {
  for (float& f : v) f = bf16_to_f32(f32_to_bf16(f));
}

float act(Activation a, float x) {
  switch (a) {
    case Activation::kSilu:
      return x / (1.0f + std::exp(-x));
    case Activation::kGeluTanh: {
      const auto c = static_cast<float>(std::sqrt(2.0 / kPi));
      return 0.5f * x * (1.0f + std::tanh(c * (x + 0.044715f * x * x * x)));
    }
    case Activation::kGeluErf:
      return 0.5f * x * (1.0f + std::erf(x * static_cast<float>(std::sqrt(0.5))));
    case Activation::kRelu:
      return std::max(x, 0.0f);
  }
  return x;
}

struct Key {
  const KvView* view;
  int64_t token;  // offset in the view
};

Key find_key(std::span<const KvView> chain, int64_t position) {
  for (const KvView& view : chain) {
    if (position < view.begin + view.length) return {&view, position - view.begin};
  }
  return {nullptr, 0};
}

float key_at(const Key& key, int64_t head, int64_t d_head, int64_t d) {
  const int64_t block = head * (key.view->capacity / kKvBlock) + key.token / kKvBlock, lane = key.token % kKvBlock;
  if (key.view->k16 != nullptr) {
    return bf16_to_f32(key.view->k16[((block * ((d_head + 1) / 2) + d / 2) * kKvBlock + lane) * 2 + d % 2]);
  }
  return key.view->k[(block * d_head + d) * kKvBlock + lane];
}

float value_at(const Key& key, int64_t head, int64_t d_head, int64_t d) {
  if (key.view->v16 != nullptr) {
    const int64_t token = head * key.view->v16_tokens() + key.view->v16_lead() + key.token;
    return bf16_to_f32(key.view->v16[(token / 2 * d_head + d) * 2 + 1 - token % 2]);
  }
  return key.view->v[(head * key.view->capacity + key.token) * d_head + d];
}

bool in_bf16(const AttentionRun& run) { return !run.chain.empty() && run.chain[0].k16 != nullptr; }

// Blocks of 32 of each row become codes of 8 bits times a scale.
void round_to_int8(std::vector<float>& x, int64_t cols) {
  for (size_t i = 0; i < x.size();) {
    const auto n = static_cast<size_t>(std::min<int64_t>(32, cols - static_cast<int64_t>(i) % cols));
    float max = 0.0f;
    for (size_t j = i; j < i + n; ++j) max = std::max(max, std::fabs(x[j]));
    const float inverse = max > 0.0f ? 127.0f / max : 0.0f;
    for (size_t j = i; j < i + n; ++j) x[j] = max / 127.0f * std::nearbyint(x[j] * inverse);
    i += n;
  }
}

// `round`: weights to bfloat16.
void multiply(const std::vector<float>& x, int64_t rows, const LinearPart& part, bool round) {
  const int64_t cols = part.w.in;
  std::vector<float> weights(static_cast<size_t>(cols));
  WeightView w = part.w;
  if (!round && w.blocks) w.dtype = DType::kF32;  // as they are stored
  for (int64_t o = 0; o < w.out; ++o) {
    weight_row(w, o, weights.data());
    if (round) round_to_bf16(weights);
    for (int64_t r = 0; r < rows; ++r) {
      float sum = 0.0f;
      for (int64_t c = 0; c < cols; ++c) sum += x[r * cols + c] * weights[c];
      if (part.bias != nullptr) sum += part.bias[o];
      part.y(r, o) = part.accumulate ? part.y(r, o) + sum : sum;
    }
  }
}

class RefBackend final : public Backend {
 public:
  std::string name() const override { return "ref"; }
  bool has_fast_bf16() const override { return false; }
  bool has_bf16_attention(int64_t) const override { return false; }
  bool has_int8() const override { return true; }

  void linear(Mat<const float> x, std::span<const LinearPart> parts, Compute compute) override {
    internal::check_linear(x, parts);
    std::vector<float> rounded(static_cast<size_t>(x.rows() * x.cols()));
    for (int64_t r = 0; r < x.rows(); ++r) std::copy_n(x.row(r), x.cols(), rounded.data() + r * x.cols());
    std::vector<float> eight_bits = rounded;
    if (compute != Compute::kF32) round_to_bf16(rounded);
    if (compute == Compute::kInt8) round_to_int8(eight_bits, x.cols());
    for (const LinearPart& part : parts) {
      const bool int8 = compute == Compute::kInt8 && part.w.blocks && x.cols() % 64 == 0;
      multiply(int8 ? eight_bits : rounded, x.rows(), part, compute != Compute::kF32 && !int8);
    }
  }

  void norm_linear(Mat<const float> x, const RmsNorm& norm, std::span<const LinearPart> parts,
                   Compute compute) override {
    std::vector<float> memory(static_cast<size_t>(x.rows() * x.cols()));
    const Mat<float> h(memory.data(), x.rows(), x.cols());
    rms_norm(x, norm.weight, norm.offset, norm.eps, h);
    linear(h, parts, compute);
  }
  void gated_mlp(Mat<const float> x, const GatedMlp& mlp, Compute compute) override {
    internal::check_gated_mlp(x, mlp);
    const int64_t rows = x.rows(), hidden = mlp.gate.out;
    std::vector<float> normed(static_cast<size_t>(rows * x.cols())), gated(static_cast<size_t>(rows * hidden)),
        upped(gated.size());
    Mat<const float> h = x;
    if (mlp.norm.weight != nullptr) {
      const Mat<float> to(normed.data(), rows, x.cols());
      rms_norm(x, mlp.norm.weight, mlp.norm.offset, mlp.norm.eps, to);
      h = to;
    }
    const Mat<float> gate(gated.data(), rows, hidden), up(upped.data(), rows, hidden);
    const LinearPart parts[] = {{mlp.gate, mlp.gate_bias, gate}, {mlp.up, mlp.up_bias, up}};
    linear(h, parts, compute);
    glu(mlp.activation, gate, up, gate);
    linear(gate, {&mlp.down, 1}, compute);
  }

  void embed(const WeightView& w, std::span<const int32_t> ids, float scale, Mat<float> y) override {
    internal::check_embed(w, ids, y);
    for (int64_t r = 0; r < y.rows(); ++r) {
      weight_row(w, ids[r], y.row(r));
      for (float& f : y.row_span(r)) f *= scale;
    }
  }

  void rms_norm(Mat<const float> x, const float* weight, float offset, float eps, Mat<float> y) override {
    internal::check_same(x, y, "rms_norm");
    for (int64_t r = 0; r < x.rows(); ++r) {
      float squares = 0.0f;
      for (int64_t c = 0; c < x.cols(); ++c) squares += x(r, c) * x(r, c);
      const float scale = 1.0f / std::sqrt(squares / static_cast<float>(x.cols()) + eps);
      for (int64_t c = 0; c < x.cols(); ++c) y(r, c) = x(r, c) * scale * (weight[c] + offset);
    }
  }

  void layer_norm(Mat<const float> x, const float* weight, const float* bias, float eps, Mat<float> y) override {
    internal::check_same(x, y, "layer_norm");
    for (int64_t r = 0; r < x.rows(); ++r) {
      const auto n = static_cast<float>(x.cols());
      const float mean = std::accumulate(x.row(r), x.row(r) + x.cols(), 0.0f) / n;
      float squares = 0.0f;
      for (int64_t c = 0; c < x.cols(); ++c) squares += (x(r, c) - mean) * (x(r, c) - mean);
      const float scale = 1.0f / std::sqrt(squares / n + eps);
      for (int64_t c = 0; c < x.cols(); ++c) {
        y(r, c) = (x(r, c) - mean) * scale * weight[c] + (bias != nullptr ? bias[c] : 0.0f);
      }
    }
  }

  void add(Mat<const float> x, Mat<float> y) override {
    internal::check_same(x, y, "add");
    for (int64_t r = 0; r < x.rows(); ++r) {
      for (int64_t c = 0; c < x.cols(); ++c) y(r, c) += x(r, c);
    }
  }

  void glu(Activation activation, Mat<const float> gate, Mat<const float> up, Mat<float> y) override {
    internal::check_same(gate, up, "glu");
    internal::check_same(gate, y, "glu");
    for (int64_t r = 0; r < y.rows(); ++r) {
      for (int64_t c = 0; c < y.cols(); ++c) y(r, c) = act(activation, gate(r, c)) * up(r, c);
    }
  }

  void activate(Activation activation, Mat<float> x) override {
    for (int64_t r = 0; r < x.rows(); ++r) {
      for (int64_t c = 0; c < x.cols(); ++c) x(r, c) = act(activation, x(r, c));
    }
  }

  void softcap(float cap, Mat<float> x) override {
    SAIF_CHECK(cap > 0.0f, "softcap: the cap must be positive");
    for (int64_t r = 0; r < x.rows(); ++r) {
      for (int64_t c = 0; c < x.cols(); ++c) x(r, c) = cap * std::tanh(x(r, c) / cap);
    }
  }

  void rope(Mat<float> x, int64_t d_head, std::span<const int32_t> positions, const RopeTable& table) override {
    internal::check_rope(x, d_head, positions, table);
    const int64_t half = table.rotary_dim / 2;
    for (int64_t r = 0; r < x.rows(); ++r) {
      for (int64_t head = 0; head < x.cols() / d_head; ++head) {
        float* h = x.row(r) + head * d_head;
        for (int64_t i = 0; i < half; ++i) {
          const float c = table.cos(positions[r], i), s = table.sin(positions[r], i);
          const float a = h[i], b = h[i + half];
          h[i] = a * c - b * s;
          h[i + half] = b * c + a * s;
        }
      }
    }
  }

  void kv_store(Mat<const float> k, Mat<const float> v, int64_t d_head, const KvView& segment, int64_t at) override {
    internal::check_kv_store(k, v, d_head, segment, at);
    for (int64_t r = 0; r < k.rows(); ++r) {
      const int64_t token = at + r;
      for (int64_t head = 0; head < k.cols() / d_head; ++head) {
        const int64_t block = head * (segment.capacity / kKvBlock) + token / kKvBlock;
        if (segment.k16 != nullptr) {
          store16(k.row(r) + head * d_head, v.row(r) + head * d_head, d_head, segment, {head, token});
          continue;
        }
        for (int64_t d = 0; d < d_head; ++d) {
          segment.k[(block * d_head + d) * kKvBlock + token % kKvBlock] = k(r, head * d_head + d);
          segment.v[(head * segment.capacity + token) * d_head + d] = v(r, head * d_head + d);
        }
      }
    }
  }

  void attention(Mat<const float> q, std::span<const AttentionRun> runs, const AttentionShape& shape,
                 Mat<float> z) override {
    internal::check_attention(q, runs, shape);
    internal::check_same(q, z, "attention");
    for (const AttentionRun& run : runs) {
      const int64_t n_keys = run.position + run.n_rows;
      std::vector<float> buffer(static_cast<size_t>(run.n_rows * shape.n_heads * n_keys));
      const Mat<float> pattern(buffer.data(), run.n_rows, shape.n_heads * n_keys);
      fill_pattern(q, run, shape, pattern);
      apply_pattern(pattern, run, shape, z.rows_range(run.row, run.row + run.n_rows));
    }
  }

  void attention_pattern(Mat<const float> q, const AttentionRun& run, const AttentionShape& shape,
                         Mat<float> pattern) override {
    internal::check_attention(q, {&run, 1}, shape);
    internal::check_attention_pattern(pattern, run, shape);
    fill_pattern(q, run, shape, pattern);
  }

  void attention_apply(Mat<const float> pattern, const AttentionRun& run, const AttentionShape& shape,
                       Mat<float> z) override {
    internal::check_attention(z, {&run, 1}, shape);
    internal::check_attention_pattern(pattern, run, shape);
    apply_pattern(pattern, run, shape, z.rows_range(run.row, run.row + run.n_rows));
  }

  void log_sum_exp(Mat<const float> logits, std::span<float> out) override {
    SAIF_CHECK(static_cast<int64_t>(out.size()) == logits.rows(), "log_sum_exp: one output per row");
    for (int64_t r = 0; r < logits.rows(); ++r) {
      const float high = *std::max_element(logits.row(r), logits.row(r) + logits.cols());
      double sum = 0.0;
      for (const float l : logits.row_span(r)) sum += std::exp(static_cast<double>(l - high));
      out[r] = static_cast<float>(high + std::log(sum));
    }
  }

  void argmax(Mat<const float> logits, std::span<int32_t> out) override {
    SAIF_CHECK(static_cast<int64_t>(out.size()) == logits.rows(), "argmax: one output per row");
    for (int64_t r = 0; r < logits.rows(); ++r) {
      out[r] = static_cast<int32_t>(std::max_element(logits.row(r), logits.row(r) + logits.cols()) - logits.row(r));
    }
  }

  void top_k(Mat<const float> x, int64_t k, bool positive_only, Mat<int32_t> out_index, Mat<float> out_value) override {
    internal::check_top_k(x, k, out_index, out_value);
    std::vector<int32_t> order(static_cast<size_t>(x.cols()));
    for (int64_t r = 0; r < x.rows(); ++r) {
      std::iota(order.begin(), order.end(), 0);
      const float* row = x.row(r);
      std::stable_sort(order.begin(), order.end(), [row](int32_t a, int32_t b) { return row[a] > row[b]; });
      std::sort(order.begin(), order.begin() + std::min(k, x.cols()));
      int64_t n = 0;
      for (int64_t i = 0; i < std::min(k, x.cols()); ++i) {
        if (positive_only && !(row[order[i]] > 0.0f)) continue;
        out_index(r, n) = order[i];
        out_value(r, n++) = row[order[i]];
      }
      for (; n < k; ++n) {
        out_index(r, n) = -1;
        out_value(r, n) = 0.0f;
      }
    }
  }

  void find_top(Mat<const float> rank, Mat<const float> value, int64_t first, int64_t k,
                std::span<TopCandidates> rows) override {
    internal::check_find_top(rank, value, k, rows);
    for (int64_t r = 0; r < rank.rows(); ++r) {
      TopCandidates& row = rows[static_cast<size_t>(r)];
      for (int64_t c = 0; c < rank.cols(); ++c) {
        if (!(rank(r, c) > row.least)) continue;
        row.index.push_back(static_cast<int32_t>(first + c));
        row.rank.push_back(rank(r, c));
        row.value.push_back(value(r, c));
      }
    }
  }

  void sparse_decode(std::span<const int64_t> offsets, std::span<const int32_t> indices, std::span<const float> values,
                     const WeightView& dictionary, Mat<float> y) override {
    internal::check_dictionary(dictionary, "sparse_decode");
    internal::check_sparse(offsets, indices, y.rows(), dictionary.out);
    SAIF_CHECK(y.cols() == dictionary.in, "sparse_decode: columns of y");
    for (int64_t r = 0; r < y.rows(); ++r) {
      for (int64_t i = offsets[r]; i < offsets[r + 1]; ++i) {
        for (int64_t c = 0; c < y.cols(); ++c)
          y(r, c) += values[i] * weight_at(dictionary, indices[i] * dictionary.in + c);
      }
    }
  }

  void sparse_dot(Mat<const float> x, std::span<const int64_t> offsets, std::span<const int32_t> indices,
                  const WeightView& dictionary, std::span<float> out) override {
    internal::check_dictionary(dictionary, "sparse_dot");
    internal::check_sparse(offsets, indices, x.rows(), dictionary.out);
    SAIF_CHECK(x.cols() == dictionary.in, "sparse_dot: columns of x");
    for (int64_t r = 0; r < x.rows(); ++r) {
      for (int64_t i = offsets[r]; i < offsets[r + 1]; ++i) {
        float sum = 0.0f;
        for (int64_t c = 0; c < x.cols(); ++c) sum += x(r, c) * weight_at(dictionary, indices[i] * dictionary.in + c);
        out[i] = sum;
      }
    }
  }

  void sparse_outer(std::span<const int64_t> column_offsets, std::span<const int32_t> rows,
                    std::span<const float> values, Mat<const float> x, Mat<float> gradient) override {
    internal::check_sparse(column_offsets, rows, gradient.rows(), x.rows());
    SAIF_CHECK(gradient.cols() == x.cols(), "sparse_outer: columns of the gradient");
    for (int64_t j = 0; j < gradient.rows(); ++j) {
      for (int64_t i = column_offsets[j]; i < column_offsets[j + 1]; ++i) {
        for (int64_t c = 0; c < x.cols(); ++c) gradient(j, c) += values[i] * x(rows[i], c);
      }
    }
  }

 private:
  static void fill_pattern(Mat<const float> q, const AttentionRun& run, const AttentionShape& shape,
                           Mat<float> pattern) {
    const int64_t n_keys = run.position + run.n_rows;
    for (int64_t r = 0; r < run.n_rows; ++r) {
      for (int64_t head = 0; head < shape.n_heads; ++head) {
        pattern_row(q.row(run.row + r) + head * shape.d_head, run, shape, {head, run.position + r},
                    pattern.row(r) + head * n_keys);
      }
    }
  }

  struct Query {
    int64_t head, position;
  };

  static void store16(const float* k, const float* v, int64_t d_head, const KvView& segment, Query at) {
    const int64_t block = at.head * (segment.capacity / kKvBlock) + at.position / kKvBlock, pairs = (d_head + 1) / 2;
    for (int64_t d = 0; d < 2 * pairs; ++d) {
      const int64_t lane = (block * pairs + d / 2) * kKvBlock + at.position % kKvBlock;
      segment.k16[lane * 2 + d % 2] = d < d_head ? f32_to_bf16(k[d]) : 0;
    }
    for (int64_t d = 0; d < d_head; ++d) {
      const int64_t token = at.head * segment.v16_tokens() + segment.v16_lead() + at.position;
      segment.v16[(token / 2 * d_head + d) * 2 + 1 - token % 2] = f32_to_bf16(v[d]);
    }
  }

  static void pattern_row(const float* q, const AttentionRun& run, const AttentionShape& shape, Query query, float* p) {
    const int64_t n_keys = run.position + run.n_rows;
    const int64_t kv_head = query.head / (shape.n_heads / shape.n_kv_heads);
    const int64_t first = internal::first_visible(query.position, shape.window);
    std::fill_n(p, n_keys, 0.0f);
    float high = -std::numeric_limits<float>::infinity();
    for (int64_t t = first; t <= query.position; ++t) {
      const Key key = find_key(run.chain, t);
      float score = 0.0f;
      for (int64_t d = 0; d < shape.d_head; ++d) {
        score += (in_bf16(run) ? bf16_to_f32(f32_to_bf16(q[d])) : q[d]) * key_at(key, kv_head, shape.d_head, d);
      }
      score *= shape.scale;
      if (shape.softcap > 0.0f) score = shape.softcap * std::tanh(score / shape.softcap);
      p[t] = score;
      high = std::max(high, score);
    }
    float sum = 0.0f;
    for (int64_t t = first; t <= query.position; ++t) sum += p[t] = std::exp(p[t] - high);
    for (int64_t t = first; t <= query.position; ++t) p[t] /= sum;
  }

  // z: the rows of the run only.
  static void apply_pattern(Mat<const float> pattern, const AttentionRun& run, const AttentionShape& shape,
                            Mat<float> z) {
    const int64_t n_keys = run.position + run.n_rows;
    for (int64_t r = 0; r < run.n_rows; ++r) {
      for (int64_t head = 0; head < shape.n_heads; ++head) {
        float* out = z.row(r) + head * shape.d_head;
        std::fill_n(out, shape.d_head, 0.0f);
        for (int64_t t = 0; t <= run.position + r; ++t) {
          const float p = pattern(r, head * n_keys + t);
          const Key key = find_key(run.chain, t);
          const int64_t kv_head = head / (shape.n_heads / shape.n_kv_heads);
          for (int64_t d = 0; d < shape.d_head; ++d) out[d] += p * value_at(key, kv_head, shape.d_head, d);
        }
      }
    }
  }
};

}  // namespace

std::unique_ptr<Backend> make_ref_backend() { return std::make_unique<RefBackend>(); }

}  // namespace saif
