// Any bytes: parse_safetensors must neither crash nor accept ranges outside the input.
#include <cstdint>
#include <cstdlib>

#include "formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto result = saif::parse_safetensors(std::as_bytes(std::span(data, size)));
  if (!result.ok()) return 0;
  for (const auto& tensor : result.value().tensors) {
    if (tensor.begin > tensor.end || tensor.end > size) std::abort();
    const saif::TensorView view{tensor.dtype, tensor.shape, data + tensor.begin};
    if (view.bytes() != tensor.end - tensor.begin) std::abort();
  }
  return 0;
}
