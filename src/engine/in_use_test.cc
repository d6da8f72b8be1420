// One call of an engine at a time; engines of several threads share a model.
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "support/engine_fixtures.h"

namespace saif {
namespace {

using test::error_of;
using test::letters;
using test::tiny;

const std::vector<std::vector<int32_t>> kPrompts = {{1, 2, 3}, {1, 2, 4, 5}};
constexpr Site kSite{SiteKind::kResidPost, 1};

std::vector<GenerateRequest> requests() {
  std::vector<GenerateRequest> out;
  for (const auto& ids : kPrompts) {
    out.emplace_back().ids = ids;
    out.back().max_new_tokens = 6;
  }
  return out;
}

class Nobody : public Observer {
 public:
  bool wants(const Site& site) const override { return site == kSite; }
  void observe(const Site&, std::span<const RowInfo>, Mat<const float>) override {}
};

// Each call that runs the model says that the engine is in use.
void expect_in_use(Engine& engine) {
  Nobody nobody;
  const std::vector<Engine::ScoreRequest> scored = {{kPrompts[0], 1}};
  const std::function<void()> calls[] = {
      [&] { engine.generate(requests(), Control()); },
      [&] { engine.observe(kPrompts, nobody, {}, Control()); },
      [&] {
        engine.capture(kPrompts, {&kSite, 1}, true, Control());
      },
      [&] { engine.score(scored, {}, Control()); },
  };
  for (const auto& call : calls) {
    const Error e = error_of(call);
    EXPECT_EQ(e.code(), Errc::kRefused);
    EXPECT_NE(std::string(e.what()).find("one Engine per thread"), std::string::npos) << e.what();
  }
}

std::vector<std::vector<int32_t>> ids_of(const std::vector<GenerateResult>& results) {
  std::vector<std::vector<int32_t>> out;
  for (const GenerateResult& r : results) out.push_back(r.ids);
  return out;
}

TEST(EngineInUse, RefusesACallOfAnotherThread) {
  Engine engine(tiny(), letters());
  const auto alone = ids_of(engine.generate(requests(), Control()));
  std::promise<void> begun, go_on;
  bool first = true;
  const auto on_token = [&](size_t, int32_t, const std::string&) {
    if (!std::exchange(first, false)) return;
    begun.set_value();
    go_on.get_future().wait();
  };
  std::vector<std::vector<int32_t>> found;
  std::thread other([&] { found = ids_of(engine.generate(requests(), Control(), on_token)); });
  begun.get_future().wait();
  expect_in_use(engine);
  go_on.set_value();
  other.join();
  EXPECT_EQ(found, alone);
  EXPECT_EQ(ids_of(engine.generate(requests(), Control())), alone);  // free again
}

TEST(EngineInUse, RefusesACallOfItsOwnCallback) {
  Engine engine(tiny(), letters());
  const auto alone = ids_of(engine.generate(requests(), Control()));
  const auto on_done = [&](size_t, const GenerateResult&) { expect_in_use(engine); };
  EXPECT_EQ(ids_of(engine.generate(requests(), Control(), {}, on_done)), alone);
}

TEST(EngineInUse, IsFreeAfterAnError) {
  Engine engine(tiny(), letters());
  std::vector<GenerateRequest> bad = requests();
  bad[1].ids.clear();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(error_of([&] { engine.generate(bad, Control()); }).code(), Errc::kInvalidArgument);
  }
  EXPECT_EQ(engine.generate(requests(), Control()).size(), kPrompts.size());
}

TEST(EngineInUse, EnginesOfThreadsShareTheModel) {
  const auto alone = ids_of(Engine(tiny(), letters()).generate(requests(), Control()));
  std::vector<std::future<std::vector<std::vector<int32_t>>>> found;
  for (int i = 0; i < 3; ++i) {
    found.push_back(std::async(std::launch::async, [&] {
      Engine engine(tiny(), letters());
      std::vector<std::vector<int32_t>> ids;
      for (int again = 0; again < 5; ++again) ids = ids_of(engine.generate(requests(), Control()));
      return ids;
    }));
  }
  for (auto& each : found) EXPECT_EQ(each.get(), alone);
}

}  // namespace
}  // namespace saif
