// The model's own answers as a corpus.
#pragma once

#include <string>
#include <vector>

#include "app.h"

namespace saif::cli {

struct SampleOptions {
  std::string prompts;  // file of prompts; "": no samples
  int64_t tokens = 200;
  double temperature = 0.7;
};
void add_sample_flags(CLI::App* verb, SampleOptions& o);

// The prompts, in the model's chat form where it has one, each with the model's answer. Kept in folder/samples.json: a
// second call reads them there. Throws kMismatch when they were made otherwise.
std::vector<std::vector<int32_t>> sample_documents(const SampleOptions& o, int64_t seed, Engine& engine,
                                                   const std::string& folder, const Control& control);

}  // namespace saif::cli
