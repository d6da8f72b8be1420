// Products of GGUF's blocks with activations of 8 bits: y = x w^T by integer dot products of the stored codes.
//
// A row of x is cut into blocks of 32 inputs. A block becomes codes q = round(x / s) of [-127, 127] with s = max |x| /
// 127, as in llama.cpp's Q8_0 (there s is a float16, here a float32). A weight is d c - m with the type's own scale d
// of 16 or 32 inputs, so that a sum over those is d s (q . c) - m s (sum of q): exact integers, then float32. Sums run
// in one order along `in`, whatever the number of rows, so results are batch-invariant.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/linear.h"

namespace saif::cpu {

constexpr int64_t kInt8Block = 32;   // inputs that share a scale of x
constexpr int64_t kInt8Group = 64;   // codes of a vector
constexpr int64_t kInt8Chunk = 256;  // inputs decoded at a time

// Rows of x in 8 bits; n is `in` padded with zeros to a multiple of kInt8Chunk. All 64-byte aligned.
struct Int8Rows {
  int64_t rows = 0, n = 0;
  int8_t* codes = nullptr;     // [rows][n]
  int32_t* offsets = nullptr;  // [rows][n / 4]: -128 times the sum of four codes
  float* scales = nullptr;     // [rows][n / 64][16]: each block's scale 8 times
  float* sums = nullptr;       // [rows][n / 16]: scale times the sum of 16 codes

  Int8Rows from(int64_t row, int64_t count) const {
    return {count, n, codes + row * n, offsets + row * n / 4, scales + row * n / 4, sums + row * n / 16};
  }
};

struct Int8Kernel {
  void (*round)(const float* x, int64_t in, const Int8Rows& one);  // one row
  // Bytes of scratch that `multiply` needs per output.
  int64_t (*scratch_bytes)(int64_t n);
  void (*multiply)(const Int8Rows& x, const WeightTile& w, const LinearOutput& out, void* scratch);
};
// nullptr where the CPU has no 8-bit dot products (AVX512-VNNI). `in` of a matrix must be a multiple of kInt8Group.
const Int8Kernel* int8_kernel(Isa isa);

class Int8Linear {
 public:
  explicit Int8Linear(Isa isa) : kernel_(int8_kernel(isa)) {}
  bool takes(const WeightView& w) const { return kernel_ != nullptr && w.blocks && w.in % kInt8Group == 0; }
  bool available() const { return kernel_ != nullptr; }
  // Parts that takes() says yes to.
  void run(const RowSource& x, std::span<const LinearPart> parts);

 private:
  Int8Rows room_for(int64_t rows, int64_t in);

  const Int8Kernel* kernel_;
  Scratch codes_, offsets_, scales_, sums_;
  std::vector<TaskScratch> scratch_;  // one per thread
};

}  // namespace saif::cpu
