// What a thread of a product throws: a source of rows, the combination of a gated MLP, memory that is not there.
#include "kernels/cpu/linear.h"

#include <gtest/gtest.h>

#include "kernels/cpu/int8.h"
#include "support/kernel_matrices.h"
#include "support/message_of.h"

namespace saif::cpu {
namespace {

using test::message_of;

using testing_support::Matrix;
using testing_support::Random;
using testing_support::random_blocks;
using testing_support::ThreadCount;

constexpr int64_t kRows = 64, kCols = 256, kOutputs = 96;

// Rows of `x`, of which one cannot be made.
RowSource broken(const Matrix& x, int64_t bad) {
  return {kRows, kCols, [&x, bad](int64_t r, float*) {
            if (r == bad) throw Error(Errc::kIo, "row " + std::to_string(r));
            return x.mat().row(r);
          }};
}

TEST(LinearErrors, OfARow) {
  const ThreadCount threads(4);
  Random random(1);
  const Matrix x = random.matrix(kRows, kCols);
  Matrix y(kRows, kOutputs);
  const Tensor w = random.weight(DType::kF32, kOutputs, kCols);
  const LinearPart part{{w.data(), DType::kF32, kOutputs, kCols}, nullptr, y.mat(), false};
  Linear linear(Isa::kGeneric);
  for (const int64_t bad : {int64_t{0}, kRows / 2, kRows - 1}) {
    EXPECT_EQ(message_of([&] { linear.run(broken(x, bad), {&part, 1}, Compute::kF32); }), "row " + std::to_string(bad));
  }
  linear.run(broken(x, -1), {&part, 1}, Compute::kF32);  // and goes on
}

TEST(LinearErrors, OfAGatedTask) {
  const ThreadCount threads(4);
  Random random(2);
  const Matrix x = random.matrix(kRows, kCols);
  Matrix y(kRows, kCols);
  const Tensor up = random.weight(DType::kF32, kOutputs, kCols), down = random.weight(DType::kF32, kCols, kOutputs);
  const LinearPart product{{up.data(), DType::kF32, kOutputs, kCols}, nullptr, {}, false};
  const LinearPart last{{down.data(), DType::kF32, kCols, kOutputs}, nullptr, y.mat(), false};
  const auto combine = [](Mat<const float>, Mat<const float>, Mat<float>) { throw Error(Errc::kInternal, "combine"); };
  Linear linear(Isa::kGeneric);
  EXPECT_EQ(message_of([&] {
              linear.run_gated(broken(x, -1), {product, product, combine}, last, Compute::kF32);
            }),
            "combine");
}

TEST(LinearErrors, OfARowIn8Bits) {
  const ThreadCount threads(4);
  Int8Linear linear(Isa::kAvx512Bf16);
  if (!linear.available()) GTEST_SKIP() << "no dot products of 8 bits here";
  Random random(3);
  const Matrix x = random.matrix(kRows, kCols);
  Matrix y(kRows, kOutputs);
  const std::vector<uint8_t> blocks = random_blocks(random, GgmlType::kQ80, kOutputs * kCols / 32);
  const LinearPart part{{blocks.data(), DType::kBf16, kOutputs, kCols, GgmlType::kQ80}, nullptr, y.mat(), false};
  EXPECT_EQ(message_of([&] { linear.run(broken(x, 7), {&part, 1}); }), "row 7");
}

}  // namespace
}  // namespace saif::cpu
