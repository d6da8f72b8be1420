#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/edit.h"
#include "engine/impl.h"
#include "engine/trie_kv.h"

namespace saif {
namespace {

// Rows of a pass that never decodes.
constexpr int64_t kObserveRows = 8192;

constexpr SiteKind kBlockSites[] = {SiteKind::kResidPre, SiteKind::kLn1,      SiteKind::kQ,      SiteKind::kK,
                                    SiteKind::kV,        SiteKind::kPattern,  SiteKind::kZ,      SiteKind::kAttnOut,
                                    SiteKind::kResidMid, SiteKind::kLn2,      SiteKind::kMlpPre, SiteKind::kMlpPost,
                                    SiteKind::kMlpOut,   SiteKind::kResidPost};

// How far a pass has to go for an observer.
struct Depth {
  int last_layer = -1;  // -1: nobody looks
  bool logits = false;
};

Depth depth_of(const Observer& observer, int n_layers) {
  if (observer.wants({SiteKind::kLogits, -1})) return {n_layers - 1, true};
  if (observer.wants({SiteKind::kFinalNorm, -1})) return {n_layers - 1, false};
  for (int layer = n_layers - 1; layer >= 0; --layer)
    for (const SiteKind kind : kBlockSites)
      if (observer.wants({kind, layer})) return {layer, false};
  const bool entry = observer.wants({SiteKind::kEmbed, -1}) || observer.wants({SiteKind::kPosEmbed, -1});
  return {entry ? 0 : -1, false};
}

// Passes on the rows that TriePasses marks as somebody's last, or all rows with their owner restored.
class RowFilter : public Observer {
 public:
  RowFilter(Observer& to, bool last_only) : to_(to), last_only_(last_only) {}
  bool wants(const Site& site) const override { return to_.wants(site); }
  void observe(const Site& site, std::span<const RowInfo> rows, Mat<const float> values) override {
    infos_.clear();
    indices_.clear();
    for (size_t r = 0; r < rows.size(); ++r) {
      if (last_only_ && rows[r].sequence < 0) continue;
      infos_.push_back(rows[r]);
      indices_.push_back(static_cast<int64_t>(r));
    }
    if (infos_.empty()) return;
    if (infos_.size() == rows.size()) {
      to_.observe(site, infos_, values);
      return;
    }
    const auto n = static_cast<int64_t>(infos_.size());
    gathered_.resize(static_cast<size_t>(n * values.cols()));
    const Mat<float> copy(gathered_.data(), n, values.cols());
    for (int64_t i = 0; i < n; ++i) std::copy_n(values.row(indices_[i]), values.cols(), copy.row(i));
    to_.observe(site, infos_, copy);
  }

 private:
  Observer& to_;
  bool last_only_;
  std::vector<RowInfo> infos_;
  std::vector<int64_t> indices_;
  std::vector<float> gathered_;
};

Trie trie_of(const Architecture& architecture, std::span<const std::vector<int32_t>> prompts,
             const Engine::ObserveOptions& options) {
  Trie trie;
  EditKeys keys;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const uint64_t key = options.share_prefixes ? keys.key(options.edits, prompts[i].size()) : i;
    trie.insert(prompts[i], key, !options.edits.empty(), architecture.is_long_prompt(prompts[i].size()));
  }
  trie.finish();
  return trie;
}

// First kept position per node.
std::vector<int64_t> kept_from(const Trie& trie, bool last_only) {
  std::vector<int64_t> from;
  for (const TrieNode& node : trie.nodes())
    from.push_back(!last_only ? node.begin : node.first_end >= 0 ? node.end - 1 : node.end);
  return from;
}

}  // namespace

Observed observe_trie(Forward& forward, const Architecture& architecture, std::span<const std::vector<int32_t>> prompts,
                      Observer& observer, const Engine::ObserveOptions& options, const Control& control) {
  for (size_t i = 0; i < prompts.size(); ++i)
    check_ids(architecture, prompts[i], architecture.context, "prompt " + std::to_string(i));
  check_edits(architecture, options.edits, "observing");
  const Depth depth = depth_of(observer, static_cast<int>(architecture.n_layers));
  if (depth.last_layer < 0)
    throw Error(Errc::kInvalidArgument, "observing: the observer wants no site of this model: name at least one");
  Observed observed{trie_of(architecture, prompts, options), {}};
  const Trie& trie = observed.trie;
  for (const auto& prompt : prompts) observed.tokens.naive += static_cast<int64_t>(prompt.size());

  int64_t touched = 0;
  BatchEditor editor([&](const RowInfo& row) -> BatchEditor::Row {
    const auto owner = static_cast<size_t>(row.sequence >= 0 ? row.sequence : -1 - row.sequence);
    return {options.edits, static_cast<int64_t>(prompts[owner].size()) - 1, &touched};
  });
  editor.add_sites(options.edits);
  RowFilter filter(observer, options.last_only);
  TriePasses passes(architecture, trie, kept_from(trie, options.last_only),
                    {kObserveRows, depth.logits ? kLogitRows : kObserveRows});
  ForwardBatch batch;
  batch.last_layer = depth.last_layer;
  batch.release_kv_layers = passes.single();
  batch.observer = &filter;
  batch.editor = editor.any() ? &editor : nullptr;
  while (passes.next(batch)) {
    control.check("observing");
    if (!options.last_only)
      for (size_t r = 0; r < batch.rows.size(); ++r)
        batch.rows[r].sequence = trie.nodes()[passes.places()[r].node].owner;
    forward.run(batch);
    passes.done();
    observed.tokens.computed += static_cast<int64_t>(batch.tokens.size());
    control.report({"observe", observed.tokens.computed, trie.total_tokens(), ""});
  }
  if (!options.edits.empty() && !prompts.empty() && touched == 0)
    throw Error(Errc::kRefused, "observing: no row was touched by the edits (the first is at " +
                                    options.edits[0].site.name() +
                                    "): edit at or before the deepest site that is observed");
  return observed;
}

TokenCounts Engine::observe(std::span<const std::vector<int32_t>> prompts, Observer& observer,
                            const ObserveOptions& options, const Control& control) {
  const EngineUse use(impl_->in_use);
  return observe_trie(impl_->forward, model().architecture(), prompts, observer, options, control).tokens;
}

}  // namespace saif
