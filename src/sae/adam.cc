#include "sae/adam.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/parallel.h"

namespace saif {
namespace {

constexpr int64_t kRowBlock = 16;     // rows of a batch that one task takes
constexpr int64_t kLatentBlock = 64;  // latents that one task takes; fixes the order of sums

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
      gather(decoder_gradient_.data(), part.decoder_rows_of(j), rows, e.column_values.data() + begin);
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
    AdamStep step = step_;
    step.rate *= encoder_.scale;
    adam(w, gradient_.data(), encoder_.moments->first.as<float>() + j * n, encoder_.moments->second.as<float>() + j * n,
         step, n);
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

// What a row's reconstruction begins with.
void start_of(const ResidualTask& task, int64_t r, std::vector<float>& sum) {
  if (task.onto_target) {
    std::copy_n(task.target.row(r), sum.size(), sum.begin());
  } else {
    std::fill(sum.begin(), sum.end(), 0.0f);
  }
  if (task.base == nullptr) return;
  for (size_t c = 0; c < sum.size(); ++c) sum[c] += task.base[c];
}

}  // namespace

void SparseEntries::clear() {
  offsets.assign(1, 0);
  latents.clear();
  values.clear();
  gradients.clear();
}

void SparseEntries::transpose(int64_t n_latents) {
  const auto matters = [&](size_t i) { return values[i] != 0.0f || gradients[i] != 0.0f; };
  column_offsets.assign(static_cast<size_t>(n_latents) + 1, 0);
  for (size_t i = 0; i < latents.size(); ++i) {
    if (matters(i)) ++column_offsets[static_cast<size_t>(latents[i]) + 1];
  }
  for (size_t j = 0; j < static_cast<size_t>(n_latents); ++j) column_offsets[j + 1] += column_offsets[j];
  const auto n = static_cast<size_t>(column_offsets.back());
  column_rows.resize(n);
  column_entries.resize(n);
  column_values.resize(n);
  column_gradients.resize(n);
  std::vector<int64_t> at(column_offsets.begin(), column_offsets.end() - 1);
  for (size_t r = 0; r + 1 < offsets.size(); ++r) {
    for (auto i = static_cast<size_t>(offsets[r]); i < static_cast<size_t>(offsets[r + 1]); ++i) {
      if (!matters(i)) continue;
      const auto to = static_cast<size_t>(at[static_cast<size_t>(latents[i])]++);
      column_rows[to] = static_cast<int32_t>(r);
      column_entries[to] = static_cast<int32_t>(i);
      column_values[to] = values[i];
      column_gradients[to] = gradients[i];
    }
  }
}

Mat<const float> GradientPart::decoder_rows_of(int64_t latent) const {
  if (prefix_ends.empty()) return decoder_rows;
  const auto p = std::upper_bound(prefix_ends.begin(), prefix_ends.end(), latent) - prefix_ends.begin();
  const int64_t rows = decoder_rows.rows() / static_cast<int64_t>(prefix_ends.size());
  return decoder_rows.rows_range(p * rows, (p + 1) * rows);
}

void residual_and_gradients(const ResidualTask& task, SparseEntries& entries) {
  const int64_t n = task.x.cols();
  SAIF_CHECK(static_cast<int64_t>(entries.offsets.size()) == task.x.rows() + 1, "rows of the entries");
  entries.gradients.resize(entries.latents.size());
  parallel_for(task.x.rows(), kRowBlock, [&](int64_t begin, int64_t end) {
    std::vector<float> sum(static_cast<size_t>(n));
    for (int64_t r = begin; r < end; ++r) {
      const int64_t first = entries.offsets[r], last = entries.offsets[r + 1];
      start_of(task, r, sum);
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
