// The three layouts of OpenMOSS: Llama Scope, its R1-distill SAEs and llamascopium.
#pragma once

#include "sae/source.h"

namespace saif {

// hyperparams.json, checkpoints/final.safetensors.
bool is_llama_scope(const std::string& path);
SaeSource load_llama_scope(const std::string& path, const SaeLoadOptions& options);

// config.json, sae_weights.safetensors or sae_weights.pt; llamascopium's tensor names, or torch Linear ones
// (R1-distill).
bool is_llamascopium(const std::string& path);
SaeSource load_llamascopium(const std::string& path, const SaeLoadOptions& options);

}  // namespace saif
