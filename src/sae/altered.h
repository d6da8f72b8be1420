// SAEs that differ from a given one in how its stored matrices are used.
#pragma once

#include <functional>
#include <memory>

#include "sae/source.h"

namespace saif {

// The same SAE after a change of its source, which shares the stored matrices; nullptr where `sae` is of another class.
std::shared_ptr<const Sae> altered(const Sae& sae, const std::function<void(SaeSource&)>& change);

}  // namespace saif
