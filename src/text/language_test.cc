#include <gtest/gtest.h>

#include <string>

#include "saif/text.h"

namespace saif {
namespace {

std::string code_of(const std::string& text) {
  const auto guess = identify_language(text);
  return guess ? guess->code : "";
}

TEST(Language, OrdinarySentences) {
  EXPECT_EQ(code_of("The quick brown fox jumps over the lazy dog near the river."), "en");
  EXPECT_EQ(code_of("Le chat dort sur le canap\u00E9 pendant que la pluie tombe."), "fr");
  EXPECT_EQ(code_of("Die Katze schl\u00E4ft auf dem Sofa, w\u00E4hrend es drau\u00DFen regnet."), "de");
  EXPECT_EQ(code_of("El gato duerme en el sof\u00E1 mientras llueve afuera."), "es");
  EXPECT_EQ(code_of("O gato dorme no sof\u00E1 enquanto a chuva cai l\u00E1 fora."), "pt");
  EXPECT_EQ(code_of("\u732B\u5728\u6C99\u53D1\u4E0A\u7761\u89C9\uFF0C\u5916\u9762\u6B63\u5728\u4E0B\u96E8\u3002"),
            "zh");
}

TEST(Language, NothingToTell) {
  for (const char* text : {"", "   ", "{{{{{{", "12345 67890", "\xFF\xFE"}) EXPECT_EQ(code_of(text), "") << text;
}

TEST(Language, ConfidenceIsAShare) {
  const auto pure = identify_language("Le chat dort sur le canap\u00E9 pendant que la pluie tombe sur le jardin.");
  ASSERT_TRUE(pure);
  EXPECT_GT(pure->confidence, 0.9);
  EXPECT_LE(pure->confidence, 1.0);
  std::string mixed;
  for (int i = 0; i < 4; ++i) {
    mixed += "The committee will meet again on Thursday to discuss the budget for next year. ";
    mixed += "Le comit\u00E9 se r\u00E9unira de nouveau jeudi pour discuter du budget de l'ann\u00E9e prochaine. ";
  }
  const auto half = identify_language(mixed);
  EXPECT_TRUE(!half || half->confidence < 0.8);
}

}  // namespace
}  // namespace saif
