// Where tests find what is not in the repository, and how they skip by name when it is absent.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "base/file.h"

namespace saif::test {

// The folder of third-party test material, or a path in it: shared_dir("data/goldens/llama").
inline std::string shared_dir(const std::string& relative = "") {
  const std::string root = SAIF_SHARED_DIR;
  return relative.empty() ? root : root + "/" + relative;
}

// A file of this repository: source_dir("data/tasks").
inline std::string source_dir(const std::string& relative = "") {
  const std::string root = SAIF_SOURCE_DIR;
  return relative.empty() ? root : root + "/" + relative;
}

// The file behind a model's short name; it need not exist. "smollm2" is the only name so far.
inline std::string model_path(const std::string& short_name) {
  const std::string file = short_name == "smollm2" ? "SmolLM2-135M-Instruct.Q4_1.gguf" : short_name;
  return cache_directory() + "/models/" + file;
}

inline bool path_exists(const std::string& path) { return file_exists(path) || directory_exists(path); }

}  // namespace saif::test

// Macros, since GTEST_SKIP returns from the test that it stands in.
#define SAIF_REQUIRE_SHARED(relative)                                                             \
  do {                                                                                            \
    if (!saif::test::path_exists(saif::test::shared_dir(relative)))                               \
      GTEST_SKIP() << "needs the third-party test material " << saif::test::shared_dir(relative); \
  } while (false)

#define SAIF_REQUIRE_SMOLLM2()                                                                               \
  do {                                                                                                       \
    if (!saif::test::path_exists(saif::test::model_path("smollm2")))                                         \
      GTEST_SKIP() << "needs the model smollm2 at " << saif::test::model_path("smollm2") << " (make setup)"; \
  } while (false)
