// Every public format: golden files, hostile ones, and small ones written here byte by byte.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>

#include "base/file.h"
#include "base/rng.h"
#include "formats/safetensors.h"
#include "saif/sae.h"
#include "support/paths.h"

namespace saif {
namespace {

namespace fs = std::filesystem;

std::string temporary_folder(const std::string& name) {
  const std::string path = testing::TempDir() + "/saif_formats_" + std::to_string(getpid()) + "_" + name;
  fs::remove_all(path);
  fs::create_directories(path);
  return path;
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

Tensor dense(const SparseLatents& latents, int64_t d_sae) {
  Tensor out = Tensor::zeros(DType::kF32, {latents.rows(), d_sae});
  for (int64_t r = 0; r < latents.rows(); ++r) {
    for (int64_t i = latents.row_offsets[r]; i < latents.row_offsets[r + 1]; ++i) {
      out.f32()(r, latents.indices[i]) = latents.values[i];
    }
  }
  return out;
}

// The tolerance of the material's README: 1e-4 of the row's largest expected magnitude, plus 1e-5.
void expect_rows_near(Mat<const float> got, Mat<const float> expected, const std::string& what) {
  ASSERT_EQ(got.rows(), expected.rows()) << what;
  ASSERT_EQ(got.cols(), expected.cols()) << what;
  for (int64_t r = 0; r < got.rows(); ++r) {
    float largest = 0;
    for (int64_t c = 0; c < got.cols(); ++c) largest = std::max(largest, std::abs(expected(r, c)));
    for (int64_t c = 0; c < got.cols(); ++c) {
      ASSERT_NEAR(got(r, c), expected(r, c), 1e-4f * largest + 1e-5f) << what << " row " << r << " column " << c;
    }
  }
}

// Active where expected, apart from values below the tolerance.
void expect_same_support(Mat<const float> got, Mat<const float> expected, const std::string& what) {
  for (int64_t r = 0; r < got.rows(); ++r) {
    float largest = 0;
    for (int64_t c = 0; c < got.cols(); ++c) largest = std::max(largest, std::abs(expected(r, c)));
    const float tolerance = 1e-4f * largest + 1e-5f;
    for (int64_t c = 0; c < got.cols(); ++c) {
      if (std::max(std::abs(got(r, c)), std::abs(expected(r, c))) <= tolerance) continue;
      ASSERT_EQ(got(r, c) != 0, expected(r, c) != 0) << what << " row " << r << " column " << c;
    }
  }
}

void expect_golden(const Sae& sae, const std::string& folder) {
  const SafetensorsFile expected = SafetensorsFile::open(folder + "/expected.safetensors");
  const Tensor x = to_f32(expected.at("x")), wanted = to_f32(expected.at("latents"));
  const SparseLatents latents = sae.encode(x.f32());
  const Tensor got = dense(latents, sae.config().d_sae);
  expect_rows_near(got.f32(), wanted.f32(), folder + " latents");
  expect_same_support(got.f32(), wanted.f32(), folder + " latents");
  expect_rows_near(sae.decode(latents, x.f32()).f32(), to_f32(expected.at("recon")).f32(), folder + " recon");
}

struct Case {
  const char* folder;
  const char* format;
  const char* model;
  const char* site;
  const char* site_out;  // "": no transcoder
  bool saved;            // SAELens has an architecture for it
};

class PublicFormat : public testing::TestWithParam<Case> {};

TEST_P(PublicFormat, LatentsAndReconstruction) {
  const Case& c = GetParam();
  const std::string name = std::string("data/saes/") + c.folder;
  SAIF_REQUIRE_SHARED(name);
  const Json meta = read_json_file(test::shared_dir(name + "/meta.json"));
  const std::string path = test::shared_dir(name + "/" + meta.at("load").as_string());
  EXPECT_TRUE(Sae::recognises(path));
  const auto sae = Sae::load(path);
  EXPECT_EQ(sae->config().format, c.format);
  EXPECT_EQ(sae->config().model, c.model);
  EXPECT_EQ(sae->config().site, c.site);
  EXPECT_EQ(sae->config().site_out, c.site_out);
  EXPECT_EQ(sae->config().transcoder, c.site_out[0] != '\0');
  expect_golden(*sae, test::shared_dir(name));
  const std::string folder = temporary_folder(c.folder);
  if (c.saved) {
    sae->save(folder, DType::kF32);
    const auto again = Sae::load(folder);
    EXPECT_EQ(again->config().format, "sae_lens");
    expect_golden(*again, test::shared_dir(name));
  } else {
    EXPECT_NE(error_of([&] { sae->save(folder, DType::kF32); }).find("no architecture"), std::string::npos);
  }
  fs::remove_all(folder);
}

const Case kCases[] = {
    {"gemma_scope-res", "gemma_scope", "google/gemma-2-2b", "blocks.12.hook_resid_post", "", true},
    {"gemma_scope-att", "gemma_scope", "google/gemma-2-2b", "blocks.3.attn.hook_z", "", true},
    {"gemma_scope-embedding", "gemma_scope", "google/gemma-2-2b", "hook_embed", "", true},
    {"gemma_scope-transcoder", "gemma_scope", "google/gemma-2-2b", "blocks.5.ln2.hook_normalized",
     "blocks.5.hook_mlp_out", true},
    {"gemma_scope_2-resid_post", "gemma_scope_2", "google/gemma-3-1b-pt", "blocks.7.hook_resid_post", "", true},
    {"gemma_scope_2-no_config", "gemma_scope_2", "google/gemma-3-270m-pt", "blocks.11.hook_resid_post", "", true},
    {"gemma_scope_2-transcoder-affine", "gemma_scope_2", "google/gemma-3-1b-it", "blocks.5.ln2.hook_normalized",
     "blocks.5.hook_mlp_out", true},
    {"dictionary_learning-AutoEncoder", "dictionary_learning", "EleutherAI/pythia-70m-deduped",
     "blocks.8.hook_resid_post", "", true},
    {"dictionary_learning-AutoEncoderNew", "dictionary_learning", "EleutherAI/pythia-70m-deduped",
     "blocks.8.hook_resid_post", "", true},
    {"dictionary_learning-AutoEncoderTopK", "dictionary_learning", "EleutherAI/pythia-70m-deduped",
     "blocks.8.hook_resid_post", "", true},
    {"dictionary_learning-BatchTopKSAE", "dictionary_learning", "EleutherAI/pythia-70m-deduped",
     "blocks.8.hook_resid_post", "", true},
    {"dictionary_learning-MatryoshkaBatchTopKSAE", "dictionary_learning", "EleutherAI/pythia-70m-deduped",
     "blocks.8.hook_resid_post", "", true},
    {"dictionary_learning-JumpReluAutoEncoder", "dictionary_learning", "EleutherAI/pythia-70m-deduped",
     "blocks.8.hook_resid_post", "", true},
    {"dictionary_learning-GatedAutoEncoder", "dictionary_learning", "EleutherAI/pythia-70m-deduped",
     "blocks.8.hook_resid_post", "", true},
    {"sparsify-topk", "sparsify", "", "blocks.6.hook_resid_post", "", true},
    {"sparsify-groupmax", "sparsify", "", "blocks.6.hook_mlp_out", "", false},
    {"sparsify-transcode-skip", "sparsify", "", "blocks.3.ln2.hook_normalized", "blocks.3.hook_mlp_out", false},
    {"goodfire", "goodfire", "Llama-3.1-8B-Instruct", "blocks.19.hook_resid_post", "", true},
    {"deepseek_r1", "deepseek_r1", "DeepSeek-R1-Distill-Llama-8B", "blocks.19.hook_resid_post", "", true},
    {"openai-topk", "openai", "gpt2", "blocks.6.hook_resid_post", "", true},
    {"openai-relu", "openai", "gpt2", "blocks.3.hook_mlp_out", "", true},
    {"qwen_scope", "qwen_scope", "Qwen/Qwen3-1.7B-Base", "blocks.14.hook_resid_post", "", false},
    {"qwen_scope-negative_kept", "qwen_scope", "Qwen/Qwen3-8B-Base", "blocks.3.hook_resid_post", "", false},
    {"gpt2_hook_z_pt", "gpt2_hook_z", "gpt2-small", "blocks.0.attn.hook_z", "", true},
    {"llama_scope", "llama_scope", "", "blocks.15.hook_resid_post", "", true},
    {"llama_scope_r1_distill", "llama_scope_r1_distill", "", "blocks.5.hook_resid_post", "", true},
    {"llamascopium-jumprelu", "llamascopium", "", "blocks.9.hook_resid_post", "", true},
    {"llamascopium-topk", "llamascopium", "", "blocks.9.hook_resid_post", "", false},
    {"llamascopium-relu-glu", "llamascopium", "", "blocks.9.hook_resid_post", "", false},
    {"llamascopium-inference", "llamascopium", "", "blocks.9.hook_resid_post", "", false},
    {"layer_transcoder", "layer_transcoder", "Qwen/Qwen3-4B", "blocks.7.ln2.hook_normalized", "blocks.7.hook_mlp_out",
     true},
};

INSTANTIATE_TEST_SUITE_P(Sae, PublicFormat, testing::ValuesIn(kCases), [](const auto& test_case) {
  std::string name = test_case.param.folder;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

class HostileFile : public testing::TestWithParam<const char*> {};

TEST_P(HostileFile, IsRefusedByName) {
  const std::string name = std::string("data/saes/bad/") + GetParam();
  SAIF_REQUIRE_SHARED(name);
  const Json meta = read_json_file(test::shared_dir(name + "/meta.json"));
  const std::string path = test::shared_dir(name + "/" + meta.at("load").as_string());
  const std::string message = error_of([&] { Sae::load(path); });
  ASSERT_FALSE(message.empty()) << "was loaded";
  EXPECT_EQ(message.find('\n'), std::string::npos);
  for (const Json& word : meta.at("names").items()) {
    EXPECT_NE(message.find(word.as_string()), std::string::npos) << message << " lacks " << word.as_string();
  }
}

INSTANTIATE_TEST_SUITE_P(Sae, HostileFile,
                         testing::Values("npz_object_array", "pickle_os_system", "zip_path_traversal"));

}  // namespace
}  // namespace saif
