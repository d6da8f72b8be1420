// Configurations whose every key takes hostile values: an SAE loads or is refused with an Error, and neither costs
// memory out of proportion to its few kilobytes.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "base/file.h"
#include "formats/safetensors.h"
#include "saif/sae.h"
#include "support/hostile_json.h"

namespace saif {
namespace {

namespace fs = std::filesystem;

class HostileSae : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/saif_hostile_" + std::to_string(getpid()) + "/layers.3";
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(fs::path(folder_).parent_path()); }

  void write(const std::string& name, const std::vector<std::pair<std::string, std::vector<int64_t>>>& shapes,
             float value = 0.5f) {
    std::vector<Tensor> tensors;
    std::vector<NamedTensor> named;
    tensors.reserve(shapes.size());
    for (const auto& [key, shape] : shapes) {
      Tensor& tensor = tensors.emplace_back(DType::kF32, shape);
      std::fill_n(tensor.as<float>(), tensor.elements(), value);
      named.push_back({key, tensor.view()});
    }
    write_safetensors(folder_ + "/" + name, named);
  }

  // Whether it loads. Anything but an Error fails the test by itself.
  bool loads() {
    try {
      const auto sae = Sae::load(folder_);
      const SaeConfig& config = sae->config();
      if (config.d_in > 1024 || config.d_sae > 1024) ADD_FAILURE() << "larger than its tensors";
      Tensor x = Tensor::zeros(DType::kF32, {1, config.d_in});
      x.as<float>()[0] = 1.0f;
      (void)sae->decode(sae->encode(x.f32()), x.f32());
      return true;
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
      return false;
    }
  }

  void try_all(const std::string& file, const Json& good) {
    write_json_file(folder_ + "/" + file, good);
    ASSERT_TRUE(loads());
    const int64_t before = test::peak_memory();
    for (const std::string& text : test::hostile_variants(good)) {
      write_file_atomically(folder_ + "/" + file, text);
      (void)loads();
    }
    EXPECT_LT(test::peak_memory() - before, test::kMayGrow);
  }

  std::string folder_;
};

TEST_F(HostileSae, SaeLensConfigurations) {
  write("sae_weights.safetensors",
        {{"W_enc", {6, 10}}, {"W_dec", {10, 6}}, {"b_enc", {10}}, {"b_dec", {6}}, {"threshold", {10}}});
  const Json metadata = Json::object({{"model_name", "m"}, {"hook_name", "blocks.1.hook_resid_post"}, {"l0", 3}});
  Json config = Json::object({{"d_in", 6},
                              {"d_sae", 10},
                              {"architecture", "jumprelu"},
                              {"dtype", "float32"},
                              {"apply_b_dec_to_input", true},
                              {"normalize_activations", "layer_norm"},
                              {"reshape_activations", "none"},
                              {"metadata", metadata}});
  try_all("cfg.json", config);
  write("sae_weights.safetensors", {{"W_enc", {6, 10}}, {"W_dec", {10, 6}}, {"b_enc", {10}}, {"b_dec", {6}}});
  config["architecture"] = "topk";
  config["k"] = 3;
  try_all("cfg.json", config);
  write("sae_weights.safetensors", {{"W_dec", {10, 6}}, {"b_dec", {6}}});
  try_all("cfg.json", Json::object({{"d_in", 6},
                                    {"d_sae", 10},
                                    {"architecture", "matching_pursuit"},
                                    {"residual_threshold", 0.01},
                                    {"max_iterations", 4},
                                    {"stop_on_duplicate_support", true},
                                    {"metadata", Json::object()}}));
}

TEST_F(HostileSae, SparsifyConfigurations) {
  write("sae.safetensors", {{"encoder.weight", {10, 6}}, {"encoder.bias", {10}}, {"W_dec", {10, 6}}, {"b_dec", {6}}});
  try_all("cfg.json", Json::object({{"activation", "topk"},
                                    {"expansion_factor", 4},
                                    {"num_latents", 10},
                                    {"k", 5},
                                    {"skip_connection", false},
                                    {"transcode", false},
                                    {"d_in", 6}}));
}

TEST_F(HostileSae, LlamaScopeConfigurations) {
  fs::create_directories(folder_ + "/checkpoints");
  write("checkpoints/final.safetensors",
        {{"encoder.weight", {12, 6}}, {"encoder.bias", {12}}, {"decoder.weight", {6, 12}}, {"decoder.bias", {6}}});
  try_all("hyperparams.json",
          Json::object({{"act_fn", "jumprelu"},
                        {"d_model", 6},
                        {"expansion_factor", 2},
                        {"hook_point_in", "blocks.1.hook_resid_post"},
                        {"jump_relu_threshold", 0.5},
                        {"norm_activation", "dataset-wise"},
                        {"dataset_average_activation_norm", Json::object({{"in", 2.0}, {"out", 2.0}})}}));
}

TEST_F(HostileSae, WeightsThatAreNotFiniteAreNamed) {
  write_json_file(
      folder_ + "/cfg.json",
      Json::object({{"d_in", 6}, {"d_sae", 10}, {"architecture", "standard"}, {"metadata", Json::object()}}));
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    write("sae_weights.safetensors", {{"W_enc", {6, 10}}, {"W_dec", {10, 6}}, {"b_enc", {10}}, {"b_dec", {6}}}, value);
    EXPECT_FALSE(loads());
  }
}

}  // namespace
}  // namespace saif
