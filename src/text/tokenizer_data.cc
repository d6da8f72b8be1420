#include "text/tokenizer_data.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include "text/utf8.h"

namespace saif {
namespace {

constexpr const char* kSpaceSign = "\xE2\x96\x81";  // U+2581

// How a kind of byte-level BPE prepares text. The expressions are those of the models' own tokenizer.json.
struct PreTokenizer {
  enum class Kind { kGpt2, kDigitsThenGpt2, kSplit };
  std::string_view name;
  Kind kind = Kind::kGpt2;
  const char* expression = "";  // kSplit
  bool nfc = false;
  bool ignore_merges = false;  // a word that is a token is taken whole
  bool add_bos = false;        // where the file does not say
};

constexpr const char* kLlama3Split =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
    "\\s+(?!\\S)|\\s+";
constexpr const char* kQwen2Split =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
    "\\s+(?!\\S)|\\s+";

using Kind = PreTokenizer::Kind;
constexpr std::array kPreTokenizers = {
    PreTokenizer{"default", Kind::kGpt2},
    PreTokenizer{"gpt-2", Kind::kGpt2},
    PreTokenizer{"gpt2", Kind::kGpt2},
    PreTokenizer{"smollm", Kind::kDigitsThenGpt2},
    PreTokenizer{"llama-bpe", Kind::kSplit, kLlama3Split, false, true, true},
    PreTokenizer{"llama3", Kind::kSplit, kLlama3Split, false, true, true},
    PreTokenizer{"llama-v3", Kind::kSplit, kLlama3Split, false, true, true},
    PreTokenizer{"qwen2", Kind::kSplit, kQwen2Split, true},
};

const PreTokenizer& find_pre_tokenizer(const std::string& name, const TokenizerData& data, const std::string& source) {
  std::string known;
  for (const PreTokenizer& each : kPreTokenizers) {
    if (each.name == name) return each;
    known.append(known.empty() ? "" : ", ").append(each.name);
  }
  throw Error(Errc::kUnsupported, source + ": " + data.key_prefix + "pre is \"" + name + "\", expected one of " +
                                      known + "; use the model's Hugging Face folder with its tokenizer.json");
}

Json byte_level(bool use_regex) {
  return Json::object(
      {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}});
}

Json sequence(const char* members, Json::Array items) {
  return Json::object({{"type", "Sequence"}, {members, Json(std::move(items))}});
}

Json pre_tokenizer_json(const PreTokenizer& pre) {
  switch (pre.kind) {
    case Kind::kGpt2:
      return byte_level(true);
    case Kind::kDigitsThenGpt2:
      return sequence("pretokenizers",
                      {Json::object({{"type", "Digits"}, {"individual_digits", true}}), byte_level(true)});
    case Kind::kSplit:
      break;
  }
  return sequence("pretokenizers", {Json::object({{"type", "Split"},
                                                  {"pattern", Json::object({{"Regex", pre.expression}})},
                                                  {"behavior", "Isolated"},
                                                  {"invert", false}}),
                                    byte_level(false)});
}

void append_quoted(std::string_view text, std::string* out) {
  *out += '"';
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20) {
      constexpr const char* kHex = "0123456789abcdef";
      out->append("\\u00").append({kHex[c >> 4], kHex[c & 15]});
    } else {
      if (c == '"' || c == '\\') *out += '\\';
      *out += c;
    }
  }
  *out += '"';
}

// The text of each id; where two ids share a text, the first has it and the others are out of reach.
class Vocabulary {
 public:
  Vocabulary(const TokenizerData& data, const std::string& source) : data_(data), source_(source) {
    if (data.tokens.empty()) throw Error(Errc::kBadFormat, source + ": " + data.key_prefix + "tokens is empty");
    require_length(data.types.size(), "token_type", true);
    ids_.reserve(data.tokens.size());
    first_.resize(data.tokens.size());
    for (size_t id = 0; id < data.tokens.size(); ++id) {
      if (const auto at = find_invalid_utf8(data.tokens[id])) {
        throw Error(Errc::kBadFormat, source + ": " + data.key_prefix + "tokens[" + std::to_string(id) + "]: byte " +
                                          std::to_string(*at) + " is not UTF-8");
      }
      first_[id] = ids_.emplace(data.tokens[id], static_cast<int32_t>(id)).second;
    }
    for (const AddedToken& token : data.added) {
      if (token.id >= 0 && static_cast<size_t>(token.id) < size() && first(static_cast<size_t>(token.id))) {
        remove(text(static_cast<size_t>(token.id)));
      }
      remove(token.text);
    }
  }

  void require_length(size_t found, const char* key, bool may_be_empty) const {
    if (found == data_.tokens.size() || (may_be_empty && found == 0)) return;
    throw Error(Errc::kBadFormat, source_ + ": " + data_.key_prefix + key + " has " + std::to_string(found) +
                                      " elements, expected one per token: " + std::to_string(data_.tokens.size()));
  }

  TokenType type(size_t id) const { return data_.types.empty() ? TokenType::kNormal : data_.types[id]; }
  bool first(size_t id) const { return first_[id]; }
  std::optional<int32_t> find(std::string_view text) const {
    const auto found = ids_.find(text);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }
  size_t size() const { return data_.tokens.size(); }
  std::string_view text(size_t id) const { return data_.tokens[id]; }

  // The text of a special token; a key may name none.
  std::optional<std::string> text_of(const std::optional<int32_t>& id, const char* key) const {
    if (!id) return std::nullopt;
    for (const AddedToken& token : data_.added) {
      if (token.id == *id) return token.text;
    }
    if (*id < 0 || static_cast<size_t>(*id) >= size()) {
      throw Error(Errc::kBadFormat, source_ + ": " + data_.key_prefix + key + " is " + std::to_string(*id) +
                                        ", expected an id below " + std::to_string(size()));
    }
    return std::string(text(static_cast<size_t>(*id)));
  }

  // {"text": id, ...}. Written here, since a Json object of so many members is slow to build.
  std::string ids_json() const {
    std::string out = "{";
    for (size_t id = 0; id < size(); ++id) {
      if (!first(id)) continue;
      if (out.size() > 1) out += ',';
      append_quoted(text(id), &out);
      out.append(":").append(std::to_string(id));
    }
    for (const AddedToken& token : data_.added) {
      if (out.size() > 1) out += ',';
      append_quoted(token.text, &out);
      out.append(":").append(std::to_string(token.id));
    }
    return out + "}";
  }

  Json added_json() const {
    std::map<int32_t, AddedToken> tokens;
    for (size_t id = 0; id < size(); ++id) {
      const bool special = type(id) == TokenType::kControl || type(id) == TokenType::kUnknown;
      if ((!special && type(id) != TokenType::kUserDefined) || !first(id) || text(id).empty()) continue;
      const auto number = static_cast<int32_t>(id);
      tokens[number] = {.id = number, .text = std::string(text(id)), .special = special};
    }
    for (const AddedToken& token : data_.added) tokens[token.id] = token;
    Json added = Json::array();
    for (const auto& [id, token] : tokens) {
      added.push_back(Json::object({{"id", static_cast<int64_t>(id)},
                                    {"content", token.text},
                                    {"single_word", token.single_word},
                                    {"lstrip", token.strips_left},
                                    {"rstrip", token.strips_right},
                                    {"normalized", token.normalized},
                                    {"special", token.special}}));
    }
    return added;
  }

 private:
  void remove(std::string_view text) {
    const auto found = ids_.find(text);
    if (found == ids_.end()) return;
    first_[static_cast<size_t>(found->second)] = false;
    ids_.erase(found);
  }

  const TokenizerData& data_;
  const std::string& source_;
  std::unordered_map<std::string_view, int32_t> ids_;  // without data_.added
  std::vector<bool> first_;                            // of each id: whether ids_ has it
};

// The ranked merges of a BPE as a JSON list of pairs.
class MergeList {
 public:
  void add(std::string_view left, std::string_view right) {
    if (text_.size() > 1) text_ += ',';
    text_ += '[';
    append_quoted(left, &text_);
    text_ += ',';
    append_quoted(right, &text_);
    text_ += ']';
  }
  std::string json() const { return text_ + "]"; }

 private:
  std::string text_ = "[";
};

struct Bpe {
  MergeList merges;
  bool ignore_merges = false, fuse_unk = false, byte_fallback = false;
  std::optional<std::string> unk_token = std::nullopt;
};

std::string bpe_json(const Vocabulary& vocabulary, const Bpe& bpe) {
  std::string head = Json::object({{"type", "BPE"},
                                   {"dropout", nullptr},
                                   {"unk_token", bpe.unk_token ? Json(*bpe.unk_token) : Json()},
                                   {"continuing_subword_prefix", nullptr},
                                   {"end_of_word_suffix", nullptr},
                                   {"fuse_unk", bpe.fuse_unk},
                                   {"byte_fallback", bpe.byte_fallback},
                                   {"ignore_merges", bpe.ignore_merges}})
                         .dump();
  head.pop_back();  // the closing brace
  return head + ",\"vocab\":" + vocabulary.ids_json() + ",\"merges\":" + bpe.merges.json() + "}";
}

// "left right": the first blank after the first byte divides.
MergeList merges_of_pairs(const TokenizerData& data, const std::string& source) {
  MergeList merges;
  for (size_t i = 0; i < data.merges.size(); ++i) {
    const std::string_view pair = data.merges[i];
    const size_t blank = pair.find(' ', 1);
    if (blank == std::string_view::npos || find_invalid_utf8(pair)) {
      throw Error(Errc::kBadFormat, source + ": " + data.key_prefix + "merges[" + std::to_string(i) +
                                        "] is not two tokens divided by a blank");
    }
    merges.add(pair.substr(0, blank), pair.substr(blank + 1));
  }
  return merges;
}

// SentencePiece merges the two neighbours that give the piece of the highest score. As a ranked list of merges: every
// division of a piece into two pieces; higher scores first, then longer left and longer right parts, then smaller ids.
MergeList merges_of_scores(const TokenizerData& data, const Vocabulary& vocabulary) {
  struct Merge {
    float score;
    size_t left_length, right_length;  // characters
    int32_t left, right;
  };
  std::vector<Merge> merges;
  std::vector<size_t> starts;  // of the characters of a piece
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    const std::string_view text = vocabulary.text(id);
    const TokenType type = vocabulary.type(id);
    if (!vocabulary.first(id) || (type != TokenType::kNormal && type != TokenType::kUserDefined)) continue;
    starts.clear();
    for (size_t at = 0; at < text.size(); at += utf8_step(text.substr(at)).size) starts.push_back(at);
    const size_t begin = merges.size();
    for (size_t i = 1; i < starts.size(); ++i) {
      const auto left = vocabulary.find(text.substr(0, starts[i]));
      const auto right = vocabulary.find(text.substr(starts[i]));
      if (left && right) merges.push_back({data.scores[id], i, starts.size() - i, *left, *right});
    }
    std::sort(merges.begin() + static_cast<std::ptrdiff_t>(begin), merges.end(),
              [](const Merge& a, const Merge& b) { return std::pair(a.left, a.right) < std::pair(b.left, b.right); });
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tuple(-a.score, b.left_length, b.right_length) < std::tuple(-b.score, a.left_length, a.right_length);
  });
  MergeList list;
  for (const Merge& merge : merges) {
    list.add(vocabulary.text(static_cast<size_t>(merge.left)), vocabulary.text(static_cast<size_t>(merge.right)));
  }
  return list;
}

// BOS before and EOS after the text; the ids of those that are given.
Json post_processor(const std::optional<std::string>& bos, std::optional<int32_t> bos_id,
                    const std::optional<std::string>& eos, std::optional<int32_t> eos_id) {
  if (!bos && !eos) return nullptr;
  const auto token = [](const std::string& text, int type) {
    return Json::object({{"SpecialToken", Json::object({{"id", text}, {"type_id", type}})}});
  };
  const auto text = [](const char* name, int type) {
    return Json::object({{"Sequence", Json::object({{"id", name}, {"type_id", type}})}});
  };
  Json special = Json::object();
  const auto declare = [&](const std::string& name, int32_t id) {
    special[name] =
        Json::object({{"id", name}, {"ids", Json(Json::Array{Json(id)})}, {"tokens", Json(Json::Array{Json(name)})}});
  };
  if (bos) declare(*bos, bos_id.value_or(0));
  if (eos) declare(*eos, eos_id.value_or(0));
  const auto wrap = [&](Json* items, const char* name, int type) {
    if (bos) items->push_back(token(*bos, type));
    items->push_back(text(name, type));
    if (eos) items->push_back(token(*eos, type));
  };
  Json single = Json::array(), pair = Json::array();
  wrap(&single, "A", 0);
  wrap(&pair, "A", 0);
  wrap(&pair, "B", 1);
  return Json::object({{"type", "TemplateProcessing"},
                       {"single", std::move(single)},
                       {"pair", std::move(pair)},
                       {"special_tokens", std::move(special)}});
}

struct Stages {
  Json normalizer, pre_tokenizer, decoder;
  std::string model;     // JSON
  bool add_bos = false;  // the model's default
};

Stages byte_level_stages(const TokenizerData& data, const Vocabulary& vocabulary, const std::string& source) {
  const PreTokenizer& pre = find_pre_tokenizer(data.pre.empty() ? "default" : data.pre, data, source);
  if (data.merges.empty()) throw Error(Errc::kNotFound, source + ": " + data.key_prefix + "merges is missing or empty");
  Stages stages;
  if (pre.nfc) stages.normalizer = Json::object({{"type", "NFC"}});
  stages.pre_tokenizer = pre_tokenizer_json(pre);
  stages.decoder = byte_level(true);
  stages.model = bpe_json(vocabulary, {.merges = merges_of_pairs(data, source), .ignore_merges = pre.ignore_merges});
  stages.add_bos = pre.add_bos;
  return stages;
}

Stages sentencepiece_stages(const TokenizerData& data, const Vocabulary& vocabulary, const std::string& source) {
  vocabulary.require_length(data.scores.size(), "scores", false);
  if (std::any_of(data.scores.begin(), data.scores.end(), [](float score) { return !std::isfinite(score); })) {
    throw Error(Errc::kBadFormat, source + ": " + data.key_prefix + "scores holds a value that is no finite number");
  }
  const auto replace = [](const char* from, const char* to) {
    return Json::object({{"type", "Replace"}, {"pattern", Json::object({{"String", from}})}, {"content", to}});
  };
  const bool prefix = data.add_space_prefix.value_or(true);
  Stages stages;
  Json::Array decoders = {replace(kSpaceSign, " "), Json::object({{"type", "ByteFallback"}}),
                          Json::object({{"type", "Fuse"}})};
  if (prefix && data.space_prefix_at_start_only) {
    stages.pre_tokenizer = Json::object(
        {{"type", "Metaspace"}, {"replacement", kSpaceSign}, {"prepend_scheme", "first"}, {"split", false}});
  } else if (prefix) {
    stages.normalizer = sequence(
        "normalizers", {Json::object({{"type", "Prepend"}, {"prepend", kSpaceSign}}), replace(" ", kSpaceSign)});
  } else {
    stages.normalizer = replace(" ", kSpaceSign);
  }
  if (prefix) decoders.push_back(Json::object({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}));
  stages.decoder = sequence("decoders", std::move(decoders));
  stages.model =
      bpe_json(vocabulary, {.merges = merges_of_scores(data, vocabulary),
                            .fuse_unk = true,
                            .byte_fallback = std::count(data.types.begin(), data.types.end(), TokenType::kByte) > 0,
                            .unk_token = vocabulary.text_of(data.unk_id, "unknown_token_id")});
  stages.add_bos = true;
  return stages;
}

// The token that ends a turn, where the file does not name it.
std::optional<int32_t> end_of_turn_by_name(const Vocabulary& vocabulary) {
  for (const char* name : {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"}) {
    const auto id = vocabulary.find(name);
    if (id && vocabulary.type(static_cast<size_t>(*id)) == TokenType::kControl) return id;
  }
  return std::nullopt;
}

}  // namespace

TokenizerParts parts_of(const TokenizerData& data, const std::string& source) {
  const Vocabulary vocabulary(data, source);
  TokenizerParts parts;
  parts.source = source;
  parts.chat_template = data.chat_template;
  parts.bos_token = vocabulary.text_of(data.bos_id, "bos_token_id");
  parts.eos_token = vocabulary.text_of(data.eos_id, "eos_token_id");
  parts.unk_token = vocabulary.text_of(data.unk_id, "unknown_token_id");
  parts.pad_token = vocabulary.text_of(data.pad_id, "padding_token_id");
  const std::optional<int32_t> end_of_turn = data.eot_id ? data.eot_id : end_of_turn_by_name(vocabulary);
  for (const auto& id : {end_of_turn, data.eom_id}) {
    if (id) parts.stop_ids.push_back(*id);
  }

  if (data.model != "gpt2" && data.model != "llama") {
    throw Error(Errc::kUnsupported, source + ": " + data.key_prefix + "model is \"" + data.model +
                                        "\", expected gpt2 or llama; use the model's Hugging Face folder");
  }
  Stages stages = data.model == "gpt2" ? byte_level_stages(data, vocabulary, source)
                                       : sentencepiece_stages(data, vocabulary, source);
  const bool bos = data.add_bos.value_or(stages.add_bos), eos = data.add_eos.value_or(false);
  if ((bos && !parts.bos_token) || (eos && !parts.eos_token)) {
    throw Error(Errc::kNotFound, source + ": " + data.key_prefix + (bos && !parts.bos_token ? "bos" : "eos") +
                                     "_token_id is missing, though the tokenizer adds that token");
  }
  Json processor = post_processor(bos ? parts.bos_token : std::nullopt, data.bos_id,
                                  eos ? parts.eos_token : std::nullopt, data.eos_id);
  std::string head = Json::object({{"version", "1.0"},
                                   {"truncation", nullptr},
                                   {"padding", nullptr},
                                   {"added_tokens", vocabulary.added_json()},
                                   {"normalizer", std::move(stages.normalizer)},
                                   {"pre_tokenizer", std::move(stages.pre_tokenizer)},
                                   {"post_processor", std::move(processor)},
                                   {"decoder", std::move(stages.decoder)}})
                         .dump();
  head.pop_back();  // the closing brace
  parts.tokenizer_json = head + ",\"model\":" + stages.model + "}";
  return parts;
}

}  // namespace saif
