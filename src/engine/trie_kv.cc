#include "engine/trie_kv.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace saif {

TrieKv::TrieKv(const Architecture& architecture, const Trie& trie)
    : architecture_(architecture), trie_(trie), segments_(trie.nodes().size()), planned_(trie.nodes().size(), 0) {}

void TrieKv::append(ForwardBatch& batch, int32_t node, int64_t n, int64_t sequence) {
  const TrieNode& info = trie_.nodes()[node];
  SAIF_CHECK(n > 0 && planned_[node] + n <= info.length(), "more rows than the node has");
  if (!segments_[node]) segments_[node] = std::make_unique<KvSegment>(architecture_, info.begin, info.length());
  const int64_t first = planned_[node];
  ForwardRun run;
  run.row = static_cast<int64_t>(batch.tokens.size());
  run.n_rows = n;
  run.position = info.begin + first;
  run.chain = chain(node);
  run.long_prompt = trie_.long_prompt(node);
  for (int64_t i = first; i < first + n; ++i) {
    batch.tokens.push_back(info.tokens[i]);
    batch.rows.push_back({sequence, info.begin + i, info.tokens[i]});
  }
  batch.runs.push_back(std::move(run));
  planned_[node] += n;
}

std::vector<KvSegment*> TrieKv::chain(int32_t node) const {
  std::vector<KvSegment*> segments;
  for (; node >= 0; node = trie_.nodes()[node].parent) segments.push_back(segments_[node].get());
  std::reverse(segments.begin(), segments.end());
  return segments;
}

TriePasses::TriePasses(const Architecture& architecture, const Trie& trie, std::vector<int64_t> keep, Limits limits)
    : trie_(trie), kv_(architecture, trie), keep_(std::move(keep)), limits_(limits) {
  int64_t kept = 0;
  open_children_.assign(trie.nodes().size(), 1);
  for (size_t i = 0; i < trie.nodes().size(); ++i) {
    const TrieNode& node = trie.nodes()[i];
    kept += node.end - keep_[i];
    if (node.parent >= 0) ++open_children_[node.parent];
  }
  single_ = trie.total_tokens() <= limits.rows && kept <= limits.kept_rows;
}

bool TriePasses::next(ForwardBatch& batch) {
  batch.tokens.clear();
  batch.rows.clear();
  batch.runs.clear();
  batch.kept_rows.clear();
  batch.all_rows = false;
  places_.clear();
  finished_.clear();
  int64_t rows = limits_.rows, kept = limits_.kept_rows;
  for (; at_ < trie_.order().size(); ++at_) {
    const int32_t id = trie_.order()[at_];
    const TrieNode& node = trie_.nodes()[id];
    const int64_t begin = node.begin + kv_.planned(id);
    const int64_t end = std::min({node.end, begin + rows, std::max(begin, keep_[id]) + kept});
    if (end == begin) break;
    for (int64_t p = begin; p < end; ++p) {
      places_.push_back({id, p});
      if (p >= keep_[id]) batch.kept_rows.push_back(static_cast<int64_t>(places_.size()) - 1);
    }
    kv_.append(batch, id, end - begin, -1 - int64_t{node.owner});
    rows -= end - begin;
    kept -= std::max<int64_t>(0, end - std::max(begin, keep_[id]));
    if (end < node.end) break;
    if (node.first_end >= 0) batch.rows.back().sequence = node.first_end;
    finished_.push_back(id);
  }
  return !places_.empty();
}

void TriePasses::done() {
  for (int32_t id : finished_)
    for (; id >= 0 && --open_children_[id] == 0; id = trie_.nodes()[id].parent) kv_.release(id);
}

}  // namespace saif
