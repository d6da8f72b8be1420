// What this machine can do (`saif doctor`), and how near saif comes to it (`saif bench`). Rates are measured, best of a
// few short runs, on all cores: one measurement at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "saif/control.h"
#include "saif/engine.h"
#include "saif/json.h"

namespace saif {

struct MachineReport {
  std::string cpu, isa, onednn;  // processor, kernels in use, library version ("" without it)
  int threads = 0;
  double gemm_bf16_gflops = 0;  // the best of the library and saif's kernels at 512 x 1536 x 576
  double gemm_f32_gflops = 0;
  double read_gbps = 0;               // streaming reads of 1 GiB, all threads, in pages of 4 KiB as a mapped file has
  double read_huge_gbps = 0;          // the same in huge pages; not below read_gbps
  std::vector<std::string> problems;  // what will make saif slow or wrong here, and what to do
  Json to_json() const;
};
// `seconds` per rate, about; below 0.1 only 128 MiB are read, since making more memory would take longer than reading
// it.
MachineReport examine_machine(const Control& control, double seconds = 0.5);

// The threads that parallel loops begun by the calling thread use; 0: all cores.
void use_threads(int n);

struct BenchRow {
  std::string name;  // "prefill 512", "decode 1", "decode 128", "capture", "steering", "discovery", ...
  double value = 0;
  std::string unit;             // "tok/s", "%", "s"
  double roof = 0;              // in the same unit; 0: none
  double share = 0;             // of the roof: value / roof, for times roof / value
  Json extra = Json::object();  // e.g. tokens_naive, tokens_computed
  Json to_json() const;
};

struct BenchOptions {
  std::string shape;   // whose random weights the model given has (make_random_model); "" for a real model
  std::string job;     // a discovery job's JSON file; "": none; needs a tokenizer
  double seconds = 1;  // per measurement, about
  // Names of the rows wanted, also "prefill N" and "decode N" of any N and the rows that only come when asked for
  // ("sweep"); empty: the usual ones.
  std::vector<std::string> only;
  bool typical = false;     // the median of the runs in place of the best, and a single run where that takes `seconds`
  std::string roofs;        // a JSON file as `saif doctor --json` prints it; "": measured
  double load_seconds = 0;  // what loading the model took, known to the caller; 0: unknown, and no row "load"
};
// The rows of docs/bench.md, in the order wanted. The engine may lack a tokenizer unless there is a job.
// `for_many_rows`, if given, makes the engine of the rows that study verbs are like: it is asked once, when all rows of
// few tokens at a time and of the model alone have been measured with `engine`, which may die then. Throws kNotFound
// for an unknown row, kInvalidArgument for one that lacks what it needs.
std::vector<BenchRow> run_bench(Engine& engine, const BenchOptions& options, const Control& control,
                                const std::function<Engine&()>& for_many_rows = {});

// Models whose matrices are known by size: what --shape takes.
std::vector<std::string> model_shapes();
// Writes a Hugging Face folder (config.json, model.safetensors in bf16, no tokenizer) of the shape with random weights
// into an existing folder. Throws kNotFound offering the nearest shape.
void make_random_model(const std::string& folder, const std::string& shape);

}  // namespace saif
