#include "study/absorption.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "support/engine_fixtures.h"
#include "support/letter_tokenizer.h"

namespace saif {
namespace {

// A world of six letters with thirty words each. A word's row is 3 e_letter + 1.5 e_word. Latent l stands for letter
// l; latent 6 + w for word w. Of a letter, the first `absorbed` words are absorbed: the letter's latent has a negative
// weight on the word, so it is silent there, and the word's latent writes the letter too.
class Absorption : public testing::Test {
 protected:
  static constexpr int kLettersHere = 6, kWordsOf = 30, kWords = kLettersHere * kWordsOf,
                       kWidth = kLettersHere + kWords;

  void make(int absorbed, bool carries_letter = true) {
    Rng rng(3);
    rows_ = Tensor::zeros(DType::kF32, {kWords, kWidth});
    SaeConfig config;
    config.kind = SaeKind::kStandard;
    config.d_in = config.d_out = config.d_sae = kWidth;
    config.apply_b_dec_to_input = false;
    SaeWeights w{Tensor::zeros(DType::kF32, {kWidth, kWidth}),
                 Tensor::zeros(DType::kF32, {kWidth}),
                 Tensor::zeros(DType::kF32, {kWidth, kWidth}),
                 Tensor::zeros(DType::kF32, {kWidth}),
                 {}};
    words_ = {};
    for (int l = 0; l < kLettersHere; ++l) w.w_enc.f32()(l, l) = w.w_dec.f32()(l, l) = 1.0f;
    for (int i = 0; i < kWords; ++i) {
      const int letter = i / kWordsOf, number = i % kWordsOf, latent = kLettersHere + i;
      words_.words.push_back(std::string(1, static_cast<char>('a' + letter)) + std::to_string(number));
      words_.letter.push_back(letter);
      words_.test.push_back(number % 3 == 0);  // ten of thirty
      rows_.f32()(i, letter) = static_cast<float>(3.0 + 0.01 * rng.normal());
      rows_.f32()(i, latent) = 1.5f;
      w.w_enc.f32()(latent, latent) = w.w_dec.f32()(latent, latent) = 1.0f;
      if (number >= absorbed) continue;
      w.w_enc.f32()(letter, latent) = -10.0f;
      if (carries_letter) w.w_dec.f32()(latent, letter) = 2.0f;
    }
    sae_ = Sae::from_weights(config, std::move(w));
  }
  AbsorptionResult result() const { return absorption_of(*sae_, rows_.f32(), words_, {}); }

  Tensor rows_;
  LetterWords words_;
  std::shared_ptr<const Sae> sae_;
};

TEST_F(Absorption, NoneWithoutIt) {
  make(0);
  const AbsorptionResult r = result();
  ASSERT_EQ(r.letters.size(), 6U);
  for (int l = 0; l < kLettersHere; ++l) {
    EXPECT_EQ(r.letters[static_cast<size_t>(l)].latents, std::vector<int32_t>{l});
    EXPECT_DOUBLE_EQ(r.letters[static_cast<size_t>(l)].f1, 1.0);
  }
  EXPECT_EQ(r.probe().hits, 60);
  EXPECT_EQ(r.silent().hits, 0);
  EXPECT_EQ(r.absorbed().hits, 0);
  EXPECT_EQ(r.absorbed().n, 60);
}

TEST_F(Absorption, ThePlantedShareIsFound) {
  make(9);  // words 0 to 8, of which 0, 3 and 6 are tested
  const AbsorptionResult r = result();
  EXPECT_EQ(r.absorbed().n, 60);
  EXPECT_EQ(r.absorbed().hits, 18);
  EXPECT_EQ(r.silent().hits, 18);
  EXPECT_EQ(r.letters[1].examples, (std::vector<std::string>{"b0", "b3", "b6"}));
  EXPECT_EQ(r.letters[1].latents, std::vector<int32_t>{1});
}

TEST_F(Absorption, SilenceAloneIsNone) {
  make(9, false);  // the letter's latent is silent, and nobody writes the letter
  const AbsorptionResult r = result();
  EXPECT_EQ(r.silent().hits, 18);
  EXPECT_EQ(r.absorbed().hits, 0);
}

TEST_F(Absorption, ASplitLetterHasTwoLatents) {
  make(0);
  // Latent 0 fires on the even words of "a" only, an unused word latent of "b" on the odd ones.
  SaeConfig config = sae_->config();
  SaeWeights w{Tensor::zeros(DType::kF32, {kWidth, kWidth}),
               Tensor::zeros(DType::kF32, {kWidth}),
               Tensor::zeros(DType::kF32, {kWidth, kWidth}),
               Tensor::zeros(DType::kF32, {kWidth}),
               {}};
  for (int i = 0; i < kWidth; ++i) w.w_enc.f32()(i, i) = w.w_dec.f32()(i, i) = 1.0f;
  const int other = kLettersHere + kWordsOf;
  w.w_enc.f32()(other, other) = 0.0f;
  w.w_enc.f32()(other, 0) = 1.0f;
  for (int i = 0; i < kWordsOf; ++i) w.w_enc.f32()(i % 2 ? 0 : other, kLettersHere + i) = -10.0f;
  sae_ = Sae::from_weights(config, std::move(w));
  const AbsorptionResult r = result();
  EXPECT_EQ(r.letters[0].latents.size(), 2U);
  EXPECT_EQ(r.letters[0].silent.hits, 0);
}

TEST_F(Absorption, TooFewLettersAreSaid) {
  make(0);
  for (int& l : words_.letter) l = std::min(l, 3);
  const AbsorptionResult r = result();
  EXPECT_TRUE(r.letters.empty());
  EXPECT_NE(r.skipped.find("4 letters"), std::string::npos) << r.skipped;
  EXPECT_TRUE(r.to_json().contains("skipped"));
}

TEST(WordsOfVocabulary, WholeLowerCaseWordsOnly) {
  std::vector<std::string> pieces = {"the", " The", " ab1cd", " abc", " \xC3\xA9tat"};
  for (int i = 0; i < 40; ++i)
    pieces.push_back(" appl" + std::string(1, static_cast<char>('a' + i % 26)) + (i > 25 ? "x" : ""));
  for (int i = 0; i < 3; ++i) pieces.push_back(" bird" + std::string(1, static_cast<char>('a' + i)));
  const test::LetterTokenizer tokenizer(pieces);
  std::vector<int32_t> ids;
  const LetterWords words = words_of_vocabulary(tokenizer, {.words = 30, .min_words = 20}, ids);
  ASSERT_EQ(words.words.size(), 30U);
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(" " + words.words[i], pieces[static_cast<size_t>(ids[i])]);
    EXPECT_EQ(words.letter[i], 0);
  }
  EXPECT_EQ(std::count(words.test.begin(), words.test.end(), 1), 12);
}

// Six letters with three words each; shares that would leave one part of them empty.
TEST(WordsOfVocabulary, BothPartsHaveAWord) {
  std::vector<std::string> pieces;
  for (char letter = 'a'; letter < 'g'; ++letter) {
    for (const char* rest : {"one", "two", "six"}) pieces.push_back(std::string(" ") + letter + rest);
  }
  const test::LetterTokenizer tokenizer(pieces);
  std::vector<int32_t> ids;
  for (const auto& [share, tested] : {std::pair(0.01, 1), {0.5, 2}, {0.99, 2}}) {
    const LetterWords words = words_of_vocabulary(tokenizer, {.words = 3, .min_words = 2, .test_share = share}, ids);
    ASSERT_EQ(words.words.size(), 18U);
    EXPECT_EQ(std::count(words.test.begin(), words.test.end(), 1), 6 * tested) << share;
  }
}

TEST(FirstLetterAbsorption, ImpossibleOptionsAreRefused) {
  SaeConfig config;
  config.kind = SaeKind::kStandard;
  config.d_in = config.d_out = config.d_sae = 24;
  config.site = "blocks.1.hook_resid_post";
  const auto zeros = [](std::vector<int64_t> shape) { return Tensor::zeros(DType::kF32, std::move(shape)); };
  const auto sae = Sae::from_weights(config, {zeros({24, 24}), zeros({24}), zeros({24, 24}), zeros({24}), {}});
  Engine engine(test::tiny(), test::letters());
  const auto message_of = [&](const AbsorptionOptions& options) {
    const Error e = test::error_of([&] { first_letter_absorption(*sae, engine, options, Control()); });
    EXPECT_EQ(e.code(), Errc::kInvalidArgument);
    return std::string(e.what());
  };
  EXPECT_EQ(message_of({.test_share = 1}), "absorption: test_share is 1.0; expected a share between 0 and 1");
  EXPECT_EQ(message_of({.test_share = 0}), "absorption: test_share is 0.0; expected a share between 0 and 1");
  EXPECT_NE(message_of({.test_share = std::nan("")}).find("test_share"), std::string::npos);
  EXPECT_NE(message_of({.min_words = 1}).find("min_words is 1"), std::string::npos);
  EXPECT_NE(message_of({.words = -3}).find("words is -3"), std::string::npos);
  EXPECT_NE(message_of({.words = 10, .min_words = 11}).find("words is 10"), std::string::npos);
  EXPECT_NE(message_of({.cosine = 1.5}).find("cosine is 1.5"), std::string::npos);
  EXPECT_NE(message_of({.share = -0.1}).find("share is -0.1"), std::string::npos);
  EXPECT_NE(message_of({.split_gain = -1}).find("split_gain"), std::string::npos);
}

}  // namespace
}  // namespace saif
