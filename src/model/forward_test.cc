// The forward pass against a dense one in double, and its promises: rows do not depend on each other, observers do not
// alter, every site can be edited.
#include "model/forward.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"
#include "model/loaded_model.h"
#include "model/rope.h"
#include "support/run_model.h"
#include "support/tiny_model.h"

namespace saif {
namespace {

using test::Recorder;
using test::Sequence;
using test::TinyModel;

using Rows = std::vector<std::vector<double>>;  // [n][width]

// The paper's equations in double, one whole sequence at a time, from the tensors by name.
class Dense {
 public:
  Dense(const TinyModel& tiny, const Architecture& arch) : tiny_(tiny), arch_(arch) {}

  Rows logits(const std::vector<int32_t>& tokens) {
    Rows x;
    for (const int32_t token : tokens) {
      const float* row = at("model.embed_tokens.weight") + token * arch_.d_model;
      x.emplace_back(row, row + arch_.d_model);
    }
    for (int layer = 0; layer < arch_.n_layers; ++layer) block("model.layers." + std::to_string(layer) + ".", layer, x);
    return linear(norm(x, "model.norm"), "lm_head", arch_.vocab);
  }

 private:
  const float* at(const std::string& name) const {
    const auto it = tiny_.tensors.find(name);
    return it == tiny_.tensors.end() ? nullptr : it->second.as<float>();
  }
  Rows norm(Rows x, const std::string& name) const {
    const float* w = at(name + ".weight");
    for (auto& row : x) {
      double squares = 0;
      for (const double v : row) squares += v * v;
      const double scale = 1 / std::sqrt(squares / static_cast<double>(row.size()) + arch_.norm_eps);
      for (size_t i = 0; i < row.size(); ++i) row[i] *= scale * w[i];
    }
    return x;
  }
  Rows linear(const Rows& x, const std::string& name, int64_t out) const {
    const float *w = at(name + ".weight"), *bias = at(name + ".bias");
    Rows y;
    for (const auto& row : x) {
      std::vector<double>& to = y.emplace_back();
      for (int64_t o = 0; o < out; ++o) {
        double sum = bias != nullptr ? bias[o] : 0;
        for (size_t i = 0; i < row.size(); ++i) sum += row[i] * w[static_cast<size_t>(o) * row.size() + i];
        to.push_back(sum);
      }
    }
    return y;
  }
  void rotate(Rows& x, const RopeSpec& rope) const {
    const std::vector<double> frequencies = rope_frequencies(rope);
    const size_t half = frequencies.size(), width = 2 * half;
    for (size_t p = 0; p < x.size(); ++p) {
      for (size_t h = 0; h < x[p].size(); h += width) {
        for (size_t i = 0; i < half; ++i) {
          const double angle = static_cast<double>(p) * frequencies[i];
          const double a = x[p][h + i], b = x[p][h + half + i];
          x[p][h + i] = a * std::cos(angle) - b * std::sin(angle);
          x[p][h + half + i] = b * std::cos(angle) + a * std::sin(angle);
        }
      }
    }
  }
  void block(const std::string& prefix, int layer, Rows& x) const {
    const LayerSpec& spec = arch_.layers[static_cast<size_t>(layer)];
    const int64_t d = arch_.d_head, group = arch_.n_heads / arch_.n_kv_heads;
    const Rows h = norm(x, prefix + "input_layernorm");
    Rows q = linear(h, prefix + "self_attn.q_proj", arch_.n_heads * d);
    Rows k = linear(h, prefix + "self_attn.k_proj", arch_.n_kv_heads * d);
    const Rows v = linear(h, prefix + "self_attn.v_proj", arch_.n_kv_heads * d);
    rotate(q, spec.rope);
    rotate(k, spec.rope);
    Rows z(x.size(), std::vector<double>(static_cast<size_t>(arch_.n_heads * d)));
    for (size_t p = 0; p < x.size(); ++p) {
      for (int64_t head = 0; head < arch_.n_heads; ++head) {
        std::vector<double> weight(p + 1);
        double sum = 0;
        for (size_t s = 0; s <= p; ++s) {
          if (spec.window > 0 && p - s >= static_cast<size_t>(spec.window)) continue;
          double dot = 0;
          for (int64_t i = 0; i < d; ++i) {
            dot += q[p][static_cast<size_t>(head * d + i)] * k[s][static_cast<size_t>(head / group * d + i)];
          }
          sum += weight[s] = std::exp(dot / std::sqrt(static_cast<double>(d)));
        }
        for (size_t s = 0; s <= p; ++s) {
          for (int64_t i = 0; i < d; ++i) {
            z[p][static_cast<size_t>(head * d + i)] +=
                weight[s] / sum * v[s][static_cast<size_t>(head / group * d + i)];
          }
        }
      }
    }
    add(linear(z, prefix + "self_attn.o_proj", arch_.d_model), x);
    const Rows m = norm(x, prefix + "post_attention_layernorm");
    Rows gate = linear(m, prefix + "mlp.gate_proj", arch_.d_mlp);
    const Rows up = linear(m, prefix + "mlp.up_proj", arch_.d_mlp);
    for (size_t p = 0; p < x.size(); ++p) {
      for (size_t i = 0; i < gate[p].size(); ++i) gate[p][i] *= up[p][i] / (1 + std::exp(-gate[p][i]));
    }
    add(linear(gate, prefix + "mlp.down_proj", arch_.d_model), x);
  }
  static void add(const Rows& from, Rows& to) {
    for (size_t p = 0; p < to.size(); ++p) {
      for (size_t i = 0; i < to[p].size(); ++i) to[p][i] += from[p][i];
    }
  }

  const TinyModel& tiny_;
  const Architecture& arch_;
};

std::string test_name() { return testing::UnitTest::GetInstance()->current_test_info()->name(); }

std::vector<int32_t> random_tokens(uint64_t seed, size_t n) {
  Rng rng(seed);
  std::vector<int32_t> out(n);
  for (int32_t& token : out) token = static_cast<int32_t>(rng.below(50));
  return out;
}

void expect_dense(const TinyModel& tiny, const std::string& name) {
  const auto model = Model::load(tiny.write(test_name() + name), {"f32"});
  Forward forward(model);
  const std::vector<int32_t> tokens = random_tokens(5, 40);
  const std::vector<float> found = Sequence(forward, model->architecture()).append(tokens);
  std::vector<float> expected;
  for (const auto& row : Dense(tiny, model->architecture()).logits(tokens)) {
    for (const double v : row) expected.push_back(static_cast<float>(v));
  }
  EXPECT_LE(test::distance(found, expected), 2e-5) << name;
}

TEST(Forward, EqualsADensePassInDouble) {
  expect_dense(TinyModel(1), "plain");
  expect_dense(TinyModel(2, true), "biases");
  TinyModel window(3);
  window.config["model_type"] = "mistral";
  window.config["architectures"] = Json::Array{"MistralForCausalLM"};
  window.config["sliding_window"] = 5;
  expect_dense(window, "window");
  TinyModel llama3(4);
  llama3.config["rope_scaling"] = Json::object({{"rope_type", "llama3"},
                                                {"factor", 8.0},
                                                {"low_freq_factor", 1.0},
                                                {"high_freq_factor", 4.0},
                                                {"original_max_position_embeddings", 64}});
  expect_dense(llama3, "llama3");
}

class ForwardTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    std::string name = test_name();
    std::ranges::replace(name, '/', '_');
    model_ = Model::load(TinyModel(7).write(name), {GetParam()});
    forward_ = std::make_unique<Forward>(model_);
  }
  const Architecture& arch() const { return model_->architecture(); }
  Forward& forward() { return *forward_; }
  std::vector<float> alone(const std::vector<int32_t>& tokens, test::Watch watch = {}) {
    return Sequence(forward(), arch()).append(tokens, watch);
  }
  int last() const { return static_cast<int>(arch().n_layers) - 1; }

 private:
  std::shared_ptr<const Model> model_;
  std::unique_ptr<Forward> forward_;
};

TEST_P(ForwardTest, ARowIsTheSameAloneAndAmong200Others) {
  std::vector<std::vector<int32_t>> prompts;
  ForwardBatch batch;
  std::vector<std::unique_ptr<KvSegment>> caches;
  for (uint64_t i = 0; i < 201; ++i) {
    prompts.push_back(random_tokens(100 + i, 1 + i % 23));
    caches.push_back(std::make_unique<KvSegment>(arch(), 0, 64));
    const auto n = static_cast<int64_t>(prompts[i].size());
    batch.runs.push_back({static_cast<int64_t>(batch.tokens.size()), n, 0, {caches[i].get()}});
    for (int64_t p = 0; p < n; ++p) {
      batch.tokens.push_back(prompts[i][static_cast<size_t>(p)]);
      batch.rows.push_back({static_cast<int64_t>(i), p, batch.tokens.back()});
    }
  }
  batch.last_layer = last();
  batch.logits = true;
  const Mat<float> view = forward().run(batch);
  const std::vector<float> together(view.data(), view.data() + view.rows() * view.cols());
  for (const size_t i : {0U, 57U, 113U, 200U}) {
    const std::vector<float> single = alone(prompts[i]);
    EXPECT_EQ(
        std::vector<float>(together.begin() + batch.runs[i].row * arch().vocab,
                           together.begin() + batch.runs[i].row * arch().vocab + static_cast<int64_t>(single.size())),
        single)
        << i;
  }
}

TEST_P(ForwardTest, ChainsCutAtOddPlacesGiveTheSame) {
  const std::vector<int32_t> tokens = random_tokens(3, 61);
  const std::vector<float> whole = alone(tokens);
  const auto n_vocab = arch().vocab;
  for (const std::vector<int64_t>& cuts : {std::vector<int64_t>{1, 2, 3}, {5, 22, 39}, {16, 32, 48}, {7, 60}}) {
    for (const bool one_call : {true, false}) {
      std::vector<std::unique_ptr<KvSegment>> segments;
      std::vector<KvSegment*> chain;
      std::vector<float> found;
      ForwardBatch batch;
      batch.last_layer = last();
      batch.logits = true;
      int64_t begin = 0;
      const auto flush = [&] {
        const Mat<float> logits = forward().run(batch);
        found.insert(found.end(), logits.data(), logits.data() + logits.rows() * n_vocab);
        batch.tokens.clear();
        batch.rows.clear();
        batch.runs.clear();
      };
      for (size_t i = 0; i <= cuts.size(); ++i) {
        const int64_t end = i < cuts.size() ? cuts[i] : 61;
        segments.push_back(std::make_unique<KvSegment>(arch(), begin, end - begin));
        chain.push_back(segments.back().get());
        batch.runs.push_back({static_cast<int64_t>(batch.tokens.size()), end - begin, begin, chain});
        for (int64_t p = begin; p < end; ++p) {
          batch.tokens.push_back(tokens[static_cast<size_t>(p)]);
          batch.rows.push_back({0, p, batch.tokens.back()});
        }
        if (!one_call) flush();
        begin = end;
      }
      if (one_call) flush();
      EXPECT_EQ(found, whole);
    }
  }
}

TEST_P(ForwardTest, AForkInTheMiddleOfAnAncestor) {
  const std::vector<int32_t> tokens = random_tokens(3, 30);
  std::vector<int32_t> other = tokens;
  for (size_t i = 13; i < 30; ++i) other[i] = (other[i] + 1) % 50;
  KvSegment trunk(arch(), 0, 30), branch(arch(), 13, 17);
  ForwardBatch batch;
  batch.last_layer = last();
  batch.logits = true;
  batch.tokens = tokens;
  for (int64_t p = 0; p < 30; ++p) batch.rows.push_back({0, p, tokens[static_cast<size_t>(p)]});
  batch.runs = {{0, 30, 0, {&trunk}}};
  forward().run(batch);
  batch.tokens.assign(other.begin() + 13, other.end());
  batch.rows.resize(17);
  batch.runs = {{0, 17, 13, {&trunk, &branch}}};
  const Mat<float> logits = forward().run(batch);
  const std::vector<float> found(logits.data(), logits.data() + 17 * arch().vocab);
  const std::vector<float> whole = alone(other);
  EXPECT_EQ(found, std::vector<float>(whole.begin() + 13 * arch().vocab, whole.end()));
}

TEST_P(ForwardTest, KeptRowsAreTheSameRows) {
  const std::vector<int32_t> tokens = random_tokens(8, 33);
  const std::vector<float> whole = alone(tokens);
  const std::vector<int64_t> kept = {0, 4, 5, 6, 19, 32};
  for (const bool watch_q : {false, true}) {
    KvSegment cache(arch(), 0, 40);
    Recorder recorder({"blocks.2.hook_resid_post", watch_q ? "blocks.2.attn.hook_q" : "blocks.2.attn.hook_z"});
    ForwardBatch batch;
    batch.tokens = tokens;
    for (int64_t p = 0; p < 33; ++p) batch.rows.push_back({0, p, tokens[static_cast<size_t>(p)]});
    batch.runs = {{0, 10, 0, {&cache}}, {10, 23, 10, {&cache}}};
    batch.last_layer = last();
    batch.logits = true;
    batch.all_rows = false;
    batch.kept_rows = kept;
    batch.observer = &recorder;
    const Mat<float> logits = forward().run(batch);
    ASSERT_EQ(logits.rows(), 6);
    for (size_t i = 0; i < kept.size(); ++i) {
      const auto from = whole.begin() + kept[i] * arch().vocab;
      EXPECT_EQ(std::vector<float>(logits.row(static_cast<int64_t>(i)), logits.row(static_cast<int64_t>(i)) + 50),
                std::vector<float>(from, from + 50));
    }
    EXPECT_EQ(recorder.seen["blocks.2.hook_resid_post"].size(), 6U);
    EXPECT_EQ(recorder.seen["blocks.2.attn.hook_q"].size(), watch_q ? 33U : 0U);
  }
}

TEST_P(ForwardTest, WithoutKeptRowsOnlyKeysAndValuesAreLeft) {
  const std::vector<int32_t> tokens = random_tokens(8, 20);
  KvSegment cache(arch(), 0, 40);
  ForwardBatch batch;
  batch.tokens.assign(tokens.begin(), tokens.end() - 1);
  for (int64_t p = 0; p < 19; ++p) batch.rows.push_back({0, p, tokens[static_cast<size_t>(p)]});
  batch.runs = {{0, 19, 0, {&cache}}};
  batch.last_layer = last();
  batch.all_rows = false;
  EXPECT_TRUE(forward().run(batch).empty());
  batch = {};
  batch.tokens = {tokens.back()};
  batch.rows = {{0, 19, tokens.back()}};
  batch.runs = {{0, 1, 19, {&cache}}};
  batch.last_layer = last();
  batch.logits = true;
  const Mat<float> logits = forward().run(batch);
  const std::vector<float> found(logits.data(), logits.data() + 50), whole = alone(tokens);
  EXPECT_EQ(found, std::vector<float>(whole.end() - 50, whole.end()));
}

TEST_P(ForwardTest, ObserversDoNotAlterARun) {
  const std::vector<int32_t> tokens = random_tokens(4, 25);
  const std::vector<float> unseen = alone(tokens);
  Recorder all;
  EXPECT_EQ(alone(tokens, {&all}), unseen);
  EXPECT_EQ(all.calls.size(), 3U + 14U * 3U);
  for (const auto& [name, calls] : all.calls) {
    EXPECT_EQ(calls, 1) << name;
    const Site site = Site::parse(name, 3);
    const int64_t width = site.kind == SiteKind::kPattern ? 4 * 25 : arch().width(site);
    for (const auto& [row, values] : all.seen.at(name)) EXPECT_EQ(static_cast<int64_t>(values.size()), width) << name;
  }
  for (const auto& [name, calls] : all.calls) {
    Recorder one({name});
    EXPECT_EQ(alone(tokens, {&one}), unseen) << name;
    EXPECT_EQ(one.all(name), all.all(name)) << name;
    EXPECT_EQ(one.calls.size(), 1U);
  }
}

TEST_P(ForwardTest, TheResidualStreamAddsUp) {
  Recorder all;
  alone(random_tokens(4, 12), {&all});
  for (const std::string layer : {"blocks.0.", "blocks.1.", "blocks.2."}) {
    const std::vector<float> pre = all.all(layer + "hook_resid_pre"), mid = all.all(layer + "hook_resid_mid");
    const std::vector<float> post = all.all(layer + "hook_resid_post");
    const std::vector<float> attention = all.all(layer + "hook_attn_out"), mlp = all.all(layer + "hook_mlp_out");
    for (size_t i = 0; i < pre.size(); ++i) {
      ASSERT_EQ(pre[i] + attention[i], mid[i]);
      ASSERT_EQ(mid[i] + mlp[i], post[i]);
    }
  }
}

TEST_P(ForwardTest, EverySiteCanBeEditedRowByRow) {
  const std::vector<int32_t> tokens = random_tokens(4, 12);
  Recorder all;
  const std::vector<float> plain = alone(tokens, {&all});
  for (const auto& [name, calls] : all.calls) {
    test::RowEditor editor(Site::parse(name), [](const RowInfo& row, std::span<float> h) {
      if (row.position != 5) return;
      for (size_t i = 0; i < h.size(); ++i) h[i] *= i % 2 == 0 ? 1.25F : 0.5F;
    });
    Recorder after({name});
    const std::vector<float> edited = alone(tokens, {&after, &editor});
    EXPECT_EQ(std::vector<float>(edited.begin(), edited.begin() + 250),
              std::vector<float>(plain.begin(), plain.begin() + 250))
        << name << " changes an earlier row";
    EXPECT_NE(std::vector<float>(edited.begin() + 250, edited.begin() + 300),
              std::vector<float>(plain.begin() + 250, plain.begin() + 300))
        << name << " has no effect";
    EXPECT_EQ(after.seen.at(name).at({0, 5})[0], all.seen.at(name).at({0, 5})[0] * 1.25F) << name;
  }
}

TEST_P(ForwardTest, PatternRowsSumToOneAndArePadded) {
  const std::vector<int32_t> a = random_tokens(1, 9), b = random_tokens(2, 4);
  KvSegment cache_a(arch(), 0, 16), cache_b(arch(), 0, 16);
  Recorder recorder({"blocks.1.attn.hook_pattern"});
  ForwardBatch batch;
  for (const auto* tokens : {&b, &a}) {
    const auto n = static_cast<int64_t>(tokens->size());
    batch.runs.push_back({static_cast<int64_t>(batch.tokens.size()), n, 0, {tokens == &a ? &cache_a : &cache_b}});
    for (int64_t p = 0; p < n; ++p) batch.rows.push_back({tokens == &a ? 0 : 1, p, (*tokens)[static_cast<size_t>(p)]});
    batch.tokens.insert(batch.tokens.end(), tokens->begin(), tokens->end());
  }
  batch.last_layer = last();
  batch.observer = &recorder;
  forward().run(batch);
  for (const auto& [row, values] : recorder.seen.at("blocks.1.attn.hook_pattern")) {
    ASSERT_EQ(values.size(), 4U * 9U);
    for (size_t head = 0; head < 4; ++head) {
      double sum = 0;
      for (size_t key = 0; key < 9; ++key) {
        sum += values[head * 9 + key];
        if (static_cast<int64_t>(key) > row.second) {
          EXPECT_EQ(values[head * 9 + key], 0.0F);
        }
      }
      EXPECT_NEAR(sum, 1.0, 1e-5);
    }
  }
}

TEST_P(ForwardTest, ReleasedLayersCannotBeReadAgain) {
  KvSegment cache(arch(), 0, 16);
  ForwardBatch batch;
  batch.tokens = {1, 2, 3};
  batch.rows = {{0, 0, 1}, {0, 1, 2}, {0, 2, 3}};
  batch.runs = {{0, 3, 0, {&cache}}};
  batch.last_layer = 1;
  batch.release_kv_layers = true;
  forward().run(batch);
  EXPECT_FALSE(cache.has_layer(0));
  EXPECT_FALSE(cache.has_layer(1));
  batch.tokens = {4};
  batch.rows = {{0, 3, 4}};
  batch.runs = {{0, 1, 3, {&cache}}};
  EXPECT_THROW(forward().run(batch), Error);
}

TEST_P(ForwardTest, BadBatchesAreRefused) {
  KvSegment cache(arch(), 0, 16);
  const auto refused = [&](auto change) {
    ForwardBatch batch;
    batch.tokens = {1, 2};
    batch.rows = {{0, 0, 1}, {0, 1, 2}};
    batch.runs = {{0, 2, 0, {&cache}}};
    change(batch);
    EXPECT_THROW(forward().run(batch), Error);
  };
  refused([](ForwardBatch& b) { b.tokens[1] = 50; });
  refused([](ForwardBatch& b) { b.rows.pop_back(); });
  refused([](ForwardBatch& b) { b.runs[0].n_rows = 1; });
  refused([](ForwardBatch& b) { b.runs[0].position = 1; });
  refused([](ForwardBatch& b) { b.last_layer = 3; });
  refused([](ForwardBatch& b) { b.logits = true; });
  refused([](ForwardBatch& b) { b.all_rows = false, b.kept_rows = {1, 0}; });
  refused([](ForwardBatch& b) { b.tokens.assign(17, 0), b.rows.resize(17), b.runs[0].n_rows = 17; });
}

INSTANTIATE_TEST_SUITE_P(Types, ForwardTest, testing::Values("f32", "bf16"),
                         [](const auto& with) { return std::string(with.param); });

}  // namespace
}  // namespace saif
