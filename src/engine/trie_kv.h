// Keys and values of a prompt trie's nodes, and the making of batches out of them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/trie.h"
#include "model/forward.h"

namespace saif {

// One KV segment per node, made when the node's first rows are planned. Owner of the segments.
class TrieKv {
 public:
  TrieKv(const Architecture& architecture, const Trie& trie);

  // Rows of the node that are in batches so far, the one being built included.
  int64_t planned(int32_t node) const { return planned_[node]; }
  bool complete(int32_t node) const { return planned_[node] == trie_.nodes()[node].length(); }
  // Appends the node's next n rows to the batch as one run; all nodes above must be complete. `sequence` goes into the
  // rows' RowInfo.
  void append(ForwardBatch& batch, int32_t node, int64_t n, int64_t sequence);
  // The segments from the top down to the node; the pointers live until release().
  std::vector<KvSegment*> chain(int32_t node) const;
  void release(int32_t node) { segments_[node].reset(); }

 private:
  const Architecture& architecture_;
  const Trie& trie_;
  std::vector<std::unique_ptr<KvSegment>> segments_;
  std::vector<int64_t> planned_;
};

// Cuts a whole trie into passes, depth first, and frees segments as soon as nothing below them is left to compute.
// In every row RowInfo::sequence is `end` = the first sequence that ends there for the last row of such a node, and
// -1 - owner for all others.
class TriePasses {
 public:
  struct Limits {
    int64_t rows = 0;       // of a pass
    int64_t kept_rows = 0;  // of a pass
  };
  // keep[node]: first position of the node from which rows are kept (its end: none).
  TriePasses(const Architecture& architecture, const Trie& trie, std::vector<int64_t> keep, Limits limits);
  // Fills tokens, rows, runs and kept_rows of the next pass; false when there is none.
  bool next(ForwardBatch& batch);
  // (node, position) of each row of the last pass.
  struct Place {
    int32_t node;
    int64_t position;
  };
  const std::vector<Place>& places() const { return places_; }
  bool single() const { return single_; }  // everything fits into one pass
  // After the pass was run: frees what is no longer needed.
  void done();

 private:
  const Trie& trie_;
  TrieKv kv_;
  std::vector<int64_t> keep_;
  Limits limits_;
  std::vector<int32_t> open_children_;  // per node: itself and children whose subtrees are not complete
  std::vector<int32_t> finished_;       // nodes that became complete in the last pass
  std::vector<Place> places_;
  size_t at_ = 0;  // in trie.order()
  bool single_ = false;
};

}  // namespace saif
