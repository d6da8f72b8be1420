// One SAE in training, of any kind: see docs/sae_training.md for the equations.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/parallel.h"
#include "sae/center.h"
#include "sae/source.h"
#include "sae/trainer_impl.h"
#include "saif/options.h"

namespace saif {
namespace {

constexpr int64_t kChunkRows = 256;  // rows whose dense pre-activations exist at a time
constexpr int64_t kRowBlock = 128;   // rows that one task takes

Compute choose_compute(const std::string& name, const Backend& backend) {
  if (name == "f32") return Compute::kF32;
  if (name == "bf16") return Compute::kBf16;
  if (name == "auto") return backend.has_fast_bf16() ? Compute::kBf16 : Compute::kF32;
  throw Error(Errc::kInvalidArgument, "sae train: compute is \"" + name + "\"; expected auto, bf16 or f32");
}

}  // namespace

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

void SaeTrainer::Impl::prepare(Mat<const float> x, Mat<const float> target) {
  const int64_t n = x.rows();
  if (residual.empty() || residual.shape()[0] != n) {
    input = Tensor(DType::kF32, {n, d_in});
    residual = Tensor(DType::kF32, {n, d_out});
    error = Tensor();
    auxiliary_residual = Tensor();
  }
  if (pre.empty()) pre = Tensor(DType::kF32, {kChunkRows, options.d_sae});
  if (!dead.empty() && dead_pre.empty()) dead_pre = Tensor(DType::kF32, {kChunkRows, options.d_sae});
  const float* b_dec = state.weights.b_dec.as<float>();
  const Mat<float> in = input.f32();
  parallel_for(n, kRowBlock, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::copy_n(x.row(r), d_in, in.row(r));
      if (!transcoder) add_scaled(in.row(r), b_dec, -1.0f, d_in);
    }
  });
  now.rows = n;
  now.unit = static_cast<double>(n) * state.scale * state.scale;
  now.factor = static_cast<float>(2.0 / now.unit);
  now.scale = static_cast<float>(state.scale);
  const double warm = options.sparsity_warmup * static_cast<double>(total_steps);
  now.warmth = warm > 0 ? std::min(1.0, (static_cast<double>(state.steps) + 1.0) / warm) : 1.0;
  now.target = target;
  now.w_dec = state.weights.w_dec.f32();
  now.b_enc = state.weights.b_enc.as<float>();
  now.b_dec = b_dec;
  now.residual = residual.f32();
  now.has_skip = options.skip;
  now.outer = now.decoder_rows = residual.f32();
  now.prefix_ends = {};
  if (!options.skip) return;
  const LinearPart part{{state.weights.w_skip.data(), DType::kF32, d_out, d_in}, nullptr, residual.f32(), false};
  backend->linear(x, {&part, 1}, Compute::kF32);
}

// Entries of the batch's rows, and of the dead latents for the auxiliary loss.
void SaeTrainer::Impl::encode() {
  const Mat<const float> in = input.f32();
  const int64_t n = in.rows(), d_sae = options.d_sae;
  const bool bf16 = compute == Compute::kBf16;
  const WeightView w{bf16 ? shadow.data() : state.weights.w_enc.data(), bf16 ? DType::kBf16 : DType::kF32, d_sae, d_in};
  const auto n_dead = static_cast<int64_t>(options.auxiliary_weight > 0 ? dead.size() : 0);
  const int64_t auxiliary_k =
      std::min(n_dead, options.auxiliary_k > 0 ? options.auxiliary_k : std::max<int64_t>(1, d_in / 2));
  do {
    now.live.clear();
    auxiliary.clear();
    for (int64_t begin = 0; begin < n; begin += kChunkRows) {
      const int64_t rows = std::min(kChunkRows, n - begin);
      const Mat<float> h = pre.f32().rows_range(0, rows);
      const LinearPart part{w, state.weights.b_enc.as<float>(), h, false};
      backend->linear(in.rows_range(begin, begin + rows), {&part, 1}, compute);
      kind->select(h, *backend, now.live);
      if (n_dead == 0) continue;
      const Mat<float> few(dead_pre.as<float>(), rows, n_dead);
      parallel_for(rows, 16, [&](int64_t first, int64_t last) {
        for (int64_t r = first; r < last; ++r) {
          for (int64_t i = 0; i < n_dead; ++i) few(r, i) = h(r, dead[static_cast<size_t>(i)]);
        }
      });
      append_top(few, auxiliary_k, &dead, *backend, auxiliary);
    }
  } while (!kind->settle(now.live, n));
}

// The dead latents on what the live ones left over. Returns sum |e^ - e|^2.
double SaeTrainer::Impl::auxiliary_pass() {
  if (dead.empty() || options.auxiliary_weight <= 0) return 0.0;
  const int64_t n = now.rows;
  if (error.empty()) {
    error = Tensor(DType::kF32, {n, d_out});
    auxiliary_residual = Tensor(DType::kF32, {n, d_out});
  }
  parallel_for(n, kRowBlock, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* from = residual.f32().row(r);
      float* to = error.f32().row(r);
      for (int64_t c = 0; c < d_out; ++c) to[c] = -from[c] / now.factor;
    }
  });
  std::vector<double> squared(static_cast<size_t>(n));
  residual_and_gradients({error.f32(), nullptr, now.w_dec, now.factor * static_cast<float>(options.auxiliary_weight),
                          auxiliary_residual.f32(), squared},
                         auxiliary);
  auxiliary.transpose(options.d_sae);
  return std::accumulate(squared.begin(), squared.end(), 0.0);
}

void SaeTrainer::Impl::update(Mat<const float> x, const AdamStep& step) {
  const int64_t d_sae = options.d_sae;
  std::vector<GradientPart> parts = {{&now.live, input.f32(), now.decoder_rows, now.prefix_ends}};
  if (!dead.empty() && options.auxiliary_weight > 0) {
    parts.push_back({&auxiliary, input.f32(), auxiliary_residual.f32()});
  }
  const std::vector<double> outer = column_sums(now.outer);
  std::vector<float> bias_gradient(static_cast<size_t>(d_sae)), pull(static_cast<size_t>(d_in));
  SaeWeights& w = state.weights;
  const RowParameters encoder{w.w_enc.f32(), &state.encoder,
                              compute == Compute::kBf16 ? shadow.as<uint16_t>() : nullptr,
                              static_cast<float>(state.encoder_scale)};
  const RowParameters decoder{w.w_dec.f32(), &state.decoder};
  update_rows(parts, step, encoder, decoder, bias_gradient, pull);
  kind->finish(now, bias_gradient);
  if (options.skip) update_skip(x, step);

  const float scale = now.scale;
  std::vector<float> center(static_cast<size_t>(d_out));
  for (size_t c = 0; c < center.size(); ++c) {
    center[c] = (static_cast<float>(outer[c]) - (transcoder ? 0.0f : pull[c])) * scale;
  }
  for (float& g : bias_gradient) g *= scale;
  update_vector({w.b_enc.as<float>(), bias_gradient.size()}, bias_gradient, scale, step, state.encoder_bias);
  update_vector({w.b_dec.as<float>(), center.size()}, center, scale, step, state.decoder_bias);
  for (KindVector* v : kind->vectors()) {
    if (v->unit == 0) continue;
    update_vector({v->value.as<float>(), v->gradient.size()}, v->gradient, v->unit, step, v->moments);
  }
}

// d loss / d W_skip = residual^T x
void SaeTrainer::Impl::update_skip(Mat<const float> x, const AdamStep& step) {
  const Tensor rows = transposed(residual.view());  // [d_out, B]
  const Tensor columns = transposed({DType::kF32, {x.rows(), d_in}, x.data()});
  Tensor gradient(DType::kF32, {d_out, d_in});
  const LinearPart part{{columns.data(), DType::kF32, d_in, now.rows}, nullptr, gradient.f32(), false};
  backend->linear(rows.f32(), {&part, 1}, Compute::kF32);
  const auto n = static_cast<size_t>(gradient.elements());
  update_vector({state.weights.w_skip.as<float>(), n}, {gradient.as<float>(), n},
                static_cast<float>(state.encoder_scale), step, state.skip);
}

void SaeTrainer::Impl::count_fired() {
  auto* since = state.since_fired.as<int64_t>();
  const SparseEntries& live = now.live;
  for (int64_t j = 0; j < options.d_sae; ++j) {
    const auto begin = live.column_values.begin() + live.column_offsets[static_cast<size_t>(j)];
    const auto end = live.column_values.begin() + live.column_offsets[static_cast<size_t>(j) + 1];
    since[j] = std::any_of(begin, end, [](float v) { return v > 0; }) ? 0 : since[j] + now.rows;
  }
}

SaeTrainer::StepStats SaeTrainer::Impl::run(Mat<const float> x, Mat<const float> target) {
  const int64_t n = x.rows(), d_sae = options.d_sae;
  require_training(x.cols() == d_in && n >= 1 && target.rows() == n && target.cols() == d_out && x.contiguous(),
                   "a batch has " + std::to_string(n) + " rows of width " + std::to_string(x.cols()) + " for " +
                       std::to_string(target.rows()) + " of width " + std::to_string(target.cols()) +
                       "; expected as many of widths " + std::to_string(d_in) + " and " + std::to_string(d_out));
  find_dead();
  prepare(x, target);
  encode();

  StepStats stats;
  double extra = 0;
  const double error_sum = kind->reconstruct(now, extra);
  stats.penalty = kind->penalise(now);
  now.live.transpose(d_sae);
  stats.auxiliary_loss = auxiliary_pass() / now.unit;
  stats.loss = error_sum / now.unit + extra + stats.penalty + options.auxiliary_weight * stats.auxiliary_loss;
  if (!std::isfinite(stats.loss)) {
    throw Error(Errc::kRefused, "training: the loss is not finite any more; lower the learning rate (--lr)");
  }
  std::vector<double> mean = column_sums(target);
  for (double& m : mean) m /= static_cast<double>(n);
  const double variance = spread(target, mean);
  stats.fvu = variance > 0 ? error_sum / variance : 0.0;
  const auto active = std::count_if(now.live.values.begin(), now.live.values.end(), [](float v) { return v > 0; });
  stats.l0 = static_cast<double>(active) / static_cast<double>(n);
  stats.dead = static_cast<double>(dead.size()) / static_cast<double>(d_sae);

  AdamStep step;
  const auto t = static_cast<double>(state.steps + 1);
  step.rate = static_cast<float>(learning_rate());
  step.beta1 = static_cast<float>(options.beta1);
  step.beta2 = static_cast<float>(options.beta2);
  step.eps = static_cast<float>(options.adam_eps);
  step.correction1 = static_cast<float>(1.0 - std::pow(options.beta1, t));
  step.correction2 = static_cast<float>(1.0 - std::pow(options.beta2, t));
  update(x, step);
  count_fired();
  ++state.steps;
  if (options.resample_every > 0 && state.steps % options.resample_every == 0) resample();
  return stats;
}

SaeTrainer::SaeTrainer(int64_t d_in, const SaeTrainOptions& options, int64_t total_steps, Mat<const float> sample)
    : impl_(std::make_unique<Impl>()) {
  require_training(sample.cols() == d_in, "the sample has rows of width " + std::to_string(sample.cols()) +
                                              "; expected " + std::to_string(d_in));
  require_training(!options.skip, "skip is for transcoders; an SAE with it could pass its input through");
  impl_->begin(options, total_steps, sample, sample);
}

SaeTrainer::SaeTrainer(const SaeTrainOptions& options, int64_t total_steps, Mat<const float> sample,
                       Mat<const float> target)
    : impl_(std::make_unique<Impl>()) {
  check_transcoder_options(options);
  require_training(sample.rows() == target.rows(), "the sample has " + std::to_string(sample.rows()) + " rows for " +
                                                       std::to_string(target.rows()) + " of the output site");
  impl_->transcoder = true;
  impl_->begin(options, total_steps, sample, target);
}

void SaeTrainer::Impl::begin(const SaeTrainOptions& with, int64_t steps, Mat<const float> sample,
                             Mat<const float> target) {
  check_train_options(with, sample.cols());
  require_training(sample.rows() >= 1, "the sample has no rows");
  require_training(steps >= 1,
                   "there is nothing to train on: fewer tokens than one batch of " + std::to_string(with.batch));
  options = with;
  d_in = sample.cols();
  d_out = target.cols();
  total_steps = steps;
  compute = choose_compute(options.compute, *backend);
  kind = make_training_kind(options);
  initialise(sample, target);
  refresh_shadow();
}

SaeTrainer::~SaeTrainer() = default;

SaeTrainer::StepStats SaeTrainer::step(Mat<const float> x) {
  require_training(!impl_->transcoder, "a transcoder's step needs the rows of the output site");
  return impl_->run(x, x);
}

SaeTrainer::StepStats SaeTrainer::step(Mat<const float> x, Mat<const float> target) { return impl_->run(x, target); }

const SaeWeights& SaeTrainer::weights() const { return impl_->state.weights; }

int64_t SaeTrainer::steps_done() const { return impl_->state.steps; }

std::shared_ptr<const Sae> SaeTrainer::snapshot(const std::string& site, const std::string& model,
                                                const std::string& site_out) const {
  SaeConfig config;
  config.d_in = impl_->d_in;
  config.d_out = impl_->d_out;
  config.d_sae = impl_->options.d_sae;
  config.transcoder = impl_->transcoder;
  config.apply_b_dec_to_input = !impl_->transcoder;
  config.skip = impl_->options.skip;
  config.site = site;
  config.site_out = site_out;
  config.model = model;
  config.format = "sae_lens";
  const SaeWeights& w = impl_->state.weights;
  SaeWeights copy;
  copy.w_enc = w.w_enc.clone();
  copy.b_enc = w.b_enc.clone();
  copy.w_dec = w.w_dec.clone();
  copy.b_dec = w.b_dec.clone();
  if (config.skip) copy.w_skip = w.w_skip.clone();
  impl_->kind->save(config, copy);
  return Sae::from_weights(std::move(config), std::move(copy));
}

// What a state must have in common with the trainer that takes it up.
static std::string identity_of(const SaeTrainOptions& options, int64_t d_in, int64_t d_out, int64_t total_steps) {
  Json out = options_to_json(options);
  out["d_in"] = d_in;
  out["d_out"] = d_out;
  out["total_steps"] = total_steps;
  return out.dump();
}

void SaeTrainer::save_state(const std::string& file) const {
  const Impl& i = *impl_;
  i.state.save(file, identity_of(i.options, i.d_in, i.d_out, i.total_steps), i.kind->vectors());
}

void SaeTrainer::load_state(const std::string& file) {
  Impl& i = *impl_;
  i.state.load(file, identity_of(i.options, i.d_in, i.d_out, i.total_steps), i.kind->vectors());
  i.refresh_shadow();
}

}  // namespace saif
