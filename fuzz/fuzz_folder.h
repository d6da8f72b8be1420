// What a fuzz target needs to hand a loader a folder of files in memory.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

namespace saif::fuzz {

// A folder of this process in memory; removed at exit.
class Folder {
 public:
  explicit Folder(const std::string& name) : path_("/dev/shm/saif_fuzz_" + std::to_string(getpid()) + "/" + name) {
    std::filesystem::create_directories(path_);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(std::filesystem::path(path_).parent_path(), ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::string& path() const { return path_; }

  void write(const std::string& relative, std::span<const uint8_t> bytes) const {
    const std::filesystem::path file = std::filesystem::path(path_) / relative;
    std::filesystem::create_directories(file.parent_path());
    std::FILE* out = std::fopen(file.c_str(), "wb");
    if (out == nullptr || std::fwrite(bytes.data(), 1, bytes.size(), out) != bytes.size()) std::abort();
    std::fclose(out);
  }

 private:
  std::string path_;
};

// The bytes up to the first zero byte, and those behind it: a text and a binary file in one input.
inline std::pair<std::span<const uint8_t>, std::span<const uint8_t>> split(std::span<const uint8_t> bytes) {
  size_t at = 0;
  while (at < bytes.size() && bytes[at] != 0) ++at;
  return {bytes.first(at), bytes.subspan(at < bytes.size() ? at + 1 : at)};
}

}  // namespace saif::fuzz

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

// Weights are long and configurations short: three times of four the first `head` bytes and the text alone change.
namespace saif::fuzz {

inline size_t mutate_text(std::span<uint8_t> data, size_t size, size_t head, unsigned int seed) {
  if (seed % 4 == 0 || size <= head) return LLVMFuzzerMutate(data.data(), size, data.size());
  const size_t text = head + split(data.subspan(head, size - head)).first.size();
  const std::string tail(reinterpret_cast<const char*>(data.data()) + text, size - text);
  const size_t changed = LLVMFuzzerMutate(data.data(), text, data.size() - tail.size());
  std::copy(tail.begin(), tail.end(), data.begin() + static_cast<int64_t>(changed));
  return changed + tail.size();
}

}  // namespace saif::fuzz
