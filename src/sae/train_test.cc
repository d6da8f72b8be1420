// Training from documents, with the tiny stories model of the third-party material.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "base/file.h"
#include "base/rng.h"
#include "sae/activations.h"
#include "sae/fit.h"
#include "sae/train_files.h"
#include "saif/sae.h"
#include "support/paths.h"

namespace saif {
namespace {

namespace fs = std::filesystem;

TEST(ShuffledOrder, EveryEpochIsAnotherPermutation) {
  for (const int64_t rows : {1, 255, 1000, 2048}) {
    ShuffledOrder order(rows, 512, 3);
    std::vector<int64_t> all(static_cast<size_t>(2 * rows));
    order.fill(0, all);
    for (int epoch = 0; epoch < 2; ++epoch) {
      std::vector<int64_t> sorted(all.begin() + epoch * rows, all.begin() + (epoch + 1) * rows);
      std::sort(sorted.begin(), sorted.end());
      for (int64_t r = 0; r < rows; ++r) ASSERT_EQ(sorted[static_cast<size_t>(r)], r) << rows << " rows";
    }
    if (rows > 100) {
      EXPECT_FALSE(std::equal(all.begin(), all.begin() + rows, all.begin() + rows));
      EXPECT_FALSE(std::is_sorted(all.begin(), all.begin() + rows));
    }
  }
}

TEST(ShuffledOrder, StartsAnywhere) {
  ShuffledOrder whole(1000, 512, 3);
  std::vector<int64_t> all(3000);
  whole.fill(0, all);
  for (const int64_t begin : {0, 511, 999, 1000, 2345}) {
    ShuffledOrder late(1000, 512, 3);
    std::vector<int64_t> part(300);
    late.fill(begin, part);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + begin)) << begin;
  }
}

TEST(Fit, NamesOfTheSameModel) {
  EXPECT_TRUE(same_model_name("HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM2 135M Instruct"));
  EXPECT_TRUE(same_model_name("google/gemma-2-2b", "gemma-2-2b-it"));
  EXPECT_FALSE(same_model_name("gpt2-small", "SmolLM2 135M Instruct"));
}

class Trained : public testing::Test {
 protected:
  void SetUp() override {
    SAIF_REQUIRE_SHARED("data/models/stories260K");
    const std::string path = test::shared_dir("data/models/stories260K");
    engine_ = std::make_unique<Engine>(Model::load(path, {.dtype = "f32"}), Tokenizer::load(path));
    folder_ = testing::TempDir() + "/saif_train_" + std::to_string(getpid());
    fs::remove_all(folder_);
    const std::vector<std::string> sentences = {"Once upon a time, there was a little girl named Lily. ",
                                                "She liked to play in the park with her dog. ",
                                                "One day, they found a big red ball under a tree. ",
                                                "The dog was very happy and ran away with it. ",
                                                "Lily's mom said, \"Do not go far from the house.\" ",
                                                "They saw a bird that could not fly. ",
                                                "\"Can I help you?\" asked the little girl. ",
                                                "The bird was sad because it was lost. ",
                                                "Tom gave his friend a cake and they ate it together. ",
                                                "At night, the moon was bright and the cat slept. "};
    for (uint64_t d = 0; d < 40; ++d) {
      Rng rng(1, d);
      std::string text;
      for (int i = 0; i < 4; ++i) text += sentences[rng.below(sentences.size())];
      documents_.push_back(engine_->tokenizer().encode(text, {}));
    }
    options_.d_sae = 128;
    options_.k = 8;
    options_.batch = 128;
    options_.epochs = 3;
    options_.lr = 3e-3;
    options_.buffer = 1024;
    options_.checkpoint_every = 5;
    options_.held_out = 0.1;
    options_.compute = "f32";
    options_.dtype = "f32";
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string weights_of(const std::string& out) const { return read_file(out + "/sae_weights.safetensors"); }
  std::string out(const std::string& name) const { return folder_ + "/" + name; }
  Site site(int layer) const { return {SiteKind::kResidPost, layer}; }
  std::vector<SaeTrainResult> train(const std::vector<Site>& sites, const std::string& name,
                                    const Control& control = {}) {
    return train_saes(*engine_, sites, documents_, options_, out(name), control);
  }

  Errc code_of(const std::function<void()>& action, std::string* message = nullptr) const {
    try {
      action();
    } catch (const Error& error) {
      if (message != nullptr) *message = error.what();
      return error.code();
    }
    ADD_FAILURE() << "no error";
    return Errc::kInternal;
  }

  std::unique_ptr<Engine> engine_;
  std::vector<std::vector<int32_t>> documents_;
  SaeTrainOptions options_;
  std::string folder_;
};

TEST_F(Trained, SeveralSitesFromOnePass) {
  const std::vector<SaeTrainResult> results = train({site(1), site(3)}, "two");
  ASSERT_EQ(results.size(), 2U);
  for (const SaeTrainResult& result : results) {
    EXPECT_LT(result.evaluation.fidelity.fvu, 0.6);
    EXPECT_NEAR(result.evaluation.fidelity.l0, 8.0, 1.0);
    EXPECT_GT(result.evaluation.loss_recovered, 0.3);
    EXPECT_LT(result.evaluation.ce_clean, result.evaluation.ce_zero);
    EXPECT_GT(result.tokens_per_s, 0);
    const auto sae = Sae::load(result.folder);
    ASSERT_TRUE(sae->config().published_l0.has_value());
    EXPECT_NEAR(*sae->config().published_l0, result.evaluation.fidelity.l0, 1e-9);
    EXPECT_TRUE(file_exists(result.folder + "/metrics.jsonl"));
    for (const float norm : sae->decoder_norms()) EXPECT_NEAR(norm, 1.0f, 1e-5f);
    // Trained on ten sentences of stories: on other text it is poor, but of the published L0.
    EXPECT_NEAR(check_sae(*sae, *engine_, {.enforce = false, .site = ""}, {}).l0, 8.0, 1.0);
  }
  EXPECT_EQ(results[0].folder, out("two") + "/blocks.1.hook_resid_post");
  EXPECT_FALSE(file_exists(out("two") + "/checkpoint/blocks.1.hook_resid_post.bf16"));
  // Done already: read back, not trained again. The site alone gives the same SAE.
  const std::vector<SaeTrainResult> again = train({site(1), site(3)}, "two");
  EXPECT_EQ(again[1].to_json().dump(), results[1].to_json().dump());
  train({site(1)}, "one");
  EXPECT_EQ(weights_of(out("one")), weights_of(results[0].folder));
}

// Widths, k and kinds from one pass; the same SAE as when trained alone, wherever the activations wait.
TEST_F(Trained, SeveralSaesOfASite) {
  std::vector<SaeTrainOptions> variants(3, options_);
  variants[1].k = 4;
  variants[2].kind = "batchtopk";
  variants[2].d_sae = 96;
  const std::vector<SaeSpot> spots = {{site(2), {}}};
  const auto results = train_saes(*engine_, spots, documents_, variants, out("variants"), {});
  ASSERT_EQ(results.size(), 3U);
  EXPECT_EQ(results[1].folder, out("variants") + "/topk-128-k4");
  EXPECT_EQ(Sae::load(results[2].folder)->config().kind, SaeKind::kJumpRelu);
  EXPECT_NEAR(results[1].evaluation.fidelity.l0, 4.0, 0.5);
  EXPECT_NEAR(results[2].evaluation.fidelity.l0, 8.0, 2.5);
  int64_t latents = results[2].density.at("never").as_int();
  for (const Json& bin : results[2].density.at("bins").items()) latents += bin.at("latents").as_int();
  EXPECT_EQ(latents, 96);
  // What the SAEs of a site share in their evaluation gives the figures of each alone.
  const auto held_out = split_documents(documents_, options_, engine_->model().architecture().context).held_out;
  for (const SaeTrainResult& result : results) {
    const SaeEvaluation alone = evaluate_sae(*Sae::load(result.folder), *engine_, held_out, {});
    EXPECT_EQ(result.evaluation.to_json().dump(), alone.to_json().dump()) << result.folder;
  }
  options_.activations = "memory";
  options_.k = 4;
  train({site(2)}, "memory");
  EXPECT_EQ(weights_of(out("memory")), weights_of(results[1].folder));
  EXPECT_FALSE(file_exists(out("memory") + "/checkpoint/activations.json"));
  variants[1].batch = 64;
  EXPECT_EQ(code_of([&] { (void)train_saes(*engine_, spots, documents_, variants, out("bad"), {}); }),
            Errc::kInvalidArgument);
}

TEST_F(Trained, TranscodersOfTwoSites) {
  options_.kind = "batchtopk";
  options_.skip = true;
  options_.epochs = 6;
  const std::vector<SaeSpot> spots = {{{SiteKind::kLn2, 2}, Site{SiteKind::kMlpOut, 2}}};
  const auto results = train_saes(*engine_, spots, documents_, std::span(&options_, 1), out("transcoder"), {});
  ASSERT_EQ(results.size(), 1U);
  const auto sae = Sae::load(results[0].folder);
  EXPECT_TRUE(sae->config().transcoder && sae->config().skip);
  EXPECT_EQ(sae->config().site, "blocks.2.ln2.hook_normalized");
  EXPECT_EQ(sae->config().site_out, "blocks.2.hook_mlp_out");
  EXPECT_LT(results[0].evaluation.fidelity.fvu, 0.6);
  EXPECT_TRUE(std::isnan(results[0].evaluation.loss_recovered));
  options_.kind = "topk";
  EXPECT_EQ(code_of([&] { (void)train_saes(*engine_, spots, documents_, std::span(&options_, 1), out("bad"), {}); }),
            Errc::kInvalidArgument);
}

TEST_F(Trained, StoppedAnywhereItResumesBitForBit) {
  train({site(2)}, "whole");
  struct Crash {};
  const std::vector<std::pair<std::string, int64_t>> places = {{"activations", 1}, {"train", 3}, {"train", 7}};
  for (const bool crash : {false, true}) {
    for (const auto& [stage, step] : places) {
      const std::string name = std::string(crash ? "crash" : "stop") + stage + std::to_string(step);
      Control control;
      control.on_progress = [&, stage = stage, step = step](const Progress& p) {
        if (p.stage.find(stage) != 0 || p.done < step) return;
        if (crash) throw Crash();  // nothing is saved, as if killed
        control.request_stop();
      };
      if (crash) {
        EXPECT_THROW(train({site(2)}, name, control), Crash);
      } else {
        EXPECT_EQ(code_of([&] { train({site(2)}, name, control); }), Errc::kInterrupted);
      }
      EXPECT_FALSE(file_exists(out(name) + "/cfg.json"));
      train({site(2)}, name);
      EXPECT_EQ(weights_of(out(name)), weights_of(out("whole"))) << name;
    }
  }
}

TEST_F(Trained, AFolderKeepsToItsOptions) {
  options_.epochs = 1;
  train({site(2)}, "owned");
  options_.k = 9;
  std::string message;
  EXPECT_EQ(code_of([&] { train({site(2)}, "owned"); }, &message), Errc::kMismatch);
  EXPECT_NE(message.find("options"), std::string::npos) << message;
}

TEST_F(Trained, BadInputIsRefused) {
  EXPECT_EQ(code_of([&] { train({}, "bad"); }), Errc::kInvalidArgument);
  EXPECT_EQ(code_of([&] { train({site(1), site(1)}, "bad"); }), Errc::kInvalidArgument);
  EXPECT_EQ(code_of([&] {
              train_saes(*engine_, std::vector<Site>{site(1)}, documents_, options_, "/proc/saif_nowhere", {});
            }),
            Errc::kIo);
  options_.batch = 1 << 20;
  std::string message;
  EXPECT_EQ(code_of([&] { train({site(1)}, "large"); }, &message), Errc::kInvalidArgument);
  EXPECT_NE(message.find("batch"), std::string::npos) << message;
}

// Latent i is the positive part of coordinate i, latent d + i the negative one: the reconstruction is the input.
std::shared_ptr<const Sae> identity_sae(int64_t d, const std::string& site, const std::string& model) {
  SaeConfig config;
  config.kind = SaeKind::kStandard;
  config.d_in = config.d_out = d;
  config.d_sae = 2 * d;
  config.apply_b_dec_to_input = false;
  config.site = site;
  config.model = model;
  SaeWeights w;
  w.w_enc = Tensor::zeros(DType::kF32, {2 * d, d});
  w.w_dec = Tensor::zeros(DType::kF32, {2 * d, d});
  w.b_enc = Tensor::zeros(DType::kF32, {2 * d});
  w.b_dec = Tensor::zeros(DType::kF32, {d});
  for (int64_t i = 0; i < d; ++i) {
    w.w_enc.f32()(i, i) = w.w_dec.f32()(i, i) = 1.0f;
    w.w_enc.f32()(d + i, i) = w.w_dec.f32()(d + i, i) = -1.0f;
  }
  return Sae::from_weights(config, std::move(w));
}

TEST_F(Trained, APerfectReconstructionCostsNothing) {
  const auto sae = identity_sae(64, "blocks.2.hook_resid_post", "");
  const SaeEvaluation e = evaluate_sae(*sae, *engine_, std::span(documents_).first(6), {});
  EXPECT_NEAR(e.ce_sae, e.ce_clean, 1e-5);
  EXPECT_GT(e.ce_zero, e.ce_clean + 0.5);
  EXPECT_NEAR(e.loss_recovered, 1.0, 1e-4);
  EXPECT_NEAR(e.fidelity.fvu, 0.0, 1e-9);
  const std::vector<std::vector<int32_t>> empty = {{1}};
  EXPECT_EQ(code_of([&] { (void)evaluate_sae(*sae, *engine_, empty, {}); }), Errc::kInvalidArgument);
}

TEST_F(Trained, TheAcceptanceCheckRefusesWhatDoesNotBelong) {
  const std::string good_site = "blocks.2.hook_resid_post", model = engine_->model().name();
  const auto check = [&](const Sae& sae, const AcceptanceOptions& options = {}) {
    (void)check_sae(sae, *engine_, options, {});
  };
  EXPECT_NO_THROW(check(*identity_sae(64, good_site, model)));
  EXPECT_EQ(code_of([&] { check(*identity_sae(48, good_site, model)); }), Errc::kMismatch);
  EXPECT_EQ(code_of([&] { check(*identity_sae(64, "blocks.99.hook_resid_post", model)); }), Errc::kMismatch);
  EXPECT_EQ(code_of([&] { check(*identity_sae(64, "", model)); }), Errc::kMismatch);
  EXPECT_EQ(code_of([&] { check(*identity_sae(64, good_site, "gpt2-small")); }), Errc::kMismatch);
  EXPECT_NO_THROW(check(*identity_sae(64, good_site, "gpt2-small"), {.enforce = false, .site = ""}));
  EXPECT_NO_THROW(check(*identity_sae(64, "", model), {.enforce = true, .site = good_site}));
  SaeConfig config = identity_sae(64, good_site, model)->config();
  config.published_l0 = 20.0;  // measured: 64
  SaeWeights w;
  w.w_enc = identity_sae(64, good_site, model)->decoder_rows([] {
    std::vector<int32_t> all(128);
    std::iota(all.begin(), all.end(), 0);
    return all;
  }());
  w.w_dec = w.w_enc.clone();
  w.b_enc = Tensor::zeros(DType::kF32, {128});
  w.b_dec = Tensor::zeros(DType::kF32, {64});
  std::string message;
  const auto wrong_l0 = Sae::from_weights(config, std::move(w));
  EXPECT_EQ(code_of([&] { check(*wrong_l0); }, &message), Errc::kRefused);
  EXPECT_NE(message.find("L0"), std::string::npos) << message;
  EXPECT_NO_THROW(check(*wrong_l0, {.enforce = false, .site = ""}));
}

}  // namespace
}  // namespace saif
