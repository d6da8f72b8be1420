// Ctrl-C and kill at any moment: nothing that was finished is lost, and the same command goes on.
#include <csignal>

#include "saif/sweep.h"
#include "support/cli.h"

namespace saif {
namespace {

namespace fs = std::filesystem;
using test::Cli;
using test::lines_of;
using test::parsed;
using test::Program;
using test::saif_binary;
using test::Words;

using Interrupted = Cli;

TEST_F(Interrupted, RunKeepsFinishedAnswers) {
  std::string prompts;
  for (int i = 0; i < 400; ++i) prompts += "tell me about " + std::to_string(i) + "\n";
  Program program(saif_binary(), {"run", model(), "--file", file("prompts", prompts), "--json", "--quiet", "--batch",
                                  "2", "--max-tokens", "200", "--threads", "1"});
  ASSERT_TRUE(program.wait_until([&] { return lines_of(program.out_so_far()).size() >= 2; }));
  program.send(SIGINT);
  const auto result = program.wait();
  expect_error(result, 1, {"interrupted"});
  EXPECT_EQ(lines_of(result.err).size(), 1U) << result.err;
  const Words answers = lines_of(result.out);
  EXPECT_GE(answers.size(), 2U);
  EXPECT_LT(answers.size(), 400U);
  ASSERT_TRUE(result.out.ends_with("\n"));
  for (const std::string& answer : answers) EXPECT_EQ(parsed(answer).at("ids").size(), 200U);
}

TEST_F(Interrupted, StreamedTextStays) {
  Program program(saif_binary(), {"run", model("long", "max_position_embeddings", 400000), "-p", "go on", "--quiet",
                                  "--max-tokens", "300000"});
  ASSERT_TRUE(program.wait_until([&] { return program.out_so_far().size() > 50; }));
  program.send(SIGTERM);
  const auto result = program.wait();
  expect_error(result, 1, {"interrupted"});
  EXPECT_GT(result.out.size(), 50U);
}

class Training : public Cli {
 protected:
  void SetUp() override {
    Cli::SetUp();
    model_ = model();
    Rng rng(3);
    std::string text;
    for (int document = 0; document < 60; ++document) {
      for (int i = 0; i < 100; ++i) text += static_cast<char>('a' + static_cast<int>(rng.uniform() * 26));
      text += "\n";
    }
    corpus_ = file("corpus", text);
  }
  Words command(const std::string& out) const {
    return {"sae",
            "train",
            "--model",
            model_,
            "--corpus",
            corpus_,
            "--site",
            kSite,
            "--d-sae",
            "128",
            "--k",
            "8",
            "--batch",
            "64",
            "--epochs",
            "20",
            "--out",
            out,
            "--checkpoint-every",
            "20",
            "--save-dtype",
            "f32",
            "--threads",
            "1",
            "--quiet",
            "--json"};
  }
  std::string state(const std::string& out) const { return out + "/checkpoint/" + kSite + ".state.safetensors"; }
  std::string weights(const std::string& out) const { return read_file(out + "/sae_weights.safetensors"); }
  std::string model_, corpus_;
};

TEST_F(Training, ResumesToTheSameWeights) {
  const std::string whole = path("whole"), stopped = path("stopped");
  good(command(whole));
  for (const int signal : {SIGINT, SIGKILL}) {
    const std::string before = file_exists(state(stopped)) ? read_file(state(stopped)) : "";
    Program program(saif_binary(), command(stopped));
    ASSERT_TRUE(program.wait_until([&] { return file_exists(state(stopped)) && read_file(state(stopped)) != before; }))
        << program.wait().err;
    program.send(signal);
    const auto result = program.wait();
    if (signal == SIGINT) {
      expect_error(result, 1, {"interrupted", "resumes"});
      EXPECT_EQ(lines_of(result.err).size(), 1U) << result.err;
    } else {
      EXPECT_EQ(result.signal, SIGKILL);
    }
    EXPECT_FALSE(file_exists(stopped + "/metrics.json"));
  }
  const Json resumed = parsed(good(command(stopped)).out);
  EXPECT_EQ(weights(stopped), weights(whole));
  EXPECT_NE(read_file(stopped + "/training.html").find("<svg"), std::string::npos);
  for (const char* key : {"site", "l0", "fvu", "dead", "loss_recovered", "tokens_per_s"})
    EXPECT_TRUE(resumed.contains(key)) << key;
  // Finished is finished: the result is told again.
  EXPECT_EQ(parsed(good(command(stopped)).out).at("fvu").as_double(), resumed.at("fvu").as_double());
  // Other options are not mixed in.
  Words other = command(stopped);
  other[11] = "16";
  bad(other, 1, {stopped});
}

// The model's own answers as the corpus: made once, kept, and the same SAE again.
TEST_F(Training, OnTheModelsOwnSamples) {
  const auto with_samples = [&](const std::string& out) {
    Words words = command(out);
    words[4] = "--prompts";
    words[9] = "64";    // --d-sae
    words[11] = "4,8";  // --k
    words[15] = "4";    // --epochs
    words.insert(words.end(), {"--sample-tokens", "30"});
    return words;
  };
  const std::string a = path("a"), b = path("b");
  EXPECT_EQ(lines_of(good(with_samples(a)).out).size(), 2U);
  good(with_samples(b));
  EXPECT_EQ(read_file(a + "/samples.json"), read_file(b + "/samples.json"));
  EXPECT_EQ(weights(a + "/topk-64-k4"), weights(b + "/topk-64-k4"));
  Words other = with_samples(a);
  other.back() = "31";
  bad(other, 1, {"samples.json"});
  bad({"sae", "train", "--model", model_, "--site", kSite, "--out", path("none")}, 2, {"--corpus", "--prompts"});
}

// Killed twice; the thresholds that batch top-k remembers and the gate's own parameters come back with the weights.
TEST_F(Training, KindsResumeToTheSameWeightsAfterAKill) {
  for (const char* kind : {"batchtopk", "gated"}) {
    const std::string whole = path(std::string("whole-") + kind), stopped = path(std::string("stopped-") + kind);
    const auto with_kind = [&](const std::string& out) {
      Words words = command(out);
      words.insert(words.end(), {"--kind", kind, "--activations", "memory"});
      return words;
    };
    good(with_kind(whole));
    for (int i = 0; i < 2; ++i) {
      const std::string before = file_exists(state(stopped)) ? read_file(state(stopped)) : "";
      Program program(saif_binary(), with_kind(stopped));
      ASSERT_TRUE(program.wait_until([&] {
        return file_exists(state(stopped)) && read_file(state(stopped)) != before;
      })) << program.wait().err;
      program.send(SIGKILL);
      EXPECT_EQ(program.wait().signal, SIGKILL);
      EXPECT_FALSE(file_exists(stopped + "/metrics.json"));
    }
    good(with_kind(stopped));
    EXPECT_EQ(weights(stopped), weights(whole)) << kind;
  }
}

class Sweeping : public Cli {
 protected:
  // 48 cells of 8 answers: three times what is decoded together.
  Words command(const std::string& study) const {
    return {"sweep",
            study,
            "--contents-file",
            path("contents.jsonl"),
            "--max-tokens",
            "150",
            "--order",
            "full",
            "--k",
            "1,2,3,4",
            "--beta",
            "0,1",
            "--scale",
            "1,2,3,4,5,6",
            "--quiet",
            "--threads",
            "1",
            "--json"};
  }
  static size_t cells(const std::string& study) {
    try {
      return Study::open(study, Study::Mode::kReadOnly)->cells("shout").size();
    } catch (const Error&) {
      return 0;  // not begun, or just being written
    }
  }
};

TEST_F(Sweeping, NothingIsComputedTwice) {
  const std::string whole = study(), stopped = path("stopped");
  fs::copy(whole, stopped, fs::copy_options::recursive);
  const Json expected = parsed(good(command(whole)).out);
  ASSERT_EQ(expected.at("cells").size(), 48U);
  EXPECT_EQ(expected.at("computed").as_int(),
            48 + 1);  // the finalists' contents are the grid's; one cell on the test split
  EXPECT_EQ(expected.at("reused").as_int(), 0);

  size_t kept = 0;
  for (const int signal : {SIGKILL, SIGINT}) {
    Program program(saif_binary(), command(stopped));
    ASSERT_TRUE(program.wait_until([&] { return cells(stopped) > kept; })) << program.wait().err;
    program.send(signal);
    const auto result = program.wait();
    kept = cells(stopped);
    if (result.signal == 0 && result.exit_code == 0) break;  // it was done before the signal came
    EXPECT_EQ(result.out, "");
    if (signal == SIGINT) {
      expect_error(result, 1, {"interrupted"});
    } else {
      EXPECT_EQ(result.signal, SIGKILL);
    }
    kept = cells(stopped);
  }
  const Json resumed = parsed(good(command(stopped)).out);
  EXPECT_EQ(resumed.at("cells").dump(), expected.at("cells").dump());
  EXPECT_EQ(resumed.at("best").dump(), expected.at("best").dump());
  const auto already = static_cast<int64_t>(kept);
  EXPECT_EQ(resumed.at("computed").as_int(), expected.at("computed").as_int() - already);
  EXPECT_EQ(resumed.at("reused").as_int(), expected.at("reused").as_int() + already);
  // A third time there is nothing left to do.
  const Json again = parsed(good(command(stopped)).out);
  EXPECT_EQ(again.at("computed").as_int(), 0);
  EXPECT_EQ(again.at("cells").dump(), expected.at("cells").dump());
}

TEST_F(Sweeping, OneWriterAtATime) {
  const std::string s = study();
  const auto writer = Study::open(s, Study::Mode::kOpen);
  bad(command(s), 1, {s});
  EXPECT_EQ(saif({"inspect", s, "--json"}).exit_code, 0);  // readers are welcome
}

TEST_F(Sweeping, FindInterruptedLeavesNoHalfStudy) {
  const std::string m = model(), s = sae(), t = task();
  std::string lines;
  for (int i = 0; i < 3000; ++i) {
    const std::string id = "d" + std::to_string(i);
    const Json line = Json::object({{"id", id}, {"subject", id}, {"text", id + " is what?"}, {"split", "discovery"}});
    lines += line.dump() + "\n";
  }
  const Words find = {"find",
                      "--model",
                      m,
                      "--sae",
                      s,
                      "--task",
                      t,
                      "--contents-file",
                      file("many.jsonl", lines),
                      "--contents",
                      "3000",
                      "--out",
                      path("study"),
                      "--no-check",
                      "--quiet",
                      "--json"};
  Program program(saif_binary(), find);
  ASSERT_TRUE(program.wait_until([&] { return file_exists(path("study/manifest.json")); }));
  program.send(SIGINT);
  const auto result = program.wait();
  expect_error(result, 1, {"interrupted"});
  EXPECT_EQ(result.out, "");
  bad({"vector", path("study"), "--out", path("v")}, 1, {"find"});
}

}  // namespace
}  // namespace saif
