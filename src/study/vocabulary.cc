#include "study/vocabulary.h"

#include <algorithm>

namespace saif {
namespace {

constexpr size_t kMinLetters = 4;

}  // namespace

std::string vocabulary_word(const Tokenizer& tokenizer, int32_t token) {
  if (tokenizer.is_special(token)) return "";
  const std::string text = tokenizer.bytes(token);
  if (text.size() <= kMinLetters || text[0] != ' ') return "";
  if (!std::all_of(text.begin() + 1, text.end(), [](char c) { return c >= 'a' && c <= 'z'; })) return "";
  return text.substr(1);
}

}  // namespace saif
