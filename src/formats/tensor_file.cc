#include <cstring>

#include "formats/safetensors.h"
#include "saif/tensor.h"

namespace saif {

void write_tensor_file(const std::string& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  write_safetensors(path, tensors, metadata);
}

std::vector<std::pair<std::string, Tensor>> read_tensor_file(const std::string& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  std::vector<std::pair<std::string, Tensor>> out;
  for (const std::string& name : file.names()) {
    const TensorView& view = file.at(name);
    Tensor tensor(view.dtype, view.shape);
    if (view.bytes() > 0) std::memcpy(tensor.data(), view.data, view.bytes());
    out.emplace_back(name, std::move(tensor));
  }
  return out;
}

}  // namespace saif
