// Ordinary text of several kinds for the acceptance check, written for saif.
#pragma once

#include <span>
#include <string_view>

namespace saif {
std::span<const std::string_view> acceptance_texts();
}  // namespace saif
