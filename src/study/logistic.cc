#include "study/logistic.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <numeric>

#include "base/parallel.h"
#include "saif/error.h"

namespace saif {
namespace {

using Vector = std::vector<double>;

constexpr size_t kMemory = 10;    // pairs of steps and changes of the gradient that L-BFGS keeps
constexpr int64_t kWork = 65536;  // products of a task at least

int64_t grain(int64_t other) { return std::max<int64_t>(1, kWork / std::max<int64_t>(1, other)); }

double dot(const Vector& a, const Vector& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }

// The loss over standardised columns; parameters are the columns' weights and the bias behind them.
class Loss {
 public:
  Loss(Mat<const float> x, std::span<const uint8_t> positive, const LogisticOptions& options)
      : n_(x.rows()), columns_(x.cols()), l2_(options.l2), sign_(positive.size()), weight_(positive.size()) {
    const auto ones = std::count(positive.begin(), positive.end(), uint8_t{1});
    for (size_t i = 0; i < positive.size(); ++i) {
      sign_[i] = positive[i] ? 1.0 : -1.0;
      const auto class_size = static_cast<double>(positive[i] ? ones : n_ - ones);
      weight_[i] = options.balance ? 0.5 / class_size : 1.0 / static_cast<double>(n_);
    }
    standardise(x);
  }

  // gradient [columns + 1]
  double operator()(const Vector& w, Vector& gradient) const {
    Vector slope(static_cast<size_t>(n_)), loss(static_cast<size_t>(n_));
    parallel_for(n_, grain(columns_), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float* z = z_.row(i);
        double score = w.back();
        for (int64_t c = 0; c < columns_; ++c) score += w[static_cast<size_t>(c)] * z[c];
        const auto r = static_cast<size_t>(i);
        const double margin = sign_[r] * score;
        loss[r] = weight_[r] * (margin > 0 ? std::log1p(std::exp(-margin)) : -margin + std::log1p(std::exp(margin)));
        slope[r] = -weight_[r] * sign_[r] / (1.0 + std::exp(margin));
      }
    });
    parallel_for(columns_, grain(n_), [&](int64_t begin, int64_t end) {
      std::fill(gradient.begin() + begin, gradient.begin() + end, 0.0);
      for (int64_t i = 0; i < n_; ++i) {
        const float* z = z_.row(i);
        const double s = slope[static_cast<size_t>(i)];
        for (int64_t c = begin; c < end; ++c) gradient[static_cast<size_t>(c)] += s * z[c];
      }
    });
    double value = std::accumulate(loss.begin(), loss.end(), 0.0);
    for (size_t c = 0; c + 1 < w.size(); ++c) {
      gradient[c] += l2_ * w[c];
      value += 0.5 * l2_ * w[c] * w[c];
    }
    gradient.back() = std::accumulate(slope.begin(), slope.end(), 0.0);
    return value;
  }

  LogisticModel model_of(const Vector& w) const {
    LogisticModel out;
    out.bias = w.back();
    for (size_t c = 0; c + 1 < w.size(); ++c) {
      out.weights.push_back(w[c] / scale_[c]);
      out.bias -= w[c] * mean_[c] / scale_[c];
    }
    return out;
  }

 private:
  void standardise(Mat<const float> x) {
    mean_.assign(static_cast<size_t>(columns_), 0.0);
    scale_.assign(static_cast<size_t>(columns_), 0.0);
    const auto n = static_cast<double>(n_);
    for (int64_t i = 0; i < n_; ++i) {
      for (int64_t c = 0; c < columns_; ++c) mean_[static_cast<size_t>(c)] += x(i, c) / n;
    }
    for (int64_t i = 0; i < n_; ++i) {
      for (int64_t c = 0; c < columns_; ++c) {
        const double d = x(i, c) - mean_[static_cast<size_t>(c)];
        scale_[static_cast<size_t>(c)] += d * d / n;
      }
    }
    for (size_t c = 0; c < scale_.size(); ++c) {  // a constant column says nothing and gets no weight
      constant_.push_back(scale_[c] <= 1e-12 * mean_[c] * mean_[c]);
      scale_[c] = constant_[c] ? 1.0 : std::sqrt(scale_[c]);
    }
    values_ = Tensor(DType::kF32, {n_, columns_});
    z_ = values_.f32();
    for (int64_t i = 0; i < n_; ++i) {
      for (int64_t c = 0; c < columns_; ++c) {
        const auto k = static_cast<size_t>(c);
        values_.f32()(i, c) = constant_[k] ? 0.0f : static_cast<float>((x(i, c) - mean_[k]) / scale_[k]);
      }
    }
  }

  int64_t n_, columns_;
  double l2_;
  Vector sign_, weight_, mean_, scale_;
  std::vector<bool> constant_;
  Tensor values_;
  Mat<const float> z_;
};

// Pairs of the last steps, and the direction that they make of a gradient (two-loop recursion).
class Curvature {
 public:
  void add(Vector step, Vector change) {
    const double curvature = dot(step, change);
    if (curvature <= 1e-12 * dot(change, change)) return;
    pairs_.push_back({std::move(step), std::move(change), 1.0 / curvature});
    if (pairs_.size() > kMemory) pairs_.pop_front();
  }
  Vector direction(const Vector& gradient) const {
    Vector d = gradient;
    std::vector<double> alpha(pairs_.size());
    for (size_t i = pairs_.size(); i-- > 0;) {
      alpha[i] = pairs_[i].rho * dot(pairs_[i].step, d);
      for (size_t c = 0; c < d.size(); ++c) d[c] -= alpha[i] * pairs_[i].change[c];
    }
    if (!pairs_.empty()) {
      const Pair& last = pairs_.back();
      for (double& v : d) v /= last.rho * dot(last.change, last.change);
    }
    for (size_t i = 0; i < pairs_.size(); ++i) {
      const double beta = pairs_[i].rho * dot(pairs_[i].change, d);
      for (size_t c = 0; c < d.size(); ++c) d[c] += (alpha[i] - beta) * pairs_[i].step[c];
    }
    for (double& v : d) v = -v;
    return d;
  }

 private:
  struct Pair {
    Vector step, change;
    double rho;
  };
  std::deque<Pair> pairs_;
};

double largest(const Vector& v) {
  double out = 0;
  for (const double x : v) out = std::max(out, std::abs(x));
  return out;
}

}  // namespace

double LogisticModel::score(std::span<const float> x) const {
  double out = bias;
  for (size_t c = 0; c < weights.size(); ++c) out += weights[c] * x[c];
  return out;
}

LogisticModel fit_logistic(Mat<const float> x, std::span<const uint8_t> positive, const LogisticOptions& options) {
  const auto ones = std::count(positive.begin(), positive.end(), uint8_t{1});
  if (static_cast<int64_t>(positive.size()) != x.rows() || ones == 0 || ones == x.rows()) {
    throw Error(Errc::kInvalidArgument, "logistic regression: " + std::to_string(x.rows()) + " rows with " +
                                            std::to_string(ones) + " positive of " + std::to_string(positive.size()) +
                                            " labels; expected one label a row, and both classes");
  }
  const Loss loss(x, positive, options);
  Vector w(static_cast<size_t>(x.cols()) + 1, 0.0), gradient(w.size()), next_gradient(w.size());
  double value = loss(w, gradient);
  Curvature curvature;
  int iteration = 0;
  for (; iteration < options.max_iterations && largest(gradient) > options.tolerance; ++iteration) {
    const Vector d = curvature.direction(gradient);
    const double descent = dot(d, gradient);
    double step = iteration == 0 ? std::min(1.0, 1.0 / std::sqrt(dot(gradient, gradient))) : 1.0;
    Vector next(w.size());
    double next_value = 0;
    for (int halvings = 0; halvings < 40; ++halvings, step *= 0.5) {  // Armijo; a convex loss needs no more
      for (size_t c = 0; c < w.size(); ++c) next[c] = w[c] + step * d[c];
      next_value = loss(next, next_gradient);
      if (next_value <= value + 1e-4 * step * descent) break;
    }
    if (!(next_value < value)) break;  // at the precision of the sum
    Vector moved(w.size()), change(w.size());
    for (size_t c = 0; c < w.size(); ++c) {
      moved[c] = next[c] - w[c];
      change[c] = next_gradient[c] - gradient[c];
    }
    curvature.add(std::move(moved), std::move(change));
    w.swap(next);
    gradient.swap(next_gradient);
    value = next_value;
  }
  LogisticModel out = loss.model_of(w);
  out.iterations = iteration;
  out.converged = largest(gradient) <= options.tolerance;
  return out;
}

}  // namespace saif
