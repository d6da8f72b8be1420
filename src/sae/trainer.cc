// One top-k SAE in training: see docs/sae_training.md for the equations.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "kernels/backend.h"
#include "sae/adam.h"
#include "sae/trainer_state.h"
#include "saif/options.h"
#include "saif/sae.h"

namespace saif {
namespace {

constexpr int64_t kChunkRows = 256;      // rows whose dense pre-activations exist at a time
constexpr int64_t kRowBlock = 128;       // rows per partial sum: fixes the order of sums over a batch
constexpr int64_t kMedianSample = 8192;  // rows of the sample that the geometric median looks at
constexpr int kMedianSteps = 20;

// Column sums in a fixed order, whatever the threads.
std::vector<double> column_sums(Mat<const float> x) {
  const int64_t blocks = (x.rows() + kRowBlock - 1) / kRowBlock;
  std::vector<float> partial(static_cast<size_t>(blocks * x.cols()), 0.0f);
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      float* sum = partial.data() + b * x.cols();
      for (int64_t r = b * kRowBlock; r < std::min(x.rows(), (b + 1) * kRowBlock); ++r) {
        const float* row = x.row(r);
        for (int64_t c = 0; c < x.cols(); ++c) sum[c] += row[c];
      }
    }
  });
  std::vector<double> sums(static_cast<size_t>(x.cols()), 0.0);
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t c = 0; c < x.cols(); ++c)
      sums[static_cast<size_t>(c)] += partial[static_cast<size_t>(b * x.cols() + c)];
  }
  return sums;
}

// sum over rows of |x - center|^2, in a fixed order.
double spread(Mat<const float> x, const std::vector<double>& center) {
  const int64_t blocks = (x.rows() + kRowBlock - 1) / kRowBlock;
  std::vector<double> partial(static_cast<size_t>(blocks), 0.0);
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      double sum = 0;
      for (int64_t r = b * kRowBlock; r < std::min(x.rows(), (b + 1) * kRowBlock); ++r) {
        const float* row = x.row(r);
        for (int64_t c = 0; c < x.cols(); ++c) {
          const double d = row[c] - center[static_cast<size_t>(c)];
          sum += d * d;
        }
      }
      partial[static_cast<size_t>(b)] = sum;
    }
  });
  return std::accumulate(partial.begin(), partial.end(), 0.0);
}

// Weiszfeld's iteration from the mean: a centre that a few enormous rows cannot move.
std::vector<double> geometric_median(Mat<const float> x) {
  std::vector<double> center = column_sums(x);
  for (double& c : center) c /= static_cast<double>(x.rows());
  for (int step = 0; step < kMedianSteps; ++step) {
    std::vector<double> next(center.size(), 0.0);
    double total = 0;
    for (int64_t r = 0; r < x.rows(); ++r) {
      const double distance = std::sqrt(spread(x.rows_range(r, r + 1), center));
      const double weight = 1.0 / std::max(distance, 1e-12);
      total += weight;
      for (size_t c = 0; c < next.size(); ++c) next[c] += weight * x(r, static_cast<int64_t>(c));
    }
    for (size_t c = 0; c < next.size(); ++c) center[c] = next[c] / total;
  }
  return center;
}

Compute choose_compute(const std::string& name, const Backend& backend) {
  if (name == "f32") return Compute::kF32;
  if (name == "bf16") return Compute::kBf16;
  if (name == "auto") return backend.has_fast_bf16() ? Compute::kBf16 : Compute::kF32;
  throw Error(Errc::kInvalidArgument, "sae train: compute is \"" + name + "\"; expected auto, bf16 or f32");
}

void require(bool condition, const std::string& message) {
  if (!condition) throw Error(Errc::kInvalidArgument, "sae train: " + message);
}

}  // namespace

void check_train_options(const SaeTrainOptions& o, int64_t d_in) {
  require(o.kind == "topk", "kind is \"" + o.kind + "\"; expected topk, the only encoder that is trained so far");
  require(o.d_sae >= 1 && o.d_sae <= int64_t{1} << 24, "d-sae is " + std::to_string(o.d_sae) + "; expected 1 to 2^24");
  require(o.k >= 1 && o.k <= o.d_sae,
          "k is " + std::to_string(o.k) + "; expected 1 to d-sae, " + std::to_string(o.d_sae));
  require(o.batch >= 1, "batch is " + std::to_string(o.batch) + "; expected 1 or more");
  require(o.epochs > 0 && std::isfinite(o.epochs), "epochs must be positive");
  require(o.max_tokens >= 0 && o.buffer >= 1 && o.skip_first >= 0 && o.context >= 2 && o.checkpoint_every >= 1,
          "max-tokens, skip-first must be 0 or more, buffer and checkpoint-every 1 or more, context 2 or more");
  require(o.lr >= 0 && o.warmup >= 0 && o.decay >= 0 && o.warmup <= 1 && o.decay <= 1,
          "lr must be 0 or more, warmup and decay from 0 to 1");
  require(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1 && o.adam_eps > 0,
          "beta1 and beta2 must be in [0, 1), adam-eps above 0");
  require(o.held_out >= 0 && o.held_out < 1, "held-out must be in [0, 1)");
  require(o.auxiliary_k >= 0 && o.auxiliary_weight >= 0 && o.dead_after >= 1,
          "auxiliary-k and auxiliary-weight must be 0 or more, dead-after 1 or more");
  require(o.dtype == "bf16" || o.dtype == "f32", "dtype is \"" + o.dtype + "\"; expected bf16 or f32");
  require(d_in >= 1, "activations have no width");
}

struct SaeTrainer::Impl {
  SaeTrainOptions options;
  int64_t d_in = 0, total_steps = 0;
  std::unique_ptr<Backend> backend = make_cpu_backend();
  Compute compute = Compute::kF32;
  TrainerState state;
  Tensor shadow;  // W_enc in bfloat16 [d_sae, d_in], where the product runs in it

  // Of the step in progress.
  Tensor centred, residual, error, auxiliary_residual, pre, dead_pre;
  SparseEntries live, auxiliary;
  std::vector<int32_t> dead;

  void initialise(Mat<const float> sample);
  void refresh_shadow();
  double learning_rate() const;
  void find_dead();
  void encode(Mat<const float> x);
  void select(Mat<const float> h, const std::vector<int32_t>* names, int64_t k, SparseEntries& out);
  double auxiliary_pass(float factor);
  void update(int64_t rows, const AdamStep& step);
  StepStats run(Mat<const float> x);
};

void SaeTrainer::Impl::initialise(Mat<const float> sample) {
  const int64_t d_sae = options.d_sae;
  state.allocate(d_in, d_sae);
  const Mat<const float> few = sample.rows_range(0, std::min(sample.rows(), kMedianSample));
  const std::vector<double> center = geometric_median(few);
  const double mean_square = spread(few, center) / static_cast<double>(few.rows());
  state.scale = mean_square > 0 ? std::sqrt(mean_square) : 1.0;
  for (int64_t c = 0; c < d_in; ++c)
    state.weights.b_dec.as<float>()[c] = static_cast<float>(center[static_cast<size_t>(c)]);
  const Mat<float> dec = state.weights.w_dec.f32(), enc = state.weights.w_enc.f32();
  parallel_for(d_sae, 64, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      Rng rng(static_cast<uint64_t>(options.seed), static_cast<uint64_t>(j));
      double sum = 0;
      for (int64_t c = 0; c < d_in; ++c) {
        dec(j, c) = static_cast<float>(rng.normal());
        sum += static_cast<double>(dec(j, c)) * dec(j, c);
      }
      const auto inverse = static_cast<float>(1.0 / std::sqrt(std::max(sum, 1e-30)));
      for (int64_t c = 0; c < d_in; ++c) enc(j, c) = dec(j, c) *= inverse;
    }
  });
}

void SaeTrainer::Impl::refresh_shadow() {
  if (compute == Compute::kBf16) shadow = convert(state.weights.w_enc.view(), DType::kBf16);
}

double SaeTrainer::Impl::learning_rate() const {
  const double peak = options.lr > 0 ? options.lr : 2e-4 / std::sqrt(static_cast<double>(options.d_sae) / 16384.0);
  const auto total = static_cast<double>(total_steps), done = static_cast<double>(state.steps);
  const double warm = std::max(1.0, options.warmup * total), fall = options.decay * total;
  double rate = peak * std::min(1.0, (done + 1.0) / warm);
  if (fall > 0 && total - done < fall) rate *= std::max(0.0, total - done) / fall;
  return rate;
}

void SaeTrainer::Impl::find_dead() {
  dead.clear();
  const auto* since = state.since_fired.as<int64_t>();
  for (int64_t j = 0; j < options.d_sae; ++j) {
    if (since[j] >= options.dead_after) dead.push_back(static_cast<int32_t>(j));
  }
}

// Appends the k largest positive entries of each row of h; names: what the columns are called (nullptr: themselves).
void SaeTrainer::Impl::select(Mat<const float> h, const std::vector<int32_t>* names, int64_t k, SparseEntries& out) {
  std::vector<int32_t> index_data(static_cast<size_t>(h.rows() * k));
  std::vector<float> value_data(index_data.size());
  const Mat<int32_t> index(index_data.data(), h.rows(), k);
  const Mat<float> value(value_data.data(), h.rows(), k);
  backend->top_k(h, k, true, index, value);
  for (int64_t r = 0; r < h.rows(); ++r) {
    for (int64_t i = 0; i < k && index(r, i) >= 0; ++i) {
      out.latents.push_back(names != nullptr ? (*names)[static_cast<size_t>(index(r, i))] : index(r, i));
      out.values.push_back(value(r, i));
    }
    out.offsets.push_back(static_cast<int64_t>(out.latents.size()));
  }
}

void SaeTrainer::Impl::encode(Mat<const float> x) {
  const int64_t n = x.rows(), d_sae = options.d_sae;
  const float* b_dec = state.weights.b_dec.as<float>();
  const Mat<float> in = centred.f32();
  parallel_for(n, kRowBlock, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t c = 0; c < d_in; ++c) in(r, c) = x(r, c) - b_dec[c];
    }
  });
  live.clear();
  auxiliary.clear();
  const bool bf16 = compute == Compute::kBf16;
  const WeightView w{bf16 ? shadow.data() : state.weights.w_enc.data(), bf16 ? DType::kBf16 : DType::kF32, d_sae, d_in};
  const auto n_dead = static_cast<int64_t>(dead.size());
  const int64_t auxiliary_k =
      std::min(n_dead, options.auxiliary_k > 0 ? options.auxiliary_k : std::max<int64_t>(1, d_in / 2));
  for (int64_t begin = 0; begin < n; begin += kChunkRows) {
    const int64_t rows = std::min(kChunkRows, n - begin);
    const Mat<float> h = pre.f32().rows_range(0, rows);
    const LinearPart part{w, state.weights.b_enc.as<float>(), h, false};
    backend->linear(in.rows_range(begin, begin + rows), {&part, 1}, compute);
    select(h, nullptr, options.k, live);
    if (n_dead == 0) continue;
    const Mat<float> few(dead_pre.as<float>(), rows, n_dead);
    parallel_for(rows, 16, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        for (int64_t i = 0; i < n_dead; ++i) few(r, i) = h(r, dead[static_cast<size_t>(i)]);
      }
    });
    select(few, &dead, auxiliary_k, auxiliary);
  }
}

// The dead latents on what the live ones left over. Returns sum |e^ - e|^2.
double SaeTrainer::Impl::auxiliary_pass(float factor) {
  if (dead.empty()) return 0.0;
  const int64_t n = residual.shape()[0];
  if (error.empty()) {
    error = Tensor(DType::kF32, {n, d_in});
    auxiliary_residual = Tensor(DType::kF32, {n, d_in});
  }
  parallel_for(n, kRowBlock, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* from = residual.f32().row(r);
      float* to = error.f32().row(r);
      for (int64_t c = 0; c < d_in; ++c) to[c] = -from[c] / factor;
    }
  });
  std::vector<double> squared(static_cast<size_t>(n));
  residual_and_gradients({error.f32(), nullptr, state.weights.w_dec.f32(),
                          factor * static_cast<float>(options.auxiliary_weight), auxiliary_residual.f32(), squared},
                         auxiliary);
  auxiliary.transpose(options.d_sae);
  return std::accumulate(squared.begin(), squared.end(), 0.0);
}

void SaeTrainer::Impl::update(int64_t rows, const AdamStep& step) {
  const int64_t d_sae = options.d_sae;
  std::vector<GradientPart> parts = {{&live, centred.f32(), residual.f32()}};
  if (!dead.empty() && options.auxiliary_weight > 0) {
    parts.push_back({&auxiliary, centred.f32(), auxiliary_residual.f32()});
  }
  std::vector<float> bias_gradient(static_cast<size_t>(d_sae)), pull(static_cast<size_t>(d_in));
  SaeWeights& w = state.weights;
  const RowParameters encoder{w.w_enc.f32(), &state.encoder,
                              compute == Compute::kBf16 ? shadow.as<uint16_t>() : nullptr};
  const RowParameters decoder{w.w_dec.f32(), &state.decoder, nullptr};
  update_rows(parts, step, encoder, decoder, bias_gradient, pull);

  const auto scale = static_cast<float>(state.scale);
  const std::vector<double> outer = column_sums(residual.f32().rows_range(0, rows));
  for (size_t c = 0; c < pull.size(); ++c) pull[c] = (static_cast<float>(outer[c]) - pull[c]) * scale;
  for (float& g : bias_gradient) g *= scale;
  update_vector({w.b_enc.as<float>(), bias_gradient.size()}, bias_gradient, scale, step, state.encoder_bias);
  update_vector({w.b_dec.as<float>(), pull.size()}, pull, scale, step, state.decoder_bias);
}

SaeTrainer::StepStats SaeTrainer::Impl::run(Mat<const float> x) {
  const int64_t n = x.rows(), d_sae = options.d_sae;
  require(x.cols() == d_in && n >= 1, "a batch has " + std::to_string(n) + " rows of width " +
                                          std::to_string(x.cols()) + "; expected width " + std::to_string(d_in));
  if (residual.empty() || residual.shape()[0] != n) {
    centred = Tensor(DType::kF32, {n, d_in});
    residual = Tensor(DType::kF32, {n, d_in});
    error = Tensor();
    auxiliary_residual = Tensor();
  }
  if (pre.empty()) pre = Tensor(DType::kF32, {kChunkRows, d_sae});
  find_dead();
  if (!dead.empty() && dead_pre.empty()) dead_pre = Tensor(DType::kF32, {kChunkRows, d_sae});
  encode(x);

  const double unit = static_cast<double>(n) * state.scale * state.scale;
  const auto factor = static_cast<float>(2.0 / unit);
  std::vector<double> squared(static_cast<size_t>(n));
  residual_and_gradients(
      {x, state.weights.b_dec.as<float>(), state.weights.w_dec.f32(), factor, residual.f32(), squared}, live);
  live.transpose(d_sae);
  StepStats stats;
  const double error_sum = std::accumulate(squared.begin(), squared.end(), 0.0);
  stats.auxiliary_loss = options.auxiliary_weight > 0 ? auxiliary_pass(factor) / unit : 0.0;
  stats.loss = error_sum / unit + options.auxiliary_weight * stats.auxiliary_loss;
  std::vector<double> mean = column_sums(x);
  for (double& m : mean) m /= static_cast<double>(n);
  const double variance = spread(x, mean);
  stats.fvu = variance > 0 ? error_sum / variance : 0.0;
  stats.l0 = static_cast<double>(live.latents.size()) / static_cast<double>(n);
  stats.dead = static_cast<double>(dead.size()) / static_cast<double>(d_sae);

  AdamStep step;
  const auto t = static_cast<double>(state.steps + 1);
  step.rate = static_cast<float>(learning_rate());
  step.beta1 = static_cast<float>(options.beta1);
  step.beta2 = static_cast<float>(options.beta2);
  step.eps = static_cast<float>(options.adam_eps);
  step.correction1 = static_cast<float>(1.0 - std::pow(options.beta1, t));
  step.correction2 = static_cast<float>(1.0 - std::pow(options.beta2, t));
  update(n, step);

  auto* since = state.since_fired.as<int64_t>();
  for (int64_t j = 0; j < d_sae; ++j) {
    since[j] = live.column_offsets[static_cast<size_t>(j) + 1] > live.column_offsets[static_cast<size_t>(j)]
                   ? 0
                   : since[j] + n;
  }
  ++state.steps;
  return stats;
}

SaeTrainer::SaeTrainer(int64_t d_in, const SaeTrainOptions& options, int64_t total_steps, Mat<const float> sample)
    : impl_(std::make_unique<Impl>()) {
  check_train_options(options, d_in);
  require(sample.rows() >= 1 && sample.cols() == d_in, "the sample has " + std::to_string(sample.rows()) +
                                                           " rows of width " + std::to_string(sample.cols()) +
                                                           "; expected rows of width " + std::to_string(d_in));
  require(total_steps >= 1,
          "there is nothing to train on: fewer tokens than one batch of " + std::to_string(options.batch));
  impl_->options = options;
  impl_->d_in = d_in;
  impl_->total_steps = total_steps;
  impl_->compute = choose_compute(options.compute, *impl_->backend);
  impl_->initialise(sample);
  impl_->refresh_shadow();
}

SaeTrainer::~SaeTrainer() = default;

SaeTrainer::StepStats SaeTrainer::step(Mat<const float> x) { return impl_->run(x); }

const SaeWeights& SaeTrainer::weights() const { return impl_->state.weights; }

int64_t SaeTrainer::steps_done() const { return impl_->state.steps; }

std::shared_ptr<const Sae> SaeTrainer::snapshot(const std::string& site, const std::string& model) const {
  SaeConfig config;
  config.kind = SaeKind::kTopK;
  config.d_in = config.d_out = impl_->d_in;
  config.d_sae = impl_->options.d_sae;
  config.k = impl_->options.k;
  config.site = site;
  config.model = model;
  config.format = "sae_lens";
  const SaeWeights& w = impl_->state.weights;
  SaeWeights copy;
  copy.w_enc = w.w_enc.clone();
  copy.b_enc = w.b_enc.clone();
  copy.w_dec = w.w_dec.clone();
  copy.b_dec = w.b_dec.clone();
  return Sae::from_weights(std::move(config), std::move(copy));
}

// What a state must have in common with the trainer that takes it up.
static std::string identity_of(const SaeTrainOptions& options, int64_t d_in, int64_t total_steps) {
  Json out = options_to_json(options);
  out["d_in"] = d_in;
  out["total_steps"] = total_steps;
  return out.dump();
}

void SaeTrainer::save_state(const std::string& file) const {
  impl_->state.save(file, identity_of(impl_->options, impl_->d_in, impl_->total_steps));
}

void SaeTrainer::load_state(const std::string& file) {
  impl_->state.load(file, identity_of(impl_->options, impl_->d_in, impl_->total_steps));
  impl_->refresh_shadow();
}

}  // namespace saif
