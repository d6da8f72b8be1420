// zip, npy and pickle: files written byte by byte, whole, cut off and with every byte changed.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>

#include "base/file.h"
#include "formats/npz.h"
#include "formats/pickle.h"
#include "formats/torch_file.h"
#include "formats/zip.h"
#include "support/archives.h"
#include "support/message_of.h"

namespace saif {
namespace {

using test::message_of;

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

TEST(Zip, OtherCompressionsAreRefusedByName) {
  std::string archive = zip({{"deep", "xx"}});
  archive[archive.find(std::string("PK\1\2", 4)) + 10] = 12;  // bzip2
  const auto entries = parse_zip(bytes_of(archive));
  ASSERT_FALSE(entries.ok());
  EXPECT_EQ(entries.error().code(), Errc::kUnsupported);
  EXPECT_NE(std::string(entries.error().what()).find("deep"), std::string::npos);
}

// A member deflated as one stored block: 1, length, ~length, data. `size` is what the directory promises.
std::string deflated(const std::string& name, const std::string& data, uint32_t size, uint32_t crc) {
  const auto length = static_cast<uint16_t>(data.size());
  const std::string block = "\x01" + test::little(length) + test::little(static_cast<uint16_t>(~length)) + data;
  std::string archive = zip({{name, block}});
  const size_t central = archive.find(std::string("PK\1\2", 4));
  archive[8] = archive[central + 10] = 8;
  archive.replace(central + 16, 4, test::little(crc));
  archive.replace(central + 24, 4, test::little(size));
  return archive;
}

TEST(Zip, DeflatedMembersAreUnpackedAndChecked) {
  const std::string data = "hello, hello";
  const auto unpack = [&](const std::string& archive) -> std::string {
    const auto entries = parse_zip(bytes_of(archive));
    if (!entries.ok()) return entries.error().what();
    EXPECT_TRUE(entries.value()[0].deflated);
    const auto member = inflate_member(bytes_of(archive), entries.value()[0]);
    if (!member.ok()) return member.error().what();
    return {static_cast<const char*>(member.value().data()), member.value().bytes()};
  };
  const uint32_t crc = test::crc32_of(data);
  EXPECT_EQ(unpack(deflated("m", data, 12, crc)), data);
  EXPECT_NE(unpack(deflated("m", data, 12, crc + 1)).find("member \"m\" has the checksum"), std::string::npos);
  EXPECT_NE(unpack(deflated("m", data, 11, crc)).find("does not unpack to the 11 bytes"), std::string::npos);
  EXPECT_NE(unpack(deflated("m", data, 13, crc)).find("does not unpack to the 13 bytes"), std::string::npos);
  EXPECT_NE(unpack(deflated("m", data, 1 << 30, crc)).find("too much for an archive"), std::string::npos);
  EXPECT_EQ(unpack(deflated("m", "", 0, 0)), "");
}

TEST(Zip, AChangedByteIsFoundByItsChecksumAndTheMemberNamed) {
  const std::string good = zip({{"a", "hello"}, {"b", std::string(10'000'000, 'x')}});
  std::string bad = good;
  bad[bad.size() / 2] = 'y';
  for (const std::string& archive : {good, bad}) {
    const auto entries = parse_zip(bytes_of(archive));
    ASSERT_TRUE(entries.ok());
    for (const ZipEntry& entry : entries.value()) {
      const auto error = check_crc(entry, bytes_of(archive).subspan(entry.begin, entry.end - entry.begin));
      EXPECT_EQ(error.has_value(), entry.name == "b" && archive == bad) << entry.name;
      if (error.has_value()) {
        EXPECT_NE(std::string(error->what()).find("\"b\""), std::string::npos) << error->what();
      }
    }
  }
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

TEST(Npz, DeflatedArraysAreRead) {
  const std::string array = npy("<f4", "(2,)", floats({7, 8}));
  const TemporaryFile file(deflated("x.npy", array, static_cast<uint32_t>(array.size()), test::crc32_of(array)));
  EXPECT_EQ(to_f32(open_npz(file.path()).tensors.at(0).second).as<float>()[1], 8.0f);
}

TEST(Npz, AChangedByteIsAnErrorUnlessNotVerified) {
  std::string archive = zip({{"x.npy", npy("<f4", "(2,)", floats({7, 8}))}});
  archive[archive.find(floats({7}))] ^= 1;
  const TemporaryFile file(archive);
  EXPECT_NE(message_of([&] { (void)open_npz(file.path()); }).find("x.npy"), std::string::npos);
  EXPECT_EQ(message_of([&] { (void)open_npz(file.path(), false); }), "");
}

TEST(Torch, AChangedByteIsAnErrorThatNamesTheMember) {
  std::string archive =
      zip({{"a/data.pkl", torch_pickle({{"w", "FloatStorage", "0", 2, 0, {2}, {1}}})}, {"a/data/0", floats({7, 8})}});
  archive[archive.find(floats({7}))] ^= 1;
  const TemporaryFile file(archive);
  EXPECT_NE(message_of([&] { (void)TorchFile::open(file.path()); }).find("a/data/0"), std::string::npos);
  EXPECT_EQ(message_of([&] { (void)TorchFile::open(file.path(), false); }), "");
  // A checksum that was never written.
  archive.replace(archive.rfind(std::string("PK\1\2", 4)) + 16, 4, std::string(4, '\0'));
  const TemporaryFile without(archive);
  EXPECT_EQ(message_of([&] { (void)TorchFile::open(without.path()); }), "");
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
    const std::string message = message_of([&] { (void)TorchFile::open(file.path()).tensors(); });
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

// torch notes there that a tensor is to be negated or conjugated when it is read.
TEST(Pickle, TensorsWithBitsOfTheirOwnAreRefused) {
  const auto parsed = [](const std::string& metadata) {
    return parse_pickle(bytes_of(torch_pickle({{"w", "FloatStorage", "0", 2, 0, {2}, {1}, metadata}})));
  };
  EXPECT_TRUE(parsed("N").ok());
  EXPECT_TRUE(parsed("}").ok());
  for (const char* bit : {"neg", "conj"}) {
    const auto found = parsed("}" + test::pickled(bit) + "\x88s");
    ASSERT_FALSE(found.ok()) << bit;
    EXPECT_EQ(found.error().code(), Errc::kUnsupported);
    EXPECT_NE(std::string(found.error().what()).find(bit), std::string::npos) << found.error().what();
  }
  EXPECT_FALSE(parsed("K\x01").ok());
  EXPECT_FALSE(parsed("NN").ok());
}

TEST(Pickle, AKeyGivenTwiceIsRefusedByName) {
  const auto message = [](const std::string& text) {
    const auto parsed = parse_pickle(bytes_of("\x80\x02" + text + "."));
    return parsed.ok() ? std::string() : std::string(parsed.error().what());
  };
  const std::string a = test::pickled("same"), b = test::pickled("other"), memo(1, '\0');
  EXPECT_EQ(message("}(" + a + "N" + b + "Nu"), "");
  EXPECT_NE(message("}(" + a + "N" + a + "Nu").find("\"same\""), std::string::npos);
  EXPECT_NE(message("}" + a + "Ns" + b + "Ns" + a + "Ns").find("\"same\""), std::string::npos);
  EXPECT_NE(message("}(" + a + "q" + memo + "Nh" + memo + "Nu").find("\"same\""), std::string::npos);
  EXPECT_NE(message("ccollections\nOrderedDict\n)R(" + a + "N" + a + "Nu").find("\"same\""), std::string::npos);
  EXPECT_NE(message("}(" + b + "}(" + a + "N" + a + "Nuu").find("\"same\""), std::string::npos);
  EXPECT_NE(message("}(" + test::pickled(std::string(100'000, 'k')) + "Nu").find("key is longer"), std::string::npos);
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

// Small inputs that once cost memory or time out of proportion.
TEST(Pickle, ValuesKeysAndArgumentsAreLimited) {
  const auto message = [](const std::string& text) {
    const auto parsed = parse_pickle(bytes_of(text));
    return parsed.ok() ? std::string() : std::string(parsed.error().what());
  };
  EXPECT_NE(message("\x80\x02" + std::string(1 << 20, 'N') + ".").find("more than 262144 values"), std::string::npos);
  // A storage whose name is copied by every Q that recalls the tuple.
  const auto text = [](const std::string& s) { return "X" + test::little(static_cast<uint32_t>(s.size())) + s; };
  const std::string storage = "(" + text("storage") + "ctorch\nFloatStorage\n" + text(std::string(100'000, 'k')) +
                              text("cpu") + "K\x01tq" + std::string(1, '\0');
  EXPECT_NE(message("\x80\x02" + storage + "Q.").find("storage's name is longer"), std::string::npos);
  // A call whose arguments are copied each time.
  std::string call = "ctorch._utils\n_rebuild_tensor_v2\n(";
  for (int i = 0; i < 1000; ++i) call += "N";
  EXPECT_NE(message("\x80\x02" + call + "tR.").find("more arguments"), std::string::npos);
}

TEST(Torch, ALongStringThatManyPlacesShareIsNotCopiedToEach) {
  std::string text = "\x80\x02}(";
  const auto key = [](const std::string& s) { return "X" + test::little(static_cast<uint32_t>(s.size())) + s; };
  text += key("first") + key(std::string(100'000, 'x')) + "q" + std::string(1, '\0');
  for (int i = 0; i < 5000; ++i) text += key(std::to_string(i)) + "h" + std::string(1, '\0');
  const TemporaryFile file(zip({{"a/data.pkl", text + "u."}}));
  EXPECT_LT(TorchFile::open(file.path()).plain().dump().size(), 2'000'000U);
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
