// What the measurements of `saif bench` share (bench.cc, bench_discovery.cc). docs/bench.md explains every row.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "saif/machine.h"
#include "saif/model.h"
#include "saif/sae.h"

namespace saif {

// Multiply-adds counted twice, of the products with weights only.
struct ModelCost {
  double layer_flops = 0;  // per token and layer
  double head_flops = 0;   // per row of logits
  double layer_bytes = 0;  // of one layer's matrices, as they lie in memory
  double head_bytes = 0;   // of the unembedding
  int64_t layers = 0;
  double flops_per_second = 0;  // product rate of the model's type
  double bytes_per_second = 0;

  ModelCost(const Model& model, const MachineReport& machine);
  // Seconds that `rows` rows through `depth` layers and `logit_rows` rows of logits take at the product rate.
  double product_seconds(int64_t rows, int64_t depth, int64_t logit_rows) const;
  // Seconds of one decoding step: products or the reading of all weights once, whichever takes longer.
  double step_seconds(int64_t rows) const;
};

BenchRow rate_row(std::string name, double value, std::string unit, double roof);  // share = value / roof
BenchRow time_row(std::string name, double seconds, double roof);                  // share = roof / value

// A JumpReLU dictionary of random directions; about 64 of 16,384 latents are active on rows of elements of size `rms`.
std::shared_ptr<const Sae> random_sae(int64_t d_in, int64_t d_sae, double rms, const std::string& site);

// n ids drawn from the whole vocabulary; another stream, other ids.
std::vector<int32_t> random_ids(const Architecture& architecture, int64_t n, uint64_t stream);
// A vector of its own for each number, added at a layer's resid_post.
AppliedEdit random_edit(const Architecture& architecture, int layer, uint64_t number);

// The row "sweep": 10 contents x 60 settings, each a vector of its own.
BenchRow bench_sweep(Engine& engine, const ModelCost& cost, const Control& control);

// The most memory that was resident so far, bytes; -1: unknown.
int64_t peak_memory();
void forget_peak_memory();  // it starts anew, where the system allows that
// The row "memory": `peak` bytes less the model's files, MB.
BenchRow memory_row(const Model& model, int64_t peak);

// Contents x variants whose latents at a site are wanted: at each prompt's last token.
struct DiscoveryJob {
  std::string site, separator;
  int64_t d_sae = 0;
  bool post = true;  // the variant stands after the content
  std::vector<std::string> contents, variants;
};
// Throws kBadFormat naming the file; kUnsupported when the engine has no tokenizer; kNotFound for a site that the model
// has not.
DiscoveryJob read_discovery_job(const std::string& path, const Engine& engine);

// The row "discovery".
BenchRow bench_discovery(Engine& engine, const ModelCost& cost, const MachineReport& machine, const DiscoveryJob& job,
                         const Control& control);

}  // namespace saif
