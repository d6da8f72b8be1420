#include "sae/breakdown.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/check.h"
#include "sae/activations.h"
#include "sae/density.h"
#include "sae/token_type.h"

namespace saif {
namespace {

constexpr double kNormal95 = 1.959963984540054;

// Sums over the tokens of one type.
struct TypeSums {
  int64_t tokens = 0, active = 0, predicted = 0;
  double error = 0, distance = 0, clean = 0, with_sae = 0;
  std::vector<std::pair<double, double>> documents;  // (nats lost, tokens predicted) of each document

  void add(const RowFit& row, int64_t times) {
    tokens += times;
    active += times * row.active;
    error += static_cast<double>(times) * row.error;
    distance += static_cast<double>(times) * row.distance;
  }
};

// Standard error of sum(lost) / sum(n) where documents are drawn, not tokens (ratio estimator).
double clustered_error(const std::vector<std::pair<double, double>>& documents) {
  double lost = 0, n = 0, squares = 0;
  for (const auto& [l, m] : documents) {
    lost += l;
    n += m;
  }
  const auto clusters = static_cast<double>(documents.size());
  if (clusters < 2) return INFINITY;
  for (const auto& [l, m] : documents) squares += (l - lost / n * m) * (l - lost / n * m);
  return std::sqrt(squares * clusters / (clusters - 1)) / n;
}

SaeBreakdown::Type type_row(std::string_view name, const TypeSums& s, double all_error) {
  SaeBreakdown::Type out;
  out.name = name;
  out.tokens = s.tokens;
  out.predicted = s.predicted;
  if (s.tokens > 0) {
    out.l0 = static_cast<double>(s.active) / static_cast<double>(s.tokens);
    out.fvu = fraction_unexplained(s.error, s.distance);
    out.error_share = all_error > 0 ? s.error / all_error : 0.0;
  }
  if (s.predicted > 0) {
    const auto n = static_cast<double>(s.predicted);
    out.ce_clean = s.clean / n;
    out.ce_sae = s.with_sae / n;
    const double margin = kNormal95 * clustered_error(s.documents);
    out.ce_increase_low = out.ce_sae - out.ce_clean - margin;
    out.ce_increase_high = out.ce_sae - out.ce_clean + margin;
  }
  return out;
}

}  // namespace

FirstTokens fit_first_tokens(const Sae& sae, Engine& engine, std::span<const std::vector<int32_t>> documents,
                             const Site& site, std::span<const double> mean, const Control& control) {
  std::map<int32_t, int64_t> counts;
  for (const std::vector<int32_t>& document : documents) ++counts[document.front()];
  std::vector<std::vector<int32_t>> prompts;
  FirstTokens out;
  for (const auto& [id, count] : counts) {
    prompts.push_back({id});
    out.counts.push_back(count);
  }
  const Tensor rows = collect_activations(engine, prompts, site, 0, static_cast<int64_t>(prompts.size()), control);
  out.rows = fit_rows(sae, rows.f32(), rows.f32(), mean).rows;
  return out;
}

SaeBreakdown break_down(const Tokenizer& tokenizer, const BreakdownInput& input) {
  std::array<TypeSums, kTokenTypes.size()> sums;
  size_t row = 0;
  double all_error = 0;
  for (size_t d = 0; d < input.documents.size(); ++d) {
    const std::vector<TokenType> types = token_types(tokenizer, input.documents[d]);
    const std::vector<double>&clean = input.clean[d].each, &with_sae = input.with_sae[d].each;
    SAIF_CHECK(clean.size() + 1 == types.size() && with_sae.size() == clean.size(), "scores of every token");
    std::array<std::pair<double, double>, kTokenTypes.size()> lost{};
    for (size_t t = 1; t < types.size(); ++t) {
      const auto type = static_cast<size_t>(types[t]);
      TypeSums& s = sums[type];
      if (row < input.fits.rows.size()) {
        s.add(input.fits.rows[row], 1);
        all_error += input.fits.rows[row++].error;
      }
      ++s.predicted;
      s.clean -= clean[t - 1];
      s.with_sae -= with_sae[t - 1];
      lost[type].first += clean[t - 1] - with_sae[t - 1];
      lost[type].second += 1;
    }
    for (size_t i = 0; i < sums.size(); ++i) {
      if (lost[i].second > 0) sums[i].documents.push_back(lost[i]);
    }
  }
  for (size_t i = 0; i < input.first.rows.size(); ++i) {
    sums[static_cast<size_t>(TokenType::kFirst)].add(input.first.rows[i], input.first.counts[i]);
  }
  SaeBreakdown out;
  FiringDensity density = density_of(input.fits.fired, static_cast<int64_t>(input.fits.rows.size()));
  out.never = density.never;
  out.density = std::move(density.bins);
  for (size_t i = 0; i < sums.size(); ++i) {
    const bool first = i == static_cast<size_t>(TokenType::kFirst);
    if (sums[i].tokens > 0) out.types.push_back(type_row(kTokenTypes[i], sums[i], first ? 0 : all_error));
  }
  return out;
}

Json SaeBreakdown::to_json() const {
  Json rows = Json::array();
  for (const Type& t : types) {
    const bool predicted = t.predicted > 0;
    const auto nats = [&](double value) { return predicted ? Json(value) : Json(); };
    Json row = Json::object({{"type", t.name},
                             {"tokens", t.tokens},
                             {"l0", t.l0},
                             {"fvu", t.fvu},
                             {"error_share", t.name == kTokenTypes[0] ? Json() : Json(t.error_share)},
                             {"predicted", t.predicted},
                             {"ce_clean", nats(t.ce_clean)},
                             {"ce_sae", nats(t.ce_sae)}});
    row["ce_increase_ci"] = predicted ? Json(std::vector<double>{t.ce_increase_low, t.ce_increase_high}) : Json();
    rows.push_back(row);
  }
  return Json::object({{"density_histogram", density_json(never, density)}, {"by_type", rows}});
}

}  // namespace saif
