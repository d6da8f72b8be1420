#include "engine/stop_text.h"

#include <gtest/gtest.h>

#include "support/letter_tokenizer.h"

namespace saif {
namespace {

using test::LetterTokenizer;

struct Outcome {
  std::string text, streamed;
  bool stopped = false;
};

Outcome run(const std::vector<std::string>& pieces, const std::vector<std::string>& stops) {
  StopText text(std::make_shared<LetterTokenizer>(pieces), stops);
  Outcome out;
  for (size_t i = 0; i < pieces.size() && !out.stopped; ++i) {
    out.stopped = text.push(static_cast<int32_t>(i));
    out.streamed += text.take_certain();
  }
  out.stopped = text.finish() || out.stopped;
  out.streamed += text.take_certain();
  out.text = text.text();
  return out;
}

TEST(StopText, EndsBeforeAStopString) {
  for (const auto& pieces : std::vector<std::vector<std::string>>{
           {"ab", "cENDd", "e"}, {"abc", "E", "N", "D"}, {"abcE", "NDx", "END"}, {"a", "bcEN", "D"}}) {
    const Outcome out = run(pieces, {"END"});
    EXPECT_TRUE(out.stopped);
    EXPECT_EQ(out.text, "abc");
    EXPECT_EQ(out.streamed, "abc");
  }
}

TEST(StopText, TheFirstOfSeveralStopsCounts) {
  EXPECT_EQ(run({"one\n", "two\n\n", "x"}, {"\n\n", "two"}).text, "one\n");
  EXPECT_EQ(run({"aab"}, {"ab", "aab"}).text, "");
}

TEST(StopText, WhatOnlyLookedLikeAStopIsGivenOut) {
  const Outcome out = run({"a", "EN", "x", "EN"}, {"END"});
  EXPECT_FALSE(out.stopped);
  EXPECT_EQ(out.text, "aENxEN");
  EXPECT_EQ(out.streamed, "aENxEN");
}

TEST(StopText, NothingIsStreamedThatIsTakenBack) {
  const std::vector<std::string> pieces = {"x", "aa", "b", "aab", "c"};
  const std::vector<std::string> stops = {"aabc", "ba!"};
  StopText text(std::make_shared<LetterTokenizer>(pieces), stops);
  text.push(0);
  EXPECT_EQ(text.take_certain(), "x");
  text.push(1);
  EXPECT_EQ(text.take_certain(), "");
  text.push(2);
  EXPECT_EQ(text.take_certain(), "");
  text.push(3);
  EXPECT_EQ(text.take_certain(), "aab");
  EXPECT_TRUE(text.push(4));
  EXPECT_EQ(text.text(), "xaab");
}

TEST(StopText, WithoutATokenizerThereIsNoText) {
  StopText text(nullptr, {});
  EXPECT_FALSE(text.push(3));
  EXPECT_FALSE(text.finish());
  EXPECT_EQ(text.take_certain(), "");
}

}  // namespace
}  // namespace saif
