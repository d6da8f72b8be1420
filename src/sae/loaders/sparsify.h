// sparsify: <hookpoint>/cfg.json and sae.safetensors.
#pragma once

#include "sae/source.h"

namespace saif {

bool is_sparsify(const std::string& path);
SaeSource load_sparsify(const std::string& path, const SaeLoadOptions& options);

}  // namespace saif
