#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "saif/text.h"

namespace saif {
namespace {

std::string code_of(const std::string& text) {
  const auto guess = identify_language(text);
  return guess ? guess->code : "";
}

// The code where a verifier would take it.
std::string sure_code_of(const std::string& text) {
  const auto guess = identify_language(text);
  return guess && guess->confidence >= 0.5 ? guess->code : "";
}

const char* const kEnglish = "The committee will meet again on Thursday to discuss the budget for next year. ";
const char* const kFrench =
    "Le comit\u00E9 se r\u00E9unira de nouveau jeudi pour discuter du budget de l'ann\u00E9e prochaine. ";

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

TEST(Language, OrdinarySentences) {
  const std::vector<std::pair<const char*, const char*>> sentences = {
      {"en", "The quick brown fox jumps over the lazy dog near the river."},
      {"fr", "Le chat dort sur le canap\u00E9 pendant que la pluie tombe."},
      {"de", "Die Katze schl\u00E4ft auf dem Sofa, w\u00E4hrend es drau\u00DFen regnet."},
      {"es", "El gato duerme en el sof\u00E1 mientras llueve afuera."},
      {"pt", "O gato dorme no sof\u00E1 enquanto a chuva cai l\u00E1 fora."},
      {"pt", "A economia do pa\u00EDs cresceu mais do que se esperava."},
      {"pt", "As abelhas s\u00E3o insetos voadores que produzem mel e polinizam as flores do jardim."},
      {"it", "Il gatto dorme sul divano mentre fuori piove a dirotto."},
      {"nl", "De kat slaapt op de bank terwijl het buiten regent."},
      {"ca", "El gat dorm al sof\u00E0 mentre a fora plou i fa molt de vent."},
      {"ro", "Pisica doarme pe canapea \u00EEn timp ce afar\u0103 plou\u0103."},
      {"zh", "\u732B\u5728\u6C99\u53D1\u4E0A\u7761\u89C9\uFF0C\u5916\u9762\u6B63\u5728\u4E0B\u96E8\u3002"},
      {"ja", "\u96E8\u304C\u964D\u3063\u3066\u3044\u308B\u9593\u3001\u732B\u306F\u5BDD\u3066\u3044\u307E\u3059\u3002"},
      {"ko", "\uACE0\uC591\uC774\uAC00 \uC18C\uD30C\uC5D0\uC11C \uC790\uACE0 \uC788\uC2B5\uB2C8\uB2E4."}};
  for (const auto& [code, text] : sentences) EXPECT_EQ(sure_code_of(text), code) << text;
}

TEST(Language, NothingToTell) {
  for (const char* text : {"", "   ", "{{{{{{", "12345 67890", "3.14 + 2 = 5.14", "\xFF\xFE", "\x80\x80\x80"}) {
    EXPECT_EQ(code_of(text), "") << text;
  }
  EXPECT_EQ(code_of(std::string(10000, '\x80')), "");
  EXPECT_EQ(code_of(std::string(10000, '7')), "");
  EXPECT_EQ(code_of("\u0393\u03AC\u03C4\u03B1 \u03BA\u03B1\u03B9 \u03C3\u03BA\u03CD\u03BB\u03BF\u03C2"), "") << "Greek";
}

TEST(Language, InvalidBytesAreNoLetters) {
  EXPECT_EQ(sure_code_of(std::string(kFrench) + "\xFF\xFE\xC3"), "fr");
  EXPECT_EQ(sure_code_of("\x80\xE4" + std::string(kEnglish) + "\xF0\x9F"), "en");
  EXPECT_EQ(sure_code_of(std::string("\0", 1) + kEnglish), "en");
}

TEST(Language, ForeignWordsDoNotMakeEnglishForeign) {
  for (const char* text :
       {"Bees make honey. Voil\u00E0! They are insects that live in large colonies and work together.",
        "The word croissant is French, but this sentence is English all the same.",
        "She said \"gracias\" and left the caf\u00E9 without her sombrero.",
        "The meeting in K\u00F6ln was moved to Thursday because of the weather."}) {
    EXPECT_EQ(sure_code_of(text), "en") << text;
  }
}

TEST(Language, ConfidenceFallsWithTheShare) {
  const auto pure = identify_language(repeated(kFrench, 8));
  ASSERT_TRUE(pure);
  EXPECT_EQ(pure->code, "fr");
  EXPECT_GT(pure->confidence, 0.9);
  EXPECT_LE(pure->confidence, 1.0);
  const auto half = identify_language(repeated(kFrench, 4) + repeated(kEnglish, 4));
  ASSERT_TRUE(half);
  EXPECT_LT(half->confidence, 0.8);
  EXPECT_EQ(sure_code_of(repeated(kEnglish, 7) + kFrench), "en");
  EXPECT_EQ(sure_code_of(kEnglish + repeated(kFrench, 7)), "fr");
}

TEST(Language, LongTextsCostNoMore) {
  const std::string text = repeated(kFrench, 100000);  // 9 MB: hours if all of it were looked at in pieces
  EXPECT_EQ(sure_code_of(text), "fr");
  EXPECT_EQ(sure_code_of(repeated("\u732B\u5728\u6C99\u53D1\u4E0A\u7761\u89C9\uFF0C", 1000)), "zh");
}

TEST(Language, SameInEveryThread) {
  const auto alone = identify_language(kFrench);
  ASSERT_TRUE(alone);
  std::vector<std::optional<LanguageGuess>> found(4);
  std::vector<std::thread> threads;
  threads.reserve(found.size());
  for (auto& guess : found) threads.emplace_back([&guess] { guess = identify_language(kFrench); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& guess : found) {
    ASSERT_TRUE(guess);
    EXPECT_EQ(guess->code, alone->code);
    EXPECT_DOUBLE_EQ(guess->confidence, alone->confidence);
  }
}

TEST(Language, KnowsItsLanguages) {
  const std::vector<std::string> codes = identifiable_languages();
  EXPECT_TRUE(std::is_sorted(codes.begin(), codes.end()));
  for (const char* code : {"ca", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pt", "ro", "zh"}) {
    EXPECT_TRUE(std::binary_search(codes.begin(), codes.end(), code)) << code;
  }
}

}  // namespace
}  // namespace saif
