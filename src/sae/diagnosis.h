// Why an SAE fails its acceptance check: its neighbours are tried (other sites, scales, first tokens, orientations of
// its matrices), and the one that fits is the likely cause.
#pragma once

#include <string>
#include <vector>

#include "saif/engine.h"
#include "saif/sae.h"

namespace saif {

inline constexpr double kMaxFvu = 0.5;

// Whether these figures pass the acceptance check of an SAE that publishes `published_l0` (or nothing).
bool passes_check(const SaeConfig& config, double l0, double fvu);

struct Neighbour {
  std::string what;    // "at blocks.17.hook_resid_post"
  std::string advice;  // what to do if it is the one
  double l0 = 0, fvu = 0;
  double doubt = 0;  // a change with more freedom has to fit better by this much FVU
};

// Of what was tried at `site` and around it, the best first.
std::vector<Neighbour> try_neighbours(const Sae& sae, Engine& engine,
                                      const std::vector<std::vector<int32_t>>& documents, const Site& site,
                                      const Control& control);

// One clause for the message of a refusal: the neighbour that fits and its figures, or that none does.
std::string likely_cause(const Sae& sae, const std::vector<Neighbour>& tried, const Site& site);

}  // namespace saif
