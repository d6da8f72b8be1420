// SAELens 6: a folder with cfg.json and sae_weights.safetensors (formats: https://github.com/jbloomAus/SAELens).
#pragma once

#include "sae/source.h"

namespace saif {

bool is_sae_lens(const std::string& path);
SaeSource load_sae_lens(const std::string& path, const SaeLoadOptions& options);

}  // namespace saif
