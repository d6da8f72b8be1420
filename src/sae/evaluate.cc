// What an SAE's reconstruction costs the model.
#include "sae/evaluate.h"

#include <algorithm>
#include <cmath>

#include "sae/activations.h"
#include "sae/breakdown.h"
#include "sae/fit.h"
#include "tensor/rows.h"

namespace saif {
namespace {

constexpr int64_t kFidelityTokens = 131072;  // rows that the fidelity is measured on, at most

// Scoring with one given token counts steps from it: step 0 is a document's first token, which stays as it is. Its
// norm is out of all proportion in most models, and SAEs are not trained on it.
bool is_first(int64_t step) { return step == 0; }

class ReconstructionEdit final : public RowEdit {
 public:
  explicit ReconstructionEdit(const Sae& sae) : sae_(sae) {}

  void apply(Mat<float> h, std::span<const int64_t> steps) const override {
    std::vector<int64_t> rows;
    for (int64_t r = 0; r < h.rows(); ++r) {
      if (!is_first(steps[static_cast<size_t>(r)])) rows.push_back(r);
    }
    if (rows.empty()) return;
    const Tensor x = rows_of(h, rows);
    const Tensor y = sae_.decode(sae_.encode(x.f32()), x.f32());
    for (size_t i = 0; i < rows.size(); ++i)
      std::copy_n(y.f32().row(static_cast<int64_t>(i)), h.cols(), h.row(rows[i]));
  }

 private:
  const Sae& sae_;
};

class ZeroEdit final : public RowEdit {
 public:
  void apply(Mat<float> h, std::span<const int64_t> steps) const override {
    for (int64_t r = 0; r < h.rows(); ++r) {
      if (!is_first(steps[static_cast<size_t>(r)])) std::fill_n(h.row(r), h.cols(), 0.0f);
    }
  }
};

// Nats per token over all documents.
double cross_entropy(std::span<const Engine::Score> scores) {
  double sum = 0;
  int64_t tokens = 0;
  for (const Engine::Score& score : scores) {
    sum += score.log_probability;
    tokens += score.tokens;
  }
  return tokens > 0 ? -sum / static_cast<double>(tokens) : 0.0;
}

// Documents with something to predict, cut to the model's context.
std::vector<std::vector<int32_t>> usable_documents(const Engine& engine,
                                                   std::span<const std::vector<int32_t>> documents) {
  std::vector<std::vector<int32_t>> usable;
  const auto context = static_cast<size_t>(engine.model().architecture().context);
  for (const std::vector<int32_t>& document : documents) {
    if (document.size() < 2) continue;
    usable.emplace_back(document.begin(), document.begin() + static_cast<int64_t>(std::min(context, document.size())));
  }
  if (usable.empty()) {
    throw Error(Errc::kInvalidArgument, "SAE evaluation: none of the " + std::to_string(documents.size()) +
                                            " documents has two tokens; expected text to predict");
  }
  return usable;
}

}  // namespace

Tensor fidelity_rows(Engine& engine, std::span<const std::vector<int32_t>> documents, const Site& site,
                     const Control& control) {
  return collect_activations(engine, documents, site, 1, kFidelityTokens, control);
}

ScoredText score_text(Engine& engine, std::span<const std::vector<int32_t>> documents, const Site& site,
                      bool each_token, const Control& control) {
  ScoredText out;
  out.site = site;
  out.requests.reserve(documents.size());
  for (const std::vector<int32_t>& document : documents) out.requests.push_back({document, 1, each_token});
  out.clean = engine.score(out.requests, {}, control);
  const AppliedEdit zeroed{site, EditPositions::kAll, std::make_shared<ZeroEdit>()};
  out.ce_zero = cross_entropy(engine.score(out.requests, {&zeroed, 1}, control));
  return out;
}

std::vector<Engine::Score> measure_cost(const Sae& sae, Engine& engine, const ScoredText& text, SaeEvaluation& out,
                                        const Control& control) {
  const AppliedEdit spliced{text.site, EditPositions::kAll, std::make_shared<ReconstructionEdit>(sae)};
  std::vector<Engine::Score> with_sae = engine.score(text.requests, {&spliced, 1}, control);
  out.ce_clean = cross_entropy(text.clean);
  out.ce_sae = cross_entropy(with_sae);
  out.ce_zero = text.ce_zero;
  const double range = out.ce_zero - out.ce_clean;
  out.loss_recovered = range != 0 ? (out.ce_zero - out.ce_sae) / range : NAN;
  return with_sae;
}

SaeEvaluation evaluate_sae(const Sae& sae, Engine& engine, std::span<const std::vector<int32_t>> documents,
                           const Control& control, SaeBreakdown* breakdown) {
  if (sae.config().transcoder) {
    throw Error(Errc::kUnsupported, "SAE evaluation: " + sae.path() +
                                        " is a transcoder; splicing one in is not supported, `saif inspect --model` "
                                        "measures its fidelity");
  }
  const Site site = require_fit(sae, engine, "", false);
  const std::vector<std::vector<int32_t>> usable = usable_documents(engine, documents);
  SaeEvaluation out;
  const Tensor rows = fidelity_rows(engine, usable, site, control);
  const std::vector<double> mean = column_means(rows.f32());
  const RowFits fits = fit_rows(sae, rows.f32(), rows.f32(), mean);
  out.fidelity = summary_of(sae, fits);
  const ScoredText text = score_text(engine, usable, site, breakdown != nullptr, control);
  const std::vector<Engine::Score> with_sae = measure_cost(sae, engine, text, out, control);
  if (breakdown) {
    const FirstTokens first = fit_first_tokens(sae, engine, usable, site, mean, control);
    *breakdown = break_down(engine.tokenizer(), {usable, fits, first, text.clean, with_sae});
  }
  return out;
}

}  // namespace saif
