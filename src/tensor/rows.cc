#include "tensor/rows.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace saif {

double norm_of(std::span<const float> v) {
  double sum = 0;
  for (const float x : v) sum += static_cast<double>(x) * x;
  return std::sqrt(sum);
}

double norm_of(std::span<const double> v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  return std::sqrt(sum);
}

TensorView row_of(const TensorView& matrix, int64_t row) {
  const int64_t cols = matrix.shape[1];
  const auto offset = static_cast<size_t>(row) * static_cast<size_t>(cols) * size_of(matrix.dtype);
  return {matrix.dtype, {cols}, static_cast<const std::byte*>(matrix.data) + offset};
}

Tensor rows_of(Mat<const float> x, std::span<const int64_t> chosen) {
  Tensor out(DType::kF32, {static_cast<int64_t>(chosen.size()), x.cols()});
  for (size_t i = 0; i < chosen.size(); ++i) {
    std::copy_n(x.row(chosen[i]), x.cols(), out.f32().row(static_cast<int64_t>(i)));
  }
  return out;
}

}  // namespace saif
