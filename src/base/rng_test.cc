#include "base/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numeric>

namespace saif {
namespace {

std::vector<int> shuffled(size_t n, uint64_t seed, uint64_t stream = 0) {
  std::vector<int> items(n);
  std::iota(items.begin(), items.end(), 0);
  Rng rng(seed, stream);
  shuffle(items, rng);
  return items;
}

TEST(Shuffle, IsAPermutationThatFollowsSeedAndStream) {
  for (const size_t n : {0, 1, 2, 100}) {
    const std::vector<int> items = shuffled(n, 3);
    EXPECT_EQ(items, shuffled(n, 3));
    std::vector<int> sorted = items, all(n);
    std::sort(sorted.begin(), sorted.end());
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(sorted, all);
  }
  EXPECT_NE(shuffled(100, 3), shuffled(100, 4));
  EXPECT_NE(shuffled(100, 3), shuffled(100, 3, 1));
}

// Studies and resumed training runs are computed again from their seeds: the order of a seed may not change.
TEST(Shuffle, TheOrderOfASeedStays) { EXPECT_EQ(shuffled(8, 1), (std::vector<int>{3, 7, 5, 1, 2, 0, 6, 4})); }

TEST(Shuffle, EveryOrderIsEquallyLikely) {
  std::array<int, 9> times{};  // by place of item 0 and item 1 of three
  for (uint64_t seed = 0; seed < 6000; ++seed) {
    const std::vector<int> items = shuffled(3, seed);
    const auto place = [&](int item) { return std::find(items.begin(), items.end(), item) - items.begin(); };
    ++times[static_cast<size_t>(3 * place(0) + place(1))];
  }
  for (const size_t order : {1, 2, 3, 5, 6, 7}) EXPECT_NEAR(times[order], 1000, 150) << order;
}

}  // namespace
}  // namespace saif
