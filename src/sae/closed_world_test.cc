// What a file or its place says and saif does not follow is refused by name; what changes nothing is read.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "base/file.h"
#include "base/rng.h"
#include "formats/safetensors.h"
#include "sae/row_fit.h"
#include "saif/sae.h"
#include "support/archives.h"
#include "support/message_of.h"

namespace saif {
namespace {

using test::message_of;

namespace fs = std::filesystem;

constexpr int64_t kIn = 6, kLatents = 10;

std::string load_error(const std::string& path) {
  return message_of([&] { Sae::load(path); });
}

void expect_names(const std::string& message, const std::vector<std::string>& words) {
  for (const std::string& word : words)
    EXPECT_NE(message.find(word), std::string::npos) << message << " lacks " << word;
}

class ClosedWorld : public testing::Test {
 protected:
  // One member of a torch file: a tensor of float32 or, in `integers`, of int64.
  struct Member {
    std::string name;
    const Tensor* tensor = nullptr;
    std::vector<int64_t> integers = {};
  };

  ClosedWorld() : folder_(testing::TempDir() + "/saif_closed_" + std::to_string(getpid())), rng_(11) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    w_enc_ = random({kIn, kLatents});
    w_enc_rows_ = random({kLatents, kIn});
    w_dec_ = random({kLatents, kIn});
    w_dec_columns_ = random({kIn, kLatents});
    b_enc_ = random({kLatents});
    b_dec_ = random({kIn});
    threshold_ = random({kLatents});
    for (int64_t j = 0; j < kLatents; ++j) threshold_.as<float>()[j] = std::abs(threshold_.as<float>()[j]);
  }
  ~ClosedWorld() override { fs::remove_all(folder_); }

  Tensor random(std::vector<int64_t> shape) {
    Tensor out(DType::kF32, std::move(shape));
    for (int64_t i = 0; i < out.elements(); ++i) out.as<float>()[i] = static_cast<float>(rng_.normal());
    return out;
  }

  std::string make_folder(const std::string& name) {
    fs::create_directories(folder_ + "/" + name);
    return folder_ + "/" + name;
  }

  static std::string raw(const Tensor& t) { return {static_cast<const char*>(t.data()), t.bytes()}; }

  static void write_torch(const std::string& path, const std::vector<Member>& members, const std::string& others = "") {
    std::vector<test::TorchTensor> described;
    std::vector<std::pair<std::string, std::string>> files = {{"a/data.pkl", ""}};
    for (const Member& member : members) {
      test::TorchTensor t{member.name, "FloatStorage", std::to_string(described.size()), 0, 0, {}, {}};
      std::string data;
      if (member.tensor != nullptr) {
        t.elements = static_cast<int32_t>(member.tensor->elements());
        int32_t stride = t.elements;
        for (const int64_t n : member.tensor->shape()) {
          t.shape.push_back(static_cast<int32_t>(n));
          t.strides.push_back(stride /= static_cast<int32_t>(n));
        }
        data = raw(*member.tensor);
      } else {
        t.storage = "LongStorage";
        t.elements = static_cast<int32_t>(member.integers.size());
        if (t.elements > 1) {
          t.shape = {t.elements};
          t.strides = {1};
        }
        for (const int64_t v : member.integers) data += test::little(v);
      }
      files.emplace_back("a/data/" + t.key, data);
      described.push_back(std::move(t));
    }
    files[0].second = test::torch_pickle(described, others);
    write_file_atomically(path, test::zip(files));
  }

  static std::string numpy(const Tensor& t) {
    std::string shape = "(";
    for (const int64_t n : t.shape()) shape += std::to_string(n) + ",";
    return test::npy("<f4", shape + ")", raw(t));
  }

  std::string gemma_scope(const std::string& place) {
    const std::string path = make_folder(place);
    write_file_atomically(path + "/params.npz", test::zip({{"W_enc.npy", numpy(w_enc_)},
                                                           {"W_dec.npy", numpy(w_dec_)},
                                                           {"b_enc.npy", numpy(b_enc_)},
                                                           {"b_dec.npy", numpy(b_dec_)},
                                                           {"threshold.npy", numpy(threshold_)}}));
    return path;
  }

  std::string gemma_scope_2(const std::string& place) {
    const std::string path = make_folder(place);
    write_safetensors(path + "/params.safetensors", std::vector<NamedTensor>{{"w_enc", w_enc_.view()},
                                                                             {"w_dec", w_dec_.view()},
                                                                             {"b_enc", b_enc_.view()},
                                                                             {"b_dec", b_dec_.view()},
                                                                             {"threshold", threshold_.view()}});
    return path;
  }

  std::string qwen_scope(const std::string& place) {
    const std::string path = make_folder(place) + "/layer5.sae.pt";
    write_torch(path, {{"W_enc", &w_enc_rows_}, {"b_enc", &b_enc_}, {"W_dec", &w_dec_columns_}, {"b_dec", &b_dec_}});
    return path;
  }

  std::string goodfire(const std::string& others) {
    const std::string path = folder_ + "/X-SAE-l3.pt";
    write_torch(path,
                {{"encoder_linear.weight", &w_enc_rows_},
                 {"encoder_linear.bias", &b_enc_},
                 {"decoder_linear.weight", &w_dec_columns_},
                 {"decoder_linear.bias", &b_dec_}},
                others);
    return path;
  }

  // dictionary_learning's ae.pt of torch Linear modules, with further members, and config.json.
  std::string dictionary(const std::string& dict_class, std::vector<Member> more, const Json& k) {
    more.insert(more.begin(), {{"encoder.weight", &w_enc_rows_},
                               {"encoder.bias", &b_enc_},
                               {"decoder.weight", &w_dec_columns_},
                               {"b_dec", &b_dec_}});
    return dictionary_of(dict_class, more, k);
  }

  std::string dictionary_of(const std::string& dict_class, const std::vector<Member>& members, const Json& k) {
    write_torch(folder_ + "/ae.pt", members);
    Json trainer = Json::object({{"dict_class", dict_class}, {"activation_dim", kIn}, {"dict_size", kLatents}});
    if (!k.is_null()) trainer["k"] = k;
    write_json_file(folder_ + "/config.json", Json::object({{"trainer", trainer}}));
    return folder_;
  }

  // A SAELens folder with the tensors that its architecture needs and those of `more`.
  std::string sae_lens(const Json& config, std::vector<NamedTensor> more = {}) {
    const std::string path = make_folder("lens");
    const Json* name = config.find("architecture");
    const std::string architecture = name == nullptr ? "standard" : name->as_string();
    more.push_back({"W_dec", w_dec_.view()});
    more.push_back({"b_dec", b_dec_.view()});
    if (architecture != "matching_pursuit") more.push_back({"W_enc", w_enc_.view()});
    if (architecture == "gated") {
      for (const char* vector : {"b_gate", "b_mag", "r_mag"}) more.push_back({vector, b_enc_.view()});
    } else if (architecture != "matching_pursuit") {
      more.push_back({"b_enc", b_enc_.view()});
    }
    if (architecture == "jumprelu") more.push_back({"threshold", threshold_.view()});
    write_safetensors(path + "/sae_weights.safetensors", more);
    write_json_file(path + "/cfg.json", config);
    return path;
  }

  static Json lens_config(const std::string& architecture) {
    return Json::object({{"d_in", kIn},
                         {"d_sae", kLatents},
                         {"architecture", architecture},
                         {"metadata", Json::object({{"sae_lens_version", "6.1.0"}})}});
  }

  static Json legacy_config() {
    return Json::object({{"d_in", kIn},
                         {"d_sae", kLatents},
                         {"hook_name", "blocks.3.hook_resid_post"},
                         {"finetuning_scaling_factor", false}});
  }

  std::string folder_;
  Rng rng_;
  Tensor w_enc_, w_enc_rows_, w_dec_, w_dec_columns_, b_enc_, b_dec_, threshold_;
};

// --- numbers

TEST_F(ClosedWorld, RowsThatAreNotFiniteAreRefusedByRowAndColumn) {
  const auto sae = Sae::load(sae_lens(lens_config("standard")));
  const Tensor clean = random({2300, kIn});
  EXPECT_EQ(message_of([&] { (void)measure_fidelity(*sae, clean.f32()); }), "");
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    Tensor x = convert(clean.view(), DType::kF32);
    x.f32()(2201, 5) = x.f32()(2202, 0) = bad;
    expect_names(message_of([&] { (void)sae->encode(x.f32()); }), {"row 2201", "column 5"});
    expect_names(message_of([&] { (void)measure_fidelity(*sae, x.f32()); }), {"row 2201", "column 5"});
    expect_names(message_of([&] { (void)measure_fidelity(*sae, clean.f32(), x.f32()); }), {"row 2201", "column 5"});
    try {
      (void)sae->encode(x.f32());
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::kInvalidArgument);
    }
  }
  Tensor large = convert(clean.view(), DType::kF32);
  large.f32()(3, 3) = std::numeric_limits<float>::max();  // finite
  EXPECT_EQ(message_of([&] { (void)sae->encode(large.f32()); }), "");
}

TEST_F(ClosedWorld, NoFractionOfWhatIsNoNumberIsPerfect) {
  const double nan = std::nan("");
  EXPECT_EQ(fraction_unexplained(0, 0), 0);
  EXPECT_EQ(fraction_unexplained(1, 0), INFINITY);
  for (const auto& [error, variance] : {std::pair{nan, nan}, {0.0, nan}, {nan, 0.0}, {nan, 1.0}}) {
    EXPECT_FALSE(fraction_unexplained(error, variance) <= 1) << error << " of " << variance;
  }
}

// --- places

TEST_F(ClosedWorld, GemmaScopeTakesTheNearestNamesOfItsPath) {
  const std::string parents = "embedding/gemma-scope-9b-it-mlp/layer_3/width_16k/average_l0_7/";
  const std::string place = "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_17";
  const auto plain = Sae::load(gemma_scope(place)), nested = Sae::load(gemma_scope(parents + place));
  for (const auto& sae : {plain, nested}) {
    EXPECT_EQ(sae->config().model, "google/gemma-2-2b");
    EXPECT_EQ(sae->config().site, "blocks.12.hook_resid_post");
    EXPECT_EQ(sae->config().published_l0, 17.0);
  }
  const Tensor x = random({20, kIn});
  EXPECT_EQ(nested->encode(x.f32()).values, plain->encode(x.f32()).values);
  const auto embedding =
      Sae::load(gemma_scope("gemma-scope-2b-pt-res/layer_12/gemma-scope-9b-pt-res/embedding/width_4k/average_l0_6"));
  EXPECT_EQ(embedding->config().site, "hook_embed");
  EXPECT_EQ(embedding->config().model, "google/gemma-2-9b");
  // A folder of that name elsewhere says nothing.
  EXPECT_EQ(Sae::load(gemma_scope("embedding/mine"))->config().site, "");
  const auto second =
      Sae::load(gemma_scope_2("gemma-scope-2-4b-it/mlp_out/layer_3_width_16k_l0_big/gemma-scope-2-1b-pt/resid_post/"
                              "layer_7_width_16k_l0_small"));
  EXPECT_EQ(second->config().model, "google/gemma-3-1b-pt");
  EXPECT_EQ(second->config().site, "blocks.7.hook_resid_post");
}

TEST_F(ClosedWorld, QwenScopeTakesTheNearestNameAndNoSecondK) {
  const std::string path = qwen_scope("compare-SAE-Res-Qwen3-8B-Base-W64K-L0_9/SAE-Res-Qwen3-1.7B-Base-W32K-L0_4");
  const auto sae = Sae::load(path);
  EXPECT_EQ(sae->config().k, 4);
  EXPECT_EQ(sae->config().model, "Qwen/Qwen3-1.7B-Base");
  const std::string config = path.substr(0, path.find_last_of('/')) + "/config.json";
  write_json_file(config, Json::object({{"k", 7}}));
  expect_names(load_error(path), {"k is 7", "4"});
  write_json_file(config, Json::object({{"k", 4}, {"top_k", 5}}));
  expect_names(load_error(path), {"top_k is 5", "4"});
  write_json_file(config, Json::object({{"top_k", 4}}));
  EXPECT_EQ(Sae::load(path)->config().k, 4);
}

// --- torch files

TEST_F(ClosedWorld, EntriesOfATorchFileThatAreNoTensorsAreRefusedByName) {
  const std::string k = std::string("K\x05", 2);
  expect_names(load_error(goodfire(test::pickled("activation") + test::pickled("TopK"))), {"\"activation\""});
  expect_names(load_error(goodfire(test::pickled("normalize") + "N")), {"\"normalize\""});
  expect_names(load_error(goodfire(k + test::pickled("x"))), {"no string"});
  EXPECT_EQ(load_error(goodfire(test::pickled("step") + k + test::pickled("epoch") + k)), "");
  const std::vector<Member> members = {
      {"W_enc", &w_enc_}, {"W_dec", &w_dec_}, {"b_enc", &b_enc_}, {"b_dec", &b_dec_}, {"threshold", &threshold_}};
  dictionary_of("JumpReluAutoEncoder", members, {});
  EXPECT_EQ(load_error(folder_), "");
  write_torch(folder_ + "/ae.pt", members, test::pickled("scale") + k);
  expect_names(load_error(folder_), {"\"scale\""});
}

TEST_F(ClosedWorld, DictionaryLearningTopK) {
  EXPECT_EQ(Sae::load(dictionary("AutoEncoderTopK", {{"k", nullptr, {3}}}, 3))->config().k, 3);
  expect_names(load_error(dictionary("AutoEncoderTopK", {{"k", nullptr, {3}}}, 4)), {"k is 4", "3"});
  // Old ones lie without the tensor.
  EXPECT_EQ(Sae::load(dictionary("AutoEncoderTopK", {}, 7))->config().k, 7);
  expect_names(load_error(dictionary("AutoEncoderTopK", {}, {})), {"\"k\" is missing"});
  expect_names(load_error(dictionary("AutoEncoderTopK", {}, kLatents + 1)), {"k is 11"});
}

TEST_F(ClosedWorld, DictionaryLearningBatchTopK) {
  const Tensor threshold = random({1});
  const std::vector<Member> more = {{"threshold", &threshold}, {"k", nullptr, {3}}};
  EXPECT_EQ(load_error(dictionary("BatchTopKSAE", more, 3)), "");
  expect_names(load_error(dictionary("BatchTopKSAE", more, 4)), {"k is 4", "3"});
}

TEST_F(ClosedWorld, DictionaryLearningMatryoshka) {
  const Tensor threshold = random({1});
  const auto load = [&](const std::vector<int64_t>& groups) {
    std::vector<Member> members = {{"W_enc", &w_enc_}, {"W_dec", &w_dec_},        {"b_enc", &b_enc_},
                                   {"b_dec", &b_dec_}, {"threshold", &threshold}, {"k", nullptr, {3}}};
    if (!groups.empty()) members.push_back({"group_sizes", nullptr, groups});
    return load_error(dictionary_of("MatryoshkaBatchTopKSAE", members, 3));
  };
  EXPECT_EQ(load({2, 8}), "");
  expect_names(load({}), {"group_sizes"});
  expect_names(load({2, 7}), {"group_sizes", "9", "10"});
  expect_names(load({12, -2}), {"group_sizes"});
  expect_names(load({std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::max(), 12}), {"group_sizes"});
}

TEST_F(ClosedWorld, OpenAiWithoutActivationIsRelu) {
  const std::string path = folder_ + "/6.pt";
  const std::vector<Member> members = {{"pre_bias", &b_dec_},
                                       {"latent_bias", &b_enc_},
                                       {"encoder.weight", &w_enc_rows_},
                                       {"decoder.weight", &w_dec_columns_}};
  write_torch(path, members);
  const auto sae = Sae::load(path);
  EXPECT_EQ(sae->config().kind, SaeKind::kStandard);
  EXPECT_EQ(sae->config().normalize, "none");
  write_torch(path, members, test::pickled("activation") + test::pickled("Identity"));
  expect_names(load_error(path), {"Identity"});
  write_torch(path, members, test::pickled("dead") + "N");
  expect_names(load_error(path), {"\"dead\""});
}

// --- SAELens

TEST_F(ClosedWorld, SaeLensRefusesWhatTheLibraryRefuses) {
  Json transcoder = lens_config("transcoder");
  transcoder["d_out"] = kIn;
  EXPECT_EQ(load_error(sae_lens(transcoder)), "");
  transcoder["apply_b_dec_to_input"] = true;
  expect_names(load_error(sae_lens(transcoder)), {"apply_b_dec_to_input"});
  Json heads = lens_config("standard");
  heads["reshape_activations"] = "hook_z";
  heads["metadata"]["hook_name"] = "blocks.3.attn.hook_z";
  EXPECT_EQ(load_error(sae_lens(heads)), "");
  heads["metadata"]["hook_name"] = "blocks.3.hook_resid_post";
  expect_names(load_error(sae_lens(heads)), {"reshape_activations", "blocks.3.hook_resid_post"});
  Json pursuit = lens_config("matching_pursuit");
  pursuit["max_iterations"] = Json();  // as many as the width
  EXPECT_EQ(load_error(sae_lens(pursuit)), "");
  pursuit["residual_threshold"] = Json();
  expect_names(load_error(sae_lens(pursuit)), {"residual_threshold"});
}

TEST_F(ClosedWorld, SaeLensScalersAreReadWhole) {
  Json config = lens_config("standard");
  config["normalize_activations"] = "expected_average_only_in";
  const std::string path = sae_lens(config), scaler = path + "/activation_scaler.json";
  write_json_file(scaler, Json::object({{"scaling_factor", 0.5}, {"has_whitening", false}}));
  EXPECT_EQ(load_error(path), "");
  write_json_file(scaler, Json::object({{"scaling_factor", 0.5}, {"has_whitening", true}}));
  expect_names(load_error(path), {"activation_scaler.json", "has_whitening"});
  write_json_file(scaler, Json::object({{"scaling_factor", 0.5}, {"shift", 1}}));
  expect_names(load_error(path), {"activation_scaler.json", "\"shift\""});
  // Not said: the library looks for the matrices.
  write_json_file(scaler, Json::object({{"scaling_factor", 0.5}}));
  EXPECT_EQ(load_error(path), "");
  write_file_atomically(path + "/activation_whitening.safetensors", "");
  expect_names(load_error(path), {"activation_whitening.safetensors"});
}

TEST_F(ClosedWorld, SaeLensTrainingCheckpointsAreRead) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> keys = {
      {"standard", {"decoder_init_norm", "l1_coefficient", "lp_norm", "l1_warm_up_steps"}},
      {"gated", {"decoder_init_norm", "l1_coefficient", "l1_warm_up_steps"}},
      {"topk", {"decoder_init_norm", "use_sparse_activations", "aux_loss_coefficient"}},
      {"abstopk", {"decoder_init_norm", "use_sparse_activations", "aux_loss_coefficient"}},
      {"jumprelu",
       {"decoder_init_norm", "jumprelu_init_threshold", "jumprelu_bandwidth", "jumprelu_sparsity_loss_mode",
        "l0_coefficient", "l0_warm_up_steps", "pre_act_loss_coefficient", "jumprelu_tanh_scale",
        "jumprelu_ste_to_input", "target_l0"}},
      {"matching_pursuit", {"decoder_init_norm"}}};
  for (const auto& [architecture, own] : keys) {
    Json config = lens_config(architecture);
    if (architecture.ends_with("topk")) config["k"] = 3;
    for (const std::string& key : own) config[key] = 0.5;
    const auto sae = Sae::load(sae_lens(config));
    EXPECT_EQ(sae->config().metadata.at("decoder_init_norm").as_double(), 0.5);
    config["topk_threshold_lr"] = 0.01;  // of another architecture
    expect_names(load_error(sae_lens(config)), {"topk_threshold_lr"});
  }
}

TEST_F(ClosedWorld, LegacyKeysThatTheLibraryKeepsAsideAreRead) {
  Json config = legacy_config();
  for (const char* key : {"hf_hook_name", "hf_hook_name_out", "resume", "decoder_heuristic_init_norm",
                          "log_activations_store_to_wandb", "log_optimizer_state_to_wandb", "log_weights_to_wandb",
                          "disable_concat_sequences", "sequence_separator_token", "output_path", "hook_layer_out"}) {
    config[key] = 1;
  }
  config["hook_name_out"] = "blocks.3.hook_resid_post";
  config["hook_head_index_out"] = Json();
  EXPECT_EQ(load_error(sae_lens(config)), "");
  config["hook_name_out"] = "blocks.3.hook_mlp_out";  // an autoencoder gives back what it reads
  expect_names(load_error(sae_lens(config)), {"hook_name_out", "blocks.3.hook_mlp_out"});
  config["architecture"] = "transcoder";
  config["apply_b_dec_to_input"] = false;
  EXPECT_EQ(Sae::load(sae_lens(config))->config().site_out, "blocks.3.hook_mlp_out");
  config["hook_head_index_out"] = 2;
  expect_names(load_error(sae_lens(config)), {"head"});
}

TEST_F(ClosedWorld, ScalingFactorsThatAreOnesChangeNothing) {
  Tensor factors = random({kLatents});
  for (int64_t j = 0; j < kLatents; ++j) factors.as<float>()[j] = 1.0f + (j % 2 == 0 ? 8e-6f : -8e-6f);
  Json config = legacy_config();
  EXPECT_EQ(load_error(sae_lens(config, {{"scaling_factor", factors.view()}})), "");
  config["finetuning_scaling_factor"] = true;  // the library takes it back for ones
  EXPECT_EQ(load_error(sae_lens(config, {{"scaling_factor", factors.view()}})), "");
  expect_names(load_error(sae_lens(config)), {"finetuning_scaling_factor"});
  factors.as<float>()[4] = 1.0001f;
  expect_names(load_error(sae_lens(config, {{"scaling_factor", factors.view()}})), {"finetuning_scaling_factor"});
  config["finetuning_scaling_factor"] = false;
  expect_names(load_error(sae_lens(config, {{"scaling_factor", factors.view()}})), {"\"scaling_factor\""});
}

}  // namespace
}  // namespace saif
