// The engine on what lies outside the repository: a golden steered text, and the real small model.
#include "saif/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "formats/safetensors.h"
#include "kernels/backend.h"
#include "saif/json.h"
#include "support/paths.h"
#include "support/run_model.h"

namespace saif {
namespace {

class AddVector : public RowEdit {
 public:
  explicit AddVector(std::vector<float> v) : v_(std::move(v)) {}
  void apply(Mat<float> h, std::span<const int64_t> /*steps*/) const override {
    for (int64_t r = 0; r < h.rows(); ++r)
      for (int64_t c = 0; c < h.cols(); ++c) h(r, c) += v_[static_cast<size_t>(c)];
  }

 private:
  std::vector<float> v_;
};

std::vector<int32_t> ids_of(const TensorView& view) {
  const auto* from = static_cast<const int64_t*>(view.data);
  return {from, from + view.elements()};
}

void expect_texts(const std::string& folder) {
  const auto golden = SafetensorsFile::open(folder + "/golden.safetensors");
  const Json about = read_json_file(folder + "/golden.json");
  Engine engine(Model::load(folder + "/model", {"f32"}), nullptr);
  GenerateRequest plain;
  plain.ids = ids_of(golden.at("ids"));
  plain.ids.resize(16);
  plain.max_new_tokens = 24;
  GenerateRequest steered = plain;
  const auto* v = static_cast<const float*>(golden.at("steer_vector").data);
  steered.edits = {{Site::parse(about.at("steer_site").as_string()), EditPositions::kGenerated,
                    std::make_shared<AddVector>(std::vector<float>(v, v + golden.at("steer_vector").elements()))}};
  const std::vector<GenerateRequest> requests = {steered, plain, steered};
  const auto results = engine.generate(requests, Control());
  EXPECT_EQ(results[0].ids, ids_of(golden.at("steered_greedy"))) << folder;
  EXPECT_EQ(results[1].ids, ids_of(golden.at("greedy"))) << folder;
  EXPECT_EQ(results[2].ids, results[0].ids);
  EXPECT_EQ(results[0].edited_rows, 24);
}

TEST(EngineGolden, SteeredAndPlainTextsOfOneBatch) {
  for (const std::string family : {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3",
                                   "phi3_longrope", "gpt2", "gpt_neox"}) {
    SAIF_REQUIRE_SHARED("data/goldens/" + family);
    expect_texts(test::shared_dir("data/goldens/" + family));
  }
}

TEST(EngineGolden, TheSameOfTheProjectsOwnGoldens) {
  int models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(SAIF_SOURCE_DIR) + "/tests/data/goldens")) {
    if (!entry.is_directory()) continue;
    expect_texts(entry.path().string());
    ++models;
  }
  EXPECT_GE(models, 20);
}

// A prompt beyond longrope's original context is rotated by the long divisors from its first token on; one within it
// that it shares its beginning with is not.
TEST(EngineGolden, LongAndShortPromptsOfOneCallDoNotShare) {
  const auto model =
      Model::load(std::string(SAIF_SOURCE_DIR) + "/tests/data/goldens/phi3_longrope_short/model", {"f32"});
  ASSERT_EQ(model->architecture().rope_context(), 64);
  std::vector<int32_t> long_prompt;
  for (int i = 0; i < 90; ++i) long_prompt.push_back(3 + (i * 31 + i / 7) % 90);
  const std::vector<std::vector<int32_t>> prompts = {{long_prompt.begin(), long_prompt.begin() + 40}, long_prompt};
  Engine engine(model, nullptr);
  const Site site = Site::parse("blocks.1.hook_resid_post");
  const auto together = engine.capture(prompts, {&site, 1}, false, Control());
  const Mat<const float> values = together.sites[0].second.f32();
  float differs = 0;
  for (size_t p = 0; p < 2; ++p) {
    const auto alone = engine.capture({&prompts[p], 1}, {&site, 1}, false, Control());
    for (size_t i = 0; i < prompts[p].size(); ++i) {
      const float* row = values.row(together.row_offsets[p] + static_cast<int64_t>(i));
      const float* expected = alone.sites[0].second.f32().row(static_cast<int64_t>(i));
      ASSERT_TRUE(std::equal(row, row + values.cols(), expected)) << "prompt " << p << " token " << i;
      if (p == 1 && i == 39) {
        for (int64_t c = 0; c < values.cols(); ++c) differs = std::max(differs, std::abs(row[c] - values(39, c)));
      }
    }
  }
  EXPECT_GT(differs, 1e-3F) << "the long divisors changed nothing";
}

// Prompts of the discovery job.
std::vector<std::vector<int32_t>> discovery_prompts(const Tokenizer& tokenizer, size_t n_contents) {
  const Json job = read_json_file(test::shared_dir("data/jobs/discovery.json"));
  std::vector<std::vector<int32_t>> prompts;
  for (size_t c = 0; c < std::min(n_contents, job.at("contents").items().size()); ++c)
    for (const Json& variant : job.at("variants").items()) {
      std::string text = job.at("contents")[c].as_string();
      if (!variant.as_string().empty()) text += job.at("separator").as_string() + variant.as_string();
      prompts.push_back(encode_chat(tokenizer, std::vector<Message>{{"user", text}}, true));
    }
  return prompts;
}

class Smollm2 : public testing::Test {
 protected:
  void SetUp() override {
    SAIF_REQUIRE_SMOLLM2();
    SAIF_REQUIRE_SHARED("data/jobs/discovery.json");
    static const auto model = Model::load(test::model_path("smollm2"));
    static const auto tokenizer = Tokenizer::load(test::model_path("smollm2"));
    engine_ = std::make_unique<Engine>(model, tokenizer);
  }
  std::unique_ptr<Engine> engine_;
};

TEST_F(Smollm2, DiscoveryJobComputesSharedTokensOnce) {
  const auto prompts = discovery_prompts(engine_->tokenizer(), 24);
  const Site site{SiteKind::kResidPost, 24};
  const auto capture = engine_->capture(prompts, {&site, 1}, true, Control());
  EXPECT_EQ(prompts.size(), 744U);
  EXPECT_EQ(capture.tokens.naive, 54526);
  EXPECT_EQ(capture.tokens.computed, 7639);
  // Against whole passes over single prompts.
  for (const size_t p : {0, 100, 743}) {
    Forward forward(engine_->model_ptr());
    test::Recorder recorder({site.name()});
    test::Sequence(forward, engine_->model().architecture()).append(prompts[p], {&recorder}, true);
    const std::vector<float> all = recorder.all(site.name());
    const float* found = capture.at(site.name()).f32().row(static_cast<int64_t>(p));
    EXPECT_TRUE(std::equal(all.end() - 576, all.end(), found)) << "prompt " << p;
  }
}

void expect_same_answers_in_any_batch(Engine& engine) {
  const auto prompts = discovery_prompts(engine.tokenizer(), 1);
  std::vector<GenerateRequest> requests;
  for (size_t i = 0; i < 24; ++i) {
    GenerateRequest r;
    r.ids = prompts[i % prompts.size()];
    r.max_new_tokens = 6;
    r.stream = static_cast<int64_t>(i);
    r.sampling.repetition_penalty = 1.15;
    if (i % 3 == 0) r.sampling.temperature = 0.8;
    if (i % 2 == 0)
      r.edits = {{{SiteKind::kResidPost, 24},
                  i % 4 == 0 ? EditPositions::kGenerated : EditPositions::kAll,
                  std::make_shared<AddVector>(std::vector<float>(576, static_cast<float>(i) / 8.0F))}};
    requests.push_back(std::move(r));
  }
  const auto together = engine.generate(requests, Control());
  for (const size_t i : {0, 1, 2, 3, 12, 23}) {
    const auto alone = engine.generate({&requests[i], 1}, Control())[0];
    EXPECT_EQ(together[i].ids, alone.ids) << i;
    EXPECT_EQ(together[i].text, alone.text) << i;
    EXPECT_EQ(together[i].edited_rows, alone.edited_rows) << i;
  }
}

TEST_F(Smollm2, AnswersDoNotDependOnTheBatch) { expect_same_answers_in_any_batch(*engine_); }

TEST_F(Smollm2, AnswersFromKeysInBfloat16DoNotDependOnTheBatch) {
  Engine engine(Model::load(test::model_path("smollm2"), {.kv = "bf16"}), Tokenizer::load(test::model_path("smollm2")));
  expect_same_answers_in_any_batch(engine);
}

TEST_F(Smollm2, KeysAreInBfloat16WhereAttentionIsFasterSo) {
  const auto kv_of = [](const LoadOptions& options) {
    return Model::load(test::model_path("smollm2"), options)->architecture().kv_dtype;
  };
  const bool tiles = make_cpu_backend()->has_bf16_attention(engine_->model().architecture().d_head);
  EXPECT_EQ(kv_of({}), tiles ? DType::kBf16 : DType::kF32);
  EXPECT_EQ(kv_of({.dtype = "f32"}), DType::kF32);
  EXPECT_EQ(kv_of({.kv = "f32"}), DType::kF32);
  EXPECT_EQ(kv_of({.isa = "generic"}), DType::kF32);
}

TEST_F(Smollm2, AnswersFromActivationsOf8BitsDoNotDependOnTheBatch) {
  if (!make_cpu_backend()->has_int8()) GTEST_SKIP() << "this CPU has no dot products of 8 bits";
  Engine engine(Model::load(test::model_path("smollm2"), {.quantised = "int8"}),
                Tokenizer::load(test::model_path("smollm2")));
  expect_same_answers_in_any_batch(engine);
}

}  // namespace
}  // namespace saif
