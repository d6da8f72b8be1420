// Words among a vocabulary's tokens.
#pragma once

#include <cstdint>
#include <string>

#include "saif/text.h"

namespace saif {

// The word of a token that is a space and four lower-case ASCII letters or more; "" for every other token.
std::string vocabulary_word(const Tokenizer& tokenizer, int32_t token);

}  // namespace saif
