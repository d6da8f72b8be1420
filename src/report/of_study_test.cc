#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "saif/sweep.h"

namespace saif {
namespace {

// A study in memory.
class MemoryStudy : public Study {
 public:
  const std::string& folder() const override { return folder_; }
  Json manifest() const override { return manifest_; }
  void set_manifest(const Json& manifest) override { manifest_ = manifest; }
  void save_discovery(const Discovery& discovery) override { discoveries_.push_back(discovery); }
  std::vector<Discovery> discoveries(const std::string& task) const override {
    std::vector<Discovery> out;
    for (const Discovery& d : discoveries_) {
      if (task.empty() || d.task == task) out.push_back(d);
    }
    return out;
  }
  std::vector<std::string> tasks() const override { return {"no_such_task"}; }
  bool has_cell(const std::string& key) const override { return !key.empty(); }
  void save_cell(const CellRow& cell) override { cells_.push_back(cell); }
  void save_cell(const std::string& key, const std::string& task, const std::string& split, const MethodResult& result,
                 const Json& conditions = {}) {
    cells_.push_back({key, task, split, conditions, result});
  }
  MethodResult cell(const std::string& key) const override {
    for (const CellRow& row : cells_) {
      if (row.key == key) return row.result;
    }
    throw Error(Errc::kNotFound, key);
  }
  std::vector<CellRow> cells(const std::string& task, const std::string& split) const override {
    std::vector<CellRow> out;
    for (CellRow row : cells_) {
      row.result.answers.clear();
      if (row.task == task && row.split == split) out.push_back(row);
    }
    return out;
  }
  void save_explanation(const std::string& /*task*/, const Json& explanation) override {
    explanations_.push_back(explanation);
  }
  Json explanation(const std::string& /*task*/, const std::string& sae, int32_t index) const override {
    for (const Json& e : explanations_) {
      if (e.at("sae_sha256").as_string() == sae && e.at("index").as_int() == index) return e;
    }
    return {};
  }

 private:
  std::vector<Json> explanations_;
  std::string folder_ = "study";
  Json manifest_ = Json::object({{"model", Json::object({{"name", "Tiny"}})}});
  std::vector<Discovery> discoveries_;
  std::vector<CellRow> cells_;
};

// A result of which the first `hits` of `n` answers are strict.
MethodResult result_of(const std::string& method, int k, int64_t hits, int64_t n,
                       const std::string& placement = "post") {
  MethodResult out;
  out.recipe.method = method;
  out.recipe.placement = placement;
  out.recipe.layer = method == "none" || method == "prompt" ? -1 : 3;
  out.recipe.k = k;
  out.strict = out.checker = out.loose = {hits, n};
  for (int64_t i = 0; i < n; ++i) {
    Answer& a = out.answers.emplace_back();
    a.content_id = "c" + std::to_string(i);
    a.prompt = "prompt " + std::to_string(i);
    a.text = method + " " + std::to_string(i);
    a.verdict.strict = a.verdict.checker = i < hits;
  }
  return out;
}

const std::string kTask = "no_such_task";

MemoryStudy full_study() {
  MemoryStudy study;
  Discovery d;
  d.task = kTask;
  d.placement = "post";
  for (const int layer : {2, 3}) {
    d.site = "blocks." + std::to_string(layer) + ".hook_resid_post";
    d.latents.resize(8);
    study.save_discovery(d);
  }
  study.save_cell("t1", kTask, "tuning", result_of("saif", 1, 4, 10));
  study.save_cell("t5", kTask, "tuning", result_of("saif", 5, 6, 10));
  study.save_cell("t5b", kTask, "tuning", result_of("saif", 5, 11, 20));
  study.save_cell("none", kTask, "test", result_of("none", 15, 1, 12));
  study.save_cell("post", kTask, "test", result_of("prompt", 15, 7, 12));
  study.save_cell("pre", kTask, "test", result_of("prompt", 15, 5, 12, "pre"));
  study.save_cell("s5", kTask, "test", result_of("saif", 5, 8, 12));
  study.save_cell("s1", kTask, "test",
                  result_of("saif", 1, 12, 12));  // better on the test split, not on the tuning split
  return study;
}

TEST(ReportOfStudy, TheTunedSettingStandsForSaifAndOthersAreMarked) {
  const Json report = report_of_study(full_study());
  const Json& task = report.at("tasks")[0];
  EXPECT_EQ(task.at("title").as_string(), kTask);  // no such task file: its name stands for the title
  std::vector<std::string> seen;
  for (const Json& row : task.at("rows").items()) {
    seen.push_back(row.at("method").as_string() + std::to_string(row.at("strict_hits").as_int()) +
                   (row.contains("extra") ? "x" : ""));
  }
  EXPECT_EQ(seen, (std::vector<std::string>{"none1", "prompt7", "prompt5", "saif8", "saif12x"}));
}

// Answers of 80 tokens beside answers of 40, say.
TEST(ReportOfStudy, CellsMadeUnderOtherConditionsAreNoRowsOfTheTable) {
  const Json now = Json::object({{"decode", "40 tokens"}}), other = Json::object({{"decode", "80 tokens"}});
  MemoryStudy study;
  study.save_cell("s80", kTask, "test", result_of("saif", 5, 9, 12), other);
  study.save_cell("n80", kTask, "test", result_of("none", 5, 8, 12), other);
  study.save_cell("t80", kTask, "tuning", result_of("saif", 5, 19, 20), other);
  study.save_cell("t40", kTask, "tuning", result_of("saif", 3, 10, 20), now);
  study.save_cell("s40", kTask, "test", result_of("saif", 3, 4, 12), now);
  const Json report = report_of_study(study);
  std::vector<std::string> seen;
  for (const Json& row : report.at("tasks")[0].at("rows").items()) {
    seen.push_back(row.at("method").as_string() + std::to_string(row.at("strict_hits").as_int()) +
                   (row.contains("extra") ? "x" : ""));
  }
  EXPECT_EQ(seen, (std::vector<std::string>{"saif4", "saif9x", "none8x"}));
}

TEST(ReportOfStudy, PairedTestsAreAgainstSaif) {
  const Json report = report_of_study(full_study());
  const Json& rows = report.at("tasks")[0].at("rows");
  EXPECT_EQ(rows[0].at("against_saif").at("only_saif").as_int(), 7);
  EXPECT_EQ(rows[0].at("against_saif").at("only_this").as_int(), 0);
  EXPECT_DOUBLE_EQ(rows[0].at("against_saif").at("mcnemar_p").as_double(), mcnemar_exact(7, 0));
  EXPECT_DOUBLE_EQ(rows[0].at("against_saif").at("difference").as_double(), 7.0 / 12);
  const Interval ci = paired_difference_interval({1, 7, 0, 4});
  EXPECT_DOUBLE_EQ(rows[0].at("against_saif").at("difference_ci")[0].as_double(), ci.low);
  EXPECT_FALSE(rows[3].contains("against_saif"));
}

TEST(ReportOfStudy, AnswersToOtherPromptsAreNotCompared) {
  MemoryStudy study;
  study.save_cell("s", kTask, "test", result_of("saif", 5, 3, 6));
  MethodResult other = result_of("none", 15, 1, 6);
  other.answers[2].content_id = "elsewhere";
  study.save_cell("n", kTask, "test", other);
  const Json report = report_of_study(study);
  EXPECT_FALSE(report.at("tasks")[0].at("rows")[0].contains("against_saif"));
}

TEST(ReportOfStudy, TheExampleShowsADifferenceAndEndsWithTheSteeredAnswer) {
  const Json report = report_of_study(full_study());
  const Json& example = report.at("examples")[0];
  EXPECT_EQ(example.at("prompt").as_string(), "prompt 1");  // the first that plain fails and steering does not
  ASSERT_EQ(example.at("answers").size(), 3U);
  EXPECT_EQ(example.at("answers")[0].at("text").as_string(), "none 1");
  EXPECT_EQ(example.at("answers")[2].at("text").as_string(), "saif 1");
}

TEST(ReportOfStudy, SweepPlacementAndLatents) {
  const Json report = report_of_study(full_study());
  const Json& cells = report.at("sweep")[0].at("cells");
  ASSERT_EQ(cells.size(), 2U);  // the setting run on more contents counts once, with those
  EXPECT_EQ(cells[1].at("strict_hits").as_int(), 11);
  ASSERT_EQ(report.at("placement")[0].at("rows").size(), 3U);
  EXPECT_EQ(report.at("placement")[0].at("rows")[1].at("label").as_string(), "prompted, pre");
  ASSERT_EQ(report.at("latents").size(), 1U);  // of the block that is steered
  EXPECT_EQ(report.at("latents")[0].at("site").as_string(), "blocks.3.hook_resid_post");
  EXPECT_EQ(report.at("latents")[0].at("latents").size(), 5U);
  EXPECT_EQ(report.at("title").as_string(), "What makes Tiny follow an instruction");
}

TEST(ReportOfStudy, ExplanationsStandWithTheLatentOfTheSameDictionary) {
  MemoryStudy study;
  Discovery d;
  d.task = kTask;
  d.placement = "post";
  d.site = "blocks.3.hook_resid_post";
  d.sae_sha256 = "now";
  d.latents.resize(2);
  d.latents[1].index = 9;
  study.save_discovery(d);
  study.save_explanation(kTask, Json::object({{"sae_sha256", "now"}, {"index", 9}, {"maximum", 3}}));
  study.save_explanation(kTask, Json::object({{"sae_sha256", "before"}, {"index", 0}}));
  const Json report = report_of_study(study);
  const Json& latents = report.at("latents")[0].at("latents");
  EXPECT_FALSE(latents[0].contains("explained"));
  EXPECT_EQ(latents[1].at("explained").at("maximum").as_int(), 3);
}

TEST(ReportOfStudy, AStudyThatOnlySearchedForLatentsShowsThoseOfEverySite) {
  MemoryStudy study;
  for (const Discovery& d : full_study().discoveries("")) study.save_discovery(d);
  const Json report = report_of_study(study);
  EXPECT_EQ(report.at("latents").size(), 2U);
  for (const char* empty : {"tasks", "examples", "sweep", "placement"}) EXPECT_EQ(report.at(empty).size(), 0U) << empty;
}

}  // namespace
}  // namespace saif
