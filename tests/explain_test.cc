// Latents explained on a tiny model: a latent planted on one token is found on it, and near the words it was made of.
#include <gtest/gtest.h>

#include <sstream>

#include "saif/study.h"
#include "support/engine_fixtures.h"

namespace saif {
namespace {

constexpr const char* kSite = "blocks.1.hook_resid_post";

// Fifty words; " word3" is 3.
class WordTokenizer : public test::LetterTokenizer {
 public:
  using LetterTokenizer::LetterTokenizer;
  std::vector<int32_t> encode(std::string_view text, EncodeOptions /*options*/) const override {
    std::vector<int32_t> ids;
    std::istringstream in{std::string(text)};
    for (std::string word; in >> word;) {
      for (int32_t id = 0; id < vocab_size(); ++id) {
        if (bytes(id) == " " + word) ids.push_back(id);
      }
    }
    return ids;
  }
};

std::shared_ptr<const Tokenizer> word_tokenizer() {
  std::vector<std::string> pieces;
  for (int i = 0; i < 50; ++i) {
    pieces.push_back(" word" + std::string(1, static_cast<char>('a' + i / 26)) +
                     std::string(1, static_cast<char>('a' + i % 26)));
  }
  return std::make_shared<WordTokenizer>(pieces);
}

class ExplainTest : public testing::Test {
 protected:
  ExplainTest() : engine_(test::tiny(), word_tokenizer()) {
    Rng rng(2);
    for (int d = 0; d < 12; ++d) {
      std::vector<int32_t> ids = {0};
      for (int t = 0; t < 9; ++t) ids.push_back(static_cast<int32_t>(1 + rng.below(45)));
      if (d == 4) ids[6] = 48;  // nowhere else
      documents_.push_back(ids);
    }
  }
  // Latent 5 fires where the row is the one of document 4, position 6; its decoder row is the embedding of words 10
  // and 20.
  std::shared_ptr<const Sae> planted() {
    const Site site = Site::parse(kSite);
    const Engine::Capture all = engine_.capture(documents_, {&site, 1}, false, {});
    const float* at = all.sites[0].second.f32().row(all.row_offsets[4] + 6);
    SaeConfig config;
    config.kind = SaeKind::kJumpRelu;
    config.d_in = config.d_out = 24;
    config.d_sae = 200;
    config.site = kSite;
    config.apply_b_dec_to_input = false;
    SaeWeights w{Tensor::zeros(DType::kF32, {200, 24}), Tensor::zeros(DType::kF32, {200}),
                 Tensor::zeros(DType::kF32, {200, 24}), Tensor::zeros(DType::kF32, {24}),
                 Tensor::zeros(DType::kF32, {200})};
    Rng rng(1);
    for (int64_t i = 0; i < 200 * 24; ++i) {
      w.w_enc.as<float>()[i] = w.w_dec.as<float>()[i] = static_cast<float>(rng.normal());
    }
    double squares = 0;
    for (int64_t c = 0; c < 24; ++c) squares += static_cast<double>(at[c]) * at[c];
    const std::vector<float> first = engine_.model().embedding_row(10), second = engine_.model().embedding_row(20);
    for (int64_t c = 0; c < 24; ++c) {
      const auto k = static_cast<size_t>(c);
      w.w_enc.f32()(5, c) = at[c];
      w.w_dec.f32()(5, c) = first[k] + second[k];
      w.w_dec.f32()(77, c) = w.w_dec.f32()(5, c) + 0.01f * w.w_dec.f32()(77, c);  // a twin of the same direction
    }
    w.threshold.as<float>()[5] = static_cast<float>(0.999 * squares);
    return Sae::from_weights(config, std::move(w));
  }
  Engine engine_;
  std::vector<std::vector<int32_t>> documents_;
};

TEST_F(ExplainTest, APlantedLatentIsFound) {
  const std::vector<ExplainSet> sets = {{planted(), {5, 30}}};
  const std::vector<std::string> words = {"wordak", "wordau", "nosuchword"};
  const auto all = explain_latents(engine_, sets, documents_, words, {.window = 2, .draws = 199}, {});
  ASSERT_EQ(all[0].size(), 2U);
  const LatentExplanation& e = all[0][0];
  ASSERT_FALSE(e.contexts.empty());
  EXPECT_EQ(e.contexts[0].tokens.size(), 5U);
  EXPECT_EQ(e.contexts[0].peak, 2U);
  EXPECT_EQ(e.contexts[0].tokens[2], engine_.tokenizer().bytes(48));
  EXPECT_EQ(e.density.n, 12 * 9);
  EXPECT_EQ(e.decoder[0].index, 77);
  EXPECT_EQ(e.words, (std::vector<std::string>{"wordak", "wordau"}));
  EXPECT_LT(e.p_latents, 0.05);
  EXPECT_LT(e.p_words, 0.05);
  EXPECT_EQ(e.lens.top.size(), 10U);
  EXPECT_GT(all[0][1].p_latents, 0.05);  // a random one
  const Json json = e.to_json();
  EXPECT_EQ(json.at("contexts")[0].at("activations").size(), 5U);
}

TEST_F(ExplainTest, WhatCannotBeIsRefused) {
  const std::vector<std::string> words;
  const auto refused = [&](std::vector<ExplainSet> sets, std::span<const std::vector<int32_t>> documents) {
    return test::error_of([&] { (void)explain_latents(engine_, sets, documents, words, {}, {}); }).code();
  };
  EXPECT_EQ(refused({{planted(), {200}}}, documents_), Errc::kInvalidArgument);
  EXPECT_EQ(refused({{planted(), {5}}}, {}), Errc::kInvalidArgument);
}

}  // namespace
}  // namespace saif
