// Text to token ids and back, chat templates, language identification.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "saif/error.h"
#include "saif/json.h"

namespace saif {

// Turns text into ids exactly as Hugging Face's `tokenizers` does for the same model. Immutable; thread-safe.
class Tokenizer {
 public:
  // From a model folder (tokenizer.json, tokenizer_config.json) or a .gguf file (its tokenizer.ggml.* metadata).
  // Throws Error naming what is missing.
  static std::shared_ptr<const Tokenizer> load(const std::string& path);
  virtual ~Tokenizer() = default;

  // add_special: what the model's post-processor adds (BOS). parse_special: text that spells a special token becomes
  // that token; off for anything a user typed. Throws kInvalidArgument on invalid UTF-8, naming the byte offset.
  struct EncodeOptions {
    bool add_special = true;
    bool parse_special = false;
  };
  virtual std::vector<int32_t> encode(std::string_view text, EncodeOptions options) const = 0;
  virtual std::string decode(std::span<const int32_t> ids, bool skip_special = true) const = 0;
  // The token as the vocabulary spells it ("Ġthe"); "" for an id without a token.
  virtual std::string piece(int32_t id) const = 0;
  // The bytes the token stands for (" the"); special tokens give their own text.
  virtual std::string bytes(int32_t id) const = 0;
  virtual std::optional<int32_t> id_of(std::string_view piece) const = 0;
  virtual bool is_special(int32_t id) const = 0;
  virtual int64_t vocab_size() const = 0;
  virtual std::optional<int32_t> bos_id() const = 0;
  // Ids that end a turn or a text, from generation_config.json, tokenizer_config.json or the GGUF.
  virtual const std::vector<int32_t>& stop_ids() const = 0;
  virtual bool has_chat_template() const = 0;
  virtual const std::string& chat_template() const = 0;
};

// Decodes a growing sequence piece by piece and never emits half a character: bytes of an unfinished UTF-8 sequence
// are held back until they are complete (or flush()).
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = true);
  ~StreamDecoder();
  std::string push(int32_t id);  // the text that became certain
  std::string flush();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct Message {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

// Renders the model's chat template as Transformers' apply_chat_template does (jinja2 with trim_blocks and
// lstrip_blocks, raise_exception, strftime_now, tojson). Throws kInvalidArgument with the template's own message.
std::string render_chat(const Tokenizer& tokenizer, std::span<const Message> messages, bool add_generation_prompt);

// The ids of a rendered chat: the template's special tokens are parsed as such, those spelled inside a message's
// content are plain text.
std::vector<int32_t> encode_chat(const Tokenizer& tokenizer, std::span<const Message> messages,
                                 bool add_generation_prompt);

// The most probable language of a text as an ISO 639-1 code ("fr"), or nullopt when it cannot be told.
struct LanguageGuess {
  std::string code;
  double confidence = 0;  // [0, 1]; >= 0.5: most of the text is in it, and it is no doubtful English (docs/language.md)
};
std::optional<LanguageGuess> identify_language(std::string_view text);
std::vector<std::string> identifiable_languages();  // the codes that identify_language may return, sorted

}  // namespace saif
