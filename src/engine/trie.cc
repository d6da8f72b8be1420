#include "engine/trie.h"

#include <algorithm>

#include "base/check.h"

namespace saif {
namespace {

constexpr uint32_t kRootBit = 0x80000000U;  // marks a root in the parent's half of an edge
constexpr uint32_t kForkBit = 0x80000000U;  // marks a forked last token in the token's half

uint64_t edge(uint32_t from, uint32_t token) { return (uint64_t{from} << 32) | token; }

}  // namespace

int32_t Trie::add(int32_t parent, std::span<const int32_t> ids, int64_t begin, int64_t end, int32_t owner) {
  TrieNode node;
  node.parent = parent;
  node.owner = owner;
  node.begin = begin;
  node.end = end;
  node.tokens = ids.data() + begin;
  nodes_.push_back(node);
  root_.push_back(0);
  return static_cast<int32_t>(nodes_.size() - 1);
}

int32_t Trie::split(int32_t node, int64_t at) {
  const auto upper = static_cast<int32_t>(nodes_.size());
  TrieNode top = nodes_[node];
  const uint32_t from = top.parent < 0 ? kRootBit | root_[node] : static_cast<uint32_t>(top.parent);
  top.end = at;
  top.first_end = -1;
  nodes_.push_back(top);
  root_.push_back(root_[node]);
  TrieNode& lower = nodes_[node];
  lower.tokens += at - lower.begin;
  lower.begin = at;
  lower.parent = upper;
  children_[edge(from, static_cast<uint32_t>(top.tokens[0]))] = upper;
  children_[edge(static_cast<uint32_t>(upper), static_cast<uint32_t>(lower.tokens[0]))] = node;
  return upper;
}

// Walks down as far as ids are there and adds what is missing; returns the node that ends with the last of them.
int32_t Trie::walk(std::span<const int32_t> ids, uint32_t root, int32_t sequence) {
  const auto n = static_cast<int64_t>(ids.size());
  int32_t at = -1;
  for (int64_t position = 0; position < n;) {
    const uint32_t from = at < 0 ? kRootBit | root : static_cast<uint32_t>(at);
    const auto [found, is_new] = children_.try_emplace(edge(from, static_cast<uint32_t>(ids[position])), -1);
    if (is_new) {
      found->second = static_cast<int32_t>(nodes_.size());
      const int32_t added = add(at, ids, position, n, sequence);
      root_[added] = root;
      return added;
    }
    const int32_t next = found->second;
    const TrieNode& node = nodes_[next];
    const int64_t limit = std::min(node.length(), n - position);
    int64_t same = 1;
    while (same < limit && node.tokens[same] == ids[position + same]) ++same;
    at = same < node.length() ? split(next, position + same) : next;
    position += same;
  }
  return at;
}

void Trie::insert(std::span<const int32_t> ids, uint64_t key, bool fork_last, bool long_prompt) {
  SAIF_CHECK(order_.empty(), "the trie is finished");
  const auto sequence = static_cast<int32_t>(leaf_.size());
  if (ids.empty()) {
    leaf_.push_back(-1);
    return;
  }
  const uint64_t space = 2 * key + (long_prompt ? 1 : 0);
  const uint32_t root = roots_.try_emplace(space, static_cast<uint32_t>(roots_.size())).first->second;
  long_root_.resize(roots_.size());
  long_root_[root] = long_prompt;
  const auto n = static_cast<int64_t>(ids.size());
  int32_t leaf = walk(fork_last ? ids.first(ids.size() - 1) : ids, root, sequence);
  if (fork_last) {
    const uint32_t from = leaf < 0 ? kRootBit | root : static_cast<uint32_t>(leaf);
    const auto [found, is_new] = children_.try_emplace(edge(from, kForkBit | static_cast<uint32_t>(ids.back())), -1);
    if (is_new) {
      found->second = static_cast<int32_t>(nodes_.size());
      add(leaf, ids, n - 1, n, sequence);
      root_.back() = root;
    }
    leaf = found->second;
  }
  leaf_.push_back(leaf);
  if (nodes_[leaf].first_end < 0) nodes_[leaf].first_end = sequence;
}

void Trie::finish() {
  const size_t n = nodes_.size();
  // Children by parent; slot 0 holds the nodes without one.
  std::vector<std::vector<int32_t>> below(n + 1);
  for (size_t i = 0; i < n; ++i) below[nodes_[i].parent + 1].push_back(static_cast<int32_t>(i));
  for (auto& list : below)
    std::stable_sort(list.begin(), list.end(), [&](int32_t a, int32_t b) { return nodes_[a].owner < nodes_[b].owner; });
  order_.reserve(n);
  std::vector<int32_t> stack(below[0].rbegin(), below[0].rend());
  while (!stack.empty()) {
    const int32_t node = stack.back();
    stack.pop_back();
    order_.push_back(node);
    stack.insert(stack.end(), below[node + 1].rbegin(), below[node + 1].rend());
  }
  for (TrieNode& node : nodes_) {
    node.sequences = 0;
    total_tokens_ += node.length();
  }
  for (const int32_t leaf : leaf_)
    if (leaf >= 0) ++nodes_[leaf].sequences;
  for (auto it = order_.rbegin(); it != order_.rend(); ++it)
    if (nodes_[*it].parent >= 0) nodes_[nodes_[*it].parent].sequences += nodes_[*it].sequences;
}

std::vector<int32_t> Trie::path(int32_t node) const {
  std::vector<int32_t> nodes;
  for (; node >= 0; node = nodes_[node].parent) nodes.push_back(node);
  std::reverse(nodes.begin(), nodes.end());
  return nodes;
}

}  // namespace saif
