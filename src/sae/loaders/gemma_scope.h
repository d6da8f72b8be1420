// Gemma Scope: params.npz in a folder whose path says everything; Gemma Scope 2: params.safetensors, optional
// config.json.
#pragma once

#include "sae/source.h"

namespace saif {

bool is_gemma_scope(const std::string& path);
SaeSource load_gemma_scope(const std::string& path, const SaeLoadOptions& options);

bool is_gemma_scope_2(const std::string& path);
SaeSource load_gemma_scope_2(const std::string& path, const SaeLoadOptions& options);

}  // namespace saif
