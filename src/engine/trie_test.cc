#include "engine/trie.h"

#include <gtest/gtest.h>

#include <chrono>
#include <set>

#include "base/rng.h"

namespace saif {
namespace {

using Ids = std::vector<int32_t>;

Trie trie_of(const std::vector<Ids>& all, bool fork_last = false) {
  Trie trie;
  for (const Ids& ids : all) trie.insert(ids, 0, fork_last);
  trie.finish();
  return trie;
}

Ids spelled(const Trie& trie, size_t sequence) {
  Ids out;
  for (const int32_t id : trie.path(trie.leaf(sequence))) {
    const TrieNode& node = trie.nodes()[id];
    EXPECT_EQ(node.begin, static_cast<int64_t>(out.size()));
    out.insert(out.end(), node.tokens, node.tokens + node.length());
  }
  return out;
}

TEST(Trie, SharesWhatIsEqual) {
  const std::vector<Ids> all = {{1, 2, 3, 4}, {1, 2, 5}, {1, 2}, {1, 2, 3, 4}, {7}, {}};
  const Trie trie = trie_of(all);
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(spelled(trie, i), all[i]);
  EXPECT_EQ(trie.total_tokens(), 2 + 2 + 1 + 1);
  EXPECT_EQ(trie.leaf(0), trie.leaf(3));
  EXPECT_EQ(trie.leaf(5), -1);
  const TrieNode& shared = trie.nodes()[trie.leaf(2)];  // [1, 2]
  EXPECT_EQ(shared.sequences, 4);
  EXPECT_EQ(shared.owner, 0);
  EXPECT_EQ(shared.first_end, 2);
  EXPECT_EQ(trie.nodes()[trie.leaf(0)].first_end, 0);
  EXPECT_EQ(trie.nodes()[trie.leaf(0)].sequences, 2);
}

TEST(Trie, KeysAndForksKeepApart) {
  const Ids a = {1, 2, 3}, b = {1, 2, 3, 4};
  Trie keys;
  keys.insert(a, 0);
  keys.insert(a, 9);
  keys.insert(a, 9);
  keys.finish();
  EXPECT_EQ(keys.total_tokens(), 6);
  const std::vector<Ids> all = {a, b, a};
  const Trie forked = trie_of(all, true);  // [1 2] 3', [1 2] 3 4'
  EXPECT_EQ(forked.total_tokens(), 5);
  EXPECT_EQ(forked.leaf(0), forked.leaf(2));
  EXPECT_EQ(spelled(forked, 1), b);
  EXPECT_EQ(spelled(forked, 0), a);
}

TEST(Trie, OrderPutsParentsFirst) {
  Rng rng(3);
  std::vector<Ids> all(500);
  for (Ids& ids : all)
    for (uint64_t n = 1 + rng.below(12); n > 0; --n) ids.push_back(static_cast<int32_t>(rng.below(3)));
  const Trie trie = trie_of(all);
  std::set<int32_t> seen;
  for (const int32_t id : trie.order()) {
    const TrieNode& node = trie.nodes()[id];
    EXPECT_TRUE(node.parent < 0 || seen.contains(node.parent));
    EXPECT_TRUE(seen.insert(id).second);
  }
  EXPECT_EQ(seen.size(), trie.nodes().size());
  std::set<Ids> prefixes;  // each distinct prefix is one row
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(spelled(trie, i), all[i]);
    for (size_t n = 1; n <= all[i].size(); ++n) prefixes.emplace(all[i].begin(), all[i].begin() + n);
  }
  EXPECT_EQ(trie.total_tokens(), static_cast<int64_t>(prefixes.size()));
}

TEST(Trie, TenThousandPromptsInWellUnderASecond) {
  Rng rng(4);
  std::vector<Ids> all(10000, Ids(200));
  for (size_t i = 0; i < all.size(); ++i)
    for (size_t t = 0; t < 200; ++t)
      all[i][t] = t < 60 ? 1 : t < 150 ? static_cast<int32_t>(i / 31 * 7 + t) : static_cast<int32_t>(rng.below(49152));
  const auto begin = std::chrono::steady_clock::now();
  const Trie trie = trie_of(all);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 0.5);
  EXPECT_GT(trie.total_tokens(), 500000);
}

}  // namespace
}  // namespace saif
