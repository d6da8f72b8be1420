// The parts of evaluate_sae, so that several SAEs of a site share what does not depend on them.
#pragma once

#include <span>
#include <vector>

#include "saif/sae.h"

namespace saif {

// What fidelity is measured on, [n, width]: all tokens but each document's first.
Tensor fidelity_rows(Engine& engine, std::span<const std::vector<int32_t>> documents, const Site& site,
                     const Control& control);

// Documents of two tokens or more, predicted by the model as it is and with zeros at the site.
struct ScoredText {
  Site site;
  std::vector<Engine::ScoreRequest> requests;
  std::vector<Engine::Score> clean;
  double ce_zero = 0;  // nats per token
};
// each_token: the scores hold the log-probability of each.
ScoredText score_text(Engine& engine, std::span<const std::vector<int32_t>> documents, const Site& site,
                      bool each_token, const Control& control);

// Fills out's cross-entropies; returns the scores with the reconstruction spliced in.
std::vector<Engine::Score> measure_cost(const Sae& sae, Engine& engine, const ScoredText& text, SaeEvaluation& out,
                                        const Control& control);

}  // namespace saif
