// What the tests of the kernels share: random matrices whose rows are longer than their columns, random blocks of GGUF,
// comparisons, and a number of threads for a scope.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "saif/tensor.h"

namespace saif::testing_support {

class Matrix {
 public:
  Matrix(int64_t rows, int64_t cols, int64_t extra = 0)
      : rows_(rows), cols_(cols), stride_(cols + extra), data_(static_cast<size_t>(rows * stride_)) {}
  Mat<float> mat() { return {data_.data(), rows_, cols_, stride_}; }
  Mat<const float> mat() const { return {data_.data(), rows_, cols_, stride_}; }
  // The gap between rows, which no operation may write.
  Mat<const float> tail() const { return {data_.data() + cols_, rows_, stride_ - cols_, stride_}; }

 private:
  int64_t rows_, cols_, stride_;
  std::vector<float> data_;
};

// xorshift: a test needs numbers, not statistics.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ULL + 1) {}
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
  float value() { return static_cast<float>(next() >> 40) * 0x1p-23f - 1.0f; }  // [-1, 1)
  void fill(Mat<float> m, float scale = 1.0f) {
    for (int64_t r = 0; r < m.rows(); ++r) {
      for (float& f : m.row_span(r)) f = value() * scale;
    }
  }
  Matrix matrix(int64_t rows, int64_t cols, int64_t extra = 0, float scale = 1.0f) {
    Matrix m(rows, cols, extra);
    fill({m.mat().data(), rows, cols + extra}, scale);
    return m;
  }
  Tensor weight(DType dtype, int64_t out, int64_t in) {
    Tensor t(DType::kF32, {out, in});
    fill(t.f32());
    return convert(t.view(), dtype);
  }

 private:
  uint64_t state_;
};

// Where a block keeps its float16 scales.
inline std::vector<size_t> scales_of(GgmlType type) {
  switch (type) {
    case GgmlType::kQ41:
    case GgmlType::kQ51:
    case GgmlType::kQ4K:
    case GgmlType::kQ5K:
      return {0, 2};
    case GgmlType::kQ2K:
      return {80, 82};
    case GgmlType::kQ3K:
      return {108};
    case GgmlType::kQ6K:
      return {208};
    default:
      return {0};
  }
}

// Random bits in every field; scales of either sign and, now and then, zero or subnormal.
inline std::vector<uint8_t> random_blocks(Random& random, GgmlType type, int64_t n) {
  const size_t bytes = info_of(type).block_bytes;
  std::vector<uint8_t> out(static_cast<size_t>(n) * bytes);
  for (uint8_t& b : out) b = static_cast<uint8_t>(random.next() >> 32);
  for (size_t block = 0; block < static_cast<size_t>(n); ++block) {
    for (const size_t at : scales_of(type)) {
      uint16_t h = f32_to_f16(random.value() * 0.125f);
      if (random.below(16) == 0) h = static_cast<uint16_t>(random.below(3) * 0x4001);
      std::memcpy(out.data() + block * bytes + at, &h, sizeof h);
    }
  }
  return out;
}

class ThreadCount {
 public:
  explicit ThreadCount(int n) : before_(max_threads()) { set_threads(n); }
  ~ThreadCount() { set_threads(before_); }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int before_;
};

inline void expect_near(Mat<const float> expected, Mat<const float> found, double tolerance, const std::string& what) {
  ASSERT_EQ(expected.rows(), found.rows());
  ASSERT_EQ(expected.cols(), found.cols());
  for (int64_t r = 0; r < expected.rows(); ++r) {
    for (int64_t c = 0; c < expected.cols(); ++c) {
      const double e = expected(r, c), f = found(r, c);
      if (std::isnan(f) || std::abs(e - f) > tolerance * (1.0 + std::abs(e))) {
        FAIL() << what << ": at (" << r << ", " << c << ") found " << f << ", expected " << e;
      }
    }
  }
}
inline void expect_near(const Matrix& expected, const Matrix& found, double tolerance, const std::string& what) {
  expect_near(expected.mat(), found.mat(), tolerance, what);
}

inline void expect_bits(Mat<const float> expected, Mat<const float> found, const std::string& what) {
  ASSERT_EQ(expected.rows(), found.rows());
  ASSERT_EQ(expected.cols(), found.cols());
  for (int64_t r = 0; r < expected.rows(); ++r) {
    for (int64_t c = 0; c < expected.cols(); ++c) {
      if (std::memcmp(&expected(r, c), &found(r, c), sizeof(float)) != 0) {
        FAIL() << what << ": at (" << r << ", " << c << ") found " << found(r, c) << ", expected " << expected(r, c);
      }
    }
  }
}

}  // namespace saif::testing_support
