// What this machine can do (`saif doctor`), and how near saif comes to it (`saif bench`). Rates are measured, best of a
// few short runs.
#pragma once

#include <cstdint>
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
  double read_gbps = 0;               // streaming reads of 1 GiB, all threads
  std::vector<std::string> problems;  // what will make saif slow or wrong here, and what to do
  Json to_json() const;
};
MachineReport examine_machine(const Control& control);

// The threads that parallel loops use; 0: all cores.
void use_threads(int n);

struct BenchRow {
  std::string name;  // "prefill 512", "decode 1", "decode 128", "capture", "steering", "discovery", ...
  double value = 0;
  std::string unit;             // "tok/s", "%", "s"
  double roof = 0;              // in the same unit; 0: none
  double share = 0;             // value / roof
  Json extra = Json::object();  // e.g. tokens_naive, tokens_computed
  Json to_json() const;
};

struct BenchOptions {
  std::string shape;   // "" for the model given, else a named shape with random weights
  std::string job;     // a discovery job's JSON file; "": none
  double seconds = 1;  // per measurement, about
};
std::vector<BenchRow> run_bench(Engine& engine, const BenchOptions& options, const Control& control);

}  // namespace saif
