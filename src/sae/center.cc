#include "sae/center.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/parallel.h"

namespace saif {
namespace {

constexpr int64_t kRowBlock = 128;  // rows per partial sum: fixes the order of sums over a batch
constexpr int kMedianSteps = 20;

}  // namespace

std::vector<double> column_sums(Mat<const float> x) {
  const int64_t blocks = (x.rows() + kRowBlock - 1) / kRowBlock;
  std::vector<float> partial(static_cast<size_t>(blocks * x.cols()), 0.0f);
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      float* sum = partial.data() + b * x.cols();
      for (int64_t r = b * kRowBlock; r < std::min(x.rows(), (b + 1) * kRowBlock); ++r) {
        const float* row = x.row(r);
        for (int64_t c = 0; c < x.cols(); ++c) sum[c] += row[c];
      }
    }
  });
  std::vector<double> sums(static_cast<size_t>(x.cols()), 0.0);
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t c = 0; c < x.cols(); ++c)
      sums[static_cast<size_t>(c)] += partial[static_cast<size_t>(b * x.cols() + c)];
  }
  return sums;
}

double spread(Mat<const float> x, const std::vector<double>& center) {
  const int64_t blocks = (x.rows() + kRowBlock - 1) / kRowBlock;
  std::vector<double> partial(static_cast<size_t>(blocks), 0.0);
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      double sum = 0;
      for (int64_t r = b * kRowBlock; r < std::min(x.rows(), (b + 1) * kRowBlock); ++r) {
        const float* row = x.row(r);
        for (int64_t c = 0; c < x.cols(); ++c) {
          const double d = row[c] - center[static_cast<size_t>(c)];
          sum += d * d;
        }
      }
      partial[static_cast<size_t>(b)] = sum;
    }
  });
  return std::accumulate(partial.begin(), partial.end(), 0.0);
}

std::vector<double> geometric_median(Mat<const float> x) {
  std::vector<double> center = column_sums(x);
  for (double& c : center) c /= static_cast<double>(x.rows());
  for (int step = 0; step < kMedianSteps; ++step) {
    std::vector<double> next(center.size(), 0.0);
    double total = 0;
    for (int64_t r = 0; r < x.rows(); ++r) {
      const double distance = std::sqrt(spread(x.rows_range(r, r + 1), center));
      const double weight = 1.0 / std::max(distance, 1e-12);
      total += weight;
      for (size_t c = 0; c < next.size(); ++c) next[c] += weight * x(r, static_cast<int64_t>(c));
    }
    for (size_t c = 0; c < next.size(); ++c) center[c] = next[c] / total;
  }
  return center;
}

}  // namespace saif
