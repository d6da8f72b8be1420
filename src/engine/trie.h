// Radix trie over the token ids of many sequences: what several of them begin with is one node, computed once.
// Built in O(total tokens). Every sequence ends at the end of a node, so a path of nodes is exactly its tokens.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace saif {

struct TrieNode {
  int32_t parent = -1;     // -1: none
  int32_t owner = 0;       // first sequence that runs through the node
  int32_t first_end = -1;  // first sequence that ends with the node; -1: none does
  int32_t sequences = 0;   // number of sequences that run through it (after finish())
  int64_t begin = 0;       // positions [begin, end)
  int64_t end = 0;
  const int32_t* tokens = nullptr;  // [end - begin], inside the owner's ids
  int64_t length() const { return end - begin; }
};

class Trie {
 public:
  // Adds the next sequence (they are numbered from 0). `ids` must outlive the trie; empty: the sequence has no node.
  // Only sequences with equal keys share nodes. With fork_last the last token gets a node that is shared with equal
  // sequences only, never with the inside of a longer one.
  // Sequences that differ in `long_prompt` (ForwardRun's) share none either.
  void insert(std::span<const int32_t> ids, uint64_t key = 0, bool fork_last = false, bool long_prompt = false);
  // Counts sequences and fixes the order. No insert() after it.
  void finish();

  const std::vector<TrieNode>& nodes() const { return nodes_; }
  const std::vector<int32_t>& order() const { return order_; }     // depth first, older sequences first
  int32_t leaf(size_t sequence) const { return leaf_[sequence]; }  // the node it ends with; -1: none
  std::vector<int32_t> path(int32_t node) const;                   // from the top down to the node
  int64_t total_tokens() const { return total_tokens_; }           // of all nodes
  bool long_prompt(int32_t node) const { return long_root_[root_[static_cast<size_t>(node)]]; }

 private:
  int32_t add(int32_t parent, std::span<const int32_t> ids, int64_t begin, int64_t end, int32_t owner);
  int32_t split(int32_t node, int64_t at);  // returns the new upper part; `node` keeps the lower one
  int32_t walk(std::span<const int32_t> ids, uint32_t root, int32_t sequence);

  std::vector<TrieNode> nodes_;
  std::vector<uint32_t> root_;                      // per node: the edge space of its parent when it has none
  std::vector<bool> long_root_;                     // per root
  std::vector<int32_t> leaf_, order_;               // per sequence; per node
  std::unordered_map<uint64_t, uint32_t> roots_;    // key -> root
  std::unordered_map<uint64_t, int32_t> children_;  // (parent or root, first token) -> node
  int64_t total_tokens_ = 0;
};

}  // namespace saif
