// dictionary_learning: ae.pt and config.json with trainer.dict_class.
#pragma once

#include "sae/source.h"

namespace saif {

bool is_dictionary_learning(const std::string& path);
SaeSource load_dictionary_learning(const std::string& path, const SaeLoadOptions& options);

}  // namespace saif
