// Tiny models against what Transformers computes with them (tests' outside material, README in data/goldens).
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>

#include "formats/safetensors.h"
#include "support/paths.h"
#include "support/run_model.h"

namespace saif {
namespace {

using test::distance;
using test::Recorder;
using test::Sequence;
using test::shared_dir;

std::vector<int32_t> ids_of(const TensorView& view) {
  const auto* from = static_cast<const int64_t*>(view.data);
  return {from, from + view.elements()};
}

std::span<const float> floats_of(const TensorView& view) {
  return {static_cast<const float*>(view.data), static_cast<size_t>(view.elements())};
}

std::vector<int32_t> first(std::vector<int32_t> ids, size_t n) {
  ids.resize(n);
  return ids;
}

bool is_site(const std::string& name) {
  return name.starts_with("blocks.") || name == "hook_embed" || name == "ln_final.hook_normalized" || name == "logits";
}

// A folder that shows `config` as config.json beside the links to the other files.
std::string with_config(const std::string& model, const std::string& config, const std::string& name) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(testing::TempDir()) / name;
  fs::remove_all(folder);
  fs::create_directories(folder);
  for (const auto& entry : fs::directory_iterator(model)) {
    if (entry.path().filename() != "config.json") fs::create_symlink(entry.path(), folder / entry.path().filename());
  }
  fs::create_symlink(config, folder / "config.json");
  return folder.string();
}

struct Case {
  std::string label;
  std::string model;   // under data/
  std::string golden;  // under data/
  std::string config;  // under data/; in place of the model's own
  double bf16 = 0;     // the most that rounding activations to bfloat16 may move the logits
};

class Golden : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    SAIF_REQUIRE_SHARED("data/" + GetParam().golden);
    golden_.emplace(SafetensorsFile::open(shared_dir("data/" + GetParam().golden)));
  }
  std::shared_ptr<const Model> load(const std::string& dtype) {
    const Case& c = GetParam();
    std::string path = shared_dir("data/" + c.model);
    if (!c.config.empty()) path = with_config(path, shared_dir("data/" + c.config), "saif_golden_" + c.label);
    return Model::load(path, {dtype});
  }
  const SafetensorsFile& golden() const { return *golden_; }

 private:
  std::optional<SafetensorsFile> golden_;
};

TEST_P(Golden, EverySiteInFloat32) {
  const auto model = load("f32");
  Forward forward(model);
  Recorder recorder;
  Sequence(forward, model->architecture()).append(ids_of(golden().at("ids")), {&recorder});
  int sites = 0;
  for (const std::string& name : golden().names()) {
    if (!is_site(name)) continue;
    EXPECT_LE(distance(recorder.all(name), floats_of(golden().at(name))), 2e-4) << name;
    ++sites;
  }
  EXPECT_GE(sites, 1);
}

TEST_P(Golden, LogitsWithoutAnObserver) {
  const auto model = load("f32");
  Forward forward(model);
  const std::vector<float> logits = Sequence(forward, model->architecture()).append(ids_of(golden().at("ids")));
  EXPECT_LE(distance(logits, floats_of(golden().at("logits"))), 2e-4);
}

TEST_P(Golden, LogitsInBfloat16) {
  const auto model = load("bf16");
  ASSERT_EQ(model->dtype(), "bf16");
  Forward forward(model);
  const std::vector<float> logits = Sequence(forward, model->architecture()).append(ids_of(golden().at("ids")));
  EXPECT_LE(distance(logits, floats_of(golden().at("logits"))), GetParam().bf16);
}

class GoldenGreedy : public Golden {};

TEST_P(GoldenGreedy, Ids) {
  const auto model = load("f32");
  Forward forward(model);
  const std::vector<int32_t> expected = ids_of(golden().at("greedy"));
  const std::vector<int32_t> prompt = first(ids_of(golden().at("ids")), 16);
  EXPECT_EQ(Sequence(forward, model->architecture()).greedy(prompt, static_cast<int64_t>(expected.size())), expected);
}

class GoldenSteered : public Golden {};

TEST_P(GoldenSteered, LogitsAndIds) {
  const auto model = load("f32");
  Forward forward(model);
  const std::span<const float> vector = floats_of(golden().at("steer_vector"));
  test::RowEditor editor(Site::parse("blocks.1.hook_resid_post"), [&](const RowInfo& row, std::span<float> h) {
    for (size_t i = 0; row.position >= 15 && i < h.size(); ++i) h[i] += vector[i];
  });
  const std::vector<int32_t> prompt = first(ids_of(golden().at("ids")), 16);
  const std::vector<float> logits = Sequence(forward, model->architecture()).append(prompt, {nullptr, &editor}, true);
  EXPECT_LE(distance(logits, floats_of(golden().at("steered_logits"))), 2e-4);
  const std::vector<int32_t> expected = ids_of(golden().at("steered_greedy"));
  EXPECT_EQ(Sequence(forward, model->architecture())
                .greedy(prompt, static_cast<int64_t>(expected.size()), {nullptr, &editor}),
            expected);
}

Case family(const std::string& label, const std::string& name, const std::string& config, double bf16) {
  const std::string folder = "goldens/" + name;
  return {label, folder + "/model", folder + "/golden.safetensors", config.empty() ? "" : folder + "/" + config, bf16};
}

// Rounding moves what llama.cpp computes, which rounds activations too, by up to .032 here.
Case quantised(const std::string& type) {
  const std::string stem = "goldens/gguf/llama-" + type;
  std::string label = type;
  std::ranges::replace(label, '-', '_');
  return {label, stem + ".gguf", stem + ".safetensors", "", 0.05};
}

const Case kFamilies[] = {
    family("llama", "llama", "", 0.077),
    family("llama_v4", "llama", "config_v4.json", 0.077),
    family("mistral", "mistral", "", 0.05),
    family("mistral_v4", "mistral", "config_v4.json", 0.05),
    {"llama_gguf", "goldens/gguf/llama-f32.gguf", "goldens/llama/golden.safetensors", "", 0.077},
};
const Case kQuantised[] = {quantised("q32-F16"),  quantised("q32-BF16"), quantised("q32-Q8_0"),
                           quantised("q32-Q4_0"), quantised("q32-Q5_0"), quantised("q256-Q4_K_M"),
                           quantised("q256-Q6_K")};
// No greedy ids in the golden.
const Case kOthers[] = {quantised("q32-Q4_1"),
                        quantised("q32-Q5_1"),
                        {"stories260K", "models/stories260K", "models/stories260K/golden.safetensors", "", 0.05}};

std::string label(const testing::TestParamInfo<Case>& info) { return info.param.label; }
INSTANTIATE_TEST_SUITE_P(Families, Golden, testing::ValuesIn(kFamilies), label);
INSTANTIATE_TEST_SUITE_P(Quantised, Golden, testing::ValuesIn(kQuantised), label);
INSTANTIATE_TEST_SUITE_P(Others, Golden, testing::ValuesIn(kOthers), label);
INSTANTIATE_TEST_SUITE_P(Families, GoldenGreedy, testing::ValuesIn(kFamilies), label);
INSTANTIATE_TEST_SUITE_P(Quantised, GoldenGreedy, testing::ValuesIn(kQuantised), label);
INSTANTIATE_TEST_SUITE_P(Families, GoldenSteered, testing::ValuesIn(kFamilies), label);

TEST(GoldenStories, GreedyIdsOfEveryPrompt) {
  SAIF_REQUIRE_SHARED("data/models/stories260K");
  const auto model = Model::load(shared_dir("data/models/stories260K"), {"f32"});
  Forward forward(model);
  const Json about = read_json_file(shared_dir("data/models/stories260K/golden.json"));
  for (const Json& item : about.at("cases").items()) {
    std::vector<int32_t> prompt, expected;
    for (const Json& id : item.at("prompt_ids").items()) prompt.push_back(static_cast<int32_t>(id.as_int()));
    for (const Json& id : item.at("greedy").items()) expected.push_back(static_cast<int32_t>(id.as_int()));
    EXPECT_EQ(Sequence(forward, model->architecture()).greedy(prompt, static_cast<int64_t>(expected.size())), expected)
        << item.at("prompt").as_string();
  }
}

TEST(GoldenGguf, AnotherFamilyIsNamed) {
  SAIF_REQUIRE_SHARED("data/goldens/gguf");
  const auto message = [](const std::string& file) -> std::string {
    try {
      Model::load(shared_dir("data/goldens/gguf/" + file), {"f32"});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message("qwen2-f16.gguf").find("\"qwen2\" is not implemented"), std::string::npos);
}

}  // namespace
}  // namespace saif
