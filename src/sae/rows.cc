// Passes over stored matrices: transposition, norms of rows, the search for NaN.
#include "tensor/rows.h"

#include <algorithm>

#include "base/parallel.h"
#include "sae/row_math.h"
#include "sae/source.h"

namespace saif {
namespace {

// [rows, cols] -> [cols, rows] for elements of one size, in tiles that stay in cache.
template <typename T>
void transpose(const T* in, int64_t rows, int64_t cols, T* out) {
  constexpr int64_t kTile = 32;
  parallel_for((cols + kTile - 1) / kTile, 4, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t c_end = std::min(cols, (tile + 1) * kTile);
      for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
        for (int64_t c = tile * kTile; c < c_end; ++c) {
          for (int64_t r = r0; r < std::min(rows, r0 + kTile); ++r) out[c * rows + r] = in[r * cols + c];
        }
      }
    }
  });
}

}  // namespace

Tensor transposed(const TensorView& view) {
  const int64_t rows = view.shape[0], cols = view.shape[1];
  Tensor out(view.dtype, {cols, rows});
  if (size_of(view.dtype) == 2) {
    transpose(static_cast<const uint16_t*>(view.data), rows, cols, out.as<uint16_t>());
  } else {
    transpose(static_cast<const float*>(view.data), rows, cols, out.as<float>());
  }
  return out;
}

std::vector<float> row_norms(const TensorView& view) {
  std::vector<float> norms(static_cast<size_t>(view.shape[0]));
  parallel_for(view.shape[0], 256, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      norms[static_cast<size_t>(j)] = static_cast<float>(norm_of(to_f32(row_of(view, j)).f32().row_span(0)));
    }
  });
  return norms;
}

void require_finite_rows(Mat<const float> x, int64_t first_row, const char* what, const std::string& sae) {
  for (int64_t r = 0; r < x.rows(); ++r) {
    const int64_t c = first_not_finite(x.row(r), x.cols());
    if (c < 0) continue;
    throw Error(Errc::kInvalidArgument, "SAE " + sae + ": row " + std::to_string(first_row + r) + ", column " +
                                            std::to_string(c) + " of its " + what + " is " + std::to_string(x(r, c)) +
                                            "; expected finite activations: capture them again, in a wider type");
  }
}

void require_finite(const TensorView& view, const std::string& file, const std::string& tensor) {
  // All exponent bits set: infinity or NaN.
  int64_t bad = 0;
  const int64_t n = view.elements();
#pragma omp parallel for reduction(+ : bad) schedule(static)
  for (int64_t block = 0; block < (n + 65535) / 65536; ++block) {
    const int64_t begin = block * 65536, end = std::min(n, begin + 65536);
    int32_t count = 0;
    if (view.dtype == DType::kF32) {
      const auto* v = static_cast<const uint32_t*>(view.data);
      for (int64_t i = begin; i < end; ++i) count += (v[i] & 0x7f800000U) == 0x7f800000U ? 1 : 0;
    } else {
      const auto* v = static_cast<const uint16_t*>(view.data);
      const uint16_t mask = view.dtype == DType::kBf16 ? 0x7f80 : 0x7c00;
      for (int64_t i = begin; i < end; ++i) count += (v[i] & mask) == mask ? 1 : 0;
    }
    bad += count;
  }
  if (bad == 0) return;
  throw Error(Errc::kBadFormat, file + ": tensor \"" + tensor + "\" has " + std::to_string(bad) +
                                    " values that are not finite; expected numbers only: the file is damaged");
}

}  // namespace saif
