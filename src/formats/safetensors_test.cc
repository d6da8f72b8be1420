#include "formats/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <numeric>
#include <thread>

#include "saif/json.h"

namespace saif {
namespace {

std::string file_of(uint64_t length, const std::string& header, size_t data) {
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out + header + std::string(data, '\x01');
}

std::string file_of(const std::string& header, size_t data) { return file_of(header.size(), header, data); }

Result<SafetensorsView> parse(const std::string& bytes) {
  return parse_safetensors(std::as_bytes(std::span(bytes.data(), bytes.size())));
}

// The error's text; fails when there is none.
std::string refusal(const std::string& bytes) {
  const auto result = parse(bytes);
  if (result.ok()) {
    ADD_FAILURE() << "was accepted: " << bytes;
    return "";
  }
  EXPECT_EQ(std::string(result.error().what()).find('\n'), std::string::npos);
  return result.error().what();
}

testing::AssertionResult contains(const std::string& text, const std::vector<std::string>& words) {
  for (const auto& word : words) {
    if (text.find(word) == std::string::npos)
      return testing::AssertionFailure() << "\"" << word << "\" not in: " << text;
  }
  return testing::AssertionSuccess();
}

class Folder {
 public:
  Folder() : path_(testing::TempDir() + "saif_safetensors_" + std::to_string(::getpid())) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Tensor counting(DType dtype, std::vector<int64_t> shape) {
  Tensor t(dtype, std::move(shape));
  auto* bytes = t.as<uint8_t>();
  std::iota(bytes, bytes + t.bytes(), uint8_t{0});
  return t;
}

const char* kTwo = R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                   R"("b":{"dtype":"U8","shape":[5],"data_offsets":[24,29]}})";

TEST(ParseSafetensors, reads_what_the_header_says) {
  const auto result = parse(file_of(kTwo, 29));
  ASSERT_TRUE(result.ok()) << result.error().what();
  const SafetensorsView& view = result.value();
  ASSERT_EQ(view.tensors.size(), 2u);
  EXPECT_EQ(view.tensors[0].name, "a");
  EXPECT_EQ(view.tensors[0].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(view.tensors[1].dtype, DType::kU8);
  EXPECT_EQ(view.tensors[1].end - view.tensors[1].begin, 5u);
  EXPECT_EQ(view.metadata.at("format"), "pt");
}

TEST(ParseSafetensors, accepts_scalars_empty_tensors_and_no_tensors) {
  EXPECT_TRUE(parse(file_of("{}  ", 0)).ok());
  const auto result = parse(file_of(
      R"({"e":{"dtype":"F32","shape":[0,4611686018427387],"data_offsets":[2,2]},"s":{"dtype":"F16","shape":[],"data_offsets":[0,2]}})",
      2));
  ASSERT_TRUE(result.ok()) << result.error().what();
  EXPECT_EQ(result.value().tensors[0].name, "s");
}

TEST(ParseSafetensors, every_prefix_is_refused) {
  const std::string whole = file_of(kTwo, 29);
  for (size_t n = 0; n < whole.size(); ++n) {
    // A copy of exactly n bytes, so that a sanitizer sees a read beyond them.
    const std::vector<char> prefix(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n));
    EXPECT_FALSE(parse_safetensors(std::as_bytes(std::span(prefix))).ok()) << n;
  }
}

TEST(ParseSafetensors, every_flipped_bit_is_survived) {
  const std::string whole = file_of(kTwo, 29);
  for (size_t bit = 0; bit < 8 * (whole.size() - 29); ++bit) {
    std::string flipped = whole;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    (void)parse(flipped);
  }
}

TEST(ParseSafetensors, refuses_a_wrong_header) {
  EXPECT_TRUE(contains(refusal(file_of(uint64_t{1} << 62, "{}", 0)), {"header", "4611686018427387904", "10 bytes"}));
  EXPECT_TRUE(contains(refusal(file_of(UINT64_MAX, "{}", 0)), {"header"}));
  EXPECT_TRUE(contains(refusal(file_of(" {}", 0)), {"header", "{"}));
  EXPECT_TRUE(contains(refusal(file_of("", 0)), {"header"}));
  EXPECT_TRUE(contains(refusal(file_of("{]", 0)), {"header"}));
  EXPECT_TRUE(contains(refusal(file_of(R"({"a":1})", 0)), {"\"a\"", "object"}));
  EXPECT_TRUE(contains(refusal(file_of(R"({"__metadata__":{"x":1}})", 0)), {"__metadata__", "string"}));
  EXPECT_TRUE(contains(refusal(file_of(R"({"__metadata__":[]})", 0)), {"__metadata__"}));
  const std::string big(100'000'001, ' ');
  EXPECT_TRUE(contains(refusal(file_of("{" + big, 0)), {"header", "100000002", "at most 100000000"}));
}

std::string one(const std::string& dtype, const std::string& shape, const std::string& range) {
  return R"({"W_dec":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + range + "}}";
}

TEST(ParseSafetensors, refuses_a_wrong_tensor_by_name) {
  const auto check = [](const std::string& header, size_t data, std::vector<std::string> words) {
    words.emplace_back("W_dec");
    EXPECT_TRUE(contains(refusal(file_of(header, data)), words)) << header;
  };
  check(one("\"F8_E4M3\"", "[4]", "[0,4]"), 4, {"F8_E4M3", "BF16"});
  check(one("\"U16\"", "[2]", "[0,4]"), 4, {"U16"});
  check(one("7", "[2]", "[0,4]"), 4, {"dtype"});
  check(one("\"F32\"", "[2]", "[0,4]"), 4, {"4 bytes", "expected 8"});
  check(one("\"F32\"", "[1]", "[0,5]"), 5, {"5 bytes", "expected 4"});
  check(one("\"F32\"", "[1]", "[0,4]"), 3, {"truncated"});
  check(one("\"F32\"", "[1]", "[4,0]"), 4, {"begin <= end"});
  check(one("\"F32\"", "[1]", "[-4,0]"), 4, {"[-4,0]"});
  check(one("\"F32\"", "[1]", "[0,4,8]"), 4, {"data_offsets"});
  check(one("\"F32\"", "[1]", "[0,4.0]"), 4, {"data_offsets"});
  check(one("\"F32\"", "[1]", "[18446744073709551612,0]"), 4, {"data_offsets"});
  check(one("\"F32\"", "[-1,-1]", "[0,4]"), 4, {"shape"});
  check(one("\"F32\"", "[1.5]", "[0,4]"), 4, {"shape"});
  check(one("\"F32\"", "4", "[0,4]"), 4, {"shape"});
  check(one("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 0, {"overflows"});
  check(one("\"F32\"", "[4294967296,4294967296,0]", "[0,0]"), 0, {"overflows"});
  check(R"({"W_dec":{"dtype":"F32","shape":[1]}})", 4, {"data_offsets"});
  check(R"({"W_dec":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"layout":"csr"}})", 4, {"layout"});
  check(one("\"F32\"", "[1]", "[4,8]"), 8, {"hole of 4 bytes"});
}

TEST(ParseSafetensors, refuses_overlaps_unused_bytes_and_duplicates) {
  EXPECT_TRUE(contains(
      refusal(file_of(
          R"({"W_dec":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"W_enc":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
          12)),
      {"W_dec", "W_enc", "overlap"}));
  EXPECT_TRUE(contains(refusal(file_of(kTwo, 31)), {"2 unused bytes"}));
  EXPECT_TRUE(contains(
      refusal(file_of(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
          1)),
      {"duplicate", "a"}));
}

TEST(WriteSafetensors, round_trip_keeps_everything) {
  const Folder folder;
  const DType types[] = {DType::kU8,  DType::kF16, DType::kF32, DType::kF64,  DType::kI64,
                         DType::kI32, DType::kI16, DType::kI8,  DType::kBf16, DType::kBool};
  std::vector<Tensor> owners;
  std::vector<NamedTensor> tensors;
  for (const DType type : types) {
    owners.push_back(counting(type, {3, 5}));
    tensors.push_back({std::string("t.\"quoted\" \xc3\xa9 ") + name_of(type), owners.back().view()});
  }
  owners.push_back(counting(DType::kF32, {}));
  tensors.push_back({"scalar", owners.back().view()});
  owners.push_back(Tensor(DType::kF32, {0, 7}));
  tensors.push_back({"empty", owners.back().view()});
  write_safetensors(folder / "a.safetensors", tensors, {{"format", "pt"}, {"note", "two\nlines"}});

  const SafetensorsFile file = SafetensorsFile::open(folder / "a.safetensors");
  EXPECT_EQ(file.names().size(), tensors.size());
  EXPECT_EQ(file.metadata(), (SafetensorsMetadata{{"format", "pt"}, {"note", "two\nlines"}}));
  for (const NamedTensor& t : tensors) {
    const TensorView& back = file.at(t.name);
    EXPECT_EQ(back.dtype, t.view.dtype);
    EXPECT_EQ(back.shape, t.view.shape);
    EXPECT_EQ(std::memcmp(back.data, t.view.data, t.view.bytes()), 0) << t.name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(back.data) % size_of(back.dtype), 0u) << t.name;
  }
  EXPECT_EQ(file.find("absent"), nullptr);
  try {
    (void)file.at("absent");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::kNotFound);
    EXPECT_TRUE(contains(e.what(), {"a.safetensors", "absent"}));
  }

  const std::string first = read_file(folder / "a.safetensors");
  uint64_t length = 0;
  std::memcpy(&length, first.data(), 8);
  EXPECT_EQ(length % 8, 0u);
  std::reverse(tensors.begin(), tensors.end());
  write_safetensors(folder / "a.safetensors", tensors, {{"note", "two\nlines"}, {"format", "pt"}});
  EXPECT_EQ(read_file(folder / "a.safetensors"), first);
}

TEST(WriteSafetensors, refuses_bad_names_and_leaves_the_old_file) {
  const Folder folder;
  const Tensor t = counting(DType::kF32, {2});
  const std::string path = folder / "a.safetensors";
  write_safetensors(path, std::vector<NamedTensor>{{"x", t.view()}});
  const std::string before = read_file(path);
  EXPECT_THROW(write_safetensors(path, std::vector<NamedTensor>{{"x", t.view()}, {"x", t.view()}}), Error);
  EXPECT_THROW(write_safetensors(path, std::vector<NamedTensor>{{"__metadata__", t.view()}}), Error);
  EXPECT_THROW(write_safetensors(path, std::vector<NamedTensor>{{"\xff", t.view()}}), Error);
  EXPECT_THROW(write_safetensors(path, std::vector<NamedTensor>{{"x", t.view()}}, {{"k", "\xff"}}), Error);
  EXPECT_EQ(read_file(path), before);
  EXPECT_THROW(write_safetensors(folder / "no/such/folder.safetensors", std::vector<NamedTensor>{}), Error);
}

TEST(SafetensorsFile, misaligned_tensors_are_copied_once) {
  const Folder folder;
  std::string header = one("\"F32\"", "[2]", "[0,8]");
  while (header.size() % 4 != 1) header += ' ';
  std::string bytes = file_of(header, 8);
  const float values[] = {1.5f, -2.0f};
  std::memcpy(bytes.data() + bytes.size() - 8, values, 8);
  write_file_atomically(folder / "odd.safetensors", bytes);
  const SafetensorsFile file = SafetensorsFile::open(folder / "odd.safetensors");
  std::vector<std::thread> threads;
  std::vector<const TensorView*> found(4);
  for (auto& slot : found) threads.emplace_back([&file, &slot] { slot = file.find("W_dec"); });
  for (auto& thread : threads) thread.join();
  for (const TensorView* view : found) {
    ASSERT_EQ(view, found[0]);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view->data) % 4, 0u);
    EXPECT_EQ(static_cast<const float*>(view->data)[1], -2.0f);
  }
}

TEST(SafetensorsFile, errors_name_the_file) {
  const Folder folder;
  write_file_atomically(folder / "bad.safetensors", "short");
  try {
    SafetensorsFile::open(folder / "bad.safetensors");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::kBadFormat);
    EXPECT_TRUE(contains(e.what(), {"bad.safetensors", "truncated", "5 bytes"}));
  }
  write_file_atomically(folder / "empty.safetensors", "");
  EXPECT_THROW(SafetensorsFile::open(folder / "empty.safetensors"), Error);
  EXPECT_THROW(SafetensorsFile::open(folder / "absent.safetensors"), Error);
}

class Sharded : public testing::Test {
 protected:
  void SetUp() override {
    write_safetensors(folder_ / "s1.safetensors", std::vector<NamedTensor>{{"a", a_.view()}, {"b", b_.view()}});
    write_safetensors(folder_ / "s2.safetensors", std::vector<NamedTensor>{{"c", b_.view()}});
  }
  void index(const std::string& map) {
    write_file_atomically(folder_ / "model.safetensors.index.json", R"({"metadata":{},"weight_map":)" + map + "}");
  }
  std::string refused() {
    try {
      SafetensorsFolder::open(folder_.path());
    } catch (const Error& e) {
      return e.what();
    }
    ADD_FAILURE() << "was accepted";
    return "";
  }
  Folder folder_;
  Tensor a_ = counting(DType::kF32, {2}), b_ = counting(DType::kF16, {3});
};

TEST_F(Sharded, finds_tensors_in_every_shard) {
  EXPECT_FALSE(SafetensorsFolder::present(folder_.path()));
  index(R"({"c":"s2.safetensors","a":"s1.safetensors"})");  // b is in s1, though not listed
  EXPECT_TRUE(SafetensorsFolder::present(folder_.path()));
  const auto folder = SafetensorsFolder::open(folder_.path());
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(folder.at("c").shape, (std::vector<int64_t>{3}));
  EXPECT_EQ(std::memcmp(folder.at("a").data, a_.data(), a_.bytes()), 0);
  EXPECT_NE(folder.find("b"), nullptr);
  EXPECT_EQ(folder.find("d"), nullptr);
  EXPECT_THROW((void)folder.at("d"), Error);
  EXPECT_EQ(folder.files().size(), 2u);
}

TEST_F(Sharded, a_single_file_needs_no_index) {
  write_safetensors(folder_ / "model.safetensors", std::vector<NamedTensor>{{"a", a_.view()}});
  EXPECT_EQ(SafetensorsFolder::open(folder_.path()).names(), (std::vector<std::string>{"a"}));
}

TEST_F(Sharded, refuses_contradictions) {
  EXPECT_TRUE(contains(refused(), {"model.safetensors", "neither"}));
  index(R"({"a":"s3.safetensors"})");
  EXPECT_TRUE(contains(refused(), {"s3.safetensors", "missing"}));
  index(R"({"a":"s2.safetensors","b":"s1.safetensors"})");
  EXPECT_TRUE(contains(refused(), {"\"a\"", "not in shard s2.safetensors", "s1.safetensors"}));
  index(R"({"z":"s2.safetensors"})");
  EXPECT_TRUE(contains(refused(), {"\"z\"", "nor in any other"}));
  for (const char* shard : {"../s1.safetensors", "/etc/passwd", "x/y", "..", ".", "", "a\\\\b", "a\\u0000b"}) {
    index(std::string(R"({"a":")") + shard + "\"}");
    EXPECT_TRUE(contains(refused(), {"\"a\"", "same folder"})) << shard;
  }
  index(R"({"a":1})");
  EXPECT_TRUE(contains(refused(), {"\"a\"", "same folder"}));
  index("[]");
  EXPECT_TRUE(contains(refused(), {"weight_map"}));
  write_safetensors(folder_ / "s3.safetensors", std::vector<NamedTensor>{{"a", a_.view()}});
  index(R"({"a":"s3.safetensors","b":"s1.safetensors"})");
  EXPECT_TRUE(contains(refused(), {"\"a\"", "one shard only"}));
}

// The published cases of broken SAE files that are about safetensors itself.
TEST(SafetensorsFile, broken_sae_files_are_refused_in_the_expected_words) {
  const std::string root = std::string(SAIF_SHARED_DIR) + "/data/saes/bad";
  if (!directory_exists(root)) GTEST_SKIP() << root << " is absent";
  for (const char* name : {"truncated_safetensors", "overlapping_offsets", "header_longer_than_file"}) {
    const std::string folder = root + "/" + name;
    const Json meta = read_json_file(folder + "/meta.json");
    try {
      SafetensorsFile::open(folder + "/" + meta.at("load").as_string() + "/sae_weights.safetensors");
      ADD_FAILURE() << name << " was accepted";
    } catch (const Error& e) {
      for (const Json& word : meta.at("names").items()) EXPECT_TRUE(contains(e.what(), {word.as_string()})) << name;
    }
  }
}

}  // namespace
}  // namespace saif
