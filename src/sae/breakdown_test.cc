#include "sae/breakdown.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>

#include "sae/token_type.h"
#include "support/letter_tokenizer.h"
#include "support/paths.h"

namespace saif {
namespace {

// The pieces of an example; ids are their numbers. Pieces that begin with "<|" are special.
class PieceTokenizer : public test::LetterTokenizer {
 public:
  using LetterTokenizer::LetterTokenizer;
  bool is_special(int32_t id) const override { return bytes(id).starts_with("<|"); }
};

std::vector<std::string> types_of(const std::vector<std::string>& pieces) {
  const PieceTokenizer tokenizer(pieces);
  std::vector<int32_t> ids(pieces.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::vector<std::string> out;
  for (const TokenType type : token_types(tokenizer, ids)) out.emplace_back(kTokenTypes[static_cast<size_t>(type)]);
  return out;
}

using Names = std::vector<std::string>;

TEST(TokenTypes, OfAChat) {
  EXPECT_EQ(types_of({"<|im_start|>", "user", "\n", "Tell", " me", " about", " gla", "ciers", ".", "<|im_end|>", "\n",
                      "<|im_start|>", "assistant", "\n"}),
            (Names{"first", "chat_role", "newline", "word_start", "word_start", "word_start", "word_start", "word_part",
                   "punctuation", "special", "newline", "special", "chat_role", "newline"}));
}

TEST(TokenTypes, OfText) {
  EXPECT_EQ(types_of({"A", "n", " user", " ", "  ", " 19", "84", "th", "%", " (", "don", "'", "t", "\"", "x", "\n\n"}),
            (Names{"first", "word_part", "word_start", "space", "space", "digits", "digits", "word_part", "punctuation",
                   "punctuation", "word_start", "punctuation", "word_part", "punctuation", "word_start", "newline"}));
}

TEST(TokenTypes, LettersBeyondAscii) {
  EXPECT_EQ(types_of({"x", " fran", "ç", "ais", " “", "É", "tat", "”", " –", "日", "本", "。", "\xC3", "\xA9"}),
            (Names{"first", "word_start", "word_part", "word_part", "punctuation", "word_start", "word_part",
                   "punctuation", "punctuation", "word_start", "word_part", "punctuation", "word_start", "word_part"}));
}

// Three documents over "a" (word_start behind a mark), "1" and ".", whose numbers are known by hand.
class BreakDown : public testing::Test {
 protected:
  PieceTokenizer tokenizer_{std::vector<std::string>{"<|s|>", " a", " 1", "."}};
  std::vector<std::vector<int32_t>> documents_ = {{0, 1, 2}, {0, 1, 1, 3}};
  RowFits fits_{{{2, 1, 10}, {4, 3, 4}, {2, 2, 10}, {5, 0, 10}, {1, 4, 5}}, {0, 1, 5, 2, 2}};
  FirstTokens first_{{{9, 50, 100}}, {2}};
  std::vector<Engine::Score> clean_ = {{-3, 2, {-1, -2}}, {-6, 3, {-2, -3, -1}}};
  std::vector<Engine::Score> with_sae_ = {{-5, 2, {-2, -3}}, {-9, 3, {-2, -6, -1}}};
  SaeBreakdown result() const { return break_down(tokenizer_, {documents_, fits_, first_, clean_, with_sae_}); }
  const SaeBreakdown::Type& row(const SaeBreakdown& b, const std::string& name) const {
    for (const auto& t : b.types) {
      if (t.name == name) return t;
    }
    throw std::out_of_range(name);
  }
};

TEST_F(BreakDown, SumsByType) {
  const SaeBreakdown b = result();
  ASSERT_EQ(b.types.size(), 4U);
  const auto& word = row(b, "word_start");
  EXPECT_EQ(word.tokens, 3);
  EXPECT_DOUBLE_EQ(word.l0, 3.0);           // 2, 2, 5
  EXPECT_DOUBLE_EQ(word.fvu, 3.0 / 30.0);   // 1 + 2 + 0 of 10 + 10 + 10
  EXPECT_DOUBLE_EQ(word.error_share, 0.3);  // of 10
  EXPECT_DOUBLE_EQ(word.ce_clean, 2.0);     // 1, 2, 3
  EXPECT_DOUBLE_EQ(word.ce_sae, 10.0 / 3);  // 2, 2, 6
  const auto& digits = row(b, "digits");
  EXPECT_DOUBLE_EQ(digits.fvu, 0.75);
  EXPECT_DOUBLE_EQ(digits.ce_sae - digits.ce_clean, 1.0);
  const auto& first = row(b, "first");
  EXPECT_EQ(first.tokens, 2);
  EXPECT_EQ(first.predicted, 0);
  EXPECT_DOUBLE_EQ(first.l0, 9.0);
  EXPECT_DOUBLE_EQ(first.fvu, 0.5);
  EXPECT_TRUE(b.to_json().at("by_type")[0].at("ce_clean").is_null());
}

// By hand: lost (1, 3) in (1, 2) tokens, ratio 4/3; residuals -1/3 and 1/3; se = sqrt(2/9 * 2) / 3 = 2/9.
TEST_F(BreakDown, TheIntervalTakesDocumentsAsUnits) {
  const SaeBreakdown b = result();
  const auto& word = row(b, "word_start");
  EXPECT_NEAR(word.ce_increase_low, 4.0 / 3 - 1.959963984540054 * 2 / 9, 1e-12);
  EXPECT_NEAR(word.ce_increase_high, 4.0 / 3 + 1.959963984540054 * 2 / 9, 1e-12);
  EXPECT_TRUE(std::isinf(row(b, "digits").ce_increase_high));  // one document says nothing of others
}

TEST_F(BreakDown, HistogramOfDensities) {
  const SaeBreakdown b = result();  // on 1, 5, 2 and 2 of 5 tokens: 10^-0.70, 1, 10^-0.40 twice
  EXPECT_EQ(b.never, 1);
  ASSERT_EQ(b.density.size(), 2U);
  EXPECT_DOUBLE_EQ(b.density[0].low, -1.0);
  EXPECT_EQ(b.density[0].latents, 1);
  EXPECT_DOUBLE_EQ(b.density[1].high, 0.0);
  EXPECT_EQ(b.density[1].latents, 3);
}

TEST_F(BreakDown, RowsMayEndBeforeTheDocuments) {
  fits_.rows.resize(2);
  const SaeBreakdown b = result();
  EXPECT_EQ(row(b, "word_start").tokens, 1);
  EXPECT_EQ(row(b, "word_start").predicted, 3);
}

// On a real model: types add up to the whole, and only the type that an SAE spoils pays for it.
TEST(BreakDownOfAModel, AddsUpToTheEvaluation) {
  SAIF_REQUIRE_SHARED("data/models/stories260K");
  const std::string path = test::shared_dir("data/models/stories260K");
  const auto tokenizer = Tokenizer::load(path);
  Engine engine(Model::load(path, {.dtype = "f32"}), tokenizer);
  std::vector<std::vector<int32_t>> documents;
  for (const char* text : {"Once upon a time, there was a little girl named Lily. She liked to play.",
                           "Tom had 3 red balls. \"Look!\" he said.", "The dog ran away with it."}) {
    documents.push_back(tokenizer->encode(text, {}));
  }
  SaeConfig config;
  config.kind = SaeKind::kStandard;
  config.d_in = config.d_out = 64;
  config.d_sae = 128;
  config.site = "blocks.2.hook_resid_post";
  SaeWeights w{Tensor::zeros(DType::kF32, {128, 64}),
               Tensor::zeros(DType::kF32, {128}),
               Tensor::zeros(DType::kF32, {128, 64}),
               Tensor::zeros(DType::kF32, {64}),
               {}};
  for (int64_t i = 0; i < 64; ++i) {
    w.w_enc.f32()(i, i) = w.w_dec.f32()(i, i) = 1.0f;
    w.w_enc.f32()(64 + i, i) = -1.0f;
    w.w_dec.f32()(64 + i, i) = -0.8f;  // not quite an identity
  }
  SaeBreakdown b;
  const SaeEvaluation e = evaluate_sae(*Sae::from_weights(config, std::move(w)), engine, documents, {}, &b);
  double l0 = 0, clean = 0, with_sae = 0, share = 0;
  int64_t tokens = 0, predicted = 0;
  for (const auto& t : b.types) {
    if (t.name == "first") {
      EXPECT_EQ(t.tokens, 3);
      continue;
    }
    tokens += t.tokens;
    predicted += t.predicted;
    l0 += t.l0 * static_cast<double>(t.tokens);
    clean += t.ce_clean * static_cast<double>(t.predicted);
    with_sae += t.ce_sae * static_cast<double>(t.predicted);
    share += t.error_share;
  }
  EXPECT_EQ(tokens, e.fidelity.tokens);
  EXPECT_EQ(predicted, e.fidelity.tokens);
  EXPECT_NEAR(l0 / static_cast<double>(tokens), e.fidelity.l0, 1e-9);
  EXPECT_NEAR(clean / static_cast<double>(predicted), e.ce_clean, 1e-9);
  EXPECT_NEAR(with_sae / static_cast<double>(predicted), e.ce_sae, 1e-9);
  EXPECT_NEAR(share, 1.0, 1e-9);
  int64_t latents = b.never;
  for (const auto& bin : b.density) latents += bin.latents;
  EXPECT_EQ(latents, 128);
}

}  // namespace
}  // namespace saif
