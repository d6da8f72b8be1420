// Products in float32 for any instruction set, by Highway: weights are widened panel by panel, and rounded to
// bfloat16 first where the caller computes in bfloat16.
#include <algorithm>

#include "kernels/cpu/linear.h"

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/linear_generic.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace saif::cpu::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kPanels = 2;
constexpr int kRows = 6;

const hn::ScalableTag<float> kVector;

float* as_float(uint32_t* units) { return reinterpret_cast<float*>(units); }
const float* as_float(const uint32_t* units) { return reinterpret_cast<const float*>(units); }

#if HWY_TARGET != HWY_SCALAR
const hn::Full128<float> kQuad;

// Four inputs of four outputs, transposed.
template <DType kType, bool kRound>
void pack_quad(const WeightTile& w, int64_t row, int64_t input, float* packed, int64_t stride) {
  hn::Vec<decltype(kQuad)> v[4];
  for (int i = 0; i < 4; ++i) {
    float edge[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (row + i < w.rows && input + 4 <= w.in) {
      v[i] = load_f32<kType>(kQuad, w.data, (row + i) * w.in + input);
    } else {
      for (int64_t k = 0; row + i < w.rows && input + k < w.in; ++k) {
        edge[k] = load_one<kType>(w.data, (row + i) * w.in + input + k);
      }
      v[i] = hn::LoadU(kQuad, edge);
    }
    if (kRound && kType != DType::kBf16) v[i] = round_bf16(kQuad, v[i]);
  }
  const hn::Repartition<double, decltype(kQuad)> wide;
  const auto a = hn::InterleaveLower(kQuad, v[0], v[1]), b = hn::InterleaveLower(kQuad, v[2], v[3]);
  const auto c = hn::InterleaveUpper(kQuad, v[0], v[1]), d = hn::InterleaveUpper(kQuad, v[2], v[3]);
  const auto ad = hn::BitCast(wide, a), bd = hn::BitCast(wide, b), cd = hn::BitCast(wide, c), dd = hn::BitCast(wide, d);
  hn::StoreU(hn::BitCast(kQuad, hn::InterleaveLower(wide, ad, bd)), kQuad, packed);
  hn::StoreU(hn::BitCast(kQuad, hn::InterleaveUpper(wide, ad, bd)), kQuad, packed + stride);
  hn::StoreU(hn::BitCast(kQuad, hn::InterleaveLower(wide, cd, dd)), kQuad, packed + 2 * stride);
  hn::StoreU(hn::BitCast(kQuad, hn::InterleaveUpper(wide, cd, dd)), kQuad, packed + 3 * stride);
}

template <DType kType, bool kRound>
void pack_as(const WeightTile& w, int64_t n_units, uint32_t* packed) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(kVector));
  const int64_t width = (w.rows + lanes - 1) / lanes * lanes;
  for (int64_t row = 0; row < width; row += 4) {
    for (int64_t u = 0; u < n_units; u += 4) {
      pack_quad<kType, kRound>(w, row, u, as_float(packed) + u * width + row, width);
    }
  }
}

#else

template <DType kType, bool kRound>
void pack_as(const WeightTile& w, int64_t n_units, uint32_t* packed) {
  for (int64_t row = 0; row < w.rows; ++row) {
    for (int64_t u = 0; u < n_units; ++u) {
      const float value = u < w.in ? load_one<kType>(w.data, row * w.in + u) : 0.0f;
      as_float(packed)[u * w.rows + row] = kRound ? bf16_to_f32(f32_to_bf16(value)) : value;
    }
  }
}

#endif

template <bool kRound>
void pack(const WeightTile& w, int64_t n_units, uint32_t* packed) {
  switch (w.dtype) {
    case DType::kBf16:
      return pack_as<DType::kBf16, kRound>(w, n_units, packed);
    case DType::kF16:
      return pack_as<DType::kF16, kRound>(w, n_units, packed);
    default:
      return pack_as<DType::kF32, kRound>(w, n_units, packed);
  }
}

template <class V>
void store_sums(V sums, const LinearOutput& out, int64_t r, int64_t c) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(kVector));
  float* y = out.y + r * out.stride + c;
  if (out.cols - c >= lanes) {
    if (out.bias != nullptr) sums = hn::Add(sums, hn::LoadU(kVector, out.bias + c));
    if (out.accumulate) sums = hn::Add(hn::LoadU(kVector, y), sums);
    hn::StoreU(sums, kVector, y);
    return;
  }
  HWY_ALIGN float edge[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(sums, kVector, edge);
  for (int64_t i = 0; i < out.cols - c; ++i) {
    const float sum = out.bias != nullptr ? edge[i] + out.bias[c + i] : edge[i];
    y[i] = out.accumulate ? y[i] + sum : sum;
  }
}

template <int kM, int kN>
void multiply_tile(const UnitRows& x, int64_t row, const uint32_t* packed, const LinearOutput& out) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(kVector));
  hn::Vec<decltype(kVector)> sums[kM][kN];
  for (int r = 0; r < kM; ++r) {
    for (int p = 0; p < kN; ++p) sums[r][p] = hn::Zero(kVector);
  }
  const float* rows = as_float(x.data) + row * x.n_units;
  const float* w = as_float(packed);
  for (int64_t u = 0; u < x.n_units; ++u, w += kN * lanes) {
    hn::Vec<decltype(kVector)> v[kN];
    for (int p = 0; p < kN; ++p) v[p] = hn::LoadU(kVector, w + p * lanes);
    for (int r = 0; r < kM; ++r) {
      const auto value = hn::Set(kVector, rows[r * x.n_units + u]);
      for (int p = 0; p < kN; ++p) sums[r][p] = hn::MulAdd(value, v[p], sums[r][p]);
    }
  }
  for (int r = 0; r < kM; ++r) {
    for (int p = 0; p < kN; ++p) store_sums(sums[r][p], out, row + r, p * lanes);
  }
}

template <int kN>
void multiply_rows(const UnitRows& x, const uint32_t* packed, const LinearOutput& out) {
  int64_t row = 0;
  for (; row + kRows <= x.rows; row += kRows) multiply_tile<kRows, kN>(x, row, packed, out);
  switch (x.rows - row) {
    case 1:
      return multiply_tile<1, kN>(x, row, packed, out);
    case 2:
      return multiply_tile<2, kN>(x, row, packed, out);
    case 3:
      return multiply_tile<3, kN>(x, row, packed, out);
    case 4:
      return multiply_tile<4, kN>(x, row, packed, out);
    case 5:
      return multiply_tile<5, kN>(x, row, packed, out);
    default:
      return;
  }
}

void multiply(const UnitRows& x, const uint32_t* packed, const LinearOutput& out, const Ahead&) {
  if (out.cols <= static_cast<int64_t>(hn::Lanes(kVector))) {
    multiply_rows<1>(x, packed, out);
  } else {
    multiply_rows<kPanels>(x, packed, out);
  }
}

template <bool kRound>
void units(const float* x, int64_t n, uint32_t* out, int64_t n_units) {
  std::copy_n(x, n, as_float(out));
  std::fill(as_float(out) + n, as_float(out) + n_units, 0.0f);
  if (!kRound) return;
  for (int64_t u = 0; u < n_units; u += static_cast<int64_t>(hn::Lanes(kVector))) {
    hn::StoreU(round_bf16(kVector, hn::LoadU(kVector, as_float(out) + u)), kVector, as_float(out) + u);
  }
}

}  // namespace

LinearKernels kernels() {
  const auto lanes = static_cast<int64_t>(hn::Lanes(kVector));
  static const LinearKernel plain{lanes, kPanels, 1, 0, units<false>, pack<false>, multiply, nullptr, nullptr};
  static const LinearKernel rounded{lanes, kPanels, 1, 0, units<true>, pack<true>, multiply, nullptr, nullptr};
  return {&plain, &rounded};
}

}  // namespace saif::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace saif::cpu {

LinearKernels linear_kernels_generic(Isa isa) {
#if HWY_TARGETS & HWY_AVX2
  if (isa != Isa::kGeneric) return N_AVX2::kernels();
#endif
  return HWY_STATIC_DISPATCH(kernels)();
}

}  // namespace saif::cpu
#endif  // HWY_ONCE
