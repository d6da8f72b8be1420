#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>

#include "base/file.h"

namespace saif {
namespace {

// Appends little-endian pieces of a GGUF file.
struct Bytes {
  std::string text;
  template <typename T>
  Bytes& put(T v) {
    text.append(reinterpret_cast<const char*>(&v), sizeof v);
    return *this;
  }
  Bytes& u32(uint64_t v) { return put(static_cast<uint32_t>(v)); }
  Bytes& u64(uint64_t v) { return put(v); }
  Bytes& str(std::string_view s) {
    u64(s.size());
    text += s;
    return *this;
  }
  Bytes& key(std::string_view name, GgufType type) { return str(name).u32(static_cast<uint32_t>(type)); }
};

struct TensorSpec {
  std::string name;
  std::vector<uint64_t> dims;  // ggml's order
  uint32_t type = 0;
  uint64_t offset = 0;
};

struct Spec {
  uint32_t version = 3;
  std::vector<std::function<void(Bytes&)>> entries;
  std::vector<TensorSpec> tensors;
  size_t alignment = 32, data = 0;
};

std::string build(const Spec& spec) {
  Bytes out;
  out.u32(0x46554747).u32(spec.version).u64(spec.tensors.size()).u64(spec.entries.size());
  for (const auto& entry : spec.entries) entry(out);
  for (const TensorSpec& t : spec.tensors) {
    out.str(t.name).u32(t.dims.size());
    for (const uint64_t d : t.dims) out.u64(d);
    out.u32(t.type).u64(t.offset);
  }
  out.text.resize((out.text.size() + spec.alignment - 1) / spec.alignment * spec.alignment);
  out.text.append(spec.data, '\x01');
  return out.text;
}

Spec sample() {
  Spec spec;
  using T = GgufType;
  spec.entries = {
      [](Bytes& b) { b.key("u8", T::kU8).put(uint8_t{200}); },
      [](Bytes& b) { b.key("i8", T::kI8).put(int8_t{-5}); },
      [](Bytes& b) { b.key("u16", T::kU16).put(uint16_t{60000}); },
      [](Bytes& b) { b.key("i16", T::kI16).put(int16_t{-300}); },
      [](Bytes& b) { b.key("u32", T::kU32).put(uint32_t{4000000000u}); },
      [](Bytes& b) { b.key("i32", T::kI32).put(int32_t{-7}); },
      [](Bytes& b) { b.key("u64", T::kU64).put(UINT64_MAX); },
      [](Bytes& b) { b.key("i64", T::kI64).put(INT64_MIN); },
      [](Bytes& b) { b.key("f32", T::kF32).put(0.1f); },
      [](Bytes& b) { b.key("f64", T::kF64).put(0.1); },
      [](Bytes& b) { b.key("bool", T::kBool).put(uint8_t{1}); },
      [](Bytes& b) { b.key("string", T::kString).str("hello"); },
      [](Bytes& b) { b.key("strings", T::kArray).u32(8).u64(3).str("a").str("").str("ccc"); },
      [](Bytes& b) { b.key("ints", T::kArray).u32(5).u64(2).put(int32_t{-1}).put(int32_t{9}); },
      [](Bytes& b) { b.key("floats", T::kArray).u32(6).u64(2).put(0.5f).put(-1.0f); },
      [](Bytes& b) { b.key("bools", T::kArray).u32(7).u64(2).put(uint8_t{0}).put(uint8_t{1}); },
      [](Bytes& b) { b.key("nested", T::kArray).u32(9).u64(2).u32(0).u64(1).put(uint8_t{4}).u32(8).u64(1).str("x"); },
      [](Bytes& b) { b.key("empty", T::kArray).u32(8).u64(0); },
  };
  spec.tensors = {{"w", {64, 2}, 3, 0}, {"norm", {3}, 0, 96}, {"scalar", {}, 0, 128}};
  spec.data = 132;
  return spec;
}

Result<GgufView> parse(const std::string& bytes) {
  return parse_gguf(std::as_bytes(std::span(bytes.data(), bytes.size())));
}

testing::AssertionResult contains(const std::string& text, const std::vector<std::string>& words) {
  for (const auto& word : words) {
    if (text.find(word) == std::string::npos)
      return testing::AssertionFailure() << "\"" << word << "\" not in: " << text;
  }
  return testing::AssertionSuccess();
}

testing::AssertionResult refused(const std::string& bytes, const std::vector<std::string>& words) {
  const auto result = parse(bytes);
  if (result.ok()) return testing::AssertionFailure() << "was accepted";
  return contains(result.error().what(), words);
}

template <typename Lookup>
testing::AssertionResult throws(Errc code, const std::vector<std::string>& words, const Lookup& lookup) {
  try {
    lookup();
  } catch (const Error& e) {
    if (e.code() != code) return testing::AssertionFailure() << name_of(e.code()) << ": " << e.what();
    return contains(e.what(), words);
  }
  return testing::AssertionFailure() << "nothing was thrown";
}

TEST(ParseGguf, reads_every_value_type) {
  const std::string bytes = build(sample());
  const auto result = parse(bytes);
  ASSERT_TRUE(result.ok()) << result.error().what();
  const GgufView& view = result.value();
  EXPECT_EQ(view.require_int("u8"), 200);
  EXPECT_EQ(view.require_int("i8"), -5);
  EXPECT_EQ(view.require_int("u16"), 60000);
  EXPECT_EQ(view.require_int("i16"), -300);
  EXPECT_EQ(view.require_u32("u32"), 4000000000u);
  EXPECT_EQ(view.require_int("i32"), -7);
  EXPECT_EQ(view.require_int("i64"), INT64_MIN);
  EXPECT_EQ(view.require_number("u64"), 18446744073709551616.0);
  EXPECT_EQ(view.require_number("f32"), 0.1f);
  EXPECT_EQ(view.require_number("f64"), 0.1);
  EXPECT_EQ(view.require_number("i32"), -7);
  EXPECT_TRUE(view.require_bool("bool"));
  EXPECT_EQ(view.require_string("string"), "hello");
  EXPECT_EQ(view.require_strings("strings"), (std::vector<std::string_view>{"a", "", "ccc"}));
  EXPECT_TRUE(view.require_strings("empty").empty());
  EXPECT_EQ(view.require_ints("ints"), (std::vector<int64_t>{-1, 9}));
  EXPECT_EQ(view.require_numbers("floats"), (std::vector<float>{0.5f, -1.0f}));
  EXPECT_EQ(view.require_numbers("ints"), (std::vector<float>{-1, 9}));
  EXPECT_FALSE(view.find_array("bools")->bool_at(0));
  EXPECT_TRUE(view.find_array("bools")->bool_at(1));
  const GgufArray* nested = view.find_array("nested");
  ASSERT_EQ(nested->arrays.size(), 2u);
  EXPECT_EQ(nested->arrays[0].int_at(0), 4);
  EXPECT_EQ(nested->arrays[1].strings[0], "x");
  EXPECT_EQ(view.metadata().front().first, "u8");
  // Strings are not copied.
  EXPECT_GE(view.require_string("string").data(), bytes.data());
  EXPECT_LT(view.require_string("string").data(), bytes.data() + bytes.size());
}

TEST(ParseGguf, places_tensors_row_major) {
  const std::string bytes = build(sample());
  const auto result = parse(bytes);
  ASSERT_TRUE(result.ok()) << result.error().what();
  const GgufTensor& w = result.value().require_tensor("w");
  EXPECT_EQ(w.shape, (std::vector<int64_t>{2, 64}));
  EXPECT_EQ(w.type, GgmlType::kQ41);
  EXPECT_EQ(w.bytes, 80u);
  EXPECT_EQ(w.offset % 32, 0u);
  EXPECT_EQ(static_cast<const char*>(w.data), bytes.data() + w.offset);
  EXPECT_EQ(w.offset, bytes.size() - 132);
  EXPECT_EQ(result.value().require_tensor("scalar").elements, 1);
  EXPECT_EQ(result.value().find_tensor("v"), nullptr);
  EXPECT_TRUE(throws(Errc::kNotFound, {"no tensor v", "3 tensors"}, [&] { result.value().require_tensor("v"); }));
}

TEST(ParseGguf, honours_alignment_and_version_2) {
  Spec spec;
  spec.version = 2;
  spec.alignment = 64;
  spec.entries = {[](Bytes& b) { b.key("general.alignment", GgufType::kU32).u32(64); }};
  spec.tensors = {{"a", {1}, 0, 0}, {"b", {1}, 0, 64}};
  spec.data = 68;
  const std::string bytes = build(spec);  // a view lives no longer than its bytes
  const auto result = parse(bytes);
  ASSERT_TRUE(result.ok()) << result.error().what();
  EXPECT_EQ(result.value().require_tensor("b").offset % 64, 0u);
  EXPECT_EQ(result.value().version(), 2u);
  spec.tensors[1].offset = 32;
  EXPECT_TRUE(refused(build(spec), {"\"b\"", "multiple of 64"}));
  for (const uint32_t wrong : {0u, 3u, 1u << 31}) {
    spec.entries = {[wrong](Bytes& b) { b.key("general.alignment", GgufType::kU32).u32(wrong); }};
    EXPECT_TRUE(refused(build(spec), {"general.alignment"}));
  }
}

TEST(ParseGguf, every_prefix_is_refused) {
  const std::string whole = build(sample());
  for (size_t n = 0; n < whole.size(); ++n) {
    const std::vector<char> prefix(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n));
    EXPECT_FALSE(parse_gguf(std::as_bytes(std::span(prefix))).ok()) << n;
  }
}

TEST(ParseGguf, every_flipped_bit_is_survived) {
  const std::string whole = build(sample());
  for (size_t bit = 0; bit < 8 * (whole.size() - 132); ++bit) {
    std::string flipped = whole;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    (void)parse(flipped);
  }
}

TEST(ParseGguf, refuses_wrong_headers) {
  std::string bytes = build(sample());
  bytes[0] = 'X';
  EXPECT_TRUE(refused(bytes, {"begin with"}));
  EXPECT_TRUE(refused(build(Spec{1, {}, {}}), {"version 1"}));
  EXPECT_TRUE(refused(build(Spec{4, {}, {}}), {"version 4"}));
  EXPECT_TRUE(refused(build(Spec{3u << 24, {}, {}}), {"big-endian"}));
  for (const size_t at : {size_t{8}, size_t{16}}) {
    bytes = build(sample());
    const uint64_t huge = uint64_t{1} << 60;
    std::memcpy(bytes.data() + at, &huge, 8);
    EXPECT_TRUE(refused(bytes, {"1152921504606846976", "can hold"}));
  }
}

TEST(ParseGguf, refuses_wrong_metadata) {
  using T = GgufType;
  const auto with = [](std::function<void(Bytes&)> entry) {
    Spec spec;
    spec.entries = {std::move(entry)};
    return build(spec);
  };
  EXPECT_TRUE(refused(with([](Bytes& b) { b.str("k").u32(13).u64(0); }), {"\"k\"", "value type 13"}));
  EXPECT_TRUE(refused(with([](Bytes& b) { b.u64(UINT64_MAX).text += "12345"; }), {"truncated", "key 0"}));
  EXPECT_TRUE(refused(with([](Bytes& b) { b.key("k", T::kString).u64(1000); }), {"truncated", "\"k\"", "1000"}));
  EXPECT_TRUE(refused(with([](Bytes& b) { b.key("k", T::kBool).put(uint8_t{2}); }), {"\"k\"", "bool"}));
  EXPECT_TRUE(
      refused(with([](Bytes& b) { b.key("k", T::kArray).u32(6).u64(UINT64_MAX / 4 + 1); }), {"\"k\"", "elements"}));
  EXPECT_TRUE(refused(with([](Bytes& b) { b.key("k", T::kArray).u32(8).u64(1u << 30); }), {"\"k\"", "elements"}));
  EXPECT_TRUE(refused(with([](Bytes& b) { b.key("k", T::kArray).u32(77).u64(1).u64(1); }), {"\"k\"", "value type 77"}));
  EXPECT_TRUE(refused(with([](Bytes& b) {
                        b.key("k", T::kArray);
                        for (int i = 0; i < 100; ++i) b.u32(9).u64(1);
                      }),
                      {"\"k\"", "deeper"}));
  Spec twice;
  twice.entries = {[](Bytes& b) { b.key("k", T::kU8).put(uint8_t{1}); },
                   [](Bytes& b) { b.key("k", T::kU8).put(uint8_t{1}); }};
  EXPECT_TRUE(refused(build(twice), {"\"k\"", "twice"}));
}

TEST(ParseGguf, refuses_wrong_tensors) {
  const auto with = [](std::vector<TensorSpec> tensors, size_t data) {
    Spec spec;
    spec.tensors = std::move(tensors);
    spec.data = data;
    return build(spec);
  };
  EXPECT_TRUE(refused(with({{"a", {4}, 0, 0}, {"a", {4}, 0, 32}}, 64), {"\"a\"", "twice"}));
  EXPECT_TRUE(refused(with({{"a", {16}, 0, 0}, {"b", {4}, 0, 32}}, 64), {"\"a\"", "\"b\"", "overlap"}));
  EXPECT_TRUE(refused(with({{"a", {4}, 0, 8}}, 64), {"\"a\"", "multiple of 32"}));
  EXPECT_TRUE(refused(with({{"a", {4}, 0, 64}}, 79), {"truncated", "\"a\""}));
  EXPECT_TRUE(refused(with({{"a", {4}, 5, 0}}, 64), {"\"a\"", "ggml type 5"}));
  EXPECT_TRUE(refused(with({{"a", {33}, 2, 0}}, 64), {"\"a\"", "33", "multiple of 32", "Q4_0"}));
  EXPECT_TRUE(refused(with({{"a", {1, 1, 1, 1, 1}, 0, 0}}, 64), {"\"a\"", "5 dimensions"}));
  EXPECT_TRUE(refused(with({{"a", {uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0}}, 64), {"\"a\"", "overflows"}));
  EXPECT_TRUE(refused(with({{"a", {0, uint64_t{1} << 63}, 0, 0}}, 64), {"\"a\"", "overflows"}));
  EXPECT_TRUE(refused(with({{"a", {uint64_t{1} << 50}, 0, 0}}, 64), {"\"a\"", "fit"}));
  EXPECT_TRUE(refused(with({{"a", {4}, 0, UINT64_MAX - 31}}, 64), {"\"a\"", "fit"}));
  EXPECT_TRUE(parse(with({{"a", {4}, 16, 0}}, 64)).ok() == false);  // IQ2_XXS: rows of 256
}

TEST(GgufView, lookups_say_what_is_wrong) {
  const std::string bytes = build(sample());
  const GgufView view = parse(bytes).value();
  EXPECT_EQ(view.find_int("absent"), std::nullopt);
  EXPECT_EQ(view.find_number("absent"), std::nullopt);
  EXPECT_EQ(view.find_bool("absent"), std::nullopt);
  EXPECT_EQ(view.find_string("absent"), std::nullopt);
  EXPECT_EQ(view.find_strings("absent"), nullptr);
  EXPECT_EQ(view.find_ints("absent"), std::nullopt);
  EXPECT_TRUE(throws(Errc::kNotFound, {"no key absent"}, [&] { view.require_u32("absent"); }));
  EXPECT_TRUE(throws(Errc::kNotFound, {"no key absent"}, [&] { view.require_strings("absent"); }));
  EXPECT_TRUE(throws(Errc::kBadFormat, {"key f32", "f32, expected an integer"}, [&] { view.find_int("f32"); }));
  EXPECT_TRUE(throws(Errc::kBadFormat, {"key u64", "2^63"}, [&] { view.require_int("u64"); }));
  EXPECT_TRUE(throws(Errc::kBadFormat, {"key i32 is -7"}, [&] { view.require_u32("i32"); }));
  EXPECT_TRUE(throws(Errc::kBadFormat, {"key string"}, [&] { view.require_number("string"); }));
  EXPECT_TRUE(throws(Errc::kBadFormat, {"key u8", "bool"}, [&] { view.require_bool("u8"); }));
  EXPECT_TRUE(throws(Errc::kBadFormat, {"array of i32", "strings"}, [&] { view.require_strings("ints"); }));
  EXPECT_TRUE(throws(Errc::kBadFormat, {"array of f32", "integers"}, [&] { view.require_ints("floats"); }));
  EXPECT_TRUE(throws(Errc::kBadFormat, {"array of string", "numbers"}, [&] { view.require_numbers("strings"); }));
  EXPECT_TRUE(throws(Errc::kBadFormat, {"array of f32"}, [&] { (void)view.find_array("floats")->int_at(0); }));
  EXPECT_TRUE(throws(Errc::kInternal, {"index"}, [&] { (void)view.find_array("ints")->int_at(2); }));
}

TEST(GgufFile, errors_name_the_file) {
  const std::string path = testing::TempDir() + "saif_bad.gguf";
  write_file_atomically(path, "GGUF");
  EXPECT_TRUE(throws(Errc::kBadFormat, {"saif_bad.gguf", "truncated"}, [&] { GgufFile::open(path); }));
  write_file_atomically(path, build(sample()));
  const GgufFile file = GgufFile::open(path);
  EXPECT_TRUE(throws(Errc::kNotFound, {"saif_bad.gguf", "no key x"}, [&] { file->require_int("x"); }));
  EXPECT_TRUE(throws(Errc::kUnsupported, {"w", "I64"}, [&] { dequantize(file->require_tensor("w"), DType::kI64); }));
  std::filesystem::remove(path);
}

TEST(GgufFile, every_golden_file_opens) {
  const std::string root = std::string(SAIF_SHARED_DIR) + "/data/goldens/gguf";
  if (!directory_exists(root)) GTEST_SKIP() << root << " is absent";
  for (const auto& item : std::filesystem::directory_iterator(root)) {
    if (item.path().extension() != ".gguf") continue;
    const GgufFile file = GgufFile::open(item.path().string());
    const std::string family(file->require_string("general.architecture"));
    EXPECT_GT(file->require_u32(family + ".block_count"), 0u);
    EXPECT_FALSE(file->require_strings("tokenizer.ggml.tokens").empty());
    for (const GgufTensor& tensor : file->tensors()) EXPECT_TRUE(info_of(tensor.type).can_dequantize) << tensor.name;
  }
}

TEST(GgufFile, real_model) {
  const std::string path = cache_directory() + "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!file_exists(path)) GTEST_SKIP() << path << " is absent";
  const GgufFile file = GgufFile::open(path);
  EXPECT_EQ(file->require_u32("llama.embedding_length"), 576u);
  EXPECT_EQ(file->require_strings("tokenizer.ggml.tokens").size(), 49152u);
  const GgufTensor& down = file->require_tensor("blk.0.ffn_down.weight");
  EXPECT_EQ(down.shape, (std::vector<int64_t>{576, 1536}));
  const Tensor x = dequantize(down, DType::kF32);
  double sum = 0, square = 0;
  for (int64_t i = 0; i < x.elements(); ++i) {
    sum += x.as<float>()[i];
    square += static_cast<double>(x.as<float>()[i]) * x.as<float>()[i];
  }
  const auto n = static_cast<double>(x.elements());
  EXPECT_LT(std::abs(sum / n), 0.01);
  EXPECT_GT(square / n, 1e-4);  // a trained matrix: neither zeros nor noise of the wrong scale
  EXPECT_LT(square / n, 1.0);
}

}  // namespace
}  // namespace saif
