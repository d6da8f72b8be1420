#include <gtest/gtest.h>

#include <map>

#include "support/engine_fixtures.h"

namespace saif {
namespace {

using test::AddRamp;
using test::error_of;
using test::letters;
using test::Sequence;
using test::tiny;

GenerateRequest greedy(std::vector<int32_t> ids, int64_t n) {
  GenerateRequest r;
  r.ids = std::move(ids);
  r.max_new_tokens = n;
  return r;
}

std::vector<GenerateResult> generate(const std::vector<GenerateRequest>& requests, EngineOptions options = {},
                                     std::shared_ptr<const Tokenizer> tokenizer = nullptr) {
  return Engine(tiny(), std::move(tokenizer), options).generate(requests, Control());
}

// One sequence at a time, one token at a time, every row edited by hand.
std::vector<int32_t> by_hand(const GenerateRequest& r) {
  Forward forward(tiny());
  const auto last = static_cast<int64_t>(r.ids.size()) - 1;
  const AppliedEdit& e = r.edits.at(0);
  test::RowEditor editor(e.site, [&](const RowInfo& row, std::span<float> h) {
    const int64_t step = row.position - last;
    const bool hit =
        e.positions == EditPositions::kAll || (e.positions == EditPositions::kLast ? step == 0 : step >= 0);
    for (size_t c = 0; hit && c < h.size(); ++c)
      h[c] += static_cast<const AddRamp&>(*e.edit).at(step, static_cast<int64_t>(c));
  });
  return Sequence(forward, tiny()->architecture()).greedy(r.ids, r.max_new_tokens, {nullptr, &editor});
}

TEST(Generate, GreedyEqualsOneByOne) {
  std::vector<GenerateRequest> requests;
  for (const auto& ids : test::branching_prompts(20, 1)) requests.push_back(greedy(ids, 12));
  requests.push_back(greedy({5}, 150));  // longer than one own segment
  const auto results = generate(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    Forward forward(tiny());
    EXPECT_EQ(results[i].ids,
              Sequence(forward, tiny()->architecture()).greedy(requests[i].ids, requests[i].max_new_tokens));
    EXPECT_EQ(results[i].finish, "length");
    EXPECT_EQ(results[i].edited_rows, 0);
  }
}

TEST(Generate, EditsEqualOneByOne) {
  const auto prompts = test::branching_prompts(6, 2);
  const SiteKind kinds[] = {SiteKind::kResidPost, SiteKind::kK, SiteKind::kMlpPost, SiteKind::kZ};
  const EditPositions positions[] = {EditPositions::kGenerated, EditPositions::kAll, EditPositions::kLast};
  std::vector<GenerateRequest> requests;
  for (const auto& ids : prompts)
    for (const SiteKind kind : kinds)
      for (const EditPositions p : positions) {
        requests.push_back(greedy(ids, 10));
        requests.back().edits = {{{kind, 1}, p, std::make_shared<AddRamp>(1.5F, requests.size() % 3)}};
      }
  const auto results = generate(requests);
  size_t changed = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const GenerateRequest& r = requests[i];
    EXPECT_EQ(results[i].ids, by_hand(r)) << i;
    const auto n = static_cast<int64_t>(r.ids.size());
    const EditPositions p = r.edits[0].positions;
    EXPECT_EQ(results[i].edited_rows, p == EditPositions::kLast ? 1 : p == EditPositions::kAll ? n + 9 : 10);
    changed += results[i].ids != generate({greedy(r.ids, 10)})[0].ids;
  }
  EXPECT_GT(changed, requests.size() / 2);
}

TEST(Generate, SeveralEditsOfARowApplyInOrder) {
  class Scale : public RowEdit {
   public:
    void apply(Mat<float> h, std::span<const int64_t> /*steps*/) const override {
      for (int64_t r = 0; r < h.rows(); ++r)
        for (float& v : h.row_span(r)) v *= -2.0F;
    }
  };
  const Site site{SiteKind::kResidPost, 1};
  const AppliedEdit add{site, EditPositions::kGenerated, std::make_shared<AddRamp>(1.0F, 1)};
  const AppliedEdit scale{site, EditPositions::kGenerated, std::make_shared<Scale>()};
  std::vector<GenerateRequest> requests(3, greedy({3, 4, 5}, 8));
  requests[0].edits = {add, scale};
  requests[1].edits = {scale, add};
  requests[2].edits = {add, scale};
  const auto results = generate(requests);
  EXPECT_EQ(results[0].ids, results[2].ids);
  EXPECT_NE(results[0].ids, results[1].ids);
  EXPECT_EQ(results[0].edited_rows, 16);
  EXPECT_EQ(results[1].ids, generate({requests[1]})[0].ids);
}

// 200 requests of all kinds; each gives alone, bit for bit, what it gives among the others.
TEST(Generate, ResultsDoNotDependOnTheBatch) {
  Rng rng(8);
  const auto prompts = test::branching_prompts(200, 8);
  std::vector<std::shared_ptr<const RowEdit>> edits;
  for (uint64_t i = 0; i < 4; ++i) edits.push_back(std::make_shared<AddRamp>(0.8F, i));
  std::vector<GenerateRequest> requests;
  for (size_t i = 0; i < prompts.size(); ++i) {
    GenerateRequest r = greedy(prompts[i], 1 + static_cast<int64_t>(rng.below(30)));
    r.stream = static_cast<int64_t>(i);
    r.logprobs = static_cast<int>(rng.below(3));
    if (rng.below(2) == 0)
      r.sampling = {.temperature = 0.9, .top_k = static_cast<int>(rng.below(2) * 10), .top_p = 0.95, .seed = 5};
    if (rng.below(2) == 0) r.sampling.repetition_penalty = 1.15;
    if (rng.below(3) == 0) r.stop = {"bb", "ee", "hh"};
    for (uint64_t n = rng.below(3); n > 0; --n)
      r.edits.push_back({{rng.below(2) == 0 ? SiteKind::kResidPost : SiteKind::kV, static_cast<int>(rng.below(3))},
                         static_cast<EditPositions>(rng.below(3)),
                         edits[rng.below(4)]});
    requests.push_back(std::move(r));
  }
  const auto together = generate(requests, {64, 100}, letters({47}));
  std::map<std::string, int> finishes;
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto alone = generate({requests[i]}, {}, letters({47}))[0];
    EXPECT_EQ(together[i].ids, alone.ids) << i;
    EXPECT_EQ(together[i].text, alone.text) << i;
    EXPECT_EQ(together[i].finish, alone.finish) << i;
    EXPECT_EQ(together[i].edited_rows, alone.edited_rows) << i;
    ASSERT_EQ(together[i].logprobs.size(), alone.logprobs.size());
    for (size_t t = 0; t < alone.logprobs.size(); ++t) {
      EXPECT_EQ(together[i].logprobs[t].chosen, alone.logprobs[t].chosen);
      EXPECT_EQ(together[i].logprobs[t].top, alone.logprobs[t].top);
    }
    ++finishes[together[i].finish];
  }
  EXPECT_GT(finishes["length"], 20);
  EXPECT_GT(finishes["stop"], 5);
  EXPECT_GT(finishes["stop_string"], 2);
}

TEST(Generate, StopIdsAndIgnoreEos) {
  const auto plain = generate({greedy({1, 2, 3}, 10)})[0].ids;
  const int32_t stop = plain[4];
  const auto first = static_cast<size_t>(std::ranges::find(plain, stop) - plain.begin());
  GenerateRequest deaf = greedy({1, 2, 3}, 10);
  deaf.ignore_eos = true;
  const auto results = generate({greedy({1, 2, 3}, 10), deaf}, {}, letters({stop}));
  EXPECT_EQ(results[0].ids, std::vector<int32_t>(plain.begin(), plain.begin() + static_cast<int64_t>(first)));
  EXPECT_EQ(results[0].finish, "stop");
  EXPECT_EQ(results[1].ids, plain);
  EXPECT_EQ(results[1].text, letters()->decode(plain, true));
}

TEST(Generate, ContextLimitEndsAnAnswer) {
  Rng rng(1);
  const auto results = generate({greedy(test::random_ids(rng, 250), 40), greedy(test::random_ids(rng, 255), 1)});
  EXPECT_EQ(results[0].ids.size(), 6U);
  EXPECT_EQ(results[0].finish, "context");
  EXPECT_EQ(results[1].finish, "length");
}

TEST(Generate, CallbacksTellEverythingOnce) {
  std::vector<GenerateRequest> requests;
  for (const auto& ids : test::branching_prompts(30, 4)) requests.push_back(greedy(ids, 9));
  for (size_t i = 0; i < requests.size(); i += 2) requests[i].stop = {"a", "cc"};
  std::vector<std::string> texts(30);
  std::vector<std::vector<int32_t>> ids(30);
  std::vector<int> done(30);
  Control control;
  std::vector<Progress> reports;
  control.on_progress = [&](const Progress& p) { reports.push_back(p); };
  const auto results = Engine(tiny(), letters(), {7, 50})
                           .generate(
                               requests, control,
                               [&](size_t r, int32_t id, const std::string& text) {
                                 ids[r].push_back(id);
                                 texts[r] += text;
                               },
                               [&](size_t r, const GenerateResult& result) {
                                 ++done[r];
                                 EXPECT_FALSE(result.finish.empty());
                               });
  for (size_t i = 0; i < 30; ++i) {
    EXPECT_EQ(texts[i], results[i].text);
    EXPECT_EQ(ids[i], results[i].ids);
    EXPECT_EQ(done[i], 1);
  }
  ASSERT_FALSE(reports.empty());
  EXPECT_EQ(reports.back().stage, "generate");
  EXPECT_EQ(reports.back().done, 30);
  EXPECT_EQ(reports.back().total, 30);
  EXPECT_NE(reports.back().note.find("tok/s"), std::string::npos);
}

TEST(Generate, AStopKeepsWhatIsFinished) {
  std::vector<GenerateRequest> requests(20, greedy({1, 2}, 5));
  Control control;
  size_t done = 0;
  Engine engine(tiny(), nullptr, {4, 100});
  const Error e = error_of([&] {
    engine.generate(requests, control, {}, [&](size_t, const GenerateResult&) {
      if (++done == 6) control.request_stop();
    });
  });
  EXPECT_EQ(e.code(), Errc::kInterrupted);
  EXPECT_GE(done, 6U);
  EXPECT_LT(done, 20U);
  EXPECT_EQ(engine.generate({&requests[0], 1}, Control())[0].ids.size(), 5U);  // the engine is still good
}

TEST(Generate, BadRequestsAreNamed) {
  const auto expect = [](GenerateRequest bad, Errc code, const std::string& part) {
    const Error e = error_of([&] { generate({greedy({1}, 1), std::move(bad)}); });
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_NE(std::string(e.what()).find("request 1"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  };
  expect(greedy({}, 1), Errc::kInvalidArgument, "empty");
  expect(greedy(std::vector<int32_t>(256, 1), 1), Errc::kInvalidArgument, "256");
  expect(greedy({1, 50}, 1), Errc::kInvalidArgument, "50");
  expect(greedy({-1}, 1), Errc::kInvalidArgument, "-1");
  expect(greedy({1}, 0), Errc::kInvalidArgument, "max_new_tokens");
  GenerateRequest r = greedy({1}, 1);
  r.sampling.top_p = 2;
  expect(r, Errc::kInvalidArgument, "top_p");
  r = greedy({1}, 1);
  r.edits = {{{SiteKind::kResidPost, 3}, EditPositions::kAll, std::make_shared<AddRamp>(1.0F, 1)}};
  expect(r, Errc::kNotFound, "blocks.3.hook_resid_post");
  r.edits = {{{SiteKind::kResidPost, 1}, EditPositions::kAll, nullptr}};
  expect(r, Errc::kInvalidArgument, "RowEdit");
  r = greedy({1}, 1);
  r.stop = {""};
  expect(r, Errc::kInvalidArgument, "stop string");
  r.stop = {"x"};
  expect(r, Errc::kInvalidArgument, "tokenizer");
  EXPECT_TRUE(generate({}).empty());
  EXPECT_THROW(Engine(tiny(), nullptr, {0, 10}), Error);
}

TEST(Generate, AnEditThatBreaksTheLogitsIsRefused) {
  GenerateRequest r = greedy({1, 2}, 5);
  r.edits = {{{SiteKind::kResidPost, 1}, EditPositions::kGenerated, std::make_shared<AddRamp>(NAN, 1)}};
  const Error e = error_of([&] { generate({r}); });
  EXPECT_EQ(e.code(), Errc::kRefused);
  EXPECT_NE(std::string(e.what()).find("not finite"), std::string::npos);
}

}  // namespace
}  // namespace saif
