// An answer that is one JSON object. A generation limit may stop it anywhere: what is open at the end counts as closed
// there. The answer is that object, alone or in a fence of its own; nothing else may stand before or after.
#include <cctype>
#include <string>

#include "saif/options.h"
#include "study/text_units.h"
#include "study/verifiers/make.h"

namespace saif {
namespace {

struct NoArgs {
  template <typename V>
  void describe(V&) {}
};

// RFC 8259, where reaching the end of the text is never an error. Each read_ returns false on what no continuation
// could make valid. `filled_` counts pairs whose value has begun with content: {"a": "b is a pair, {"a": " is none.
class OpenEndedParser {
 public:
  explicit OpenEndedParser(std::string_view text) : text_(text) {}
  bool accepts() {
    skip_space();
    if (at_end() || peek() != '{' || !read_object(0)) return false;
    skip_space();
    return at_end() && filled_ > 0;
  }

 private:
  static constexpr int kMaxDepth = 128;
  bool at_end() const { return position_ >= text_.size(); }
  char peek() const { return text_[position_]; }
  bool take(char c) {
    if (at_end() || peek() != c) return false;
    ++position_;
    return true;
  }
  void skip_space() {
    while (!at_end() && std::string_view(" \t\r\n").find(peek()) != std::string_view::npos) ++position_;
  }

  bool read_string(bool* empty) {
    ++position_;
    *empty = true;
    while (!at_end()) {
      const char c = text_[position_++];
      if (c == '"') return true;
      if (static_cast<unsigned char>(c) < 0x20) return false;
      if (c == '\\' && !read_escape()) return false;
      *empty = false;
    }
    return true;
  }

  bool read_escape() {
    if (at_end()) return true;
    const char c = text_[position_++];
    if (c != 'u') return std::string_view("\"\\/bfnrt").find(c) != std::string_view::npos;
    for (int i = 0; i < 4 && !at_end(); ++i) {
      if (std::isxdigit(static_cast<unsigned char>(text_[position_++])) == 0) return false;
    }
    return true;
  }

  bool read_digits() {
    if (at_end()) return true;
    const size_t begin = position_;
    while (!at_end() && '0' <= peek() && peek() <= '9') ++position_;
    return position_ > begin;
  }

  bool read_number() {
    take('-');
    if (at_end()) return true;
    if (!take('0') && !read_digits()) return false;
    if (take('.') && !read_digits()) return false;
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      return read_digits();
    }
    return true;
  }

  bool read_word(std::string_view word) {
    const std::string_view rest = text_.substr(position_, word.size());
    position_ += rest.size();
    return word.starts_with(rest) && (rest.size() == word.size() || at_end());
  }

  // `filled`: whether the value has content; complete values always have.
  bool read_value(int depth, bool* filled) {
    *filled = true;
    switch (peek()) {
      case '"': {
        bool empty = false;
        if (!read_string(&empty)) return false;
        *filled = !empty || !at_end();
        return true;
      }
      case '{': {
        const int before = filled_;
        if (!read_object(depth + 1)) return false;
        *filled = !at_end() || filled_ > before || text_.back() == '}';
        return true;
      }
      case '[':
        return read_array(depth + 1, filled);
      case 't':
        return read_word("true");
      case 'f':
        return read_word("false");
      case 'n':
        return read_word("null");
      default:
        return (peek() == '-' || ('0' <= peek() && peek() <= '9')) && read_number();
    }
  }

  bool read_array(int depth, bool* filled) {
    if (depth > kMaxDepth) return false;
    ++position_;
    *filled = false;
    skip_space();
    if (at_end()) return true;
    if (take(']')) return *filled = true;
    while (true) {
      bool item = false;
      if (!read_value(depth, &item)) return false;
      *filled = *filled || item;
      skip_space();
      if (at_end() || take(']')) return true;
      if (!take(',')) return false;
      skip_space();
      if (at_end()) return true;
    }
  }

  bool read_object(int depth) {
    if (depth > kMaxDepth) return false;
    ++position_;
    skip_space();
    if (at_end() || take('}')) return true;
    while (true) {
      bool no_key = false, filled = false;
      if (peek() != '"' || !read_string(&no_key)) return false;
      skip_space();
      if (at_end()) return true;
      if (!take(':')) return false;
      skip_space();
      if (at_end()) return true;
      if (!read_value(depth, &filled)) return false;
      if (filled && !no_key) ++filled_;
      skip_space();
      if (at_end() || take('}')) return true;
      if (!take(',')) return false;
      skip_space();
      if (at_end()) return true;
    }
  }

  std::string_view text_;
  size_t position_ = 0;
  int filled_ = 0;
};

// The text inside a fence that begins the answer; the answer itself where there is none.
std::string_view unfenced(std::string_view text) {
  text = trim(text);
  if (!text.starts_with("```")) return text;
  text.remove_prefix(3);
  if (lower_ascii(text.substr(0, 4)) == "json") text.remove_prefix(4);
  text = trim(text);
  // One to three backticks at the end: the closing fence may itself be cut off.
  for (int i = 0; i < 3 && text.ends_with('`'); ++i) text.remove_suffix(1);
  return trim(text);
}

class JsonVerifier : public Verifier {
 public:
  bool passes(std::string_view answer) const override { return OpenEndedParser(unfenced(answer)).accepts(); }
};

}  // namespace

VerifierPointer make_json_verifier(const Json& args) {
  options_from_json<NoArgs>(args, "arguments of verifier 'json'");
  return std::make_unique<JsonVerifier>();
}

}  // namespace saif
