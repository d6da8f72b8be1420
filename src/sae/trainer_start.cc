// How training begins, and how dead latents begin again.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/parallel.h"
#include "base/rng.h"
#include "sae/center.h"
#include "sae/trainer_impl.h"

namespace saif {
namespace {

constexpr int64_t kMedianSample = 8192;  // rows of the sample that the geometric median looks at
constexpr int64_t kCutSample = 2048;     // rows of the sample that firing rates are measured on
constexpr int64_t kCutLatents = 1024;    // latents whose pre-activations exist at a time
constexpr uint64_t kEncoderStream = uint64_t{1} << 40, kResampleStream = uint64_t{1} << 41;

void copy_center(const std::vector<double>& center, Tensor& to) {
  for (size_t c = 0; c < center.size(); ++c) to.as<float>()[c] = static_cast<float>(center[c]);
}

// A Gaussian direction of the given norm.
void draw_row(uint64_t seed, uint64_t stream, float norm, std::span<float> row) {
  Rng rng(seed, stream);
  double sum = 0;
  for (float& v : row) {
    v = static_cast<float>(rng.normal());
    sum += static_cast<double>(v) * v;
  }
  const auto inverse = static_cast<float>(1.0 / std::sqrt(std::max(sum, 1e-30)));
  for (float& v : row) v *= inverse * norm;
}

double root_mean_square(Mat<const float> x, const std::vector<double>& center) {
  const double mean = spread(x, center) / static_cast<double>(x.rows());
  return mean > 0 ? std::sqrt(mean) : 1.0;
}

}  // namespace

void SaeTrainer::Impl::initialise(Mat<const float> sample, Mat<const float> target) {
  state.allocate(d_in, d_out, options.d_sae, options.skip);
  const int64_t few = std::min(sample.rows(), kMedianSample);
  const Mat<const float> in = sample.rows_range(0, few), out = target.rows_range(0, few);
  const std::vector<double> center = geometric_median(out);
  state.scale = root_mean_square(out, center);
  copy_center(center, state.weights.b_dec);
  std::vector<double> in_center(static_cast<size_t>(d_in), 0.0);
  if (transcoder) {
    in_center = geometric_median(in);
    state.encoder_scale = state.scale / root_mean_square(in, in_center);
  }
  draw_rows();
  if (transcoder) {  // b_enc takes the input's centre off
    const Mat<const float> enc = state.weights.w_enc.f32();
    for (int64_t j = 0; j < options.d_sae; ++j) {
      double sum = 0;
      for (int64_t c = 0; c < d_in; ++c) sum -= enc(j, c) * in_center[static_cast<size_t>(c)];
      state.weights.b_enc.as<float>()[j] = static_cast<float>(sum);
    }
  }
  start_kind(in);
}

// Decoder rows of unit norm; encoder rows equal to them, or a transcoder's own.
void SaeTrainer::Impl::draw_rows() {
  const Mat<float> dec = state.weights.w_dec.f32(), enc = state.weights.w_enc.f32();
  const auto seed = static_cast<uint64_t>(options.seed);
  parallel_for(options.d_sae, 64, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      const auto stream = static_cast<uint64_t>(j);
      draw_row(seed, stream, 1.0f, dec.row_span(j));
      if (transcoder) {
        draw_row(seed, kEncoderStream + stream, static_cast<float>(state.encoder_scale), enc.row_span(j));
      } else {
        std::copy_n(dec.row(j), d_in, enc.row(j));
      }
    }
  });
}

void SaeTrainer::Impl::start_kind(Mat<const float> sample) {
  std::vector<float> cuts;
  if (kind->start_rate() > 0) {
    const int64_t rows = std::min(sample.rows(), kCutSample);
    Tensor in(DType::kF32, {rows, d_in});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < d_in; ++c) {
        in.f32()(r, c) = sample(r, c) - (transcoder ? 0.0f : state.weights.b_dec.as<float>()[c]);
      }
    }
    cuts = cuts_of(in.f32(), kind->start_rate());
  }
  KindStart start;
  start.cuts = cuts;
  start.scale = static_cast<float>(state.scale);
  start.total_steps = total_steps;
  start.unit = start.scale / std::sqrt(static_cast<float>(d_in));
  kind->start(start, {state.weights.b_enc.as<float>(), static_cast<size_t>(options.d_sae)});
}

// What each latent's pre-activation exceeds on a share `rate` of the rows.
std::vector<float> SaeTrainer::Impl::cuts_of(Mat<const float> in, double rate) {
  const int64_t rows = in.rows();
  std::vector<float> cuts(static_cast<size_t>(options.d_sae));
  Tensor h(DType::kF32, {rows, std::min(kCutLatents, options.d_sae)});
  const auto rank =
      std::clamp<int64_t>(std::llround(rate * static_cast<double>(rows)), 1, std::max<int64_t>(1, rows - 1));
  for (int64_t first = 0; first < options.d_sae; first += kCutLatents) {
    const int64_t n = std::min(kCutLatents, options.d_sae - first);
    const Mat<float> part_h(h.as<float>(), rows, n);
    const WeightView w{state.weights.w_enc.f32().row(first), DType::kF32, n, d_in};
    const LinearPart part{w, state.weights.b_enc.as<float>() + first, part_h, false};
    backend->linear(in, {&part, 1}, Compute::kF32);
    parallel_for(n, 16, [&](int64_t begin, int64_t end) {
      std::vector<float> column(static_cast<size_t>(rows));
      for (int64_t j = begin; j < end; ++j) {
        for (int64_t r = 0; r < rows; ++r) column[static_cast<size_t>(r)] = part_h(r, j);
        // Between two of the sample's values, so that none of its rows lies on the cut.
        const auto place = column.begin() + std::min(rank, rows - 1);
        std::nth_element(column.begin(), place, column.end(), std::greater<>());
        cuts[static_cast<size_t>(first + j)] =
            0.5f * (*place + *std::min_element(column.begin(), column.begin() + rank));
      }
    });
  }
  return cuts;
}

// Bricken et al. 2023: a dead latent starts again as what one row of the batch lacks, drawn with a probability
// proportional to the row's squared error; its moments are forgotten.
void SaeTrainer::Impl::resample() {
  if (dead.empty()) return;
  const Mat<const float> residuals = residual.f32();
  std::vector<double> until(static_cast<size_t>(residuals.rows()));
  double total = 0;
  for (size_t r = 0; r < until.size(); ++r) {
    const float* row = residuals.row(static_cast<int64_t>(r));
    until[r] = total += dot(row, row, d_out);
  }
  if (total <= 0) return;
  double norm = 0;
  const Mat<float> enc = state.weights.w_enc.f32(), dec = state.weights.w_dec.f32();
  std::vector<bool> is_dead(static_cast<size_t>(options.d_sae), false);
  for (const int32_t j : dead) is_dead[static_cast<size_t>(j)] = true;
  for (int64_t j = 0; j < options.d_sae; ++j) {
    if (!is_dead[static_cast<size_t>(j)]) norm += std::sqrt(dot(enc.row(j), enc.row(j), d_in));
  }
  const auto living = std::max<double>(1.0, static_cast<double>(options.d_sae) - static_cast<double>(dead.size()));
  const float target_norm = kind->resampled_norm() * (norm > 0 ? static_cast<float>(norm / living) : 1.0f);
  Rng rng(static_cast<uint64_t>(options.seed), kResampleStream + static_cast<uint64_t>(state.steps));
  for (const int32_t j : dead) {
    const auto at = std::upper_bound(until.begin(), until.end(), rng.uniform() * total) - until.begin();
    const float* row = residuals.row(std::min<int64_t>(at, residuals.rows() - 1));
    const float inverse = 1.0f / std::max(1e-30f, std::sqrt(dot(row, row, d_out)));
    for (int64_t c = 0; c < d_out; ++c) {
      dec(j, c) = -row[c] * inverse;
      enc(j, c) = dec(j, c) * target_norm;
    }
    for (Moments* moments : {&state.encoder, &state.decoder}) {
      std::fill_n(moments->first.as<float>() + j * d_in, d_in, 0.0f);
      std::fill_n(moments->second.as<float>() + j * d_in, d_in, 0.0f);
    }
    state.weights.b_enc.as<float>()[j] = state.encoder_bias.first.as<float>()[j] = 0.0f;
    state.encoder_bias.second.as<float>()[j] = 0.0f;
    state.since_fired.as<int64_t>()[j] = 0;
  }
  refresh_shadow();
}

}  // namespace saif
