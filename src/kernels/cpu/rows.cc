#include "kernels/cpu/rows.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rows.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/load-inl.h"
#include "kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace saif::cpu::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

const hn::ScalableTag<float> kVector;
const hn::CappedTag<float, 1> kSingle;
using V = hn::Vec<decltype(kVector)>;

// body(tag, column) over [0, n): whole vectors, then single lanes.
template <class Body>
HWY_INLINE void for_columns(int64_t n, const Body& body) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(kVector));
  int64_t c = 0;
  for (; c + lanes <= n; c += lanes) body(kVector, c);
  for (; c < n; ++c) body(kSingle, c);
}

// Sum over columns of term(tag, column): four vectors of partial sums, then the rest, always in one order.
template <class Term>
HWY_INLINE float sum_columns(int64_t n, const Term& term) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(kVector));
  V s0 = hn::Zero(kVector), s1 = s0, s2 = s0, s3 = s0;
  int64_t c = 0;
  for (; c + 4 * lanes <= n; c += 4 * lanes) {
    s0 = hn::Add(s0, term(kVector, c));
    s1 = hn::Add(s1, term(kVector, c + lanes));
    s2 = hn::Add(s2, term(kVector, c + 2 * lanes));
    s3 = hn::Add(s3, term(kVector, c + 3 * lanes));
  }
  for (; c + lanes <= n; c += lanes) s0 = hn::Add(s0, term(kVector, c));
  const V all = hn::Add(hn::Add(s0, s1), hn::Add(s2, s3));
  float sum = hn::GetLane(hn::SumOfLanes(kVector, all));
  for (; c < n; ++c) sum += hn::GetLane(term(kSingle, c));
  return sum;
}

void embed(const WeightView& w, std::span<const int32_t> ids, float scale, Mat<float> y) {
  for (int64_t r = 0; r < y.rows(); ++r) {
    float* out = y.row(r);
    for_columns(y.cols(), [&](auto d, int64_t c) HWY_ATTR {
      const int64_t i = ids[r] * w.in + c;
      const auto factor = hn::Set(d, scale);
      switch (w.dtype) {
        case DType::kBf16:
          hn::StoreU(hn::Mul(load_f32<DType::kBf16>(d, w.data, i), factor), d, out + c);
          break;
        case DType::kF16:
          hn::StoreU(hn::Mul(load_f32<DType::kF16>(d, w.data, i), factor), d, out + c);
          break;
        default:
          hn::StoreU(hn::Mul(load_f32<DType::kF32>(d, w.data, i), factor), d, out + c);
          break;
      }
    });
  }
}

void rms_norm(Mat<const float> x, const float* weight, float offset, float eps, Mat<float> y) {
  for (int64_t r = 0; r < x.rows(); ++r) {
    const float* in = x.row(r);
    float* out = y.row(r);
    const float squares = sum_columns(x.cols(), [&](auto d, int64_t c) HWY_ATTR {
      const auto v = hn::LoadU(d, in + c);
      return hn::Mul(v, v);
    });
    const float scale = 1.0f / std::sqrt(squares / static_cast<float>(x.cols()) + eps);
    for_columns(x.cols(), [&](auto d, int64_t c) HWY_ATTR {
      const auto w = hn::Add(hn::LoadU(d, weight + c), hn::Set(d, offset));
      hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, in + c), hn::Set(d, scale)), w), d, out + c);
    });
  }
}

void layer_norm(Mat<const float> x, const float* weight, const float* bias, float eps, Mat<float> y) {
  const auto n = static_cast<float>(x.cols());
  for (int64_t r = 0; r < x.rows(); ++r) {
    const float* in = x.row(r);
    float* out = y.row(r);
    const float mean = sum_columns(x.cols(), [&](auto d, int64_t c) HWY_ATTR { return hn::LoadU(d, in + c); }) / n;
    const float squares = sum_columns(x.cols(), [&](auto d, int64_t c) HWY_ATTR {
      const auto v = hn::Sub(hn::LoadU(d, in + c), hn::Set(d, mean));
      return hn::Mul(v, v);
    });
    const float scale = 1.0f / std::sqrt(squares / n + eps);
    for_columns(x.cols(), [&](auto d, int64_t c) HWY_ATTR {
      const auto v = hn::Mul(hn::Sub(hn::LoadU(d, in + c), hn::Set(d, mean)), hn::Set(d, scale));
      const auto b = bias != nullptr ? hn::LoadU(d, bias + c) : hn::Zero(d);
      hn::StoreU(hn::MulAdd(v, hn::LoadU(d, weight + c), b), d, out + c);
    });
  }
}

void add(Mat<const float> x, Mat<float> y) {
  for (int64_t r = 0; r < x.rows(); ++r) {
    const float* in = x.row(r);
    float* out = y.row(r);
    for_columns(x.cols(), [&](auto d, int64_t c) HWY_ATTR {
      hn::StoreU(hn::Add(hn::LoadU(d, out + c), hn::LoadU(d, in + c)), d, out + c);
    });
  }
}

template <Activation kAct, class D, class Vec>
HWY_INLINE Vec act(D d, Vec x) {
  const Vec one = hn::Set(d, 1.0f);
  if constexpr (kAct == Activation::kSilu) return hn::Div(x, hn::Add(one, fast_exp(d, hn::Neg(x))));
  if constexpr (kAct == Activation::kRelu) return hn::Max(x, hn::Zero(d));
  const Vec half = hn::Mul(x, hn::Set(d, 0.5f));
  if constexpr (kAct == Activation::kGeluErf) {
    return hn::Mul(half, hn::Add(one, fast_erf(d, hn::Mul(x, hn::Set(d, 0.707106781186547524f)))));
  }
  const Vec cubic = hn::MulAdd(hn::Mul(hn::Mul(x, x), hn::Set(d, 0.044715f)), x, x);
  return hn::Mul(half, hn::Add(one, fast_tanh(d, hn::Mul(cubic, hn::Set(d, 0.797884560802865356f)))));
}

template <Activation kAct>
void glu_as(Mat<const float> gate, Mat<const float> up, Mat<float> y) {
  for (int64_t r = 0; r < y.rows(); ++r) {
    const float *g = gate.row(r), *u = up.row(r);
    float* out = y.row(r);
    for_columns(y.cols(), [&](auto d, int64_t c) HWY_ATTR {
      hn::StoreU(hn::Mul(act<kAct>(d, hn::LoadU(d, g + c)), hn::LoadU(d, u + c)), d, out + c);
    });
  }
}

void glu(Activation activation, Mat<const float> gate, Mat<const float> up, Mat<float> y) {
  switch (activation) {
    case Activation::kSilu:
      return glu_as<Activation::kSilu>(gate, up, y);
    case Activation::kGeluTanh:
      return glu_as<Activation::kGeluTanh>(gate, up, y);
    case Activation::kGeluErf:
      return glu_as<Activation::kGeluErf>(gate, up, y);
    case Activation::kRelu:
      return glu_as<Activation::kRelu>(gate, up, y);
  }
}

template <Activation kAct>
void activate_as(Mat<float> x) {
  for (int64_t r = 0; r < x.rows(); ++r) {
    float* row = x.row(r);
    for_columns(x.cols(),
                [&](auto d, int64_t c) HWY_ATTR { hn::StoreU(act<kAct>(d, hn::LoadU(d, row + c)), d, row + c); });
  }
}

void activate(Activation activation, Mat<float> x) {
  switch (activation) {
    case Activation::kSilu:
      return activate_as<Activation::kSilu>(x);
    case Activation::kGeluTanh:
      return activate_as<Activation::kGeluTanh>(x);
    case Activation::kGeluErf:
      return activate_as<Activation::kGeluErf>(x);
    case Activation::kRelu:
      return activate_as<Activation::kRelu>(x);
  }
}

void softcap(float cap, Mat<float> x) {
  for (int64_t r = 0; r < x.rows(); ++r) {
    float* row = x.row(r);
    for_columns(x.cols(), [&](auto d, int64_t c) HWY_ATTR {
      const auto v = hn::Div(hn::LoadU(d, row + c), hn::Set(d, cap));
      hn::StoreU(hn::Mul(fast_tanh(d, v), hn::Set(d, cap)), d, row + c);
    });
  }
}

void rope(Mat<float> x, int64_t d_head, std::span<const int32_t> positions, const RopeTable& table) {
  const int64_t half = table.rotary_dim / 2;
  for (int64_t r = 0; r < x.rows(); ++r) {
    const float *cos = table.cos.row(positions[r]), *sin = table.sin.row(positions[r]);
    for (float* h = x.row(r); h < x.row(r) + x.cols(); h += d_head) {
      for_columns(half, [&](auto d, int64_t i) HWY_ATTR {
        const auto a = hn::LoadU(d, h + i), b = hn::LoadU(d, h + half + i);
        const auto c = hn::LoadU(d, cos + i), s = hn::LoadU(d, sin + i);
        hn::StoreU(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), d, h + i);
        hn::StoreU(hn::Add(hn::Mul(b, c), hn::Mul(a, s)), d, h + half + i);
      });
    }
  }
}

float row_max(const float* row, int64_t n) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(kVector));
  float high = row[0];
  int64_t c = 0;
  if (n >= lanes) {
    V m = hn::LoadU(kVector, row);
    for (c = lanes; c + lanes <= n; c += lanes) m = hn::Max(m, hn::LoadU(kVector, row + c));
    high = hn::GetLane(hn::MaxOfLanes(kVector, m));
  }
  for (; c < n; ++c) high = std::max(high, row[c]);
  return high;
}

void log_sum_exp(Mat<const float> logits, std::span<float> out) {
  for (int64_t r = 0; r < logits.rows(); ++r) {
    const float* row = logits.row(r);
    const float high = row_max(row, logits.cols());
    const float sum = sum_columns(logits.cols(), [&](auto d, int64_t c) HWY_ATTR {
      return fast_exp(d, hn::Sub(hn::LoadU(d, row + c), hn::Set(d, high)));
    });
    out[r] = high + std::log(sum);
  }
}

void argmax(Mat<const float> logits, std::span<int32_t> out) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(kVector));
  for (int64_t r = 0; r < logits.rows(); ++r) {
    const float* row = logits.row(r);
    const V high = hn::Set(kVector, row_max(row, logits.cols()));
    int64_t c = 0;
    while (c + lanes <= logits.cols() && hn::AllFalse(kVector, hn::Eq(hn::LoadU(kVector, row + c), high))) c += lanes;
    while (c + 1 < logits.cols() && row[c] != hn::GetLane(high)) ++c;
    out[r] = static_cast<int32_t>(c);
  }
}

constexpr int64_t kFetchAhead = 2048;  // floats: mostly of the next row, which another core has written

// What the k-th largest of n is at least: the k-th largest of the maxima of more than k disjoint groups. -infinity
// where there are too few, or one is no number.
float bound_of_kth(const float* row, int64_t n, int64_t k, std::vector<float>& maxima) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  const auto lanes = static_cast<int64_t>(hn::Lanes(kVector));
  const int64_t vectors = n / lanes, depth = std::clamp<int64_t>(n / (2 * k), 1, 64);
  const int64_t groups = vectors / depth;
  if (groups * lanes < k) return kNone;
  maxima.resize(static_cast<size_t>(groups * lanes));
  auto numbers = hn::Eq(hn::Zero(kVector), hn::Zero(kVector));
  for (int64_t g = 0; g < groups; ++g) {
    V m = hn::LoadU(kVector, row + g * depth * lanes);
    for (int64_t i = 1; i < depth; ++i) {
      __builtin_prefetch(row + (g * depth + i) * lanes + kFetchAhead);
      m = hn::Max(m, hn::LoadU(kVector, row + (g * depth + i) * lanes));
    }
    hn::StoreU(m, kVector, maxima.data() + g * lanes);
    numbers = hn::And(numbers, hn::Eq(m, m));
  }
  if (!hn::AllTrue(kVector, numbers)) return kNone;
  std::nth_element(maxima.begin(), maxima.begin() + (k - 1), maxima.end(), std::greater<>());
  return maxima[static_cast<size_t>(k - 1)];
}

// Places of the values above `least`, in ascending order. Returns how many; index: room for n and a vector.
int64_t collect_above(const float* row, int64_t n, float least, int32_t* index) {
  const hn::RebindToSigned<decltype(kVector)> places;
  const auto lanes = static_cast<int64_t>(hn::Lanes(kVector));
  const V cut = hn::Set(kVector, least);
  int64_t found = 0, c = 0;
  for (; c + 4 * lanes <= n; c += 4 * lanes) {
    for (int64_t i = 0; i < 4 * lanes; i += 16) __builtin_prefetch(row + c + kFetchAhead + i);
    const auto above = [&](int64_t i) HWY_ATTR { return hn::Gt(hn::LoadU(kVector, row + c + i * lanes), cut); };
    const auto m0 = above(0), m1 = above(1), m2 = above(2), m3 = above(3);
    if (hn::AllFalse(kVector, hn::Or(hn::Or(m0, m1), hn::Or(m2, m3)))) continue;
    const auto store = [&](auto mask, int64_t i) HWY_ATTR {
      const auto at = hn::Iota(places, static_cast<int32_t>(c + i * lanes));
      found += static_cast<int64_t>(hn::CompressStore(at, hn::RebindMask(places, mask), places, index + found));
    };
    store(m0, 0);
    store(m1, 1);
    store(m2, 2);
    store(m3, 3);
  }
  for (; c < n; ++c) {
    if (row[c] > least) index[found++] = static_cast<int32_t>(c);
  }
  return found;
}

float just_below(float x) { return std::nextafter(x, -std::numeric_limits<float>::infinity()); }

void find_top(Mat<const float> rank, Mat<const float> value, int64_t first, int64_t k, std::span<TopCandidates> rows) {
  std::vector<float> maxima;
  std::vector<int32_t> found(static_cast<size_t>(rank.cols()) + hn::Lanes(kVector));
  const auto many = static_cast<size_t>(8 * k + 64);
  for (int64_t r = 0; r < rank.rows(); ++r) {
    TopCandidates& row = rows[static_cast<size_t>(r)];
    if (static_cast<int64_t>(row.index.size()) < k) {
      row.least = std::max(row.least, just_below(bound_of_kth(rank.row(r), rank.cols(), k, maxima)));
    }
    const int64_t n = collect_above(rank.row(r), rank.cols(), row.least, found.data());
    const size_t known = row.index.size();
    row.index.resize(known + static_cast<size_t>(n));
    row.rank.resize(row.index.size());
    row.value.resize(row.index.size());
    const float *ranks = rank.row(r), *values = value.row(r);
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
      row.index[known + i] = static_cast<int32_t>(first) + found[i];
      row.rank[known + i] = ranks[found[i]];
      row.value[known + i] = values[found[i]];
    }
    if (row.index.size() >= many) row.keep(k);
  }
}

void top_k(Mat<const float> x, bool positive_only, Mat<int32_t> out_index, Mat<float> out_value) {
  const int64_t k = out_index.cols();
  TopCandidates best;
  for (int64_t r = 0; r < x.rows(); ++r) {
    best.clear(positive_only ? 0.0f : -std::numeric_limits<float>::infinity());
    find_top(x.rows_range(r, r + 1), x.rows_range(r, r + 1), 0, k, {&best, 1});
    best.keep(k);
    const auto n = static_cast<int64_t>(best.index.size());
    for (int64_t i = 0; i < k; ++i) {
      out_index(r, i) = i < n ? best.index[static_cast<size_t>(i)] : -1;
      out_value(r, i) = i < n ? best.value[static_cast<size_t>(i)] : 0.0f;
    }
  }
}

}  // namespace

const RowOps& ops_rows() {
  static constexpr RowOps kOps{embed,   rms_norm, layer_norm,  add,    glu,   activate,
                               softcap, rope,     log_sum_exp, argmax, top_k, find_top};
  return kOps;
}

}  // namespace saif::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace saif::cpu {

const RowOps& row_ops(Isa isa) { SAIF_PICK_TARGET(isa, ops_rows) }

}  // namespace saif::cpu
#endif  // HWY_ONCE
