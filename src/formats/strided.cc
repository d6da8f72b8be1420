#include "formats/strided.h"

#include <cstring>
#include <limits>

namespace saif {

std::optional<int64_t> elements_of(const std::vector<int64_t>& shape) {
  int64_t bound = 1;
  bool none = false;
  for (const int64_t n : shape) {
    if (n < 0 || (n != 0 && bound > std::numeric_limits<int64_t>::max() / 16 / n)) return std::nullopt;
    if (n != 0) bound *= n;
    none = none || n == 0;
  }
  return none ? 0 : bound;
}

std::vector<int64_t> row_major_strides(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= shape[i];
  }
  return strides;
}

Tensor copy_strided(DType dtype, const std::byte* data, const std::vector<int64_t>& shape,
                    const std::vector<int64_t>& strides) {
  Tensor out(dtype, shape);
  const size_t size = size_of(dtype);
  auto* to = static_cast<std::byte*>(out.data());
  const int64_t n = out.elements();
  if (strides == row_major_strides(shape)) {
    if (n > 0) std::memcpy(to, data, static_cast<size_t>(n) * size);
    return out;
  }
  std::vector<int64_t> index(shape.size(), 0);
  int64_t offset = 0;
  for (int64_t i = 0; i < n; ++i) {
    std::memcpy(to + static_cast<size_t>(i) * size, data + static_cast<size_t>(offset) * size, size);
    for (size_t d = shape.size(); d-- > 0;) {
      offset += strides[d];
      if (++index[d] < shape[d]) break;
      offset -= strides[d] * shape[d];
      index[d] = 0;
    }
  }
  return out;
}

}  // namespace saif
