#include "sae/adam.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/parallel.h"

// One body, compiled for several instruction sets and chosen when the program starts. Sanitizers cannot run the
// chooser, clang-tidy does not need it.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define SAIF_CLONES __attribute__((target_clones("avx512f", "avx2,fma", "default"), optimize("no-math-errno")))
#else
#define SAIF_CLONES
#endif

namespace saif {
namespace {

constexpr int64_t kRowBlock = 16;     // rows of a batch that one task takes
constexpr int64_t kLatentBlock = 64;  // latents that one task takes; fixes the order of sums

SAIF_CLONES void add_scaled(float* y, const float* x, float a, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

// Four rows at once: y passes through the registers a quarter as often.
SAIF_CLONES void add_scaled4(float* y, const float* const* x, const float* a, int64_t n) {
  const float *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
  const float a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3];
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = ((((y[i] + a0 * x0[i]) + a1 * x1[i]) + a2 * x2[i]) + a3 * x3[i]);
}

SAIF_CLONES float dot(const float* x, const float* y, int64_t n) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

SAIF_CLONES void subtract_scale(float* y, const float* x, float factor, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = (y[i] - x[i]) * factor;
}

SAIF_CLONES void scale_row(float* y, float factor, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] *= factor;
}

// Kingma & Ba 2015, algorithm 1.
SAIF_CLONES void adam(float* w, const float* g, float* m, float* v, const AdamStep& s, int64_t n) {
  const float b1 = s.beta1, b2 = s.beta2, c1 = 1.0f - s.beta1, c2 = 1.0f - s.beta2, eps = s.eps;
  const float rate = s.rate / s.correction1, root = 1.0f / std::sqrt(s.correction2);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    m[i] = b1 * m[i] + c1 * g[i];
    v[i] = b2 * v[i] + c2 * g[i] * g[i];
    w[i] -= rate * m[i] / (__builtin_sqrtf(v[i]) * root + eps);
  }
}

// Round to nearest even; the weights are finite.
SAIF_CLONES void round_bf16(const float* x, uint16_t* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits = 0;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    y[i] = static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
  }
}

// y += sum_i a[i] * rows[index[i]], in the order given.
void gather(float* y, Mat<const float> rows, std::span<const int32_t> index, const float* a) {
  const int64_t n = rows.cols();
  size_t i = 0;
  for (; i + 4 <= index.size(); i += 4) {
    const float* x[4] = {rows.row(index[i]), rows.row(index[i + 1]), rows.row(index[i + 2]), rows.row(index[i + 3])};
    add_scaled4(y, x, a + i, n);
  }
  for (; i < index.size(); ++i) add_scaled(y, rows.row(index[i]), a[i], n);
}

// One latent's turn of update_rows.
class LatentUpdate {
 public:
  LatentUpdate(std::span<const GradientPart> parts, const AdamStep& step, const RowParameters& encoder,
               const RowParameters& decoder)
      : parts_(parts),
        step_(step),
        encoder_(encoder),
        decoder_(decoder),
        gradient_(encoder.value.cols()),
        decoder_gradient_(decoder.value.cols()) {}

  // Returns the latent's bias gradient and adds it, times the encoder row, to `pull`.
  float run(int64_t j, float* pull) {
    std::fill(gradient_.begin(), gradient_.end(), 0.0f);
    std::fill(decoder_gradient_.begin(), decoder_gradient_.end(), 0.0f);
    float bias = 0.0f;
    for (const GradientPart& part : parts_) {
      const SparseEntries& e = *part.entries;
      const int64_t begin = e.column_offsets[j], count = e.column_offsets[j + 1] - begin;
      const std::span rows(e.column_rows.data() + begin, static_cast<size_t>(count));
      gather(gradient_.data(), part.encoder_rows, rows, e.column_gradients.data() + begin);
      gather(decoder_gradient_.data(), part.decoder_rows, rows, e.column_values.data() + begin);
      for (int64_t i = 0; i < count; ++i) bias += e.column_gradients[begin + i];
    }
    update_encoder(j, bias, pull);
    update_decoder(j);
    return bias;
  }

 private:
  void update_encoder(int64_t j, float bias, float* pull) {
    const int64_t n = encoder_.value.cols();
    float* w = encoder_.value.row(j);
    if (bias != 0.0f) add_scaled(pull, w, bias, n);
    adam(w, gradient_.data(), encoder_.moments->first.as<float>() + j * n, encoder_.moments->second.as<float>() + j * n,
         step_, n);
    if (encoder_.shadow != nullptr) round_bf16(w, encoder_.shadow + j * n, n);
  }

  void update_decoder(int64_t j) {
    const int64_t n = decoder_.value.cols();
    float* w = decoder_.value.row(j);
    float* g = decoder_gradient_.data();
    add_scaled(g, w, -dot(g, w, n), n);
    adam(w, g, decoder_.moments->first.as<float>() + j * n, decoder_.moments->second.as<float>() + j * n, step_, n);
    const float norm = std::sqrt(dot(w, w, n));
    if (norm > 0.0f) scale_row(w, 1.0f / norm, n);
    if (decoder_.shadow != nullptr) round_bf16(w, decoder_.shadow + j * n, n);
  }

  std::span<const GradientPart> parts_;
  const AdamStep& step_;
  const RowParameters& encoder_;
  const RowParameters& decoder_;
  std::vector<float> gradient_, decoder_gradient_;
};

}  // namespace

void SparseEntries::clear() {
  offsets.assign(1, 0);
  latents.clear();
  values.clear();
}

void SparseEntries::transpose(int64_t n_latents) {
  const size_t n = latents.size();
  column_offsets.assign(static_cast<size_t>(n_latents) + 1, 0);
  for (const int32_t j : latents) ++column_offsets[static_cast<size_t>(j) + 1];
  for (size_t j = 0; j < static_cast<size_t>(n_latents); ++j) column_offsets[j + 1] += column_offsets[j];
  column_rows.resize(n);
  column_values.resize(n);
  column_gradients.resize(n);
  std::vector<int64_t> at(column_offsets.begin(), column_offsets.end() - 1);
  for (size_t r = 0; r + 1 < offsets.size(); ++r) {
    for (int64_t i = offsets[r]; i < offsets[r + 1]; ++i) {
      const int64_t to = at[static_cast<size_t>(latents[i])]++;
      column_rows[to] = static_cast<int32_t>(r);
      column_values[to] = values[i];
      column_gradients[to] = gradients[i];
    }
  }
}

void residual_and_gradients(const ResidualTask& task, SparseEntries& entries) {
  const int64_t n = task.x.cols();
  SAIF_CHECK(static_cast<int64_t>(entries.offsets.size()) == task.x.rows() + 1, "rows of the entries");
  entries.gradients.resize(entries.latents.size());
  parallel_for(task.x.rows(), kRowBlock, [&](int64_t begin, int64_t end) {
    std::vector<float> sum(static_cast<size_t>(n));
    for (int64_t r = begin; r < end; ++r) {
      const int64_t first = entries.offsets[r], last = entries.offsets[r + 1];
      if (task.base != nullptr) {
        std::copy(task.base, task.base + n, sum.begin());
      } else {
        std::fill(sum.begin(), sum.end(), 0.0f);
      }
      const std::span latents(entries.latents.data() + first, static_cast<size_t>(last - first));
      gather(sum.data(), task.dictionary, latents, entries.values.data() + first);
      subtract_scale(sum.data(), task.x.row(r), task.factor, n);
      const float inverse = task.factor != 0.0f ? 1.0f / task.factor : 0.0f;
      task.squared[r] = static_cast<double>(dot(sum.data(), sum.data(), n)) * inverse * inverse;
      for (int64_t i = first; i < last; ++i) {
        entries.gradients[i] = dot(sum.data(), task.dictionary.row(entries.latents[i]), n);
      }
      std::copy(sum.begin(), sum.end(), task.target.row(r));
    }
  });
}

void update_rows(std::span<const GradientPart> parts, const AdamStep& step, const RowParameters& encoder,
                 const RowParameters& decoder, std::span<float> bias_gradient, std::span<float> pull) {
  const int64_t n_latents = encoder.value.rows(), cols = encoder.value.cols();
  const int64_t blocks = (n_latents + kLatentBlock - 1) / kLatentBlock;
  std::vector<float> partial(static_cast<size_t>(blocks * cols), 0.0f);  // of `pull`, by block
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    LatentUpdate update(parts, step, encoder, decoder);
    for (int64_t b = begin; b < end; ++b) {
      for (int64_t j = b * kLatentBlock; j < std::min(n_latents, (b + 1) * kLatentBlock); ++j) {
        bias_gradient[j] = update.run(j, partial.data() + b * cols);
      }
    }
  });
  std::fill(pull.begin(), pull.end(), 0.0f);
  for (int64_t b = 0; b < blocks; ++b) add_scaled(pull.data(), partial.data() + b * cols, 1.0f, cols);
}

void update_vector(std::span<float> value, std::span<const float> gradient, float scale, const AdamStep& step,
                   Moments& moments) {
  AdamStep scaled = step;
  scaled.rate *= scale;
  adam(value.data(), gradient.data(), moments.first.as<float>(), moments.second.as<float>(), scaled,
       static_cast<int64_t>(value.size()));
}

}  // namespace saif
