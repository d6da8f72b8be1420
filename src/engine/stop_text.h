// The text of a growing answer: decoded as tokens come, cut at the first stop string, given out as soon as it cannot
// become part of one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "saif/text.h"

namespace saif {

class StopText {
 public:
  // Without a tokenizer the text stays empty. `stops` must outlive this; none of them empty.
  StopText(std::shared_ptr<const Tokenizer> tokenizer, std::span<const std::string> stops);
  // True when a stop string is now in the text, which then ends before it.
  bool push(int32_t id);
  // No more tokens: what was held back belongs to the text. True as for push().
  bool finish();
  const std::string& text() const { return text_; }
  std::string take_certain();  // what became certain since the last call

 private:
  bool append(const std::string& piece);
  size_t held_back() const;  // bytes at the end that may begin a stop string

  std::optional<StreamDecoder> decoder_;
  std::span<const std::string> stops_;
  size_t longest_stop_ = 0;
  std::string text_;
  size_t given_ = 0;
  bool stopped_ = false, finished_ = false;
};

}  // namespace saif
