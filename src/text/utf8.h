// UTF-8 as Unicode's table 3-7 defines it: no surrogates, no overlong forms, at most U+10FFFF.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace saif {

// What stands at the start of a text (not empty): a character, an ill-formed maximal subpart (what one U+FFFD
// replaces), or the beginning of a character that the text's end cuts off.
struct Utf8Step {
  enum class Kind { kCharacter, kInvalid, kUnfinished };
  Kind kind = Kind::kCharacter;
  size_t size = 0;    // bytes
  char32_t code = 0;  // of a character
};
Utf8Step utf8_step(std::string_view text);

// The offset of the first byte that is not UTF-8.
std::optional<size_t> find_invalid_utf8(std::string_view text);

std::string utf8_of(char32_t code);

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace saif
