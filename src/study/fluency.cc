#include <algorithm>
#include <array>
#include <set>

#include "saif/verify.h"
#include "study/text_units.h"

namespace saif {
namespace {

template <typename Sequence>
struct Distinct {
  double share = 0;  // distinct n-grams over all; 0 when there are none
  explicit Distinct(const Sequence& sequence, size_t n) {
    if (sequence.size() < n) return;
    const size_t all = sequence.size() - n + 1;
    std::vector<size_t> starts(all);
    for (size_t i = 0; i < all; ++i) starts[i] = i;
    const auto at = [&](size_t i) { return sequence.begin() + static_cast<std::ptrdiff_t>(i); };
    const auto width = static_cast<std::ptrdiff_t>(n);
    std::sort(starts.begin(), starts.end(), [&](size_t i, size_t j) {
      return std::lexicographical_compare(at(i), at(i) + width, at(j), at(j) + width);
    });
    size_t distinct = 1;
    for (size_t k = 1; k < all; ++k) {
      distinct += std::equal(at(starts[k]), at(starts[k]) + width, at(starts[k - 1])) ? 0 : 1;
    }
    share = static_cast<double>(distinct) / static_cast<double>(all);
  }
};

// Code points with each run of white space made one space, none at the ends.
std::vector<uint32_t> squeezed(std::string_view text) {
  std::vector<uint32_t> out;
  bool space = false;
  for (const uint32_t c : code_points(text)) {
    if (is_space(c)) {
      space = !out.empty();
      continue;
    }
    if (space) out.push_back(U' ');
    space = false;
    out.push_back(c);
  }
  return out;
}

std::string without_asterisks(std::string_view text) {
  std::string out(text);
  std::erase(out, '*');
  return out;
}

bool passes_fluently(const Verifier& verifier, std::string_view text) {
  return !trim(text).empty() && fluency(text).fluent && verifier.passes(text);
}

}  // namespace

Fluency fluency(std::string_view answer) {
  constexpr double kMinWordBigrams = 0.7, kMinCharFivegrams = 0.6;
  const std::vector<std::u32string> words = words_of(answer);
  const std::vector<uint32_t> characters = squeezed(answer);
  Fluency f;
  f.words = static_cast<int64_t>(words.size());
  f.distinct_word_bigrams = Distinct(words, 2).share;
  f.distinct_char_5grams = Distinct(characters, 5).share;
  f.fluent = f.words >= 3 && f.distinct_word_bigrams >= kMinWordBigrams && f.distinct_char_5grams >= kMinCharFivegrams;
  return f;
}

Verdict judge_answer(const Verifier& verifier, std::string_view answer) {
  Verdict v;
  if (trim(answer).empty()) return v;
  v.checker = verifier.passes(answer);
  v.strict = v.checker && fluency(answer).fluent;
  if (v.strict) {
    v.loose = true;
    return v;
  }
  // As IFEval does: the answer split at newlines, a line dropped at either end, the rest trimmed.
  const size_t first = answer.find('\n'), last = answer.rfind('\n');
  constexpr size_t kNone = std::string_view::npos;
  const std::string_view no_first = first == kNone ? std::string_view() : trim(answer.substr(first + 1));
  const std::string_view no_last = last == kNone ? std::string_view() : trim(answer.substr(0, last));
  const std::string_view neither =
      first == last ? std::string_view() : trim(answer.substr(first + 1, last - first - 1));
  for (const std::string_view variant : {answer, no_first, no_last, neither}) {
    if (passes_fluently(verifier, variant) || passes_fluently(verifier, without_asterisks(variant))) {
      v.loose = true;
      return v;
    }
  }
  return v;
}

TextQuality text_quality(std::string_view text) {
  const std::vector<std::u32string> words = words_of(text);
  TextQuality q;
  q.words = static_cast<int64_t>(words.size());
  q.distinct2 = Distinct(words, 2).share;
  q.repetition = words.size() < 4 ? 0 : 1 - Distinct(words, 4).share;
  q.empty = words.empty();
  return q;
}

}  // namespace saif
