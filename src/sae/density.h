// How often latents fire.
#pragma once

#include <span>
#include <vector>

#include "saif/sae.h"

namespace saif {

struct FiringDensity {
  int64_t never = 0;
  std::vector<SaeBreakdown::Bin> bins;  // half decades, from the rarest latent's to 1
};
// fired [d_sae]: of n rows those on which the latent is active.
FiringDensity density_of(std::span<const int64_t> fired, int64_t n);

// {"never": latents, "bins": [{log10_low, log10_high, latents}]}
Json density_json(int64_t never, std::span<const SaeBreakdown::Bin> bins);

}  // namespace saif
