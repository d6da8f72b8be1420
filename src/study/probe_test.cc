#include "study/probe.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <set>

#include "base/rng.h"

namespace saif {
namespace {

// Texts of three labels, activations of 6 numbers, 40 latents of which 5 of noise fire on every text.
class Probe : public testing::Test {
 protected:
  Probe() : activations_(DType::kF32, {kTexts, 6}) {
    Rng rng(9);
    for (int64_t i = 0; i < kTexts; ++i) {
      label_.push_back(static_cast<int>(i % 3));
      test_.push_back(rng.uniform() < 0.4);
      for (int64_t c = 0; c < 6; ++c) activations_.f32()(i, c) = static_cast<float>(rng.normal());
    }
  }
  // Latent 30 + l fires with label l on the given share of its texts.
  SparseLatents latents(double share) {
    Rng rng(10);
    SparseLatents out;
    for (int64_t i = 0; i < kTexts; ++i) {
      for (int32_t j = 0; j < 5; ++j) {
        out.indices.push_back(j);
        out.values.push_back(static_cast<float>(std::abs(rng.normal())));
      }
      if (rng.uniform() < share) {
        out.indices.push_back(30 + label_[static_cast<size_t>(i)]);
        out.values.push_back(2.0f);
      }
      out.row_offsets.push_back(static_cast<int64_t>(out.indices.size()));
    }
    return out;
  }
  ProbeResult run(const SparseLatents& l, std::vector<std::string> names = {"x", "y", "z"}) {
    return probe({activations_.f32(), l, label_, test_, std::move(names)}, {.k = {1, 3}});
  }
  static constexpr int64_t kTexts = 600;
  Tensor activations_;
  std::vector<int> label_;
  std::vector<uint8_t> test_;
};

TEST_F(Probe, APlantedLatentTellsItsLabel) {
  const ProbeResult r = run(latents(1.0));
  ASSERT_EQ(r.classes.size(), 3U);
  for (size_t c = 0; c < 3; ++c) {
    EXPECT_EQ(r.classes[c].latents[0], 30 + static_cast<int32_t>(c));
    EXPECT_EQ(r.classes[c].sparse[0].hits, r.classes[c].sparse[0].n);
  }
  EXPECT_GT(r.dense().n, 400);
  EXPECT_TRUE(r.dense().ci().contains(0.5)) << r.dense().value();  // the activations know nothing
  EXPECT_NEAR(r.sparse(0).value(), 1.0, 1e-12);
}

TEST_F(Probe, HalfALatentTellsThreeQuarters) {
  const ProbeResult r = run(latents(0.5));
  EXPECT_NEAR(r.sparse(0).value(), 0.75, 0.06);  // right on all without, on half of those with the label
}

TEST_F(Probe, NoiseIsAtChance) {
  const ProbeResult r = run(latents(0.0));
  EXPECT_NEAR(r.sparse(0).value(), 0.5, 0.07);
  EXPECT_NEAR(r.sparse(1).value(), 0.5, 0.07);
}

TEST_F(Probe, TheDenseProbeReadsTheActivations) {
  for (int64_t i = 0; i < kTexts; ++i)
    activations_.f32()(i, 4) += 8.0f * static_cast<float>(label_[static_cast<size_t>(i)] == 1);
  const ProbeResult r = run(latents(0.0));
  EXPECT_GT(r.classes[1].dense.value(), 0.99);
}

TEST_F(Probe, TwoLabelsAreOneQuestion) {
  for (int& l : label_) l = std::min(l, 1);
  const ProbeResult r = run(latents(1.0), {"no", "yes"});
  ASSERT_EQ(r.classes.size(), 1U);
  EXPECT_EQ(r.classes[0].sparse[0].value(), 1.0);
}

TEST_F(Probe, ALabelWithoutTestTextsIsNamed) {
  for (size_t i = 0; i < label_.size(); ++i) test_[i] = test_[i] && label_[i] != 2;
  try {
    run(latents(1.0));
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("\"z\""), std::string::npos) << e.what();
  }
}

TEST(MeanLatents, OfRowsOfATextSilentOnesIncluded) {
  SparseLatents rows;
  rows.indices = {1, 4, 1, 2};
  rows.values = {3, 8, 1, 5};
  rows.row_offsets = {0, 2, 3, 3, 3, 4};  // rows: {1: 3, 4: 8}, {1: 1}, {}, {}, {2: 5}
  const std::vector<int64_t> offsets = {0, 4, 5};
  const SparseLatents mean = mean_latents(rows, offsets);
  EXPECT_EQ(mean.indices, (std::vector<int32_t>{1, 4, 2}));
  EXPECT_EQ(mean.values, (std::vector<float>{1, 2, 5}));
  EXPECT_EQ(mean.row_offsets, (std::vector<int64_t>{0, 2, 3}));
}

TEST(LabelledTexts, TheBundledOnesKeepContentsAndWordingsApart) {
  std::set<std::string> train, test;
  std::map<std::string, int> labels;
  for (const LabelledText& t : load_labelled_texts()) {
    ++labels[t.label];
    std::set<std::string>& lines = t.split == "test" ? test : train;
    lines.insert(t.text.substr(0, t.text.find('\n')));
    lines.insert(t.text.substr(t.text.find('\n') + 1));
  }
  EXPECT_EQ(labels.size(), 11U);
  for (const std::string& line : test) EXPECT_FALSE(train.contains(line)) << line;
}

TEST(LabelledTexts, WrongLinesAreNamed) {
  const std::string path = testing::TempDir() + "/saif_probe_" + std::to_string(getpid()) + ".jsonl";
  const auto message = [&](const std::string& text) -> std::string {
    std::ofstream(path) << text;
    try {
      (void)load_labelled_texts(path);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message("{\"text\": \"a\", \"label\": \"b\"}\n\n"), "");
  EXPECT_NE(message("{\"text\": \"a\", \"label\": \"b\"}\n{\"text\": \"a\"}").find(":2:"), std::string::npos);
  EXPECT_NE(message("{\"text\": \"a\", \"label\": 1}").find("label"), std::string::npos);
  EXPECT_NE(message("{\"text\": \"a\", \"label\": \"b\", \"split\": \"dev\"}").find("dev"), std::string::npos);
  EXPECT_NE(message("").find("no text"), std::string::npos);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace saif
