// SAELens, version 6 and before: cfg.json, sae_weights.safetensors, optional activation_scaler.json.
#pragma once

#include "sae/loaders/tensor_set.h"
#include "sae/source.h"

namespace saif {

bool is_sae_lens(const std::string& path);
SaeSource load_sae_lens(const std::string& path, const SaeLoadOptions& options);

// cfg.json in the form of version 6 or that of its predecessors, which had one flat object.
SaeConfig read_sae_lens_config(const std::string& file, const Json& json);

}  // namespace saif
