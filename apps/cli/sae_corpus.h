// The documents that `saif sae train` and `saif sae eval` read.
#pragma once

#include <string>
#include <vector>

#include "app.h"
#include "saif/text.h"

namespace saif::cli {

struct CorpusOptions {
  std::string model = "smollm2", corpus, dtype = "auto";
  int64_t documents = 0;
};
void add_corpus_flags(CLI::App* verb, CorpusOptions& o);
// Ids of each document, cut to `context` tokens; those of fewer than two are left out.
std::vector<std::vector<int32_t>> read_documents(const CorpusOptions& o, const Tokenizer& tokenizer, int64_t context);

void add_sae_eval(CLI::App& sae, Context& context);

}  // namespace saif::cli
