#include "study/bench.h"
#include "study/timing.h"

namespace saif {
namespace {

constexpr int64_t kContents = 10, kSettings = 60, kPrompt = 48, kNew = 32;  // kPrompt, kNew: tokens

}  // namespace

BenchRow bench_sweep(Engine& engine, const ModelCost& cost, const Control& control) {
  const Architecture& architecture = engine.model().architecture();
  const int64_t prompt = std::min(kPrompt, architecture.context / 2);
  const int64_t fresh = std::min(kNew, architecture.context - prompt);
  const int layer = static_cast<int>(architecture.n_layers) * 4 / 5;
  std::vector<GenerateRequest> requests;
  for (int64_t setting = 0; setting < kSettings; ++setting) {
    const AppliedEdit edit = random_edit(architecture, layer, static_cast<uint64_t>(setting));
    for (int64_t content = 0; content < kContents; ++content) {
      GenerateRequest request;
      request.ids = random_ids(architecture, prompt, 200 + static_cast<uint64_t>(content));
      request.max_new_tokens = fresh;
      request.ignore_eos = true;
      request.edits = {edit};
      requests.push_back(std::move(request));
    }
  }
  const double seconds = seconds_of([&] { engine.generate(requests, control); });

  // Prompts once, then steps of full batches.
  const int64_t batch = std::min<int64_t>(EngineOptions{}.max_batch, kContents * kSettings);
  const double steps = static_cast<double>(kContents * kSettings * (fresh - 1)) / static_cast<double>(batch);
  const double roof =
      cost.product_seconds(kContents * prompt, cost.layers, kContents) + steps * cost.step_seconds(batch);
  BenchRow row = time_row("sweep", seconds, roof);
  row.extra["contents"] = kContents;
  row.extra["settings"] = kSettings;
  row.extra["prompt_tokens"] = prompt;
  row.extra["new_tokens"] = fresh;
  return row;
}

}  // namespace saif
