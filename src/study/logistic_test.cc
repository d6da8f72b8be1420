#include "study/logistic.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"
#include "saif/error.h"

namespace saif {
namespace {

// Labels drawn from a known w and b: the fit finds them again.
TEST(Logistic, FindsPlantedWeights) {
  constexpr int64_t kRows = 20000, kColumns = 4;
  const double truth[kColumns] = {1.5, -2.0, 0.0, 0.5}, bias = -0.7;
  Rng rng(4);
  Tensor x(DType::kF32, {kRows, kColumns});
  std::vector<uint8_t> y(kRows);
  for (int64_t i = 0; i < kRows; ++i) {
    double score = bias;
    for (int64_t c = 0; c < kColumns; ++c) {
      x.f32()(i, c) = static_cast<float>(3.0 + 0.7 * rng.normal());  // neither centred nor of unit variance
      score += truth[c] * (x.f32()(i, c) - 3.0);
    }
    y[static_cast<size_t>(i)] = rng.uniform() < 1.0 / (1.0 + std::exp(-score));
  }
  const LogisticModel m = fit_logistic(x.f32(), y, {.l2 = 0, .balance = false});
  EXPECT_TRUE(m.converged);
  double shift = m.bias;
  for (int64_t c = 0; c < kColumns; ++c) {
    EXPECT_NEAR(m.weights[static_cast<size_t>(c)], truth[c], 0.12) << c;
    shift += 3.0 * m.weights[static_cast<size_t>(c)];
  }
  EXPECT_NEAR(shift, bias, 0.08);
}

// One standardised column, four rows: d/dw of the penalised loss is 0 at the result.
TEST(Logistic, TheGradientIsZeroAtTheResult) {
  Tensor x(DType::kF32, {4, 1});
  const float values[] = {-1, 1, -1, 1};
  std::copy_n(values, 4, x.as<float>());
  const std::vector<uint8_t> y = {0, 1, 1, 1};
  const double l2 = 0.1;
  const LogisticModel m = fit_logistic(x.f32(), y, {.l2 = l2, .tolerance = 1e-9, .balance = false});
  const double w = m.weights[0], b = m.bias;
  double dw = l2 * w, db = 0;
  for (size_t i = 0; i < 4; ++i) {
    const double p = 1.0 / (1.0 + std::exp(-(w * values[i] + b)));
    dw += (p - y[i]) * values[i] / 4;
    db += (p - y[i]) / 4;
  }
  EXPECT_NEAR(dw, 0, 1e-8);
  EXPECT_NEAR(db, 0, 1e-8);
  EXPECT_GT(w, 0);
}

TEST(Logistic, BalancedClassesPutTheBorderInTheMiddle) {
  Tensor x(DType::kF32, {101, 1});
  std::vector<uint8_t> y(101, 0);
  Rng rng(1);
  for (int64_t i = 0; i < 101; ++i) x.f32()(i, 0) = static_cast<float>(0.1 * rng.normal());
  x.f32()(100, 0) = 1.0f;  // the only positive one
  y[100] = 1;
  const LogisticModel m = fit_logistic(x.f32(), y);
  EXPECT_NEAR(-m.bias / m.weights[0], 0.5, 0.2);
}

TEST(Logistic, SeparableAndConstantColumnsStayFinite) {
  Tensor x(DType::kF32, {6, 3});
  std::vector<uint8_t> y(6);
  for (int64_t i = 0; i < 6; ++i) {
    x.f32()(i, 0) = i < 3 ? 0.0f : 1.0f;
    x.f32()(i, 1) = 7.0f;
    x.f32()(i, 2) = static_cast<float>(i % 2);
    y[static_cast<size_t>(i)] = i >= 3;
  }
  const LogisticModel m = fit_logistic(x.f32(), y);
  EXPECT_TRUE(m.converged);
  EXPECT_EQ(m.weights[1], 0);
  for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(m.score(x.f32().row_span(i)) > 0, i >= 3);
}

TEST(Logistic, OneClassIsRefused) {
  Tensor x = Tensor::zeros(DType::kF32, {3, 1});
  EXPECT_THROW(fit_logistic(x.f32(), std::vector<uint8_t>{1, 1, 1}), Error);
  EXPECT_THROW(fit_logistic(x.f32(), std::vector<uint8_t>{0, 1}), Error);
}

}  // namespace
}  // namespace saif
