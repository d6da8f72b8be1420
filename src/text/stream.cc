// StreamDecoder: what it emits is, joined, what Tokenizer::decode gives for all ids at once.
#include "text/hf.h"
#include "text/utf8.h"

namespace saif {

struct StreamDecoder::State {
  std::shared_ptr<const Tokenizer> tokenizer;
  const LoadedTokenizer* loaded = nullptr;  // null: a tokenizer of another make, whose bytes() are taken as they are
  bool skip_special = true;
  DecodingRules rules;
  std::string held;          // bytes that are not yet certain
  std::vector<int32_t> ids;  // kOther: all so far
  size_t emitted = 0;        // kOther: bytes of the decoded text that are out

  std::string push_bytes(std::string_view bytes);
  std::string push_fallback(const std::string& piece);
  std::string push_other(int32_t id);
  std::string end_of_bytes();
  std::string without_first_spaces(std::string text);
};

// One U+FFFD per ill-formed maximal subpart; an unfinished character stays held.
std::string StreamDecoder::State::push_bytes(std::string_view bytes) {
  held.append(bytes);
  std::string out;
  std::string_view rest = held;
  while (!rest.empty()) {
    const Utf8Step step = utf8_step(rest);
    if (step.kind == Utf8Step::Kind::kUnfinished) break;
    out.append(step.kind == Utf8Step::Kind::kCharacter ? rest.substr(0, step.size) : kReplacement);
    rest.remove_prefix(step.size);
  }
  held = std::string(rest);
  return out;
}

// A run of byte tokens is text if it is UTF-8 from first to last, else one U+FFFD per byte: certain when the run ends.
std::string StreamDecoder::State::end_of_bytes() {
  std::string out;
  if (rules.kind == DecodingRules::Kind::kByteFallback && find_invalid_utf8(held)) {
    for (size_t i = 0; i < held.size(); ++i) out += kReplacement;
  } else if (rules.kind == DecodingRules::Kind::kByteFallback) {
    out = held;
  } else if (!held.empty()) {
    out = kReplacement;
  }
  held.clear();
  return out;
}

std::string StreamDecoder::State::without_first_spaces(std::string text) {
  size_t drop = 0;
  while (rules.strip_spaces > 0 && drop < text.size()) {
    if (text[drop] != ' ') {
      rules.strip_spaces = 0;
    } else {
      ++drop;
      --rules.strip_spaces;
    }
  }
  return drop == 0 ? text : text.substr(drop);
}

std::string StreamDecoder::State::push_fallback(const std::string& piece) {
  if (const auto byte = fallback_byte(piece)) {
    held.push_back(static_cast<char>(*byte));
    return "";
  }
  const std::string before = end_of_bytes();
  return without_first_spaces(before + with_spaces(piece));
}

std::string StreamDecoder::State::push_other(int32_t id) {
  ids.push_back(id);
  const std::string text = tokenizer->decode(ids, skip_special);
  if (text.size() <= emitted || text.ends_with(kReplacement)) return "";
  std::string fresh = text.substr(emitted);
  emitted = text.size();
  return fresh;
}

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : state_(std::make_unique<State>()) {
  state_->loaded = dynamic_cast<const LoadedTokenizer*>(tokenizer.get());
  state_->tokenizer = std::move(tokenizer);
  state_->skip_special = skip_special;
  state_->rules =
      state_->loaded != nullptr ? state_->loaded->decoding() : DecodingRules{DecodingRules::Kind::kByteLevel};
}

StreamDecoder::~StreamDecoder() = default;

std::string StreamDecoder::push(int32_t id) {
  State& state = *state_;
  if (state.skip_special && state.tokenizer->is_special(id)) return "";
  if (state.loaded == nullptr) return state.push_bytes(state.tokenizer->bytes(id));
  if (!state.loaded->knows(id)) return "";
  switch (state.rules.kind) {
    case DecodingRules::Kind::kByteLevel:
      return state.push_bytes(byte_level_bytes(state.tokenizer->piece(id)));
    case DecodingRules::Kind::kByteFallback:
      return state.push_fallback(state.tokenizer->piece(id));
    case DecodingRules::Kind::kOther:
      break;
  }
  return state.push_other(id);
}

std::string StreamDecoder::flush() {
  State& state = *state_;
  if (state.rules.kind != DecodingRules::Kind::kOther) return state.without_first_spaces(state.end_of_bytes());
  const std::string text = state.tokenizer->decode(state.ids, state.skip_special);
  std::string fresh = text.size() > state.emitted ? text.substr(state.emitted) : "";
  state.emitted = text.size();
  return fresh;
}

}  // namespace saif
