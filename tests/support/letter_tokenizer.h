// A tokenizer whose ids stand for given pieces of text, for tests that need text but no real vocabulary.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "saif/text.h"

namespace saif::test {

class LetterTokenizer : public Tokenizer {
 public:
  explicit LetterTokenizer(std::vector<std::string> pieces, std::vector<int32_t> stop_ids = {})
      : pieces_(std::move(pieces)), stop_ids_(std::move(stop_ids)) {}
  // Every text is its letters: "a" is 0.
  std::vector<int32_t> encode(std::string_view text, EncodeOptions /*options*/) const override {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(c - 'a');
    return ids;
  }
  std::string decode(std::span<const int32_t> ids, bool /*skip_special*/) const override {
    std::string text;
    for (const int32_t id : ids) text += bytes(id);
    return text;
  }
  std::string piece(int32_t id) const override { return bytes(id); }
  std::string bytes(int32_t id) const override { return pieces_.at(static_cast<size_t>(id)); }
  std::optional<int32_t> id_of(std::string_view /*piece*/) const override { return std::nullopt; }
  bool is_special(int32_t /*id*/) const override { return false; }
  int64_t vocab_size() const override { return static_cast<int64_t>(pieces_.size()); }
  std::optional<int32_t> bos_id() const override { return std::nullopt; }
  const std::vector<int32_t>& stop_ids() const override { return stop_ids_; }
  bool has_chat_template() const override { return false; }
  const std::string& chat_template() const override { return no_template_; }

 private:
  std::vector<std::string> pieces_;
  std::vector<int32_t> stop_ids_;
  std::string no_template_;
};

}  // namespace saif::test
