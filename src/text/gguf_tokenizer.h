// The tokenizer of a GGUF file as the text of a tokenizer.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "saif/error.h"
#include "text/hf.h"

namespace saif {

class GgufView;

// GGUF's token types, as llama.cpp numbers them.
enum class GgufTokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

// The keys tokenizer.ggml.*. All views live as long as what they were read from.
struct GgufTokenizerData {
  std::string model;  // "gpt2": byte-level BPE with merges; "llama": SentencePiece BPE with scores
  std::string pre;    // of gpt2: how text is split before merging
  std::vector<std::string_view> tokens;
  std::vector<GgufTokenType> types;      // of each token; empty: all normal
  std::vector<float> scores;             // of each token (llama)
  std::vector<std::string_view> merges;  // "left right" (gpt2)
  std::optional<int32_t> bos_id, eos_id, eot_id, eom_id, unk_id, pad_id;
  std::optional<bool> add_bos, add_eos, add_space_prefix;  // absent: the model's default
  std::string chat_template;
};

// Throws kBadFormat or kNotFound naming the key, kUnsupported naming model or pre.
GgufTokenizerData read_gguf_tokenizer(const GgufView& file);

// source begins error messages.
TokenizerParts parts_of_gguf(const GgufTokenizerData& data, const std::string& source);

}  // namespace saif
