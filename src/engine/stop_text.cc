#include "engine/stop_text.h"

#include <algorithm>

namespace saif {

StopText::StopText(std::shared_ptr<const Tokenizer> tokenizer, std::span<const std::string> stops) : stops_(stops) {
  if (tokenizer) decoder_.emplace(std::move(tokenizer));
  for (const std::string& stop : stops) longest_stop_ = std::max(longest_stop_, stop.size());
}

bool StopText::append(const std::string& piece) {
  const size_t before = text_.size();
  text_ += piece;
  const size_t from = before >= longest_stop_ ? before - longest_stop_ + 1 : 0;
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, text_.find(stop, from));
  if (first == std::string::npos) return false;
  text_.resize(first);
  stopped_ = true;
  return true;
}

bool StopText::push(int32_t id) { return decoder_ && append(decoder_->push(id)); }

bool StopText::finish() {
  if (stopped_ || finished_) return stopped_;
  finished_ = true;
  return decoder_ && append(decoder_->flush());
}

size_t StopText::held_back() const {
  if (stopped_ || finished_) return 0;
  size_t held = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, text_.size()); n > held; --n)
      if (text_.ends_with(std::string_view(stop).substr(0, n))) held = n;
  }
  return held;
}

std::string StopText::take_certain() {
  const size_t end = std::max(given_, text_.size() - held_back());
  std::string certain = text_.substr(given_, end - given_);
  given_ = end;
  return certain;
}

}  // namespace saif
