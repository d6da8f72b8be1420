// config.json whose every key takes hostile values: the model loads or is refused with an Error, at no cost in memory.
#include <gtest/gtest.h>

#include "base/file.h"
#include "model/loaded_model.h"
#include "support/hostile_json.h"
#include "support/tiny_model.h"

namespace saif {
namespace {

void try_all(const test::TinyModel& tiny, const std::string& name) {
  const std::string folder = tiny.write("hostile_" + name);
  const auto load = [&] { (void)load_model(folder, {"f32"}, [] { return make_ref_backend(); }); };
  ASSERT_NO_THROW(load());
  const int64_t before = test::peak_memory();
  int refused = 0;
  for (const std::string& text : test::hostile_variants(tiny.config)) {
    write_file_atomically(folder + "/config.json", text);
    try {
      load();
    } catch (const Error& error) {
      ++refused;
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    }
  }
  EXPECT_GT(refused, 100);
  EXPECT_LT(test::peak_memory() - before, test::kMayGrow);
}

TEST(HostileConfig, EveryKeyOfALlama) { try_all(test::TinyModel(), "llama"); }

TEST(HostileConfig, RopeScalingsOfALlama) {
  for (const char* type : {"linear", "yarn", "llama3", "longrope"}) {
    test::TinyModel tiny;
    Json rope = Json::object({{"rope_type", type}, {"factor", 2.0}, {"original_max_position_embeddings", 64}});
    if (std::string(type) == "llama3") {
      rope["low_freq_factor"] = 1.0;
      rope["high_freq_factor"] = 4.0;
    }
    if (std::string(type) == "longrope") {
      rope["short_factor"] = Json::Array{1.0, 2.0, 3.0};
      rope["long_factor"] = Json::Array{2.0, 3.0, 4.0};
    }
    if (std::string(type) == "linear") rope = Json::object({{"rope_type", type}, {"factor", 2.0}});
    tiny.config["rope_scaling"] = rope;
    try_all(tiny, type);
  }
}

}  // namespace
}  // namespace saif
