// The named tensors of a checkpoint, whatever holds them. Immutable; thread-safe; keeps the mapping alive.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/ggml_types.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"

namespace saif {

struct SourceTensor {
  std::string name;
  std::vector<int64_t> shape;      // row-major
  GgmlType type = GgmlType::kF32;  // plain types too
  const void* data = nullptr;
  int64_t elements() const;
};

class TensorSource {
 public:
  // Throws kUnsupported naming a tensor of a type that weights cannot have.
  explicit TensorSource(const SafetensorsFolder& folder);
  explicit TensorSource(const GgufFile& file);
  TensorSource(TensorSource&&) = default;
  TensorSource& operator=(TensorSource&&) = default;
  ~TensorSource() = default;
  TensorSource(const TensorSource&) = delete;  // index_ points into tensors_
  TensorSource& operator=(const TensorSource&) = delete;
  const SourceTensor* find(std::string_view name) const;  // nullptr when absent
  const std::vector<SourceTensor>& tensors() const { return tensors_; }
  void forget_pages() const;  // MappedFile's, of every file
  void expect_all() const;    // likewise

 private:
  void index();
  std::vector<SourceTensor> tensors_;
  std::unordered_map<std::string_view, size_t> index_;  // keys point into tensors_
  std::vector<SafetensorsFile> files_;                  // keep the mapping
  std::vector<GgufFile> gguf_;
};

// A vector of `length` as float32; throws kMismatch calling the length by its name.
std::vector<float> read_vector(const SourceTensor& tensor, int64_t length, const std::string& length_name);

// Throws kUnsupported, naming the tensor, its type and the types that can be read.
void check_readable(const SourceTensor& tensor);

}  // namespace saif
