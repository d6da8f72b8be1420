// Dense arrays: DType, Mat<T> (typed 2-D view), TensorView (erased view), Tensor (owner).
// Views never own; the owner must outlive them. Nothing here is thread-safe while written.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "saif/error.h"

namespace saif {

enum class DType { kF32, kF16, kBf16, kF64, kI64, kI32, kI16, kI8, kU8, kBool };

size_t size_of(DType dtype);       // bytes per element
const char* name_of(DType dtype);  // safetensors' spelling: "F32", "BF16", ...
std::optional<DType> parse_dtype(std::string_view name);

// A row-major 2-D view with a row stride, in elements. T may be const.
template <typename T>
class Mat {
 public:
  Mat() = default;
  Mat(T* data, int64_t rows, int64_t cols) : Mat(data, rows, cols, cols) {}
  Mat(T* data, int64_t rows, int64_t cols, int64_t stride) : data_(data), rows_(rows), cols_(cols), stride_(stride) {}
  operator Mat<const T>() const { return {data_, rows_, cols_, stride_}; }  // NOLINT(google-explicit-constructor)

  T* data() const { return data_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t stride() const { return stride_; }
  bool empty() const { return rows_ == 0 || cols_ == 0; }
  bool contiguous() const { return stride_ == cols_; }
  T* row(int64_t r) const { return data_ + r * stride_; }
  std::span<T> row_span(int64_t r) const { return {row(r), static_cast<size_t>(cols_)}; }
  T& operator()(int64_t r, int64_t c) const { return data_[r * stride_ + c]; }
  Mat rows_range(int64_t begin, int64_t end) const { return {row(begin), end - begin, cols_, stride_}; }
  Mat cols_range(int64_t begin, int64_t end) const { return {data_ + begin, rows_, end - begin, stride_}; }

 private:
  T* data_ = nullptr;
  int64_t rows_ = 0, cols_ = 0, stride_ = 0;
};

// A contiguous erased view.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  const void* data = nullptr;

  int64_t elements() const;
  size_t bytes() const { return static_cast<size_t>(elements()) * size_of(dtype); }
  std::string shape_text() const;  // "[576, 4608]"
};

// An owner of 64-byte aligned memory; movable, copied only by clone().
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, std::vector<int64_t> shape);               // uninitialised
  static Tensor zeros(DType dtype, std::vector<int64_t> shape);  // zero-filled
  Tensor clone() const;

  DType dtype() const { return dtype_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t elements() const;
  size_t bytes() const { return static_cast<size_t>(elements()) * size_of(dtype_); }
  bool empty() const { return data_ == nullptr; }
  void* data() { return data_.get(); }
  const void* data() const { return data_.get(); }
  TensorView view() const { return {dtype_, shape_, data_.get()}; }

  // Typed views; throw kInternal when the dtype is another. A 1-D tensor is one row; higher ranks fold all but the
  // last.
  Mat<float> f32();
  Mat<const float> f32() const;
  template <typename T>
  T* as() {
    return static_cast<T*>(data_.get());
  }
  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data_.get());
  }

 private:
  struct Free {
    void operator()(void* p) const;
  };
  DType dtype_ = DType::kF32;
  std::vector<int64_t> shape_;
  std::unique_ptr<void, Free> data_;
};

// Element conversions; round to nearest even. NaN stays NaN.
inline float bf16_to_f32(uint16_t v) { return std::bit_cast<float>(static_cast<uint32_t>(v) << 16); }
inline uint16_t f32_to_bf16(float v) {  // to the nearest, ties to even; without branches, so that loops vectorise
  const auto bits = std::bit_cast<uint32_t>(v);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16, quiet = (bits >> 16) | 0x40u;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}
float f16_to_f32(uint16_t v);
uint16_t f32_to_f16(float v);

// A float32 copy of a floating-point view (F32, F16, BF16, F64); throws kUnsupported for others.
Tensor to_f32(const TensorView& view);
// A copy in another floating-point type.
Tensor convert(const TensorView& view, DType dtype);

// Files of named tensors (safetensors): what captures, latents and vectors are written to.
// -----------------------------

struct NamedTensor {
  std::string name;
  TensorView view;
};

// Writes beside and renames into place. The same tensors and metadata give the same bytes in whatever order they come.
// Throws kInvalidArgument on a duplicate or reserved name, kIo when the file cannot be written.
void write_tensor_file(const std::string& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

// Every tensor of a file, copied, in the file's order. Throws Error naming file and tensor.
std::vector<std::pair<std::string, Tensor>> read_tensor_file(const std::string& path);

}  // namespace saif
