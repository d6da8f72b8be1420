// What a training run reads and keeps beside the SAE.
#pragma once

#include <string>
#include <vector>

#include "sae/row_fit.h"

namespace saif {

struct TrainSplit {
  std::vector<std::vector<int32_t>> train, held_out;
};
// Documents cut to the context (`limit`: the model's); each is held out or not by its own random number, so that more
// documents leave the others where they are.
TrainSplit split_documents(std::span<const std::vector<int32_t>> documents, const SaeTrainOptions& options,
                           int64_t limit);

std::string hash_of_documents(std::span<const std::vector<int32_t>> documents);

// metrics.jsonl: a line per some steps. Lines behind the step at which a run resumes are dropped.
class MetricsTable {
 public:
  MetricsTable(std::string path, int64_t steps_done);
  void add(const Json& entry);

 private:
  std::string path_;
};

// How often the latents fire as JSON, empty bins left out.
Json density_histogram(const RowFits& fits);

}  // namespace saif
