// Rows of a matrix: their length, a choice of them.
#pragma once

#include <cstdint>
#include <span>

#include "saif/tensor.h"

namespace saif {

// Euclidean, summed in order.
double norm_of(std::span<const float> v);
double norm_of(std::span<const double> v);

// Row `row` of a matrix of any element type, [cols].
TensorView row_of(const TensorView& matrix, int64_t row);

// Copies of x's rows `chosen`, [chosen, cols].
Tensor rows_of(Mat<const float> x, std::span<const int64_t> chosen);

}  // namespace saif
