// Products in float32 for any instruction set, by Highway: weights are widened panel by panel, and rounded to
// bfloat16 first where the caller computes in bfloat16.
#include <algorithm>

#include "kernels/cpu/linear.h"

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/linear_generic.cc"
#include <hwy/cache_control.h>
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
using Quad = hn::Vec<decltype(kQuad)>;

// Inputs [input, input + 4) of an output; zeros past the last one.
template <DType kType, bool kRound>
HWY_INLINE Quad load_quad(const WeightTile& w, int64_t row, int64_t input) {
  Quad v;
  if (input + 4 <= w.in) {
    v = load_f32<kType>(kQuad, w.data, row * w.in + input);
  } else {
    float edge[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int64_t k = 0; input + k < w.in; ++k) edge[k] = load_one<kType>(w.data, row * w.in + input + k);
    v = hn::LoadU(kQuad, edge);
  }
  return kRound && kType != DType::kBf16 ? round_bf16(kQuad, v) : v;
}

// Rows and columns of 4 x 4 change places, within each 128 bits.
template <class D>
HWY_INLINE void transpose_quads(D d, hn::Vec<D> (&v)[4]) {
  const hn::Repartition<double, D> wide;
  const auto a = hn::BitCast(wide, hn::InterleaveLower(d, v[0], v[1])),
             b = hn::BitCast(wide, hn::InterleaveLower(d, v[2], v[3]));
  const auto c = hn::BitCast(wide, hn::InterleaveUpper(d, v[0], v[1])),
             e = hn::BitCast(wide, hn::InterleaveUpper(d, v[2], v[3]));
  v[0] = hn::BitCast(d, hn::InterleaveLower(wide, a, b));
  v[1] = hn::BitCast(d, hn::InterleaveUpper(wide, a, b));
  v[2] = hn::BitCast(d, hn::InterleaveLower(wide, c, e));
  v[3] = hn::BitCast(d, hn::InterleaveUpper(wide, c, e));
}

// Four inputs of four outputs, transposed.
template <DType kType, bool kRound>
void pack_quad(const WeightTile& w, int64_t row, int64_t input, float* packed, int64_t stride) {
  Quad v[4];
  for (int i = 0; i < 4; ++i) {
    v[i] = row + i < w.rows && input < w.in ? load_quad<kType, kRound>(w, row + i, input) : hn::Zero(kQuad);
  }
  transpose_quads(kQuad, v);
  for (int i = 0; i < 4; ++i) hn::StoreU(v[i], kQuad, packed + i * stride);
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

#if HWY_TARGET != HWY_SCALAR

// --- few rows: panels of outputs are transposed in registers, four inputs at a time, and used at once

constexpr auto kPanel = static_cast<int64_t>(hn::MaxLanes(hn::ScalableTag<float>()));
static_assert(kPanel == 4 || kPanel == 8);

// A panel's outputs, past the last one of the tile repeated.
template <DType kType>
struct PanelRows {
  int64_t at[kPanel];  // of each output's first weight
  PanelRows(const WeightTile& w, int64_t row) {
    for (int64_t i = 0; i < kPanel; ++i) at[i] = std::min(row + i, w.rows - 1) * w.in;
  }
};

// Inputs [u, u + 4) of a panel. kWhole: all of them exist.
template <DType kType, bool kRound, bool kWhole>
HWY_INLINE void load_panel(const WeightTile& w, const PanelRows<kType>& rows, int64_t u,
                           hn::Vec<decltype(kVector)> (&v)[4]) {
  const auto quad = [&](int64_t i) HWY_ATTR {
    Quad q;
    if constexpr (kWhole) {
      q = load_f32<kType>(kQuad, w.data, rows.at[i] + u);
      if (kRound && kType != DType::kBf16) q = round_bf16(kQuad, q);
    } else {
      q = load_quad<kType, kRound>(w, rows.at[i] / w.in, u);
    }
    return q;
  };
  HWY_UNROLL(4)
  for (int64_t i = 0; i < 4; ++i) {
    if constexpr (kPanel == 8) {
      v[i] = hn::Combine(kVector, quad(i + 4), quad(i));
    } else {
      v[i] = quad(i);
    }
  }
  transpose_quads(kVector, v);
}

template <int kM, int kN>
HWY_INLINE void add_inputs(const UnitRows& x, int64_t u, const hn::Vec<decltype(kVector)> (&v)[kN][4],
                           hn::Vec<decltype(kVector)> (&sums)[kN][kM]) {
  HWY_UNROLL(4)
  for (int i = 0; i < 4; ++i) {
    HWY_UNROLL(8)
    for (int r = 0; r < kM; ++r) {
      const auto value = hn::Set(kVector, as_float(x.data)[r * x.n_units + u + i]);
      HWY_UNROLL(2)
      for (int n = 0; n < kN; ++n) sums[n][r] = hn::MulAdd(value, v[n][i], sums[n][r]);
    }
  }
}

// kN panels in turn, since one sum's chain is slower than the weights; the next ones are fetched at their pace.
template <DType kType, bool kRound, int kM, int kN>
void direct_panels(const UnitRows& x, const WeightTile& w, int64_t row, const LinearOutput& out) {
  const auto weight_bytes = static_cast<int64_t>(size_of(kType));
  const PanelRows<kType> rows[2] = {{w, row}, {w, std::min(row + kPanel, w.rows - 1)}};
  hn::Vec<decltype(kVector)> sums[kN][kM], v[kN][4];
  for (int n = 0; n < kN; ++n) {
    for (int r = 0; r < kM; ++r) sums[n][r] = hn::Zero(kVector);
  }
  const char* next = static_cast<const char*>(w.data) + (row + kN * kPanel) * w.in * weight_bytes;
  int64_t u = 0;
  for (; u + 4 <= w.in; u += 4) {
    for (int64_t b = 0; b < kN * kPanel * 4 * weight_bytes; b += 64) hwy::Prefetch(next + b);
    next += kN * kPanel * 4 * weight_bytes;
    for (int n = 0; n < kN; ++n) load_panel<kType, kRound, true>(w, rows[n], u, v[n]);
    add_inputs<kM, kN>(x, u, v, sums);
  }
  if (u < w.in) {
    for (int n = 0; n < kN; ++n) load_panel<kType, kRound, false>(w, rows[n], u, v[n]);
    add_inputs<kM, kN>(x, u, v, sums);
  }
  for (int n = 0; n < kN; ++n) {
    for (int r = 0; r < kM; ++r) store_sums(sums[n][r], out, r, row + n * kPanel);
  }
}

template <DType kType, bool kRound, int kM>
void direct_rows(const UnitRows& x, const WeightTile& w, const LinearOutput& out) {
  int64_t row = 0;
  if constexpr (kM <= 4) {  // more sums than that leave no room for two panels in 16 registers
    for (; row + 2 * kPanel <= w.rows; row += 2 * kPanel) direct_panels<kType, kRound, kM, 2>(x, w, row, out);
  }
  for (; row < w.rows; row += kPanel) direct_panels<kType, kRound, kM, 1>(x, w, row, out);
}

template <DType kType, bool kRound>
void direct_as(const UnitRows& x, const WeightTile& w, const LinearOutput& out) {
  switch (x.rows) {
    case 1:
      return direct_rows<kType, kRound, 1>(x, w, out);
    case 2:
      return direct_rows<kType, kRound, 2>(x, w, out);
    case 3:
      return direct_rows<kType, kRound, 3>(x, w, out);
    case 4:
      return direct_rows<kType, kRound, 4>(x, w, out);
    case 5:
      return direct_rows<kType, kRound, 5>(x, w, out);
    case 6:
      return direct_rows<kType, kRound, 6>(x, w, out);
    case 7:
      return direct_rows<kType, kRound, 7>(x, w, out);
    default:
      return direct_rows<kType, kRound, 8>(x, w, out);
  }
}

constexpr int64_t kDirectRows = 8;

template <bool kRound>
void direct(const UnitRows& x, const WeightTile& w, const LinearOutput& out) {
  switch (w.dtype) {
    case DType::kBf16:
      return direct_as<DType::kBf16, kRound>(x, w, out);
    case DType::kF16:
      return direct_as<DType::kF16, kRound>(x, w, out);
    default:
      return direct_as<DType::kF32, kRound>(x, w, out);
  }
}

#else

constexpr int64_t kDirectRows = 0;
template <bool kRound>
constexpr void (*direct)(const UnitRows& x, const WeightTile& w, const LinearOutput& out) = nullptr;

#endif

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
  static const LinearKernel plain{lanes,    kPanels,       1,      kDirectRows, units<false>, pack<false>,
                                  multiply, direct<false>, nullptr};
  static const LinearKernel rounded{lanes,    kPanels,      1,      kDirectRows, units<true>, pack<true>,
                                    multiply, direct<true>, nullptr};
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
