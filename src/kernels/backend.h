// The operations a model, an SAE and their training are made of: about 25 coarse ones behind one interface.
//
// Every operation is batch-invariant: what a row of the result holds depends on that row's inputs only, bit for bit,
// whatever other rows share the call, however many threads run, however a KV chain is cut into segments. Each output
// element is accumulated in float32 in one fixed order: along `in` for products, along absolute positions in attention.
//
// Pointers and views never overlap unless an operation says so. Operations are blocking; one Backend may be used from
// one thread at a time (it owns scratch memory); it runs its own parallel loops.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "saif/tensor.h"
#include "tensor/ggml_types.h"

namespace saif {

// In which type activations meet weights. kBf16: activations are rounded to bfloat16, products accumulate in float32.
// kInt8: as kBf16, but matrices of blocks whose `in` is a multiple of 64 meet activations of 8 bits, one scale per 32
// of them (the largest / 127), as in llama.cpp's Q8_0.
enum class Compute { kF32, kBf16, kInt8 };

// A matrix as torch's Linear stores it: [out, in] row-major, F32, F16 or BF16, used where it lies.
//
// With `blocks`, data holds each row as blocks of that GGUF type, at any address (`in` is a whole number of blocks),
// and dtype, F32 or BF16, is what a block's values are rounded to before use: every result has the bits that the matrix
// dequantised to dtype gives. Only linear() by kBf16 on a backend with has_fast_bf16() rounds no weight: there codes,
// exact in bfloat16, are multiplied, and a scale meets the sum of its block. linear() and embed() take such matrices;
// the sparse operations do not.
struct WeightView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t out = 0, in = 0;
  std::optional<GgmlType> blocks = std::nullopt;

  int64_t row_bytes() const {
    if (!blocks) return in * static_cast<int64_t>(size_of(dtype));
    const GgmlTypeInfo& info = info_of(*blocks);
    return in / info.block * static_cast<int64_t>(info.block_bytes);
  }
};

// y[m, out] = x[m, in] w^T + bias, or y += ... when `accumulate`.
struct LinearPart {
  WeightView w;
  const float* bias = nullptr;  // [out] or nullptr
  Mat<float> y;                 // [m, out]
  bool accumulate = false;
};

// Backend::rms_norm's: weight [cols]
struct RmsNorm {
  const float* weight = nullptr;
  float offset = 0.0f, eps = 0.0f;
};

enum class Activation { kSilu, kGeluTanh, kGeluErf, kRelu };

// down(act(gate h) * (up h)), h = rms_norm(x), or x where the norm has no weight. gate, up [hidden, cols of x]; down.y
// may be x.
struct GatedMlp {
  RmsNorm norm;
  Activation activation = Activation::kSilu;
  WeightView gate, up;
  const float *gate_bias = nullptr, *up_bias = nullptr;  // [hidden] or nullptr
  LinearPart down;                                       // [out, hidden]
};

// One layer's keys and values of one KV segment. Tokens sit at absolute positions [begin, begin + length).
// k: [n_kv_heads][capacity / 16][d_head][16]  keys in transposed blocks of 16 tokens: scores of 16 keys at a time
// v: [n_kv_heads][capacity][d_head]
//
// In bfloat16 k16 and v16 stand in their place, as pairs; queries and probabilities are rounded to bfloat16 there.
// k16: [n_kv_heads][capacity / 16][(d_head + 1) / 2][16][2]  dimensions 2 i and 2 i + 1 of a key; 0 past the last one
// v16: [n_kv_heads][v16_tokens() / 2][d_head][2]             the value of position 2 t + 1, then that of position 2 t
// v16's first token is v16_lead() before `begin`: pairs, and the 32 tokens that one product sums, are the same
// positions whatever the segment.
struct KvView {
  float* k = nullptr;
  float* v = nullptr;
  int64_t capacity = 0;  // multiple of 16
  int64_t begin = 0;
  int64_t length = 0;
  uint16_t* k16 = nullptr;
  uint16_t* v16 = nullptr;

  static constexpr int64_t kSum = 32;
  int64_t v16_lead() const { return begin % kSum; }
  int64_t v16_tokens() const { return v16_tokens(capacity); }
  static int64_t v16_tokens(int64_t capacity) { return capacity + kSum; }
};
constexpr int64_t kKvBlock = 16;

// Query rows [row, row + n_rows) of a batch at consecutive positions [position, position + n_rows); `chain` holds the
// KV of positions [0, position + n_rows) in order, its last views ending with the rows' own keys.
struct AttentionRun {
  int64_t row = 0, n_rows = 0, position = 0;
  std::span<const KvView> chain;
};

// Rows [row, row + n_rows) of a batch of keys and values go to tokens [at, at + n_rows) of `segment`.
struct KvRun {
  int64_t row = 0, n_rows = 0, at = 0;
  KvView segment;
};

struct AttentionShape {
  int64_t n_heads = 0, n_kv_heads = 0, d_head = 0;
  float scale = 1.0f;    // multiplies q.k
  float softcap = 0.0f;  // 0: none; else scores = softcap * tanh(scores / softcap)
  int64_t window = 0;    // 0: none; else a token sees itself and the window - 1 before it
};

// Columns that may be among the k largest of a row which comes in pieces: each one's place, in ascending order, what it
// ranks by, and its value.
struct TopCandidates {
  std::vector<int32_t> index;
  std::vector<float> rank, value;
  float least = -std::numeric_limits<float>::infinity();  // only what ranks above it can still be among them

  void clear(float new_least);
  void keep(int64_t k);  // only the k largest; ties: the lowest index
};

// Rotation tables: cos and sin are [n_positions, rotary_dim / 2] float32, any attention factor already multiplied in.
struct RopeTable {
  Mat<const float> cos, sin;
  int64_t rotary_dim = 0;  // leading dimensions of each head that are rotated
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;                       // "cpu (amx)"
  virtual bool has_fast_bf16() const = 0;                     // bf16 products are faster than float32 ones here
  virtual bool has_bf16_attention(int64_t d_head) const = 0;  // several times as fast over bfloat16 keys and values
  virtual bool has_int8() const = 0;                          // linear() knows Compute::kInt8

  // --- products
  // All parts share x, which is rounded once. Dtypes may differ between parts.
  virtual void linear(Mat<const float> x, std::span<const LinearPart> parts, Compute compute) = 0;

  // linear() of rms_norm(x), and all of an MLP, to the bits of their steps, for callers that need nothing in between:
  // the fast backend keeps a row or a tile of it at a time.
  virtual void norm_linear(Mat<const float> x, const RmsNorm& norm, std::span<const LinearPart> parts,
                           Compute compute) = 0;
  virtual void gated_mlp(Mat<const float> x, const GatedMlp& mlp, Compute compute) = 0;

  // --- rows
  // y[i] = w[ids[i]] * scale
  virtual void embed(const WeightView& w, std::span<const int32_t> ids, float scale, Mat<float> y) = 0;
  // y = x / rms(x) * (weight + offset). weight [cols]; y may be x. Mean of squares accumulated in a fixed order.
  virtual void rms_norm(Mat<const float> x, const float* weight, float offset, float eps, Mat<float> y) = 0;
  // y = (x - mean) / sqrt(var + eps) * weight + bias; bias may be nullptr; y may be x.
  virtual void layer_norm(Mat<const float> x, const float* weight, const float* bias, float eps, Mat<float> y) = 0;
  // y += x
  virtual void add(Mat<const float> x, Mat<float> y) = 0;
  // y = act(gate) * up; y may be gate or up
  virtual void glu(Activation act, Mat<const float> gate, Mat<const float> up, Mat<float> y) = 0;
  // x = act(x)
  virtual void activate(Activation act, Mat<float> x) = 0;
  // x = cap * tanh(x / cap)
  virtual void softcap(float cap, Mat<float> x) = 0;

  // --- attention
  // Rotates in place each head of x [rows, n_heads * d_head] by its row's position: halves (x[i], x[i + rotary_dim/2])
  // are a pair, as in Hugging Face's rotate_half.
  virtual void rope(Mat<float> x, int64_t d_head, std::span<const int32_t> positions, const RopeTable& table) = 0;
  // Stores rows of k and v [n, n_kv_heads * d_head] at tokens [at, at + n) of the segment (offsets from its begin).
  virtual void kv_store(Mat<const float> k, Mat<const float> v, int64_t d_head, const KvView& segment, int64_t at) = 0;
  // The same for runs of a batch, which write disjoint tokens.
  virtual void kv_store_runs(Mat<const float> k, Mat<const float> v, int64_t d_head, std::span<const KvRun> runs) {
    for (const KvRun& run : runs) {
      const int64_t end = run.row + run.n_rows;
      kv_store(k.rows_range(run.row, end), v.rows_range(run.row, end), d_head, run.segment, run.at);
    }
  }
  // z[row] = softmax(scale * q k^T) v for all runs: q, z [rows, n_heads * d_head].
  virtual void attention(Mat<const float> q, std::span<const AttentionRun> runs, const AttentionShape& shape,
                         Mat<float> z) = 0;
  // The probabilities themselves for the rows of one run: pattern [n_rows, n_heads * n_keys], n_keys = position +
  // n_rows, zero where a key is not visible. And z from given probabilities.
  virtual void attention_pattern(Mat<const float> q, const AttentionRun& run, const AttentionShape& shape,
                                 Mat<float> pattern) = 0;
  virtual void attention_apply(Mat<const float> pattern, const AttentionRun& run, const AttentionShape& shape,
                               Mat<float> z) = 0;

  // --- vocabulary
  // For each row of logits: log_sum_exp(row).
  virtual void log_sum_exp(Mat<const float> logits, std::span<float> out) = 0;
  virtual void argmax(Mat<const float> logits, std::span<int32_t> out) = 0;  // ties: the lowest index

  // --- sparse dictionaries (rows of `dictionary` are latents; CSR: offsets [n+1], indices, values)
  // Keeps the k largest entries of each row of x, in order of index; ties: the lowest index. positive_only drops
  // entries <= 0 from the kept ones. out_* are [rows, k], unused places hold index -1, value 0.
  virtual void top_k(Mat<const float> x, int64_t k, bool positive_only, Mat<int32_t> out_index,
                     Mat<float> out_value) = 0;
  // The same of rows that come in pieces: columns [first, first + cols) of each, in order. Adds to a row's candidates
  // what may be among its k largest by rank. `value` may be `rank`.
  virtual void find_top(Mat<const float> rank, Mat<const float> value, int64_t first, int64_t k,
                        std::span<TopCandidates> rows) = 0;
  // y[r] += sum_i values[i] * dictionary[indices[i]] over the row's entries, in their order.
  virtual void sparse_decode(std::span<const int64_t> offsets, std::span<const int32_t> indices,
                             std::span<const float> values, const WeightView& dictionary, Mat<float> y) = 0;
  // out[i] = dot(x[r], dictionary[indices[i]]) for each entry i of row r.
  virtual void sparse_dot(Mat<const float> x, std::span<const int64_t> offsets, std::span<const int32_t> indices,
                          const WeightView& dictionary, std::span<float> out) = 0;
  // gradient[j] += sum over entries (r, j) of values * x[r], rows in ascending order: float32 [n_latents, cols]. The
  // transposed structure (by latent): column_offsets [n_latents + 1], rows, values.
  virtual void sparse_outer(std::span<const int64_t> column_offsets, std::span<const int32_t> rows,
                            std::span<const float> values, Mat<const float> x, Mat<float> gradient) = 0;
};

// The plain reference: obviously right, float32 (bf16 inputs rounded, then multiplied exactly), single loops.
std::unique_ptr<Backend> make_ref_backend();

// The fast one. `isa`: "" picks the best this CPU has; "amx", "avx512bf16", "avx512", "avx2", "generic" force one
// (throws kUnsupported when the CPU lacks it).
std::unique_ptr<Backend> make_cpu_backend(const std::string& isa = "");
std::vector<std::string> supported_isas();

// The best product rate of a general library on this machine, for comparison only (oneDNN).
struct LibraryGemm {
  // y[m, n] = x[m, k] w[n, k]^T, bf16 or f32 inputs, float32 result; weights used in place.
  static bool available();
  static std::string version();
  static void bf16(const uint16_t* x, const uint16_t* w, float* y, int64_t m, int64_t n, int64_t k);
  static void f32(const float* x, const float* w, float* y, int64_t m, int64_t n, int64_t k);
};

}  // namespace saif
