#include "tensor/ggml_types.h"

#include <bit>
#include <cstring>
#include <string>

#include "base/check.h"
#include "base/parallel.h"
#include "saif/error.h"

// Every product of a block's scale with its integers is exact in float32 (at most 24 significant bits), so one rounding
// remains per element and results do not depend on whether the compiler fuses multiply and add.

#define SAIF_INLINE [[gnu::always_inline]] inline

namespace saif {
namespace {

constexpr GgmlTypeInfo kTypes[] = {
    {GgmlType::kF32, "F32", 1, 4, true},
    {GgmlType::kF16, "F16", 1, 2, true},
    {GgmlType::kQ40, "Q4_0", 32, 18, true},
    {GgmlType::kQ41, "Q4_1", 32, 20, true},
    {GgmlType::kQ50, "Q5_0", 32, 22, true},
    {GgmlType::kQ51, "Q5_1", 32, 24, true},
    {GgmlType::kQ80, "Q8_0", 32, 34, true},
    {GgmlType::kQ81, "Q8_1", 32, 36, false},
    {GgmlType::kQ2K, "Q2_K", 256, 84, true},
    {GgmlType::kQ3K, "Q3_K", 256, 110, true},
    {GgmlType::kQ4K, "Q4_K", 256, 144, true},
    {GgmlType::kQ5K, "Q5_K", 256, 176, true},
    {GgmlType::kQ6K, "Q6_K", 256, 210, true},
    {GgmlType::kQ8K, "Q8_K", 256, 292, false},
    {GgmlType::kIq2Xxs, "IQ2_XXS", 256, 66, false},
    {GgmlType::kIq2Xs, "IQ2_XS", 256, 74, false},
    {GgmlType::kIq3Xxs, "IQ3_XXS", 256, 98, false},
    {GgmlType::kIq1S, "IQ1_S", 256, 50, false},
    {GgmlType::kIq4Nl, "IQ4_NL", 32, 18, true},
    {GgmlType::kIq3S, "IQ3_S", 256, 110, false},
    {GgmlType::kIq2S, "IQ2_S", 256, 82, false},
    {GgmlType::kIq4Xs, "IQ4_XS", 256, 136, true},
    {GgmlType::kI8, "I8", 1, 1, false},
    {GgmlType::kI16, "I16", 1, 2, false},
    {GgmlType::kI32, "I32", 1, 4, false},
    {GgmlType::kI64, "I64", 1, 8, false},
    {GgmlType::kF64, "F64", 1, 8, false},
    {GgmlType::kIq1M, "IQ1_M", 256, 56, false},
    {GgmlType::kBf16, "BF16", 1, 2, true},
    {GgmlType::kTq10, "TQ1_0", 256, 54, false},
    {GgmlType::kTq20, "TQ2_0", 256, 66, false},
    {GgmlType::kMxfp4, "MXFP4", 32, 17, false},
};

template <typename T>
SAIF_INLINE T load(const uint8_t* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// Branch-free, so that loops over it vectorise; right for subnormals even where the CPU flushes float32 ones to zero.
SAIF_INLINE float half(uint16_t h) {
  const uint32_t magnitude = h & 0x7fffu;
  const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1.0p-24f;
  const uint32_t normal = (magnitude << 13) + (magnitude >= 0x7c00u ? 224u << 23 : 112u << 23);
  const uint32_t bits = magnitude < 0x400u ? std::bit_cast<uint32_t>(subnormal) : normal;
  return std::bit_cast<float>(bits | static_cast<uint32_t>(h & 0x8000u) << 16);
}

SAIF_INLINE float half_at(const uint8_t* p) { return half(load<uint16_t>(p)); }

// One struct per stored type: unpack() turns one block into kBlock floats. Nibbles: the low ones of the 16 bytes are
// elements 0..15, the high ones 16..31.

struct F32 {
  static constexpr int kBlock = 1, kBytes = 4;
  SAIF_INLINE static void unpack(const uint8_t* b, float* x) { *x = load<float>(b); }
};

struct F16 {
  static constexpr int kBlock = 1, kBytes = 2;
  SAIF_INLINE static void unpack(const uint8_t* b, float* x) { *x = half_at(b); }
};

struct Bf16 {
  static constexpr int kBlock = 1, kBytes = 2;
  SAIF_INLINE static void unpack(const uint8_t* b, float* x) {
    *x = std::bit_cast<float>(static_cast<uint32_t>(load<uint16_t>(b)) << 16);
  }
};

struct Q80 {  // f16 d; i8 q[32]
  static constexpr int kBlock = 32, kBytes = 34;
  SAIF_INLINE static void unpack(const uint8_t* b, float* x) {
    const float d = half_at(b);
    for (int j = 0; j < 32; ++j) x[j] = d * static_cast<float>(static_cast<int8_t>(b[2 + j]));
  }
};

struct Q40 {  // f16 d; u4 q[32]
  static constexpr int kBlock = 32, kBytes = 18;
  SAIF_INLINE static void unpack(const uint8_t* b, float* x) {
    const float d = half_at(b);
    for (int j = 0; j < 16; ++j) x[j] = d * static_cast<float>((b[2 + j] & 15) - 8);
    for (int j = 0; j < 16; ++j) x[16 + j] = d * static_cast<float>((b[2 + j] >> 4) - 8);
  }
};

struct Q41 {  // f16 d, m; u4 q[32]
  static constexpr int kBlock = 32, kBytes = 20;
  SAIF_INLINE static void unpack(const uint8_t* b, float* x) {
    const float d = half_at(b), m = half_at(b + 2);
    for (int j = 0; j < 16; ++j) x[j] = d * static_cast<float>(b[4 + j] & 15) + m;
    for (int j = 0; j < 16; ++j) x[16 + j] = d * static_cast<float>(b[4 + j] >> 4) + m;
  }
};

struct Q50 {  // f16 d; u32 fifth bits; u4 q[32]
  static constexpr int kBlock = 32, kBytes = 22;
  SAIF_INLINE static void unpack(const uint8_t* b, float* x) {
    const float d = half_at(b);
    const auto high = load<uint32_t>(b + 2);
    for (int j = 0; j < 16; ++j) {
      x[j] = d * static_cast<float>(static_cast<int>((b[6 + j] & 15u) | ((high >> j) & 1u) << 4) - 16);
    }
    for (int j = 0; j < 16; ++j) {
      x[16 + j] = d * static_cast<float>(static_cast<int>((b[6 + j] >> 4) | ((high >> (16 + j)) & 1u) << 4) - 16);
    }
  }
};

struct Q51 {  // f16 d, m; u32 fifth bits; u4 q[32]
  static constexpr int kBlock = 32, kBytes = 24;
  SAIF_INLINE static void unpack(const uint8_t* b, float* x) {
    const float d = half_at(b), m = half_at(b + 2);
    const auto high = load<uint32_t>(b + 4);
    for (int j = 0; j < 16; ++j) {
      x[j] = d * static_cast<float>(static_cast<int>((b[8 + j] & 15u) | ((high >> j) & 1u) << 4)) + m;
    }
    for (int j = 0; j < 16; ++j) {
      x[16 + j] = d * static_cast<float>(static_cast<int>((b[8 + j] >> 4) | ((high >> (16 + j)) & 1u) << 4)) + m;
    }
  }
};

// Q4_K and Q5_K: eight sub-blocks of 32, each with a 6-bit scale and a 6-bit minimum packed into 12 bytes: sub-blocks
// 0..3 take the low six bits of bytes 0..3 and 4..7; 4..7 take nibbles of bytes 8..11 and the top bits of the others.
struct ScaleAndMin {
  int scale, min;
};

SAIF_INLINE ScaleAndMin packed_scale(const uint8_t* s, int i) {
  if (i < 4) return {s[i] & 63, s[i + 4] & 63};
  return {(s[i + 4] & 15) | (s[i - 4] >> 6) << 4, (s[i + 4] >> 4) | (s[i] >> 6) << 4};
}

struct Q4K {  // f16 d, dmin; u8 scales[12]; u4 q[256]: 32 bytes hold sub-blocks 2p (low nibbles) and 2p + 1 (high)
  static constexpr int kBlock = 256, kBytes = 144;
  SAIF_INLINE static void unpack(const uint8_t* b, float* x) {
    const float d = half_at(b), dmin = half_at(b + 2);
    for (int i = 0; i < 8; ++i) {
      const ScaleAndMin s = packed_scale(b + 4, i);
      const float scale = d * static_cast<float>(s.scale), min = dmin * static_cast<float>(s.min);
      const uint8_t* q = b + 16 + 32 * (i / 2);
      const int shift = 4 * (i % 2);
      for (int j = 0; j < 32; ++j) x[32 * i + j] = scale * static_cast<float>((q[j] >> shift) & 15) - min;
    }
  }
};

struct Q5K {  // f16 d, dmin; u8 scales[12]; u8 fifth bits[32] (bit i: sub-block i); u4 q[256] as in Q4_K
  static constexpr int kBlock = 256, kBytes = 176;
  SAIF_INLINE static void unpack(const uint8_t* b, float* x) {
    const float d = half_at(b), dmin = half_at(b + 2);
    const uint8_t* high = b + 16;
    for (int i = 0; i < 8; ++i) {
      const ScaleAndMin s = packed_scale(b + 4, i);
      const float scale = d * static_cast<float>(s.scale), min = dmin * static_cast<float>(s.min);
      const uint8_t* q = b + 48 + 32 * (i / 2);
      const int shift = 4 * (i % 2);
      for (int j = 0; j < 32; ++j) {
        const int v = ((q[j] >> shift) & 15) | ((high[j] >> i) & 1) << 4;
        x[32 * i + j] = scale * static_cast<float>(v) - min;
      }
    }
  }
};

struct Q6K {  // u4 low[256]; u2 high[256]; i8 scales[16]; f16 d. Each half of 128: 64 bytes low, 32 bytes high
  static constexpr int kBlock = 256, kBytes = 210;
  SAIF_INLINE static void unpack(const uint8_t* b, float* x) {
    const float d = half_at(b + 208);
    for (int i = 0; i < 8; ++i) {  // runs of 32 elements, with one scale per 16
      const int part = i % 4;
      const uint8_t* low = b + 64 * (i / 4) + 32 * (part % 2);
      const uint8_t* high = b + 128 + 32 * (i / 4);
      const uint8_t* scales = b + 192 + 2 * i;
      const float first = d * static_cast<float>(static_cast<int8_t>(scales[0]));
      const float second = d * static_cast<float>(static_cast<int8_t>(scales[1]));
      const int low_shift = 4 * (part / 2), high_shift = 2 * part;
      for (int j = 0; j < 32; ++j) {
        const int q = (((low[j] >> low_shift) & 15) | ((high[j] >> high_shift) & 3) << 4) - 32;
        x[32 * i + j] = (j < 16 ? first : second) * static_cast<float>(q);
      }
    }
  }
};

struct Q2K {  // u4 scales, mins[16]; u2 q[256]; f16 d, dmin. Each half of 128: 32 bytes hold four runs of 32 elements
  static constexpr int kBlock = 256, kBytes = 84;
  SAIF_INLINE static void unpack(const uint8_t* b, float* x) {
    const float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int i = 0; i < 8; ++i) {  // runs of 32 elements, with one scale and minimum per 16
      const uint8_t *q = b + 16 + 32 * (i / 4), *scales = b + 2 * i;
      const float first = d * static_cast<float>(scales[0] & 15), first_min = dmin * static_cast<float>(scales[0] >> 4);
      const float second = d * static_cast<float>(scales[1] & 15),
                  second_min = dmin * static_cast<float>(scales[1] >> 4);
      const int shift = 2 * (i % 4);
      for (int j = 0; j < 32; ++j) {
        const auto v = static_cast<float>((q[j] >> shift) & 3);
        x[32 * i + j] = (j < 16 ? first : second) * v - (j < 16 ? first_min : second_min);
      }
    }
  }
};

struct Q3K {  // u1 high[256]; u2 low[256] as in Q2_K; 6-bit scales[16] in 12 bytes; f16 d
  static constexpr int kBlock = 256, kBytes = 110;
  // Low four bits: nibbles of bytes 0..7; high two bits: the quarters of bytes 8..11.
  SAIF_INLINE static int scale(const uint8_t* s, int i) {
    return (((s[i % 8] >> (i / 8 * 4)) & 15) | ((s[8 + i % 4] >> (i / 4 * 2)) & 3) << 4) - 32;
  }
  SAIF_INLINE static void unpack(const uint8_t* b, float* x) {
    const float d = half_at(b + 108);
    for (int i = 0; i < 8; ++i) {  // runs of 32 elements, with one scale per 16; bit i of high[j] belongs to run i
      const uint8_t* q = b + 32 + 32 * (i / 4);
      const float first = d * static_cast<float>(scale(b + 96, 2 * i));
      const float second = d * static_cast<float>(scale(b + 96, 2 * i + 1));
      const int shift = 2 * (i % 4);
      for (int j = 0; j < 32; ++j) {
        const int v = (((q[j] >> shift) & 3) | ((b[j] >> i) & 1) << 2) - 4;
        x[32 * i + j] = (j < 16 ? first : second) * static_cast<float>(v);
      }
    }
  }
};

// IQ4_NL and IQ4_XS: a nibble names one of these steps.
constexpr float kNonLinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

struct Iq4Nl {  // f16 d; u4 q[32]
  static constexpr int kBlock = 32, kBytes = 18;
  SAIF_INLINE static void unpack(const uint8_t* b, float* x) {
    const float d = half_at(b);
    for (int j = 0; j < 16; ++j) x[j] = d * kNonLinear[b[2 + j] & 15];
    for (int j = 0; j < 16; ++j) x[16 + j] = d * kNonLinear[b[2 + j] >> 4];
  }
};

struct Iq4Xs {  // f16 d; u2 high scales[8]; u4 low scales[8]; u4 q[256]: 16 bytes per run of 32
  static constexpr int kBlock = 256, kBytes = 136;
  SAIF_INLINE static void unpack(const uint8_t* b, float* x) {
    const float d = half_at(b);
    const int high = load<uint16_t>(b + 2);
    for (int i = 0; i < 8; ++i) {
      const int low = (b[4 + i / 2] >> (i % 2 * 4)) & 15;
      const float scale = d * static_cast<float>((low | ((high >> (2 * i)) & 3) << 4) - 32);
      const uint8_t* q = b + 8 + 16 * i;
      for (int j = 0; j < 16; ++j) x[32 * i + j] = scale * kNonLinear[q[j] & 15];
      for (int j = 0; j < 16; ++j) x[32 * i + 16 + j] = scale * kNonLinear[q[j] >> 4];
    }
  }
};

template <typename Stored, typename Out>
SAIF_INLINE void unpack_blocks(const uint8_t* from, int64_t n, Out* out) {
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<Out, float>) {
      Stored::unpack(from + i * Stored::kBytes, out + i * Stored::kBlock);
    } else {
      float x[Stored::kBlock];
      Stored::unpack(from + i * Stored::kBytes, x);
      for (int j = 0; j < Stored::kBlock; ++j) out[i * Stored::kBlock + j] = f32_to_bf16(x[j]);
    }
  }
}

// The same source compiled for three instruction sets; chosen at run time (not through ifunc, which sanitizers
// dislike).
template <typename Stored, typename Out>
void unpack_plain(const uint8_t* from, int64_t n, Out* out) {
  unpack_blocks<Stored>(from, n, out);
}

#if defined(__x86_64__)
template <typename Stored, typename Out>
__attribute__((target("avx2"))) void unpack_avx2(const uint8_t* from, int64_t n, Out* out) {
  unpack_blocks<Stored>(from, n, out);
}

template <typename Stored, typename Out>
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))) void unpack_avx512(const uint8_t* from, int64_t n,
                                                                                 Out* out) {
  unpack_blocks<Stored>(from, n, out);
}
#endif

template <typename Stored, typename Out>
auto choose() -> void (*)(const uint8_t*, int64_t, Out*) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    return unpack_avx512<Stored, Out>;
  }
  if (__builtin_cpu_supports("avx2")) return unpack_avx2<Stored, Out>;
#endif
  return unpack_plain<Stored, Out>;
}

template <typename Out>
using Unpack = void (*)(const uint8_t* from, int64_t n_blocks, Out* out);

template <typename Out>
Unpack<Out> unpack_of(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
      return choose<F32, Out>();
    case GgmlType::kF16:
      return choose<F16, Out>();
    case GgmlType::kBf16:
      return choose<Bf16, Out>();
    case GgmlType::kQ40:
      return choose<Q40, Out>();
    case GgmlType::kQ41:
      return choose<Q41, Out>();
    case GgmlType::kQ50:
      return choose<Q50, Out>();
    case GgmlType::kQ51:
      return choose<Q51, Out>();
    case GgmlType::kQ80:
      return choose<Q80, Out>();
    case GgmlType::kQ2K:
      return choose<Q2K, Out>();
    case GgmlType::kQ3K:
      return choose<Q3K, Out>();
    case GgmlType::kQ4K:
      return choose<Q4K, Out>();
    case GgmlType::kQ5K:
      return choose<Q5K, Out>();
    case GgmlType::kQ6K:
      return choose<Q6K, Out>();
    case GgmlType::kIq4Nl:
      return choose<Iq4Nl, Out>();
    case GgmlType::kIq4Xs:
      return choose<Iq4Xs, Out>();
    default:
      throw Error(Errc::kUnsupported, std::string("cannot dequantise type ") + info_of(type).name +
                                          "; expected F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, "
                                          "IQ4_NL or IQ4_XS: convert the file to one of them");
  }
}

const GgmlTypeInfo& check_blocks(GgmlType type, int64_t elements) {
  const GgmlTypeInfo& info = info_of(type);
  SAIF_CHECK(elements >= 0 && elements % info.block == 0, std::string(info.name) + " is stored in whole blocks");
  return info;
}

template <typename Out>
void unpack_serial(GgmlType type, const void* blocks, int64_t elements, Out* out) {
  const GgmlTypeInfo& info = check_blocks(type, elements);
  unpack_of<Out>(type)(static_cast<const uint8_t*>(blocks), elements / info.block, out);
}

template <typename Out>
void unpack_parallel(GgmlType type, const void* blocks, int64_t elements, Out* out) {
  const GgmlTypeInfo& info = check_blocks(type, elements);
  const auto unpack = unpack_of<Out>(type);
  const auto* from = static_cast<const uint8_t*>(blocks);
  parallel_for(elements / info.block, (1 << 17) / info.block, [&](int64_t begin, int64_t end) {
    unpack(from + begin * static_cast<int64_t>(info.block_bytes), end - begin, out + begin * info.block);
  });
}

}  // namespace

const GgmlTypeInfo* find_ggml_type(uint32_t id) {
  for (const GgmlTypeInfo& t : kTypes) {
    if (static_cast<uint32_t>(t.type) == id) return &t;
  }
  return nullptr;
}

const GgmlTypeInfo& info_of(GgmlType type) {
  const GgmlTypeInfo* info = find_ggml_type(static_cast<uint32_t>(type));
  SAIF_CHECK(info != nullptr, "unknown ggml type " + std::to_string(static_cast<uint32_t>(type)));
  return *info;
}

void dequantize(GgmlType type, const void* blocks, int64_t elements, float* out) {
  unpack_parallel(type, blocks, elements, out);
}

void dequantize_bf16(GgmlType type, const void* blocks, int64_t elements, uint16_t* out) {
  unpack_parallel(type, blocks, elements, out);
}

void dequantize_tile(GgmlType type, const void* blocks, int64_t elements, DType dtype, void* out) {
  SAIF_CHECK(dtype == DType::kF32 || dtype == DType::kBf16, "a tile of blocks is widened to F32 or BF16");
  if (dtype == DType::kF32) return unpack_serial(type, blocks, elements, static_cast<float*>(out));
  unpack_serial(type, blocks, elements, static_cast<uint16_t*>(out));
}

}  // namespace saif
