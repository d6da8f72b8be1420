// Matrices of GGUF's blocks on every instruction set: against the same matrix dequantised first, bit for bit, or, where
// codes are multiplied, against the exact values.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

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
using testing_support::scales_of;
using testing_support::ThreadCount;

std::vector<GgmlType> block_types() {
  std::vector<GgmlType> out;
  for (uint32_t id = 0; id < 64; ++id) {
    const GgmlTypeInfo* info = find_ggml_type(id);
    if (info != nullptr && info->can_dequantize && info->block > 1) out.push_back(info->type);
  }
  return out;
}

// A matrix as blocks, one byte past an aligned address, and the same matrix dequantised.
struct BlockMatrix {
  BlockMatrix(Random& random, GgmlType stored, DType dtype, int64_t out, int64_t in)
      : bytes(random_blocks(random, stored, out * in / info_of(stored).block)), wide(dtype, {out, in}) {
    bytes.insert(bytes.begin(), 0xff);
    blocks = {bytes.data() + 1, dtype, out, in, stored};
    plain = {wide.data(), dtype, out, in};
    if (dtype == DType::kF32) {
      dequantize(stored, blocks.data, out * in, wide.as<float>());
    } else {
      dequantize_bf16(stored, blocks.data, out * in, wide.as<uint16_t>());
    }
  }
  std::vector<uint8_t> bytes;
  Tensor wide;
  WeightView blocks, plain;
};

Matrix rounded_to_bf16(const Matrix& x) {
  Matrix out = x;
  for (int64_t r = 0; r < out.mat().rows(); ++r) {
    for (int64_t c = 0; c < out.mat().cols(); ++c) out.mat()(r, c) = bf16_to_f32(f32_to_bf16(out.mat()(r, c)));
  }
  return out;
}

// Products of blocks by kBf16: the bits of the dequantised matrix, or, where codes are multiplied, the exact products
// of the rounded activations with weights that are not, but for the rounding of float32 sums.
void expect_products(Backend& backend, const Matrix& x, const BlockMatrix& w, Mat<const float> found,
                     const std::string& what) {
  if (!backend.has_fast_bf16()) {
    Matrix expected(found.rows(), found.cols());
    const LinearPart plain{w.plain, nullptr, expected.mat(), false};
    backend.linear(x.mat(), {&plain, 1}, Compute::kBf16);
    return expect_bits(expected.mat(), found, what);
  }
  const Matrix rounded = rounded_to_bf16(x);
  std::vector<float> row(static_cast<size_t>(w.blocks.in));
  for (int64_t o = 0; o < found.cols(); ++o) {
    const auto* data = static_cast<const uint8_t*>(w.blocks.data) + o * w.blocks.row_bytes();
    dequantize(*w.blocks.blocks, data, w.blocks.in, row.data());
    float largest = 0;
    for (const float v : row) largest = std::max(largest, std::abs(v));
    for (int64_t r = 0; r < found.rows(); ++r) {
      double sum = 0, size = 0;
      for (size_t c = 0; c < row.size(); ++c) {
        const double v = rounded.mat()(r, static_cast<int64_t>(c));
        sum += v * row[c];
        size += std::abs(v) * largest;
      }
      ASSERT_NEAR(sum, found(r, o), 1e-6 * size) << what << " at (" << r << ", " << o << ")";
    }
  }
}

class Blocks : public ::testing::TestWithParam<std::string> {};

// Outputs and blocks of a row: a part of a panel, some panels; rows longer than a chunk of 256 inputs, by a part of one
// or by more.
constexpr std::pair<int64_t, int64_t> kShapes[] = {{1, 1}, {17, 3}, {50, 2}, {96, 1}, {67, 18}};

// A product of m rows by a matrix of blocks.
struct Case {
  const BlockMatrix& w;
  Matrix bias, x, start;  // [1, n], [m, k], [m, n]
  int64_t m, n;
  std::string what;
};

void for_each_case(Random& random, const std::function<void(const Case&)>& check) {
  for (const GgmlType type : block_types()) {
    for (const auto& [n, blocks] : kShapes) {
      const int64_t k = blocks * info_of(type).block;
      if (k > 2048) continue;
      for (const DType dtype : {DType::kBf16, DType::kF32}) {
        const BlockMatrix w(random, type, dtype, n, k);
        const Matrix bias = random.matrix(1, n);
        for (const int64_t m : {1, 2, 3, 4, 7, 8, 17, 128}) {
          if (m == 128 && n == 50) continue;
          const Matrix x = random.matrix(m, k, 3), start = random.matrix(m, n, 5);
          const std::string what = std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k) + " " +
                                   name_of(type) + " as " + name_of(dtype);
          check({w, bias, x, start, m, n, what});
        }
      }
    }
  }
}

TEST_P(Blocks, LinearMultipliesThemByBf16) {
  const auto cpu = make_cpu_backend(GetParam());
  Random random(21);
  for_each_case(random, [&](const Case& c) {
    const auto& [w, bias, x, start, m, n, what] = c;
    Matrix products(m, n), biased = start, added = start;
    const LinearPart parts[] = {{w.blocks, nullptr, products.mat(), false},
                                {w.blocks, bias.mat().data(), biased.mat(), false},
                                {w.blocks, nullptr, added.mat(), true}};
    cpu->linear(x.mat(), parts, Compute::kBf16);
    expect_products(*cpu, x, w, products.mat(), what);
    Matrix with_bias = start, with_start = start;
    for (int64_t r = 0; r < m; ++r) {
      for (int64_t o = 0; o < n; ++o) {
        with_bias.mat()(r, o) = products.mat()(r, o) + bias.mat()(0, o);
        with_start.mat()(r, o) = start.mat()(r, o) + products.mat()(r, o);
      }
    }
    expect_bits(with_bias.mat(), biased.mat(), what + " and a bias");
    expect_bits(with_start.mat(), added.mat(), what + " added");
    expect_bits(start.tail(), biased.tail(), what + ": written past the columns");
  });
}

TEST_P(Blocks, LinearByFloat32HasTheBitsOfTheDequantisedMatrix) {
  const auto cpu = make_cpu_backend(GetParam());
  Random random(28);
  for_each_case(random, [&](const Case& c) {
    const auto& [w, bias, x, start, m, n, what] = c;
    const bool accumulate = (m + n) % 2 == 0;
    Matrix expected = start, found = start;
    const auto call = [&](const WeightView& view, Matrix& y) {
      const LinearPart part{view, accumulate ? nullptr : bias.mat().data(), y.mat(), accumulate};
      cpu->linear(x.mat(), {&part, 1}, Compute::kF32);
    };
    call(w.plain, expected);
    call(w.blocks, found);
    expect_bits(expected.mat(), found.mat(), what);
    expect_bits(start.tail(), found.tail(), what + ": written past the columns");
  });
}

// A row has the same bits alone, among few and among many.
TEST_P(Blocks, RowsDoNotDependOnTheirBatch) {
  const auto cpu = make_cpu_backend(GetParam());
  Random random(29);
  for (const GgmlType type : block_types()) {
    const int64_t n = 67, k = info_of(type).block == 32 ? 608 : 768;
    const BlockMatrix w(random, type, DType::kBf16, n, k);
    const Matrix all = random.matrix(131, k);
    Matrix together(131, n);
    const LinearPart part{w.blocks, nullptr, together.mat(), false};
    cpu->linear(all.mat(), {&part, 1}, Compute::kBf16);
    for (const int64_t m : {1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 64}) {
      for (const int64_t first : {int64_t{0}, 131 - m}) {
        Matrix found(m, n);
        const LinearPart some{w.blocks, nullptr, found.mat(), false};
        cpu->linear(all.mat().rows_range(first, first + m), {&some, 1}, Compute::kBf16);
        expect_bits(together.mat().rows_range(first, first + m), found.mat(),
                    std::string(name_of(type)) + ", " + std::to_string(m) + " of 131 rows");
      }
    }
  }
}

// Parts of different types in one call, more work than one thread takes.
TEST_P(Blocks, PartsMixBlocksAndPlainMatrices) {
  const auto cpu = make_cpu_backend(GetParam());
  Random random(22);
  const BlockMatrix a(random, GgmlType::kQ41, DType::kBf16, 300, 512), b(random, GgmlType::kQ6K, DType::kBf16, 70, 512);
  const Tensor plain = random.weight(DType::kBf16, 33, 512);
  for (const int64_t m : {1, 8, 130}) {
    const Matrix x = random.matrix(m, 512);
    const auto call = [&](std::span<const LinearPart> parts) { cpu->linear(x.mat(), parts, Compute::kBf16); };
    Matrix expected[] = {Matrix(m, 300), Matrix(m, 70), Matrix(m, 33)};
    const WeightView views[] = {a.blocks, b.blocks, {plain.data(), DType::kBf16, 33, 512}};
    for (int i = 0; i < 3; ++i) {
      const LinearPart alone{views[i], nullptr, expected[i].mat(), false};
      call({&alone, 1});
    }
    for (const int threads : {1, 2}) {
      const ThreadCount count(threads);
      Matrix found[] = {Matrix(m, 300), Matrix(m, 70), Matrix(m, 33)};
      const LinearPart parts[] = {{views[0], nullptr, found[0].mat(), false},
                                  {views[2], nullptr, found[2].mat(), false},
                                  {views[1], nullptr, found[1].mat(), false}};
      call(parts);
      for (int i = 0; i < 3; ++i) expect_bits(expected[i].mat(), found[i].mat(), "part " + std::to_string(i));
    }
  }
}

// Infinite and NaN scales come from damaged files; the bits of a NaN are not promised.
TEST_P(Blocks, InfiniteScalesAreNotHidden) {
  const auto cpu = make_cpu_backend(GetParam());
  Random random(23);
  for (const GgmlType type : block_types()) {
    const int64_t k = info_of(type).block;
    BlockMatrix w(random, type, DType::kBf16, 16, k);
    const uint16_t infinite = 0x7c00;
    std::memcpy(w.bytes.data() + 1 + scales_of(type)[0], &infinite, sizeof infinite);
    const Matrix x = random.matrix(1, k);
    Matrix found(1, 16), finite(1, 16);
    const LinearPart blocks{w.blocks, nullptr, found.mat(), false};
    cpu->linear(x.mat(), {&blocks, 1}, Compute::kBf16);
    EXPECT_FALSE(std::isfinite(found.mat()(0, 0))) << name_of(type);
    const uint16_t one = 0x3c00;
    std::memcpy(w.bytes.data() + 1 + scales_of(type)[0], &one, sizeof one);
    const LinearPart again{w.blocks, nullptr, finite.mat(), false};
    cpu->linear(x.mat(), {&again, 1}, Compute::kBf16);
    expect_bits(finite.mat().cols_range(1, 16), found.mat().cols_range(1, 16), name_of(type));
  }
}

TEST_P(Blocks, EmbedHasTheBitsOfTheDequantisedTable) {
  const auto cpu = make_cpu_backend(GetParam()), ref = make_ref_backend();
  Random random(24);
  const std::vector<int32_t> ids = {4, 0, 6, 4};
  for (const GgmlType type : block_types()) {
    for (const DType dtype : {DType::kBf16, DType::kF32}) {
      const int64_t k = 2 * info_of(type).block;
      const BlockMatrix w(random, type, dtype, 7, k);
      for (Backend* backend : {cpu.get(), ref.get()}) {
        Matrix expected(4, k, 3), found(4, k, 3);
        backend->embed(w.plain, ids, 1.5f, expected.mat());
        backend->embed(w.blocks, ids, 1.5f, found.mat());
        expect_bits(expected.mat(), found.mat(), name_of(type));
      }
    }
  }
}

// Products of 8 bits: near the reference, which multiplies the rounded activations in float32, and a row's bits do not
// depend on the others.
TEST_P(Blocks, Int8IsNearTheReferenceAndBatchInvariant) {
  const auto cpu = make_cpu_backend(GetParam()), ref = make_ref_backend();
  if (!cpu->has_int8()) GTEST_SKIP() << GetParam() << " has no dot products of 8 bits here";
  Random random(31);
  for (const GgmlType type : block_types()) {
    std::vector<int64_t> widths = {256, 768};
    if (info_of(type).block == 32) widths.insert(widths.end(), {64, 128, 192, 576});
    for (const int64_t k : widths) {
      const int64_t n = 37;
      const BlockMatrix w(random, type, DType::kBf16, n, k);
      const Tensor wide = convert(w.wide.view(), DType::kF32);
      const Matrix bias = random.matrix(1, n), all = random.matrix(13, k, 3);
      Matrix together(13, n);
      for (const int64_t m : {13, 1, 2, 3, 4, 7}) {
        Matrix x(m, k), expected(m, n), found(m, n);
        for (int64_t r = 0; r < m; ++r) std::copy_n(all.mat().row(r), k, x.mat().row(r));
        const LinearPart a{w.blocks, bias.mat().data(), expected.mat(), false};
        const LinearPart b{w.blocks, bias.mat().data(), found.mat(), false};
        ref->linear(x.mat(), {&a, 1}, Compute::kInt8);
        cpu->linear(x.mat(), {&b, 1}, Compute::kInt8);
        const std::string what = std::string(name_of(type)) + " " + std::to_string(m) + "x" + std::to_string(k);
        for (int64_t r = 0; r < m; ++r) {
          for (int64_t o = 0; o < n; ++o) {
            double size = 0;  // of the terms, whose rounding remains where they cancel
            for (int64_t c = 0; c < k; ++c) size += std::abs(x.mat()(r, c) * wide.f32()(o, c));
            ASSERT_NEAR(expected.mat()(r, o), found.mat()(r, o), 1e-6 * (1 + size)) << what;
          }
        }
        if (m == 13) {
          for (int64_t r = 0; r < m; ++r) std::copy_n(found.mat().row(r), n, together.mat().row(r));
        } else {
          expect_bits(together.mat().rows_range(0, m), found.mat(), what + ": alone and together");
        }
      }
    }
  }
}

TEST_P(Blocks, Int8SpreadsInfinityAndTakesZeros) {
  const auto cpu = make_cpu_backend(GetParam());
  if (!cpu->has_int8()) GTEST_SKIP() << GetParam() << " has no dot products of 8 bits here";
  Random random(32);
  const BlockMatrix w(random, GgmlType::kQ80, DType::kBf16, 5, 64);
  Matrix x(3, 64), y(3, 5);
  x.mat()(1, 40) = std::numeric_limits<float>::infinity();
  x.mat()(2, 3) = std::numeric_limits<float>::quiet_NaN();
  const LinearPart part{w.blocks, nullptr, y.mat(), false};
  cpu->linear(x.mat(), {&part, 1}, Compute::kInt8);
  for (int64_t c = 0; c < 5; ++c) {
    EXPECT_EQ(y.mat()(0, c), 0.0f);
    EXPECT_TRUE(std::isnan(y.mat()(1, c)));
    EXPECT_TRUE(std::isnan(y.mat()(2, c)));
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, Blocks, ::testing::ValuesIn(supported_isas()), test::param_name<std::string>);

TEST(BlocksReference, LinearHasTheBitsOfTheDequantisedMatrix) {
  const auto ref = make_ref_backend();
  Random random(25);
  for (const GgmlType type : block_types()) {
    for (const Compute compute : {Compute::kBf16, Compute::kF32}) {
      const int64_t k = info_of(type).block;
      const BlockMatrix w(random, type, compute == Compute::kF32 ? DType::kF32 : DType::kBf16, 5, k);
      const Matrix x = random.matrix(3, k);
      Matrix expected(3, 5), found(3, 5);
      const LinearPart plain{w.plain, nullptr, expected.mat(), false}, blocks{w.blocks, nullptr, found.mat(), false};
      ref->linear(x.mat(), {&plain, 1}, compute);
      ref->linear(x.mat(), {&blocks, 1}, compute);
      expect_bits(expected.mat(), found.mat(), name_of(type));
    }
  }
}

TEST(BlocksReference, RefusesWhatCannotBeRead) {
  const auto cpu = make_cpu_backend();
  Random random(26);
  const BlockMatrix w(random, GgmlType::kQ80, DType::kBf16, 4, 64);
  const Matrix x = random.matrix(2, 40), x64 = random.matrix(2, 64);
  Matrix y(2, 4);
  const auto refused = [&](const WeightView& view, const Matrix& rows) {
    const LinearPart part{view, nullptr, y.mat(), false};
    EXPECT_THROW(cpu->linear(rows.mat(), {&part, 1}, Compute::kBf16), Error);
  };
  refused({w.blocks.data, DType::kBf16, 4, 40, GgmlType::kQ80}, x);      // not whole blocks
  refused({w.blocks.data, DType::kF16, 4, 64, GgmlType::kQ80}, x64);     // no such rounding
  refused({w.blocks.data, DType::kBf16, 4, 64, GgmlType::kIq2Xs}, x64);  // not whole blocks, and not implemented
  const std::vector<int64_t> offsets = {0, 1, 1};
  const std::vector<int32_t> indices = {0};
  const std::vector<float> values = {1.0f};
  Matrix y64(2, 64);
  EXPECT_THROW(cpu->sparse_decode(offsets, indices, values, w.blocks, y64.mat()), Error);
}

}  // namespace
}  // namespace saif
