#include "tensor/ggml_types.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <random>
#include <vector>

#include "base/file.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"

namespace saif {
namespace {

const std::string kGoldens = std::string(SAIF_SHARED_DIR) + "/data/goldens/gguf";

std::vector<GgmlType> all_dequantizable() {
  std::vector<GgmlType> out;
  for (uint32_t id = 0; id < 64; ++id) {
    const GgmlTypeInfo* info = find_ggml_type(id);
    if (info && info->can_dequantize) out.push_back(info->type);
  }
  return out;
}

// Random bytes as blocks: every bit pattern of the packed fields occurs, and scales may be infinite or NaN.
std::vector<uint8_t> random_bytes(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> out(n);
  for (uint8_t& b : out) b = static_cast<uint8_t>(random());
  return out;
}

TEST(GgmlTypes, table_names_every_type) {
  EXPECT_STREQ(name_of(GgmlType::kQ41), "Q4_1");
  EXPECT_STREQ(name_of(GgmlType::kIq4Xs), "IQ4_XS");
  EXPECT_EQ(info_of(GgmlType::kQ41).block_bytes, 20u);
  EXPECT_EQ(info_of(GgmlType::kQ6K).block, 256);
  EXPECT_EQ(find_ggml_type(4), nullptr);  // Q4_2, gone
  EXPECT_EQ(find_ggml_type(1000), nullptr);
}

TEST(Dequantize, matches_values_worked_out_by_hand) {
  // Q4_1 with d = 0.5, m = -1: element 0 = low nibble of the first byte, element 16 = its high nibble.
  std::vector<uint8_t> block(20, 0);
  const uint16_t d = f32_to_f16(0.5f), m = f32_to_f16(-1.0f);
  std::memcpy(block.data(), &d, 2);
  std::memcpy(block.data() + 2, &m, 2);
  block[4] = 0xf3;
  std::vector<float> x(32);
  dequantize(GgmlType::kQ41, block.data(), 32, x.data());
  EXPECT_EQ(x[0], 0.5f);
  EXPECT_EQ(x[16], 6.5f);
  EXPECT_EQ(x[1], -1.0f);
}

// No golden file holds Q5_K. Without fifth bits its values are those of Q4_K, which the goldens cover; bit i of byte j
// adds 16 steps to element 32 i + j and to no other.
TEST(Dequantize, q5_k_extends_q4_k_by_a_bit) {
  auto four = random_bytes(144, 3);
  const uint16_t d = f32_to_f16(0.25f), dmin = f32_to_f16(0.125f);
  std::memcpy(four.data(), &d, 2);
  std::memcpy(four.data() + 2, &dmin, 2);
  for (size_t i = 4; i < 16; ++i) four[i] |= 0x11;  // no scale is zero
  std::vector<uint8_t> five(176, 0);
  std::copy_n(four.begin(), 16, five.begin());
  std::copy_n(four.begin() + 16, 128, five.begin() + 48);
  std::vector<float> x(256), y(256), z(256), all(256);
  dequantize(GgmlType::kQ4K, four.data(), 256, x.data());
  dequantize(GgmlType::kQ5K, five.data(), 256, y.data());
  EXPECT_EQ(x, y);
  std::fill_n(five.begin() + 16, 32, uint8_t{255});
  dequantize(GgmlType::kQ5K, five.data(), 256, all.data());
  for (const size_t i : {size_t{0}, size_t{2}, size_t{3}, size_t{7}}) {
    for (const size_t j : {size_t{0}, size_t{13}, size_t{31}}) {
      std::fill_n(five.begin() + 16, 32, uint8_t{0});
      five[16 + j] = static_cast<uint8_t>(1u << i);
      dequantize(GgmlType::kQ5K, five.data(), 256, z.data());
      EXPECT_NE(all[32 * i + j], y[32 * i + j]);
      y[32 * i + j] = all[32 * i + j];
      EXPECT_EQ(z, y) << i << " " << j;
      y[32 * i + j] = x[32 * i + j];
    }
  }
}

// Bytes without a pattern that a wrong order would keep, with the scales written over them at the given places.
std::vector<uint8_t> numbered_block(size_t bytes, const std::vector<std::pair<size_t, float>>& scales) {
  std::vector<uint8_t> block(bytes);
  for (size_t i = 0; i < bytes; ++i) block[i] = static_cast<uint8_t>((i * i * 7 + i * 37 + 11) ^ (i >> 2));
  for (const auto& [at, value] : scales) {
    const uint16_t h = f32_to_f16(value);
    std::memcpy(block.data() + at, &h, 2);
  }
  return block;
}

// The expected values, in quarters, are those of the Python package gguf 0.19 for the same bytes.
void expect_quarters(GgmlType type, const std::vector<uint8_t>& block, const std::vector<int>& quarters) {
  std::vector<float> x(static_cast<size_t>(info_of(type).block));
  ASSERT_EQ(x.size(), quarters.size());
  dequantize(type, block.data(), info_of(type).block, x.data());
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(x[i], 0.25f * static_cast<float>(quarters[i])) << name_of(type) << " element " << i;
  }
}

TEST(Dequantize, q2_k_is_ggmls) {
  expect_quarters(
      GgmlType::kQ2K, numbered_block(84, {{80, 0.5f}, {82, -0.25f}}),
      {66, 66, 22, 22, 44, 44, 0,  0,  22, 22, 66, 66, 0,  0,  44, 44, 45, 45, 17, 17, 31, 31, 3,  3,  17, 17,
       45, 45, 3,  3,  31, 31, 13, 7,  9,  13, 11, 9,  7,  7,  9,  11, 13, 9,  7,  13, 11, 11, 11, 65, 47, 11,
       29, 47, 65, 65, 47, 29, 11, 47, 65, 11, 29, 29, 28, 56, 0,  56, 28, 56, 84, 28, 0,  84, 0,  56, 0,  84,
       84, 0,  15, 11, 11, 11, 15, 11, 7,  7,  11, 15, 11, 11, 11, 15, 7,  19, 22, 22, 30, 30, 38, 14, 22, 38,
       22, 30, 22, 38, 30, 14, 38, 38, 22, 22, 22, 22, 22, 30, 6,  14, 22, 30, 14, 30, 14, 30, 22, 6,  21, 21,
       17, 17, 19, 19, 15, 15, 17, 17, 21, 21, 15, 15, 19, 19, 86, 86, 34, 34, 60, 60, 8,  8,  34, 34, 86, 86,
       8,  8,  60, 60, 25, 47, 69, 25, 3,  69, 47, 47, 69, 3,  25, 69, 47, 25, 3,  3,  27, 21, 15, 27, 33, 15,
       21, 21, 15, 33, 27, 15, 21, 27, 33, 33, 35, 11, 27, 11, 35, 11, 19, 35, 27, 19, 27, 11, 27, 19, 19, 27,
       24, 40, 40, 40, 24, 40, 56, 56, 40, 24, 40, 40, 40, 24, 56, 8,  90, 90, 62, 62, 34, 62, 62, 62, 90, 6,
       34, 90, 6,  62, 6,  62, 33, 89, 61, 33, 33, 5,  5,  5,  5,  33, 33, 61, 89, 33, 61, 5});
}

TEST(Dequantize, q3_k_is_ggmls) {
  expect_quarters(
      GgmlType::kQ3K, numbered_block(110, {{108, -0.5f}}),
      {78,  78,   26,   26,  -52,  -52,  -104, -104, 26,   26,   78,   78,   -104, -104, -52,  -52,  6,    6,    2,
       2,   -4,   -4,   -8,  -8,   2,    2,    6,    6,    -8,   -8,   -4,   -4,   0,    -150, 100,  200,  -50,  -100,
       50,  50,   100,  150, 0,    -100, 50,   200,  -50,  -50,  -34,  -68,  34,   102,  0,    -102, 68,   68,   34,
       136, -34,  -102, 68,  102,  0,    0,    24,   -12,  36,   36,   -24,  36,   0,    0,    36,   -24,  36,   36,
       -12, 24,   0,    -36, 36,   -48,  24,   0,    -12,  0,    -36,  -12,  24,   -36,  24,   0,    -24,  12,   -36,
       -24, 80,   -80,  -80, 80,   80,   -40,  -160, -120, -80,  120,  40,   -40,  -120, 120,  80,   0,    -72,  24,
       48,  -48,  -24,  48,  48,   48,   24,   0,    -24,  24,   96,   -48,  0,    -48,  -34,  102,  34,   34,   -68,
       68,  -136, -136, 34,  -102, 102,  102,  0,    -136, -68,  68,   -120, 40,   120,  120,  -80,  80,   0,    0,
       120, -40,  40,   40,  160,  0,    -80,  80,   -80,  40,   0,    80,   -40,  0,    40,   40,   0,    -40,  80,
       0,   40,   -80,  120, -40,  -56,  0,    -168, 168,  -112, 56,   0,    -224, -168, 112,  -56,  56,   -224, 168,
       112, -112, 186,  124, -124, 124,  186,  -124, -186, -186, -124, 186,  124,  -124, 124,  186,  -186, 0,    0,
       -48, 48,   16,   0,   16,   -32,  0,    -16,  32,   -16,  -48,  48,   32,   -32,  -16,  30,   10,   20,   -10,
       30,  40,   0,    40,  0,    -10,  30,   -20,  -30,  -10,  20,   40,   4,    8,    -6,   -2,   0,    2,    4,
       -4,  4,    -2,   4,   -4,   -6,   2,    0,    -4});
}

TEST(Dequantize, iq4_nl_is_ggmls) {
  expect_quarters(GgmlType::kIq4Nl, numbered_block(18, {{0, 0.25f}}),
                  {-104, 13, 89,   -83, -49, -49, -104, 69, 38,  -65, -49, 1, 89,  89,  113, -65,
                   -10,  38, -127, -10, 89,  -22, 113,  1,  -65, 113, 38,  1, -22, -35, -35, -22});
}

TEST(Dequantize, iq4_xs_is_ggmls) {
  expect_quarters(
      GgmlType::kIq4Xs, numbered_block(136, {{0, 0.25f}}),
      {208,  -138,  -76,   130,   98,    -2,    -178,  -178,  -226,  130,   70,   -138,  -50,   44,    254,   254,
       -226, -2,    130,   -226,  -76,   -2,    44,    70,    70,    44,    -2,   -50,   -138,  166,   20,    -138,
       1120, -416,  -3616, 320,   4064,  -1696, -800,  -800,  2080,  -3616, -416, 3328,  704,   -800,  -1696, -1696,
       1568, -1216, 1568,  -2848, -32,   2080,  -3616, -1696, -800,  -416,  -416, -416,  -800,  -2208, 4064,  1568,
       234,  -630,  -1170, 684,   954,   -2286, -396,  -396,  -180,  684,   1242, -630,  -1494, 1602,  18,    18,
       234,  1602,  -630,  1242,  -630,  1602,  18,    -1170, 2034,  954,   450,  18,    -180,  18,    234,   684,
       -621, 936,   90,    -1017, -9,    441,   747,   747,   -342,  90,    936,  -117,  -801,  747,   441,   441,
       -801, 936,   198,   -477,  747,   -117,  936,   -225,  315,   -801,  -225, 198,   315,   747,   585,   585,
       1248, -828,  -456,  780,   588,   -12,   -1068, -1068, -1356, 780,   420,  -828,  -300,  264,   1524,  1524,
       996,  420,   264,   -300,  -1068, 420,   -456,  1524,  -12,   780,   -828, 120,   1524,  -1356, -300,  -12,
       -490, 182,   1582,  -140,  -1778, 742,   350,   350,   -910,  1582,  182,  -1456, -308,  350,   742,   742,
       182,  -308,  182,   532,   966,   1246,  -1162, 182,   1582,  -686,  742,  -686,  1582,  14,    -490,  -1456,
       260,  -700,  -1300, 760,   1060,  -2540, -440,  -440,  -200,  760,   1380, -700,  -1660, 1780,  20,    20,
       1060, 760,   20,    20,    20,    760,   1380,  1780,  -1660, 260,   2260, -700,  500,   -700,  1060,  -440,
       414,  -624,  -60,   678,   6,     -294,  -498,  -498,  228,   -60,   -624, 78,    534,   -498,  -294,  -294,
       -390, 318,   228,   78,    -60,   -294,  -294,  -60,   150,   78,    414,  -624,  150,   414,   -294,  318});
}

TEST(Dequantize, three_bits_and_steps_by_hand) {
  // Q3_K with d = 2: scale 0 has low bits 1 and high bits 2 (33 - 32 = 1). Element 0: low bits 3, high bit set: 3;
  // element 1: low bits 3, high bit clear: 3 - 4.
  std::vector<uint8_t> three(110, 0);
  const uint16_t two = f32_to_f16(2.0f);
  three[0] = 1;
  three[32] = three[33] = 3;
  three[96] = 1;
  three[104] = 2;
  std::memcpy(three.data() + 108, &two, 2);
  std::vector<float> x(256);
  dequantize(GgmlType::kQ3K, three.data(), 256, x.data());
  EXPECT_EQ(x[0], 6.0f);
  EXPECT_EQ(x[1], -2.0f);
  EXPECT_EQ(x[2], -8.0f);
  // IQ4_NL with d = 2: nibbles 0 and 15 are the steps -127 and 113.
  std::vector<uint8_t> steps(18, 0);
  std::memcpy(steps.data(), &two, 2);
  steps[2] = 0xf0;
  dequantize(GgmlType::kIq4Nl, steps.data(), 32, x.data());
  EXPECT_EQ(x[0], -254.0f);
  EXPECT_EQ(x[16], 226.0f);
}

TEST(Dequantize, every_half_converts_like_the_reference) {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> x(65536);
  dequantize(GgmlType::kF16, halves.data(), 65536, x.data());
  for (size_t i = 0; i < halves.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(x[i]), std::bit_cast<uint32_t>(f16_to_f32(halves[i]))) << i;
  }
}

TEST(Dequantize, bf16_is_the_float_value_rounded_to_nearest_even) {
  for (const GgmlType type : all_dequantizable()) {
    const GgmlTypeInfo& info = info_of(type);
    const int64_t n = 256 * 2051;  // several ranges, the last one partial
    const auto bytes = random_bytes(static_cast<size_t>(n / info.block) * info.block_bytes, 7);
    std::vector<float> x(static_cast<size_t>(n));
    std::vector<uint16_t> y(x.size());
    dequantize(type, bytes.data(), n, x.data());
    dequantize_bf16(type, bytes.data(), n, y.data());
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(y[i], f32_to_bf16(x[i])) << info.name << " element " << i << " of value " << x[i];
    }
  }
}

TEST(Dequantize, refuses_types_by_name) {
  float x = 0;
  try {
    dequantize(GgmlType::kIq2Xs, &x, 0, &x);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::kUnsupported);
    EXPECT_NE(std::string(e.what()).find("IQ2_XS"), std::string::npos);
  }
}

TEST(Dequantize, refuses_partial_blocks) {
  float x[32];
  EXPECT_THROW(dequantize(GgmlType::kQ80, x, 31, x), Error);
}

// max |x - golden| / max |golden| over a tensor, as golden.json defines the tolerance.
double distance(const Tensor& x, const TensorView& golden) {
  double worst = 0, scale = 0;
  const auto *a = x.as<float>(), *b = static_cast<const float*>(golden.data);
  for (int64_t i = 0; i < golden.elements(); ++i) {
    worst = std::max<double>(worst, std::abs(a[i] - b[i]));
    scale = std::max<double>(scale, std::abs(b[i]));
  }
  return worst / scale;
}

TEST(Dequantize, golden_files) {
  if (!directory_exists(kGoldens)) GTEST_SKIP() << kGoldens << " is absent";
  int compared = 0;
  std::vector<std::string> types;
  for (const auto& item : std::filesystem::directory_iterator(kGoldens)) {
    if (item.path().extension() != ".safetensors") continue;
    const std::string stem = kGoldens + "/" + item.path().stem().string();
    const GgufFile gguf = GgufFile::open(stem + ".gguf");
    const SafetensorsFile golden = SafetensorsFile::open(item.path().string());
    for (const std::string& name : golden.names()) {
      if (!name.starts_with("dequant.")) continue;
      const GgufTensor& tensor = gguf->require_tensor(name.substr(8));
      const TensorView& expected = golden.at(name);
      const Tensor x = dequantize(tensor, DType::kF32);
      ASSERT_EQ(x.shape(), expected.shape) << stem << " " << name;
      EXPECT_LE(distance(x, expected), 1e-6) << stem << " " << name << " " << name_of(tensor.type);
      types.push_back(name_of(tensor.type));
      ++compared;
    }
  }
  EXPECT_GE(compared, 15);
  for (const char* type : {"F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q6_K"}) {
    EXPECT_NE(std::find(types.begin(), types.end(), type), types.end()) << type << " is in no golden file";
  }
}

}  // namespace
}  // namespace saif
