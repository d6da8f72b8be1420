// SmolLM2's ids, as Transformers gives them for the tokenizer.json that the model was published with: byte-level BPE
// whose pre-tokenizer sets every digit apart, no BOS added. Computed with tokenizers 0.22.2 and transformers 4.57.6.
#include <gtest/gtest.h>

#include "base/file.h"
#include "saif/text.h"
#include "support/paths.h"

namespace saif {
namespace {

using Ids = std::vector<int32_t>;

class SmolLm2 : public testing::Test {
 protected:
  void SetUp() override {
    SAIF_REQUIRE_SMOLLM2();
    tokenizer_ = Tokenizer::load(test::model_path("smollm2"));
  }
  std::shared_ptr<const Tokenizer> tokenizer_;
};

std::string streamed(const std::shared_ptr<const Tokenizer>& tokenizer, const Ids& ids, bool skip_special = true) {
  StreamDecoder decoder(tokenizer, skip_special);
  std::string text;
  for (const int32_t id : ids) text += decoder.push(id);
  return text + decoder.flush();
}

TEST_F(SmolLm2, EncodesTrickyTextsAsTransformers) {
  const std::vector<std::pair<std::string, Ids>> cases = {
      {"   three  spaces   ", {256, 1296, 216, 5600, 333}},
      {"\x09\x09tabs\x09", {197, 197, 100, 7366, 197}},
      {"a\x0D\x0A"
       "b\x0D\x0A\x0D\x0A"
       "c",
       {81, 201, 198, 82, 7209, 198, 83}},
      {"\x0A\x0A\x0A", {16506}},
      {"\xF0\x9F\x91\x8D\xF0\x9F\x8F\xBD "
       "\xF0\x9F\x91\xA8\xE2\x80\x8D\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7\xE2\x80\x8D\xF0\x9F\x91\xA6",
       {10813, 235, 231, 10813, 233,   138, 15107, 235, 118, 321,   231, 10813,
        235,   119, 321, 231,   10813, 235, 117,   321, 231, 10813, 235, 116}},
      {"e\xCC\x81 \xC3\xA9", {85, 151, 219, 26411}},
      {"\x01\x02\x7F\x1B[0m", {191, 192, 217, 212, 75, 32, 93}},
      {"3.14159 1,000 \xD9\xA1\xD9\xA2 \xC2\xB2\xC2\xBD",
       {35, 30, 33, 36, 33, 37, 41, 216, 33, 28, 32, 32, 32, 216, 164, 111, 164, 112, 216, 19133, 16738}},
      {"Hello \xD0\xBC\xD0\xB8\xD1\x80 \xE4\xB8\x96\xE7\x95\x8C \xD7\xA9\xD7\x9C\xD7\x95\xD7\x9D",
       {19556, 41337, 7872, 9175, 216, 7906, 240, 178, 239, 230, 12960, 119, 31838, 23970, 162, 247}},
      {"don't I'LL 'S", {12420, 982, 339, 23, 16421, 637, 67}},
      {"\xE2\x80\x8B\xEF\xBB\xBF\xC2\xA0x\xE3\x80\x80y", {321, 229, 186, 136, 140, 15442, 104, 12109, 218, 105}},
      {"<|im_start|>user\x0A", {44, 108, 306, 79, 3738, 108, 46, 4093, 198}},
      {"<|endoftext|", {44, 108, 486, 1714, 2692, 108}},
      {"def f(x):\x0A    return x**2\x0A", {1604, 275, 24, 104, 727, 472, 1003, 1792, 828, 34, 198}},
      {"\xF4\x8F\xBF\xBF\xEF\xBF\xBD", {189, 233, 140, 140, 24211}},
  };
  for (const auto& [text, ids] : cases) {
    EXPECT_EQ(tokenizer_->encode(text, {}), ids) << text;
    EXPECT_EQ(tokenizer_->decode(ids), text);
    EXPECT_EQ(streamed(tokenizer_, ids), text);
  }
}

struct Sentences {
  const char* file;
  int lines, ids;
  uint64_t hash;  // FNV-1a of all ids as little-endian u32, 0xffffffff after each line
};

constexpr Sentences kSentences[] = {
    {"newstest2019-ref.deu.txt", 1997, 112463, 0xc8875ac37b09b9cfULL},
    {"newstest2019-ref.fra.txt", 1997, 103820, 0x4978fb5552cc70e8ULL},
    {"newstest2019-ref.spa.txt", 1997, 99998, 0x3828ee5239427bd7ULL},
    {"newstest2019-ref.zho-CN.txt", 1997, 146947, 0x115a5c8435842b17ULL},
    {"newstest2019-src.eng.txt", 1997, 56685, 0x12ffb24ab23d640dULL},
};

void mix(uint32_t value, uint64_t* hash) {
  for (int shift = 0; shift < 32; shift += 8) *hash = (*hash ^ (value >> shift & 0xFF)) * 0x100000001b3ULL;
}

TEST_F(SmolLm2, EncodesSentencesOfFiveLanguagesAsTransformers) {
  SAIF_REQUIRE_SHARED("data/text");
  for (const Sentences& expected : kSentences) {
    const std::string text = read_file(test::shared_dir(std::string("data/text/") + expected.file));
    Sentences found{expected.file, 0, 0, 0xcbf29ce484222325ULL};
    for (size_t from = 0; from < text.size(); ++found.lines) {
      const size_t to = std::min(text.find('\n', from), text.size());
      const std::string line = text.substr(from, to - from);
      const Ids ids = tokenizer_->encode(line, {.parse_special = true});
      for (const int32_t id : ids) mix(static_cast<uint32_t>(id), &found.hash);
      mix(0xffffffff, &found.hash);
      found.ids += static_cast<int>(ids.size());
      if (found.lines % 20 == 0) {
        EXPECT_EQ(streamed(tokenizer_, ids), line);
      }
      from = to + 1;
    }
    EXPECT_EQ(found.lines, expected.lines) << expected.file;
    EXPECT_EQ(found.ids, expected.ids) << expected.file;
    EXPECT_EQ(found.hash, expected.hash) << expected.file;
  }
}

TEST_F(SmolLm2, StreamsWholeCharactersOnly) {
  StreamDecoder decoder(tokenizer_);
  EXPECT_EQ(decoder.push(10813), "");  // f0 9f of U+1F44D
  EXPECT_EQ(decoder.push(235), "");    // 91
  EXPECT_EQ(decoder.push(231), "\xF0\x9F\x91\x8D");
  EXPECT_EQ(decoder.flush(), "");
  EXPECT_EQ(decoder.push(10813), "");
  EXPECT_EQ(decoder.flush(), "\xEF\xBF\xBD");
  EXPECT_EQ(decoder.push(10813), "");
  EXPECT_EQ(decoder.push(2), "");  // a special token is skipped and breaks nothing
  EXPECT_EQ(decoder.push(235), "");
  EXPECT_EQ(decoder.push(231), "\xF0\x9F\x91\x8D");
  EXPECT_EQ(streamed(tokenizer_, {1, 520, 9531, 2}, false), "<|im_start|>assistant<|im_end|>");
  EXPECT_EQ(streamed(tokenizer_, {1, 520, 9531, 2, -1, 1 << 30}), "assistant");
}

TEST_F(SmolLm2, StreamsAnyIdsAsDecodeGivesThem) {
  uint32_t state = 12345;
  for (int round = 0; round < 300; ++round) {
    Ids ids;
    for (int i = 0; i < 12; ++i) {
      state = state * 1664525u + 1013904223u;
      ids.push_back(static_cast<int32_t>((state >> 8) % (round % 2 == 0 ? 49152u : 300u)));
    }
    EXPECT_EQ(streamed(tokenizer_, ids), tokenizer_->decode(ids));
    EXPECT_EQ(streamed(tokenizer_, ids, false), tokenizer_->decode(ids, false));
  }
}

}  // namespace
}  // namespace saif
