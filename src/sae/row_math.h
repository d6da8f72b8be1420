// Loops over float32 rows, compiled for several instruction sets and chosen when the program starts.
#pragma once

#include <cstdint>
#include <span>

#include "saif/tensor.h"

namespace saif {

struct AdamStep {
  float rate = 0;  // learning rate of this step
  float beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f;
  float correction1 = 1, correction2 = 1;  // 1 - beta^t
};

void add_scaled(float* y, const float* x, float a, int64_t n);           // y += a x
float dot(const float* x, const float* y, int64_t n);                    // in a fixed order
void subtract_scale(float* y, const float* x, float factor, int64_t n);  // y = (y - x) factor
void scale_row(float* y, float factor, int64_t n);
// Kingma & Ba 2015, algorithm 1. w: parameters, g: gradients, m and v: their moments.
void adam(float* w, const float* g, float* m, float* v, const AdamStep& step, int64_t n);
void round_bf16(const float* x, uint16_t* y, int64_t n);  // to nearest even; the values are finite
// y += sum_i a[i] rows[index[i]], in the order given.
void gather(float* y, Mat<const float> rows, std::span<const int32_t> index, const float* a);
int64_t first_not_finite(const float* x, int64_t n);  // place of the first NaN or infinity; -1: there is none
// Writes index and value of the h[c] > cut[c] in ascending order; returns how many. Outputs have room for n.
int64_t collect_above(const float* h, const float* cut, int64_t n, int32_t* index, float* value);

}  // namespace saif
