// Whole published vocabularies against the ids that llama.cpp gives: GPT-2, Llama 2 (SentencePiece scores), Llama 3
// (ranks).
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <sstream>
#include <unordered_map>

#include "base/file.h"
#include "saif/json.h"
#include "support/paths.h"
#include "text/sentencepiece.h"
#include "text/tokenizer_data.h"
#include "text/utf8.h"

namespace saif {
namespace {

using Ids = std::vector<int32_t>;

// Owns the texts that the data points into.
struct Vocabulary {
  TokenizerData data;
  std::deque<std::string> texts;
  std::string_view keep(std::string text) { return texts.emplace_back(std::move(text)); }
};

void expect_vectors(const Tokenizer& tokenizer, const std::string& name) {
  const std::string base = test::shared_dir("data/tokenizers/vectors/ggml-vocab-" + name + ".gguf");
  const std::string texts = read_file(base + ".inp");
  std::istringstream lines(read_file(base + ".out"));
  constexpr std::string_view kBetween = "\n__ggml_vocab_test__\n";
  int checked = 0;
  std::string line;
  for (size_t from = 0; std::getline(lines, line); ++checked) {
    const size_t to = std::min(texts.find(kBetween, from), texts.size());
    const std::string text = texts.substr(from, to - from);
    from = std::min(to + kBetween.size(), texts.size());
    std::istringstream numbers(line);
    Ids expected;
    for (int32_t id = 0; numbers >> id;) expected.push_back(id);
    EXPECT_EQ(tokenizer.encode(text, {.add_special = false}), expected) << name << " " << checked << ": " << text;
    EXPECT_EQ(tokenizer.decode(expected), text) << name << " " << checked;
  }
  EXPECT_GE(checked, 40) << name;
}

TEST(Vectors, Gpt2) {
  SAIF_REQUIRE_SHARED("data/tokenizers");
  Vocabulary vocabulary;
  vocabulary.data.model = "gpt2";
  vocabulary.data.pre = "gpt-2";
  const Json encoder = read_json_file(test::shared_dir("data/tokenizers/gpt2/encoder.json"));
  vocabulary.data.tokens.resize(encoder.size());
  for (const auto& [text, id] : encoder.members()) vocabulary.data.tokens.at(id.as<size_t>()) = text;
  std::istringstream merges(read_file(test::shared_dir("data/tokenizers/gpt2/vocab.bpe")));
  std::string line;
  std::getline(merges, line);  // #version
  while (std::getline(merges, line)) vocabulary.data.merges.push_back(vocabulary.keep(line));
  expect_vectors(*make_tokenizer(parts_of(vocabulary.data, "gpt2")), "gpt-2");
}

TEST(Vectors, Llama2) {
  SAIF_REQUIRE_SHARED("data/tokenizers");
  const std::string path = test::shared_dir("data/tokenizers/llama2/tokenizer.model");
  const TokenizerData data = read_sentencepiece(read_file(path), path);
  ASSERT_EQ(data.tokens.size(), 32000u);
  EXPECT_EQ(data.unk_id, 0);
  EXPECT_EQ(data.bos_id, 1);
  EXPECT_EQ(data.eos_id, 2);
  EXPECT_FALSE(data.pad_id);
  const auto tokenizer = make_tokenizer(parts_of(data, path));
  expect_vectors(*tokenizer, "llama-spm");
  expect_vectors(*tokenizer, "phi-3");  // the same pieces
  EXPECT_EQ(tokenizer->encode("Hello", {}), (Ids{1, 15043}));
}

std::string base64_decoded(std::string_view text) {
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<uint32_t>(kAlphabet.find(c));
    count += 6;
    if (count >= 8) out.push_back(static_cast<char>(bits >> (count -= 8) & 0xFF));
  }
  return out;
}

// Every division of a token into two tokens, in the order of ranks: the merges of the published tokenizer.json.
TEST(Vectors, Llama3) {
  SAIF_REQUIRE_SHARED("data/tokenizers");
  std::unordered_map<char, std::string> letters;  // of bytes in GPT-2's alphabet
  for (char32_t code = '!'; code < 0x144; ++code) {
    const std::string letter = utf8_of(code), byte = byte_level_bytes(letter);
    if (byte.size() == 1) letters[byte[0]] = letter;
  }
  const auto spelled = [&](std::string_view bytes) {
    std::string out;
    for (const char byte : bytes) out += letters.at(byte);
    return out;
  };
  std::vector<std::string> tokens;
  std::unordered_map<std::string_view, size_t> ranks;
  std::istringstream lines(read_file(test::shared_dir("data/tokenizers/llama3/tokenizer.model")));
  for (std::string line; std::getline(lines, line);) tokens.push_back(base64_decoded(line.substr(0, line.find(' '))));
  for (size_t rank = 0; rank < tokens.size(); ++rank) ranks[tokens[rank]] = rank;
  ASSERT_EQ(tokens.size(), 128000u);

  Vocabulary vocabulary;
  vocabulary.data.model = "gpt2";
  vocabulary.data.pre = "llama-bpe";
  for (const std::string& token : tokens) {
    vocabulary.data.tokens.push_back(vocabulary.keep(spelled(token)));
    std::vector<std::pair<size_t, size_t>> parts;  // ranks
    for (size_t at = 1; at < token.size(); ++at) {
      const auto left = ranks.find(std::string_view(token).substr(0, at));
      const auto right = ranks.find(std::string_view(token).substr(at));
      if (left != ranks.end() && right != ranks.end()) parts.emplace_back(left->second, right->second);
    }
    std::sort(parts.begin(), parts.end());
    for (const auto& [left, right] : parts) {
      vocabulary.data.merges.push_back(vocabulary.keep(spelled(tokens[left]) + " " + spelled(tokens[right])));
    }
  }
  vocabulary.data.tokens.push_back("<|begin_of_text|>");
  vocabulary.data.types.assign(128000, TokenType::kNormal);
  vocabulary.data.types.push_back(TokenType::kControl);
  vocabulary.data.bos_id = 128000;
  const auto tokenizer = make_tokenizer(parts_of(vocabulary.data, "llama3"));
  expect_vectors(*tokenizer, "llama-bpe");
  EXPECT_EQ(tokenizer->encode("Hello", {}), (Ids{128000, 9906}));
}

TEST(Gguf, NamesWhatIsMissingOrUnsupported) {
  const auto message = [](const TokenizerData& data) -> std::string {
    try {
      make_tokenizer(parts_of(data, "x.gguf"));
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const auto expect = [&](const TokenizerData& data, const std::string& words) {
    const std::string text = message(data);
    EXPECT_NE(text.find(words), std::string::npos) << text;
    EXPECT_TRUE(text.starts_with("x.gguf: ")) << text;
  };
  TokenizerData good;
  good.model = "gpt2";
  good.pre = "gpt-2";
  good.tokens = {"a", "b", "ab", "ab"};  // the second "ab" is out of reach
  good.merges = {"a b"};
  EXPECT_EQ(message(good), "");
  EXPECT_EQ(make_tokenizer(parts_of(good, "x.gguf"))->encode("ab", {}), Ids{2});
  const auto with = [&](auto change) {
    TokenizerData data = good;
    change(data);
    return data;
  };
  expect(with([](auto& d) { d.model = "bert"; }), "model is \"bert\"");
  expect(with([](auto& d) { d.pre = "tekken"; }), "pre is \"tekken\", expected one of default, gpt-2");
  expect(with([](auto& d) { d.tokens.clear(); }), "tokens is empty");
  expect(with([](auto& d) { d.tokens[1] = "\xFF"; }), "tokens[1]");
  expect(with([](auto& d) { d.merges.clear(); }), "merges is missing");
  expect(with([](auto& d) { d.merges = {"ab"}; }), "merges[0]");
  expect(with([](auto& d) { d.merges = {"a c"}; }), "c");
  expect(with([](auto& d) { d.types = {TokenType::kNormal}; }), "token_type has 1 elements");
  expect(with([](auto& d) { d.bos_id = 9; }), "bos_token_id is 9");
  expect(with([](auto& d) { d.add_bos = true; }), "bos_token_id is missing");
  expect(with([](auto& d) { d.model = "llama"; }), "scores has 0 elements");
}

}  // namespace
}  // namespace saif
