// The program as a user meets it, and the small files that its tests feed to it.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/rng.h"
#include "formats/safetensors.h"
#include "saif/json.h"
#include "saif/sae.h"
#include "support/paths.h"
#include "support/run_program.h"
#include "support/tiny_model.h"

namespace saif::test {

using Words = std::vector<std::string>;

inline std::string saif_binary() { return std::string(SAIF_BINARY_DIR) + "/saif"; }

inline Words lines_of(const std::string& text) {
  Words out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    out.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

inline Words keys_of(const Json& object) {
  Words out;
  for (const auto& [key, value] : object.members()) out.push_back(key);
  return out;
}

inline Json parsed(const std::string& text) {
  Result<Json> json = parse_json(text);
  EXPECT_TRUE(json.ok()) << text;
  return json.ok() ? json.value() : Json();
}

inline std::vector<int32_t> ids_of(const Json& list) {
  std::vector<int32_t> out;
  for (const Json& id : list.items()) out.push_back(id.as<int32_t>());
  return out;
}

inline std::string joined(const std::vector<int32_t>& ids) {
  std::string out;
  for (const int32_t id : ids) out += (out.empty() ? "" : ",") + std::to_string(id);
  return out;
}

// A character-level tokenizer.json of 50 pieces: <s> (put in front), </s>, <unk>, lower-case letters, signs, digits.
inline Json character_tokenizer() {
  Json vocab = Json::object({{"<s>", 0}, {"</s>", 1}, {"<unk>", 2}});
  for (const char* piece : {"e", "t", "a", "o", "i", "n", "s", "h", "r", "d", "l", "u", "c", "m",        "w",       "f",
                            "g", "y", "p", "b", "v", "k", "j", "x", "q", "z", " ", ".", ",", "?",        "!",       "'",
                            "-", ":", ";", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "\xC3\xA9", "\xC3\xBC"}) {
    vocab[piece] = static_cast<int64_t>(vocab.size());
  }
  const auto special = [](int id, const char* text) {
    return Json::object({{"id", id},
                         {"content", text},
                         {"single_word", false},
                         {"lstrip", false},
                         {"rstrip", false},
                         {"normalized", false},
                         {"special", true}});
  };
  const Json bos = Json::object({{"SpecialToken", Json::object({{"id", "<s>"}, {"type_id", 0}})}});
  const auto text = [](const char* id) {
    return Json::object({{"Sequence", Json::object({{"id", id}, {"type_id", 0}})}});
  };
  const Json bos_ids =
      Json::object({{"id", "<s>"}, {"ids", std::vector<int32_t>{0}}, {"tokens", std::vector<std::string>{"<s>"}}});
  return Json::object({{"version", "1.0"},
                       {"truncation", nullptr},
                       {"padding", nullptr},
                       {"added_tokens", Json::Array{special(0, "<s>"), special(1, "</s>"), special(2, "<unk>")}},
                       {"normalizer", Json::object({{"type", "Lowercase"}})},
                       {"pre_tokenizer", nullptr},
                       {"post_processor", Json::object({{"type", "TemplateProcessing"},
                                                        {"single", Json::Array{bos, text("A")}},
                                                        {"pair", Json::Array{bos, text("A"), text("B")}},
                                                        {"special_tokens", Json::object({{"<s>", bos_ids}})}})},
                       {"decoder", Json::object({{"type", "Fuse"}})},
                       {"model", Json::object({{"type", "BPE"},
                                               {"dropout", nullptr},
                                               {"unk_token", "<unk>"},
                                               {"continuing_subword_prefix", nullptr},
                                               {"end_of_word_suffix", nullptr},
                                               {"fuse_unk", false},
                                               {"byte_fallback", false},
                                               {"vocab", vocab},
                                               {"merges", Json::array()}})}});
}

// Each test has a folder of its own, removed unless it failed.
class Cli : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(file_exists(saif_binary())) << "build it: ninja saif";
    folder_ = testing::TempDir() + "/saif_cli_XXXXXX";
    ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
  }
  void TearDown() override {
    if (!HasFailure()) std::filesystem::remove_all(folder_);
  }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  std::string file(const std::string& name, const std::string& bytes) const {
    write_file_atomically(path(name), bytes);
    return path(name);
  }

  static ProgramResult saif(const Words& words, ProgramOptions options = {}) {
    return run_program(saif_binary(), words, std::move(options));
  }
  // Runs; exit code 0 is a must.
  static ProgramResult good(const Words& words) {
    ProgramResult result = saif(words);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result;
  }
  // The last line of standard output as JSON.
  static Json json(Words words) {
    words.emplace_back("--json");
    const Words lines = lines_of(good(words).out);
    EXPECT_FALSE(lines.empty());
    return lines.empty() ? Json::object() : parsed(lines.back());
  }
  static void expect_error(const ProgramResult& result, int exit_code, const Words& named) {
    EXPECT_EQ(result.exit_code, exit_code) << result.err << (result.timed_out ? "timed out" : "");
    const Words lines = lines_of(result.err);
    ASSERT_FALSE(lines.empty());
    EXPECT_TRUE(lines.back().starts_with("saif: error: ")) << result.err;
    EXPECT_EQ(std::count_if(lines.begin(), lines.end(), [](const auto& l) { return l.starts_with("saif: error"); }), 1)
        << result.err;
    for (const std::string& word : named) EXPECT_NE(lines.back().find(word), std::string::npos) << result.err;
  }
  // One line on standard error, nothing on standard output.
  static void bad(const Words& words, int exit_code, const Words& named, ProgramOptions options = {}) {
    SCOPED_TRACE(testing::PrintToString(words));
    const ProgramResult result = saif(words, std::move(options));
    expect_error(result, exit_code, named);
    EXPECT_EQ(lines_of(result.err).size(), 1U) << result.err;
    EXPECT_EQ(result.out, "");
  }

  // A random model whose tokenizer has 50 pieces; generates until it is told to stop.
  std::string model(const std::string& name = "model", const std::string& key = "", const Json& value = {}) const {
    const std::string out = path(name);
    if (directory_exists(out)) return out;
    TinyModel tiny(7);
    tiny.config["max_position_embeddings"] = 4096;
    if (!key.empty()) tiny.config[key] = value;
    std::filesystem::rename(tiny.write(std::filesystem::path(folder_).filename().string() + name), out);
    write_json_file(out + "/tokenizer.json", character_tokenizer());
    return out;
  }

  static std::shared_ptr<const Sae> random_sae(int64_t d_in, int64_t d_sae, const std::string& site,
                                               const std::string& of_model) {
    auto random = [rng = Rng(5)](std::vector<int64_t> shape, double deviation) mutable {
      Tensor t(DType::kF32, std::move(shape));
      for (float& v : std::span(t.as<float>(), static_cast<size_t>(t.elements())))
        v = static_cast<float>(deviation * rng.normal());
      return t;
    };
    SaeConfig config;
    config.d_in = config.d_out = d_in;
    config.d_sae = d_sae;
    config.k = 8;
    config.site = site;
    config.model = of_model;
    config.format = "sae_lens";
    SaeWeights weights = {random({d_sae, d_in}, 0.2), random({d_sae}, 0.1), random({d_sae, d_in}, 0.2),
                          random({d_in}, 0.1), Tensor()};
    return Sae::from_weights(config, std::move(weights));
  }
  std::string sae(const std::string& name = "sae", int64_t d_in = 24, const std::string& site = kSite,
                  const std::string& of_model = "") const {
    random_sae(d_in, 64, site, of_model)->save(path(name), DType::kF32);
    return path(name);
  }
  std::string vector(const std::string& name, int64_t width, const std::string& site) const {
    const std::vector<float> v(static_cast<size_t>(width), 0.5F);
    const NamedTensor tensor = {"vector", {DType::kF32, {width}, v.data()}};
    write_tensor_file(path(name), {&tensor, 1}, {{"saif.site", site}});
    return path(name);
  }
  std::string task() const {
    const Json task =
        Json::object({{"name", "shout"},
                      {"title", "Shout"},
                      {"instructions", Json::object({{"en", Words{"be loud.", "please shout.", "shout it."}}})},
                      {"unrelated", Words{"take your time.", "be polite.", "think first."}},
                      {"verifier", Json::object({{"name", "prefix"}, {"args", Json::object({{"text", "a"}})}})}});
    write_json_file(path("shout.json"), task);
    return path("shout.json");
  }
  std::string contents() const {
    std::string lines;
    for (const char* split : {"discovery", "tuning", "test"}) {
      for (int i = 0; i < 8; ++i) {
        const std::string id = std::string(split) + std::to_string(i);
        const Json line =
            Json::object({{"id", id}, {"subject", id}, {"text", "tell me about " + id + "."}, {"split", split}});
        lines += line.dump() + "\n";
      }
    }
    return file("contents.jsonl", lines);
  }
  // A study of the task "shout" with one SAE.
  std::string study() const {
    const ProgramResult found =
        saif({"find", "--model", model(), "--sae", sae(), "--task", task(), "--out", path("study"), "--contents-file",
              contents(), "--contents", "6", "--no-check", "--k", "5", "--json"});
    EXPECT_EQ(found.exit_code, 0) << found.err;
    return path("study");
  }

  static constexpr const char* kSite = "blocks.1.hook_resid_post";

 private:
  std::string folder_;
};

}  // namespace saif::test
