// Arrays that are not row-major, or not aligned, on disk.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "saif/tensor.h"

namespace saif {

// The number of elements, or nullopt when a size is negative or the product overflows.
std::optional<int64_t> elements_of(const std::vector<int64_t>& shape);

// Strides, in elements, of a row-major array.
std::vector<int64_t> row_major_strides(const std::vector<int64_t>& shape);

// A row-major copy. `data` [shape, by strides in elements >= 0] need not be aligned; the caller has checked that it
// holds the last element.
Tensor copy_strided(DType dtype, const std::byte* data, const std::vector<int64_t>& shape,
                    const std::vector<int64_t>& strides);

}  // namespace saif
