// Discovery, evaluation and sweeps on a tiny model: planted latents are found, settings do not see each other, a
// stopped sweep goes on where it was.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>

#include "saif/sweep.h"
#include "support/engine_fixtures.h"

namespace saif {
namespace {

namespace fs = std::filesystem;

// Letters and the line break between content and instruction.
class LineTokenizer : public test::LetterTokenizer {
 public:
  using LetterTokenizer::LetterTokenizer;
  std::vector<int32_t> encode(std::string_view text, EncodeOptions /*options*/) const override {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(c == '\n' ? 30 : c - 'a');
    return ids;
  }
};

std::shared_ptr<const Tokenizer> line_tokenizer() {
  std::vector<std::string> pieces;
  for (int i = 0; i < 50; ++i) pieces.push_back(std::string(1, static_cast<char>('a' + i % 26)) + (i % 4 ? "" : " "));
  return std::make_shared<LineTokenizer>(pieces);
}

Task letters_task(const std::string& name, const std::string& prefix) {
  Task task;
  task.name = task.title = name;
  task.variants = {{"en", "qqq"}, {"en", "qzq"}, {"en", "zqq"}, {"de", "qqz"}};
  task.unrelated = {"mmm", "mnm", "nmm"};
  task.verifier = "prefix";
  task.verifier_args = Json::object({{"text", prefix}});
  task.sha256 = name;
  return task;
}

std::vector<Content> contents_of(Split split, int n) {
  Rng rng(static_cast<uint64_t>(split) + 5);
  std::vector<Content> out;
  for (int i = 0; i < n; ++i) {
    std::string text;
    for (int c = 0; c < 6; ++c) text += static_cast<char>('a' + rng.below(12));
    out.push_back({std::string(name_of(split)) + std::to_string(i), text, text, split});
  }
  return out;
}

constexpr const char* kSite = "blocks.1.hook_resid_post";

class StudyTest : public testing::Test {
 protected:
  StudyTest() : engine_(test::tiny(), line_tokenizer()), task_(letters_task("q", "a")) {}

  Discovery discovery_of(const std::shared_ptr<const Sae>& sae) {
    return find_latents(engine_, {&sae, 1}, {&task_, 1}, contents_of(Split::kDiscovery, 8), find_options(), control_)[0]
        .discoveries[0];
  }

  // Latent 5 reads the difference between prompts with and without the instruction and fires above its middle; the
  // others are random directions.
  std::shared_ptr<const Sae> planted_sae() {
    const std::vector<Content> contents = contents_of(Split::kDiscovery, 8);
    std::vector<std::vector<int32_t>> with, without;
    for (const Content& c : contents) {
      without.push_back(prompt_ids(engine_.tokenizer(), c.text));
      for (const Variant& v : task_.variants) {
        with.push_back(prompt_ids(engine_.tokenizer(), place(c.text, v.text, Placement::kPost)));
      }
    }
    const Site site = Site::parse(kSite);
    const Tensor plus = std::move(engine_.capture(with, {&site, 1}, true, control_).sites[0].second);
    const Tensor minus = std::move(engine_.capture(without, {&site, 1}, true, control_).sites[0].second);
    SaeConfig config;
    config.kind = SaeKind::kJumpRelu;
    config.d_in = config.d_out = 24;
    config.d_sae = 40;
    config.site = kSite;
    config.apply_b_dec_to_input = false;
    Rng rng(1);
    SaeWeights w{Tensor::zeros(DType::kF32, {40, 24}), Tensor::zeros(DType::kF32, {40}),
                 Tensor::zeros(DType::kF32, {40, 24}), Tensor::zeros(DType::kF32, {24}),
                 Tensor::zeros(DType::kF32, {40})};
    for (int64_t i = 0; i < 40 * 24; ++i) {
      w.w_enc.as<float>()[i] = w.w_dec.as<float>()[i] = static_cast<float>(0.3 * rng.normal());
    }
    double mean_plus = 0, mean_minus = 0;
    for (int64_t c = 0; c < 24; ++c) {
      double p = 0, m = 0;
      for (int64_t r = 0; r < plus.f32().rows(); ++r) p += plus.f32()(r, c) / static_cast<double>(plus.f32().rows());
      for (int64_t r = 0; r < minus.f32().rows(); ++r) m += minus.f32()(r, c) / static_cast<double>(minus.f32().rows());
      w.w_enc.f32()(5, c) = static_cast<float>(p - m);
      mean_plus += p * (p - m);
      mean_minus += m * (p - m);
    }
    const double threshold = 0.5 * (mean_plus + mean_minus);
    w.threshold.as<float>()[5] = static_cast<float>(threshold);
    const auto fires = [&](Mat<const float> h, int64_t r) {
      double pre = 0;
      for (int64_t c = 0; c < 24; ++c) pre += static_cast<double>(h(r, c)) * w.w_enc.f32()(5, c);
      return pre > threshold;
    };
    int64_t pairs = 0;
    for (int64_t r = 0; r < plus.f32().rows(); ++r) pairs += fires(plus.f32(), r) && !fires(minus.f32(), r / 4);
    planted_ = static_cast<double>(pairs) / static_cast<double>(plus.f32().rows());
    return Sae::from_weights(config, std::move(w));
  }

  FindOptions find_options() const {
    FindOptions o;
    o.contents = 0;
    o.k = 5;
    o.rank = "sensitivity";
    return o;
  }

  Engine engine_;
  Task task_;
  Control control_;
  double planted_ = 0;  // sensitivity of the planted latent, from its definition
};

TEST_F(StudyTest, FindsAPlantedLatent) {
  const auto sae = planted_sae();
  const std::vector<Content> contents = contents_of(Split::kDiscovery, 8);
  const auto results = find_latents(engine_, {&sae, 1}, {&task_, 1}, contents, find_options(), control_);
  ASSERT_EQ(results.size(), 1u);
  const Discovery& d = results[0].discoveries.at(0);
  EXPECT_EQ(d.pairs, 32);
  EXPECT_EQ(d.latents.at(0).index, 5);
  EXPECT_DOUBLE_EQ(d.latents[0].sensitivity, planted_);
  EXPECT_GT(planted_, 0.6);
  EXPECT_LE(d.latents[0].ci.low, d.latents[0].sensitivity);
  EXPECT_GE(d.latents[0].ci.high, d.latents[0].sensitivity);
  EXPECT_EQ(d.latents[0].top.size(), 8u);
  EXPECT_LT(results[0].tokens.computed, results[0].tokens.naive);
  const auto again = find_latents(engine_, {&sae, 1}, {&task_, 1}, contents, find_options(), control_);
  EXPECT_EQ(again[0].discoveries[0].to_json().dump(), d.to_json().dump());
}

TEST_F(StudyTest, BothPlacementsAreKeptApart) {
  const auto sae = planted_sae();
  FindOptions options = find_options();
  options.placement = "post,pre";
  const auto results =
      find_latents(engine_, {&sae, 1}, {&task_, 1}, contents_of(Split::kDiscovery, 4), options, control_);
  ASSERT_EQ(results[0].discoveries.size(), 2u);
  EXPECT_EQ(results[0].discoveries[1].placement, "pre");
  EXPECT_NE(results[0].discoveries[0].diffmean, results[0].discoveries[1].diffmean);
}

TEST_F(StudyTest, RefusesAnSaeOfAnotherWidthAndALargeK) {
  const auto sae = planted_sae();
  FindOptions options = find_options();
  options.k = 41;
  const auto find = [&] {
    find_latents(engine_, {&sae, 1}, {&task_, 1}, contents_of(Split::kDiscovery, 2), options, control_);
  };
  EXPECT_NE(std::string(test::error_of(find).what()).find("40 latents"), std::string::npos);
}

// A method's answers do not depend on what else is evaluated in the call.
TEST_F(StudyTest, MethodsDoNotSeeEachOther) {
  const auto sae = planted_sae();
  const std::vector<Content> contents = contents_of(Split::kTest, 10);
  const Discovery d = discovery_of(sae);
  EvalOptions options;
  options.decode.max_new_tokens = 6;
  options.perplexity = true;
  std::vector<EvalRequest> requests;
  for (const char* method : {"none", "prompt", "saif", "diffmean", "random"}) {
    Recipe r;
    r.method = method;
    r.layer = 1;
    r.k = 3;
    r.scale = 4;
    requests.push_back({&task_, r, build_vectors(d, *sae, r, contents.size())});
  }
  const auto together = evaluate(engine_, requests, contents, options, control_);
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto alone = evaluate(engine_, {&requests[i], 1}, contents, options, control_);
    EXPECT_EQ(alone[0].to_json().dump(), together[i].to_json().dump());
    for (size_t c = 0; c < contents.size(); ++c) EXPECT_EQ(alone[0].answers[c].text, together[i].answers[c].text);
    EXPECT_GT(together[i].perplexity, 1.0);
  }
  EXPECT_NE(together[0].answers[0].text, together[2].answers[0].text) << "a strong vector changed nothing";
}

TEST_F(StudyTest, AStoppedSweepGoesOnWhereItWas) {
  const auto sae = planted_sae();
  std::vector<Content> contents = contents_of(Split::kTuning, 6);
  for (Content& c : contents_of(Split::kTest, 6)) contents.push_back(c);
  const auto d =
      find_latents(engine_, {&sae, 1}, {&task_, 1}, contents_of(Split::kDiscovery, 8), find_options(), control_);
  SweepOptions options;
  options.k = {1, 3};
  options.beta = {0};
  options.scale = {1, 4};
  options.contents = 4;
  options.confirm = 2;
  EvalOptions eval;
  eval.decode.max_new_tokens = 5;
  const auto run = [&](const std::string& folder, const Control& control) {
    const auto study = Study::open(folder, Study::Mode::kCreateOrOpen);
    study->save_discovery(d[0].discoveries[0]);
    return sweep(*study, engine_, {&sae, 1}, task_, contents, options, eval, control);
  };
  const std::string base = testing::TempDir() + "saif_sweep_" + std::to_string(::getpid());
  fs::remove_all(base);
  int total = 0;
  Control counting;
  counting.on_progress = [&](const Progress&) { ++total; };
  const SweepResult whole = run(base + "/whole", counting);
  EXPECT_GT(whole.computed, 4);
  EXPECT_EQ(whole.reused, 0);

  Control stopping;
  int reports = 0;
  stopping.on_progress = [&](const Progress&) {
    if (++reports == total / 2) stopping.request_stop();
  };
  EXPECT_EQ(test::error_of([&] { run(base + "/cut", stopping); }).code(), Errc::kInterrupted);
  const SweepResult resumed = run(base + "/cut", control_);
  EXPECT_EQ(resumed.best_test.to_json().dump(), whole.best_test.to_json().dump());
  EXPECT_EQ(resumed.cells.size(), whole.cells.size());
  const SweepResult third = run(base + "/cut", control_);
  EXPECT_EQ(third.computed, 0);
  EXPECT_EQ(third.reused, whole.computed);
  fs::remove_all(base);
}

TEST_F(StudyTest, ALargeStageIsScreenedOnFewContents) {
  const auto sae = planted_sae();
  std::vector<Content> contents = contents_of(Split::kTuning, 6);
  for (Content& c : contents_of(Split::kTest, 6)) contents.push_back(c);
  FindOptions find = find_options();
  find.placement = "post,pre";
  const auto d = find_latents(engine_, {&sae, 1}, {&task_, 1}, contents_of(Split::kDiscovery, 8), find, control_);
  const std::string folder = testing::TempDir() + "saif_screen_" + std::to_string(::getpid());
  fs::remove_all(folder);
  const auto study = Study::open(folder, Study::Mode::kCreateOrOpen);
  for (const Discovery& discovery : d[0].discoveries) study->save_discovery(discovery);

  SweepOptions options;
  options.k = {1, 3};
  options.beta = {0};
  options.scale = {0.5, 1, 2, 4, 8, 16, 32};
  options.decay = {0, 1};
  options.placement = {"post", "pre"};
  options.norm_preserving = true;
  options.rounds = 1;
  options.contents = 4;
  options.screen = 2;
  options.confirm = 2;
  EvalOptions eval;
  eval.decode.max_new_tokens = 5;
  const SweepResult result = sweep(*study, engine_, {&sae, 1}, task_, contents, options, eval, control_);
  // 28 joint cells, of which 6 go on; then placement and norm, each with one value that is new.
  std::map<int64_t, int> with_n;
  double screened_best = 0, kept_worst = 1;
  for (const auto& cell : result.cells) {
    ++with_n[cell.result.strict.n];
    if (cell.result.strict.n == 2) screened_best = std::max(screened_best, cell.result.strict.value());
  }
  EXPECT_EQ(with_n, (std::map<int64_t, int>{{2, 22}, {4, 8}}));
  for (const auto& row : study->cells("", "tuning")) {
    if (row.result.strict.n != 2) continue;
    const bool dropped =
        std::any_of(result.cells.begin(), result.cells.end(), [&](const auto& cell) { return cell.key == row.key; });
    if (!dropped) kept_worst = std::min(kept_worst, row.result.strict.value());
  }
  EXPECT_LE(screened_best, kept_worst);
  EXPECT_EQ(result.best_tuning.strict.n, 6);
  EXPECT_EQ(result.best_test.strict.n, 6);

  options.order = "random";
  options.trials = 20;
  options.confirm = 1;
  const SweepResult drawn = sweep(*study, engine_, {&sae, 1}, task_, contents, options, eval, control_);
  EXPECT_GT(drawn.cells.size(), 12U);  // of 28 settings, some twice
  EXPECT_LE(drawn.cells.size(), 20U);
  EXPECT_EQ(sweep(*study, engine_, {&sae, 1}, task_, contents, options, eval, control_).computed, 0);
  options.seed = 1;
  EXPECT_GT(sweep(*study, engine_, {&sae, 1}, task_, contents, options, eval, control_).computed, 0);

  options.scale = {};
  EXPECT_EQ(test::error_of([&] {
              sweep(*study, engine_, {&sae, 1}, task_, contents, options, eval, control_);
            }).code(),
            Errc::kInvalidArgument);
  fs::remove_all(folder);
}

TEST_F(StudyTest, PerplexityIsAddedToCellsThatWereAnsweredWithout) {
  const auto sae = planted_sae();
  const std::vector<Content> contents = contents_of(Split::kTest, 6);
  const Discovery d = discovery_of(sae);
  const std::string folder = testing::TempDir() + "saif_study_score_" + std::to_string(::getpid());
  fs::remove_all(folder);
  const auto study = Study::open(folder, Study::Mode::kCreateOrOpen);
  Recipe r;
  r.layer = 1;
  r.k = 3;
  r.scale = 4;
  const CellRequest request{r, build_vectors(d, *sae, r, contents.size())};
  EvalOptions options;
  options.decode.max_new_tokens = 6;
  const auto run = [&] {
    const auto out = run_cells(*study, engine_, task_, {&request, 1}, contents, "test", options, control_);
    return std::pair(out[0].computed, out[0].row.result);
  };
  const auto [first, unscored] = run();
  EXPECT_TRUE(first);
  EXPECT_EQ(unscored.perplexity, 0);
  options.perplexity = true;
  const auto [second, scored] = run();
  EXPECT_FALSE(second) << "answered again";
  EXPECT_EQ(study->cells().size(), 1U);
  const auto whole =
      evaluate(engine_, std::vector<EvalRequest>{{&task_, r, request.vectors}}, contents, options, control_);
  EXPECT_GT(scored.perplexity, 1);
  EXPECT_EQ(scored.to_json().dump(), whole[0].to_json().dump());
  const auto [third, kept] = run();
  EXPECT_FALSE(third);
  EXPECT_EQ(kept.perplexity, scored.perplexity);
  fs::remove_all(folder);
}

TEST_F(StudyTest, WhatCannotBeSearchedIsRefused) {
  const auto sae = planted_sae();
  const std::vector<std::shared_ptr<const Sae>> twice = {sae, planted_sae()};
  EXPECT_NE(
      std::string(
          test::error_of([&] {
            find_latents(engine_, twice, {&task_, 1}, contents_of(Split::kDiscovery, 8), find_options(), control_);
          }).what())
          .find("two SAEs at layer 1"),
      std::string::npos);
  const std::string folder = testing::TempDir() + "saif_study_refused_" + std::to_string(::getpid());
  fs::remove_all(folder);
  const auto study = Study::open(folder, Study::Mode::kCreateOrOpen);
  const auto found =
      find_latents(engine_, {&sae, 1}, {&task_, 1}, contents_of(Split::kDiscovery, 8), find_options(), control_);
  study->save_discovery(found[0].discoveries[0]);
  std::vector<Content> contents = contents_of(Split::kTuning, 4);
  for (Content& c : contents_of(Split::kTest, 4)) contents.push_back(c);
  SweepOptions options;
  options.rounds = 0;
  EXPECT_NE(std::string(test::error_of([&] {
                          sweep(*study, engine_, {&sae, 1}, task_, contents, options, {}, control_);
                        }).what())
                .find("rounds is 0"),
            std::string::npos);
  fs::remove_all(folder);
}

// A latent that fires with the instruction on every content: an interval of no width would claim certainty.
TEST_F(StudyTest, AgreementOfFewContentsIsNoCertainty) {
  const auto sae = planted_sae();
  const Discovery d = discovery_of(sae);
  for (const LatentStats& s : d.latents) {
    EXPECT_LE(s.ci.low, s.sensitivity);
    EXPECT_GE(s.ci.high, s.sensitivity);
    EXPECT_GT(s.ci.high - s.ci.low, 0.02) << "latent " << s.index << " at " << s.sensitivity;
  }
  EXPECT_GE(d.stability_contents, 0);
  EXPECT_LE(d.stability_contents, 1);
  EXPECT_GE(d.stability_wordings, 0);
}

// Content c of a control with draws is steered by the (c mod draws)-th vector.
TEST_F(StudyTest, DrawsOfAControlAreSharedOutOverTheContents) {
  const auto sae = planted_sae();
  const std::vector<Content> contents = contents_of(Split::kTest, 6);
  const Discovery d = discovery_of(sae);
  Recipe r;
  r.method = "random";
  r.layer = 1;
  r.k = 3;
  r.scale = 4;
  r.draws = 2;
  EvalOptions options;
  options.decode.max_new_tokens = 6;
  std::vector<EvalRequest> requests = {{&task_, r, build_vectors(d, *sae, r, contents.size())}};
  r.draws = 1;
  for (r.seed = 0; r.seed < 2; ++r.seed) requests.push_back({&task_, r, build_vectors(d, *sae, r, contents.size())});
  const auto results = evaluate(engine_, requests, contents, options, control_);
  int differ = 0;
  for (size_t c = 0; c < contents.size(); ++c) {
    EXPECT_EQ(results[0].answers[c].text, results[1 + c % 2].answers[c].text);
    differ += results[1].answers[c].text != results[2].answers[c].text;
  }
  EXPECT_GT(differ, 0) << "two draws steer alike";
}

TEST_F(StudyTest, AControlMayHaveFewerContents) {
  Recipe none, prompt;
  none.method = "none";
  prompt.method = "prompt";
  const std::vector<Content> contents = contents_of(Split::kTest, 6);
  std::vector<EvalRequest> requests = {{&task_, none, {}}, {&task_, prompt, {}, 2}};
  EvalOptions eval;
  eval.decode.max_new_tokens = 5;
  const auto results = evaluate(engine_, requests, contents, eval, control_);
  EXPECT_EQ(results[0].strict.n, 6);
  EXPECT_EQ(results[1].strict.n, 2);
  ASSERT_EQ(results[1].answers.size(), 2U);
  EXPECT_EQ(results[1].answers[1].content_id, contents[1].id);
}

}  // namespace
}  // namespace saif
