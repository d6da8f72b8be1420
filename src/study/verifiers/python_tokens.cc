#include "study/verifiers/python_tokens.h"

#include <array>
#include <cctype>

namespace saif {
namespace {

constexpr size_t kNone = std::string_view::npos;

bool is_name_start(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}
bool is_name_part(char c) { return is_name_start(c) || std::isdigit(static_cast<unsigned char>(c)) != 0; }

class Scanner {
 public:
  explicit Scanner(std::string_view source) : source_(source) {}

  std::optional<std::vector<PythonLine>> scan() {
    while (!at_end()) {
      if (!scan_line()) {
        // What a limit cut off may look like nothing at all; it is left out.
        if (source_.find('\n', position_) != kNone) return std::nullopt;
        break;
      }
    }
    return std::move(lines_);
  }

 private:
  bool at_end() const { return position_ >= source_.size(); }
  char peek(size_t ahead = 0) const { return position_ + ahead < source_.size() ? source_[position_ + ahead] : '\0'; }

  // One logical line, its line break included.
  bool scan_line() {
    PythonLine line;
    for (; peek() == ' ' || peek() == '\t'; ++position_) line.indent += peek() == '\t' ? 8 - line.indent % 8 : 1;
    const int indent = line.indent;
    std::string open;  // brackets not yet closed
    bool spaced = false;
    while (true) {
      if (at_end()) {
        line.cut = true;
        break;
      }
      const char c = peek();
      if (c == '\n' && open.empty()) {
        ++position_;
        break;
      }
      if (c == ';' && open.empty()) {
        if (line.tokens.empty()) return false;
        ++position_;
        lines_.push_back(std::move(line));
        line = PythonLine{.indent = indent, .tokens = {}, .cut = false};
      } else if (c == '#') {
        while (!at_end() && peek() != '\n') ++position_;
      } else if (c == '\\' && (peek(1) == '\n' || (peek(1) == '\r' && peek(2) == '\n'))) {
        position_ += 2;
      } else if (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f') {
        ++position_;
        spaced = true;
        continue;
      } else {
        if (!scan_token(&line, &open)) return false;
        line.tokens.back().spaced = spaced;
      }
      spaced = false;
    }
    if (!line.tokens.empty()) lines_.push_back(std::move(line));
    return true;
  }

  bool scan_token(PythonLine* line, std::string* open) {
    const size_t begin = position_;
    PythonToken::Kind kind = PythonToken::kOperator;
    if (const size_t prefix = string_prefix(); prefix != kNone) {
      position_ += prefix;
      if (!scan_string()) return false;
      kind = PythonToken::kString;
    } else if (is_name_start(peek())) {
      while (!at_end() && is_name_part(peek())) ++position_;
      kind = PythonToken::kName;
    } else if (std::isdigit(static_cast<unsigned char>(peek())) != 0 ||
               (peek() == '.' && std::isdigit(static_cast<unsigned char>(peek(1))) != 0)) {
      if (!scan_number()) return false;
      kind = PythonToken::kNumber;
    } else if (!scan_operator(open)) {
      return false;
    }
    line->tokens.push_back({kind, source_.substr(begin, position_ - begin), false});
    return true;
  }

  // Letters before a quote at the cursor: 0 for none, kNone when no string begins here.
  size_t string_prefix() const {
    for (size_t n = 0; n <= 2; ++n) {
      if (peek(n) == '"' || peek(n) == '\'') return n;
      if (std::string_view("rRbBuUfF").find(peek(n)) == kNone || peek(n) == '\0') return kNone;
    }
    return kNone;
  }

  bool scan_string() {
    const char quote = peek();
    const bool triple = peek(1) == quote && peek(2) == quote;
    position_ += triple ? 3 : 1;
    while (!at_end()) {
      if (peek() == '\\') {
        position_ += 2;
      } else if (peek() == '\n' && !triple) {
        return false;
      } else if (peek() == quote && (!triple || (peek(1) == quote && peek(2) == quote))) {
        position_ += triple ? 3 : 1;
        return true;
      } else {
        ++position_;
      }
    }
    position_ = source_.size();
    return true;  // cut off
  }

  bool scan_number() {
    const bool prefixed = peek() == '0' && std::string_view("xXoObB").find(peek(1)) != kNone && peek(1) != '\0';
    if (prefixed) position_ += 2;
    bool letters = false;
    while (!at_end()) {
      const char c = peek();
      const bool exponent = !prefixed && (c == 'e' || c == 'E');
      if (exponent && (peek(1) == '+' || peek(1) == '-')) ++position_;
      if (std::isdigit(static_cast<unsigned char>(c)) == 0 && c != '_' && c != '.' && !exponent) {
        if (!prefixed && c != 'j' && c != 'J') letters = is_name_start(c);
        if (std::isxdigit(static_cast<unsigned char>(c)) == 0 && c != 'j' && c != 'J') break;
      }
      if (letters) return false;  // "3rd"
      ++position_;
    }
    return !letters;
  }

  bool scan_operator(std::string* open) {
    static constexpr std::array<std::string_view, 46> kOperators = {
        "**=", "//=", "<<=", ">>=", "...", "**", "//", "<<", ">>", "<=", ">=", "==", "!=", "->", "+=", "-=",
        "*=",  "/=",  "%=",  "&=",  "|=",  "^=", "@=", ":=", "+",  "-",  "*",  "/",  "%",  "@",  "&",  "|",
        "^",   "~",   "<",   ">",   "(",   ")",  "[",  "]",  "{",  "}",  ",",  ":",  ".",  "="};
    for (const std::string_view op : kOperators) {
      if (!source_.substr(position_).starts_with(op)) continue;
      if (op == "(" || op == "[" || op == "{") open->push_back(op[0]);
      if (op == ")" || op == "]" || op == "}") {
        const char wanted = op == ")" ? '(' : op == "]" ? '[' : '{';
        if (open->empty() || open->back() != wanted) return false;
        open->pop_back();
      }
      position_ += op.size();
      return true;
    }
    return false;
  }

  std::string_view source_;
  size_t position_ = 0;
  std::vector<PythonLine> lines_;
};

}  // namespace

std::optional<std::vector<PythonLine>> python_lines(std::string_view source) { return Scanner(source).scan(); }

}  // namespace saif
