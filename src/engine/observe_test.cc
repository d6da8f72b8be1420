#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "support/engine_fixtures.h"

namespace saif {
namespace {

using test::AddRamp;
using test::error_of;
using test::Recorder;
using test::Sequence;
using test::tiny;

const std::vector<Site> kSites = {{SiteKind::kEmbed, -1},     {SiteKind::kResidPre, 1},  {SiteKind::kLn1, 2},
                                  {SiteKind::kQ, 2},          {SiteKind::kK, 1},         {SiteKind::kZ, 2},
                                  {SiteKind::kResidPost, 2},  {SiteKind::kResidPost, 0}, {SiteKind::kMlpPre, 1},
                                  {SiteKind::kFinalNorm, -1}, {SiteKind::kLogits, -1}};

// All rows of one prompt at a site, run alone.
std::vector<float> alone(const std::vector<int32_t>& ids, const Site& site) {
  Forward forward(tiny());
  Recorder recorder({site.name()});
  Sequence(forward, tiny()->architecture()).append(ids, {&recorder});
  return recorder.all(site.name());
}

void expect_capture(std::span<const Site> sites, bool last_only) {
  const auto prompts = test::branching_prompts(40, 6);
  Engine engine(tiny(), nullptr);
  const Engine::Capture capture = engine.capture(prompts, sites, last_only, Control());
  ASSERT_EQ(capture.row_offsets.size(), prompts.size() + 1);
  for (const Site& site : sites) {
    const Tensor& tensor = capture.at(site.name());
    const int64_t width = tiny()->architecture().width(site);
    ASSERT_EQ(tensor.shape(), (std::vector<int64_t>{capture.row_offsets.back(), width}));
    for (size_t p = 0; p < prompts.size(); ++p) {
      std::vector<float> expected = alone(prompts[p], site);
      if (last_only) expected.erase(expected.begin(), expected.end() - width);
      const float* found = tensor.f32().row(capture.row_offsets[p]);
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), found)) << site.name() << " of prompt " << p;
    }
  }
}

TEST(Capture, LastTokensAtEverySiteAlone) {
  for (const Site& site : kSites) expect_capture({&site, 1}, true);
}
TEST(Capture, LastTokensAtManySites) { expect_capture(kSites, true); }
TEST(Capture, AllTokens) { expect_capture(kSites, false); }

TEST(Capture, CountsTokens) {
  const std::vector<std::vector<int32_t>> prompts = {{1, 2, 3, 4}, {1, 2, 3}, {1, 2, 3, 4}, {1, 2, 5, 6, 7}};
  Engine engine(tiny(), nullptr);
  const Site site{SiteKind::kResidPost, 1};
  for (const bool last_only : {true, false}) {
    const auto capture = engine.capture(prompts, {&site, 1}, last_only, Control());
    EXPECT_EQ(capture.tokens.naive, 16);
    EXPECT_EQ(capture.tokens.computed, 7);
    EXPECT_EQ(capture.row_offsets.back(), last_only ? 4 : 16);
  }
}

TEST(Capture, RefusesWhatItCannotHold) {
  Engine engine(tiny(), nullptr);
  const std::vector<std::vector<int32_t>> prompts = {{1, 2}, {}};
  const auto capture = [&](Site site, size_t n) {
    return error_of([&] { engine.capture({prompts.data(), n}, {&site, 1}, true, Control()); });
  };
  EXPECT_EQ(capture({SiteKind::kResidPost, 3}, 1).code(), Errc::kNotFound);
  EXPECT_EQ(capture({SiteKind::kPattern, 1}, 1).code(), Errc::kUnsupported);
  EXPECT_EQ(capture({SiteKind::kPosEmbed, -1}, 1).code(), Errc::kNotFound);  // a model without learned positions
  const Error empty = capture({SiteKind::kResidPost, 1}, 2);
  EXPECT_EQ(empty.code(), Errc::kInvalidArgument);
  EXPECT_NE(std::string(empty.what()).find("prompt 1"), std::string::npos);
  const Site site{SiteKind::kResidPost, 1};
  const auto none = engine.capture({}, {&site, 1}, true, Control());
  EXPECT_EQ(none.at("blocks.1.hook_resid_post").shape()[0], 0);
  EXPECT_THROW((void)none.at("blocks.0.hook_resid_post"), Error);
}

// Notes (sequence, position) of what it sees.
class Log : public Observer {
 public:
  explicit Log(Site site) : site_(site) {}
  bool wants(const Site& site) const override { return site == site_; }
  void observe(const Site& /*site*/, std::span<const RowInfo> rows, Mat<const float> values) override {
    ASSERT_EQ(static_cast<int64_t>(rows.size()), values.rows());
    for (const RowInfo& row : rows) ++seen[{row.sequence, row.position}];
  }
  std::map<std::pair<int64_t, int64_t>, int> seen;

 private:
  Site site_;
};

TEST(Observe, RowsAreReportedOnceUnderTheirFirstOwner) {
  const std::vector<std::vector<int32_t>> prompts = {{1, 2, 3}, {1, 2}, {1, 4}, {1, 2}};
  Engine engine(tiny(), nullptr);
  using Seen = std::map<std::pair<int64_t, int64_t>, int>;
  Log last({SiteKind::kLn1, 1});  // earlier than the cut: other rows exist there, and must not be shown
  engine.observe(prompts, last, {}, Control());
  EXPECT_EQ(last.seen, (Seen{{{0, 2}, 1}, {{1, 1}, 1}, {{2, 1}, 1}}));
  Log all({SiteKind::kResidPost, 1});
  Engine::ObserveOptions options;
  options.last_only = false;
  EXPECT_EQ(engine.observe(prompts, all, options, Control()).computed, 4);
  EXPECT_EQ(all.seen, (Seen{{{0, 0}, 1}, {{0, 1}, 1}, {{0, 2}, 1}, {{2, 1}, 1}}));
  Log each({SiteKind::kResidPost, 1});
  options.share_prefixes = false;
  EXPECT_EQ(engine.observe(prompts, each, options, Control()).computed, 9);
  EXPECT_EQ(each.seen.size(), 9U);
}

TEST(Observe, EditsEqualOneByOne) {
  const auto prompts = test::branching_prompts(25, 9);
  const Site at{SiteKind::kResidPost, 0}, seen{SiteKind::kResidPost, 2};
  const auto ramp = std::make_shared<AddRamp>(1.0F, 3);
  Engine engine(tiny(), nullptr);
  for (const EditPositions positions : {EditPositions::kAll, EditPositions::kGenerated, EditPositions::kLast})
    for (const bool last_only : {true, false}) {
      Engine::ObserveOptions options;
      options.last_only = last_only;
      options.edits = {{at, positions, ramp}};
      Recorder found({seen.name()});
      engine.observe(prompts, found, options, Control());
      for (const auto& [where, row] : found.seen[seen.name()]) {
        const auto& ids = prompts[static_cast<size_t>(where.first)];
        const auto last = static_cast<int64_t>(ids.size()) - 1;
        EXPECT_TRUE(!last_only || where.second == last);
        Forward forward(tiny());
        Recorder expected({seen.name()});
        test::RowEditor editor(at, [&](const RowInfo& r, std::span<float> h) {
          if (positions != EditPositions::kAll && r.position != last) return;
          for (size_t c = 0; c < h.size(); ++c) h[c] += ramp->at(r.position - last, static_cast<int64_t>(c));
        });
        Sequence(forward, tiny()->architecture()).append(ids, {&expected, &editor});
        const std::vector<float>& wanted = expected.seen[seen.name()].at({0, where.second});
        EXPECT_EQ(row, wanted) << where.first << " " << where.second;
      }
    }
}

TEST(Observe, RefusesEditsThatTouchNothing) {
  const std::vector<std::vector<int32_t>> prompts = {{1, 2}};
  Engine engine(tiny(), nullptr);
  Recorder recorder({"blocks.0.hook_resid_post"});
  Engine::ObserveOptions options;
  options.edits = {{{SiteKind::kResidPost, 1}, EditPositions::kAll, std::make_shared<AddRamp>(1.0F, 1)}};
  EXPECT_EQ(error_of([&] { engine.observe(prompts, recorder, options, Control()); }).code(), Errc::kRefused);
  Recorder nothing({"no such site"});
  EXPECT_EQ(error_of([&] { engine.observe(prompts, nothing, {}, Control()); }).code(), Errc::kInvalidArgument);
  Control stopped;
  stopped.request_stop();
  EXPECT_EQ(error_of([&] { engine.observe(prompts, recorder, {}, stopped); }).code(), Errc::kInterrupted);
}

// More rows than a pass holds: segments live from pass to pass.
TEST(Observe, ManyPassesEqualOne) {
  Rng rng(2);
  std::vector<std::vector<int32_t>> prompts;
  const auto stem = test::random_ids(rng, 90);
  for (int i = 0; i < 100; ++i) {
    prompts.push_back(stem);
    const auto tail = test::random_ids(rng, 100);
    prompts.back().insert(prompts.back().end(), tail.begin(), tail.end());
  }
  const Site site{SiteKind::kLogits, -1};
  Engine engine(tiny(), nullptr);
  const auto all = engine.capture(prompts, {&site, 1}, true, Control());
  EXPECT_GT(all.tokens.computed, 8192);
  for (const size_t p : {0, 50, 99}) {
    const auto expected = alone(prompts[p], site);
    EXPECT_TRUE(std::equal(expected.end() - 50, expected.end(), all.at("logits").f32().row(static_cast<int64_t>(p))));
  }
}

}  // namespace
}  // namespace saif
