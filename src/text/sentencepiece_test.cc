// Model folders that carry a tokenizer.model alone: the ids of their tokenizer.json, of Transformers, and what is wrong
// with models that cannot be read.
#include "text/sentencepiece.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/file.h"
#include "support/message_of.h"
#include "support/paths.h"

namespace saif {
namespace {

using test::message_of;

using Ids = std::vector<int32_t>;

// A model folder whose tokenizer is a tokenizer.model.
class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / ("saif_sentencepiece_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  void write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
  }
  // All files of another folder but tokenizer.json.
  void link(const std::string& from) const {
    for (const auto& file : std::filesystem::directory_iterator(from)) {
      if (file.path().filename() == "tokenizer.json") continue;
      std::filesystem::create_symlink(std::filesystem::absolute(file.path()), path_ / file.path().filename());
    }
  }
  std::shared_ptr<const Tokenizer> load() const { return Tokenizer::load(path_.string()); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

const std::vector<std::string>& tricky_texts() {
  static const std::vector<std::string> texts = {
      "",
      " ",
      "  ",
      "     a      b ",
      " leading",
      "trailing   ",
      "\n",
      "\r\n one\r\n\r\ntwo",
      "\ttab\t\ttabs",
      std::string("nul\0 and \x01\x02\x1F\x7F", 13),
      "0123456789 1234.50 007",
      "<s>",
      "</s> text <s>inside</s>",
      "<unk><pad> <bos>x<eos>",
      "<0x41><0x0A> <0xZZ>",
      "\U0001F642\U0001F468\u200D\U0001F469\u200D\U0001F467 \U0001F1E9\U0001F1EA",
      "na\u00EFve caf\u00E9 cafe\u0301 \u4F60\u597D \u0416",
      "\u2581 the sign itself\u2581\u2581",
      "\u00A0no\u3000blank\uFEFF",
      "\uFB01 \u2460 \uFF21",  // which NFKC would change
      "the the thethe warrior decided to go back to the boat.",
  };
  return texts;
}

void expect_same(const Tokenizer& found, const Tokenizer& expected, const std::string& text) {
  for (const bool add : {false, true}) {
    for (const bool parse : {false, true}) {
      const Ids ids = expected.encode(text, {.add_special = add, .parse_special = parse});
      EXPECT_EQ(found.encode(text, {.add_special = add, .parse_special = parse}), ids)
          << "\"" << text << "\" add_special " << add << " parse_special " << parse;
      EXPECT_EQ(found.decode(ids), expected.decode(ids)) << text;
      EXPECT_EQ(found.decode(ids, false), expected.decode(ids, false)) << text;
    }
  }
}

TEST(SentencePiece, GivesTheIdsOfTokenizerJson) {
  SAIF_REQUIRE_SHARED("data/goldens");
  for (const char* family : {"gemma", "gemma2", "gemma3_text", "llama", "mistral", "phi3", "phi3_longrope"}) {
    SCOPED_TRACE(family);
    const std::string golden = test::shared_dir(std::string("data/goldens/") + family);
    const Folder folder;
    folder.link(golden + "/model");
    ASSERT_FALSE(file_exists(folder.path() + "/tokenizer.json"));
    const auto found = folder.load();
    const auto expected = Tokenizer::load(golden + "/model");
    EXPECT_EQ(found->vocab_size(), expected->vocab_size());
    EXPECT_EQ(found->bos_id(), expected->bos_id());
    EXPECT_EQ(found->stop_ids(), expected->stop_ids());
    for (int32_t id = 0; id < expected->vocab_size(); ++id) {
      EXPECT_EQ(found->piece(id), expected->piece(id)) << id;
      EXPECT_EQ(found->bytes(id), expected->bytes(id)) << id;
      EXPECT_EQ(found->is_special(id), expected->is_special(id)) << id;
    }
    const Json facts = read_json_file(golden + "/golden.json");
    for (const char* name : {"text", "prompt_text"}) expect_same(*found, *expected, facts.at(name).as_string());
    for (const Json& check : facts.at("tokenizer_checks").items()) {
      Ids ids;
      for (const Json& id : check.at("ids").items()) ids.push_back(id.as<int32_t>());
      EXPECT_EQ(found->encode(check.at("text").as_string(), {}), ids);
    }
    for (const std::string& text : tricky_texts()) expect_same(*found, *expected, text);
  }
}

TEST(SentencePiece, GivesWayToTokenizerJson) {
  SAIF_REQUIRE_SHARED("data/goldens");
  const Folder folder;
  folder.link(test::shared_dir("data/goldens/llama/model"));
  folder.write("tokenizer.json", R"({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})");
  EXPECT_EQ(folder.load()->vocab_size(), 1);
}

// The ids are those of Transformers 5 for this folder.
TEST(SentencePiece, ReadsAddedTokensAndSettings) {
  SAIF_REQUIRE_SHARED("data/goldens");
  const Folder folder;
  folder.write("tokenizer.model", read_file(test::shared_dir("data/goldens/llama/model/tokenizer.model")));
  folder.write("added_tokens.json", R"({"<|user|>": 385, "zebra": 387, "<|other|>": 390})");
  folder.write("tokenizer_config.json", R"({"legacy": false, "bos_token": "<s>", "eos_token": {"content": "<|end|>"},
    "unk_token": "<unk>", "pad_token": "<|pad|>", "chat_template": "{{ bos_token }}hi", "added_tokens_decoder": {
      "0": {"content": "<unk>", "special": true}, "1": {"content": "<s>", "special": true},
      "2": {"content": "</s>", "rstrip": true, "normalized": false, "special": false},
      "384": {"content": "<|pad|>", "special": true}, "385": {"content": "<|user|>", "rstrip": true, "special": true},
      "386": {"content": "<|end|>", "lstrip": true, "special": true},
      "387": {"content": "zebra", "single_word": true, "normalized": false, "special": false}}})");
  auto tokenizer = folder.load();
  const auto ids = [&](const std::string& text) {
    return tokenizer->encode(text, {.add_special = true, .parse_special = true});
  };
  EXPECT_EQ(ids("<|user|>\nOnce upon a time <|end|> <s>the zebra zebras"),
            (Ids{1,   385, 370, 345, 320, 323, 358, 313, 261, 259, 295, 340, 386,
                 339, 1,   342, 260, 339, 387, 339, 381, 340, 360, 349, 341, 348}));
  EXPECT_EQ(ids(" two"), (Ids{1, 259, 351, 343}));
  EXPECT_EQ(ids(""), Ids{1});
  EXPECT_EQ(ids("a</s> b"), (Ids{1, 261, 2, 360}));
  EXPECT_EQ(ids("<unk>"), (Ids{1, 0}));
  EXPECT_EQ(ids("<|other|>"), (Ids{1, 390}));
  EXPECT_EQ(tokenizer->piece(388), "");  // between the added tokens
  EXPECT_TRUE(tokenizer->is_special(386));
  EXPECT_FALSE(tokenizer->is_special(387));
  EXPECT_EQ(tokenizer->stop_ids(), Ids{386});
  EXPECT_EQ(tokenizer->chat_template(), "{{ bos_token }}hi");

  folder.write("tokenizer_config.json", R"({"add_bos_token": false, "add_eos_token": true})");
  tokenizer = folder.load();
  EXPECT_EQ(ids("<|user|>"), (Ids{385, 2}));
  EXPECT_EQ(ids("time"), (Ids{259, 295, 340, 2}));
  EXPECT_EQ(tokenizer->bos_id(), 1);
  folder.write("tokenizer_config.json", R"({"add_prefix_space": false, "bos_token": ""})");
  tokenizer = folder.load();
  EXPECT_EQ(ids("time"), (Ids{1, 342, 295, 340}));
  folder.write("chat_template.jinja", "ho");
  EXPECT_EQ(folder.load()->chat_template(), "ho");

  for (const auto& [config, words] :
       {std::pair(R"({"eos_token": "<|none|>"})", "\"<|none|>\", which is neither"),
        std::pair(R"({"add_bos_token": "yes"})", "\"add_bos_token\" is \"yes\", expected true or false"),
        std::pair(R"({"added_tokens_decoder": []})", "\"added_tokens_decoder\" is no JSON object"),
        std::pair(R"({"added_tokens_decoder": {"x": {"content": "a"}}})", "added token \"x\""),
        std::pair(R"({"added_tokens_decoder": {"-1": {"content": "a"}}})", "added token \"-1\""),
        std::pair(R"({"added_tokens_decoder": {"999999999": {"content": "a"}}})", "added token \"999999999\""),
        std::pair(R"({"added_tokens_decoder": {"400": {"content": ""}}})", "added token \"400\"")}) {
    folder.write("tokenizer_config.json", config);
    const std::string text = message_of([&] { folder.load(); });
    EXPECT_NE(text.find(words), std::string::npos) << text;
    EXPECT_NE(text.find("tokenizer_config.json"), std::string::npos) << text;
  }
}

// Writes protocol buffers of small numbers and texts.
std::string number(int field, int value) { return {static_cast<char>(field << 3 & 0x7F), static_cast<char>(value)}; }
std::string bytes(int field, const std::string& value) {
  std::string out = {static_cast<char>(field << 3 | 2)};
  size_t size = value.size();
  for (; size >= 0x80; size >>= 7) out += static_cast<char>((size & 0x7F) | 0x80);
  return out + static_cast<char>(size) + value;
}
std::string piece(const std::string& text, float score, int type = 1) {
  std::string bits(sizeof(score), '\0');
  std::memcpy(bits.data(), &score, sizeof(score));
  return bytes(1, bytes(1, text) + "\x15" + bits + number(3, type));
}

const std::string kPieces = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3);
const std::string kBpe = bytes(2, number(3, 2));
const std::string kIdentity = bytes(3, bytes(1, "identity") + number(4, 0));

TEST(SentencePiece, MergesAsSentencePiece) {
  // Neither a control token, nor what would need one, comes from plain text; a user-defined piece is found whole.
  const std::string letters = piece("a", -10) + piece("b", -11) + piece("<", -12) + piece("s>", -13) +
                              piece("\u2581", -14) + piece("s", -15) + piece(">", -16);
  const std::string model = kPieces + piece("ab", 0) + piece("\u2581a", -1) + letters + piece("bab", 0, 4);
  const Folder folder;
  folder.write("tokenizer.model", model + kBpe + kIdentity);
  const auto tokenizer = folder.load();
  const auto ids = [&](const std::string& text, bool parse = false) {
    return tokenizer->encode(text, {.add_special = false, .parse_special = parse});
  };
  EXPECT_EQ(ids("ab"), (Ids{9, 3}));
  EXPECT_EQ(ids("aab"), (Ids{4, 3}));
  EXPECT_EQ(ids("<s>"), (Ids{9, 7, 8}));
  EXPECT_EQ(ids("<s>", true), Ids{1});
  EXPECT_EQ(ids("cdc"), (Ids{9, 0}));  // unknown characters fuse
  EXPECT_EQ(tokenizer->encode("ab", {}), (Ids{1, 9, 3}));
}

TEST(SentencePiece, NamesWhatItCannotConvert) {
  const auto message = [](const std::string& model) {
    return message_of([&] { parts_of(read_sentencepiece(model, "x/tokenizer.model"), "x/tokenizer.model"); });
  };
  const auto expect = [&](const std::string& model, const std::string& words) {
    const std::string text = message(model);
    EXPECT_NE(text.find(words), std::string::npos) << text;
    EXPECT_TRUE(text.starts_with("x/tokenizer.model: ")) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  };
  const std::string pieces = kPieces + piece("a", -1);
  EXPECT_EQ(message(pieces + kBpe + kIdentity), "");
  expect(pieces + bytes(2, number(3, 1)) + kIdentity, "model type is UNIGRAM, expected BPE; write a tokenizer.json");
  expect(pieces + kIdentity, "UNIGRAM");  // the default
  expect(pieces + bytes(2, number(3, 4)) + kIdentity, "CHAR");
  expect(pieces + bytes(2, number(3, 9)) + kIdentity, "type is 9");
  expect(pieces + kBpe + bytes(3, bytes(1, "nmt_nfkc") + bytes(2, "xxxx")), "rule \"nmt_nfkc\"");
  expect(pieces + kBpe, "removes extra whitespace");
  expect(pieces + kBpe + bytes(3, number(4, 0) + number(5, 0)), "does not escape whitespace");
  expect(pieces + piece("b", 0, 5) + kBpe + kIdentity, "unused");
  expect(pieces + piece("b", 0, 7) + kBpe + kIdentity, "not a whole SentencePiece model");
  expect(pieces + pieces + kBpe + kIdentity, "SentencePiece refuses the model");
  expect(pieces + piece("b\n\xE3", 0, 6) + kBpe + kIdentity, "b??");            // no byte
  expect(piece("a", 0) + kBpe + kIdentity, "SentencePiece refuses the model");  // no unknown token
  expect(pieces + piece("", 0) + kBpe + kIdentity, "SentencePiece refuses the model");
  expect(pieces + piece("\xFF", 0) + kBpe + kIdentity, "tokens[4]: byte 0 is not UTF-8");
  expect(pieces + piece("b", std::numeric_limits<float>::quiet_NaN()) + kBpe + kIdentity, "no finite number");
}

TEST(SentencePiece, SaysThatAFileIsBroken) {
  const std::string whole = kPieces + piece("a", -1) + kBpe + kIdentity;
  const auto message = [](const std::string& model) {
    return message_of([&] { read_sentencepiece(model, "x/tokenizer.model"); });
  };
  testing::internal::CaptureStderr();
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::string text = message(whole.substr(0, size));
    EXPECT_TRUE(text.starts_with("x/tokenizer.model: ")) << size << " " << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  }
  for (const std::string& garbage :
       {std::string("x"), std::string(1000, '\xFF'), std::string(1000, '\0'), std::string("{\"a\": 1}"),
        std::string("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")}) {
    EXPECT_NE(message(garbage).find("not a whole SentencePiece model"), std::string::npos) << message(garbage);
  }
  // Every byte changed in turn: read or refused, never worse.
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const int change : {0x01, 0x08, 0x80, 0xFF}) {
      std::string model = whole;
      model[at] = static_cast<char>(model[at] ^ change);
      const std::string text = message_of([&] { parts_of(read_sentencepiece(model, "x"), "x"); });
      EXPECT_TRUE(text.empty() || text.starts_with("x: ")) << text;
      EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    }
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace saif
