// GGUF (versions 2 and 3, little-endian): typed metadata and tensors in ggml's types. Reading maps the file: names,
// strings, arrays and tensor data point into the mapping and live as long as the GgufFile (or a copy of it).
// All readers are thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/file.h"
#include "saif/error.h"
#include "saif/tensor.h"
#include "tensor/ggml_types.h"

namespace saif {

// Values as in the file.
enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

const char* name_of(GgufType type);  // "u32", "string", ...

// An array value. Scalars stay packed in the file's bytes; strings are views into them.
struct GgufArray {
  GgufType element = GgufType::kU8;
  size_t size = 0;
  std::span<const std::byte> packed;      // of scalars, unaligned
  std::vector<std::string_view> strings;  // of strings
  std::vector<GgufArray> arrays;          // of arrays

  // One scalar (i < size); throw kBadFormat when the elements are of another kind. number_at also reads integers.
  int64_t int_at(size_t i) const;
  double number_at(size_t i) const;
  bool bool_at(size_t i) const;
};

struct GgufValue {
  GgufType type = GgufType::kU8;
  // Unsigned and signed integers widen to int64 (u64 above its range stays uint64_t), F32 and F64 to double.
  std::variant<int64_t, uint64_t, double, bool, std::string_view, GgufArray> value;
};

struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::kF32;
  std::vector<int64_t> shape;  // row-major: [rows = out, cols = in]; ggml's own order is the reverse
  int64_t elements = 0;
  size_t offset = 0, bytes = 0;  // byte range, offset from the start of the file
  const void* data = nullptr;    // into the parsed bytes; aligned as the file says (32 unless it says otherwise)

  std::string shape_text() const;  // "[576, 1536]"
};

// The parsed file: metadata in file order with typed lookups, and tensors in file order.
class GgufView {
 public:
  const std::vector<std::pair<std::string_view, GgufValue>>& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  uint32_t version() const { return version_; }
  size_t alignment() const { return alignment_; }

  const GgufTensor* find_tensor(std::string_view name) const;  // nullptr when absent
  const GgufValue* find(std::string_view key) const;           // nullptr when absent

  // nullopt when absent; throw kBadFormat naming key, found and expected type when it is of another kind.
  std::optional<int64_t> find_int(std::string_view key) const;    // any integer type
  std::optional<double> find_number(std::string_view key) const;  // any float or integer type
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string_view> find_string(std::string_view key) const;
  const GgufArray* find_array(std::string_view key) const;
  // The elements of an array of strings, integers or numbers; empty optional or nullptr when absent.
  const std::vector<std::string_view>* find_strings(std::string_view key) const;
  std::optional<std::vector<int64_t>> find_ints(std::string_view key) const;
  std::optional<std::vector<float>> find_numbers(std::string_view key) const;

  // The same, and kNotFound naming the key when it is absent.
  uint32_t require_u32(std::string_view key) const;  // any integer type, value within u32
  int64_t require_int(std::string_view key) const;
  double require_number(std::string_view key) const;
  bool require_bool(std::string_view key) const;
  std::string_view require_string(std::string_view key) const;
  const std::vector<std::string_view>& require_strings(std::string_view key) const;
  std::vector<int64_t> require_ints(std::string_view key) const;
  std::vector<float> require_numbers(std::string_view key) const;
  const GgufTensor& require_tensor(std::string_view name) const;

  // The name with which errors of the lookups begin; the path for an opened file.
  const std::string& source() const { return source_; }

 private:
  friend class GgufParser;
  friend class GgufFile;
  std::string source_ = "GGUF";
  uint32_t version_ = 0;
  size_t alignment_ = 32;
  std::vector<std::pair<std::string_view, GgufValue>> metadata_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, size_t> metadata_index_, tensor_index_;  // keys point into the parsed bytes
};

// Pure: the view points into `bytes`. Refuses duplicates, counts and lengths beyond the file, overlapping tensors.
Result<GgufView> parse_gguf(std::span<const std::byte> bytes);

// A mapped file: file->require_u32("llama.block_count"). Cheap to copy: copies share mapping and view.
class GgufFile {
 public:
  static GgufFile open(const std::string& path);
  const GgufView* operator->() const { return view_.get(); }
  const GgufView& view() const { return *view_; }
  const std::string& path() const { return file_->path(); }
  void forget_pages() const { file_->forget_pages(); }
  void expect_all() const { file_->expect_all(); }

 private:
  std::shared_ptr<const MappedFile> file_;
  std::shared_ptr<const GgufView> view_;
};

// A dequantised copy, F32 or BF16, in the tensor's row-major shape.
Tensor dequantize(const GgufTensor& tensor, DType dtype);

}  // namespace saif
