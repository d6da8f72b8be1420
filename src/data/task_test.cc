#include "saif/task.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <set>

#include "base/file.h"
#include "support/message_of.h"

namespace saif {
namespace {

using test::message_of;

class TempFile {
 public:
  explicit TempFile(const std::string& text, const std::string& suffix = ".json")
      : path_(testing::TempDir() + "saif_task_" + std::to_string(::getpid()) + "_" + std::to_string(++count) + suffix) {
    write_file_atomically(path_, text);
  }
  ~TempFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  static inline int count = 0;
  std::string path_;
};

TEST(Tasks, EveryBundledTaskHasWordingsTranslationsAndUnrelatedInstructions) {
  const std::vector<std::string> names = task_names();
  ASSERT_GE(names.size(), 10u);
  EXPECT_EQ(names.front(), "french");
  for (const std::string& name : names) {
    const Task task = load_task(name);
    EXPECT_EQ(task.name, name);
    std::map<std::string, int> by_language;
    std::set<std::string> distinct;
    for (const Variant& v : task.variants) {
      ++by_language[v.language];
      distinct.insert(v.text);
    }
    EXPECT_GE(by_language["en"], 6) << name;
    EXPECT_GE(by_language.size(), 4u) << name;
    EXPECT_EQ(distinct.size(), task.variants.size()) << name;
    EXPECT_GE(task.unrelated.size(), 3u) << name;
    EXPECT_EQ(task.sha256.size(), 64u);
  }
}

TEST(Tasks, ContentsAreSplitBySubject) {
  const std::vector<Content> contents = load_contents();
  EXPECT_GE(contents.size(), 300u);
  EXPECT_GE(of_split(contents, Split::kTest).size(), 100u);
  EXPECT_GE(of_split(contents, Split::kTuning).size(), 50u);
  EXPECT_GE(of_split(contents, Split::kDiscovery).size(), 50u);
}

TEST(Tasks, UnknownNamesOfferTheNearest) {
  EXPECT_NE(message_of([] { load_task("frensh"); }).find("\"french\""), std::string::npos);
  EXPECT_NE(message_of([] { parse_placement("pots"); }).find("\"post\""), std::string::npos);
  EXPECT_NE(message_of([] { load_task("no/such.json"); }).find("no/such.json"), std::string::npos);
}

TEST(Tasks, BadFilesNameTheKey) {
  const TempFile no_title(R"({"name":"x","instructions":{"en":["a"]},"unrelated":[],"verifier":{"name":"json"}})");
  EXPECT_NE(message_of([&] { load_task(no_title.path()); }).find("\"title\""), std::string::npos);
  const TempFile typo(R"({"name":"x","titel":"y"})");
  EXPECT_NE(message_of([&] { load_task(typo.path()); }).find("did you mean \"title\""), std::string::npos);
  const TempFile cut("{\"name\": ");
  EXPECT_NE(message_of([&] { load_task(cut.path()); }).find("JSON"), std::string::npos);
}

TEST(Tasks, ASubjectInTwoSplitsIsRefused) {
  const TempFile file(
      "{\"id\":\"a\",\"subject\":\"bees\",\"text\":\"t\",\"split\":\"test\"}\n"
      "{\"id\":\"b\",\"subject\":\"bees\",\"text\":\"u\",\"split\":\"tuning\"}\n",
      ".jsonl");
  EXPECT_NE(message_of([&] { load_contents(file.path()); }).find("two splits"), std::string::npos);
}

TEST(JsonLines, BlankLinesAreCountedAndLeftOut) {
  const TempFile file("1\n \t\r\n\n{\"a\":2}\r\n3", ".jsonl");
  std::string seen;
  for_each_json_line(file.path(), [&](const Json& json, const std::string& where) {
    seen += json.dump() + where.substr(file.path().size()) + " ";
  });
  EXPECT_EQ(seen, "1:1 {\"a\":2}:4 3:5 ");
  const TempFile cut("1\n\n{\"a\":", ".jsonl");
  EXPECT_NE(message_of([&] { for_each_json_line(cut.path(), [](const auto&, const auto&) {}); }).find(":3: "),
            std::string::npos);
}

TEST(Tasks, PlacementPutsTheInstructionWhereItSays) {
  EXPECT_EQ(place("c", "i", Placement::kPost), "c\ni");
  EXPECT_EQ(place("c", "i", Placement::kPre), "i\nc");
  EXPECT_EQ(place("c", "i", Placement::kNone), "c");
}

}  // namespace
}  // namespace saif
