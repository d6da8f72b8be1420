#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include "base/file.h"
#include "saif/sweep.h"

namespace saif {
namespace {

namespace fs = std::filesystem;

class StoreTest : public testing::Test {
 protected:
  StoreTest() : folder_(testing::TempDir() + "saif_store_" + std::to_string(::getpid())) { fs::remove_all(folder_); }
  ~StoreTest() override { fs::remove_all(folder_); }
  StoreTest(const StoreTest&) = delete;
  StoreTest& operator=(const StoreTest&) = delete;

  static MethodResult example() {
    MethodResult r;
    r.recipe.layer = 24;
    r.site = "blocks.24.hook_resid_post";
    r.vector_norm = 12.5;
    for (int i = 0; i < 3; ++i) {
      Answer a;
      a.content_id = "c" + std::to_string(i);
      a.text = "L'été \"dans\"\nla ville";
      a.verdict = {true, i > 0, i > 0};
      a.quality.words = 4;
      r.answers.push_back(a);
    }
    r.checker = {3, 3};
    r.strict = {2, 3};
    r.loose = {2, 3};
    return r;
  }
  static std::string message_of(const std::function<void()>& f) {
    try {
      f();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }

  std::string folder_;
};

TEST_F(StoreTest, ExplanationsSurviveClosing) {
  const auto explanation = [](const char* sae, int index, const char* token) {
    return Json::object({{"sae_sha256", sae}, {"index", index}, {"token", token}});
  };
  {
    const auto study = Study::open(folder_, Study::Mode::kCreateOrOpen);
    study->save_explanation("french", explanation("s1", 7, "old"));
    study->save_explanation("french", explanation("s1", 7, "été"));
    study->save_explanation("french", explanation("s2", 7, "other"));
  }
  const auto study = Study::open(folder_, Study::Mode::kReadOnly);
  EXPECT_EQ(study->explanation("french", "s1", 7).at("token").as_string(), "été");
  EXPECT_EQ(study->explanation("french", "s2", 7).at("token").as_string(), "other");
  EXPECT_TRUE(study->explanation("french", "s1", 8).is_null());
  EXPECT_TRUE(study->explanation("german", "s1", 7).is_null());
}

TEST_F(StoreTest, CellsSurviveClosing) {
  {
    const auto study = Study::open(folder_, Study::Mode::kCreateOrOpen);
    EXPECT_FALSE(study->has_cell("k1"));
    study->save_cell("k1", "french", "tuning", example());
    study->set_manifest(Json::object({{"a", 1}}));
  }
  const auto study = Study::open(folder_, Study::Mode::kReadOnly);
  ASSERT_TRUE(study->has_cell("k1"));
  const MethodResult r = study->cell("k1");
  EXPECT_EQ(r.to_json().dump(), example().to_json().dump());
  ASSERT_EQ(r.answers.size(), 3u);
  EXPECT_EQ(r.answers[2].text, example().answers[2].text);
  EXPECT_TRUE(r.answers[2].verdict.strict);
  EXPECT_EQ(study->cells("french", "tuning").size(), 1u);
  EXPECT_EQ(study->cells("german").size(), 0u);
  EXPECT_EQ(study->manifest().at("a").as_int(), 1);
}

TEST_F(StoreTest, OneWriterAtATimeAndManyReaders) {
  const auto writer = Study::open(folder_, Study::Mode::kCreateOrOpen);
  writer->save_cell("k1", "french", "tuning", example());
  EXPECT_NE(message_of([&] { Study::open(folder_, Study::Mode::kOpen); }).find("another saif process"),
            std::string::npos);
  EXPECT_TRUE(Study::open(folder_, Study::Mode::kReadOnly)->has_cell("k1"));
}

TEST_F(StoreTest, WhatIsNoStudyIsNamed) {
  EXPECT_NE(message_of([&] { Study::open(folder_, Study::Mode::kReadOnly); }).find(folder_), std::string::npos);
  fs::create_directories(folder_);
  write_file_atomically(folder_ + "/results.sqlite", std::string(4096, 'x'));
  EXPECT_NE(message_of([&] { Study::open(folder_, Study::Mode::kOpen); }).find("not a study's database"),
            std::string::npos);
}

TEST_F(StoreTest, AKeyDependsOnEverythingThatMatters) {
  Task task;
  task.sha256 = "t";
  Recipe recipe;
  EvalOptions options;
  const std::vector<Content> contents = {{"c1", "bees", "Tell me about bees.", Split::kTuning}};
  const std::string base = cell_key(task, recipe, contents, options, "m", "s");
  EXPECT_EQ(cell_key(task, recipe, contents, options, "m", "s"), base);
  Recipe other = recipe;
  other.scale = 1.25;
  EXPECT_NE(cell_key(task, other, contents, options, "m", "s"), base);
  EXPECT_NE(cell_key(task, recipe, contents, options, "m2", "s"), base);
  EXPECT_NE(cell_key(task, recipe, contents, options, "m", "s2"), base);
  EvalOptions longer = options;
  longer.decode.max_new_tokens = 41;
  EXPECT_NE(cell_key(task, recipe, contents, longer, "m", "s"), base);
  EXPECT_NE(cell_key(task, recipe, {}, options, "m", "s"), base);
}

}  // namespace
}  // namespace saif
