#include <gtest/gtest.h>

#include <cmath>

#include "support/engine_fixtures.h"

namespace saif {
namespace {

using test::AddRamp;
using test::error_of;
using test::Sequence;
using test::tiny;

double by_hand(const Engine::ScoreRequest& r, Editor* editor = nullptr) {
  Forward forward(tiny());
  const int64_t vocab = tiny()->architecture().vocab;
  const auto logits = Sequence(forward, tiny()->architecture()).append(r.ids, {nullptr, editor});
  double sum = 0;
  for (size_t p = static_cast<size_t>(r.context) - 1; p + 1 < r.ids.size(); ++p) {
    const float* row = logits.data() + static_cast<int64_t>(p) * vocab;
    double total = 0;
    for (int64_t i = 0; i < vocab; ++i) total += std::exp(static_cast<double>(row[i]));
    sum += static_cast<double>(row[r.ids[p + 1]]) - std::log(total);
  }
  return sum;
}

std::vector<Engine::ScoreRequest> requests(size_t n) {
  Rng rng(12);
  std::vector<Engine::ScoreRequest> all;
  for (const auto& ids : test::branching_prompts(n, 12))
    all.push_back({ids, 1 + static_cast<int64_t>(rng.below(ids.size()))});
  return all;
}

TEST(Score, EqualsTheSumsOfOneByOne) {
  const auto all = requests(60);
  Engine engine(tiny(), nullptr);
  const auto scores = engine.score(all, {}, Control());
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(scores[i].tokens, static_cast<int64_t>(all[i].ids.size()) - all[i].context);
    EXPECT_NEAR(scores[i].log_probability, by_hand(all[i]), 1e-3);
    const auto alone = engine.score({&all[i], 1}, {}, Control())[0];
    EXPECT_EQ(scores[i].log_probability, alone.log_probability);  // bit for bit
    EXPECT_TRUE(scores[i].each.empty());
  }
}

TEST(Score, TokensOneByOneWhereAsked) {
  auto all = requests(20);
  for (auto& r : all) r.each = true;
  Engine engine(tiny(), nullptr);
  const auto scores = engine.score(all, {}, Control());
  for (size_t i = 0; i < all.size(); ++i) {
    ASSERT_EQ(static_cast<int64_t>(scores[i].each.size()), scores[i].tokens);
    double sum = 0;
    for (const double value : scores[i].each) sum += value;
    EXPECT_EQ(sum, scores[i].log_probability);
    if (scores[i].tokens < 2) continue;
    Engine::ScoreRequest shorter = all[i];  // without its last token: the others keep their values
    shorter.ids.pop_back();
    const auto before = engine.score({&shorter, 1}, {}, Control())[0].each;
    EXPECT_TRUE(std::equal(before.begin(), before.end(), scores[i].each.begin()));
  }
}

TEST(Score, EditsCountTheirStepsFromTheLastGivenToken) {
  const auto all = requests(20);
  const Site site{SiteKind::kResidPost, 1};
  const auto ramp = std::make_shared<AddRamp>(0.7F, 2);
  Engine engine(tiny(), nullptr);
  for (const EditPositions positions : {EditPositions::kAll, EditPositions::kGenerated}) {
    const AppliedEdit edit{site, positions, ramp};
    const auto scores = engine.score(all, {&edit, 1}, Control());
    for (size_t i = 0; i < all.size(); ++i) {
      test::RowEditor editor(site, [&](const RowInfo& row, std::span<float> h) {
        const int64_t step = row.position - (all[i].context - 1);
        if (positions == EditPositions::kGenerated && step < 0) return;
        for (size_t c = 0; c < h.size(); ++c) h[c] += ramp->at(step, static_cast<int64_t>(c));
      });
      EXPECT_NEAR(scores[i].log_probability, by_hand(all[i], &editor), 1e-3) << i;
    }
  }
}

TEST(Score, BadRequestsAreNamed) {
  Engine engine(tiny(), nullptr);
  const auto expect = [&](Engine::ScoreRequest bad, const std::string& part) {
    const std::vector<Engine::ScoreRequest> all = {{{1, 2}, 1}, std::move(bad)};
    const Error e = error_of([&] { engine.score(all, {}, Control()); });
    EXPECT_EQ(e.code(), Errc::kInvalidArgument);
    EXPECT_NE(std::string(e.what()).find("request 1"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  };
  expect({{}, 1}, "empty");
  expect({{1, 2}, 0}, "context is 0");
  expect({{1, 2}, 3}, "context is 3");
  expect({{1, 77}, 1}, "77");
  expect({std::vector<int32_t>(257, 1), 1}, "257");
  EXPECT_TRUE(engine.score({}, {}, Control()).empty());
  const Engine::ScoreRequest given{{1, 2, 3}, 3};
  EXPECT_EQ(engine.score({&given, 1}, {}, Control())[0].tokens, 0);
}

}  // namespace
}  // namespace saif
