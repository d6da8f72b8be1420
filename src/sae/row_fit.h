// How well each row of activations is reconstructed: what an SAE's fidelity and its breakdown are sums of.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "saif/sae.h"

namespace saif {

struct RowFit {
  int64_t active = 0;              // latents
  double error = 0, distance = 0;  // |target - x^|^2, |target - mean|^2
};

struct RowFits {
  std::vector<RowFit> rows;
  std::vector<int64_t> fired;  // [d_sae] rows on which the latent is active
};

std::vector<double> column_means(Mat<const float> x);  // [cols]
// x [n, d_in], target [n, d_out], mean [d_out].
RowFits fit_rows(const Sae& sae, Mat<const float> x, Mat<const float> target, std::span<const double> mean);
SaeFidelity summary_of(const Sae& sae, const RowFits& fits);
double fraction_unexplained(double error, double variance);  // 0 / 0 is 0; of NaN: NaN or infinity

}  // namespace saif
