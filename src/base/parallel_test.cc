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

}  // namespace
}  // namespace saif
