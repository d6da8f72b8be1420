#include "text/hf.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <unordered_map>

#include "base/check.h"
#include "text/hf_c.h"
#include "text/utf8.h"

namespace saif {
namespace {

constexpr uint32_t kMaxId = (1u << 24) - 1;  // beyond every vocabulary; bounds what is sized by ids
constexpr std::string_view kMarker = SAIF_HF_MARKER;

struct OwnedText : saif_hf_text {
  OwnedText() : saif_hf_text{nullptr, 0} {}
  ~OwnedText() { saif_hf_text_free(this); }
  OwnedText(const OwnedText&) = delete;
  OwnedText& operator=(const OwnedText&) = delete;
  std::string_view view() const { return data == nullptr ? std::string_view{} : std::string_view(data, size); }
};

struct OwnedIds : saif_hf_ids {
  OwnedIds() : saif_hf_ids{nullptr, nullptr, nullptr, 0} {}
  ~OwnedIds() { saif_hf_ids_free(this); }
  OwnedIds(const OwnedIds&) = delete;
  OwnedIds& operator=(const OwnedIds&) = delete;
};

void require(int code, const OwnedText& error, Errc on_bad_input, const std::string& where) {
  if (code == 0) return;
  throw Error(code == 1 ? on_bad_input : Errc::kInternal, where + ": " + std::string(error.view()));
}

// The byte that each character of GPT-2's alphabet stands for: printable ones themselves, the others from U+0100 on.
const std::unordered_map<char32_t, char>& byte_alphabet() {
  static const std::unordered_map<char32_t, char> table = [] {
    std::unordered_map<char32_t, char> made;
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
      made[printable ? static_cast<char32_t>(byte) : next++] = static_cast<char>(byte);
    }
    return made;
  }();
  return table;
}

bool is_replace_of_space_sign(const Json& decoder) {
  const Json* pattern = decoder.find("pattern");
  const Json* from = pattern != nullptr && pattern->is_object() ? pattern->find("String") : nullptr;
  const Json* to = decoder.find("content");
  return from != nullptr && from->is_string() && from->as_string() == "\xE2\x96\x81" && to != nullptr &&
         to->is_string() && to->as_string() == " ";
}

DecodingRules rules_of_sequence(const Json::Array& decoders) {
  const auto type = [&](size_t i) { return i < decoders.size() ? decoders[i].at("type").as_string() : ""; };
  if (decoders.size() == 1 && type(0) == "ByteLevel") return {DecodingRules::Kind::kByteLevel};
  const bool fits = type(0) == "Replace" && type(1) == "ByteFallback" && type(2) == "Fuse" && decoders.size() <= 4 &&
                    is_replace_of_space_sign(decoders[0]);
  if (!fits) return {};
  if (decoders.size() == 3) return {DecodingRules::Kind::kByteFallback, 0};
  const Json& strip = decoders[3];
  if (type(3) != "Strip" || strip.at("content").as_string() != " " || strip.at("stop").as_int() != 0) return {};
  return {DecodingRules::Kind::kByteFallback, static_cast<size_t>(std::max<int64_t>(0, strip.at("start").as_int()))};
}

DecodingRules rules_of(std::string_view decoder_json) {
  const Json decoder = parse_json(decoder_json).value();
  if (!decoder.is_object()) return {};
  const std::string& type = decoder.at("type").as_string();
  if (type == "ByteLevel") return {DecodingRules::Kind::kByteLevel};
  if (type == "Sequence") return rules_of_sequence(decoder.at("decoders").items());
  return {};
}

class HfTokenizer final : public LoadedTokenizer {
 public:
  explicit HfTokenizer(TokenizerParts parts) : parts_(std::move(parts)), named_(Json::object()) {
    OwnedText error;
    require(saif_hf_new(parts_.tokenizer_json.data(), parts_.tokenizer_json.size(), &handle_, &error), error,
            Errc::kBadFormat, parts_.source);
    parts_.tokenizer_json = std::string();
    try {
      read_added_tokens();
      read_named_tokens();
    } catch (...) {
      saif_hf_free(handle_);
      throw;
    }
  }
  ~HfTokenizer() override { saif_hf_free(handle_); }
  HfTokenizer(const HfTokenizer&) = delete;
  HfTokenizer& operator=(const HfTokenizer&) = delete;

  std::vector<int32_t> encode(std::string_view text, EncodeOptions options) const override {
    if (!options.parse_special) refuse_marker(text);
    OwnedIds found;
    uint32_t flags = 0;
    if (options.add_special) flags |= SAIF_HF_ADD_SPECIAL;
    if (options.parse_special) flags |= SAIF_HF_PARSE_SPECIAL;
    call_encode(text, flags, &found);
    return {found.ids, found.ids + found.size};
  }

  std::vector<Piece> encode_with_ranges(std::string_view text) const override {
    OwnedIds found;
    call_encode(text, SAIF_HF_PARSE_SPECIAL | SAIF_HF_OFFSETS, &found);
    std::vector<Piece> pieces(found.size);
    for (size_t i = 0; i < found.size; ++i) {
      pieces[i] = {static_cast<int32_t>(found.ids[i]), found.begin[i], found.end[i]};
    }
    return pieces;
  }

  std::vector<int32_t> encode_around(const std::vector<std::string>& parts,
                                     const std::vector<int32_t>& special_ids) const override {
    SAIF_CHECK(parts.size() == special_ids.size() + 1, "encode_around: one special token between two parts");
    std::string text;
    for (size_t i = 0; i < parts.size(); ++i) {
      refuse_marker(parts[i]);
      if (i > 0) text += kMarker;
      text += parts[i];
    }
    OwnedIds found;
    call_encode(text, SAIF_HF_OFFSETS, &found);
    std::vector<int32_t> ids(found.size);
    size_t markers = 0;
    for (size_t i = 0; i < found.size; ++i) {
      const bool marker = found.end[i] - found.begin[i] == kMarker.size() &&
                          std::string_view(text).substr(found.begin[i], kMarker.size()) == kMarker;
      SAIF_CHECK(!marker || markers < special_ids.size(), "encode_around: more markers came back than went in");
      ids[i] = marker ? special_ids[markers++] : static_cast<int32_t>(found.ids[i]);
    }
    SAIF_CHECK(markers == special_ids.size(), "encode_around: fewer markers came back than went in");
    return ids;
  }

  std::string decode(std::span<const int32_t> ids, bool skip_special) const override {
    OwnedText text, error;
    const std::vector<uint32_t> unsigned_ids(ids.begin(), ids.end());
    require(saif_hf_decode(handle_, unsigned_ids.data(), unsigned_ids.size(), skip_special ? 1 : 0, &text, &error),
            error, Errc::kInvalidArgument, parts_.source);
    return std::string(text.view());
  }

  std::string piece(int32_t id) const override { return find_piece(id).value_or(""); }

  std::string bytes(int32_t id) const override {
    if (const auto added = added_.find(id); added != added_.end()) return added->second.text;
    const std::string text = piece(id);
    if (rules_.kind == DecodingRules::Kind::kByteLevel) return byte_level_bytes(text);
    if (const auto byte = fallback_byte(text)) return {static_cast<char>(*byte)};
    return with_spaces(text);
  }

  std::optional<int32_t> id_of(std::string_view piece) const override {
    const int64_t id = saif_hf_id(handle_, piece.data(), piece.size());
    return id < 0 ? std::nullopt : std::optional(static_cast<int32_t>(id));
  }
  bool is_special(int32_t id) const override {
    const auto added = added_.find(id);
    return added != added_.end() && added->second.special;
  }
  bool knows(int32_t id) const override { return find_piece(id).has_value(); }
  int64_t vocab_size() const override { return vocab_size_; }
  std::optional<int32_t> bos_id() const override { return bos_id_; }
  const std::vector<int32_t>& stop_ids() const override { return parts_.stop_ids; }
  bool has_chat_template() const override { return !parts_.chat_template.empty(); }
  const std::string& chat_template() const override { return parts_.chat_template; }
  DecodingRules decoding() const override { return rules_; }
  const std::vector<std::string>& special_texts() const override { return special_texts_; }
  const Json& named_tokens() const override { return named_; }
  const std::string& source() const override { return parts_.source; }

 private:
  struct Added {
    std::string text;
    bool special = false;
  };

  std::optional<std::string> find_piece(int32_t id) const {
    OwnedText text;
    if (id < 0 || saif_hf_piece(handle_, static_cast<uint32_t>(id), &text) == 0) return std::nullopt;
    return std::string(text.view());
  }

  void call_encode(std::string_view text, uint32_t flags, OwnedIds* found) const {
    if (const auto at = find_invalid_utf8(text)) {
      char byte[8];
      std::snprintf(byte, sizeof(byte), "0x%02X", static_cast<unsigned>(static_cast<unsigned char>(text[*at])));
      throw Error(Errc::kInvalidArgument, "text to encode: byte " + std::to_string(*at) + " (" + byte +
                                              ") is not UTF-8; convert the text to UTF-8");
    }
    OwnedText error;
    require(saif_hf_encode(handle_, text.data(), text.size(), flags, found, &error), error, Errc::kInvalidArgument,
            parts_.source);
  }

  static void refuse_marker(std::string_view text) {
    const size_t at = text.find(kMarker);
    if (at == std::string_view::npos) return;
    throw Error(Errc::kInvalidArgument, "text to encode: byte " + std::to_string(at) +
                                            " begins a sequence of noncharacters that saif uses itself; remove it");
  }

  void read_added_tokens() {
    const uint32_t end = saif_hf_end(handle_);
    if (end > kMaxId + 1) {
      throw Error(Errc::kBadFormat, parts_.source + ": token id " + std::to_string(end - 1) + " is above " +
                                        std::to_string(kMaxId) + ", the largest that saif supports");
    }
    vocab_size_ = end;
    OwnedText blob, decoder, error;
    require(saif_hf_added_tokens(handle_, &blob, &error), error, Errc::kBadFormat, parts_.source);
    require(saif_hf_decoder(handle_, &decoder, &error), error, Errc::kBadFormat, parts_.source);
    rules_ = rules_of(decoder.view());
    std::string_view rest = blob.view();
    while (!rest.empty()) {
      std::array<uint32_t, 3> head{};  // id, special, size
      std::memcpy(head.data(), rest.data(), sizeof(head));
      added_[static_cast<int32_t>(head[0])] = {std::string(rest.substr(sizeof(head), head[2])), head[1] != 0};
      rest.remove_prefix(sizeof(head) + head[2]);
    }
    for (const auto& [id, token] : added_) {
      if (token.special) special_texts_.push_back(token.text);
    }
  }

  void read_named_tokens() {
    const auto put = [this](const char* name, const std::optional<std::string>& text) {
      if (text) named_[name] = *text;
      return text ? id_of(*text) : std::nullopt;
    };
    bos_id_ = put("bos_token", parts_.bos_token);
    const std::optional<int32_t> eos = put("eos_token", parts_.eos_token);
    put("unk_token", parts_.unk_token);
    put("pad_token", parts_.pad_token);
    std::vector<int32_t> stops;
    if (eos) stops.push_back(*eos);
    for (const int32_t id : parts_.stop_ids) {
      if (std::find(stops.begin(), stops.end(), id) == stops.end()) stops.push_back(id);
    }
    parts_.stop_ids = std::move(stops);
  }

  TokenizerParts parts_;  // without tokenizer_json
  saif_hf_tokenizer* handle_ = nullptr;
  DecodingRules rules_;
  std::map<int32_t, Added> added_;  // by id
  int64_t vocab_size_ = 0;          // one above the largest id
  std::vector<std::string> special_texts_;
  std::optional<int32_t> bos_id_;
  Json named_;
};

}  // namespace

std::string byte_level_bytes(std::string_view piece) {
  std::string out;
  const auto& alphabet = byte_alphabet();
  for (std::string_view rest = piece; !rest.empty();) {
    const Utf8Step step = utf8_step(rest);
    const auto found = alphabet.find(step.code);
    if (step.kind != Utf8Step::Kind::kCharacter || found == alphabet.end()) return std::string(piece);
    out += found->second;
    rest.remove_prefix(step.size);
  }
  return out;
}

std::optional<unsigned char> fallback_byte(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : piece.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + digit;
  }
  return static_cast<unsigned char>(value);
}

std::string with_spaces(std::string_view piece) {
  constexpr std::string_view kSpaceSign = "\xE2\x96\x81";
  std::string out;
  size_t from = 0;
  for (size_t at = piece.find(kSpaceSign); at != std::string_view::npos; at = piece.find(kSpaceSign, from)) {
    out.append(piece.substr(from, at - from)).push_back(' ');
    from = at + kSpaceSign.size();
  }
  return out.append(piece.substr(from));
}

std::shared_ptr<const LoadedTokenizer> make_tokenizer(TokenizerParts parts) {
  return std::make_shared<HfTokenizer>(std::move(parts));
}

std::string render_template(const std::string& chat_template, const Json& context) {
  const std::string variables = context.dump();
  OwnedText text, error;
  require(saif_hf_render(chat_template.data(), chat_template.size(), variables.data(), variables.size(), &text, &error),
          error, Errc::kInvalidArgument, "chat template");
  return std::string(text.view());
}

}  // namespace saif
