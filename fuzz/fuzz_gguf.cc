// Any bytes: parse_gguf must neither crash nor accept ranges outside the input; what it accepts can be read and
// dequantised.
#include <cstdint>
#include <cstdlib>

#include "formats/gguf.h"

namespace {

size_t read_all(const saif::GgufArray& array) {
  size_t sum = 0;
  const bool integers = array.element <= saif::GgufType::kI32;
  for (size_t i = 0; i < array.size && integers; ++i) sum += static_cast<size_t>(array.int_at(i));
  for (const auto& s : array.strings) sum += s.empty() ? 0 : static_cast<size_t>(s.back());
  for (const auto& inner : array.arrays) sum += read_all(inner);
  return sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto result = saif::parse_gguf(std::as_bytes(std::span(data, size)));
  if (!result.ok()) return 0;
  for (const auto& [key, value] : result.value().metadata()) {
    if (result.value().find(key) == nullptr) std::abort();
    if (const auto* array = std::get_if<saif::GgufArray>(&value.value)) read_all(*array);
  }
  for (const auto& tensor : result.value().tensors()) {
    if (tensor.offset > size || tensor.bytes > size - tensor.offset) std::abort();
    if (saif::info_of(tensor.type).can_dequantize) saif::dequantize(tensor, saif::DType::kBf16);
  }
  return 0;
}
