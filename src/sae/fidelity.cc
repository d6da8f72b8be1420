// How well an SAE describes activations, and the JSON of SAEs' results.
#include <algorithm>
#include <cmath>

#include "sae/row_fit.h"
#include "sae/source.h"
#include "saif/sae.h"

namespace saif {

const char* name_of(SaeKind kind) {
  switch (kind) {
    case SaeKind::kStandard:
      return "standard";
    case SaeKind::kTopK:
      return "topk";
    case SaeKind::kJumpRelu:
      return "jumprelu";
    case SaeKind::kGated:
      return "gated";
    case SaeKind::kAbsTopK:
      return "abstopk";
    case SaeKind::kGroupMax:
      return "groupmax";
    case SaeKind::kMatchingPursuit:
      return "matching_pursuit";
  }
  return "";
}

namespace {

constexpr int64_t kFidelityRows = 2048;  // rows encoded and decoded at a time
constexpr double kDenseRate = 0.1;

}  // namespace

Json SaeConfig::to_json() const {
  Json out = Json::object();
  out["format"] = format;
  out["kind"] = name_of(kind);
  out["d_in"] = d_in;
  out["d_sae"] = d_sae;
  out["d_out"] = d_out;
  if (kind == SaeKind::kTopK || kind == SaeKind::kAbsTopK || kind == SaeKind::kGroupMax) {
    out["k"] = k;
    out["rescale_acts_by_decoder_norm"] = rescale_acts_by_decoder_norm;
  }
  if (kind == SaeKind::kTopK) {
    out["keep_negative"] = keep_negative;
    out["rank_by_decoder_norm"] = rank_by_decoder_norm;
  }
  if (kind == SaeKind::kMatchingPursuit) {
    out["max_iterations"] = max_iterations;
    out["residual_threshold"] = residual_threshold;
    out["stop_on_duplicate_support"] = stop_on_duplicate_support;
  }
  out["apply_b_dec_to_input"] = apply_b_dec_to_input;
  out["normalize"] = normalize;
  out["undo_normalization"] = undo_normalization;
  out["transcoder"] = transcoder;
  out["skip"] = skip;
  out["glu"] = glu;
  out["site"] = site;
  if (transcoder) out["site_out"] = site_out;
  out["model"] = model;
  out["published_l0"] = published_l0 ? Json(*published_l0) : Json();
  out["published_fvu"] = published_fvu ? Json(*published_fvu) : Json();
  out["metadata"] = metadata;
  return out;
}

double SparseLatents::mean_l0() const {
  return rows() > 0 ? static_cast<double>(indices.size()) / static_cast<double>(rows()) : 0.0;
}

Json SaeFidelity::to_json() const {
  Json out = Json::object();
  out["tokens"] = tokens;
  out["l0"] = l0;
  out["fvu"] = fvu;
  out["explained_variance"] = explained_variance;
  out["dead"] = dead;
  out["dense"] = dense;
  out["decoder_norm_min"] = decoder_norm_min;
  out["decoder_norm_max"] = decoder_norm_max;
  return out;
}

Json SaeEvaluation::to_json() const {
  Json out = fidelity.to_json();
  out["ce_clean"] = ce_clean;
  out["ce_sae"] = ce_sae;
  out["ce_zero"] = ce_zero;
  out["loss_recovered"] = loss_recovered;
  return out;
}

Json SaeTrainResult::to_json() const {
  Json out = evaluation.to_json();
  out["tokens_per_s"] = tokens_per_s;
  out["steps"] = steps;
  out["training_tokens"] = tokens;
  out["corpus_tokens"] = corpus_tokens;
  out["rows"] = rows;
  out["density_histogram"] = density;
  out["folder"] = folder;
  return out;
}

SaeFidelity measure_fidelity(const Sae& sae, Mat<const float> x) { return measure_fidelity(sae, x, x); }

SaeFidelity measure_fidelity(const Sae& sae, Mat<const float> x, Mat<const float> target) {
  const SaeConfig& config = sae.config();
  if (target.rows() != x.rows() || target.cols() != config.d_out) {
    throw Error(Errc::kMismatch, "SAE " + sae.path() + " reconstructs rows of width " + std::to_string(config.d_out) +
                                     ", but was given " + std::to_string(target.rows()) + " of width " +
                                     std::to_string(target.cols()) + " to compare for " + std::to_string(x.rows()));
  }
  return summary_of(sae, fit_rows(sae, x, target, column_means(target)));
}

std::vector<double> column_means(Mat<const float> x) {
  std::vector<double> mean(static_cast<size_t>(x.cols()), 0.0);
  for (int64_t r = 0; r < x.rows(); ++r) {
    for (int64_t c = 0; c < x.cols(); ++c) mean[static_cast<size_t>(c)] += x(r, c);
  }
  for (double& m : mean) m /= static_cast<double>(std::max<int64_t>(1, x.rows()));
  return mean;
}

RowFits fit_rows(const Sae& sae, Mat<const float> x, Mat<const float> target, std::span<const double> mean) {
  RowFits out;
  out.fired.resize(static_cast<size_t>(sae.config().d_sae), 0);
  for (int64_t begin = 0; begin < x.rows(); begin += kFidelityRows) {
    const int64_t end = std::min(x.rows(), begin + kFidelityRows);
    const Mat<const float> part = x.rows_range(begin, end), wanted = target.rows_range(begin, end);
    require_finite_rows(part, begin, "input", sae.path());
    require_finite_rows(wanted, begin, "target", sae.path());
    const SparseLatents latents = sae.encode(part);
    const Tensor reconstruction = sae.decode(latents, part);
    for (const int32_t j : latents.indices) ++out.fired[static_cast<size_t>(j)];
    const Mat<const float> y = reconstruction.f32();
    for (int64_t r = 0; r < wanted.rows(); ++r) {
      double error = 0, distance = 0;
      for (int64_t c = 0; c < wanted.cols(); ++c) {
        const double e = static_cast<double>(wanted(r, c)) - y(r, c), d = wanted(r, c) - mean[static_cast<size_t>(c)];
        error += e * e;
        distance += d * d;
      }
      const auto row = static_cast<size_t>(r);
      out.rows.push_back({latents.row_offsets[row + 1] - latents.row_offsets[row], error, distance});
    }
  }
  return out;
}

SaeFidelity summary_of(const Sae& sae, const RowFits& fits) {
  SaeFidelity out;
  out.tokens = static_cast<int64_t>(fits.rows.size());
  double error = 0, variance = 0;
  int64_t active = 0;
  for (const RowFit& row : fits.rows) {
    active += row.active;
    error += row.error;
    variance += row.distance;
  }
  const auto n = static_cast<double>(std::max<int64_t>(1, out.tokens));
  out.l0 = static_cast<double>(active) / n;
  out.fvu = fraction_unexplained(error, variance);
  out.explained_variance = 1.0 - out.fvu;
  const auto latents = static_cast<double>(sae.config().d_sae);
  out.dead = static_cast<double>(std::count(fits.fired.begin(), fits.fired.end(), 0)) / latents;
  out.dense = static_cast<double>(std::count_if(fits.fired.begin(), fits.fired.end(),
                                                [&](int64_t f) { return static_cast<double>(f) > kDenseRate * n; })) /
              latents;
  const std::vector<float> norms = sae.decoder_norms();
  const auto [low, high] = std::minmax_element(norms.begin(), norms.end());
  out.decoder_norm_min = *low;
  out.decoder_norm_max = *high;
  return out;
}

double fraction_unexplained(double error, double variance) {
  if (variance > 0) return error / variance;
  return error == 0 && variance == 0 ? 0.0 : INFINITY;
}

}  // namespace saif
