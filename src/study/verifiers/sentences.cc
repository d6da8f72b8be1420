// A bounded number of complete sentences and nothing else: every paragraph ends in an end mark.
#include <algorithm>
#include <array>
#include <cctype>
#include <optional>

#include "saif/error.h"
#include "saif/options.h"
#include "study/text_units.h"
#include "study/verifiers/lists.h"
#include "study/verifiers/make.h"

namespace saif {
namespace {

struct SentencesArgs {
  int64_t max = 1, min_words = 3, max_words = 40;
  template <typename V>
  void describe(V& v) {
    v("max", max, "sentences at most");
    v("min_words", min_words, "words of the answer at least");
    v("max_words", max_words, "words of the answer at most");
  }
};

bool is_end_mark(uint32_t c) {
  return c == '.' || c == '!' || c == '?' || c == 0x2026 || c == 0x3002 || c == 0xFF01 || c == 0xFF1F;
}
bool is_wide_end_mark(uint32_t c) { return c >= 0x3002; }
bool is_closing(uint32_t c) {
  return c == '"' || c == '\'' || c == ')' || c == ']' || c == '*' || c == '_' || c == 0x201D || c == 0x2019 ||
         c == 0xBB || c == 0x300D || c == 0xFF09;
}
bool is_lower(uint32_t c) { return ('a' <= c && c <= 'z') || (0xDF <= c && c <= 0xFF); }

// Whether the word that a single "." at `mark` ends is an abbreviation: "Dr.", "e.g.", an initial "J.".
bool is_abbreviation(const std::vector<uint32_t>& text, size_t mark) {
  static constexpr std::array<std::string_view, 25> kKnown = {
      "mr", "mrs", "ms",  "dr",  "prof",   "st",   "vs",  "e.g", "i.e", "cf",   "fig", "no", "jr",
      "sr", "mt",  "gen", "rev", "approx", "dept", "vol", "ed",  "al",  "capt", "col", "lt"};
  size_t begin = mark;
  while (begin > 0 && !is_space(text[begin - 1]) && text[begin - 1] != '(' && text[begin - 1] != '"') --begin;
  if (begin == mark) return false;
  // An initial, but not the pronoun that may end a sentence.
  if (mark - begin == 1 && 'A' <= text[begin] && text[begin] <= 'Z' && text[begin] != 'I') return true;
  std::string word;
  for (size_t i = begin; i < mark; ++i) {
    if (text[i] >= 0x80) return false;
    word.push_back(static_cast<char>(std::tolower(static_cast<int>(text[i]))));
  }
  return std::find(kKnown.begin(), kKnown.end(), word) != kKnown.end();
}

// The number of sentences of a paragraph; nullopt when its last one is not ended.
std::optional<int64_t> count_sentences(std::string_view paragraph) {
  const std::vector<uint32_t> text = code_points(paragraph);
  int64_t count = 0;
  bool open = false;  // something after the last sentence's end
  for (size_t i = 0; i < text.size(); ++i) {
    if (!is_end_mark(text[i])) {
      open = open || !(is_space(text[i]) || is_closing(text[i]));
      continue;
    }
    size_t end = i + 1;
    while (end < text.size() && (is_end_mark(text[end]) || is_closing(text[end]))) ++end;
    const bool single_dot = text[i] == '.' && (i + 1 == text.size() || !is_end_mark(text[i + 1]));
    size_t next = end;
    while (next < text.size() && is_space(text[next])) ++next;
    const bool last = next == text.size();
    const bool inside = !last && !is_wide_end_mark(text[i]) &&
                        (next == end || is_lower(text[next]) || (single_dot && is_abbreviation(text, i)));
    if (open && !inside) {
      ++count;
      open = false;
    }
    i = end - 1;
  }
  if (open) return std::nullopt;
  return count;
}

class SentencesVerifier : public Verifier {
 public:
  explicit SentencesVerifier(const SentencesArgs& args) : args_(args) {}
  bool passes(std::string_view answer) const override {
    const auto words = static_cast<int64_t>(words_of(answer).size());
    if (words < args_.min_words || words > args_.max_words) return false;
    int64_t sentences = 0;
    for (const std::string_view paragraph : filled_lines(answer)) {
      const std::optional<int64_t> more = count_sentences(paragraph);
      if (!more || is_bullet(paragraph) || numbered_line(paragraph)) return false;
      sentences += *more;
    }
    return 1 <= sentences && sentences <= args_.max;
  }

 private:
  SentencesArgs args_;
};

}  // namespace

VerifierPointer make_sentences_verifier(const Json& args) {
  const auto options = options_from_json<SentencesArgs>(args, "arguments of verifier 'sentences'");
  if (options.max < 1 || options.min_words < 1 || options.max_words < options.min_words) {
    throw Error(Errc::kInvalidArgument,
                "verifier 'sentences': found " + args.dump() + ", expected max >= 1 and 1 <= min_words <= max_words");
  }
  return std::make_unique<SentencesVerifier>(options);
}

}  // namespace saif
