// The demo as its user meets it, on the real model with few prompts, and what the committed study promises of it.
#include "saif/text.h"
#include "support/cli.h"

namespace saif::test {
namespace {

class Demo : public Cli {
 protected:
  static Json committed() { return read_json_file(std::string(SAIF_SOURCE_DIR) + "/data/studies/smollm2.json"); }
  // The committed study with its first two tasks and few prompts.
  std::string small_settings() const {
    Json study = committed();
    study["contents"] = 4;
    study["prompted"] = 3;
    study["controls"] = 2;
    study["find"]["contents"] = 4;
    Json tasks = Json::array();
    for (size_t t = 0; t < 2; ++t) tasks.push_back(study.at("tasks")[t]);
    study["tasks"] = tasks;
    return file("settings.json", study.dump());
  }
};

TEST_F(Demo, FindsSteersAndTests) {
  SAIF_REQUIRE_SMOLLM2();
  const std::string settings = small_settings();
  const ProgramResult result = good({"demo", "--settings", settings, "--json", path("demo.json"), "--report",
                                     path("report.html"), "--svg", path("plot.svg")});
  for (const char* text : {"Answer in French", "Answer in German", "saif against prompting", "plain", "steered"}) {
    EXPECT_NE(result.out.find(text), std::string::npos) << text << "\n" << result.out;
  }
  const Json figures = read_json_file(path("demo.json"));
  EXPECT_GT(figures.at("seconds").as_double(), 0);
  ASSERT_EQ(figures.at("tasks").size(), 2U);
  for (const Json& task : figures.at("tasks").items()) {
    for (const char* key : {"name", "layer", "k", "beta", "scale"}) EXPECT_TRUE(task.contains(key)) << key;
    EXPECT_EQ(task.at("n").as_int(), 4);
    EXPECT_EQ(task.at("n_prompt").as_int(), 3);
    EXPECT_EQ(task.at("n_controls").as_int(), 2);
    EXPECT_EQ(task.at("none_checker").as_double(), 0);
    for (const std::string method : {"none", "prompt", "saif", "diffmean", "random"}) {
      const double strict = task.at(method + "_strict").as_double();
      EXPECT_GE(task.at(method + "_ci")[1].as_double(), strict) << method;
      EXPECT_LE(task.at(method + "_ci")[0].as_double(), strict) << method;
      EXPECT_GE(task.at(method + "_checker").as_double(), strict) << method;
      EXPECT_GE(task.at(method + "_loose").as_double(), strict) << method;
    }
  }
  EXPECT_NE(read_file(path("report.html")).find("Answer in French"), std::string::npos);
  EXPECT_TRUE(read_file(path("plot.svg")).starts_with("<svg"));
  // The same seed and settings: the same figures.
  const Json again = parsed(lines_of(good({"demo", "--settings", settings, "--report", "", "--json", "-"}).out).back());
  EXPECT_EQ(again.at("tasks").dump(), figures.at("tasks").dump());
}

TEST_F(Demo, BadSettingsAreNamed) {
  bad({"demo", "--settings", path("gone.json")}, 1, {path("gone.json")});
  bad({"demo", "--settings", file("empty.json", "{}")}, 1, {"empty.json"});
  Json study = committed();
  study["decode"]["beams"] = 4;
  bad({"demo", "--settings", file("beams.json", study.dump())}, 1, {"beams.json", "beams"});
  SAIF_REQUIRE_SMOLLM2();
  study = committed();
  Json task = study.at("tasks")[0];
  task["saif"]["layer"] = 3;
  study["tasks"] = Json::array();
  study["tasks"].push_back(task);
  bad({"demo", "--settings", file("layer.json", study.dump()), "--report", ""}, 1, {"block 3"});
}

// find, vector, run: bees in French, though nobody asked for French.
TEST_F(Demo, AVectorMakesTheModelAnswerInFrench) {
  SAIF_REQUIRE_SMOLLM2();
  const Json recipe = committed().at("tasks")[0].at("saif");
  const std::string layer = std::to_string(recipe.at("layer").as_int());
  good({"find", "--model", "smollm2", "--task", "french", "--out", path("study"), "--sae",
        std::string(SAIF_SOURCE_DIR) + "/models/smollm2-135m-instruct/blocks." + layer + ".hook_resid_post"});
  const Words settings = {"--layer", layer,
                          "--k",     std::to_string(recipe.at("k").as_int()),
                          "--beta",  std::to_string(recipe.at("beta").as_double()),
                          "--scale", std::to_string(recipe.at("scale").as_double()),
                          "--rank",  recipe.at("rank").as_string(),
                          "--op",    recipe.at("op").as_string(),
                          "--decay", std::to_string(recipe.at("decay").as_double())};
  Words vector = {"vector", path("study"), "--out", path("fr.safetensors")};
  vector.insert(vector.end(), settings.begin(), settings.end());
  if (recipe.at("norm-preserving").as_bool()) vector.emplace_back("--norm-preserving");
  good(vector);
  const Words run = {"run", "smollm2", "-p", "Tell me about bees.", "--chat", "--repetition-penalty", "1.15"};
  Words steered = run;
  steered.insert(steered.end(), {"--steer", path("fr.safetensors")});
  EXPECT_EQ(identify_language(json(run).at("text").as_string())->code, "en");
  EXPECT_EQ(identify_language(json(steered).at("text").as_string())->code, "fr");
}

}  // namespace
}  // namespace saif::test
