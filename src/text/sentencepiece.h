// The file tokenizer.model of SentencePiece.
#pragma once

#include <string>
#include <string_view>

#include "text/tokenizer_data.h"

namespace saif {

// The pieces of a BPE model, which the ranked merges of parts_of give the same ids as SentencePiece itself, but where
// two pieces share a score: there SentencePiece merges the leftmost, and parts_of, as Transformers, one piece first.
// Throws kBadFormat, or kUnsupported naming what cannot be converted. source begins error messages.
TokenizerData read_sentencepiece(std::string_view bytes, const std::string& source);

}  // namespace saif
