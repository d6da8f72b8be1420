// Every operation of every instruction set of this CPU against the reference, and the promises of the contract:
// a row does not depend, bit for bit, on its batch, the number of threads or the cut of a KV chain.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/parallel.h"
#include "kernels/backend.h"
#include "support/kernel_matrices.h"
#include "support/param_name.h"

namespace saif {
namespace {

using testing_support::expect_bits;
using testing_support::expect_near;
using testing_support::Matrix;
using testing_support::Random;
using testing_support::random_blocks;
using testing_support::ThreadCount;

class Linear : public ::testing::TestWithParam<std::string> {};

struct Shape {
  int64_t m, n, k;
};

TEST_P(Linear, AgreesWithReference) {
  const auto ref = make_ref_backend();
  const auto cpu = make_cpu_backend(GetParam());
  Random random(1);
  const Shape shapes[] = {{1, 16, 32},  {1, 1, 1},      {2, 5, 3},     {3, 17, 40},  {5, 33, 88},
                          {8, 47, 64},  {9, 48, 95},    {16, 49, 31},  {17, 64, 33}, {64, 96, 88},
                          {130, 7, 40}, {300, 100, 57}, {7, 192, 576}, {12, 15, 100}};
  for (const Shape& s : shapes) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
      for (const Compute compute : {Compute::kF32, Compute::kBf16}) {
        for (const bool accumulate : {false, true}) {
          const Matrix x = random.matrix(s.m, s.k, 3), start = random.matrix(s.m, s.n, 5);
          const Tensor w = random.weight(dtype, s.n, s.k);
          const Matrix bias = random.matrix(1, s.n, 0);
          Matrix expected = start, found = start;
          const auto call = [&](Backend& backend, Matrix& y) {
            const LinearPart part{
                {w.data(), dtype, s.n, s.k}, accumulate ? nullptr : bias.mat().data(), y.mat(), accumulate};
            backend.linear(x.mat(), {&part, 1}, compute);
          };
          call(*ref, expected);
          call(*cpu, found);
          const std::string what =
              std::to_string(s.m) + "x" + std::to_string(s.n) + "x" + std::to_string(s.k) + " " + name_of(dtype);
          expect_near(expected, found, 2e-5 * std::sqrt(static_cast<double>(s.k)), what);
          expect_bits(start.tail(), found.tail(), what + ": written past the columns");
        }
      }
    }
  }
}

// Ten rows at once, every row alone, within other batches, and with two threads.
TEST_P(Linear, RowsDoNotDependOnTheBatch) {
  const auto cpu = make_cpu_backend(GetParam());
  Random random(2);
  for (const Shape& s : {Shape{300, 50, 88}, Shape{130, 192, 576}, Shape{90, 100, 640}, Shape{70, 33, 41}}) {
    for (const Compute compute : {Compute::kF32, Compute::kBf16}) {
      const Matrix x = random.matrix(s.m, s.k, 0);
      const Tensor w = random.weight(DType::kBf16, s.n, s.k), w2 = random.weight(DType::kF32, s.n + 3, s.k);
      const auto call = [&](Mat<const float> rows, Mat<float> y, Mat<float> y2) {
        const LinearPart parts[] = {{{w.data(), DType::kBf16, s.n, s.k}, nullptr, y, false},
                                    {{w2.data(), DType::kF32, s.n + 3, s.k}, nullptr, y2, false}};
        cpu->linear(rows, parts, compute);
      };
      Matrix all(s.m, s.n), all2(s.m, s.n + 3), some(s.m, s.n), some2(s.m, s.n + 3);
      {
        const ThreadCount one(1);
        call(x.mat(), all.mat(), all2.mat());
      }
      for (const int threads : {1, 2}) {
        const ThreadCount count(threads);
        for (const int64_t size : {int64_t{1}, int64_t{2}, int64_t{7}, int64_t{9}, int64_t{65}, s.m}) {
          for (int64_t r = 0; r + size <= s.m; r += std::max<int64_t>(size, s.m / 5)) {
            call(x.mat().rows_range(r, r + size), some.mat().rows_range(r, r + size),
                 some2.mat().rows_range(r, r + size));
            expect_bits(all.mat().rows_range(r, r + size), some.mat().rows_range(r, r + size),
                        "rows of a batch of " + std::to_string(size));
            expect_bits(all2.mat().rows_range(r, r + size), some2.mat().rows_range(r, r + size), "second part");
            const LinearPart alone{
                {w.data(), DType::kBf16, s.n, s.k}, nullptr, some.mat().rows_range(r, r + size), false};
            cpu->linear(x.mat().rows_range(r, r + size), {&alone, 1}, compute);
            expect_bits(all.mat().rows_range(r, r + size), some.mat().rows_range(r, r + size), "one part alone");
          }
        }
      }
    }
  }
}

// The bits of its steps, each made with an operation of its own, whatever the number of rows and threads.
TEST_P(Linear, GatedMlpHasTheBitsOfItsSteps) {
  const auto cpu = make_cpu_backend(GetParam());
  Random random(4);
  struct Sizes {
    int64_t rows, cols, hidden;
    DType dtype;
    bool blocks = false;
  };
  for (const Sizes& s :
       {Sizes{1, 40, 57, DType::kF32}, Sizes{130, 88, 172, DType::kBf16}, Sizes{70, 41, 33, DType::kF16},
        Sizes{300, 64, 1, DType::kBf16}, Sizes{9, 576, 1536, DType::kBf16}, Sizes{9, 96, 160, DType::kBf16, true},
        Sizes{131, 608, 96, DType::kBf16, true}}) {
    const Tensor gate_w = random.weight(s.dtype, s.hidden, s.cols), up_w = random.weight(s.dtype, s.hidden, s.cols);
    const Tensor down_w = random.weight(s.dtype, s.cols, s.hidden);
    std::vector<uint8_t> gate_blocks, up_blocks, down_blocks;
    if (s.blocks) {
      for (auto* blocks : {&gate_blocks, &up_blocks, &down_blocks}) {
        *blocks = random_blocks(random, GgmlType::kQ41, s.hidden * s.cols / info_of(GgmlType::kQ41).block);
      }
    }
    const auto view = [&](const Tensor& plain, const std::vector<uint8_t>& blocks, int64_t out, int64_t in) {
      if (!s.blocks) return WeightView{plain.data(), s.dtype, out, in};
      return WeightView{blocks.data(), DType::kBf16, out, in, GgmlType::kQ41};
    };
    const Matrix x = random.matrix(s.rows, s.cols, 3), start = random.matrix(s.rows, s.cols, 5);
    const Matrix norm = random.matrix(1, s.cols, 0), biases = random.matrix(2, s.hidden, 0);
    for (const Compute compute : {Compute::kF32, Compute::kBf16}) {
      for (const bool normed : {false, true}) {
        const RmsNorm rms{norm.mat().data(), 0.5f, 1e-5f};
        Matrix expected = start, h = x, gate(s.rows, s.hidden), up(s.rows, s.hidden);
        if (normed) cpu->rms_norm(x.mat(), rms.weight, rms.offset, rms.eps, h.mat());
        const LinearPart parts[] = {{view(gate_w, gate_blocks, s.hidden, s.cols), biases.mat().row(0), gate.mat()},
                                    {view(up_w, up_blocks, s.hidden, s.cols), biases.mat().row(1), up.mat()}};
        cpu->linear(h.mat(), parts, compute);
        cpu->glu(Activation::kGeluTanh, gate.mat(), up.mat(), gate.mat());
        LinearPart down{view(down_w, down_blocks, s.cols, s.hidden), nullptr, expected.mat(), true};
        cpu->linear(gate.mat(), {&down, 1}, compute);
        for (const int threads : {1, 2}) {
          const ThreadCount count(threads);
          Matrix found = start;
          down.y = found.mat();
          cpu->gated_mlp(x.mat(),
                         {normed ? rms : RmsNorm{}, Activation::kGeluTanh, parts[0].w, parts[1].w, parts[0].bias,
                          parts[1].bias, down},
                         compute);
          expect_bits(expected.mat(), found.mat(), "gated_mlp of " + std::to_string(s.rows) + " rows");
        }
      }
    }
  }
}

// Most of all where it writes over its own input.
TEST_P(Linear, GatedMlpAgreesWithReference) {
  const auto ref = make_ref_backend(), cpu = make_cpu_backend(GetParam());
  Random random(5);
  for (const int64_t rows : {int64_t{3}, int64_t{65}}) {
    const Tensor gate = random.weight(DType::kBf16, 100, 48), up = random.weight(DType::kBf16, 100, 48);
    const Tensor down = random.weight(DType::kBf16, 48, 100);
    const Matrix norm = random.matrix(1, 48, 0);
    Matrix expected = random.matrix(rows, 48, 0), found = expected;
    const auto call = [&](Backend& backend, Matrix& x) {
      GatedMlp mlp{{norm.mat().data(), 0.0f, 1e-5f},
                   Activation::kSilu,
                   {gate.data(), DType::kBf16, 100, 48},
                   {up.data(), DType::kBf16, 100, 48},
                   nullptr,
                   nullptr,
                   {{down.data(), DType::kBf16, 48, 100}, nullptr, x.mat(), true}};
      backend.gated_mlp(x.mat(), mlp, Compute::kF32);
      mlp.up.out = 99;
      EXPECT_THROW(backend.gated_mlp(x.mat(), mlp, Compute::kF32), Error);
    };
    call(*ref, expected);
    call(*cpu, found);
    expect_near(expected, found, 1e-4, "gated_mlp of " + std::to_string(rows) + " rows");
  }
}

TEST_P(Linear, RefusesWrongShapes) {
  const auto cpu = make_cpu_backend(GetParam());
  Random random(3);
  const Matrix x = random.matrix(2, 8, 0);
  Matrix y(2, 4), short_y(1, 4);
  const Tensor w = random.weight(DType::kF32, 4, 9);
  const LinearPart narrow{{w.data(), DType::kF32, 4, 9}, nullptr, y.mat(), false};
  EXPECT_THROW(cpu->linear(x.mat(), {&narrow, 1}, Compute::kF32), Error);
  const LinearPart rows{{w.data(), DType::kF32, 4, 8}, nullptr, short_y.mat(), false};
  EXPECT_THROW(cpu->linear(x.mat(), {&rows, 1}, Compute::kF32), Error);
  const LinearPart type{{w.data(), DType::kI32, 4, 8}, nullptr, y.mat(), false};
  EXPECT_THROW(cpu->linear(x.mat(), {&type, 1}, Compute::kF32), Error);
}

INSTANTIATE_TEST_SUITE_P(Isas, Linear, ::testing::ValuesIn(supported_isas()), test::param_name<std::string>);

TEST(CpuBackend, RefusesUnknownInstructionSet) { EXPECT_THROW(make_cpu_backend("sse9"), Error); }

}  // namespace
}  // namespace saif
