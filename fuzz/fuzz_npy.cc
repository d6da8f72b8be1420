// Any bytes: the array that parse_npy promises lies in them.
#include <cstdint>
#include <cstdlib>

#include "formats/npz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto npy = saif::parse_npy(std::as_bytes(std::span(data, size)));
  if (!npy.ok()) return 0;
  const saif::TensorView view{npy.value().dtype, npy.value().shape, data + npy.value().begin};
  if (npy.value().begin > size || view.bytes() > size - npy.value().begin) std::abort();
  return 0;
}
