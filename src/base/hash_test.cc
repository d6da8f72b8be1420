// SHA-256 against the vectors of FIPS 180-4, and the hashes of files that change.
#include "base/hash.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "base/file.h"
#include "saif/error.h"

namespace saif {
namespace {

TEST(Hash, VectorsOfTheStandard) {
  EXPECT_EQ(sha256_hex(std::string_view("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex(std::string_view("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(std::string_view(std::string(1'000'000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

class FileHash : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/saif_file_hash";
    make_directories(folder_);
    setenv("SAIF_CACHE", folder_.c_str(), 1);
  }
  void TearDown() override { unsetenv("SAIF_CACHE"); }

  std::string folder_;
};

TEST_F(FileHash, IsOfTheBytesAndFollowsThem) {
  const std::string path = folder_ + "/file";
  for (const std::string text : {"abc", "abcd", ""}) {
    write_file_atomically(path, text);
    EXPECT_EQ(file_sha256(path), sha256_hex(std::string_view(text)));
    EXPECT_EQ(file_sha256(path), sha256_hex(std::string_view(text)));  // remembered
  }
  EXPECT_TRUE(directory_exists(folder_ + "/sha256"));
}

TEST_F(FileHash, AMissingFileIsNamed) {
  try {
    (void)file_sha256(folder_ + "/none");
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("/none"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace saif
