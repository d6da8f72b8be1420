#include <gtest/gtest.h>

#include <string>

#include "saif/json.h"
#include "saif/verify.h"
#include "study/text_units.h"

namespace saif {
namespace {

TEST(TextUnits, WordsAndLines) {
  EXPECT_EQ(words_of("\"Hello,\u00A0WORLD!\"  \u00C9t\u00E9\u3002"),
            (std::vector<std::u32string>{U"hello", U"world", U"\u00E9t\u00E9"}));
  EXPECT_EQ(words_of("don't { {").size(), 3U);
  EXPECT_TRUE(words_of("").empty());
  EXPECT_EQ(code_points("a\xC3\xA9\xF0\x9F\x90\x9D\xFF").size(), 4U);
  EXPECT_EQ(code_points("\xED\xA0\x80").size(), 3U);  // a surrogate: three invalid bytes
  EXPECT_EQ(split_lines("a\r\nb\n\nc\n").size(), 4U);
  EXPECT_EQ(filled_lines(" a \n \n b").size(), 2U);
}

TEST(Fluency, OrdinaryTextIsFluent) {
  EXPECT_TRUE(fluency("Bees are flying insects that make honey and live in large colonies.").fluent);
  const Fluency f = fluency("a b a b");  // bigrams ab ba ab; 5-grams "a b a", " b a b"
  EXPECT_DOUBLE_EQ(f.distinct_word_bigrams, 2.0 / 3);
  EXPECT_DOUBLE_EQ(f.distinct_char_5grams, 1);
  EXPECT_EQ(f.words, 4);
  EXPECT_FALSE(f.fluent);
}

TEST(Fluency, RubbishIsNot) {
  for (const char* text :
       {"", "{{{{{{", "two words", "a b", "L'\u00EE pour l'\u00EE pour l'\u00EE pour", "the the the the the",
        "bees are bees are bees are bees are", "line one\nline one\nline one\nline one"}) {
    EXPECT_FALSE(fluency(text).fluent) << text;
  }
}

TEST(TextQualityOf, CountsRepeatedFourGrams) {
  const TextQuality q = text_quality("a b c d a b c d");  // 4-grams: abcd bcda cdab dabc abcd
  EXPECT_NEAR(q.repetition, 0.2, 1e-12);
  EXPECT_NEAR(q.distinct2, 4.0 / 7, 1e-12);
  EXPECT_FALSE(q.empty);
  EXPECT_TRUE(text_quality(" \n").empty);
  EXPECT_EQ(text_quality("a b").repetition, 0);
}

TEST(Judge, LooseForgivesAFirstLineAndAsterisks) {
  const auto json = make_verifier("json", Json::object());
  const Verdict lead =
      judge_answer(*json, "Here is the object:\n{\"name\": \"bee\", \"colour\": \"yellow and black\"}");
  EXPECT_FALSE(lead.checker);
  EXPECT_FALSE(lead.strict);
  EXPECT_TRUE(lead.loose);
  const Verdict stars = judge_answer(*json, "**{\"name\": \"bee\", \"colour\": \"yellow and black\"}**");
  EXPECT_FALSE(stars.strict);
  EXPECT_TRUE(stars.loose);
  const Verdict both = judge_answer(*json, "Sure!\n{\"name\": \"bee\", \"colour\": \"yellow and black\"}\nEnjoy it!");
  EXPECT_TRUE(both.loose && !both.strict);
}

TEST(Judge, StrictNeedsFluency) {
  const auto json = make_verifier("json", Json::object());
  const Verdict v = judge_answer(*json, "{\"a\": \"b b b b b b b b b b b b b b b b b b\"}");
  EXPECT_TRUE(v.checker);
  EXPECT_FALSE(v.strict || v.loose);
  const Verdict good = judge_answer(*json, "{\"name\": \"bee\", \"legs\": 6, \"makes\": \"honey\"}");
  EXPECT_TRUE(good.checker && good.strict && good.loose);
  const Verdict empty = judge_answer(*json, "  \n ");
  EXPECT_FALSE(empty.checker || empty.strict || empty.loose);
}

}  // namespace
}  // namespace saif
