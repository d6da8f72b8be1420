// What a file that is no tokenizer.json says about a tokenizer, and the same as the text of a tokenizer.json.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "saif/error.h"
#include "text/hf.h"

namespace saif {

class GgufView;

// Kinds of tokens, numbered as SentencePiece and GGUF do.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

// A token that is looked for in the text before the model sees it.
struct AddedToken {
  int32_t id = 0;
  std::string text;
  bool special = true;
  bool single_word = false, strips_left = false, strips_right = false, normalized = false;
};

// All views live as long as what they were read from, or as owned.
struct TokenizerData {
  std::string key_prefix = "tokenizer.ggml.";  // of the keys that messages name
  std::string model;  // "gpt2": byte-level BPE with merges; "llama": SentencePiece BPE with scores
  std::string pre;    // of gpt2: how text is split before merging
  std::vector<std::string_view> tokens;
  std::vector<TokenType> types;          // of each token; empty: all normal
  std::vector<float> scores;             // of each token (llama)
  std::vector<std::string_view> merges;  // "left right" (gpt2)
  std::vector<AddedToken> added;         // beside those that types says; each stands for what had its id or text before
  std::optional<int32_t> bos_id, eos_id, eot_id, eom_id, unk_id, pad_id;
  std::optional<bool> add_bos, add_eos, add_space_prefix;  // absent: the model's default
  bool space_prefix_at_start_only = false;                 // false: also behind each special token
  std::string chat_template;
  std::shared_ptr<const std::deque<std::string>> owned;
};

// The keys tokenizer.ggml.*. Throws kBadFormat or kNotFound naming the key.
TokenizerData read_gguf_tokenizer(const GgufView& file);

// Throws kBadFormat or kNotFound naming the key, kUnsupported naming model or pre. source begins error messages.
TokenizerParts parts_of(const TokenizerData& data, const std::string& source);

}  // namespace saif
