// Language identification by CLD2; docs/language.md has the measurements behind each choice here.
// clang-format off
#include <cstdio>  // the CLD2 header uses FILE without including it
#include <cld2/public/compact_lang_det.h>
#include <cld2/public/encodings.h>
// clang-format on

#include <algorithm>
#include <array>

#include "saif/text.h"

namespace saif {
namespace {

struct Detection {
  CLD2::Language language = CLD2::UNKNOWN_LANGUAGE;
  int percent = 0;  // of the text's letters that are in this language
};

Detection detect(std::string_view text, int flags) {
  const CLD2::CLDHints hints{nullptr, nullptr, CLD2::UNKNOWN_ENCODING, CLD2::UNKNOWN_LANGUAGE};
  std::array<CLD2::Language, 3> languages{};
  std::array<int, 3> percents{};
  std::array<double, 3> scores{};
  int text_bytes = 0, valid_bytes = 0;
  bool reliable = false;
  Detection result;
  result.language = CLD2::ExtDetectLanguageSummaryCheckUTF8(
      text.data(), static_cast<int>(text.size()), /*is_plain_text=*/true, &hints, flags, languages.data(),
      percents.data(), scores.data(), nullptr, &text_bytes, &reliable, &valid_bytes);
  for (size_t i = 0; i < languages.size(); ++i) {
    if (languages[i] == result.language) result.percent = std::max(result.percent, percents[i]);
  }
  return result;
}

// CLD2's code as ISO 639-1; "" for what has none. Galician is counted as Spanish: on 40 characters CLD2 calls 4 % of
// Spanish sentences Galician, and nobody asks this program for Galician.
std::string iso_code(CLD2::Language language) {
  if (language == CLD2::UNKNOWN_LANGUAGE) return "";
  std::string code = CLD2::LanguageCode(language);
  code = code.substr(0, code.find('-'));  // zh-Hant
  if (code == "gl") return "es";
  if (code == "iw") return "he";
  if (code == "jw") return "jv";
  if (code == "nn" || code == "nb") return "no";
  if (code == "un" || code.size() != 2) return "";
  return code;
}

}  // namespace

// confidence: the share of the text in that language, times 0.6 when CLD2 by itself would not commit and was asked for
// its best guess. So >= 0.5 means "most of it", certain or at least unmixed.
std::optional<LanguageGuess> identify_language(std::string_view text) {
  constexpr size_t kMaxBytes = size_t{1} << 20;  // more text does not change the answer; CLD2 takes int sizes
  if (text.size() > kMaxBytes) {
    size_t end = kMaxBytes;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text = text.substr(0, end);
  }
  double weight = 1.0;
  Detection found = detect(text, 0);
  if (iso_code(found.language).empty()) {
    found = detect(text, CLD2::kCLDFlagBestEffort);
    weight = 0.6;
  }
  LanguageGuess guess{iso_code(found.language), weight * found.percent / 100.0};
  if (guess.code.empty() || guess.confidence <= 0) return std::nullopt;
  return guess;
}

}  // namespace saif
