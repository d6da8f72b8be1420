#include <gtest/gtest.h>
#include <sqlite3.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "saif/sweep.h"
#include "support/message_of.h"

namespace saif {
namespace {

using test::message_of;

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
      a.ids = {i, 7};
      r.answers.push_back(a);
    }
    r.checker = {3, 3};
    r.strict = {2, 3};
    r.loose = {2, 3};
    return r;
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
    study->save_cell({"k1", "french", "tuning", Json::object({{"decode", 40}}), example()});
    study->set_manifest(Json::object({{"a", 1}}));
  }
  const auto study = Study::open(folder_, Study::Mode::kReadOnly);
  ASSERT_TRUE(study->has_cell("k1"));
  const MethodResult r = study->cell("k1");
  EXPECT_EQ(r.to_json().dump(), example().to_json().dump());
  ASSERT_EQ(r.answers.size(), 3u);
  EXPECT_EQ(r.answers[2].text, example().answers[2].text);
  EXPECT_TRUE(r.answers[2].verdict.strict);
  EXPECT_EQ(r.answers[2].ids, (std::vector<int32_t>{2, 7}));
  ASSERT_EQ(study->cells("french", "tuning").size(), 1u);
  EXPECT_EQ(study->cells("french", "tuning")[0].conditions.at("decode").as_int(), 40);
  EXPECT_EQ(study->cells("german").size(), 0u);
  EXPECT_EQ(study->manifest().at("a").as_int(), 1);
}

TEST_F(StoreTest, OneWriterAtATimeAndManyReaders) {
  const auto writer = Study::open(folder_, Study::Mode::kCreateOrOpen);
  writer->save_cell({"k1", "french", "tuning", {}, example()});
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

void run_sql(const std::string& file, const std::string& sql) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(file.c_str(), &db), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
  sqlite3_close(db);
}

// A study written before cells had conditions, and answers their tokens.
TEST_F(StoreTest, AnEarlierLayoutIsReadAndBroughtUpToDate) {
  Study::open(folder_, Study::Mode::kCreateOrOpen)->save_cell({"k1", "french", "tuning", {}, example()});
  run_sql(folder_ + "/results.sqlite",
          "ALTER TABLE cells DROP COLUMN conditions; PRAGMA user_version=1;"
          "UPDATE answers SET body = json_remove(body, '$.ids')");
  for (const Study::Mode mode : {Study::Mode::kReadOnly, Study::Mode::kOpen, Study::Mode::kReadOnly}) {
    const auto study = Study::open(folder_, mode);
    EXPECT_TRUE(study->cells().at(0).conditions.is_null());
    EXPECT_EQ(study->cell("k1").answers[1].text, example().answers[1].text);
    EXPECT_TRUE(study->cell("k1").answers[1].ids.empty());
    if (mode == Study::Mode::kOpen) study->save_cell({"k2", "french", "tuning", Json::object(), example()});
  }
  const auto study = Study::open(folder_, Study::Mode::kReadOnly);
  EXPECT_TRUE(study->cells().at(1).conditions.is_object());
}

TEST_F(StoreTest, ALaterLayoutIsRefused) {
  Study::open(folder_, Study::Mode::kCreateOrOpen);
  run_sql(folder_ + "/results.sqlite", "PRAGMA user_version=99");
  EXPECT_NE(message_of([&] { Study::open(folder_, Study::Mode::kReadOnly); }).find("layout 99"), std::string::npos);
  EXPECT_NE(message_of([&] { Study::open(folder_, Study::Mode::kOpen); }).find("layout 99"), std::string::npos);
}

TEST(Cells, AKeyDependsOnEverythingThatMatters) {
  Task task, other_task;
  task.sha256 = "t";
  other_task.sha256 = "t2";
  Recipe recipe, other = recipe;
  other.scale = 1.25;
  const auto vectors = [](const std::string& site, float value) {
    SteeringVector v;
    v.site = site;
    v.vector = {1, value};
    return Vectors{std::make_shared<SteeringVector>(v)};
  };
  const Vectors v = vectors("blocks.1.hook_resid_post", 2);
  const std::vector<Content> contents = {{"c1", "bees", "Tell me about bees.", Split::kTuning}};
  const Json conditions = Json::object({{"dtype", "bf16"}});
  const std::string base = cell_key(task, recipe, v, contents, conditions);
  EXPECT_EQ(cell_key(task, recipe, vectors("blocks.1.hook_resid_post", 2), contents, conditions), base);
  EXPECT_NE(cell_key(other_task, recipe, v, contents, conditions), base);
  EXPECT_NE(cell_key(task, other, v, contents, conditions), base);
  EXPECT_NE(cell_key(task, recipe, vectors("blocks.1.hook_resid_post", 3), contents, conditions), base);
  EXPECT_NE(cell_key(task, recipe, vectors("blocks.2.hook_resid_post", 2), contents, conditions), base);
  EXPECT_NE(cell_key(task, recipe, {}, contents, conditions), base);
  EXPECT_NE(cell_key(task, recipe, v, {}, conditions), base);
  EXPECT_NE(cell_key(task, recipe, v, contents, Json::object({{"dtype", "f32"}})), base);
}

MethodResult of(int64_t strict, int64_t n, double scale, int k, const std::string& method = "saif") {
  MethodResult out;
  out.recipe.method = method;
  out.recipe.scale = scale;
  out.recipe.k = k;
  out.strict = {strict, n};
  out.loose = out.checker = {strict, n};
  return out;
}

TEST(Cells, TiesGoToTheMilderSetting) {
  EXPECT_TRUE(better(of(5, 10, 2, 9), of(4, 10, 1, 1)));
  EXPECT_TRUE(better(of(5, 10, 1, 9), of(5, 10, 2, 1)));
  EXPECT_TRUE(better(of(5, 10, 1, 5), of(5, 10, 1, 9)));
  EXPECT_FALSE(better(of(5, 10, 1, 5), of(5, 10, 1, 5)));
  MethodResult loose = of(5, 10, 3, 30);
  loose.loose.hits = 6;
  EXPECT_TRUE(better(loose, of(5, 10, 1, 1)));
}

TEST(Cells, TheTunedSettingIsTheBestOnTheMostContents) {
  const Json now = Json::object({{"dtype", "bf16"}}), other = Json::object({{"dtype", "f32"}});
  const std::vector<Study::CellRow> cells = {{"a", "t", "tuning", now, of(6, 6, 1, 1)},
                                             {"b", "t", "tuning", now, of(10, 20, 2, 1)},
                                             {"c", "t", "tuning", now, of(10, 20, 1.5, 1)},
                                             {"d", "t", "tuning", other, of(20, 20, 3, 1)},
                                             {"e", "t", "tuning", now, of(20, 20, 4, 1, "diffmean")}};
  EXPECT_EQ(tuned_recipe(cells, "saif", "post", now)->scale, 1.5);
  EXPECT_EQ(tuned_recipe(cells, "saif", "post", other)->scale, 3);
  EXPECT_EQ(tuned_recipe(cells, "saif", "post")->scale, 3);
  EXPECT_EQ(tuned_recipe(cells, "diffmean", "post", now)->scale, 4);
  EXPECT_FALSE(tuned_recipe(cells, "saif", "pre", now).has_value());
}

}  // namespace
}  // namespace saif
