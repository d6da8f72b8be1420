// Rows, attention, selection and sparse dictionaries of every instruction set against the reference; attention's
// promise that batch, threads and the cut of the KV chain change no bit.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/backend.h"
#include "support/kernel_matrices.h"
#include "support/param_name.h"

namespace saif {
namespace {

using testing_support::expect_bits;
using testing_support::expect_near;
using testing_support::Matrix;
using testing_support::Random;
using testing_support::ThreadCount;

class Operations : public ::testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Backend> ref_ = make_ref_backend();
  std::unique_ptr<Backend> cpu_ = make_cpu_backend(GetParam());

  // Runs op(backend, y) from one start on both and compares.
  template <class Op>
  void compare(const Matrix& start, const std::string& what, double tolerance, const Op& op) {
    Matrix expected = start, found = start;
    op(*ref_, expected.mat());
    op(*cpu_, found.mat());
    expect_near(expected, found, tolerance, what);
    expect_bits(start.tail(), found.tail(), what + ": written past the columns");
  }
};

TEST_P(Operations, Rows) {
  Random random(4);
  for (const auto& [m, n] : {std::pair<int64_t, int64_t>{1, 1}, {3, 10}, {5, 40}, {2, 576}, {131, 129}, {40, 1536}}) {
    const Matrix x = random.matrix(m, n, 3, 4.0f), up = random.matrix(m, n, 1), start = random.matrix(m, n, 5, 9.0f);
    const Matrix weight = random.matrix(2, n);
    const float *w = weight.mat().row(0), *bias = weight.mat().row(1);
    compare(start, "rms_norm", 1e-5, [&](Backend& b, Mat<float> y) { b.rms_norm(x.mat(), w, 1.0f, 1e-5f, y); });
    compare(start, "layer_norm", 2e-5, [&](Backend& b, Mat<float> y) { b.layer_norm(x.mat(), w, bias, 1e-5f, y); });
    compare(start, "layer_norm in place", 2e-5,
            [&](Backend& b, Mat<float> y) { b.layer_norm(y, w, nullptr, 1e-5f, y); });
    compare(start, "add", 0.0, [&](Backend& b, Mat<float> y) { b.add(x.mat(), y); });
    compare(start, "softcap", 1e-6, [&](Backend& b, Mat<float> y) { b.softcap(3.0f, y); });
    for (const Activation a : {Activation::kSilu, Activation::kGeluTanh, Activation::kGeluErf, Activation::kRelu}) {
      compare(start, "glu", 3e-6, [&](Backend& b, Mat<float> y) { b.glu(a, x.mat(), up.mat(), y); });
      compare(start, "activate", 3e-6, [&](Backend& b, Mat<float> y) { b.activate(a, y); });
    }
  }
}

TEST_P(Operations, RowsDoNotDependOnTheBatch) {
  Random random(5);
  const Matrix x = random.matrix(200, 576), w = random.matrix(1, 576);
  Matrix all(200, 576), one(1, 576);
  cpu_->rms_norm(x.mat(), w.mat().data(), 0.0f, 1e-5f, all.mat());
  for (const int64_t r : {0, 63, 199}) {
    cpu_->rms_norm(x.mat().rows_range(r, r + 1), w.mat().data(), 0.0f, 1e-5f, one.mat());
    expect_bits(all.mat().rows_range(r, r + 1), one.mat(), "rms_norm");
  }
}

TEST_P(Operations, EmbedAndRope) {
  Random random(6);
  const std::vector<int32_t> ids = {4, 0, 6, 4};
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
    const Tensor w = random.weight(dtype, 7, 41);
    compare(random.matrix(4, 41, 2), "embed", 0.0, [&](Backend& b, Mat<float> y) {
      b.embed({w.data(), dtype, 7, 41}, ids, 1.5f, y);
    });
  }
  for (const auto& [d_head, rotary] : {std::pair<int64_t, int64_t>{10, 10}, {64, 64}, {16, 6}, {80, 40}}) {
    const Matrix cos = random.matrix(9, rotary / 2), sin = random.matrix(9, rotary / 2);
    const RopeTable table{cos.mat(), sin.mat(), rotary};
    const std::vector<int32_t> positions = {8, 0, 3, 3};
    compare(random.matrix(4, 3 * d_head, 1), "rope", 1e-6,
            [&, d = d_head](Backend& b, Mat<float> y) { b.rope(y, d, positions, table); });
  }
  Matrix y(1, 41);
  const Tensor w = random.weight(DType::kF32, 7, 41);
  const std::vector<int32_t> outside = {7};
  EXPECT_THROW(cpu_->embed({w.data(), DType::kF32, 7, 41}, outside, 1.0f, y.mat()), Error);
}

// Keys and values of n tokens in segments of the given lengths, filled through kv_store; room past them is NaN.
struct Chain {
  std::vector<std::vector<float>> memory;
  std::vector<std::vector<uint16_t>> memory16;
  std::vector<KvView> views;
};
Chain make_chain(Backend& backend, Mat<const float> k, Mat<const float> v, int64_t d_head,
                 const std::vector<int64_t>& lengths, DType dtype = DType::kF32) {
  Chain chain;
  int64_t begin = 0;
  for (const int64_t length : lengths) {
    KvView view{nullptr, nullptr, (length + 15) / 16 * 16 + 16, begin, length};
    const int64_t heads = k.cols() / d_head;
    for (uint16_t** p : {&view.k16, &view.v16}) {
      if (dtype != DType::kBf16) break;
      const auto size = static_cast<size_t>(view.v16_tokens() * heads * (d_head + 1));
      *p = chain.memory16.emplace_back(size, uint16_t{0x7fff}).data();
    }
    for (float** p : {&view.k, &view.v}) {
      if (dtype == DType::kBf16) break;
      chain.memory.emplace_back(static_cast<size_t>(view.capacity * k.cols()), std::numeric_limits<float>::quiet_NaN());
      *p = chain.memory.back().data();
    }
    backend.kv_store(k.rows_range(begin, begin + length), v.rows_range(begin, begin + length), d_head, view, 0);
    chain.views.push_back(view);
    begin += length;
  }
  return chain;
}

// Bits of the reference, for stores that begin and end anywhere in a block; nothing else of the segment is written.
TEST_P(Operations, KvStore) {
  Random random(17);
  for (const auto& [n_kv, d] : {std::pair<int64_t, int64_t>{3, 64}, {2, 7}, {1, 40}}) {
    const int64_t capacity = 4096, size = capacity * n_kv * d;
    const Matrix k = random.matrix(2000, n_kv * d, 3), v = random.matrix(2000, n_kv * d, 1);
    std::vector<float> expected(static_cast<size_t>(2 * size), -1.0f), found = expected;
    const auto view = [&](std::vector<float>& memory) {
      return KvView{memory.data(), memory.data() + size, capacity, 0, 0};
    };
    int64_t at = 0;
    for (const int64_t n : {1, 0, 15, 16, 7, 30, 2000, 1, 3}) {
      const Mat<const float> keys = k.mat().rows_range(0, n), values = v.mat().rows_range(0, n);
      ref_->kv_store(keys, values, d, view(expected), at);
      cpu_->kv_store(keys, values, d, view(found), at);
      at += n;
    }
    EXPECT_TRUE(expected == found);
    // Many runs at once, each with its own offset.
    std::vector<KvRun> ref_runs, cpu_runs;
    for (int64_t r = 0, to = at; r + 9 <= 2000 && to + 12 <= capacity; r += 9, to += 12) {
      ref_runs.push_back({r, 1 + (r / 9) % 9, to, view(expected)});
      cpu_runs.push_back({r, 1 + (r / 9) % 9, to, view(found)});
    }
    for (const KvRun& run : ref_runs) {
      const int64_t end = run.row + run.n_rows;
      ref_->kv_store(k.mat().rows_range(run.row, end), v.mat().rows_range(run.row, end), d, run.segment, run.at);
    }
    cpu_->kv_store_runs(k.mat(), v.mat(), d, cpu_runs);
    EXPECT_TRUE(expected == found);
    EXPECT_THROW(cpu_->kv_store(k.mat(), v.mat(), d, view(found), capacity - 1999), Error);
  }
}

TEST_P(Operations, Attention) {
  Random random(7);
  for (const auto& [n_heads, n_kv, d] :
       {std::tuple<int64_t, int64_t, int64_t>{9, 3, 64}, {4, 4, 10}, {8, 1, 40}, {2, 2, 7}}) {
    for (const AttentionShape shape :
         {AttentionShape{n_heads, n_kv, d, 0.3f, 0.0f, 0}, AttentionShape{n_heads, n_kv, d, 0.3f, 2.0f, 0},
          AttentionShape{n_heads, n_kv, d, 0.3f, 0.0f, 5}, AttentionShape{n_heads, n_kv, d, 0.3f, 0.0f, 1}}) {
      const int64_t n = 75;
      const Matrix k = random.matrix(n, n_kv * d, 3), v = random.matrix(n, n_kv * d, 1),
                   q = random.matrix(n, n_heads * d, 5, 3.0f);
      const Chain whole = make_chain(*cpu_, k.mat(), v.mat(), d, {n});
      const AttentionRun all{0, n, 0, whole.views};
      compare(random.matrix(n, n_heads * d, 2), "attention", 2e-5, [&](Backend& b, Mat<float> z) {
        b.attention(q.mat(), {&all, 1}, shape, z);
      });
      Matrix expected(n, n_heads * d);
      cpu_->attention(q.mat(), {&all, 1}, shape, expected.mat());
      for (const std::vector<int64_t>& cut : {std::vector<int64_t>{1, 74}, {16, 59}, {3, 20, 17, 35}, {40, 1, 1, 33}}) {
        const Chain chain = make_chain(*cpu_, k.mat(), v.mat(), d, cut);
        for (const int threads : {1, 2}) {
          const ThreadCount count(threads);
          Matrix found(n, n_heads * d);
          const std::vector<AttentionRun> runs = {{0, 1, 0, chain.views},   {1, 6, 1, whole.views},
                                                  {7, 1, 7, whole.views},   {8, 33, 8, chain.views},
                                                  {41, 2, 41, chain.views}, {43, 32, 43, chain.views}};
          cpu_->attention(q.mat(), runs, shape, found.mat());
          expect_bits(expected.mat(), found.mat(), "attention over a cut chain");
        }
      }
    }
  }
}

// In bfloat16: near the reference, which rounds the same inputs but not the probabilities; and no bit depends on the
// cut, though it changes which tokens are a pair.
TEST_P(Operations, AttentionInBfloat16) {
  Random random(27);
  for (const auto& [n_heads, n_kv, d] :
       {std::tuple<int64_t, int64_t, int64_t>{9, 3, 64}, {4, 4, 10}, {8, 1, 40}, {2, 2, 7}, {6, 2, 96}}) {
    for (const AttentionShape shape :
         {AttentionShape{n_heads, n_kv, d, 0.3f, 0.0f, 0}, AttentionShape{n_heads, n_kv, d, 0.3f, 2.0f, 0},
          AttentionShape{n_heads, n_kv, d, 0.3f, 0.0f, 5}, AttentionShape{n_heads, n_kv, d, 0.3f, 0.0f, 1}}) {
      const int64_t n = 75;
      const Matrix k = random.matrix(n, n_kv * d, 3), v = random.matrix(n, n_kv * d, 1),
                   q = random.matrix(n, n_heads * d, 5, 3.0f);
      const Chain whole = make_chain(*cpu_, k.mat(), v.mat(), d, {n}, DType::kBf16);
      const Chain by_ref = make_chain(*ref_, k.mat(), v.mat(), d, {n}, DType::kBf16);
      EXPECT_EQ(whole.memory16, by_ref.memory16);
      const AttentionRun all{0, n, 0, whole.views};
      compare(random.matrix(n, n_heads * d, 2), "attention", 4e-3, [&](Backend& b, Mat<float> z) {
        b.attention(q.mat(), {&all, 1}, shape, z);
      });
      Matrix expected(n, n_heads * d);
      cpu_->attention(q.mat(), {&all, 1}, shape, expected.mat());
      for (const std::vector<int64_t>& cut : {std::vector<int64_t>{1, 74}, {16, 59}, {3, 20, 17, 35}, {40, 1, 1, 33}}) {
        const Chain chain = make_chain(*cpu_, k.mat(), v.mat(), d, cut, DType::kBf16);
        for (const int threads : {1, 2}) {
          const ThreadCount count(threads);
          Matrix found(n, n_heads * d);
          const std::vector<AttentionRun> runs = {{0, 1, 0, chain.views},   {1, 6, 1, whole.views},
                                                  {7, 1, 7, whole.views},   {8, 33, 8, chain.views},
                                                  {41, 2, 41, chain.views}, {43, 32, 43, chain.views}};
          cpu_->attention(q.mat(), runs, shape, found.mat());
          expect_bits(expected.mat(), found.mat(), "attention over a cut chain in bfloat16");
        }
      }
    }
  }
}

TEST_P(Operations, PatternAgreesWithAttention) {
  Random random(8);
  const AttentionShape shape{6, 2, 10, 0.3f, 0.0f, 0};
  const Matrix k = random.matrix(20, 20), v = random.matrix(20, 20), q = random.matrix(5, 60);
  const Chain chain = make_chain(*cpu_, k.mat(), v.mat(), 10, {7, 13});
  const AttentionRun run{0, 5, 15, chain.views};
  Matrix pattern(5, 6 * 20), z(5, 60), direct(5, 60);
  cpu_->attention_pattern(q.mat(), run, shape, pattern.mat());
  cpu_->attention_apply(pattern.mat(), run, shape, z.mat());
  cpu_->attention(q.mat(), {&run, 1}, shape, direct.mat());
  expect_near(direct, z, 2e-6, "attention from its pattern");
  AttentionRun gap = run;
  std::vector<KvView> views = chain.views;
  views[1].begin = 8;
  gap.chain = views;
  EXPECT_THROW(cpu_->attention(q.mat(), {&gap, 1}, shape, z.mat()), Error);
}

TEST_P(Operations, VocabularyAndTopK) {
  Random random(9);
  for (const int64_t n : {int64_t{1}, int64_t{37}, int64_t{1000}, int64_t{16385}}) {
    Matrix x = random.matrix(5, n, 3, 8.0f);
    for (float& f : x.mat().row_span(1)) f = std::round(f);  // ties
    for (float& f : x.mat().row_span(2)) f = std::min(f, 0.0f);
    for (float& f : x.mat().row_span(3)) f = -1.0f;
    std::vector<float> lse(5), lse_ref(5);
    std::vector<int32_t> best(5), best_ref(5);
    cpu_->log_sum_exp(x.mat(), lse);
    ref_->log_sum_exp(x.mat(), lse_ref);
    cpu_->argmax(x.mat(), best);
    ref_->argmax(x.mat(), best_ref);
    for (size_t r = 0; r < 5; ++r) EXPECT_NEAR(lse[r], lse_ref[r], 1e-5 * (1.0 + std::abs(lse_ref[r])));
    EXPECT_EQ(best, best_ref);
    for (const int64_t k : {int64_t{1}, int64_t{32}, int64_t{64}}) {
      for (const bool positive : {false, true}) {
        std::vector<int32_t> index(5 * k, 7), index_ref(5 * k, 9);
        Matrix value(5, k), value_ref(5, k);
        cpu_->top_k(x.mat(), k, positive, {index.data(), 5, k}, value.mat());
        ref_->top_k(x.mat(), k, positive, {index_ref.data(), 5, k}, value_ref.mat());
        EXPECT_EQ(index, index_ref) << "n " << n << " k " << k << " positive only " << positive;
        expect_bits(value_ref.mat(), value.mat(), "top_k values");
      }
    }
  }
}

TEST_P(Operations, TopOfPiecesIsTopOfAll) {
  constexpr int64_t kRows = 4, kCols = 5000;
  Random random(14);
  const Matrix value = random.matrix(kRows, kCols, 0, 8.0f);
  Matrix rank = random.matrix(kRows, kCols, 0, 8.0f);
  for (float& f : rank.mat().row_span(1)) f = std::round(f);      // ties
  for (float& f : rank.mat().row_span(2)) f = std::min(f, 0.0f);  // few are positive: none
  rank.mat()(3, 40) = rank.mat()(3, 4999) = std::numeric_limits<float>::infinity();
  rank.mat()(3, 41) = std::numeric_limits<float>::quiet_NaN();
  const auto piece = [](const Matrix& m, int64_t begin, int64_t end) {
    Matrix out(kRows, end - begin);
    for (int64_t r = 0; r < kRows; ++r) std::copy_n(m.mat().row(r) + begin, end - begin, out.mat().row(r));
    return out;
  };
  for (const int64_t k : {int64_t{1}, int64_t{7}, int64_t{64}, int64_t{700}}) {
    for (const int64_t width : {int64_t{50}, int64_t{513}, kCols}) {
      for (const float least : {0.0f, -std::numeric_limits<float>::infinity()}) {
        const auto find = [&](Backend& backend) {
          std::vector<TopCandidates> rows(kRows);
          for (TopCandidates& row : rows) row.clear(least);
          for (int64_t begin = 0; begin < kCols; begin += width) {
            const int64_t end = std::min(kCols, begin + width);
            backend.find_top(piece(rank, begin, end).mat(), piece(value, begin, end).mat(), begin, k, rows);
          }
          for (TopCandidates& row : rows) row.keep(k);
          return rows;
        };
        const std::vector<TopCandidates> got = find(*cpu_), wanted = find(*ref_);
        for (size_t r = 0; r < kRows; ++r) {
          const std::string where = "row " + std::to_string(r) + " k " + std::to_string(k) + " of " +
                                    std::to_string(width) + " columns, above " + std::to_string(least);
          EXPECT_EQ(got[r].index, wanted[r].index) << where;
          EXPECT_EQ(got[r].rank, wanted[r].rank) << where;
          EXPECT_EQ(got[r].value, wanted[r].value) << where;
          for (size_t i = 0; i < got[r].index.size(); ++i) {
            EXPECT_EQ(got[r].value[i], value.mat()(static_cast<int64_t>(r), got[r].index[i])) << where;
          }
        }
      }
    }
  }
}

TEST_P(Operations, Sparse) {
  Random random(10);
  for (const int64_t d : {int64_t{1}, int64_t{41}, int64_t{576}}) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBf16}) {
      const int64_t rows = 37, latents = 50;
      std::vector<int64_t> offsets = {0};
      std::vector<int32_t> indices;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = random.below(9); i > 0; --i) indices.push_back(static_cast<int32_t>(random.below(latents)));
        offsets.push_back(static_cast<int64_t>(indices.size()));
      }
      const auto entries = static_cast<int64_t>(indices.size());
      const Matrix values = random.matrix(1, entries), x = random.matrix(rows, d, 3);
      const Tensor w = random.weight(dtype, latents, d);
      const WeightView dictionary{w.data(), dtype, latents, d};
      compare(random.matrix(rows, d, 2), "sparse_decode", 1e-5, [&](Backend& b, Mat<float> y) {
        b.sparse_decode(offsets, indices, values.mat().row_span(0), dictionary, y);
      });
      compare(Matrix(1, entries), "sparse_dot", 2e-5,
              [&](Backend& b, Mat<float> y) { b.sparse_dot(x.mat(), offsets, indices, dictionary, y.row_span(0)); });
      // The same offsets read by latent: 37 latents, entries name rows of a batch of 50.
      const Matrix batch = random.matrix(latents, d, 1);
      compare(random.matrix(rows, d, 2), "sparse_outer", 1e-5, [&](Backend& b, Mat<float> y) {
        b.sparse_outer(offsets, indices, values.mat().row_span(0), batch.mat(), y);
      });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, Operations, ::testing::ValuesIn(supported_isas()), test::param_name<std::string>);

}  // namespace
}  // namespace saif
