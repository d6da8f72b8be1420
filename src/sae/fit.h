// Whether an SAE and a model belong together, and whether an SAE has what is asked of it.
#pragma once

#include <span>
#include <string>

#include "saif/engine.h"
#include "saif/sae.h"

namespace saif {

// The site the SAE reads (site_override where not empty). Throws kMismatch when there is none, when the model has no
// such site, when widths differ or when the SAE names another model.
Site require_fit(const Sae& sae, const Engine& engine, const std::string& site_override, bool check_model = true);

// Throws kInvalidArgument naming a latent that the SAE has not.
void require_latents(const Sae& sae, std::span<const int32_t> latents);

// "google/gemma-2-2b-it" and "gemma2 2b": the same model or its fine-tuned sibling as far as names tell.
bool same_model_name(const std::string& a, const std::string& b);

}  // namespace saif
