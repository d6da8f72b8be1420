// Language identification by lingua; docs/language.md has the measurements behind each choice here.
#include <algorithm>
#include <array>
#include <map>

#include "base/check.h"
#include "saif/text.h"
#include "text/language_c.h"

namespace saif {
namespace {

constexpr size_t kMaxBytes = 4096;   // of a text that are looked at
constexpr size_t kPieceBytes = 160;  // of the pieces whose languages are compared
constexpr int kMaxLanguages = 96;    // lingua has 75 at most

bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// The longest beginning of at most `bytes` bytes that splits no character.
std::string_view beginning(std::string_view text, size_t bytes) {
  if (text.size() <= bytes) return text;
  while (bytes > 0 && is_continuation(text[bytes])) --bytes;
  return text.substr(0, bytes);
}

struct Candidates {
  std::array<saif_language, kMaxLanguages> items{};
  size_t size = 0;

  std::string code(size_t i) const { return items[i].code; }
  double probability(const std::string& code) const {
    for (size_t i = 0; i < size; ++i) {
      if (code == items[i].code) return items[i].probability;
    }
    return 0;
  }
};

Candidates candidates(std::string_view text) {
  Candidates found;
  const int size = saif_language_identify(text.data(), text.size(), found.items.data(), found.items.size());
  SAIF_CHECK(size >= 0, "the library that identifies languages failed inside");
  found.size = static_cast<size_t>(size);
  return found;
}

// How far English must be behind another language for a confidence of 0.5. Unsteered answers are English, so English
// taken for another language would make a control pass; a short text tells less.
double english_handicap(std::string_view text) {
  const auto continuations = static_cast<double>(std::count_if(text.begin(), text.end(), is_continuation));
  const double characters = static_cast<double>(text.size()) - continuations;
  return 3.0 * std::max(1.0, 40.0 / characters);
}

// By language, the share of the text's pieces in which it is the most probable one; pieces without letters do not
// count.
std::map<std::string, double> shares(std::string_view text) {
  std::map<std::string, double> found;
  double total = 0;
  const size_t pieces = std::max<size_t>(1, text.size() / kPieceBytes);
  const size_t step = (text.size() + pieces - 1) / pieces;
  while (!text.empty()) {
    std::string_view piece = beginning(text, step);
    if (piece.empty()) piece = text.substr(0, step);  // nothing but continuation bytes
    text.remove_prefix(piece.size());
    const Candidates in_piece = candidates(piece);
    if (in_piece.size == 0) continue;
    found[in_piece.code(0)] += static_cast<double>(piece.size());
    total += static_cast<double>(piece.size());
  }
  for (auto& [code, share] : found) share /= total;
  return found;
}

// A guess about all of a long text, corrected by its pieces: lingua counts each n-gram of a text once, so one foreign
// sentence after many alike ones weighs as much as they do together.
LanguageGuess corrected(LanguageGuess guess, std::string_view text) {
  std::map<std::string, double> share = shares(text);
  const auto most =
      std::max_element(share.begin(), share.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most != share.end() && most->second > 0.5 && most->first != guess.code) return {most->first, most->second};
  guess.confidence = std::min(guess.confidence, share[guess.code]);
  return guess;
}

}  // namespace

std::optional<LanguageGuess> identify_language(std::string_view text) {
  text = beginning(text, kMaxBytes);
  const Candidates found = candidates(text);
  if (found.size == 0) return std::nullopt;
  LanguageGuess guess{found.code(0), 0};
  const double first = found.items[0].probability;
  double rival = found.size > 1 ? found.items[1].probability : 0.0;
  if (guess.code != "en") rival = std::max(rival, english_handicap(text) * found.probability("en"));
  guess.confidence = first / (first + rival);
  return text.size() < 2 * kPieceBytes ? guess : corrected(guess, text);
}

std::vector<std::string> identifiable_languages() {
  std::array<saif_language, kMaxLanguages> items{};
  const int size = saif_language_known(items.data(), items.size());
  SAIF_CHECK(size >= 0, "the library that identifies languages failed inside");
  std::vector<std::string> codes;
  for (int i = 0; i < size; ++i) codes.emplace_back(items[static_cast<size_t>(i)].code);
  return codes;
}

}  // namespace saif
