#include "formats/ggml_types.h"

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
