#include "tensor/rows.h"

#include <algorithm>
#include <cmath>

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

Tensor rows_of(Mat<const float> x, std::span<const int64_t> chosen) {
  Tensor out(DType::kF32, {static_cast<int64_t>(chosen.size()), x.cols()});
  for (size_t i = 0; i < chosen.size(); ++i) {
    std::copy_n(x.row(chosen[i]), x.cols(), out.f32().row(static_cast<int64_t>(i)));
  }
  return out;
}

}  // namespace saif
