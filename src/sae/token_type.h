// What a token is to a reader: where in a word it stands, or what else it is.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "saif/text.h"

namespace saif {

enum class TokenType {
  kFirst,        // of a document
  kSpecial,      // the tokenizer's own tokens
  kChatRole,     // "user" behind a special token
  kNewline,      // white space with a line break
  kSpace,        // other white space
  kDigits,       // " 1984"
  kPunctuation,  // no letter and no digit
  kWordStart,    // begins with a letter, behind no letter: " gla"
  kWordPart,     // the rest of a word: "ciers"
};
inline constexpr std::array<std::string_view, 9> kTokenTypes = {
    "first", "special", "chat_role", "newline", "space", "digits", "punctuation", "word_start", "word_part"};

// One per token. Bytes outside ASCII count as letters, but for general and CJK punctuation.
std::vector<TokenType> token_types(const Tokenizer& tokenizer, std::span<const int32_t> document);

}  // namespace saif
