#include "saif/machine.h"
#include "verbs.h"

namespace saif::cli {
namespace {

void doctor(const Context& context) {
  const MachineReport report = examine_machine(context.control);
  if (context.json) return print_json(report.to_json());
  print_line(format_table({{"processor", report.cpu},
                           {"threads", std::to_string(report.threads)},
                           {"kernels", report.isa},
                           {"oneDNN", report.onednn.empty() ? "absent" : report.onednn},
                           {"bf16 products", format_number(report.gemm_bf16_gflops, 0) + " GFLOP/s"},
                           {"f32 products", format_number(report.gemm_f32_gflops, 0) + " GFLOP/s"},
                           {"memory reads", format_number(report.read_gbps, 1) + " GB/s, " +
                                                format_number(report.read_huge_gbps, 1) + " GB/s in huge pages"}}));
  for (const std::string& problem : report.problems) print_line("problem: " + problem);
  if (report.problems.empty()) print_line("no problems found");
}

}  // namespace

void add_doctor(CLI::App& root, Context& context) {
  CLI::App* verb = add_verb(root, context, "doctor", "What this machine has, and its roofs, measured");
  verb->callback([&context] { doctor(context); });
}

}  // namespace saif::cli
