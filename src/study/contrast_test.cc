#include "study/contrast.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace saif {
namespace {

// Rows of latents from lists of (index, value).
SparseLatents rows_of(const std::vector<std::vector<std::pair<int32_t, float>>>& rows) {
  SparseLatents out;
  for (const auto& row : rows) {
    for (const auto& [index, value] : row) {
      out.indices.push_back(index);
      out.values.push_back(value);
    }
    out.row_offsets.push_back(static_cast<int64_t>(out.indices.size()));
  }
  return out;
}

// Two contents, two wordings: rows 0-1 plain, 2-5 with the instruction, 6-7 with an unrelated one.
const SparseLatents kLatents = rows_of({{{0, 1.f}},            // content 0 plain
                                        {},                    // content 1 plain
                                        {{0, 2.f}, {1, 3.f}},  // content 0, wording 0
                                        {{1, 5.f}},            // content 0, wording 1
                                        {{0, 4.f}, {1, 1.f}},  // content 1, wording 0
                                        {{2, -1.f}},           // content 1, wording 1: negative, not active
                                        {{1, 9.f}},            // content 0 unrelated
                                        {{0, 1.f}}});          // content 1 unrelated
const PromptSet kPlain{{0, 1}, 1};
const PromptSet kPos{{2, 3, 4, 5}, 2};
const PromptSet kUnrelated{{6, 7}, 1};

TEST(Contrast, CountsPairsAsThePaperDoes) {
  const Contrast c = contrast(kLatents, 3, kPos, kPlain, kUnrelated);
  EXPECT_EQ(c.n_pos, 4);
  EXPECT_EQ(c.n_neg, 2);
  EXPECT_EQ(c.n_unrelated, 2);
  // Latent 0 is active on content 0 without the instruction: only content 1 counts as a pair.
  EXPECT_EQ(c.sums[0].pos, 2);
  EXPECT_EQ(c.sums[0].pairs, 1);
  EXPECT_EQ(c.sums[0].neg, 1);
  EXPECT_EQ(c.sums[0].unrelated_pairs, 1);
  EXPECT_EQ(c.sums[1].pairs, 3);
  EXPECT_DOUBLE_EQ(c.sums[1].sum, 9.0);
  EXPECT_DOUBLE_EQ(c.sums[1].sum_squares, 35.0);
  EXPECT_EQ(c.sums[1].unrelated_pairs, 1);
  EXPECT_EQ(c.sums[2].pos, 0);
}

TEST(Contrast, SharesPerContentForTheBootstrap) {
  const std::vector<int32_t> chosen = {1, 0};
  const auto shares = pair_shares(kLatents, chosen, kPos, kPlain);
  EXPECT_EQ(shares[0], (std::vector<double>{1.0, 0.5}));
  EXPECT_EQ(shares[1], (std::vector<double>{0.0, 0.5}));
}

TEST(Contrast, DifferencesOfRatesAreCountedPerContent) {
  const std::vector<int64_t> d = rate_differences(kLatents, 3, kPos, kUnrelated);
  // In units of 1 / 2: of two wordings latent 0 is active on one of each content, and on content 1's unrelated one.
  EXPECT_EQ(d, (std::vector<int64_t>{1, 1 - 2, 2 - 2, 1, 0, 0}));
}

TEST(Contrast, HalvesShareNothingAndLoseNothing) {
  const PromptSet set{{0, 1, 2, 3, 4, 5, 6, 7, 8}, 3};
  EXPECT_EQ(every_other_content(set, 0).rows, (std::vector<int64_t>{0, 1, 2, 6, 7, 8}));
  EXPECT_EQ(every_other_content(set, 1).rows, (std::vector<int64_t>{3, 4, 5}));
  EXPECT_EQ(every_other_wording(set, 0).rows, (std::vector<int64_t>{0, 2, 3, 5, 6, 8}));
  EXPECT_EQ(every_other_wording(set, 0).wordings, 2);
  EXPECT_EQ(every_other_wording(set, 1).rows, (std::vector<int64_t>{1, 4, 7}));
  EXPECT_EQ(every_other_wording(set, 1).wordings, 1);
}

// A planted latent fires with the instruction only, a decoy with any instruction, noise everywhere: sensitivity cannot
// tell the first two apart, specificity can.
TEST(Contrast, SpecificityTellsAPlantedLatentFromADecoy) {
  Rng rng(7);
  std::vector<std::vector<std::pair<int32_t, float>>> rows;
  PromptSet plain{{}, 1}, pos{{}, 4}, unrelated{{}, 2};
  const auto add = [&](PromptSet& set, bool planted, bool decoy) {
    std::vector<std::pair<int32_t, float>> row;
    if (planted && rng.uniform() < 0.95) row.emplace_back(10, 2.f);
    if (decoy && rng.uniform() < 0.95) row.emplace_back(20, 2.f);
    for (int32_t j = 30; j < 60; ++j) {
      if (rng.uniform() < 0.3) row.emplace_back(j, 1.f);
    }
    set.rows.push_back(static_cast<int64_t>(rows.size()));
    rows.push_back(row);
  };
  for (int c = 0; c < 100; ++c) {
    add(plain, false, false);
    for (int v = 0; v < 4; ++v) add(pos, true, true);
    for (int u = 0; u < 2; ++u) add(unrelated, false, true);
  }
  const SparseLatents latents = rows_of(rows);
  const Contrast c = contrast(latents, 64, pos, plain, unrelated);
  const auto sensitivity = [&](size_t j) { return static_cast<double>(c.sums[j].pairs) / 400.0; };
  const auto specificity = [&](size_t j) {
    return sensitivity(j) - static_cast<double>(c.sums[j].unrelated_pairs) / 200.0;
  };
  EXPECT_NEAR(sensitivity(10), 0.95, 0.04);
  EXPECT_NEAR(sensitivity(20), 0.95, 0.04);
  EXPECT_GT(specificity(10), 0.9);
  EXPECT_LT(specificity(20), 0.1);
  for (size_t j = 30; j < 60; ++j) EXPECT_NEAR(sensitivity(j), 0.21, 0.09);
}

}  // namespace
}  // namespace saif
