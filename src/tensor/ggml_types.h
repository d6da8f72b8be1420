// The element types of GGUF files and their dequantisation.
#pragma once

#include <cstddef>
#include <cstdint>

#include "saif/tensor.h"

namespace saif {

// Values as in GGUF files. The quantised types store blocks of 32 or 256 consecutive elements of a row.
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ40 = 2,
  kQ41 = 3,
  kQ50 = 6,
  kQ51 = 7,
  kQ80 = 8,
  kQ81 = 9,
  kQ2K = 10,
  kQ3K = 11,
  kQ4K = 12,
  kQ5K = 13,
  kQ6K = 14,
  kQ8K = 15,
  kIq2Xxs = 16,
  kIq2Xs = 17,
  kIq3Xxs = 18,
  kIq1S = 19,
  kIq4Nl = 20,
  kIq3S = 21,
  kIq2S = 22,
  kIq4Xs = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kIq1M = 29,
  kBf16 = 30,
  kTq10 = 34,
  kTq20 = 35,
  kMxfp4 = 39,
};

struct GgmlTypeInfo {
  GgmlType type;
  const char* name;    // ggml's spelling: "Q4_1"
  int64_t block;       // elements per block
  size_t block_bytes;  // bytes per block
  bool can_dequantize;
};

// nullptr for a number that names no type.
const GgmlTypeInfo* find_ggml_type(uint32_t id);
const GgmlTypeInfo& info_of(GgmlType type);
inline const char* name_of(GgmlType type) { return info_of(type).name; }

// `elements` consecutive elements (a multiple of the type's block) starting at `blocks`, in parallel. The bfloat16 form
// rounds the float32 value to nearest even. Throws kUnsupported for a type that cannot be dequantised.
void dequantize(GgmlType type, const void* blocks, int64_t elements, float* out);
void dequantize_bf16(GgmlType type, const void* blocks, int64_t elements, uint16_t* out);

// The same on the calling thread, for a tile that is used at once: out holds float (kF32) or uint16_t (kBf16).
void dequantize_tile(GgmlType type, const void* blocks, int64_t elements, DType dtype, void* out);

}  // namespace saif
