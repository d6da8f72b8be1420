// What bfloat16 costs: the real small model's greedy texts against those of float32.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "saif/engine.h"
#include "saif/task.h"
#include "support/paths.h"

namespace saif {
namespace {

constexpr size_t kPrompts = 100;
constexpr int64_t kTokens = 40;
constexpr double kNearTie = 0.25;  // between the two largest float32 logits

// Questions of the bundled contents, in turn as a chat and as plain text that the model goes on with.
std::vector<GenerateRequest> greedy_requests(const Tokenizer& tokenizer) {
  std::vector<GenerateRequest> requests;
  for (const Content& content : load_contents(test::source_dir("data/contents.jsonl"))) {
    if (requests.size() == kPrompts) break;
    GenerateRequest request;
    request.ids = requests.size() % 2 == 0 ? encode_chat(tokenizer, std::vector<Message>{{"user", content.text}}, true)
                                           : tokenizer.encode(content.text, {.add_special = true});
    request.max_new_tokens = kTokens;
    request.ignore_eos = true;
    request.logprobs = 2;
    requests.push_back(std::move(request));
  }
  return requests;
}

std::vector<GenerateResult> greedy_texts(const std::string& dtype) {
  const auto tokenizer = Tokenizer::load(test::model_path("smollm2"));
  Engine engine(Model::load(test::model_path("smollm2"), {dtype}), tokenizer);
  EXPECT_EQ(engine.model().dtype(), dtype);
  return engine.generate(greedy_requests(*tokenizer), Control());
}

// Tokens before the first difference are the same, so float32's own step there is the float32 answer to the prefix that
// both share. A difference is excused where its two likeliest tokens are nearly equally likely.
TEST(Precision, GreedyTextsOfBf16LeaveThoseOfFloat32AtNearTiesOnly) {
  SAIF_REQUIRE_SMOLLM2();
  const auto exact = greedy_texts("f32"), rounded = greedy_texts("bf16");
  ASSERT_EQ(exact.size(), kPrompts);
  size_t equal = 0, excused = 0;
  double widest = 0;
  for (size_t i = 0; i < kPrompts; ++i) {
    ASSERT_EQ(exact[i].ids.size(), static_cast<size_t>(kTokens)) << i;
    ASSERT_EQ(rounded[i].ids.size(), static_cast<size_t>(kTokens)) << i;
    const auto [mine, theirs] = std::mismatch(exact[i].ids.begin(), exact[i].ids.end(), rounded[i].ids.begin());
    if (mine == exact[i].ids.end()) {
      ++equal;
      continue;
    }
    const TokenLogprobs& at = exact[i].logprobs.at(static_cast<size_t>(mine - exact[i].ids.begin()));
    ASSERT_EQ(at.top.size(), 2U);
    EXPECT_EQ(at.top[0].first, *mine) << "greedy is not the likeliest token in float32, prompt " << i;
    const double gap = std::fabs(static_cast<double>(at.top[0].second) - static_cast<double>(at.top[1].second));
    if (gap < kNearTie) ++excused;
    widest = std::max(widest, gap);
  }
  RecordProperty("equal", static_cast<int>(equal));
  RecordProperty("near_ties", static_cast<int>(excused));
  RecordProperty("widest_gap", std::to_string(widest));
  EXPECT_GE(equal + excused, 95U) << equal << " equal, " << excused << " part at a near tie, widest gap " << widest;
}

}  // namespace
}  // namespace saif
