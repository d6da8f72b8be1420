// What `saif` says to input that it cannot use: one line that names the thing, exit code 1 or 2, nothing written.
#include <sys/stat.h>

#include "support/cli.h"

namespace saif {
namespace {

namespace fs = std::filesystem;
using test::Cli;
using test::lines_of;
using test::shared_dir;
using test::Words;

class BadInput : public Cli {
 protected:
  void SetUp() override {
    Cli::SetUp();
    model_ = model();
  }
  // Files that are none of ours.
  std::vector<std::string> foreign(const std::string& suffix) const {
    return {file("image" + suffix, std::string("\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0\0\0\1\0\x08\6\0\0\0", 33)),
            file("prose" + suffix, "It was a dark and stormy night; the rain fell in torrents.\n"),
            file("empty" + suffix, "")};
  }
  static void truncate_to(const std::string& path, double share) {
    fs::resize_file(path, static_cast<uintmax_t>(static_cast<double>(fs::file_size(path)) * share));
  }
  std::string model_;
};

// --- models

TEST_F(BadInput, ModelThatIsMissing) {
  const std::string gone = path("gone");
  bad({"run", gone, "-p", "hi"}, 1, {gone});
  bad({"tokenize", gone, "--text", "hi"}, 1, {gone});
  bad({"capture", gone, "-p", "hi", "--site", "logits", "--out", path("o")}, 1, {gone});
  bad({"inspect", gone}, 1, {gone});
  bad({"inspect", path("gone.gguf")}, 1, {"gone.gguf"});
  bad({"run", "smolm2", "-p", "hi"}, 1, {"smolm2", "smollm2"});
  bad({"run", "smollm2", "-p", "hi"}, 1, {"smollm2"}, {.environment = {{"SAIF_CACHE", path("cache")}}});
}

TEST_F(BadInput, ModelWithAFileMissing) {
  for (const char* part : {"config.json", "model.safetensors", "tokenizer.json"}) {
    const std::string copy = path(std::string("without_") + part);
    fs::copy(model_, copy);
    fs::remove(copy + "/" + part);
    bad({"run", copy, "-p", "hi"}, 1, {copy});
  }
}

TEST_F(BadInput, ModelThatIsForeign) {
  for (const char* suffix : {".gguf", ".bin"}) {
    for (const std::string& each : foreign(suffix)) bad({"run", each, "-p", "hi"}, 1, {each});
  }
  for (const std::string& each : foreign("")) {
    for (const char* part : {"config.json", "model.safetensors", "tokenizer.json"}) {
      const std::string copy = each + "_" + part;
      fs::copy(model_, copy);
      fs::copy_file(each, copy + "/" + part, fs::copy_options::overwrite_existing);
      bad({"run", copy, "-p", "hi"}, 1, {part});
    }
  }
}

TEST_F(BadInput, ModelThatIsTruncated) {
  for (const double share : {0.0, 0.0001, 0.01, 0.05, 0.5, 0.999}) {
    const std::string copy = path("cut" + std::to_string(share));
    fs::copy(model_, copy);
    truncate_to(copy + "/model.safetensors", share);
    bad({"run", copy, "-p", "hi"}, 1, {copy + "/model.safetensors"});
  }
  SAIF_REQUIRE_SHARED("data/goldens/gguf/llama-f32.gguf");
  for (const double share : {0.0, 0.001, 0.02, 0.3, 0.99}) {
    const std::string copy = path("cut" + std::to_string(share) + ".gguf");
    fs::copy_file(shared_dir("data/goldens/gguf/llama-f32.gguf"), copy);
    fs::permissions(copy, fs::perms::owner_all);
    truncate_to(copy, share);
    bad({"run", copy, "-p", "hi"}, 1, {copy});
  }
}

TEST_F(BadInput, ConfigKeysAndValues) {
  bad({"run", model("odd", "attention_sink_size", 4), "-p", "hi"}, 1, {"attention_sink_size", "config.json"});
  bad({"run", model("wide", "hidden_size", 32), "-p", "hi"}, 1, {"32"});
  bad({"run", model("deep", "num_hidden_layers", 4), "-p", "hi"}, 1, {"layers.3"});
  bad({"run", model("shallow", "num_hidden_layers", 2), "-p", "hi"}, 1, {"layers.2"});
  bad({"run", model("other", "model_type", "mamba"), "-p", "hi"}, 1, {"mamba"});
  bad({"run", model("text", "hidden_size", "many"), "-p", "hi"}, 1, {"hidden_size", "many"});
  bad({"run", model("act", "hidden_act", "swish9"), "-p", "hi"}, 1, {"swish9"});
  bad({"run", model_, "-p", "hi", "--dtype", "f64"}, 1, {"f64", "bf16"});
}

// --- prompts

TEST_F(BadInput, Prompts) {
  bad({"run", model_, "-p", ""}, 1, {"empty"});
  bad({"run", model_}, 2, {"-p", "--file", "--ids"});
  bad({"run", model_, "--file", file("none", "")}, 2, {"prompt"});
  bad({"run", model_, "-p", std::string(5000, 'a')}, 1, {"5001", "4096"});
  bad({"run", model_, "--file", path("gone")}, 1, {path("gone")});
  bad({"run", model_, "--file", file("p.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \"a\"\n")}, 1, {"p.jsonl:2"});
  bad({"run", model_, "--file", file("q.jsonl", "{\"question\": \"a\"}\n")}, 1, {"q.jsonl:1", "prompt"});
  bad({"run", model_, "--file", model_}, 1, {model_});
  bad({"run", model_, "-p", "hi", "--chat"}, 1, {"chat template"});
  bad({"run", model_, "-p", "hi", "--system", "be kind"}, 2, {"--chat"});
  bad({"capture", model_, "-p", std::string(5000, 'a'), "--site", "logits", "--out", path("o")}, 1, {"5001", "4096"});
  bad({"capture", model_, "--site", "logits", "--out", path("o")}, 2, {"-p"});
  EXPECT_FALSE(fs::exists(path("o")));
}

TEST_F(BadInput, InvalidUtf8) {
  const std::string broken = "caf\xE9 au lait";
  bad({"run", model_, "-p", broken}, 1, {"UTF-8"});
  bad({"run", model_, "--file", file("p", "fine\n" + broken + "\n")}, 1, {"UTF-8"});
  bad({"tokenize", model_, "--text", broken}, 1, {"UTF-8"});
  bad({"capture", model_, "-p", broken, "--site", "logits", "--out", path("o")}, 1, {"UTF-8"});
}

TEST_F(BadInput, Ids) {
  bad({"run", model_, "--ids", "1,2,50"}, 1, {"50", "vocabulary"});
  bad({"run", model_, "--ids", "1,-2"}, 1, {"-2", "vocabulary"});
  bad({"run", model_, "--ids", "1,two"}, 2, {"two", "1,2,3"});
  bad({"run", model_, "--ids", "1,,2"}, 2, {"--ids"});
  bad({"run", model_, "--ids", "99999999999999999999"}, 2, {"99999999999999999999"});
  for (const char* id : {"4294967297", "-4294967295"}) {  // whose low halves are id 1
    bad({"run", model_, "--ids", id}, 2, {id});
    const std::string prompts = file("wide.jsonl", std::string("{\"ids\": [1, 2]}\n{\"ids\": [") + id + "]}\n");
    bad({"run", model_, "--file", prompts}, 1, {prompts + ":2", id, "2147483647"});
  }
  bad({"capture", model_, "--ids", "50", "--site", "logits", "--out", path("o")}, 1, {"50", "vocabulary"});
}

TEST_F(BadInput, SamplingOutOfRange) {
  const auto refused = [&](const char* flag, const char* value) {
    bad({"run", model_, "-p", "hi", flag, value}, 1, {value});
  };
  refused("--temperature", "-1");
  refused("--top-p", "1.5");
  refused("--repetition-penalty", "-2");
}

// --- sites

TEST_F(BadInput, Sites) {
  const auto refused = [&](const std::string& site, const Words& named) {
    bad({"capture", model_, "-p", "hi", "--site", site, "--out", path("o")}, 1, named);
  };
  refused("blocks.3.hook_resid_post", {"blocks.3", "3"});
  refused("blocks.-1.hook_resid_post", {"blocks.-1"});
  refused("blocks.1.hook_resid_pots", {"hook_resid_pots", "hook_resid_post"});
  refused("logit", {"logit", "logits"});
  refused("resid", {"resid"});
}

// --- vectors

TEST_F(BadInput, Vectors) {
  const auto refused = [&](const std::string& steer, const Words& named) {
    bad({"run", model_, "-p", "hi", "--steer", steer}, 1, named);
  };
  refused(path("gone.safetensors"), {path("gone.safetensors")});
  refused(vector("wide.safetensors", 48, kSite), {"wide.safetensors", "48", "24"});
  refused(vector("deep.safetensors", 24, "blocks.7.hook_resid_post"), {"deep.safetensors", "7"});
  refused(vector("odd.safetensors", 24, "blocks.1.hook_foo"), {"odd.safetensors", "hook_foo"});
  const std::string good_one = vector("v.safetensors", 24, kSite);
  refused(good_one + ":strong", {"strong"});
  truncate_to(good_one, 0.9);
  refused(good_one, {good_one});
  for (const std::string& each : foreign(".safetensors")) {
    refused(each, {each});
    bad({"inspect", each}, 1, {each});
  }
  refused(model_ + "/model.safetensors", {"model.safetensors", "vector"});
}

TEST_F(BadInput, VectorWithoutASite) {
  const std::vector<float> v(24, 0.5F);
  const NamedTensor tensor = {"vector", {DType::kF32, {24}, v.data()}};
  write_tensor_file(path("v.safetensors"), {&tensor, 1});
  bad({"run", model_, "-p", "hi", "--steer", path("v.safetensors")}, 1, {"v.safetensors", "saif.site"});
}

// --- SAEs

TEST_F(BadInput, SaesThatMustBeRefused) {
  SAIF_REQUIRE_SHARED("data/saes/bad");
  int refused = 0;
  for (const auto& entry : fs::directory_iterator(shared_dir("data/saes/bad"))) {
    const Json meta = read_json_file(entry.path() / "meta.json");
    const std::string sae = entry.path() / meta.at("load").as_string();
    Words named;
    for (const Json& name : meta.at("names").items()) named.push_back(name.as_string());
    // Formats that are not read yet are refused as such.
    if (meta.at("format").as_string() != "sae_lens") named.clear();
    const std::string in = shared_dir("data/saes/sae_lens-topk/expected.safetensors");
    bad({"sae", "encode", sae, "--in", in, "--out", path("o")}, 1, named);
    bad({"inspect", sae}, 1, named);
    ++refused;
  }
  EXPECT_GE(refused, 10);
  EXPECT_FALSE(fs::exists(path("o")));
}

TEST_F(BadInput, SaeFiles) {
  const std::string rows = path("x.safetensors");
  const std::vector<float> x(static_cast<size_t>(3 * 24), 0.25F);
  const NamedTensor tensor = {"x", {DType::kF32, {3, 24}, x.data()}};
  write_tensor_file(rows, {&tensor, 1});
  const auto refused = [&](const std::string& sae, const Words& named) {
    bad({"sae", "encode", sae, "--in", rows, "--out", path("o")}, 1, named);
  };
  refused(path("gone"), {path("gone")});
  refused(model_, {model_});
  for (const std::string& each : foreign("")) refused(each, {each});
  const std::string cut = sae("cut");
  truncate_to(cut + "/sae_weights.safetensors", 0.5);
  refused(cut, {"sae_weights.safetensors"});
  const std::string odd = sae("odd");
  Json config = read_json_file(odd + "/cfg.json");
  config["k"] = 65;  // of 64 latents
  write_json_file(odd + "/cfg.json", config);
  refused(odd, {"65", "64"});

  const std::string fine = sae("fine");
  bad({"sae", "encode", fine, "--in", path("gone"), "--out", path("o")}, 1, {path("gone")});
  bad({"sae", "encode", fine, "--in", rows, "--out", path("o"), "--tensor", "y"}, 1, {"\"y\"", "--tensor"});
  bad({"sae", "encode", sae("wide", 48), "--in", rows, "--out", path("o")}, 1, {"[3, 24]", "48"});
  for (const std::string& each : foreign(".in"))
    bad({"sae", "encode", fine, "--in", each, "--out", path("o")}, 1, {each});
  EXPECT_FALSE(fs::exists(path("o")));
}

// --- studies

class BadStudy : public BadInput {
 protected:
  void find(const std::string& sae, const std::string& task, const std::string& contents, const Words& named,
            const Words& more = {"--no-check"}) const {
    Words words = {"find", "--model",         model_,   "--sae", sae,           "--task",
                   task,   "--contents-file", contents, "--out", path("study"), "--quiet"};
    words.insert(words.end(), more.begin(), more.end());
    bad(words, 1, named);
  }
};

TEST_F(BadStudy, SaeOfAnotherModelOrSite) {
  const std::string t = task(), c = contents();
  find(sae("wide", 48), t, c, {"48", "24"});
  find(sae("deep", 24, "blocks.9.hook_resid_post"), t, c, {"blocks.9"});
  find(sae("alien", 24, kSite, "gpt2-small"), t, c, {"gpt2-small"}, {});
  find(sae("random"), t, c, {"FVU"}, {});  // describes nothing: the acceptance check refuses it
  find(path("gone"), t, c, {path("gone")});
  for (const std::string& each : foreign(".sae")) find(each, t, c, {each});
  EXPECT_FALSE(fs::exists(path("study/results.sqlite")));
}

TEST_F(BadStudy, TasksAndContents) {
  const std::string s = sae(), t = task(), c = contents();
  find(s, "frenhc", c, {"frenhc", "french"});
  find(s, path("gone.json"), c, {path("gone.json")});
  find(s, t, path("gone.jsonl"), {path("gone.jsonl")});
  for (const std::string& each : foreign(".json")) {
    find(s, each, c, {each});
    find(s, t, each, {each});
  }
  Json odd = read_json_file(t);
  odd["verifyer"] = 1;
  write_json_file(path("odd.json"), odd);
  find(s, path("odd.json"), c, {"verifyer", "verifier"});
  find(s, t, file("cut.jsonl", read_file(c).substr(0, 300)), {"cut.jsonl:"});
  find(s, t, file("split.jsonl", "{\"id\":\"a\",\"subject\":\"b\",\"text\":\"c\",\"split\":\"tset\"}\n"),
       {"tset", "test"});
  EXPECT_FALSE(fs::exists(path("study/results.sqlite")));
}

// Whatever the options are refused for, no folder is made for a study that cannot be.
TEST_F(BadStudy, OptionsOfFind) {
  const std::string s = sae(), t = task(), c = contents();
  const auto refused = [&](const std::string& flag, const std::string& value, const Words& named) {
    find(s, t, c, named, {"--no-check", flag, value});
    EXPECT_FALSE(fs::exists(path("study"))) << flag << " " << value;
  };
  refused("--placement", "sideways", {"sideways", "post"});
  refused("--placement", "none", {"none", "post"});
  refused("--rank", "sensitivty", {"sensitivty", "sensitivity"});
  refused("--stats", "actve", {"actve", "active"});
  refused("--k", "0", {"0"});
  refused("--k", "1000", {"1000", "64"});
  refused("--keep", "0", {"keep", "0"});
  refused("--max-density", "-1", {"max-density", "-1"});
}

TEST_F(BadStudy, FoldersThatAreNoStudy) {
  for (const char* verb : {"eval", "sweep", "explain"}) bad({verb, path("gone")}, 1, {path("gone")});
  bad({"report", path("gone")}, 1, {path("gone")});
  bad({"vector", path("gone"), "--out", path("v")}, 1, {path("gone")});
  for (const std::string& each : foreign("")) {
    const std::string folder = each + "_study";
    fs::create_directories(folder);
    bad({"sweep", folder}, 1, {folder});
    fs::copy_file(each, folder + "/results.sqlite");
    bad({"sweep", folder}, 1, {folder});
    bad({"sweep", each}, 1, {each});
  }
}

TEST_F(BadStudy, AskedForWhatItDoesNotHold) {
  const std::string s = study(), v = path("v.safetensors");
  bad({"vector", s, "--out", v, "--layer", "2"}, 1, {"layer 2", "1"});
  bad({"vector", s, "--out", v, "--k", "1000"}, 1, {"1000", "64"});
  bad({"vector", s, "--out", v, "--k", "0"}, 1, {"0"});
  bad({"vector", s, "--out", v, "--task", "whisper"}, 1, {"whisper", "shout"});
  bad({"vector", s, "--out", v, "--method", "saiff"}, 1, {"saiff", "saif"});
  const Words sweep = {"sweep", s, "--task", task(), "--contents-file", path("contents.jsonl")};
  bad({"sweep", s, "--layer", "2"}, 1, {"2"});
  bad({"sweep", s, "--layer", "one"}, 2, {"one"});
  bad({"sweep", s, "--contents-file", path("contents.jsonl"), "--k", "1000"}, 1, {"1000"});
  EXPECT_FALSE(fs::exists(v));
}

TEST_F(BadStudy, ChangedUnderneath) {
  const std::string s = study(), v = path("v.safetensors");
  random_sae(24, 32, kSite, "")->save(path("sae"), DType::kF32);
  bad({"vector", s, "--out", v}, 1, {path("sae"), "find"});
  std::string weights = read_file(model_ + "/model.safetensors");
  weights.back() ^= 1;
  write_file_atomically(model_ + "/model.safetensors", weights);
  bad({"sweep", s}, 1, {model_});
}

// --- training

TEST_F(BadInput, Training) {
  const std::string corpus = file("corpus", "some words to learn.\nand some more of them.\n");
  const auto refused = [&](Words more, const Words& named, int exit_code = 1) {
    Words words = {"sae", "train", "--model", model_, "--out", path("trained"), "--quiet"};
    words.insert(words.end(), more.begin(), more.end());
    bad(words, exit_code, named);
  };
  refused({"--corpus", path("gone"), "--site", kSite}, {path("gone")});
  refused({"--corpus", file("none", ""), "--site", kSite}, {"none"});
  refused({"--corpus", corpus, "--site", "blocks.3.hook_resid_post"}, {"blocks.3"});
  refused({"--corpus", corpus, "--site", kSite, "--k", "100", "--d-sae", "64"}, {"100", "64"});
  refused({"--corpus", corpus, "--site", kSite, "--kind", "topp"}, {"topp", "topk"});
  refused({"--corpus", corpus, "--site", kSite, "--save-dtype", "f8"}, {"f8"});
  refused({"--corpus", corpus}, {"--site"}, 2);
}

// --- disks

class Disk : public BadInput {};

TEST_F(Disk, FullDevice) {
  struct stat device {};
  if (::stat("/dev/full", &device) != 0) GTEST_SKIP() << "no /dev/full here";
  const std::string full = path("full");  // a link: were it replaced, nothing but the link would be
  fs::create_symlink("/dev/full", full);
  bad({"capture", model_, "-p", "hi", "--site", "logits", "--out", full}, 1, {full, "No space left"});
  EXPECT_TRUE(fs::is_character_file(full)) << "a device was replaced by a file";
  bad({"tokenize", model_, "--text", "hi", "--json"}, 1, {"standard output", "No space left"},
      {.stdout_path = "/dev/full"});
  bad({"run", model_, "-p", "hi", "--max-tokens", "4"}, 1, {"standard output"}, {.stdout_path = "/dev/full"});
  bad({"inspect", model_}, 1, {"standard output"}, {.stdout_path = "/dev/full"});
  good({"capture", model_, "-p", "hi", "--site", "logits", "--out", "/dev/null"});
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

// A disk that takes 8 KiB: nothing half-written is left, and what lay there before stays.
TEST_F(Disk, FilesThatDoNotFit) {
  const std::string out = file("o", "before");
  const Words capture = {"capture", model_, "-p", std::string(500, 'a'), "--site", "logits", "--quiet", "--out", out};
  bad(capture, 1, {out, "too large"}, {.file_limit = 8192});
  EXPECT_EQ(read_file(out), "before");
  good(capture);
  EXPECT_NE(read_file(out), "before");
  const Words found = {"find",   "--model",         model_,     "--sae", sae(),         "--task",
                       task(),   "--contents-file", contents(), "--out", path("study"), "--no-check",
                       "--quiet"};
  bad(found, 1, {path("study")}, {.file_limit = 8192});
  for (const auto& entry : fs::recursive_directory_iterator(path(".")))
    EXPECT_EQ(entry.path().string().find(".tmp."), std::string::npos) << entry.path();
  EXPECT_EQ(saif(found).exit_code, 0);  // and the same command again does it
}

TEST_F(Disk, FullFilesystem) {
  fs::create_directories(path("small"));
  const auto on_small_disk = [&](Words words) { return saif(words, {.small_disk = path("small")}); };
  const auto result = on_small_disk(
      {"capture", model_, "-p", std::string(900, 'a'), "--site", "logits", "--quiet", "--out", path("small/o")});
  if (result.exit_code == test::kNoSmallDisk) GTEST_SKIP() << "no right to mount a small disk here";
  expect_error(result, 1, {path("small/o"), "No space left"});
  expect_error(on_small_disk({"find", "--model", model_, "--sae", sae(), "--task", task(), "--contents-file",
                              contents(), "--out", path("small/study"), "--no-check", "--quiet"}),
               1, {path("small/study")});
  const std::string corpus = file("corpus", std::string(200, 'a') + "\n" + std::string(200, 'b') + "\n");
  expect_error(on_small_disk({"sae", "train", "--model", model_, "--corpus", corpus, "--site", kSite, "--d-sae", "256",
                              "--k", "8", "--batch", "64", "--out", path("small/sae"), "--quiet"}),
               1, {path("small/sae")});
}

// Root may write anywhere: what refuses everyone is /proc, and a file in place of a folder.
TEST_F(Disk, FoldersThatCannotBeWritten) {
  const std::string corpus = file("corpus", "some words to learn.\nand some more of them.\n");
  const std::string s = study();
  for (const std::string& folder : {std::string("/proc"), file("plain", "x"), path("gone")}) {
    const std::string out = folder + "/out";
    bad({"capture", model_, "-p", "hi", "--site", "logits", "--quiet", "--out", out}, 1, {out});
    bad({"vector", s, "--k", "3", "--out", out}, 1, {out});
    if (folder == path("gone")) continue;  // these make their folders
    bad({"find", "--model", model_, "--sae", path("sae"), "--task", task(), "--contents-file", contents(), "--out", out,
         "--no-check", "--quiet"},
        1, {out});
    bad({"sae", "train", "--model", model_, "--corpus", corpus, "--site", kSite, "--d-sae", "64", "--k", "8", "--batch",
         "8", "--out", out, "--quiet"},
        1, {out});
  }
  bad({"capture", model_, "-p", "hi", "--site", "logits", "--quiet", "--out", model_}, 1, {model_});
}

TEST_F(Disk, ReadOnlyStudy) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write into a read-only folder";
  const std::string s = study();
  fs::permissions(s, fs::perms::owner_read | fs::perms::owner_exec);
  bad({"sweep", s, "--contents-file", path("contents.jsonl"), "--quiet"}, 1, {s});
  EXPECT_EQ(saif({"inspect", s, "--json"}).exit_code, 0);
  fs::permissions(s, fs::perms::owner_all);
}

}  // namespace
}  // namespace saif
