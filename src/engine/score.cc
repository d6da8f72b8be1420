#include <algorithm>
#include <map>
#include <utility>

#include "base/check.h"
#include "base/parallel.h"
#include "engine/edit.h"
#include "engine/impl.h"
#include "engine/trie_kv.h"

namespace saif {
namespace {

constexpr int64_t kScoreRows = 2048;  // of a pass

// The log-probabilities that follow each row of a trie: inside a node one, at its end one per continuation.
class NextTokens {
 public:
  NextTokens(const Trie& trie, std::span<const Engine::ScoreRequest> requests)
      : trie_(trie), inside_(trie.nodes().size()), behind_(trie.nodes().size()) {
    for (size_t i = 0; i < trie.nodes().size(); ++i) {
      const TrieNode& node = trie.nodes()[i];
      inside_[i].resize(static_cast<size_t>(node.length() - 1));
      if (node.parent >= 0) behind_[node.parent][node.tokens[0]] = 0;
    }
    for (size_t r = 0; r < requests.size(); ++r)
      if (trie.leaf(r) >= 0) behind_[trie.leaf(r)][requests[r].ids.back()] = 0;
  }

  // Log-probabilities of all that follows a row; distinct rows from distinct threads.
  void fill(TriePasses::Place place, const float* logits, double log_sum) {
    const TrieNode& node = trie_.nodes()[place.node];
    const auto at = [&](int32_t id) { return static_cast<double>(logits[id]) - log_sum; };
    const auto i = static_cast<size_t>(place.position - node.begin);
    if (place.position + 1 < node.end) {
      inside_[place.node][i] = at(node.tokens[i + 1]);
      return;
    }
    for (auto& [id, value] : behind_[place.node]) value = at(id);
  }

  // In the order of positions, so that sharing does not change the sum.
  Engine::Score sum(size_t request, const Engine::ScoreRequest& r) const {
    Engine::Score score;
    for (const int32_t id : trie_.path(trie_.leaf(request))) {
      const TrieNode& node = trie_.nodes()[id];
      for (int64_t p = std::max(node.begin, r.context - 1); p < node.end; ++p) {
        const int32_t next = r.ids[static_cast<size_t>(p + 1)];
        const double value = p + 1 < node.end ? inside_[id][static_cast<size_t>(p - node.begin)] : behind_[id].at(next);
        score.log_probability += value;
        ++score.tokens;
        if (r.each) score.each.push_back(value);
      }
    }
    return score;
  }

 private:
  const Trie& trie_;
  std::vector<std::vector<double>> inside_;
  std::vector<std::map<int32_t, double>> behind_;
};

void check_requests(const Architecture& architecture, std::span<const Engine::ScoreRequest> requests) {
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::string who = "request " + std::to_string(i);
    const auto n = static_cast<int64_t>(requests[i].ids.size());
    check_ids(architecture, requests[i].ids, architecture.context, who + ": the sequence");
    if (requests[i].context < 1 || requests[i].context > n)
      throw Error(Errc::kInvalidArgument, who + ": context is " + std::to_string(requests[i].context) +
                                              ", must be from 1 to the sequence's " + std::to_string(n) + " tokens");
  }
}

// First position per node whose logits somebody needs.
std::vector<int64_t> scored_from(const Trie& trie, std::span<const Engine::ScoreRequest> requests) {
  std::vector<int64_t> from;
  for (const TrieNode& node : trie.nodes()) from.push_back(node.end);
  for (size_t r = 0; r < requests.size(); ++r)
    for (const int32_t id : trie.path(trie.leaf(r))) {
      const TrieNode& node = trie.nodes()[id];
      from[id] = std::min(from[id], std::clamp(requests[r].context - 1, node.begin, node.end));
    }
  return from;
}

Trie trie_of(const Architecture& architecture, std::span<const Engine::ScoreRequest> requests, bool edited) {
  Trie trie;
  // A sequence whose tokens are all given needs no row. Steps of edits are counted from the last given token.
  for (const auto& r : requests)
    trie.insert(std::span(r.ids).first(r.context < static_cast<int64_t>(r.ids.size()) ? r.ids.size() - 1 : 0),
                edited ? static_cast<uint64_t>(r.context) : 0, false, architecture.is_long_prompt(r.ids.size()));
  trie.finish();
  return trie;
}

}  // namespace

std::vector<Engine::Score> Engine::score(std::span<const ScoreRequest> requests, std::span<const AppliedEdit> edits,
                                         const Control& control) {
  const EngineUse use(impl_->in_use);
  const Architecture& architecture = model().architecture();
  check_requests(architecture, requests);
  check_edits(architecture, edits, "scoring");
  const Trie trie = trie_of(architecture, requests, !edits.empty());
  NextTokens next(trie, requests);
  int64_t touched = 0;
  BatchEditor editor([&](const RowInfo& row) -> BatchEditor::Row {
    const auto owner = static_cast<size_t>(row.sequence >= 0 ? row.sequence : -1 - row.sequence);
    return {edits, requests[owner].context - 1, &touched};
  });
  editor.add_sites(edits);
  TriePasses passes(architecture, trie, scored_from(trie, requests), {kScoreRows, kLogitRows});
  ForwardBatch batch;
  batch.last_layer = static_cast<int>(architecture.n_layers) - 1;
  batch.logits = true;
  batch.release_kv_layers = passes.single();
  batch.editor = editor.any() ? &editor : nullptr;
  std::vector<float> log_sums;
  int64_t computed = 0;
  while (passes.next(batch)) {
    control.check("scoring");
    const Mat<float> logits = impl_->forward.run(batch);
    log_sums.resize(static_cast<size_t>(logits.rows()));
    if (logits.rows() > 0) impl_->forward.backend().log_sum_exp(logits, log_sums);
    for (int64_t i = 0; i < logits.rows(); ++i)
      next.fill(passes.places()[batch.kept_rows[i]], logits.row(i), static_cast<double>(log_sums[i]));
    passes.done();
    computed += static_cast<int64_t>(batch.tokens.size());
    control.report({"score", computed, trie.total_tokens(), ""});
  }
  if (!edits.empty() && touched == 0 && computed > 0)
    throw Error(Errc::kRefused, "scoring: no row was touched by the edits (the first is at " + edits[0].site.name() +
                                    "): choose sites that the model computes");
  std::vector<Score> scores;
  for (size_t r = 0; r < requests.size(); ++r) scores.push_back(next.sum(r, requests[r]));
  return scores;
}

}  // namespace saif
