#include <algorithm>

#include "kernels/cpu/rows.h"

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/sparse.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace saif::cpu::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

const hn::ScalableTag<float> kVector;
const hn::CappedTag<float, 1> kSingle;
using V = hn::Vec<decltype(kVector)>;

// y[c] += sum over entries, in order, of values[i] * row(i)[c]. Four vectors of columns stay in registers meanwhile.
template <DType kType, class Offset>
HWY_INLINE void weighted_sum(std::span<const float> values, const void* data, const Offset& offset, int64_t n,
                             float* y) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(kVector));
  const auto entries = static_cast<int64_t>(values.size());
  int64_t c = 0;
  for (; c + 4 * lanes <= n; c += 4 * lanes) {
    V s0 = hn::LoadU(kVector, y + c), s1 = hn::LoadU(kVector, y + c + lanes);
    V s2 = hn::LoadU(kVector, y + c + 2 * lanes), s3 = hn::LoadU(kVector, y + c + 3 * lanes);
    for (int64_t i = 0; i < entries; ++i) {
      const V value = hn::Set(kVector, values[i]);
      const int64_t at = offset(i) + c;
      s0 = hn::MulAdd(value, load_f32<kType>(kVector, data, at), s0);
      s1 = hn::MulAdd(value, load_f32<kType>(kVector, data, at + lanes), s1);
      s2 = hn::MulAdd(value, load_f32<kType>(kVector, data, at + 2 * lanes), s2);
      s3 = hn::MulAdd(value, load_f32<kType>(kVector, data, at + 3 * lanes), s3);
    }
    hn::StoreU(s0, kVector, y + c);
    hn::StoreU(s1, kVector, y + c + lanes);
    hn::StoreU(s2, kVector, y + c + 2 * lanes);
    hn::StoreU(s3, kVector, y + c + 3 * lanes);
  }
  for (; c < n; ++c) {
    auto s = hn::LoadU(kSingle, y + c);
    for (int64_t i = 0; i < entries; ++i) {
      s = hn::MulAdd(hn::Set(kSingle, values[i]), load_f32<kType>(kSingle, data, offset(i) + c), s);
    }
    hn::StoreU(s, kSingle, y + c);
  }
}

void decode(std::span<const int32_t> indices, std::span<const float> values, const WeightView& dictionary, float* y) {
  const int64_t n = dictionary.in;
  const auto offset = [&](int64_t i) HWY_ATTR { return indices[i] * n; };
  switch (dictionary.dtype) {
    case DType::kBf16:
      return weighted_sum<DType::kBf16>(values, dictionary.data, offset, n, y);
    case DType::kF16:
      return weighted_sum<DType::kF16>(values, dictionary.data, offset, n, y);
    default:
      return weighted_sum<DType::kF32>(values, dictionary.data, offset, n, y);
  }
}

template <DType kType>
HWY_INLINE float dot_row(const float* x, const void* data, int64_t at, int64_t n) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(kVector));
  V s0 = hn::Zero(kVector), s1 = s0, s2 = s0, s3 = s0;
  int64_t c = 0;
  for (; c + 4 * lanes <= n; c += 4 * lanes) {
    s0 = hn::MulAdd(hn::LoadU(kVector, x + c), load_f32<kType>(kVector, data, at + c), s0);
    s1 = hn::MulAdd(hn::LoadU(kVector, x + c + lanes), load_f32<kType>(kVector, data, at + c + lanes), s1);
    s2 = hn::MulAdd(hn::LoadU(kVector, x + c + 2 * lanes), load_f32<kType>(kVector, data, at + c + 2 * lanes), s2);
    s3 = hn::MulAdd(hn::LoadU(kVector, x + c + 3 * lanes), load_f32<kType>(kVector, data, at + c + 3 * lanes), s3);
  }
  float sum = hn::GetLane(hn::SumOfLanes(kVector, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; c < n; ++c) sum += x[c] * hn::GetLane(load_f32<kType>(kSingle, data, at + c));
  return sum;
}

void dot(const float* x, std::span<const int32_t> indices, const WeightView& dictionary, float* out) {
  const int64_t n = dictionary.in;
  for (size_t i = 0; i < indices.size(); ++i) {
    const int64_t at = indices[i] * n;
    switch (dictionary.dtype) {
      case DType::kBf16:
        out[i] = dot_row<DType::kBf16>(x, dictionary.data, at, n);
        break;
      case DType::kF16:
        out[i] = dot_row<DType::kF16>(x, dictionary.data, at, n);
        break;
      default:
        out[i] = dot_row<DType::kF32>(x, dictionary.data, at, n);
        break;
    }
  }
}

void outer(std::span<const int32_t> rows, std::span<const float> values, Mat<const float> x, float* gradient) {
  const auto offset = [&](int64_t i) HWY_ATTR { return rows[i] * x.stride(); };
  weighted_sum<DType::kF32>(values, x.data(), offset, x.cols(), gradient);
}

}  // namespace

const SparseOps& ops_sparse() {
  static constexpr SparseOps kOps{decode, dot, outer};
  return kOps;
}

}  // namespace saif::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace saif::cpu {

const SparseOps& sparse_ops(Isa isa) { SAIF_PICK_TARGET(isa, ops_sparse) }

}  // namespace saif::cpu
#endif  // HWY_ONCE
