// Per-layer transcoders: layer_N.safetensors beside config.yaml.
#pragma once

#include "sae/source.h"

namespace saif {

bool is_layer_transcoder(const std::string& path);
SaeSource load_layer_transcoder(const std::string& path, const SaeLoadOptions& options);

}  // namespace saif
