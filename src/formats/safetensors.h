// safetensors: a u64 little-endian header length, a JSON header, raw little-endian data. Reading maps the file: views
// point into the mapping and live as long as the SafetensorsFile (or a copy of it). All readers are thread-safe.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.h"
#include "saif/error.h"
#include "saif/tensor.h"

namespace saif {

using SafetensorsMetadata = std::map<std::string, std::string>;

// What a header says, checked: ranges lie in the file, fit shape and dtype, and tile the data without hole or overlap.
struct SafetensorsView {
  struct Entry {
    std::string name;
    DType dtype = DType::kF32;
    std::vector<int64_t> shape;
    size_t begin = 0, end = 0;  // byte range, from the start of the file
  };
  std::vector<Entry> tensors;  // by position in the file
  SafetensorsMetadata metadata;
};

// Pure. An unknown dtype (F8_E4M3, U16, ...) is kUnsupported, everything else that is wrong kBadFormat.
Result<SafetensorsView> parse_safetensors(std::span<const std::byte> bytes);

// One file. Cheap to copy: copies share the mapping.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::string& path);

  const std::string& path() const;
  const std::vector<std::string>& names() const;        // by position in the file
  const TensorView* find(std::string_view name) const;  // nullptr when absent
  const TensorView& at(std::string_view name) const;    // throws kNotFound, naming file and tensor
  const SafetensorsMetadata& metadata() const;
  void forget_pages() const;  // MappedFile's
  void expect_all() const;    // MappedFile's

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

// The tensors of a model folder: model.safetensors, or model.safetensors.index.json with its shards (file names in the
// same folder). A tensor that a shard holds but the index does not list is found too; one that the index puts into
// another shard is refused. Cheap to copy.
class SafetensorsFolder {
 public:
  // True when the folder holds one of the two.
  static bool present(const std::string& folder);
  static SafetensorsFolder open(const std::string& folder);

  const std::vector<std::string>& names() const;        // sorted
  const TensorView* find(std::string_view name) const;  // nullptr when absent
  const TensorView& at(std::string_view name) const;    // throws kNotFound, naming folder and tensor
  const std::vector<SafetensorsFile>& files() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

// Writes beside and renames into place. The same tensors and metadata give the same bytes in whatever order they come:
// sorted by alignment (widest first), then name. Header and every tensor are 8-byte aligned where the format, which
// allows no holes, permits it: after the wide types always. Throws kInvalidArgument on a duplicate or reserved name.
void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                       const SafetensorsMetadata& metadata = {});

}  // namespace saif
