// Every public format: golden files, hostile ones, and small ones written here byte by byte.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "base/file.h"
#include "base/rng.h"
#include "formats/safetensors.h"
#include "saif/sae.h"
#include "support/archives.h"
#include "support/message_of.h"
#include "support/param_name.h"
#include "support/paths.h"

namespace saif {
namespace {

using test::message_of;

namespace fs = std::filesystem;

std::string temporary_folder(const std::string& name) {
  const std::string path = testing::TempDir() + "/saif_formats_" + std::to_string(getpid()) + "_" + name;
  fs::remove_all(path);
  fs::create_directories(path);
  return path;
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
    EXPECT_NE(message_of([&] { sae->save(folder, DType::kF32); }).find("no architecture"), std::string::npos);
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
  const std::string message = message_of([&] { Sae::load(path); });
  ASSERT_FALSE(message.empty()) << "was loaded";
  EXPECT_EQ(message.find('\n'), std::string::npos);
  for (const Json& word : meta.at("names").items()) {
    EXPECT_NE(message.find(word.as_string()), std::string::npos) << message << " lacks " << word.as_string();
  }
}

INSTANTIATE_TEST_SUITE_P(Sae, HostileFile,
                         testing::Values("npz_object_array", "pickle_os_system", "zip_path_traversal"),
                         test::param_name<const char*>);

// Small files of our own: what a loader must give is what the canonical SAE of the same weights gives.
constexpr int64_t kIn = 6, kLatents = 10;

class OwnFile : public testing::Test {
 protected:
  OwnFile() : folder_(temporary_folder("own")), rng_(5) {}
  ~OwnFile() override { fs::remove_all(folder_); }

  Tensor random(std::vector<int64_t> shape) {
    Tensor out(DType::kF32, std::move(shape));
    for (int64_t i = 0; i < out.elements(); ++i) out.as<float>()[i] = static_cast<float>(rng_.normal());
    return out;
  }

  SaeWeights weights() {
    SaeWeights w;
    w.w_enc = random({kLatents, kIn});
    w.b_enc = random({kLatents});
    w.w_dec = random({kLatents, kIn});
    w.b_dec = random({kIn});
    w.threshold = random({kLatents});
    return w;
  }

  static SaeConfig config(SaeKind kind, bool subtract) {
    SaeConfig out;
    out.kind = kind;
    out.d_in = out.d_out = kIn;
    out.d_sae = kLatents;
    out.k = 3;
    out.apply_b_dec_to_input = subtract;
    return out;
  }

  static std::string raw(const Tensor& t) { return {static_cast<const char*>(t.data()), t.bytes()}; }

  static Tensor transposed(const Tensor& t) {
    Tensor out(DType::kF32, {t.shape()[1], t.shape()[0]});
    for (int64_t r = 0; r < t.shape()[0]; ++r) {
      for (int64_t c = 0; c < t.shape()[1]; ++c) out.f32()(c, r) = t.f32()(r, c);
    }
    return out;
  }

  static std::string numpy(const Tensor& t) {
    std::string shape = "(";
    for (const int64_t n : t.shape()) shape += std::to_string(n) + ",";
    return test::npy("<f4", shape + ")", raw(t));
  }

  // A torch file of row-major float32 tensors, one storage each.
  static void write_torch(const std::string& path, const std::vector<std::pair<std::string, const Tensor*>>& tensors) {
    std::vector<test::TorchTensor> described;
    std::vector<std::pair<std::string, std::string>> members = {{"a/data.pkl", ""}};
    for (const auto& [name, tensor] : tensors) {
      test::TorchTensor t{name, "FloatStorage", std::to_string(described.size()), 0, 0, {}, {}};
      t.elements = static_cast<int32_t>(tensor->elements());
      int32_t stride = t.elements;
      for (const int64_t n : tensor->shape()) {
        t.shape.push_back(static_cast<int32_t>(n));
        t.strides.push_back(stride /= static_cast<int32_t>(n));
      }
      members.emplace_back("a/data/" + t.key, raw(*tensor));
      described.push_back(std::move(t));
    }
    members[0].second = test::torch_pickle(described);
    write_file_atomically(path, test::zip(members));
  }

  void expect_same(const Sae& got, const Sae& expected) {
    const Tensor x = random({40, kIn});
    const SparseLatents a = got.encode(x.f32()), b = expected.encode(x.f32());
    expect_rows_near(dense(a, kLatents).f32(), dense(b, kLatents).f32(), "latents");
    expect_rows_near(got.decode(a, x.f32()).f32(), expected.decode(b, x.f32()).f32(), "reconstruction");
  }

  std::string folder_;
  Rng rng_;
};

TEST_F(OwnFile, GemmaScope) {
  SaeWeights w = weights();
  const std::string path = folder_ + "/gemma-scope-9b-it-res/layer_20/width_16k/average_l0_91";
  fs::create_directories(path);
  std::vector<std::pair<std::string, std::string>> members = {{"W_enc.npy", numpy(transposed(w.w_enc))},
                                                              {"W_dec.npy", numpy(w.w_dec)},
                                                              {"b_enc.npy", numpy(w.b_enc)},
                                                              {"b_dec.npy", numpy(w.b_dec)},
                                                              {"threshold.npy", numpy(w.threshold)}};
  write_file_atomically(path + "/params.npz", test::zip(members));
  const auto sae = Sae::load(path);
  EXPECT_EQ(sae->config().site, "blocks.20.hook_resid_post");
  EXPECT_EQ(sae->config().model, "google/gemma-2-9b-it");
  EXPECT_EQ(sae->config().published_l0, 91.0);
  expect_same(*sae, *Sae::from_weights(config(SaeKind::kJumpRelu, false), std::move(w)));
  members.emplace_back("extra.npy", members.back().second);
  write_file_atomically(path + "/params.npz", test::zip(members));
  EXPECT_NE(message_of([&] { Sae::load(path); }).find("\"extra\""), std::string::npos);
}

TEST_F(OwnFile, Goodfire) {
  SaeWeights w = weights();
  const Tensor decoder = transposed(w.w_dec);
  const std::string path = folder_ + "/Llama-3.3-70B-Instruct-SAE-l50.pt";
  write_torch(path, {{"encoder_linear.weight", &w.w_enc},
                     {"encoder_linear.bias", &w.b_enc},
                     {"decoder_linear.weight", &decoder},
                     {"decoder_linear.bias", &w.b_dec}});
  const auto sae = Sae::load(path);
  EXPECT_EQ(sae->config().site, "blocks.50.hook_resid_post");
  expect_same(*sae, *Sae::from_weights(config(SaeKind::kStandard, false), std::move(w)));
}

TEST_F(OwnFile, QwenScopeNeedsItsK) {
  const SaeWeights w = weights();
  const Tensor decoder = transposed(w.w_dec);
  const std::string path = folder_ + "/layer4.sae.pt";
  write_torch(path, {{"W_enc", &w.w_enc}, {"b_enc", &w.b_enc}, {"W_dec", &decoder}, {"b_dec", &w.b_dec}});
  EXPECT_NE(message_of([&] { Sae::load(path); }).find("k is not known"), std::string::npos);
  write_json_file(folder_ + "/config.json", Json::object({{"k", kLatents}}));
  const auto sae = Sae::load(path);
  EXPECT_EQ(sae->config().site, "blocks.4.hook_resid_post");
  // With k of all latents nothing is selected, and negative ones stay: the SAE is linear.
  const Tensor x = random({3, kIn});
  const SparseLatents latents = sae->encode(x.f32());
  EXPECT_EQ(latents.mean_l0(), static_cast<double>(kLatents));
  EXPECT_LT(*std::min_element(latents.values.begin(), latents.values.end()), 0.0f);
}

TEST_F(OwnFile, DictionaryLearningAutoEncoderHasUnitDecoderRows) {
  SaeWeights w = weights();
  const Tensor decoder = transposed(w.w_dec);
  write_torch(
      folder_ + "/ae.pt",
      {{"encoder.weight", &w.w_enc}, {"encoder.bias", &w.b_enc}, {"decoder.weight", &decoder}, {"bias", &w.b_dec}});
  Json trainer = Json::object({{"dict_class", "AutoEncoder"}, {"activation_dim", kIn}, {"dict_size", kLatents}});
  write_json_file(folder_ + "/config.json", Json::object({{"trainer", trainer}}));
  const auto sae = Sae::load(folder_);
  for (const float norm : sae->decoder_norms()) EXPECT_NEAR(norm, 1.0f, 1e-5f);
  // The reconstruction is that of the weights as they lie in the file.
  const auto plain = Sae::from_weights(config(SaeKind::kStandard, true), std::move(w));
  const Tensor x = random({20, kIn});
  expect_rows_near(sae->decode(sae->encode(x.f32()), x.f32()).f32(),
                   plain->decode(plain->encode(x.f32()), x.f32()).f32(), "reconstruction");
  trainer["dict_class"] = "CrossCoder";
  write_json_file(folder_ + "/config.json", Json::object({{"trainer", trainer}}));
  EXPECT_NE(message_of([&] { Sae::load(folder_); }).find("CrossCoder"), std::string::npos);
}

TEST_F(OwnFile, SparsifyTranscoderAddsItsSkipConnection) {
  SaeWeights w = weights();
  const Tensor skip = random({kIn, kIn});
  const std::string path = folder_ + "/layers.2.mlp";
  fs::create_directories(path);
  Json options = Json::object({{"activation", "topk"}, {"k", 3}, {"num_latents", kLatents}, {"d_in", kIn}});
  options["transcode"] = options["skip_connection"] = true;
  write_json_file(path + "/cfg.json", options);
  write_safetensors(path + "/sae.safetensors", std::vector<NamedTensor>{{"encoder.weight", w.w_enc.view()},
                                                                        {"encoder.bias", w.b_enc.view()},
                                                                        {"W_dec", w.w_dec.view()},
                                                                        {"b_dec", w.b_dec.view()},
                                                                        {"W_skip", skip.view()}});
  const auto sae = Sae::load(path);
  EXPECT_EQ(sae->config().site, "blocks.2.ln2.hook_normalized");
  EXPECT_EQ(sae->config().site_out, "blocks.2.hook_mlp_out");
  const auto plain = Sae::from_weights(config(SaeKind::kTopK, false), std::move(w));
  const Tensor x = random({5, kIn});
  const SparseLatents latents = sae->encode(x.f32());
  Tensor expected = plain->decode(plain->encode(x.f32()), x.f32());
  for (int64_t r = 0; r < 5; ++r) {
    for (int64_t o = 0; o < kIn; ++o) {
      for (int64_t i = 0; i < kIn; ++i) expected.f32()(r, o) += skip.f32()(o, i) * x.f32()(r, i);
    }
  }
  expect_rows_near(sae->decode(latents, x.f32()).f32(), expected.f32(), "reconstruction");
  EXPECT_NE(message_of([&] { (void)sae->decode(latents, {}); }).find("W_skip"), std::string::npos);
  options["signed"] = true;
  write_json_file(path + "/cfg.json", options);
  EXPECT_NE(message_of([&] { Sae::load(path); }).find("signed"), std::string::npos);
}

TEST_F(OwnFile, ATranscoderIsComparedWithItsOutput) {
  SaeConfig c = config(SaeKind::kStandard, false);
  c.transcoder = true;
  const auto sae = Sae::from_weights(c, weights());
  const Tensor x = random({30, kIn});
  const Tensor y = sae->decode(sae->encode(x.f32()), x.f32());
  EXPECT_NEAR(measure_fidelity(*sae, x.f32(), y.f32()).fvu, 0.0, 1e-9);
  EXPECT_GT(measure_fidelity(*sae, x.f32()).fvu, 0.1);
  EXPECT_THROW((void)measure_fidelity(*sae, x.f32(), random({29, kIn}).f32()), Error);
}

TEST_F(OwnFile, TorchFilesOfUnknownLayoutNameTheirTensors) {
  const Tensor t = random({2, 2});
  write_torch(folder_ + "/x.pt", {{"mystery", &t}});
  EXPECT_NE(message_of([&] { Sae::load(folder_ + "/x.pt"); }).find("mystery"), std::string::npos);
  write_file_atomically(folder_ + "/x.pt", "\x80\x02 a legacy torch file");
  EXPECT_NE(message_of([&] { Sae::load(folder_ + "/x.pt"); }).find("x.pt"), std::string::npos);
}

}  // namespace
}  // namespace saif
