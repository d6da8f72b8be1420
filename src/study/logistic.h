// Logistic regression with an L2 penalty, for probes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "saif/tensor.h"

namespace saif {

struct LogisticOptions {
  double l2 = 1e-3;  // of the weights of standardised columns, beside the mean loss; the bias is free
  int max_iterations = 200;
  double tolerance = 1e-5;  // of the gradient's largest entry
  bool balance = true;      // both classes weigh the same
};

// P(y = 1 | x) = 1 / (1 + exp(-(w.x + b))). The columns are standardised for the fit; the weights are for x itself.
struct LogisticModel {
  std::vector<double> weights;  // [columns]
  double bias = 0;
  int iterations = 0;
  bool converged = false;
  double score(std::span<const float> x) const;  // w.x + b
};

// Minimises mean_i c_i log(1 + exp(-s_i (w.z_i + b))) + l2/2 |w|^2 over standardised rows z by L-BFGS (Liu and Nocedal
// 1989). x [n, columns]; positive [n], both classes there, else kInvalidArgument. Deterministic on any thread count.
LogisticModel fit_logistic(Mat<const float> x, std::span<const uint8_t> positive, const LogisticOptions& options = {});

}  // namespace saif
