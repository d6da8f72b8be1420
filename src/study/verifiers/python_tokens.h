// Python source as logical lines of tokens: enough of the lexical rules (Python Language Reference, chapter 2) to tell
// code from prose.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace saif {

struct PythonToken {
  enum Kind { kName, kNumber, kString, kOperator } kind = kOperator;
  std::string_view text;
  bool spaced = false;  // white space stands before it
};

// One statement's worth of text: brackets and triple quotes join lines, ";" splits them.
struct PythonLine {
  int indent = 0;  // columns; a tab counts to the next multiple of eight
  std::vector<PythonToken> tokens;
  bool cut = false;  // the source ends inside it: open bracket or string, or no line break after it
};

// Lines that are empty or only a comment are left out. nullopt when something is not Python: a stray character, a
// string open at the end of a line, brackets that do not match. A last line that is not Python is left out as cut off.
std::optional<std::vector<PythonLine>> python_lines(std::string_view source);

}  // namespace saif
