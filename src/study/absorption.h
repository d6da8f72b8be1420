// The first-letter check on given activations; first_letter_absorption brings them from a model.
#pragma once

#include <string>
#include <vector>

#include "saif/study.h"

namespace saif {

struct LetterWords {
  std::vector<std::string> words;
  std::vector<int> letter;    // [n] 0 for a
  std::vector<uint8_t> test;  // [n]
};
// rows [n, d_in]: activations at the words.
AbsorptionResult absorption_of(const Sae& sae, Mat<const float> rows, const LetterWords& words,
                               const AbsorptionOptions& options);

// Words of the vocabulary (vocabulary_word), at most options.words of each letter, drawn; letters with fewer than
// min_words are left out. ids[i] belongs to words[i].
LetterWords words_of_vocabulary(const Tokenizer& tokenizer, const AbsorptionOptions& options,
                                std::vector<int32_t>& ids);

}  // namespace saif
