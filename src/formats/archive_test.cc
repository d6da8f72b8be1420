// zip, npy and pickle: files written byte by byte, whole, cut off and with every byte changed.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <functional>

#include "base/file.h"
#include "formats/npz.h"
#include "formats/pickle.h"
#include "formats/torch_file.h"
#include "formats/zip.h"
#include "support/archives.h"

namespace saif {
namespace {

using test::npy;
using test::torch_pickle;
using test::zip;

std::span<const std::byte> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string floats(std::initializer_list<float> values) {
  return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(float)};
}

class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& bytes)
      : path_(testing::TempDir() + "/saif_archive_" + std::to_string(getpid())) {
    write_file_atomically(path_, bytes);
  }
  ~TemporaryFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Zip, MembersLieWhereTheDirectorySays) {
  const std::string archive = zip({{"a.txt", "hello"}, {"b/c", ""}});
  const auto entries = parse_zip(bytes_of(archive));
  ASSERT_TRUE(entries.ok()) << entries.error().what();
  ASSERT_EQ(entries.value().size(), 2U);
  const ZipEntry& entry = entries.value()[0];
  EXPECT_EQ(entry.name, "a.txt");
  EXPECT_EQ(archive.substr(entry.begin, entry.end - entry.begin), "hello");
  EXPECT_EQ(entries.value()[1].begin, entries.value()[1].end);
}

TEST(Zip, NamesThatClimbOrRepeatAreRefused) {
  for (const char* name : {"../x", "a/../../x", "/etc/x", "a\\x", "C:x", ".."}) {
    const auto entries = parse_zip(bytes_of(zip({{name, "x"}})));
    ASSERT_FALSE(entries.ok()) << name;
    EXPECT_EQ(entries.error().code(), Errc::kBadFormat);
  }
  EXPECT_FALSE(parse_zip(bytes_of(zip({{"x", "1"}, {"x", "2"}}))).ok());
  EXPECT_TRUE(parse_zip(bytes_of(zip({{"a..b/c", "x"}}))).ok());
}

TEST(Zip, CompressedMembersAreRefusedByName) {
  std::string archive = zip({{"deep", "xx"}});
  const size_t central = archive.find(std::string("PK\1\2", 4));
  archive[central + 10] = 8;
  const auto entries = parse_zip(bytes_of(archive));
  ASSERT_FALSE(entries.ok());
  EXPECT_EQ(entries.error().code(), Errc::kUnsupported);
  EXPECT_NE(std::string(entries.error().what()).find("deep"), std::string::npos);
}

TEST(Zip, ACutOffOrChangedArchiveIsAnErrorOrLiesWithinItsBytes) {
  const std::string archive = zip({{"a", "hello"}, {"b", "there"}});
  for (size_t n = 0; n < archive.size(); ++n) EXPECT_FALSE(parse_zip(bytes_of(archive.substr(0, n))).ok()) << n;
  for (size_t i = 0; i < archive.size(); ++i) {
    for (const char value : {'\0', '\1', '\x7f', '\xff'}) {
      std::string changed = archive;
      changed[i] = value;
      const auto entries = parse_zip(bytes_of(changed));
      if (!entries.ok()) continue;
      for (const ZipEntry& entry : entries.value()) {
        EXPECT_LE(entry.begin, entry.end);
        EXPECT_LE(entry.end, changed.size());
      }
    }
  }
}

TEST(Npy, ShapeTypeAndOrder) {
  const std::string array = npy("<f4", "(2, 3)", floats({1, 2, 3, 4, 5, 6}));
  const auto view = parse_npy(bytes_of(array));
  ASSERT_TRUE(view.ok()) << view.error().what();
  EXPECT_EQ(view.value().shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(array.size() - view.value().begin, 24U);
  EXPECT_TRUE(parse_npy(bytes_of(npy("<f4", "()", floats({1})))).ok());
  EXPECT_TRUE(parse_npy(bytes_of(npy("<i8", "(0,)", ""))).ok());
}

TEST(Npy, WhatIsNotPlainNumbersIsRefused) {
  EXPECT_NE(std::string(parse_npy(bytes_of(npy("|O", "(1,)", "x"))).error().what()).find("object array"),
            std::string::npos);
  for (const char* shape : {"(3,)", "(4611686018427387904, 4)", "(-1,)", "(1", "1", "(1, x)"}) {
    EXPECT_FALSE(parse_npy(bytes_of(npy("<f4", shape, floats({1, 2})))).ok()) << shape;
  }
  EXPECT_FALSE(parse_npy(bytes_of(npy(">f4", "(1,)", floats({1})))).ok());
  const std::string array = npy("<f4", "(2,)", floats({1, 2}));
  for (size_t n = 0; n < array.size(); ++n) EXPECT_FALSE(parse_npy(bytes_of(array.substr(0, n))).ok()) << n;
}

TEST(Npz, ColumnMajorAndUnalignedArraysAreCopiedInOrder) {
  std::string columns = npy("<f4", "(2, 3)", floats({1, 4, 2, 5, 3, 6}));
  columns.replace(columns.find("False"), 5, "True ");
  const TemporaryFile file(zip({{"x.npy", columns}, {"odd_.npy", npy("<f4", "(2,)", floats({7, 8}))}}));
  const TensorArchive archive = open_npz(file.path());
  ASSERT_EQ(archive.tensors.size(), 2U);
  EXPECT_EQ(archive.tensors[0].first, "x");
  const Tensor x = to_f32(archive.tensors[0].second);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(x.as<float>()[i], static_cast<float>(i + 1));
  const Tensor odd = to_f32(archive.tensors[1].second);
  EXPECT_EQ(odd.as<float>()[1], 8.0f);
}

TEST(Torch, StridesAndOffsetsAreHonoured) {
  // Elements 1 to 6 of a storage of 8, column by column.
  const std::string pickle = torch_pickle({{"w", "FloatStorage", "0", 8, 1, {2, 3}, {1, 2}}});
  const TemporaryFile file(zip({{"archive/data.pkl", pickle}, {"archive/data/0", floats({0, 1, 2, 3, 4, 5, 6, 7})}}));
  const TensorArchive archive = TorchFile::open(file.path()).tensors();
  ASSERT_EQ(archive.tensors.size(), 1U);
  const Tensor w = to_f32(archive.tensors[0].second);
  const float expected[] = {1, 3, 5, 2, 4, 6};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(w.as<float>()[i], expected[i]);
}

TEST(Torch, TensorsThatDoNotFitTheirStorageAreRefused) {
  const std::vector<test::TorchTensor> tensors = {
      {"w", "FloatStorage", "0", 2, 1, {2}, {1}},                    // beyond the end
      {"w", "FloatStorage", "0", 2, 0, {1 << 30, 1 << 20}, {0, 0}},  // expanded without end
      {"w", "FloatStorage", "0", 2, 0, {2}, {-1}},
      {"w", "FloatStorage", "0", 2, -1, {1}, {1}},
      {"w", "FloatStorage", "0", 2, 0, {2}, {1, 1}},
      {"w", "FloatStorage", "0", 2, 0, {-1}, {1}},
      {"w", "FloatStorage", "1", 2, 0, {2}, {1}},  // no such storage
  };
  for (const test::TorchTensor& tensor : tensors) {
    const TemporaryFile file(zip({{"a/data.pkl", torch_pickle({tensor})}, {"a/data/0", floats({1, 2})}}));
    const std::string message = error_of([&] { (void)TorchFile::open(file.path()).tensors(); });
    EXPECT_NE(message.find("\"w\""), std::string::npos) << message;
  }
}

TEST(Pickle, OtherGlobalsAreRefusedByName) {
  for (const char* global : {"cos\nsystem\n", "cbuiltins\neval\n", "ctorch.storage\n_load_from_bytes\n"}) {
    const std::string text = std::string("\x80\x02", 2) + global + "X\x01" + std::string(3, '\0') + "a\x85R.";
    const auto pickle = parse_pickle(bytes_of(text));
    ASSERT_FALSE(pickle.ok()) << global;
    EXPECT_EQ(pickle.error().code(), Errc::kRefused);
  }
  const auto pickle = parse_pickle(bytes_of("cos\nsystem\n."));
  EXPECT_NE(std::string(pickle.error().what()).find("os.system"), std::string::npos);
}

TEST(Pickle, PlainValues) {
  // {"a": (-2, True, None), "b": [0.5, 300]}
  const char raw[] =
      "\x80\x02}(X\x01\0\0\0aJ\xfe\xff\xff\xff\x88N\x87X\x01\0\0\0b](G\x3f\xe0\0\0\0\0\0\0M\x2c\x01"
      "eu.";
  const std::string text(raw, sizeof raw - 1);
  const auto parsed = parse_pickle(bytes_of(text));
  ASSERT_TRUE(parsed.ok()) << parsed.error().what();
  const Pickle& pickle = parsed.value();
  const Pickle::Node* a = pickle.find(pickle.at(pickle.root), "a");
  const Pickle::Node* b = pickle.find(pickle.at(pickle.root), "b");
  ASSERT_TRUE(a != nullptr && b != nullptr && a->children.size() == 3 && b->children.size() == 2);
  EXPECT_EQ(pickle.at(a->children[0]).integer, -2);
  EXPECT_EQ(pickle.at(b->children[0]).number, 0.5);
  EXPECT_EQ(pickle.at(b->children[1]).integer, 300);
}

TEST(Pickle, CutOffOrChangedItIsAnErrorOrAGraphWithinItsNodes) {
  const std::string text = torch_pickle({{"w", "FloatStorage", "0", 4, 0, {2, 2}, {2, 1}}});
  ASSERT_TRUE(parse_pickle(bytes_of(text)).ok());
  for (size_t n = 0; n < text.size(); ++n) EXPECT_FALSE(parse_pickle(bytes_of(text.substr(0, n))).ok()) << n;
  for (size_t i = 0; i < text.size(); ++i) {
    for (int value = 0; value < 256; ++value) {
      std::string changed = text;
      changed[i] = static_cast<char>(value);
      const auto parsed = parse_pickle(bytes_of(changed));
      if (!parsed.ok()) continue;
      ASSERT_LT(parsed.value().root, parsed.value().nodes.size());
      for (const Pickle::Node& node : parsed.value().nodes) {
        for (const uint32_t child : node.children) ASSERT_LT(child, parsed.value().nodes.size());
      }
    }
  }
}

TEST(Torch, ADictionaryThatHoldsItselfIsWalkedToABoundedDepth) {
  // d = {}; d["d"] = d
  const char raw[] = "\x80\x02}q\0X\x01\0\0\0dh\0s.";
  const std::string text(raw, sizeof raw - 1);
  const TemporaryFile file(zip({{"a/data.pkl", text}}));
  const TorchFile torch = TorchFile::open(file.path());
  EXPECT_TRUE(torch.has_dictionary("d"));
  EXPECT_LT(torch.plain().dump().size(), 100U);
}

}  // namespace
}  // namespace saif
