// Tokenizer against ids computed by Hugging Face's libraries, and on files that are broken.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "saif/text.h"
#include "support/message_of.h"
#include "support/paths.h"

namespace saif {
namespace {

using test::message_of;

using Ids = std::vector<int32_t>;

Ids ids_of(const Json& list) {
  Ids ids;
  for (const Json& id : list.items()) ids.push_back(id.as<int32_t>());
  return ids;
}

void expect_checks(const Tokenizer& tokenizer, const std::string& golden) {
  int checked = 0;
  const Json expected = read_json_file(golden);
  for (const Json& check : expected.at("tokenizer_checks").items()) {
    const std::string& text = check.at("text").as_string();
    EXPECT_EQ(tokenizer.encode(text, {}), ids_of(check.at("ids"))) << golden << ": " << text;
    ++checked;
  }
  EXPECT_GE(checked, 5);
}

TEST(Tokenizer, GivesTheGoldenIdsOfEveryFamily) {
  SAIF_REQUIRE_SHARED("data/goldens");
  for (const char* family : {"gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "phi3",
                             "phi3_longrope", "qwen2", "qwen3"}) {
    const std::string folder = test::shared_dir(std::string("data/goldens/") + family);
    const auto tokenizer = Tokenizer::load(folder + "/model");
    expect_checks(*tokenizer, folder + "/golden.json");
  }
}

TEST(Tokenizer, GivesTheGoldenIdsFromGguf) {
  SAIF_REQUIRE_SHARED("data/goldens");
  for (const auto& [file, family] :
       {std::pair("llama-f32", "llama"), std::pair("gemma2-f16", "gemma2"), std::pair("phi3-f16", "phi3"),
        std::pair("qwen2-f16", "qwen2"), std::pair("gpt2-f16", "gpt2")}) {
    const auto tokenizer = Tokenizer::load(test::shared_dir(std::string("data/goldens/gguf/") + file + ".gguf"));
    expect_checks(*tokenizer, test::shared_dir(std::string("data/goldens/") + family + "/golden.json"));
  }
}

TEST(Tokenizer, GivesTheGoldenIdsOfStories260K) {
  SAIF_REQUIRE_SHARED("data/models/stories260K");
  const std::string folder = test::shared_dir("data/models/stories260K");
  const auto tokenizer = Tokenizer::load(folder);
  expect_checks(*tokenizer, folder + "/golden.json");
  EXPECT_EQ(tokenizer->vocab_size(), 512);
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->stop_ids(), (Ids{2, 1}));  // generation_config.json names both
  EXPECT_FALSE(tokenizer->has_chat_template());
}

TEST(Tokenizer, KnowsSmolLm2) {
  SAIF_REQUIRE_SMOLLM2();
  const auto tokenizer = Tokenizer::load(test::model_path("smollm2"));
  EXPECT_EQ(tokenizer->vocab_size(), 49152);
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->stop_ids(), Ids{2});
  EXPECT_EQ(tokenizer->piece(0), "<|endoftext|>");
  EXPECT_EQ(tokenizer->id_of("<|im_start|>"), 1);
  EXPECT_TRUE(tokenizer->is_special(16));
  EXPECT_FALSE(tokenizer->is_special(17));
  const int32_t the = tokenizer->id_of("Ġthe").value_or(-1);
  ASSERT_GE(the, 0);
  EXPECT_EQ(tokenizer->bytes(the), " the");
  EXPECT_EQ(tokenizer->encode(" the", {}), Ids{the});
  EXPECT_EQ(tokenizer->encode("", {}), Ids{});
  EXPECT_EQ(tokenizer->encode("<|im_end|>", {.parse_special = true}), Ids{2});
  const Ids plain = tokenizer->encode("<|im_end|>", {});
  EXPECT_GT(plain.size(), 1u);
  for (const int32_t id : plain) EXPECT_FALSE(tokenizer->is_special(id));
  EXPECT_EQ(tokenizer->decode(plain), "<|im_end|>");
  EXPECT_EQ(tokenizer->decode(Ids{1, the, 2}), " the");
  EXPECT_EQ(tokenizer->decode(Ids{1, the, 2}, false), "<|im_start|> the<|im_end|>");
  EXPECT_EQ(tokenizer->piece(-1), "");
  EXPECT_EQ(tokenizer->piece(49152), "");
  EXPECT_EQ(tokenizer->bytes(1 << 30), "");
}

TEST(Tokenizer, NamesTheByteThatIsNotUtf8) {
  SAIF_REQUIRE_SHARED("data/models/stories260K");
  const auto tokenizer = Tokenizer::load(test::shared_dir("data/models/stories260K"));
  for (const auto& each : {std::pair<std::string, std::string>{"abc\xFFz", "byte 3 (0xFF)"},
                           {"\xE2\x82", "byte 0 (0xE2)"},
                           {"a\xED\xA0\x80", "byte 1 (0xED)"},
                           {"\xC0\x80", "byte 0 (0xC0)"},
                           {"ok\xF4\x90\x80\x80", "byte 2 (0xF4)"}}) {
    EXPECT_NE(message_of([&] { tokenizer->encode(each.first, {}); }).find(each.second), std::string::npos)
        << each.second;
  }
}

class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / ("saif_text_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path_ / name) << text; }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

// The same model in every spelling of tokenizer.json, and one of another kind.
TEST(Tokenizer, ReadsEverySpellingOfAModel) {
  const std::string vocabulary = R"("vocab": {"a": 0, "b": 1, "ab": 3, "c": 2})";
  for (const std::string& model : {
           R"({"type": "BPE", )" + vocabulary + R"(, "merges": [["a", "b"]]})",
           R"({"type": "BPE", "dropout": null, "fuse_unk": null, "later_key": [1], )" + vocabulary +
               R"(, "merges": ["#version: 0.2", "a b"]})",
           "{" + vocabulary + R"(, "merges": ["a b"], "type": "BPE"})",
           "{" + vocabulary + R"(, "merges": [["a", "b"]]})",
       }) {
    const Folder folder;
    folder.write("tokenizer.json", R"({"version": "1.0", "model": )" + model + R"(, "added_tokens": [
        {"id": 4, "content": "<x>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
         "special": true}]})");
    const auto tokenizer = Tokenizer::load(folder.path());
    EXPECT_EQ(tokenizer->encode("cab", {}), (Ids{2, 3})) << model;
    EXPECT_EQ(tokenizer->encode("a<x>", {.parse_special = true}), (Ids{0, 4})) << model;
    EXPECT_EQ(tokenizer->vocab_size(), 5);
    EXPECT_EQ(tokenizer->piece(3), "ab");
    EXPECT_EQ(tokenizer->piece(4), "<x>");
    for (const int32_t none : {-1, 5}) EXPECT_EQ(tokenizer->piece(none), "");
    EXPECT_EQ(tokenizer->id_of("ab"), 3);
    EXPECT_EQ(tokenizer->id_of("<x>"), 4);
    EXPECT_EQ(tokenizer->id_of("abc"), std::nullopt);
    EXPECT_TRUE(tokenizer->is_special(4));
    EXPECT_FALSE(tokenizer->is_special(3));
  }
  const Folder folder;
  folder.write("tokenizer.json",
               R"({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"ab": 3, "?": 9}, "unk_token": "?"}})");
  const auto words = Tokenizer::load(folder.path());
  EXPECT_EQ(words->encode("ab", {}), (Ids{3}));
  EXPECT_EQ(words->encode("x", {}), (Ids{9}));
  EXPECT_EQ(words->vocab_size(), 10);
  EXPECT_EQ(words->piece(9), "?");
  EXPECT_EQ(words->piece(4), "");
}

TEST(Tokenizer, NamesWhatIsMissingOrBroken) {
  const Folder folder;
  const auto load = [&] { Tokenizer::load(folder.path()); };
  EXPECT_NE(message_of([] { Tokenizer::load("/nowhere/at/all"); }).find("/nowhere/at/all"), std::string::npos);
  EXPECT_NE(message_of(load).find("tokenizer.json: no such file"), std::string::npos);
  EXPECT_NE(message_of(load).find("tokenizer.model"), std::string::npos);
  for (const char* broken :
       {"", "{", "{}", "[]", "null", R"({"model": {"type": "BPE"}})", "\xFF\xFE",
        R"({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}})",
        R"({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["aa"]}})",
        R"({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}})",
        R"({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}}})",
        R"({"version": "1.0", "model": {"type": "Other", "vocab": {"a": 0}}})",
        R"({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 4000000000}, "merges": []}})"}) {
    folder.write("tokenizer.json", broken);
    EXPECT_NE(message_of(load).find("tokenizer.json"), std::string::npos) << broken;
  }
  folder.write("tokenizer.json", R"({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})");
  EXPECT_EQ(message_of(load), "");
  folder.write("tokenizer_config.json", R"({"bos_token": 7})");
  EXPECT_NE(message_of(load).find("bos_token"), std::string::npos);
  folder.write("tokenizer_config.json",
               R"({"chat_template": [{"name": "default", "template": "hi"}], "eos_token": {"content": "a"}})");
  folder.write("generation_config.json", R"({"eos_token_id": [5, 0, 5]})");
  const auto tokenizer = Tokenizer::load(folder.path());
  EXPECT_EQ(tokenizer->chat_template(), "hi");
  EXPECT_EQ(tokenizer->stop_ids(), (Ids{0, 5}));
  folder.write("chat_template.jinja", "ho");
  EXPECT_EQ(Tokenizer::load(folder.path())->chat_template(), "ho");
  folder.write("generation_config.json", R"({"eos_token_id": "two"})");
  EXPECT_NE(message_of(load).find("eos_token_id"), std::string::npos);
}

}  // namespace
}  // namespace saif
