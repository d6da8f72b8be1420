#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <numeric>

#include "base/parallel.h"
#include "base/rng.h"
#include "saif/sae.h"

namespace saif {
namespace {

// Sparse mixtures of unit directions: k of n active, amplitudes 0.5 to 1.5, a little noise, a common offset.
struct Planted {
  Tensor directions;  // [n, d]
  Tensor rows;        // [rows, d]
};

Planted plant(int64_t n, int64_t d, int64_t active, int64_t rows, uint64_t seed) {
  Planted p{Tensor(DType::kF32, {n, d}), Tensor(DType::kF32, {rows, d})};
  for (int64_t j = 0; j < n; ++j) {
    Rng rng(seed, static_cast<uint64_t>(j));
    double sum = 0;
    for (int64_t c = 0; c < d; ++c) {
      p.directions.f32()(j, c) = static_cast<float>(rng.normal());
      sum += std::pow(p.directions.f32()(j, c), 2);
    }
    for (int64_t c = 0; c < d; ++c) p.directions.f32()(j, c) /= static_cast<float>(std::sqrt(sum));
  }
  for (int64_t r = 0; r < rows; ++r) {
    Rng rng(seed + 1, static_cast<uint64_t>(r));
    for (int64_t c = 0; c < d; ++c) p.rows.f32()(r, c) = static_cast<float>(0.3 + 0.01 * rng.normal());
    for (int64_t i = 0; i < active; ++i) {
      const auto j = static_cast<int64_t>(rng.below(static_cast<uint64_t>(n)));
      const auto amplitude = static_cast<float>(0.5 + rng.uniform());
      for (int64_t c = 0; c < d; ++c) p.rows.f32()(r, c) += amplitude * p.directions.f32()(j, c);
    }
  }
  return p;
}

Mat<const float> batch_of(const Tensor& rows, int64_t step, int64_t batch) {
  const int64_t batches = rows.shape()[0] / batch;
  return rows.f32().rows_range((step % batches) * batch, (step % batches + 1) * batch);
}

// The same training written densely and plainly, from the same initial weights: every gradient is a full matrix.
class DenseReference {
 public:
  DenseReference(const SaeWeights& start, const SaeTrainOptions& options, int64_t total, double scale)
      : o_(options), total_(total), scale_(scale), d_(start.w_enc.shape()[1]), s_(start.w_enc.shape()[0]) {
    const auto copy = [](const Tensor& t) { return std::vector<double>(t.as<float>(), t.as<float>() + t.elements()); };
    p_ = {copy(start.w_enc), copy(start.b_enc), copy(start.w_dec), copy(start.b_dec)};
    for (const auto& p : p_) {
      m_.emplace_back(p.size(), 0.0);
      v_.emplace_back(p.size(), 0.0);
    }
    since_.assign(static_cast<size_t>(s_), 0);
  }

  double step(Mat<const float> x) {
    const int64_t n = x.rows();
    const double unit = static_cast<double>(n) * scale_ * scale_;
    g_.clear();
    for (const auto& p : p_) g_.emplace_back(p.size(), 0.0);
    std::vector<bool> dead(since_.size()), fired(since_.size(), false);
    for (size_t j = 0; j < dead.size(); ++j) dead[j] = since_[j] >= o_.dead_after;
    double loss = 0;
    for (int64_t r = 0; r < n; ++r) loss += row(x.row(r), 2.0 / unit, dead, fired) / unit;
    for (size_t j = 0; j < since_.size(); ++j) since_[j] = fired[j] ? 0 : since_[j] + n;
    apply();
    return loss;
  }

  const std::vector<double>& w_dec() const { return p_[2]; }

 private:
  double& enc(int64_t j, int64_t c) { return p_[0][static_cast<size_t>(j * d_ + c)]; }
  double& dec(int64_t j, int64_t c) { return p_[2][static_cast<size_t>(j * d_ + c)]; }

  std::vector<int64_t> largest(const std::vector<double>& h, int64_t k, const std::vector<bool>* only) const {
    std::vector<int64_t> order;
    for (int64_t j = 0; j < s_; ++j) {
      if (only == nullptr || (*only)[static_cast<size_t>(j)]) order.push_back(j);
    }
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return h[a] > h[b]; });
    order.resize(std::min<size_t>(order.size(), static_cast<size_t>(k)));
    std::erase_if(order, [&](int64_t j) { return h[j] <= 0; });
    return order;
  }

  // Back-propagates d loss / d reconstruction through the given latents.
  void backward(const std::vector<int64_t>& active, const std::vector<double>& h, const std::vector<double>& z,
                const std::vector<double>& out) {
    for (const int64_t j : active) {
      double g = 0;
      for (int64_t c = 0; c < d_; ++c) {
        g += out[c] * dec(j, c);
        g_[2][j * d_ + c] += h[j] * out[c];
      }
      g_[1][j] += g;
      for (int64_t c = 0; c < d_; ++c) {
        g_[0][j * d_ + c] += g * z[c];
        g_[3][c] -= g * enc(j, c);
      }
    }
  }

  double row(const float* x, double factor, const std::vector<bool>& dead, std::vector<bool>& fired) {
    std::vector<double> z(d_), h(s_), y(p_[3]), out(d_), left(d_);
    for (int64_t c = 0; c < d_; ++c) z[c] = x[c] - p_[3][c];
    for (int64_t j = 0; j < s_; ++j) {
      h[j] = p_[1][j];
      for (int64_t c = 0; c < d_; ++c) h[j] += z[c] * enc(j, c);
    }
    const std::vector<int64_t> active = largest(h, o_.k, nullptr);
    for (const int64_t j : active) {
      fired[j] = true;
      for (int64_t c = 0; c < d_; ++c) y[c] += h[j] * dec(j, c);
    }
    double loss = 0;
    for (int64_t c = 0; c < d_; ++c) {
      left[c] = x[c] - y[c];
      loss += left[c] * left[c];
      out[c] = -factor * left[c];
      g_[3][c] += out[c];
    }
    backward(active, h, z, out);
    const int64_t k = o_.auxiliary_k > 0 ? o_.auxiliary_k : std::max<int64_t>(1, d_ / 2);
    if (std::none_of(dead.begin(), dead.end(), [](bool b) { return b; })) return loss;
    const std::vector<int64_t> aux = largest(h, k, &dead);
    std::vector<double> e(d_, 0.0);
    for (const int64_t j : aux) {
      for (int64_t c = 0; c < d_; ++c) e[c] += h[j] * dec(j, c);
    }
    for (int64_t c = 0; c < d_; ++c) {
      const double difference = e[c] - left[c];
      loss += o_.auxiliary_weight * difference * difference;
      out[c] = o_.auxiliary_weight * factor * difference;
    }
    backward(aux, h, z, out);
    return loss;
  }

  void apply() {
    for (int64_t j = 0; j < s_; ++j) {
      double along = 0;
      for (int64_t c = 0; c < d_; ++c) along += g_[2][j * d_ + c] * dec(j, c);
      for (int64_t c = 0; c < d_; ++c) g_[2][j * d_ + c] -= along * dec(j, c);
    }
    const double peak = o_.lr, done = static_cast<double>(steps_), total = static_cast<double>(total_);
    double rate = peak * std::min(1.0, (done + 1) / std::max(1.0, o_.warmup * total));
    if (total - done < o_.decay * total) rate *= (total - done) / (o_.decay * total);
    const double t = done + 1;
    for (size_t i = 0; i < p_.size(); ++i) {
      const double natural = i == 1 || i == 3 ? scale_ : 1.0;
      for (size_t q = 0; q < p_[i].size(); ++q) {
        const double g = g_[i][q] * natural;
        m_[i][q] = o_.beta1 * m_[i][q] + (1 - o_.beta1) * g;
        v_[i][q] = o_.beta2 * v_[i][q] + (1 - o_.beta2) * g * g;
        const double mean = m_[i][q] / (1 - std::pow(o_.beta1, t)), square = v_[i][q] / (1 - std::pow(o_.beta2, t));
        p_[i][q] -= natural * rate * mean / (std::sqrt(square) + o_.adam_eps);
      }
    }
    for (int64_t j = 0; j < s_; ++j) {
      double norm = 0;
      for (int64_t c = 0; c < d_; ++c) norm += dec(j, c) * dec(j, c);
      for (int64_t c = 0; c < d_; ++c) dec(j, c) /= std::sqrt(norm);
    }
    ++steps_;
  }

  SaeTrainOptions o_;
  int64_t total_;
  double scale_;
  int64_t d_, s_, steps_ = 0;
  std::vector<std::vector<double>> p_, m_, v_, g_;  // w_enc, b_enc, w_dec, b_dec
  std::vector<int64_t> since_;
};

SaeTrainOptions small_options() {
  SaeTrainOptions o;
  o.d_sae = 96;
  o.k = 4;
  o.batch = 64;
  o.lr = 3e-3;
  o.dead_after = 192;  // so that the auxiliary loss takes part in a short run
  o.auxiliary_k = 7;
  o.compute = "f32";
  return o;
}

SaeWeights clone(const SaeWeights& w) {
  SaeWeights out;
  out.w_enc = w.w_enc.clone();
  out.b_enc = w.b_enc.clone();
  out.w_dec = w.w_dec.clone();
  out.b_dec = w.b_dec.clone();
  return out;
}

// Root mean square distance from b_dec: the unit of the loss.
double scale_of(Mat<const float> x, const Tensor& b_dec) {
  double sum = 0;
  for (int64_t r = 0; r < x.rows(); ++r) {
    for (int64_t c = 0; c < x.cols(); ++c) sum += std::pow(x(r, c) - b_dec.as<float>()[c], 2);
  }
  return std::sqrt(sum / static_cast<double>(x.rows()));
}

void compare_with_reference(const std::string& compute, double tolerance) {
  constexpr int64_t kSteps = 50;
  const Planted data = plant(48, 20, 3, 1024, 5);
  SaeTrainOptions options = small_options();
  options.compute = compute;
  SaeTrainer trainer(20, options, kSteps, data.rows.f32());
  DenseReference reference(clone(trainer.weights()), options, kSteps,
                           scale_of(data.rows.f32(), trainer.weights().b_dec));
  bool auxiliary = false;
  for (int64_t step = 0; step < kSteps; ++step) {
    const Mat<const float> x = batch_of(data.rows, step, options.batch);
    const SaeTrainer::StepStats stats = trainer.step(x);
    const double expected = reference.step(x);
    auxiliary = auxiliary || stats.auxiliary_loss > 0;
    ASSERT_NEAR(stats.loss, expected, tolerance * expected) << "step " << step;
  }
  EXPECT_TRUE(auxiliary) << "the auxiliary loss never took part";
  EXPECT_EQ(trainer.steps_done(), kSteps);
}

TEST(SaeTrainer, LossCurveEqualsADenseReference) { compare_with_reference("f32", 1e-4); }

TEST(SaeTrainer, LossCurveInBfloatIsNear) { compare_with_reference("bf16", 0.03); }

TEST(SaeTrainer, DecoderRowsStayAtUnitNorm) {
  const Planted data = plant(48, 20, 3, 1024, 6);
  SaeTrainer trainer(20, small_options(), 20, data.rows.f32());
  for (int64_t step = 0; step < 20; ++step) trainer.step(batch_of(data.rows, step, 64));
  for (const float norm : trainer.snapshot("", "")->decoder_norms()) EXPECT_NEAR(norm, 1.0f, 1e-5f);
}

TEST(SaeTrainer, ResumesBitForBit) {
  const Planted data = plant(48, 20, 3, 1024, 7);
  const std::string file = testing::TempDir() + "/saif_state_" + std::to_string(getpid()) + ".safetensors";
  for (const char* compute : {"f32", "bf16"}) {
    SaeTrainOptions options = small_options();
    options.compute = compute;
    SaeTrainer whole(20, options, 30, data.rows.f32()), first(20, options, 30, data.rows.f32());
    for (int64_t step = 0; step < 30; ++step) whole.step(batch_of(data.rows, step, 64));
    for (int64_t step = 0; step < 13; ++step) first.step(batch_of(data.rows, step, 64));
    first.save_state(file);
    SaeTrainer second(20, options, 30, data.rows.f32().rows_range(0, 10));
    second.load_state(file);
    EXPECT_EQ(second.steps_done(), 13);
    for (int64_t step = 13; step < 30; ++step) second.step(batch_of(data.rows, step, 64));
    EXPECT_EQ(std::memcmp(whole.weights().w_enc.data(), second.weights().w_enc.data(), whole.weights().w_enc.bytes()),
              0);
    EXPECT_EQ(std::memcmp(whole.weights().w_dec.data(), second.weights().w_dec.data(), whole.weights().w_dec.bytes()),
              0);
    EXPECT_EQ(std::memcmp(whole.weights().b_dec.data(), second.weights().b_dec.data(), whole.weights().b_dec.bytes()),
              0);
    options.k = 5;
    SaeTrainer other(20, options, 30, data.rows.f32());
    EXPECT_THROW(other.load_state(file), Error);
  }
  std::filesystem::remove(file);
}

TEST(SaeTrainer, ResultDoesNotDependOnTheNumberOfThreads) {
  const Planted data = plant(48, 20, 3, 1024, 8);
  const int threads = max_threads();
  std::vector<SaeWeights> results;
  for (const int n : {1, 3}) {
    set_threads(n);
    SaeTrainer trainer(20, small_options(), 10, data.rows.f32());
    for (int64_t step = 0; step < 10; ++step) trainer.step(batch_of(data.rows, step, 64));
    results.push_back(clone(trainer.weights()));
  }
  set_threads(threads);
  EXPECT_EQ(std::memcmp(results[0].w_enc.data(), results[1].w_enc.data(), results[0].w_enc.bytes()), 0);
  EXPECT_EQ(std::memcmp(results[0].b_dec.data(), results[1].b_dec.data(), results[0].b_dec.bytes()), 0);
}

TEST(SaeTrainer, FindsAPlantedDictionary) {
  constexpr int64_t kDirections = 96, kWidth = 24, kSteps = 800;  // four times overcomplete
  const Planted data = plant(kDirections, kWidth, 2, 16384, 9);
  SaeTrainOptions options = small_options();
  options.d_sae = 128;
  options.k = 2;
  options.batch = 128;
  options.lr = 1e-2;
  options.dead_after = 5000;
  options.auxiliary_k = 16;
  SaeTrainer trainer(kWidth, options, kSteps, data.rows.f32());
  for (int64_t step = 0; step < kSteps; ++step) trainer.step(batch_of(data.rows, step, options.batch));
  double mean = 0;
  for (int64_t i = 0; i < kDirections; ++i) {
    float best = 0;
    for (int64_t j = 0; j < options.d_sae; ++j) {
      const float* a = data.directions.f32().row(i);
      const float* b = trainer.weights().w_dec.f32().row(j);
      best = std::max(best, std::inner_product(a, a + kWidth, b, 0.0f));
    }
    mean += best / kDirections;
  }
  EXPECT_GE(mean, 0.95);
  RecordProperty("mean_max_cosine", std::to_string(mean));
}

TEST(SaeTrainer, OptionsThatCannotWorkAreRefused) {
  const Planted data = plant(8, 20, 2, 16, 10);
  const auto refused = [&](auto change) {
    SaeTrainOptions options = small_options();
    change(options);
    EXPECT_THROW(SaeTrainer(20, options, 10, data.rows.f32()), Error);
  };
  refused([](SaeTrainOptions& o) { o.kind = "gated"; });
  refused([](SaeTrainOptions& o) { o.k = 97; });
  refused([](SaeTrainOptions& o) { o.k = 0; });
  refused([](SaeTrainOptions& o) { o.dtype = "f16"; });
  refused([](SaeTrainOptions& o) { o.compute = "int8"; });
  refused([](SaeTrainOptions& o) { o.beta2 = 1.0; });
  refused([](SaeTrainOptions& o) { o.context = 1; });
}

}  // namespace
}  // namespace saif
