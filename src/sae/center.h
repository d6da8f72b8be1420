// Centres and spreads of rows, summed in a fixed order whatever the threads.
#pragma once

#include <vector>

#include "saif/tensor.h"

namespace saif {

std::vector<double> column_sums(Mat<const float> x);
// sum over rows of |x - center|^2
double spread(Mat<const float> x, const std::vector<double>& center);
// Weiszfeld's iteration from the mean: a centre that a few enormous rows cannot move.
std::vector<double> geometric_median(Mat<const float> x);

}  // namespace saif
