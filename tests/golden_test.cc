// Tiny models against what Transformers computes with them (tests' outside material, README in data/goldens).
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "formats/safetensors.h"
#include "kernels/backend.h"
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
  return name.starts_with("blocks.") || name == "hook_embed" || name == "hook_pos_embed" ||
         name == "ln_final.hook_normalized" || name == "logits";
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
  bool own = false;    // under the project's tests/data/
  double bf16 = 0;     // the most that rounding activations to bfloat16 may move the logits; 0: what golden.json says
  std::string path(const std::string& name) const {
    return own ? std::string(SAIF_SOURCE_DIR) + "/tests/data/" + name : shared_dir("data/" + name);
  }
};

class Golden : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!GetParam().own) SAIF_REQUIRE_SHARED("data/" + GetParam().golden);
    golden_.emplace(SafetensorsFile::open(GetParam().path(GetParam().golden)));
  }
  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }
  std::shared_ptr<const Model> load(const std::string& dtype, const std::string& kv = "f32") {
    const Case& c = GetParam();
    std::string path = c.path(c.model);
    if (!c.config.empty()) {
      // Tests of one model run side by side.
      path = folder_ = with_config(path, c.path(c.config), "saif_golden_" + c.label + "_" + std::to_string(::getpid()));
    }
    return Model::load(path, {.dtype = dtype, .kv = kv});
  }
  const SafetensorsFile& golden() const { return *golden_; }
  // golden.json beside the tensors.
  static Json about() {
    const std::filesystem::path tensors = GetParam().path(GetParam().golden);
    return read_json_file((tensors.parent_path() / "golden.json").string());
  }

 private:
  std::optional<SafetensorsFile> golden_;
  std::string folder_;  // of with_config
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
  const double most =
      GetParam().bf16 > 0 ? GetParam().bf16 : about().at("tolerance").at("bfloat16_activations").as_double();
  EXPECT_LE(distance(logits, floats_of(golden().at("logits"))), most);
}

// Keys and values in bfloat16 alone, all else in float32: their rounding is all that differs, and edits and patterns
// are as they were.
TEST_P(Golden, LogitsFromKeysAndValuesInBfloat16) {
  const auto model = load("f32", "bf16");
  Forward forward(model);
  const std::vector<float> logits = Sequence(forward, model->architecture()).append(ids_of(golden().at("ids")));
  EXPECT_LE(distance(logits, floats_of(golden().at("logits"))), std::max(0.05, GetParam().bf16));
}

class GoldenBlocks : public Golden {};

// Matrices used as blocks where they lie give the bits of those widened at load, unless their codes are multiplied:
// then no weight is rounded, and the logits are at least as near to the exact ones.
TEST_P(GoldenBlocks, KeptOrWidened) {
  const std::vector<int32_t> ids = ids_of(golden().at("ids"));
  for (const std::string dtype : {"f32", "bf16"}) {
    const std::string path = GetParam().path(GetParam().model);
    const auto kept = Model::load(path, {dtype, "keep"}), widened = Model::load(path, {dtype, "widen"});
    EXPECT_LE(kept->bytes_per_weight(), widened->bytes_per_weight());
    Forward a(kept), b(widened);
    const std::vector<float> of_kept = Sequence(a, kept->architecture()).append(ids);
    const std::vector<float> of_widened = Sequence(b, widened->architecture()).append(ids);
    if (dtype == "bf16" && make_cpu_backend()->has_fast_bf16()) {
      EXPECT_LE(distance(of_kept, floats_of(golden().at("logits"))),
                1.1 * distance(of_widened, floats_of(golden().at("logits"))) + 0.005);
    } else {
      EXPECT_EQ(of_kept, of_widened) << dtype;
    }
  }
}

// What `auto` is depends on what it is for.
TEST_P(GoldenBlocks, AutoWidensForManyRows) {
  if (!make_cpu_backend()->has_fast_bf16()) GTEST_SKIP() << "blocks are widened here in any case";
  const auto bytes = [](const LoadOptions& options) {
    return Model::load(GetParam().path(GetParam().model), options)->bytes_per_weight();
  };
  EXPECT_EQ(bytes({}), bytes({.quantised = "keep"}));
  EXPECT_EQ(bytes({.many_rows = true}), bytes({.quantised = "widen"}));
  EXPECT_EQ(bytes({.quantised = "keep", .many_rows = true}), bytes({.quantised = "keep"}));
}

// Activations of 8 bits cost about what bfloat16's do.
TEST_P(GoldenBlocks, LogitsFromActivationsOf8Bits) {
  if (!make_cpu_backend()->has_int8()) GTEST_SKIP() << "this CPU has no dot products of 8 bits";
  const auto model = Model::load(GetParam().path(GetParam().model), {.quantised = "int8"});
  Forward forward(model);
  const std::vector<float> logits = Sequence(forward, model->architecture()).append(ids_of(golden().at("ids")));
  EXPECT_LE(distance(logits, floats_of(golden().at("logits"))), 0.1);
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
  const std::string site = about().at("steer_site").as_string();
  test::RowEditor editor(Site::parse(site), [&](const RowInfo& row, std::span<float> h) {
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

Case family(const std::string& name) {
  const std::string folder = "goldens/" + name;
  return {name, folder + "/model", folder + "/golden.safetensors", ""};
}

// The same with the config's keys as Transformers 4 spells them.
Case transformers4(const std::string& name) {
  Case c = family(name);
  c.label += "_v4";
  c.config = "goldens/" + name + "/config_v4.json";
  return c;
}

// A family's model converted to GGUF without loss.
Case gguf(const std::string& file, const std::string& name) {
  Case c = family(name);
  c.label += "_gguf";
  c.model = "goldens/gguf/" + file + ".gguf";
  return c;
}

// Rounding moves what llama.cpp computes, which rounds activations too, by up to .032 here.
Case quantised(const std::string& type) {
  const std::string stem = "goldens/gguf/llama-" + type;
  std::string label = type;
  std::ranges::replace(label, '-', '_');
  return {label, stem + ".gguf", stem + ".safetensors", "", false, 0.05};
}

const Case kFamilies[] = {
    family("llama"),
    family("mistral"),
    family("qwen2"),
    family("qwen3"),
    family("gemma"),
    family("gemma2"),
    family("gemma3_text"),
    family("phi3"),
    family("phi3_longrope"),
    family("gpt2"),
    family("gpt_neox"),
    transformers4("llama"),
    transformers4("mistral"),
    transformers4("qwen2"),
    transformers4("qwen3"),
    transformers4("gemma"),
    transformers4("gemma2"),
    transformers4("gemma3_text"),
    transformers4("phi3"),
    transformers4("phi3_longrope"),
    transformers4("gpt2"),
    transformers4("gpt_neox"),
    gguf("llama-f32", "llama"),
    gguf("qwen2-f16", "qwen2"),
    gguf("gpt2-f16", "gpt2"),
    gguf("phi3-f16", "phi3"),
};
// Made by tools/goldens: every folder under tests/data/goldens, with both spellings of its config, and as GGUF where
// llama.cpp's converter can say all of it.
std::vector<Case> own_families() {
  std::vector<Case> cases;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(SAIF_SOURCE_DIR) + "/tests/data/goldens")) {
    if (!entry.is_directory()) continue;
    const std::string name = entry.path().filename().string();
    Case as_gguf = family(name);
    as_gguf.label += "_gguf";
    as_gguf.model = "goldens/" + name + "/model-f32.gguf";
    for (Case c : {family(name), transformers4(name), as_gguf}) {
      c.own = true;
      c.label = "own_" + c.label;
      c.bf16 = 0.5;  // as far as these random weights amplify rounding
      if (std::filesystem::exists(c.path(c.config.empty() ? c.model : c.config))) cases.push_back(c);
    }
  }
  std::ranges::sort(cases, {}, &Case::label);
  return cases;
}

const Case kQuantised[] = {quantised("q32-F16"),  quantised("q32-BF16"), quantised("q32-Q8_0"),
                           quantised("q32-Q4_0"), quantised("q32-Q5_0"), quantised("q256-Q4_K_M"),
                           quantised("q256-Q6_K")};
// No greedy ids in the golden.
const Case kOthers[] = {
    quantised("q32-Q4_1"),
    quantised("q32-Q5_1"),
    {"gemma2_gguf", "goldens/gguf/gemma2-f16.gguf", "goldens/gguf/gemma2-f16.safetensors", "", false, 0.211},
    {"stories260K", "models/stories260K", "models/stories260K/golden.safetensors", "", false, 0.05}};

std::string label(const testing::TestParamInfo<Case>& info) { return info.param.label; }
INSTANTIATE_TEST_SUITE_P(Families, Golden, testing::ValuesIn(kFamilies), label);
INSTANTIATE_TEST_SUITE_P(Quantised, Golden, testing::ValuesIn(kQuantised), label);
INSTANTIATE_TEST_SUITE_P(Others, Golden, testing::ValuesIn(kOthers), label);
INSTANTIATE_TEST_SUITE_P(Families, GoldenGreedy, testing::ValuesIn(kFamilies), label);
INSTANTIATE_TEST_SUITE_P(Quantised, GoldenBlocks, testing::ValuesIn(kQuantised), label);
INSTANTIATE_TEST_SUITE_P(Own, Golden, testing::ValuesIn(own_families()), label);
INSTANTIATE_TEST_SUITE_P(Own, GoldenGreedy, testing::ValuesIn(own_families()), label);
INSTANTIATE_TEST_SUITE_P(Own, GoldenSteered, testing::ValuesIn(own_families()), label);
INSTANTIATE_TEST_SUITE_P(Quantised, GoldenGreedy, testing::ValuesIn(kQuantised), label);
INSTANTIATE_TEST_SUITE_P(Families, GoldenSteered, testing::ValuesIn(kFamilies), label);

TEST(GoldenStories, GreedyIdsOfEveryPrompt) {
  SAIF_REQUIRE_SHARED("data/models/stories260K");
  const auto model = Model::load(shared_dir("data/models/stories260K"), {"f32"});
  Forward forward(model);
  const Json about = read_json_file(shared_dir("data/models/stories260K/golden.json"));
  for (const Json& item : about.at("cases").items()) {
    std::vector<int32_t> prompt, expected;
    for (const Json& id : item.at("prompt_ids").items()) prompt.push_back(id.as<int32_t>());
    for (const Json& id : item.at("greedy").items()) expected.push_back(id.as<int32_t>());
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
  EXPECT_EQ(message("qwen2-f16.gguf"), "");
}

}  // namespace
}  // namespace saif
