// An evaluation split by type of token.
#pragma once

#include <span>
#include <vector>

#include "sae/row_fit.h"

namespace saif {

// A first token's row depends on that token alone, so each distinct one is computed once.
struct FirstTokens {
  std::vector<RowFit> rows;     // of the distinct first tokens
  std::vector<int64_t> counts;  // documents that begin with it
};
FirstTokens fit_first_tokens(const Sae& sae, Engine& engine, std::span<const std::vector<int32_t>> documents,
                             const Site& site, std::span<const double> mean, const Control& control);

struct BreakdownInput {
  const std::vector<std::vector<int32_t>>& documents;
  const RowFits& fits;  // of all tokens but each document's first, in order; may end before the documents do
  const FirstTokens& first;
  const std::vector<Engine::Score>& clean;  // with the log-probability of each token but the first
  const std::vector<Engine::Score>& with_sae;
};
SaeBreakdown break_down(const Tokenizer& tokenizer, const BreakdownInput& input);

}  // namespace saif
