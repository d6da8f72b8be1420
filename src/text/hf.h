// Tokenizers made by the Rust library, and what the text room's own files know of them beyond saif/text.h.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "saif/json.h"
#include "saif/text.h"

namespace saif {

// How ids become text.
struct DecodingRules {
  enum class Kind {
    kByteLevel,     // every character of a token stands for a byte (GPT-2's table)
    kByteFallback,  // U+2581 is a space, <0xNN> a byte, the rest is text (SentencePiece)
    kOther,         // only Tokenizer::decode knows
  };
  Kind kind = Kind::kOther;
  size_t strip_spaces = 0;  // kByteFallback: so many spaces, where there are, fall off the start of a text
};

// What a model's files say about its tokenizer.
struct TokenizerParts {
  std::string source;  // a path: begins error messages
  std::string tokenizer_json;
  std::string chat_template;  // empty: none
  std::optional<std::string> bos_token, eos_token, unk_token, pad_token;
  std::vector<int32_t> stop_ids;  // beside eos_token
};

class LoadedTokenizer : public Tokenizer {
 public:
  // Ids and the bytes of the text that each stands for; special tokens spelled in the text are parsed.
  struct Piece {
    int32_t id = 0;
    size_t begin = 0, end = 0;
  };
  virtual std::vector<Piece> encode_with_ranges(std::string_view text) const = 0;

  // One text in which special tokens stand only where the caller says: between the parts. parts.size() is
  // special_ids.size() + 1; special tokens spelled in the parts are plain text.
  virtual std::vector<int32_t> encode_around(const std::vector<std::string>& parts,
                                             const std::vector<int32_t>& special_ids) const = 0;

  virtual DecodingRules decoding() const = 0;
  virtual bool knows(int32_t id) const = 0;
  // Texts of all special tokens.
  virtual const std::vector<std::string>& special_texts() const = 0;
  // {"bos_token": "<s>", ...}: those that are set.
  virtual const Json& named_tokens() const = 0;
  virtual const std::string& source() const = 0;
};

std::shared_ptr<const LoadedTokenizer> make_tokenizer(TokenizerParts parts);

// What a token of a byte-level vocabulary stands for; the token itself when it is not spelled in GPT-2's table.
std::string byte_level_bytes(std::string_view piece);
// The byte of "<0x0A>".
std::optional<unsigned char> fallback_byte(std::string_view piece);
// U+2581 becomes a space.
std::string with_spaces(std::string_view piece);

// Renders a jinja2 template; throws kInvalidArgument with the template's own message.
std::string render_template(const std::string& chat_template, const Json& context);

}  // namespace saif
