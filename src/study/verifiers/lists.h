// Lines that open a list item.
#pragma once

#include <cctype>
#include <optional>
#include <string_view>

#include "study/text_units.h"

namespace saif {

struct NumberedLine {
  int64_t number = 0;
  std::string_view text;
};

// "1. text", "12) text", "**3.** text"; a number of three digits at most, then white space or the end of the line.
inline std::optional<NumberedLine> numbered_line(std::string_view line) {
  line = trim(line);
  while (line.starts_with('*')) line.remove_prefix(1);
  size_t digits = 0;
  NumberedLine out;
  while (digits < line.size() && digits < 4 && std::isdigit(static_cast<unsigned char>(line[digits])) != 0) {
    out.number = out.number * 10 + (line[digits++] - '0');
  }
  if (digits == 0 || digits > 3 || digits >= line.size() || (line[digits] != '.' && line[digits] != ')')) return {};
  line.remove_prefix(digits + 1);
  while (line.starts_with('*')) line.remove_prefix(1);
  if (!line.empty() && std::isspace(static_cast<unsigned char>(line.front())) == 0) return {};
  out.text = trim(line);
  return out;
}

inline bool is_bullet(std::string_view line) {
  line = trim(line);
  return line.starts_with("- ") || line.starts_with("* ") || line.starts_with("+ ") || line.starts_with("\u2022");
}

}  // namespace saif
