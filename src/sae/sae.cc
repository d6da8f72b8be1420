// The canonical SAE: encode, decode, decoder rows, saving.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>
#include <optional>

#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/parallel.h"
#include "kernels/backend.h"
#include "sae/altered.h"
#include "sae/fit.h"
#include "sae/normalize.h"
#include "sae/row_math.h"
#include "sae/select.h"
#include "sae/writer.h"
#include "tensor/rows.h"

namespace saif {
namespace {

constexpr int64_t kChunkRows = 512;  // rows encoded at a time

class CanonicalSae final : public Sae {
 public:
  explicit CanonicalSae(SaeSource source) : source_(std::move(source)) {}

  const SaeSource& source() const { return source_; }
  const SaeConfig& config() const override { return source_.config; }
  const std::string& path() const override { return source_.path; }

  const std::string& sha256() const override {
    const std::lock_guard lock(mutex_);
    if (sha256_.empty()) sha256_ = compute_sha256();
    return sha256_;
  }

  void verify() const {
    check_encoder();
    require_finite(source_.w_dec, source_.files.back(), "W_dec");
    if (source_.config.skip) require_finite(source_.w_skip, source_.files.back(), "W_skip");
    decoder_checked_ = encoder_checked_ = true;
  }

  SparseLatents encode(Mat<const float> x) const override {
    const SaeConfig& config = source_.config;
    if (x.cols() != config.d_in) {
      throw Error(Errc::kMismatch, "SAE " + source_.path + " reads rows of width " + std::to_string(config.d_in) +
                                       ", but was given width " + std::to_string(x.cols()));
    }
    const std::lock_guard lock(mutex_);
    prepare_encoder();
    SparseLatents latents;
    latents.row_offsets.reserve(static_cast<size_t>(x.rows()) + 1);
    const int64_t most = std::min(x.rows(), kChunkRows) * config.d_in;
    if (input_.elements() < most) input_ = Tensor(DType::kF32, {most});
    for (int64_t begin = 0; begin < x.rows(); begin += kChunkRows) {
      const int64_t rows = std::min(kChunkRows, x.rows() - begin);
      const Mat<float> in(input_.as<float>(), rows, config.d_in);
      prepare_input(x.rows_range(begin, begin + rows), begin, in);
      if (config.kind == SaeKind::kMatchingPursuit) {
        pursue_latents(in, latents);
      } else {
        select_latents(in, latents);
      }
    }
    return latents;
  }

  Tensor decode(const SparseLatents& latents, Mat<const float> x) const override {
    const SaeConfig& config = source_.config;
    check_latents(latents);
    const bool undo = config.normalize != "none" && config.undo_normalization;
    if ((undo || config.skip) && (x.rows() != latents.rows() || x.cols() != config.d_in)) {
      throw Error(Errc::kInvalidArgument,
                  "decoding with " + std::string(undo ? "normalize_activations " + config.normalize : "W_skip") +
                      " needs the rows that were encoded: expected " + std::to_string(latents.rows()) +
                      " rows of width " + std::to_string(config.d_in) + ", found " + std::to_string(x.rows()) + " of " +
                      std::to_string(x.cols()));
    }
    const std::lock_guard lock(mutex_);
    prepare_backend();
    check_decoder();
    Tensor y(DType::kF32, {latents.rows(), config.d_out});
    const Mat<float> out = y.f32();
    for (int64_t r = 0; r < out.rows(); ++r) std::copy(source_.b_dec.begin(), source_.b_dec.end(), out.row(r));
    const WeightView dictionary{source_.w_dec.data, source_.w_dec.dtype, config.d_sae, config.d_out};
    if (config.rescale_acts_by_decoder_norm || source_.decoder_scale != 1.0f || !source_.decoder_row_scale.empty()) {
      const std::vector<float> values = decoder_values(latents);
      backend_->sparse_decode(latents.row_offsets, latents.indices, values, dictionary, out);
    } else {
      backend_->sparse_decode(latents.row_offsets, latents.indices, latents.values, dictionary, out);
    }
    if (config.skip) add_skip(x, out);
    if (undo) undo_normalization(config.normalize, x, out);
    return y;
  }

  Tensor decoder_rows(std::span<const int32_t> indices) const override {
    require_latents(*this, indices);
    const int64_t d_out = source_.config.d_out;
    Tensor rows(DType::kF32, {static_cast<int64_t>(indices.size()), d_out});
    for (size_t i = 0; i < indices.size(); ++i) {
      const TensorView view = row_of(source_.w_dec, indices[i]);
      require_finite(view, source_.files.back(), "W_dec");
      const Tensor row = to_f32(view);
      float* out = rows.as<float>() + static_cast<int64_t>(i) * d_out;
      float factor = decoder_scale(indices[i]);
      if (source_.config.rescale_acts_by_decoder_norm) {  // as in decode: latents carry the norm already
        const float norm = static_cast<float>(norm_of(row.f32().row_span(0))) * std::abs(factor);
        factor = norm > 0.0f ? factor / norm : 0.0f;
      }
      for (int64_t c = 0; c < d_out; ++c) out[c] = row.as<float>()[c] * factor;
    }
    return rows;
  }

  std::vector<float> decoder_norms() const override {
    const std::lock_guard lock(mutex_);
    prepare_norms();
    return decoder_norms_;
  }

  std::shared_ptr<const Sae> subset(std::span<const int32_t> indices) const override {
    require_latents(*this, indices);
    const SaeKind kind = source_.config.kind;
    if (kind != SaeKind::kStandard && kind != SaeKind::kJumpRelu && kind != SaeKind::kGated) return nullptr;
    const auto pick = [&](const std::vector<float>& all) {
      std::vector<float> out;
      for (size_t i = 0; i < indices.size() && !all.empty(); ++i) out.push_back(all[static_cast<size_t>(indices[i])]);
      return out;
    };
    const auto rows = std::make_shared<std::vector<Tensor>>();
    const auto gather = [&](const TensorView& matrix, bool of_rows) {
      rows->push_back(latents_of(matrix, of_rows, indices));
      return rows->back().view();
    };
    SaeSource s = source_;
    s.config.d_sae = static_cast<int64_t>(indices.size());
    s.encoder_rows = true;
    s.w_enc = gather(source_.w_enc, source_.encoder_rows);
    s.w_dec = gather(source_.w_dec, true);
    if (s.config.glu) s.w_glu = gather(source_.w_glu, source_.encoder_rows);
    for (auto* of_latents : {&s.latent_scale, &s.decoder_row_scale, &s.b_enc, &s.threshold, &s.gate_bias,
                             &s.magnitude_scale, &s.magnitude_bias, &s.b_glu}) {
      *of_latents = pick(*of_latents);
    }
    s.owner =
        std::make_shared<std::pair<std::shared_ptr<const void>, std::shared_ptr<const void>>>(source_.owner, rows);
    auto out = std::make_shared<CanonicalSae>(std::move(s));
    out->verify();
    return out;
  }

  void save(const std::string& folder, DType dtype) const override { write_sae_lens(folder, source_, dtype); }

  std::string save_as(const std::string& format, const std::string& folder, DType dtype) const override {
    if (format == "sparsify") return write_sparsify(folder, source_, dtype);
    if (format != "sae_lens") {
      throw Error(Errc::kInvalidArgument,
                  "SAE format \"" + format + "\" cannot be written; expected sae_lens or sparsify");
    }
    write_sae_lens(folder, source_, dtype);
    return folder;
  }

 private:
  static void scale_columns(Mat<float> h, const float* factors) {
    parallel_for(h.rows(), 16, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        float* row = h.row(r);
        for (int64_t c = 0; c < h.cols(); ++c) row[c] *= factors[static_cast<size_t>(c)];
      }
    });
  }

  // Rows, or columns as rows, of a matrix, in its own type.
  static Tensor latents_of(const TensorView& matrix, bool of_rows, std::span<const int32_t> indices) {
    const int64_t width = matrix.shape[of_rows ? 1 : 0], stride = of_rows ? 1 : matrix.shape[1];
    const size_t size = size_of(matrix.dtype);
    Tensor out(matrix.dtype, {static_cast<int64_t>(indices.size()), width});
    auto* to = out.as<std::byte>();
    for (const int32_t index : indices) {
      const auto* from = static_cast<const std::byte*>(matrix.data) + (of_rows ? width : 1) * index * size;
      for (int64_t i = 0; i < width; ++i, to += size) std::memcpy(to, from + i * stride * size, size);
    }
    return out;
  }

  float decoder_scale(int64_t latent) const {
    const float row = source_.decoder_row_scale.empty() ? 1.0f : source_.decoder_row_scale[static_cast<size_t>(latent)];
    return row * source_.decoder_scale;
  }

  std::string compute_sha256() const {
    std::string joined;
    for (const std::string& file : source_.files) {
      if (file_exists(file)) joined += file_sha256(file);
    }
    if (joined.empty()) {  // never saved: of its matrices
      for (const TensorView& view : {source_.w_enc, source_.w_dec}) {
        joined += sha256_hex(std::span(static_cast<const std::byte*>(view.data), view.bytes()));
      }
    }
    return sha256_hex(std::string_view(joined));
  }

  // The functions below need mutex_.
  void prepare_backend() const {
    if (!backend_) backend_ = make_cpu_backend();
  }

  void check_decoder() const {
    if (decoder_checked_) return;
    require_finite(source_.w_dec, source_.files.back(), "W_dec");
    decoder_checked_ = true;
  }

  void prepare_norms() const {
    if (!decoder_norms_.empty()) return;
    check_decoder();
    std::vector<float> norms = row_norms(source_.w_dec);
    for (size_t j = 0; j < norms.size(); ++j) norms[j] *= std::abs(decoder_scale(static_cast<int64_t>(j)));
    decoder_norms_ = std::move(norms);
  }

  void prepare_encoder() const {
    prepare_backend();
    const SaeConfig& config = source_.config;
    if (config.rescale_acts_by_decoder_norm || config.rank_by_decoder_norm) prepare_norms();
    if (!encoder_checked_) {
      check_encoder();
      encoder_checked_ = true;
    }
    if (source_.encoder_rows || !encoder_.empty()) return;
    if (config.glu) glu_ = transposed(source_.w_glu);
    encoder_ = transposed(source_.w_enc);
  }

  void check_encoder() const {
    require_finite(source_.w_enc, source_.files.back(), "W_enc");
    if (source_.config.glu) require_finite(source_.w_glu, source_.files.back(), "W_glu");
  }

  WeightView encoder_view(const TensorView& stored, const Tensor& copy) const {
    const SaeConfig& config = source_.config;
    const void* data = source_.encoder_rows ? stored.data : copy.data();
    return {data, stored.dtype, config.d_sae, config.d_in};
  }

  void pursue_latents(Mat<float> in, SparseLatents& latents) const {
    std::vector<Selected> rows(static_cast<size_t>(in.rows()));
    Tensor h(DType::kF32, {in.rows(), source_.config.d_sae});
    pursue(source_, *backend_, in, h.f32(), rows);
    for (const Selected& row : rows) append(row.indices, row.values, latents);
  }

  void select_latents(Mat<const float> in, SparseLatents& latents) const {
    if (!selector_) selector_.emplace(source_, decoder_norms_, *backend_);
    const int64_t tile = std::min(selector_->tile(), source_.config.d_sae);
    if (pre_.elements() < in.rows() * tile) pre_ = Tensor(DType::kF32, {in.rows() * tile});
    selector_->begin(in.rows());
    for (int64_t first = 0; first < source_.config.d_sae; first += tile) {
      const Mat<float> h(pre_.as<float>(), in.rows(), std::min(tile, source_.config.d_sae - first));
      pre_activations(in, first, h);
      selector_->add(h, first);
    }
    selector_->finish(latents);
  }

  // h [rows, n] = what the activation function of latents [first, first + n) acts on, for prepared rows.
  void pre_activations(Mat<const float> in, int64_t first, Mat<float> h) const {
    const SaeConfig& config = source_.config;
    const bool bf16 = source_.fast && source_.w_enc.dtype == DType::kBf16;
    const auto part = [&](const TensorView& stored, const Tensor& copy, const std::vector<float>& bias, Mat<float> y) {
      WeightView w = encoder_view(stored, copy);
      w.data = static_cast<const std::byte*>(w.data) + first * w.row_bytes();
      w.out = h.cols();
      return LinearPart{w, bias.data() + first, y, false};
    };
    Tensor gate;
    std::vector<LinearPart> parts = {part(source_.w_enc, encoder_, source_.b_enc, h)};
    if (config.glu) {
      gate = Tensor(DType::kF32, {h.rows(), h.cols()});
      parts.push_back(part(source_.w_glu, glu_, source_.b_glu, gate.f32()));
    }
    backend_->linear(in, parts, bf16 ? Compute::kBf16 : Compute::kF32);
    for (int64_t r = 0; config.glu && r < h.rows(); ++r) {
      const float* g = gate.f32().row(r);
      for (int64_t c = 0; c < h.cols(); ++c) h(r, c) /= 1.0f + std::exp(-g[c]);
    }
    if (!source_.latent_scale.empty()) scale_columns(h, source_.latent_scale.data() + first);
    if (config.rescale_acts_by_decoder_norm) scale_columns(h, decoder_norms_.data() + first);
  }

  // y[r] += W_skip x[r]
  void add_skip(Mat<const float> x, Mat<float> y) const {
    const WeightView w{source_.w_skip.data, source_.w_skip.dtype, source_.config.d_out, source_.config.d_in};
    const LinearPart part{w, nullptr, y, true};
    backend_->linear(x, {&part, 1}, Compute::kF32);
  }

  // What meets W_enc: normalised, b_dec subtracted, scaled. `first`: x's first row among the caller's.
  void prepare_input(Mat<const float> x, int64_t first, Mat<float> in) const {
    const bool subtract = source_.config.apply_b_dec_to_input;
    const float factor = source_.encoder_scale;
    std::atomic<bool> finite = true;
    parallel_for(in.rows(), 16, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {  // row by row: each stays in the cache
        if (first_not_finite(x.row(r), x.cols()) >= 0) finite = false;
        normalize_rows(source_.config.normalize, x.rows_range(r, r + 1), in.rows_range(r, r + 1));
        if (subtract) {
          subtract_scale(in.row(r), source_.b_dec.data(), factor, in.cols());
        } else if (factor != 1.0f) {
          scale_row(in.row(r), factor, in.cols());
        }
      }
    });
    if (!finite) require_finite_rows(x, first, "input", source_.path);
  }

  // Values as the stored decoder rows want them; a zero row contributes nothing.
  std::vector<float> decoder_values(const SparseLatents& latents) const {
    if (source_.config.rescale_acts_by_decoder_norm) prepare_norms();
    std::vector<float> values = latents.values;
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] *= decoder_scale(latents.indices[i]);
      if (!source_.config.rescale_acts_by_decoder_norm) continue;
      const float norm = decoder_norms_[static_cast<size_t>(latents.indices[i])];
      values[i] = norm > 0.0f ? values[i] / norm : 0.0f;
    }
    return values;
  }

  void check_latents(const SparseLatents& latents) const {
    const bool fits = !latents.row_offsets.empty() && latents.row_offsets.front() == 0 &&
                      latents.row_offsets.back() == static_cast<int64_t>(latents.indices.size()) &&
                      latents.indices.size() == latents.values.size() &&
                      std::is_sorted(latents.row_offsets.begin(), latents.row_offsets.end());
    if (!fits) throw Error(Errc::kInvalidArgument, "sparse latents: offsets, indices and values do not fit together");
    for (const int32_t index : latents.indices) {
      if (index >= 0 && index < source_.config.d_sae) continue;
      throw Error(Errc::kInvalidArgument, "sparse latents: index " + std::to_string(index) + " outside the " +
                                              std::to_string(source_.config.d_sae) + " latents of SAE " + source_.path);
    }
  }

  SaeSource source_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<Backend> backend_;
  mutable Tensor encoder_, glu_;  // [d_sae, d_in] in the file's type
  mutable std::vector<float> decoder_norms_;
  // Prepared rows, and pre-activations of one piece: fresh pages for each call would cost as much as choosing.
  mutable Tensor input_, pre_;
  mutable std::optional<Selector> selector_;
  mutable bool encoder_checked_ = false, decoder_checked_ = false;
  mutable std::string sha256_;
};

void require_shape(const Tensor& tensor, const char* name, const std::vector<int64_t>& shape) {
  if (tensor.dtype() == DType::kF32 && tensor.shape() == shape) return;
  TensorView expected;
  expected.shape = shape;
  throw Error(Errc::kInvalidArgument, std::string("SAE weights: ") + name + " is " + name_of(tensor.dtype()) + " " +
                                          tensor.view().shape_text() + "; expected F32 " + expected.shape_text());
}

}  // namespace

std::shared_ptr<const Sae> make_sae(SaeSource source, bool verify) {
  auto sae = std::make_shared<CanonicalSae>(std::move(source));
  if (verify) sae->verify();
  return sae;
}

std::shared_ptr<const Sae> altered(const Sae& sae, const std::function<void(SaeSource&)>& change) {
  const auto* canonical = dynamic_cast<const CanonicalSae*>(&sae);
  if (canonical == nullptr) return nullptr;
  SaeSource source = canonical->source();
  change(source);
  return make_sae(std::move(source), false);
}

std::shared_ptr<const Sae> Sae::from_weights(SaeConfig config, SaeWeights weights) {
  const int64_t d_in = config.d_in, d_sae = config.d_sae, d_out = config.d_out;
  require_shape(weights.w_enc, "w_enc", {d_sae, d_in});
  require_shape(weights.b_enc, "b_enc", {d_sae});
  require_shape(weights.w_dec, "w_dec", {d_sae, d_out});
  require_shape(weights.b_dec, "b_dec", {d_out});
  if (config.kind == SaeKind::kJumpRelu) require_shape(weights.threshold, "threshold", {d_sae});
  if (config.kind == SaeKind::kTopK && (config.k < 1 || config.k > d_sae)) {
    throw Error(Errc::kInvalidArgument,
                "SAE weights: k is " + std::to_string(config.k) + "; expected 1 to " + std::to_string(d_sae));
  }
  if (static_cast<int>(config.kind) > static_cast<int>(SaeKind::kGated)) {
    throw Error(Errc::kInvalidArgument, std::string("SAE weights: kind is ") + name_of(config.kind) +
                                            "; expected standard, topk, jumprelu or gated");
  }
  if (config.kind == SaeKind::kGated) {
    require_shape(weights.r_mag, "r_mag", {d_sae});
    require_shape(weights.b_mag, "b_mag", {d_sae});
  }
  if (config.skip) require_shape(weights.w_skip, "w_skip", {d_out, d_in});
  const auto owner = std::make_shared<SaeWeights>(std::move(weights));
  const auto copy = [](const Tensor& t) { return std::vector<float>(t.as<float>(), t.as<float>() + t.elements()); };
  SaeSource source;
  source.config = std::move(config);
  if (source.config.format.empty()) source.config.format = "sae_lens";
  source.path = "(in memory)";
  source.files = {source.path};
  source.w_enc = owner->w_enc.view();
  source.encoder_rows = true;
  source.w_dec = owner->w_dec.view();
  source.b_enc = copy(owner->b_enc);
  source.b_dec = copy(owner->b_dec);
  if (source.config.kind == SaeKind::kJumpRelu) source.threshold = copy(owner->threshold);
  if (source.config.kind == SaeKind::kGated) {
    source.gate_bias.swap(source.b_enc);
    source.b_enc.assign(source.gate_bias.size(), 0.0f);
    source.magnitude_scale = copy(owner->r_mag);
    for (float& v : source.magnitude_scale) v = std::exp(v);
    source.magnitude_bias = copy(owner->b_mag);
  }
  if (source.config.skip) source.w_skip = owner->w_skip.view();
  source.owner = owner;
  return make_sae(std::move(source), false);
}

}  // namespace saif
