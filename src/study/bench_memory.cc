// What a process holds in memory, as Linux counts it.
#include <algorithm>
#include <filesystem>
#include <fstream>

#include "study/bench.h"

namespace saif {
namespace {

// Bytes of the weights: the file itself, or a folder's safetensors.
int64_t file_bytes(const std::string& path) {
  std::error_code failed;
  if (!std::filesystem::is_directory(path, failed)) {
    const auto size = std::filesystem::file_size(path, failed);
    return failed ? 0 : static_cast<int64_t>(size);
  }
  int64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path, failed)) {
    if (entry.path().extension() != ".safetensors") continue;
    const auto size = entry.file_size(failed);
    if (!failed) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

}  // namespace

int64_t peak_memory() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  }
  return -1;
}

void forget_peak_memory() { std::ofstream("/proc/self/clear_refs") << 5; }

BenchRow memory_row(const Model& model, int64_t peak) {
  const int64_t files = file_bytes(model.path());
  BenchRow row = rate_row("memory", static_cast<double>(std::max<int64_t>(peak, 0) - files) * 1e-6, "MB", 0);
  row.extra["peak_mb"] = static_cast<double>(peak) * 1e-6;
  row.extra["weights_mb"] = static_cast<double>(files) * 1e-6;
  return row;
}

}  // namespace saif
