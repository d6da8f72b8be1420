#include "sae/token_type.h"

#include <algorithm>
#include <string>

namespace saif {
namespace {

enum class Sort { kSpace, kDigit, kLetter, kMark };

Sort sort_of(std::string_view text, size_t i) {
  const auto c = static_cast<unsigned char>(text[i]);
  if (c == ' ' || (c >= '\t' && c <= '\r')) return Sort::kSpace;
  if (c >= '0' && c <= '9') return Sort::kDigit;
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return Sort::kLetter;
  if (c < 0x80) return Sort::kMark;
  // U+2000 to U+206F (dashes, quotes, ellipsis) and U+3000 to U+303F; no-break space, guillemets and the like.
  const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0U;
  const bool mark = (c == 0xE2 && (next == 0x80 || next == 0x81)) || (c == 0xE3 && next == 0x80) ||
                    (c == 0xC2 && next >= 0xA0 && next != 0xAA && next != 0xB5 && next != 0xBA);
  return mark ? Sort::kMark : Sort::kLetter;
}

// Whether a word goes on behind this text: it ends in a letter or digit, or in an apostrophe behind one.
bool ends_in_word(std::string_view text) {
  if (text.empty()) return false;
  const auto last = static_cast<unsigned char>(text.back());
  if (last == '\'' && text.size() > 1) return ends_in_word(text.substr(0, text.size() - 1));
  if (last < 0x80) {
    const Sort sort = sort_of(text, text.size() - 1);
    return sort == Sort::kLetter || sort == Sort::kDigit;
  }
  size_t begin = text.size() - 1;  // of the last character
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return sort_of(text, begin) == Sort::kLetter;
}

bool is_role(std::string_view text) {
  constexpr std::array<std::string_view, 6> kRoles = {"system", "user", "assistant", "model", "tool", "developer"};
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  return std::find(kRoles.begin(), kRoles.end(), text) != kRoles.end();
}

TokenType type_of(std::string_view text, std::string_view before) {
  size_t begin = 0;
  while (begin < text.size() && sort_of(text, begin) == Sort::kSpace) ++begin;
  if (begin == text.size()) {
    return text.find('\n') == std::string_view::npos ? TokenType::kSpace : TokenType::kNewline;
  }
  bool letters = false, digits = false;
  for (size_t i = begin; i < text.size(); ++i) {
    const bool inside = (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80 && i > begin;  // of a character
    if (inside) continue;
    const Sort sort = sort_of(text, i);
    letters = letters || sort == Sort::kLetter;
    digits = digits || sort == Sort::kDigit;
  }
  if (!letters) return digits ? TokenType::kDigits : TokenType::kPunctuation;
  return begin == 0 && ends_in_word(before) ? TokenType::kWordPart : TokenType::kWordStart;
}

}  // namespace

std::vector<TokenType> token_types(const Tokenizer& tokenizer, std::span<const int32_t> document) {
  std::vector<TokenType> out;
  out.reserve(document.size());
  std::string before;
  for (size_t i = 0; i < document.size(); ++i) {
    const bool special = tokenizer.is_special(document[i]);
    const std::string text = tokenizer.bytes(document[i]);
    if (i == 0) {
      out.push_back(TokenType::kFirst);
    } else if (special) {
      out.push_back(TokenType::kSpecial);
    } else if (tokenizer.is_special(document[i - 1]) && is_role(text)) {
      out.push_back(TokenType::kChatRole);
    } else {
      out.push_back(type_of(text, before));
    }
    if (special) {
      before.clear();
    } else {
      before = text == "'" ? before + text : text;  // what stands before an apostrophe decides about what follows
    }
  }
  return out;
}

}  // namespace saif
