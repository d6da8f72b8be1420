#include "model/tensor_source.h"

#include <utility>

namespace saif {
namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  return TensorView{DType::kF32, shape, nullptr}.shape_text();
}

GgmlType plain_type(DType dtype, const std::string& name) {
  switch (dtype) {
    case DType::kF32:
      return GgmlType::kF32;
    case DType::kF16:
      return GgmlType::kF16;
    case DType::kBf16:
      return GgmlType::kBf16;
    case DType::kF64:
      return GgmlType::kF64;
    case DType::kI64:
      return GgmlType::kI64;
    case DType::kI32:
      return GgmlType::kI32;
    case DType::kI16:
      return GgmlType::kI16;
    case DType::kI8:
      return GgmlType::kI8;
    default:
      throw Error(Errc::kUnsupported, name + " is stored as " + name_of(dtype) + ", which no weight can be");
  }
}

}  // namespace

int64_t SourceTensor::elements() const {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

TensorSource::TensorSource(const SafetensorsFolder& folder) : files_(folder.files()) {
  for (const std::string& name : folder.names()) {
    const TensorView& view = folder.at(name);
    if (view.dtype == DType::kU8 || view.dtype == DType::kBool) continue;  // masks of old checkpoints
    tensors_.push_back({name, view.shape, plain_type(view.dtype, name), view.data});
  }
  index();
}

TensorSource::TensorSource(const GgufFile& file) : gguf_{file} {
  for (const GgufTensor& tensor : file->tensors()) {
    tensors_.push_back({tensor.name, tensor.shape, tensor.type, tensor.data});
  }
  index();
}

void TensorSource::index() {
  for (size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
}

const SourceTensor* TensorSource::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

void TensorSource::forget_pages() const {
  for (const SafetensorsFile& file : files_) file.forget_pages();
  for (const GgufFile& file : gguf_) file.forget_pages();
}

void TensorSource::expect_all() const {
  for (const SafetensorsFile& file : files_) file.expect_all();
  for (const GgufFile& file : gguf_) file.expect_all();
}

void check_readable(const SourceTensor& tensor) {
  if (info_of(tensor.type).can_dequantize) return;
  std::string readable;
  for (uint32_t id = 0; id < 64; ++id) {
    const GgmlTypeInfo* info = find_ggml_type(id);
    if (info != nullptr && info->can_dequantize) readable += (readable.empty() ? "" : ", ") + std::string(info->name);
  }
  throw Error(Errc::kUnsupported, tensor.name + " is stored as " + name_of(tensor.type) +
                                      ", which is not implemented; implemented are " + readable);
}

std::vector<float> read_vector(const SourceTensor& tensor, int64_t length, const std::string& length_name) {
  if (tensor.shape.size() != 1 || tensor.shape[0] != length) {
    throw Error(Errc::kMismatch, tensor.name + ": found " + shape_text(tensor.shape) + ", expected [" + length_name +
                                     " " + std::to_string(length) + "]");
  }
  check_readable(tensor);
  std::vector<float> out(static_cast<size_t>(length));
  dequantize(tensor.type, tensor.data, length, out.data());
  return out;
}

}  // namespace saif
