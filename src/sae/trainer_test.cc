#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <numeric>

#include "base/file.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "sae/trainer_reference.h"
#include "saif/sae.h"

namespace saif {
namespace {

// These trainings are far too small to be worth more than one thread.
class OneThread {
 public:
  OneThread() { set_threads(1); }
  ~OneThread() { set_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_ = max_threads();
};

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

std::string state_file() { return testing::TempDir() + "/saif_state_" + std::to_string(getpid()) + ".safetensors"; }

struct Case {
  std::string kind;
  bool transcoder = false, skip = false;
  std::string compute = "f32", l0_penalty = "target";
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.kind; }

class EveryKind : public testing::TestWithParam<Case> {
 protected:
  static constexpr int64_t kSteps = 25, kWidth = 20, kOutWidth = 14, kBatch = 64;

  EveryKind() : data_(plant(48, kWidth, 3, 1024, 5)) {
    options_ = small_options();
    options_.kind = GetParam().kind;
    options_.compute = GetParam().compute;
    options_.skip = GetParam().skip;
    options_.l0_penalty = GetParam().l0_penalty;
    options_.sparsity_warmup = 0.2;
    options_.bandwidth = 0.8;
    if (!GetParam().transcoder) return;
    targets_ = Tensor(DType::kF32, {1024, kOutWidth});  // a map of the rows with an offset, on another scale
    for (int64_t r = 0; r < 1024; ++r) {
      for (int64_t c = 0; c < kOutWidth; ++c) {
        targets_.f32()(r, c) = 7.0f * std::max(0.0f, data_.rows.f32()(r, c)) - 2.0f * data_.rows.f32()(r, c + 4) + 1.5f;
      }
    }
  }
  void TearDown() override { std::filesystem::remove(state_file()); }

  Mat<const float> in(int64_t step) const { return batch_of(data_.rows, step, kBatch); }
  Mat<const float> out(int64_t step) const {
    return GetParam().transcoder ? batch_of(targets_, step, kBatch) : in(step);
  }
  std::unique_ptr<SaeTrainer> trainer() const {
    if (!GetParam().transcoder) return std::make_unique<SaeTrainer>(kWidth, options_, kSteps, data_.rows.f32());
    return std::make_unique<SaeTrainer>(options_, kSteps, data_.rows.f32(), targets_.f32());
  }
  SaeTrainer::StepStats step(SaeTrainer& trainer, int64_t s) const {
    return GetParam().transcoder ? trainer.step(in(s), out(s)) : trainer.step(in(s));
  }
  test::DenseReference reference(const SaeTrainer& trainer) const {
    trainer.save_state(state_file());
    return {state_file(), options_, kSteps, GetParam().transcoder};
  }

  OneThread one_thread_;
  Planted data_;
  Tensor targets_;
  SaeTrainOptions options_;
};

double distance(const std::vector<double>& a, const float* b) {
  double difference = 0, sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(a[i] - b[i], 2);
    sum += a[i] * a[i];
  }
  return std::sqrt(difference / std::max(sum, 1e-30));
}

// The loss of every step, and the gradients themselves, that Adam's first moments are means of.
TEST_P(EveryKind, LossAndGradientsEqualADenseReference) {
  const auto trained = trainer();
  test::DenseReference reference = this->reference(*trained);
  const bool exact = options_.compute == "f32";
  bool auxiliary = false;
  for (int64_t s = 0; s < kSteps; ++s) {
    const SaeTrainer::StepStats stats = step(*trained, s);
    const double expected = reference.step(in(s), out(s));
    auxiliary = auxiliary || stats.auxiliary_loss > 0;
    ASSERT_NEAR(stats.loss, expected, (exact ? 2e-4 : 0.03) * expected) << "step " << s;
    if (!exact || s > 3) continue;
    trained->save_state(state_file());
    const SafetensorsFile state = SafetensorsFile::open(state_file());
    for (const auto& [name, moment] : reference.first_moments()) {
      EXPECT_LT(distance(moment, static_cast<const float*>(state.at(name + ".m").data)), 2e-3) << name << " " << s;
    }
  }
  // Where a penalty decides, every latent fires at the start.
  const bool all_fire = options_.kind == "relu" || options_.kind == "gated";
  EXPECT_TRUE(auxiliary || all_fire) << "the auxiliary loss never took part";
}

// The reference's gradients are those of its loss, where the loss is smooth and nothing is held constant.
TEST_P(EveryKind, TheReferenceAgreesWithFiniteDifferences) {
  if (options_.compute != "f32") GTEST_SKIP() << "the reference is the same";
  test::DenseReference reference = this->reference(*trainer());
  reference.forward(in(0), out(0));
  const std::map<std::string, std::vector<double>> gradients = reference.gradients();
  for (const auto& [name, gradient] : gradients) {
    const bool held = options_.kind == "gated" && (name == "w_dec" || name == "b_dec" || name == "w_skip");
    if (held || name == "kind.threshold") continue;
    double largest = 0;
    for (const double g : gradient) largest = std::max(largest, std::abs(g));
    Rng rng(3);
    for (int i = 0; i < 6; ++i) {
      const size_t at = rng.below(gradient.size());
      double& p = reference.parameters()[name][at];
      constexpr double kStep = 1e-7;
      const double before = p;
      p = before + kStep;
      const double up = reference.forward(in(0), out(0));
      p = before - kStep;
      const double down = reference.forward(in(0), out(0));
      p = before;
      EXPECT_NEAR((up - down) / (2 * kStep), gradient[at], 1e-4 * largest + 1e-7) << name << " " << at;
    }
  }
}

TEST_P(EveryKind, ResumesBitForBit) {
  const auto whole = trainer(), first = trainer(), second = trainer();
  for (int64_t s = 0; s < 20; ++s) step(*whole, s);
  for (int64_t s = 0; s < 9; ++s) step(*first, s);
  first->save_state(state_file());
  second->load_state(state_file());
  for (int64_t s = 9; s < 20; ++s) step(*second, s);
  whole->save_state(state_file());
  const std::string expected = read_file(state_file());
  second->save_state(state_file());
  EXPECT_EQ(read_file(state_file()), expected);
}

// What is saved gives, on its own, the sparsity and fidelity of training.
TEST_P(EveryKind, SavedItReconstructsAsInTraining) {
  const auto trained = trainer();
  SaeTrainer::StepStats stats;
  for (int64_t s = 0; s < kSteps; ++s) stats = step(*trained, s);
  const std::string folder = testing::TempDir() + "/saif_kind_" + std::to_string(getpid());
  trained->snapshot("blocks.1.hook_resid_post", "m", GetParam().transcoder ? "blocks.1.hook_mlp_out" : "")
      ->save(folder, DType::kF32);
  const auto sae = Sae::load(folder);
  std::filesystem::remove_all(folder);
  EXPECT_EQ(sae->config().transcoder, GetParam().transcoder);
  EXPECT_EQ(sae->config().skip, GetParam().skip);
  const SaeFidelity fidelity = measure_fidelity(*sae, in(kSteps - 1), out(kSteps - 1));
  EXPECT_NEAR(fidelity.fvu, stats.fvu, 0.1 * stats.fvu + 0.02);
  EXPECT_NEAR(fidelity.l0, stats.l0, 0.25 * stats.l0);
}

INSTANTIATE_TEST_SUITE_P(Kinds, EveryKind,
                         testing::Values(Case{"topk"}, Case{"batchtopk"}, Case{"relu"}, Case{"jumprelu"},
                                         Case{"jumprelu", false, false, "f32", "linear"}, Case{"gated"},
                                         Case{"matryoshka"}, Case{"matryoshka-topk"},
                                         Case{"topk", false, false, "bf16"}, Case{"batchtopk", false, false, "bf16"},
                                         Case{"relu", true, false}, Case{"batchtopk", true, true},
                                         Case{"jumprelu", true, true}, Case{"matryoshka", true, false}),
                         [](const auto& each) {
                           std::string name = each.param.kind + (each.param.transcoder ? "_transcoder" : "") +
                                              (each.param.skip ? "_skip" : "") + "_" + each.param.compute + "_" +
                                              each.param.l0_penalty;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(SaeTrainer, DecoderRowsStayAtUnitNorm) {
  const OneThread one_thread;
  const Planted data = plant(48, 20, 3, 1024, 6);
  SaeTrainer trainer(20, small_options(), 20, data.rows.f32());
  for (int64_t step = 0; step < 20; ++step) trainer.step(batch_of(data.rows, step, 64));
  for (const float norm : trainer.snapshot("", "")->decoder_norms()) EXPECT_NEAR(norm, 1.0f, 1e-5f);
}

TEST(SaeTrainer, AStateOfOtherOptionsIsRefused) {
  const Planted data = plant(48, 20, 3, 256, 7);
  SaeTrainOptions options = small_options();
  SaeTrainer(20, options, 30, data.rows.f32()).save_state(state_file());
  options.k = 5;
  SaeTrainer other(20, options, 30, data.rows.f32());
  EXPECT_THROW(other.load_state(state_file()), Error);
  std::filesystem::remove(state_file());
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

// Mean over the planted directions of the best cosine that a decoder row has with them.
double recovery(const Planted& data, const SaeWeights& weights) {
  const int64_t n = data.directions.shape()[0], d = data.directions.shape()[1];
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float* a = data.directions.f32().row(i);
    float best = 0;
    for (int64_t j = 0; j < weights.w_dec.shape()[0]; ++j) {
      best = std::max(best, std::inner_product(a, a + d, weights.w_dec.f32().row(j), 0.0f));
    }
    mean += best / static_cast<double>(n);
  }
  return mean;
}

struct PlantedCase {
  const char* kind;
  double least;  // mean best cosine
  double lr = 0.01, l1 = 0;
};

std::ostream& operator<<(std::ostream& out, const PlantedCase& c) { return out << c.kind; }

class PlantedDictionary : public testing::TestWithParam<PlantedCase> {};

// 128 directions in 32 dimensions: four times overcomplete.
TEST_P(PlantedDictionary, IsFound) {
  const OneThread one_thread;
  constexpr int64_t kWidth = 32, kSteps = 3000;
  const Planted data = plant(128, kWidth, 3, 16384, 9);
  SaeTrainOptions options = small_options();
  options.kind = GetParam().kind;
  options.l1_coefficient = GetParam().l1;
  options.d_sae = 128;
  options.k = 3;
  options.batch = 128;
  options.lr = GetParam().lr;
  options.dead_after = 5000;
  options.auxiliary_k = 16;
  SaeTrainer trainer(kWidth, options, kSteps, data.rows.f32());
  SaeTrainer::StepStats stats;
  for (int64_t step = 0; step < kSteps; ++step) stats = trainer.step(batch_of(data.rows, step, options.batch));
  const double found = recovery(data, trainer.weights());
  EXPECT_GE(found, GetParam().least) << "L0 " << stats.l0 << " FVU " << stats.fvu << " dead " << stats.dead;
  RecordProperty("mean_max_cosine", std::to_string(found));
}

// Matryoshka's short prefixes want latents that mean several directions at once, so it finds fewer.
INSTANTIATE_TEST_SUITE_P(Kinds, PlantedDictionary,
                         testing::Values(PlantedCase{"topk", 0.98}, PlantedCase{"batchtopk", 0.95},
                                         PlantedCase{"jumprelu", 0.95}, PlantedCase{"relu", 0.95, 0.005, 0.2},
                                         PlantedCase{"gated", 0.95, 0.005, 0.4}, PlantedCase{"matryoshka", 0.85}),
                         [](const auto& each) { return std::string(each.param.kind); });

// Learning rate almost zero: what changes was resampled.
TEST(SaeTrainer, DeadLatentsStartAgainAtBadlyExplainedRows) {
  const OneThread one_thread;
  const Planted data = plant(48, 24, 2, 64, 11);
  for (const char* kind : {"topk", "relu"}) {
    SaeTrainOptions options = small_options();
    options.kind = kind;
    options.k = 1;
    options.lr = 1e-20;
    options.dead_after = 64;
    options.auxiliary_weight = 0;
    options.resample_every = 2;
    SaeTrainer trainer(24, options, 10, data.rows.f32());
    const SaeWeights before = clone(trainer.weights());
    const Tensor y = [&] {
      const auto sae = trainer.snapshot("", "");
      return sae->decode(sae->encode(data.rows.f32()), data.rows.f32());
    }();
    trainer.step(data.rows.f32());
    const SaeTrainer::StepStats stats = trainer.step(data.rows.f32());
    int64_t changed = 0;
    for (int64_t j = 0; j < options.d_sae; ++j) {
      const float* row = trainer.weights().w_dec.f32().row(j);
      if (std::inner_product(row, row + 24, before.w_dec.f32().row(j), 0.0f) > 0.999f) continue;
      ++changed;
      double best = 0;  // cosine with what some row lacks
      for (int64_t r = 0; r < 64; ++r) {
        double dot = 0, norm = 0;
        for (int64_t c = 0; c < 24; ++c) {
          const double missing = data.rows.f32()(r, c) - y.f32()(r, c);
          dot += missing * row[c];
          norm += missing * missing;
        }
        best = std::max(best, dot / std::sqrt(norm));
      }
      EXPECT_NEAR(best, 1.0, 1e-3) << kind << " latent " << j;
      const float* encoder = trainer.weights().w_enc.f32().row(j);
      EXPECT_NEAR(std::inner_product(row, row + 24, encoder, 0.0f), std::string(kind) == "relu" ? 0.2f : 1.0f, 1e-3f);
    }
    EXPECT_EQ(static_cast<double>(changed), std::round(stats.dead * static_cast<double>(options.d_sae))) << kind;
    EXPECT_TRUE(changed > 0 || std::string(kind) == "relu");
  }
}

TEST(SaeTrainer, OptionsThatCannotWorkAreRefused) {
  const Planted data = plant(8, 20, 2, 16, 10);
  const auto refused = [&](auto change) {
    SaeTrainOptions options = small_options();
    change(options);
    EXPECT_THROW(SaeTrainer(20, options, 10, data.rows.f32()), Error);
  };
  refused([](SaeTrainOptions& o) { o.kind = "dense"; });
  refused([](SaeTrainOptions& o) { o.l0_penalty = "cubic"; });
  refused([](SaeTrainOptions& o) { o.bandwidth = 0; });
  refused([](SaeTrainOptions& o) { o.prefixes = {0.5, 0.25}; });
  refused([](SaeTrainOptions& o) { o.l1_coefficient = -1; });
  refused([](SaeTrainOptions& o) { o.skip = true; });
  refused([](SaeTrainOptions& o) { o.k = 97; });
  refused([](SaeTrainOptions& o) { o.k = 0; });
  refused([](SaeTrainOptions& o) { o.dtype = "f16"; });
  refused([](SaeTrainOptions& o) { o.compute = "int8"; });
  refused([](SaeTrainOptions& o) { o.beta2 = 1.0; });
  refused([](SaeTrainOptions& o) { o.context = 1; });
}

}  // namespace
}  // namespace saif
