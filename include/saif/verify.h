// Does an answer comply with an instruction, is it fluent, and how good a text is it?
// Everything here is a pure function of the text and thread-safe. Texts are UTF-8; invalid bytes count as one
// character each. A word is a maximal run of characters that are not Unicode white space, lower-cased (ASCII, Latin-1,
// Latin Extended-A, Greek, Cyrillic), with punctuation at its two ends taken off; a run of punctuation only is a word
// of its own, so that "{ { { {" is not an empty text. Languages written without spaces (Chinese, Japanese, Thai) yield
// one word per run of text: the word rules then judge them too strictly, and only the character rule is meaningful.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "saif/json.h"

namespace saif {

class Verifier {
 public:
  virtual ~Verifier() = default;
  virtual bool passes(std::string_view answer) const = 0;
};

// name and args:
//   language       {"language": "fr"}                         the identified language, with confidence >= 0.5
//   json           {}                                         an object with a key and a value
//   python         {}                                         Python with two different statements or more
//   numbered_list  {"min_items": 2}                           "1." "2." or "1)" "2)", each with text
//   verse          {"min_lines": 2, "min_words": 2, "max_words": 12}
//   prefix         {"text": "Once upon a time"}               how the answer begins, case ignored
//   sentences      {"max": 1, "min_words": 3, "max_words": 40}    complete sentences, words of the whole answer
// Absent arguments take the values above; `language` and `text` are required. Throws kInvalidArgument for an unknown
// name or argument, offering the nearest known one.
std::unique_ptr<const Verifier> make_verifier(std::string_view name, const Json& args);
// All names, in the order above.
std::vector<std::string> verifier_names();

// Fluent: distinct word bigrams >= 0.7 of all, distinct character 5-grams >= 0.6 of all, three words and five
// characters or more. 5-grams are over code points of the text as it stands, with each run of white space made one
// space.
struct Fluency {
  double distinct_word_bigrams = 0;  // share of all word bigrams, [0, 1]; 0 when there are none
  double distinct_char_5grams = 0;
  int64_t words = 0;
  bool fluent = false;
};
Fluency fluency(std::string_view answer);

// strict = checker and fluent. loose = strict, or some IFEval relaxation of the answer (Zhou et al., arXiv 2311.07911)
// passes the checker and is fluent: {whole, without first line, without last line, without both} x {as is, asterisks
// removed}; an empty variant never passes.
struct Verdict {
  bool checker = false, strict = false, loose = false;
};
Verdict judge_answer(const Verifier& verifier, std::string_view answer);

// Quality beside success. distinct2: distinct word bigrams over all (Li et al., arXiv 1510.03055). repetition: share of
// word 4-grams that occurred earlier in the text, 1 - distinct/all (Welleck et al., arXiv 1908.04319, seq-rep-4).
// Both are 0 for a text too short to have one; empty: nothing but white space.
struct TextQuality {
  int64_t words = 0;
  double distinct2 = 0, repetition = 0;
  bool empty = true;
};
TextQuality text_quality(std::string_view text);

}  // namespace saif
