#include "text/sentencepiece.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <mutex>

// Exported by the library, declared in a header that it does not install.
namespace sentencepiece::logging {
void SetMinLogLevel(int level);  // NOLINT(readability-identifier-naming)
}

namespace saif {
namespace {

constexpr const char* kConvert =
    "; write a tokenizer.json with Transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)";

// A walk over the fields of a protocol buffer. The library's header keeps the message types to itself.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : rest_(bytes) {}

  // False at the end, or where the bytes are none; then broken().
  bool next() {
    if (rest_.empty() || broken_) return false;
    const std::string_view begin = rest_;
    const uint64_t tag = varint();
    number_ = tag >> 3;
    size_t size = 0;
    switch (tag & 7) {
      case 0:
        value_ = varint();
        break;
      case 1:
        size = 8;
        break;
      case 2: {
        const uint64_t told = varint();
        if (told > rest_.size()) broken_ = true;
        size = static_cast<size_t>(told);
        break;
      }
      case 5:
        size = 4;
        break;
      default:
        broken_ = true;
    }
    if (broken_ || size > rest_.size()) {
      broken_ = true;
      return false;
    }
    bytes_ = rest_.substr(0, size);
    rest_.remove_prefix(size);
    whole_ = begin.substr(0, begin.size() - rest_.size());
    return true;
  }

  uint64_t number() const { return number_; }
  uint64_t value() const { return value_; }          // of a number
  std::string_view bytes() const { return bytes_; }  // of a text or a message
  std::string_view whole() const { return whole_; }  // with its tag
  bool broken() const { return broken_; }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    broken_ = true;
    return 0;
  }

  std::string_view rest_, bytes_, whole_;
  uint64_t number_ = 0, value_ = 0;
  bool broken_ = false;
};

// What the library has no accessor for, with the defaults of its proto files.
struct Specs {
  uint64_t model_type = 1;
  bool spaces_are_suffixes = false;
  std::string_view normalizer_name;
  bool has_character_map = false;
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;
  // Pieces and trainer_spec. The library encodes a file's own self-test through its character map, whose offsets it
  // does not check; so it gets neither.
  std::string pieces_and_trainer;
  std::vector<TokenType> types;  // of the pieces; the library does not tell a user-defined piece from a normal one
  bool broken = false;
};

Specs read_specs(std::string_view bytes) {
  Specs specs;
  Fields model(bytes);
  while (model.next()) {
    Fields inside(model.bytes());
    if (model.number() == 1) specs.types.push_back(TokenType::kNormal);
    while (model.number() == 1 && inside.next()) {
      if (inside.number() != 3) continue;
      specs.broken = specs.broken || inside.value() < 1 || inside.value() > 6;
      specs.types.back() = static_cast<TokenType>(inside.value());
    }
    if (model.number() == 1 || model.number() == 2) specs.pieces_and_trainer += model.whole();
    while (model.number() == 2 && inside.next()) {
      if (inside.number() == 3) specs.model_type = inside.value();
      if (inside.number() == 24) specs.spaces_are_suffixes = inside.value() != 0;
    }
    while (model.number() == 3 && inside.next()) {
      if (inside.number() == 1) specs.normalizer_name = inside.bytes();
      if (inside.number() == 2) specs.has_character_map = !inside.bytes().empty();
      if (inside.number() == 3) specs.add_dummy_prefix = inside.value() != 0;
      if (inside.number() == 4) specs.remove_extra_whitespaces = inside.value() != 0;
      if (inside.number() == 5) specs.escape_whitespaces = inside.value() != 0;
    }
    specs.broken = specs.broken || inside.broken();
  }
  specs.broken = specs.broken || model.broken();
  return specs;
}

// Texts of the file go into messages of one line.
std::string printable(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7F)
      c = '?';  // bytes beyond ASCII as well
  }
  return out;
}

void require_supported(const Specs& specs, const std::string& source) {
  const auto refuse = [&](const std::string& found) {
    throw Error(Errc::kUnsupported, source + ": " + found + kConvert);
  };
  if (specs.model_type != 2) {
    constexpr const char* kNames[] = {"", "UNIGRAM", "", "WORD", "CHAR"};
    const std::string name = specs.model_type < 5 ? kNames[specs.model_type] : "";
    refuse("its model type is " + (name.empty() ? std::to_string(specs.model_type) : name) + ", expected BPE");
  }
  if (specs.has_character_map) {
    refuse("it normalizes text by the rule \"" + printable(specs.normalizer_name) + "\", expected \"identity\"");
  }
  if (specs.remove_extra_whitespaces) refuse("it removes extra whitespace, expected a model that keeps it");
  if (!specs.escape_whitespaces) refuse("it does not escape whitespace, expected a model that does");
  if (std::count(specs.types.begin(), specs.types.end(), TokenType::kUnused) > 0) {
    refuse("it has pieces marked as unused, expected none");
  }
  if (specs.spaces_are_suffixes) refuse("it treats whitespace as a suffix, expected a prefix");
}

}  // namespace

TokenizerData read_sentencepiece(std::string_view bytes, const std::string& source) {
  const Specs specs = read_specs(bytes);
  if (specs.broken || specs.types.empty()) {
    throw Error(Errc::kBadFormat, source + ": " + std::to_string(bytes.size()) +
                                      " bytes that are not a whole SentencePiece model; download the file again");
  }
  require_supported(specs, source);

  static std::once_flag silenced;
  std::call_once(silenced, [] { sentencepiece::logging::SetMinLogLevel(4); });
  sentencepiece::SentencePieceProcessor processor;
  const auto status = processor.LoadFromSerializedProto(specs.pieces_and_trainer);
  if (!status.ok() || static_cast<size_t>(processor.GetPieceSize()) != specs.types.size()) {
    std::string why = status.ok() ? "pieces are missing" : status.ToString();
    if (const size_t at = why.rfind("] "); at != std::string::npos) why.erase(0, at + 2);  // a place in the library
    throw Error(Errc::kBadFormat,
                source + ": SentencePiece refuses the model: " + printable(why) + "; download the file again");
  }

  TokenizerData data;
  data.key_prefix = "";
  data.model = "llama";
  data.add_space_prefix = specs.add_dummy_prefix;
  auto texts = std::make_shared<std::deque<std::string>>();
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    data.tokens.push_back(texts->emplace_back(processor.IdToPiece(id)));
    data.scores.push_back(processor.GetScore(id));
  }
  data.types = specs.types;
  data.owned = std::move(texts);
  const auto given = [](int id) { return id < 0 ? std::nullopt : std::optional<int32_t>(id); };
  data.bos_id = given(processor.bos_id());
  data.eos_id = given(processor.eos_id());
  data.unk_id = given(processor.unk_id());
  data.pad_id = given(processor.pad_id());
  return data;
}

}  // namespace saif
