#include "base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <new>
#include <string>
#include <vector>

#include "saif/error.h"

namespace saif {
namespace {

constexpr int kThreads = 4;

class Parallel : public testing::Test {
 protected:
  void SetUp() override { set_threads(kThreads); }
  void TearDown() override { set_threads(before_); }

 private:
  const int before_ = max_threads();
};

TEST_F(Parallel, CoversTheRangeOnce) {
  for (const int64_t n : {0, 1, 6, 7, 8, 1000}) {
    std::vector<std::atomic<int>> seen(static_cast<size_t>(n));
    parallel_for(n, 7, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
    });
    for (const auto& times : seen) EXPECT_EQ(times, 1);
  }
}

TEST_F(Parallel, AnErrorOfTheBodyReachesTheCaller) {
  for (const int64_t bad : {0, 500, 999}) {
    try {
      parallel_for(1000, 1, [&](int64_t begin, int64_t) {
        if (begin == bad) throw Error(Errc::kRefused, "chunk " + std::to_string(begin));
      });
      FAIL() << "nothing was thrown";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Errc::kRefused);
      EXPECT_EQ(e.what(), "chunk " + std::to_string(bad));
    }
  }
}

TEST_F(Parallel, AnyTypeIsKept) {
  EXPECT_THROW(parallel_for(100, 1, [](int64_t, int64_t) { throw std::bad_alloc(); }), std::bad_alloc);
  EXPECT_THROW(parallel_for(100, 1, [](int64_t begin, int64_t) { throw begin; }), int64_t);
}

TEST_F(Parallel, AnErrorEndsTheWork) {
  std::atomic<int> begun = 0;
  EXPECT_THROW(parallel_for(10'000, 1,
                            [&](int64_t, int64_t) {
                              ++begun;
                              throw Error(Errc::kIo, "each");
                            }),
               Error);
  EXPECT_LE(begun, kThreads);  // whoever has thrown takes no other chunk
}

TEST_F(Parallel, LoopsAfterAnErrorRun) {
  EXPECT_THROW(parallel_for(9, 1, [](int64_t, int64_t) { throw Error(Errc::kIo, "once"); }), Error);
  std::atomic<int> seen = 0;
  parallel_for(9, 1, [&](int64_t, int64_t) { ++seen; });
  EXPECT_EQ(seen, 9);
}

TEST_F(Parallel, AnErrorOfALoopInsideALoop) {
  const auto inner = [](int64_t begin, int64_t) {
    if (begin == 3) throw Error(Errc::kMismatch, "inside");
  };
  const auto outer = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) parallel_for(1, 1, [&](int64_t, int64_t) { inner(i, i + 1); });
  };
  EXPECT_THROW(parallel_for(8, 1, outer), Error);
  EXPECT_THROW(parallel_for(8, 100, outer), Error);  // on the caller's thread alone
}

TEST(TaskRuns, EachThreadGoesOnInItsOwnRunAndThenTakesFromTheEndOfAnothers) {
  TaskRuns runs(10, 3);  // [0, 3), [3, 6), [6, 10)
  EXPECT_EQ(runs.take(1), 3);
  EXPECT_EQ(runs.take(1), 4);
  EXPECT_EQ(runs.take(2), 6);
  EXPECT_EQ(runs.take(1), 5);
  EXPECT_EQ(runs.take(1), 9);
  EXPECT_EQ(runs.take(0), 0);
  EXPECT_EQ(runs.take(2), 7);
  std::vector<int64_t> rest;
  for (int64_t t = 0; (t = runs.take(2)) >= 0;) rest.push_back(t);
  EXPECT_EQ(rest, (std::vector<int64_t>{8, 2, 1}));
  EXPECT_EQ(runs.take(0), -1);
  EXPECT_EQ(TaskRuns(0, 4).take(3), -1);
}

TEST(TaskRuns, EveryTaskIsTakenOnceWhateverTheThreads) {
  constexpr int64_t kTasks = 20000;
  for (const int threads : {1, 2, 4}) {
    std::vector<std::atomic<int>> taken(kTasks);
    TaskRuns runs(kTasks, threads + 1);  // one run is nobody's own
#pragma omp parallel num_threads(threads)
    for (int64_t t = 0; (t = runs.take(omp_get_thread_num())) >= 0;) taken[static_cast<size_t>(t)].fetch_add(1);
    for (const auto& n : taken) ASSERT_EQ(n.load(), 1);
  }
}

}  // namespace
}  // namespace saif
