// What `saif` promises about its output (docs of the command line), on the binary.
#include "support/cli.h"

#include <cmath>
#include <sstream>
#include <thread>

#include "support/run_model.h"

namespace saif {
namespace {

using test::Cli;
using test::distance;
using test::ids_of;
using test::joined;
using test::keys_of;
using test::lines_of;
using test::parsed;
using test::shared_dir;
using test::Words;

std::vector<int32_t> int64_ids(const TensorView& view) {
  const auto* from = static_cast<const int64_t*>(view.data);
  return {from, from + view.elements()};
}

std::span<const float> floats_of(const TensorView& view) {
  EXPECT_EQ(view.dtype, DType::kF32);
  return {static_cast<const float*>(view.data), static_cast<size_t>(view.elements())};
}

using Usage = Cli;

TEST_F(Usage, HelpOfEveryVerb) {
  for (const Words& verb : std::vector<Words>{{},
                                              {"demo"},
                                              {"run"},
                                              {"find"},
                                              {"explain"},
                                              {"vector"},
                                              {"eval"},
                                              {"sweep"},
                                              {"report"},
                                              {"capture"},
                                              {"sae"},
                                              {"sae", "encode"},
                                              {"sae", "train"},
                                              {"sae", "eval"},
                                              {"inspect"},
                                              {"tokenize"},
                                              {"doctor"},
                                              {"bench"}}) {
    Words words = verb;
    words.emplace_back("--help");
    const auto result = good(words);
    EXPECT_NE(result.out.find("Usage"), std::string::npos) << result.out;
    EXPECT_EQ(result.err, "");
  }
}

TEST_F(Usage, VersionIsOneLine) { EXPECT_TRUE(good({"--version"}).out.starts_with("saif ")); }

// libgomp says on standard error what it was started with; the last start counts.
TEST_F(Usage, ThreadsSpinShortlyUnlessTheUserSaysOtherwise) {
  const auto spins = [](test::Words settings) {
    test::Words words = {"-u", "OMP_WAIT_POLICY", "-u", "GOMP_SPINCOUNT", "OMP_DISPLAY_ENV=verbose"};
    words.insert(words.end(), settings.begin(), settings.end());
    words.insert(words.end(), {test::saif_binary(), "--version"});
    const test::ProgramResult ran = test::run_program("/usr/bin/env", words);
    EXPECT_TRUE(ran.out.starts_with("saif ")) << ran.out;
    std::string found;
    for (const std::string& line : test::lines_of(ran.err)) {
      const size_t at = line.find("GOMP_SPINCOUNT = '");
      if (at != std::string::npos) found = line.substr(at + 18, line.find('\'', at + 18) - at - 18);
    }
    return found;
  };
  EXPECT_EQ(spins({}), "1000");
  EXPECT_EQ(spins({"GOMP_SPINCOUNT=77"}), "77");
  EXPECT_EQ(spins({"OMP_WAIT_POLICY=passive"}), "0");
}

TEST_F(Usage, UnknownWordsOfferTheNearest) {
  bad({"tokenise"}, 2, {"tokenise", "did you mean tokenize?"});
  bad({"run", "x", "-p", "a", "--topk", "3"}, 2, {"--topk", "did you mean --top-k?", "saif run --help"});
  bad({"find", "--task", "x", "--out", "y", "--placment=pre"}, 2, {"--placment", "did you mean --placement?"});
  bad({"sae", "trian"}, 2, {"trian", "did you mean train?"});
}

TEST_F(Usage, MissingAndImpossibleValues) {
  bad({}, 2, {"--help"});
  bad({"sae"}, 2, {"--help"});
  bad({"run"}, 2, {"model"});
  bad({"find", "--out", "x"}, 2, {"--task"});
  bad({"run", "x", "-p", "a", "--max-tokens", "many"}, 2, {"--max-tokens", "many"});
  bad({"run", "x", "-p", "a", "--max-tokens", "0"}, 2, {"--max-tokens"});
  bad({"capture", "x", "-p", "a", "--site", "logits", "--out", "y", "--positions", "middle"}, 2, {"middle", "last"});
  bad({"tokenize", "x"}, 2, {"--text", "--file"});
  bad({"tokenize", "x", "--text", "a", "--file", "b"}, 2, {"--text", "--file"});
}

class Output : public Cli {
 protected:
  void SetUp() override {
    Cli::SetUp();
    if (!IsSkipped()) model_ = model();
  }
  std::string model_;
};

TEST_F(Output, TokenizeText) {
  const Json tokens = json({"tokenize", model_, "--text", "He, ate"});
  EXPECT_EQ(keys_of(tokens), (Words{"ids", "pieces"}));
  EXPECT_EQ(ids_of(tokens.at("ids")), (std::vector<int32_t>{0, 10, 3, 31, 29, 5, 4, 3}));
  EXPECT_EQ(tokens.at("pieces").size(), 8U);
  EXPECT_EQ(ids_of(json({"tokenize", model_, "--text", "He, ate", "--no-special"}).at("ids")),
            (std::vector<int32_t>{10, 3, 31, 29, 5, 4, 3}));
  EXPECT_EQ(ids_of(json({"tokenize", model_, "--text", ""}).at("ids")), (std::vector<int32_t>{0}));
}

TEST_F(Output, TokenizeFile) {
  const std::string lines = file("lines", "a\n\nt e\n");
  EXPECT_EQ(good({"tokenize", model_, "--file", lines}).out, "{\"ids\":[0,5]}\n{\"ids\":[0]}\n{\"ids\":[0,4,29,3]}\n");
  const std::string texts = file("texts", "a\nt\n--\n\n--\ne");
  EXPECT_EQ(lines_of(good({"tokenize", model_, "--file", texts, "--separator", "--", "--no-special"}).out),
            (Words{"{\"ids\":[5,2,4]}", "{\"ids\":[]}", "{\"ids\":[3]}"}));
}

TEST_F(Output, RunInBatches) {
  const std::string prompts = file("prompts.jsonl", "{\"prompt\": \"one\"}\n\n{\"text\": \"two, or more.\"}\n");
  const auto result = good({"run", model_, "-p", "zero", "--file", prompts, "--max-tokens", "7", "--json"});
  const Words lines = lines_of(result.out);
  ASSERT_EQ(lines.size(), 3U);
  const Words expected = {"zero", "one", "two, or more."};
  for (size_t i = 0; i < 3; ++i) {
    const Json answer = parsed(lines[i]);
    EXPECT_EQ(keys_of(answer), (Words{"prompt", "text", "ids", "finish", "edits"}));
    EXPECT_EQ(answer.at("prompt").as_string(), expected[i]);
    EXPECT_EQ(answer.at("ids").size(), 7U);
    EXPECT_EQ(answer.at("finish").as_string(), "length");
    EXPECT_EQ(keys_of(answer.at("edits")), (Words{"rows", "vectors"}));
    EXPECT_EQ(answer.at("edits").at("rows").as_int(), 0);
    // The same alone, and as streamed text.
    EXPECT_EQ(json({"run", model_, "-p", expected[i], "--max-tokens", "7"}).dump(), lines[i]);
    EXPECT_EQ(good({"run", model_, "-p", expected[i], "--max-tokens", "7"}).out, answer.at("text").as_string() + "\n");
  }
}

// Token ids of a file stand where they are given; instruction sets and keys in bfloat16 answer much the same.
TEST_F(Output, RunTakesIdsOfAFile) {
  const Json tokens = json({"tokenize", model_, "--text", "two, or more."});
  const std::string prompts =
      file("ids.jsonl", "{\"prompt\": \"one\"}\n{\"ids\": " + tokens.at("ids").dump() + "}\n{\"text\": \"three\"}\n");
  const Words lines = lines_of(good({"run", model_, "--file", prompts, "--max-tokens", "5", "--json"}).out);
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(parsed(lines[1]).at("ids").dump(),
            json({"run", model_, "-p", "two, or more.", "--max-tokens", "5"}).at("ids").dump());
  EXPECT_EQ(parsed(lines[2]).at("prompt").as_string(), "three");
  const Json generic = json({"run", model_, "-p", "one", "--max-tokens", "5", "--isa", "generic", "--kv", "bf16"});
  EXPECT_EQ(generic.at("ids").size(), 5U);
  bad({"run", model_, "-p", "one", "--kv", "f16"}, 1, {"f16", "f32 or bf16"});
  bad({"run", model_, "-p", "one", "--weights", "disk"}, 1, {"disk", "mapped or resident"});
  bad({"run", model_, "-p", "one", "--isa", "avx3"}, 1, {"avx3", "avx512bf16"});
}

TEST_F(Output, RunOptions) {
  const Words base = {"run", model_, "-p", "tell me", "--max-tokens", "12"};
  const auto with = [&](Words more) {
    more.insert(more.begin(), base.begin(), base.end());
    return json(more);
  };
  const Json plain = with({});
  const Json logprobs = with({"--logprobs", "3"});
  EXPECT_EQ(logprobs.at("ids").dump(), plain.at("ids").dump());
  ASSERT_EQ(logprobs.at("logprobs").size(), 12U);
  EXPECT_EQ(logprobs.at("logprobs")[0].at("top").size(), 3U);
  EXPECT_EQ(logprobs.at("logprobs")[0].at("top")[0].at("id").as_int(), plain.at("ids")[0].as_int());
  EXPECT_LE(logprobs.at("logprobs")[0].at("logprob").as_double(), 0.0);

  const Words sampled = {"--temperature", "2", "--seed", "3"};
  EXPECT_EQ(with(sampled).dump(), with(sampled).dump());
  EXPECT_NE(with(sampled).at("ids").dump(), with({"--temperature", "2", "--seed", "4"}).at("ids").dump());

  const std::string text = plain.at("text").as_string();
  const std::string stop = text.substr(4, 2);
  const Json stopped = with({"--stop", stop});
  EXPECT_EQ(stopped.at("text").as_string(), text.substr(0, text.find(stop)));
  EXPECT_EQ(stopped.at("finish").as_string(), "stop_string");
}

TEST_F(Output, SteeringIsCounted) {
  const std::string v = vector("v.safetensors", 24, kSite);
  const Words base = {"run", model_, "-p", "tell me", "--max-tokens", "12"};
  const Json plain = json(base);
  Words words = base;
  words.insert(words.end(), {"--steer", v + ":20"});
  const Json steered = json(words);
  EXPECT_NE(steered.at("ids").dump(), plain.at("ids").dump());
  EXPECT_EQ(steered.at("edits").at("rows").as_int(), 12);
  EXPECT_EQ(steered.at("edits").at("vectors").as_int(), 1);
  words.back() = v + ":0";
  EXPECT_EQ(json(words).at("ids").dump(), plain.at("ids").dump());
}

TEST_F(Output, CaptureOfSeveralPrompts) {
  const std::string out = path("out.safetensors");
  const Words base = {"capture", model_, "-p", "abc", "-p", "t", "--site", "logits," + std::string(kSite),
                      "--out",   out};
  const Json all = json(base);
  EXPECT_EQ(keys_of(all), (Words{"tensors"}));
  EXPECT_EQ(all.at("tensors").at("logits").dump(), "[6,50]");
  EXPECT_EQ(all.at("tensors").at(kSite).dump(), "[6,24]");
  const auto file = SafetensorsFile::open(out);
  EXPECT_EQ(file.names().size(), 3U);
  EXPECT_EQ(file.at("logits").shape, (std::vector<int64_t>{6, 50}));
  EXPECT_EQ(int64_ids(file.at("row_offsets")), (std::vector<int32_t>{0, 4, 6}));

  Words last = base;
  last.back() = path("last.safetensors");
  last.insert(last.end(), {"--positions", "last"});
  EXPECT_EQ(json(last).at("tensors").at(kSite).dump(), "[2,24]");
  const auto ends = SafetensorsFile::open(last[9]);
  EXPECT_EQ(int64_ids(ends.at("row_offsets")), (std::vector<int32_t>{0, 1, 2}));
  for (const char* site : {"logits", kSite}) {
    const auto whole = floats_of(file.at(site)), some = floats_of(ends.at(site));
    const size_t width = some.size() / 2;
    EXPECT_TRUE(std::equal(some.begin(), some.begin() + static_cast<int64_t>(width),
                           whole.begin() + 3 * static_cast<int64_t>(width)))
        << site;
    EXPECT_TRUE(std::equal(some.begin() + static_cast<int64_t>(width), some.end(),
                           whole.begin() + 5 * static_cast<int64_t>(width)))
        << site;
  }
}

TEST_F(Output, Inspect) {
  const Json about_model = json({"inspect", model_});
  EXPECT_EQ(about_model.at("kind").as_string(), "model");
  EXPECT_EQ(about_model.at("tokenizer").at("vocab").as_int(), 50);
  EXPECT_TRUE(about_model.contains("architecture"));
  const Json about_sae = json({"inspect", sae()});
  EXPECT_EQ(about_sae.at("kind").as_string(), "sae");
  EXPECT_EQ(about_sae.at("d_in").as_int(), 24);
  EXPECT_EQ(about_sae.at("d_sae").as_int(), 64);
  const Json about_vector = json({"inspect", vector("v.safetensors", 24, kSite)});
  EXPECT_EQ(about_vector.at("kind").as_string(), "vector");
  EXPECT_EQ(about_vector.at("site").as_string(), kSite);
  EXPECT_EQ(about_vector.at("op").as_string(), "add");
  EXPECT_EQ(about_vector.at("positions").as_string(), "generated");
  EXPECT_NEAR(about_vector.at("norm").as_double(), 0.5 * std::sqrt(24.0), 1e-5);
  // Without --json: the same, a line per key.
  EXPECT_NE(good({"inspect", path("sae")}).out.find("kind: sae\n"), std::string::npos);
}

TEST_F(Output, InspectTokenizer) {
  std::filesystem::remove(model_ + "/config.json");
  EXPECT_EQ(json({"inspect", model_}).at("kind").as_string(), "tokenizer");
}

TEST_F(Output, CaptureOfIdsNeedsNoTokenizer) {
  ASSERT_TRUE(std::filesystem::remove(model_ + "/tokenizer.json"));
  const std::string out = path("ids.safetensors"), lines = path("ids.jsonl");
  write_file_atomically(lines, "{\"ids\": [3, 4, 5]}\n");
  good({"capture", model_, "--ids", "3,4,5", "--site", "logits", "--out", out});
  EXPECT_EQ(SafetensorsFile::open(out).at("logits").shape[0], 3);
  good({"capture", model_, "--file", lines, "--site", "logits", "--out", out});
  bad({"capture", model_, "-p", "a", "--site", "logits", "--out", out}, 1, {"tokenizer.json"});
}

class Outside : public Cli {};

TEST_F(Outside, GoldenSitesThroughCapture) {
  for (const std::string family : {"llama", "mistral"}) {
    SAIF_REQUIRE_SHARED("data/goldens/" + family);
    const std::string folder = shared_dir("data/goldens/" + family);
    const auto golden = SafetensorsFile::open(folder + "/golden.safetensors");
    std::string sites;
    for (const std::string& name : golden.names()) {
      if (name.find("hook") != std::string::npos || name == "logits") sites += (sites.empty() ? "" : ",") + name;
    }
    const std::string out = path(family + ".safetensors");
    json({"capture", folder + "/model", "--ids", joined(int64_ids(golden.at("ids"))), "--site", sites, "--out", out,
          "--dtype", "f32"});
    const auto found = SafetensorsFile::open(out);
    std::stringstream names(sites);
    int compared = 0;
    for (std::string site; std::getline(names, site, ','); ++compared) {
      EXPECT_EQ(found.at(site).shape, golden.at(site).shape) << site;
      EXPECT_LE(distance(floats_of(found.at(site)), floats_of(golden.at(site))), 2e-4) << family << " " << site;
    }
    EXPECT_GT(compared, 10);
  }
}

TEST_F(Outside, GoldenTextsPlainAndSteered) {
  for (const std::string family : {"llama", "mistral"}) {
    SAIF_REQUIRE_SHARED("data/goldens/" + family);
    const std::string folder = shared_dir("data/goldens/" + family);
    const auto golden = SafetensorsFile::open(folder + "/golden.safetensors");
    const Json about = read_json_file(folder + "/golden.json");
    std::vector<int32_t> prompt = int64_ids(golden.at("ids"));
    prompt.resize(16);
    const Words base = {"run", folder + "/model", "--ids",   joined(prompt), "--max-tokens",
                        "24",  "--ignore-eos",    "--dtype", "f32"};
    EXPECT_EQ(ids_of(json(base).at("ids")), int64_ids(golden.at("greedy"))) << family;

    const NamedTensor v = {"vector", golden.at("steer_vector")};
    const std::string file = path(family + ".vector.safetensors");
    write_tensor_file(file, {&v, 1}, {{"saif.site", about.at("steer_site").as_string()}});
    Words words = base;
    words.insert(words.end(), {"--steer", file});
    const Json steered = json(words);
    EXPECT_EQ(ids_of(steered.at("ids")), int64_ids(golden.at("steered_greedy"))) << family;
    EXPECT_EQ(steered.at("edits").at("rows").as_int(), 24);
    words.back() = file + ":0";
    EXPECT_EQ(ids_of(json(words).at("ids")), int64_ids(golden.at("greedy"))) << family;
  }
}

TEST_F(Outside, StoriesAreToldExactly) {
  SAIF_REQUIRE_SHARED("data/models/stories260K");
  const std::string folder = shared_dir("data/models/stories260K");
  const Json about = read_json_file(folder + "/golden.json");
  for (const Json& item : about.at("cases").items()) {
    const std::vector<int32_t> expected = ids_of(item.at("greedy"));
    const Json answer = json({"run", folder, "--ids", joined(ids_of(item.at("prompt_ids"))), "--max-tokens",
                              std::to_string(expected.size()), "--ignore-eos", "--dtype", "f32"});
    EXPECT_EQ(ids_of(answer.at("ids")), expected);
  }
  const std::string published = about.at("published_text").as_string(), start = "Once upon a time";
  ASSERT_TRUE(published.starts_with(start));
  const auto told = good({"run", folder, "-p", start, "--max-tokens", "400", "--dtype", "f32"});
  EXPECT_TRUE((start + told.out).starts_with(published)) << told.out;
}

TEST_F(Outside, SaeEncode) {
  for (const std::string kind : {"topk", "jumprelu", "standard", "transcoder"}) {
    SAIF_REQUIRE_SHARED("data/saes/sae_lens-" + kind);
    const std::string folder = shared_dir("data/saes/sae_lens-" + kind), out = path(kind + ".safetensors");
    const auto expected = SafetensorsFile::open(folder + "/expected.safetensors");
    const Json told = json({"sae", "encode", folder + "/sae", "--in", folder + "/expected.safetensors", "--out", out,
                            "--dense", "--no-check"});
    EXPECT_EQ(keys_of(told), (Words{"l0", "fvu"}));
    EXPECT_EQ(told.at("fvu").is_null(), kind == "transcoder");  // its target is not in the file
    const auto found = SafetensorsFile::open(out);
    ASSERT_EQ(found.at("indices").dtype, DType::kI32);
    ASSERT_EQ(found.at("row_offsets").dtype, DType::kI64);
    const int64_t n = expected.at("latents").shape[0], d_sae = expected.at("latents").shape[1];
    const auto* indices = static_cast<const int32_t*>(found.at("indices").data);
    const auto* offsets = static_cast<const int64_t*>(found.at("row_offsets").data);
    const auto values = floats_of(found.at("values"));
    ASSERT_EQ(found.at("row_offsets").shape[0], n + 1);
    std::vector<float> dense(static_cast<size_t>(n * d_sae), 0.0F);
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t i = offsets[r]; i < offsets[r + 1]; ++i)
        dense[static_cast<size_t>(r * d_sae + indices[i])] = values[static_cast<size_t>(i)];
    }
    const auto written = floats_of(found.at("latents"));
    EXPECT_TRUE(std::equal(dense.begin(), dense.end(), written.begin(), written.end())) << kind;
    for (const char* name : {"latents", "recon"}) {
      const auto want = floats_of(expected.at(name)), got = floats_of(found.at(name));
      ASSERT_EQ(got.size(), want.size());
      const size_t width = want.size() / static_cast<size_t>(n);
      for (size_t r = 0; r < static_cast<size_t>(n); ++r) {
        float largest = 0, difference = 0;
        for (size_t c = r * width; c < (r + 1) * width; ++c) {
          largest = std::max(largest, std::abs(want[c]));
          difference = std::max(difference, std::abs(want[c] - got[c]));
        }
        EXPECT_LE(difference, 1e-4F * largest + 1e-5F) << kind << " " << name << " row " << r;
      }
    }
  }
}

class StudyVerbs : public Cli {};

TEST_F(StudyVerbs, FindVectorEvalSweepReport) {
  const Json found = json({"find", "--model", model(), "--sae", sae(), "--task", task(), "--out", path("study"),
                           "--contents-file", contents(), "--contents", "6", "--no-check", "--k", "5"});
  ASSERT_EQ(found.at("layers").size(), 1U);
  const Json& layer = found.at("layers")[0];
  EXPECT_EQ(layer.at("site").as_string(), kSite);
  ASSERT_EQ(layer.at("latents").size(), 5U);
  for (const char* key : {"index", "sensitivity", "ci", "mean", "std", "rate_pos", "rate_neg", "rate_unrelated"})
    EXPECT_TRUE(layer.at("latents")[0].contains(key)) << key;
  EXPECT_GE(found.at("tokens").at("naive").as_int(), found.at("tokens").at("computed").as_int());
  EXPECT_EQ(json({"inspect", path("study")}).at("kind").as_string(), "study");

  const Json explained = json({"explain", path("study"), "--k", "2", "--contexts", "2", "--draws", "20"});
  ASSERT_EQ(explained.at("latents").size(), 2U);
  for (const char* key : {"site", "index", "sensitivity", "top", "text_density", "histogram", "contexts", "nearest",
                          "coactive", "proximity"})
    EXPECT_TRUE(explained.at("latents")[0].contains(key)) << key;

  const std::string v = path("v.safetensors");
  const Json made = json({"vector", path("study"), "--k", "3", "--layer", "1", "--out", v});
  EXPECT_EQ(made.at("latents").size(), 3U);
  EXPECT_EQ(made.at("site").as_string(), kSite);
  EXPECT_EQ(json({"inspect", v}).at("norm").as_double(), made.at("norm").as_double());
  EXPECT_EQ(json({"run", path("model"), "-p", "hi", "--max-tokens", "4", "--steer", v}).at("edits").at("rows").as_int(),
            4);

  const Json judged = json({"eval", path("study"), "--contents-file", path("contents.jsonl"), "--max-tokens", "8",
                            "--method", "none,prompt,saif,random"});
  ASSERT_EQ(judged.at("rows").size(), 4U);
  for (const char* key :
       {"method", "layer", "k", "beta", "n", "strict", "strict_ci", "loose", "loose_ci", "quality", "checker"})
    EXPECT_TRUE(judged.at("rows")[2].contains(key)) << key;
  const Json swept = json({"sweep", path("study"), "--contents-file", path("contents.jsonl"), "--max-tokens", "8",
                           "--k", "1,2", "--beta", "0", "--scale", "1,2"});
  EXPECT_TRUE(swept.contains("cells") && swept.contains("best"));
  EXPECT_GE(swept.at("cells").size(), 2U);

  // Each method has the setting of its own sweep; what stands on the command line wins over it.
  const auto evaluated = [&](const Words& more) {
    Words words = {"eval",         path("study"), "--contents-file", path("contents.jsonl"),
                   "--max-tokens", "8",           "--method",        "saif,diffmean,random"};
    words.insert(words.end(), more.begin(), more.end());
    return json(words).at("rows");
  };
  EXPECT_EQ(evaluated({})[1].at("scale").as_double(), swept.at("best").at("recipe").at("scale").as_double());
  const Json own = json({"sweep", path("study"), "--contents-file", path("contents.jsonl"), "--max-tokens", "8",
                         "--method", "diffmean", "--scale", "3.5", "--rounds", "1"});
  EXPECT_EQ(own.at("best").at("recipe").at("scale").as_double(), 3.5);
  const Json rows = evaluated({});
  EXPECT_EQ(rows[0].at("scale").as_double(), swept.at("best").at("recipe").at("scale").as_double());
  EXPECT_EQ(rows[1].at("scale").as_double(), 3.5);
  EXPECT_EQ(rows[2].at("scale").as_double(), rows[0].at("scale").as_double());
  EXPECT_EQ(rows[1].at("against_saif").at("n").as_int(), rows[0].at("n").as_int());
  const Json flagged = evaluated({"--scale", "0.5", "--k", "2"});
  for (const Json& row : flagged.items()) EXPECT_EQ(row.at("scale").as_double(), 0.5);
  EXPECT_EQ(flagged[0].at("k").as_int(), 2);
}

// CLI11 takes "[a,b]" for a list where an option may have several values.
TEST_F(StudyVerbs, TextBetweenBracketsIsText) {
  const std::string text = "[INST] hello, world [/INST]";
  const Json one = json({"run", model(), "-p", text, "--max-tokens", "2"});
  EXPECT_EQ(one.at("prompt").as_string(), text);
  const auto two = good({"run", model(), "-p", text, "-p", "hi", "--max-tokens", "2", "--json"});
  EXPECT_EQ(lines_of(two.out).size(), 2U) << two.out;
}

TEST_F(StudyVerbs, NumbersThatCannotBeAreRefusedBeforeAnyWork) {
  const auto found = [&](const Words& more) {
    Words words = {"find", "--model", model(),      "--sae",      sae(),    "--task",
                   task(), "--out",   path("none"), "--no-check", "--quiet"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  bad(found({"--contents", "-3"}), 1, {"contents is -3"});
  bad(found({"--placement", "post,post"}), 1, {"post twice"});
  bad(found({"--task", task()}), 2, {"named twice"});
  bad({"find", "--model", model(), "--sae", sae(), "--task", task(), "--out", "", "--no-check", "--quiet"}, 1,
      {"empty name"});
  EXPECT_FALSE(file_exists(path("none/results.sqlite")));
}

TEST_F(StudyVerbs, TheDemoLooksAtItsOutputsFirst) {
  bad({"demo", "--model", model(), "--json", path("no/such/folder.json"), "--quiet"}, 1,
      {"no/such", "cannot be written"});
}

// The study of one model keeps it, and one SAE at each layer; another find adds to it.
TEST_F(StudyVerbs, ASecondFindAddsToTheStudy) {
  const auto found = [&](const std::string& sae_path, const std::string& task_path) {
    return Words{"find",  "--model",     model(),           "--sae",    sae_path,     "--task", task_path,
                 "--out", path("study"), "--contents-file", contents(), "--contents", "6",      "--no-check",
                 "--k",   "2",           "--quiet"};
  };
  good(found(sae(), task()));
  const Json before = read_json_file(path("study") + "/manifest.json");
  Json other_task = read_json_file(task());
  const std::string first = other_task.at("name").as_string();
  other_task["name"] = "second";
  good(found(sae(), file("second.json", other_task.dump())));
  const Json after = read_json_file(path("study") + "/manifest.json");
  EXPECT_EQ(after.at("saes").dump(), before.at("saes").dump());
  EXPECT_TRUE(after.at("tasks").contains(first) && after.at("tasks").contains("second"));
  EXPECT_TRUE(after.at("options_of").contains(first) && after.at("options_of").contains("second"));

  const std::string copy = path("other_sae");
  std::filesystem::copy(sae(), copy, std::filesystem::copy_options::recursive);
  Json config = read_json_file(copy + "/cfg.json");
  std::string bytes = read_file(copy + "/sae_weights.safetensors");
  bytes[bytes.size() - 3] = static_cast<char>(bytes[bytes.size() - 3] ^ 1);
  write_file_atomically(copy + "/sae_weights.safetensors", bytes);
  bad(found(copy, task()), 1, {"another SAE at layer 1", "--out"});
}

// A folder's name reaches the browser as it is, whatever a shell would make of it.
TEST_F(StudyVerbs, ReportOpensInTheBrowser) {
  const std::string opened = path("opened"), odd = path("it's $(exit 1); a \"study\"");
  std::filesystem::rename(study(), odd);
  std::filesystem::create_directory(path("bin"));
  // Written beside and renamed, so that the test never sees half of it; it lives on, and saif does not wait for it.
  const std::string browser =
      file("bin/xdg-open", "#!/bin/sh\nprintf '%s\\n' \"$@\" > '" + opened + ".part'\n/bin/mv '" + opened + ".part' '" +
                               opened + "'\necho noise\n/bin/sleep 2\n");
  std::filesystem::permissions(browser, std::filesystem::perms::owner_all);
  const auto result = saif({"report", odd, "--open"}, {.environment = {{"PATH", path("bin")}}});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, odd + "/report.html\n");
  EXPECT_EQ(result.err.find("noise"), std::string::npos);
  for (int i = 0; i < 5000 && !file_exists(opened); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  ASSERT_TRUE(file_exists(opened));
  EXPECT_EQ(read_file(opened), odd + "/report.html\n");
}

TEST_F(StudyVerbs, ReportWithoutABrowserSaysWhatToDo) {
  const std::string s = study();
  const auto result = saif({"report", s, "--open"}, {.environment = {{"PATH", path("nowhere")}}});
  expect_error(result, 1, {s + "/report.html is written", "xdg-open", "No such file", "install xdg-utils"});
  EXPECT_TRUE(file_exists(s + "/report.html"));
}

}  // namespace
}  // namespace saif
