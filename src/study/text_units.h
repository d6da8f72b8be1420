// A text as lines, code points and words: what fluency, text quality and the verifiers count (rules: saif/verify.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace saif {

// Code points; each invalid byte is U+FFFD.
std::vector<uint32_t> code_points(std::string_view text);
bool is_space(uint32_t code_point);  // Unicode White_Space, and U+FEFF
std::string_view trim(std::string_view text);
// Lines without their "\n" or "\r\n"; "a\n" is one line.
std::vector<std::string_view> split_lines(std::string_view text);
// Lines that are not only white space, trimmed.
std::vector<std::string_view> filled_lines(std::string_view text);
std::vector<std::u32string> words_of(std::string_view text);
std::string lower_ascii(std::string_view text);

}  // namespace saif
