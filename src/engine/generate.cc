#include "engine/generate.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/parallel.h"

namespace saif {
namespace {

constexpr int64_t kOwnTokens = 128;  // of one own segment; longer answers chain several

double seconds(std::chrono::steady_clock::duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

Generation::Sequence::Sequence(size_t number, const GenerateRequest& r, int64_t stream,
                               std::shared_ptr<const Tokenizer> tokenizer)
    : request(number),
      token(r.ids.back()),
      position(static_cast<int64_t>(r.ids.size()) - 1),
      sampler(r.sampling, static_cast<uint64_t>(stream), r.logprobs),
      text(std::move(tokenizer), r.stop) {}

Generation::Generation(EngineParts& engine, std::span<const GenerateRequest> requests, const Engine::OnToken& on_token,
                       const Engine::OnDone& on_done)
    : engine_(engine),
      architecture_(engine.model->architecture()),
      requests_(requests),
      on_token_(on_token),
      on_done_(on_done),
      editor_([this](const RowInfo& row) { return resolve(row); }),
      results_(requests.size()) {
  validate();
  EditKeys keys;
  for (const GenerateRequest& r : requests_) {
    trie_.insert(std::span(r.ids).first(r.ids.size() - 1), keys.key(r.edits, r.ids.size()), false,
                 architecture_.is_long_prompt(r.ids.size()));
    editor_.add_sites(r.edits);
    own_capacity_ = std::max(own_capacity_, std::min(kOwnTokens, limit_of(r)));
  }
  trie_.finish();
  kv_ = std::make_unique<TrieKv>(architecture_, trie_);
  std::vector<int64_t> rank(trie_.nodes().size());
  for (size_t i = 0; i < rank.size(); ++i) rank[trie_.order()[i]] = static_cast<int64_t>(i);
  for (const TrieNode& node : trie_.nodes()) needed_by_.push_back(node.sequences);
  queued_.assign(rank.size(), false);
  node_touched_.assign(rank.size(), 0);
  const auto rank_of = [&](size_t r) { return trie_.leaf(r) < 0 ? -1 : rank[trie_.leaf(r)]; };
  for (size_t r = 0; r < requests_.size(); ++r) order_.push_back(r);
  std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) { return rank_of(a) < rank_of(b); });
  if (engine_.tokenizer) stop_ids_ = engine_.tokenizer->stop_ids();
  batch_.last_layer = static_cast<int>(architecture_.n_layers) - 1;
  batch_.logits = true;
  batch_.all_rows = false;
  batch_.editor = editor_.any() ? &editor_ : nullptr;
}

void Generation::validate() const {
  for (size_t i = 0; i < requests_.size(); ++i) {
    const GenerateRequest& r = requests_[i];
    check_ids(architecture_, r.ids, architecture_.context - 1, name(i) + ": the prompt");
    if (r.max_new_tokens < 1)
      throw Error(Errc::kInvalidArgument,
                  name(i) + ": max_new_tokens is " + std::to_string(r.max_new_tokens) + ", must be at least 1");
    if (r.logprobs < 0 || r.logprobs > architecture_.vocab)
      throw Error(Errc::kInvalidArgument, name(i) + ": logprobs is " + std::to_string(r.logprobs) +
                                              ", must be from 0 to the vocabulary's size " +
                                              std::to_string(architecture_.vocab));
    for (const std::string& stop : r.stop)
      if (stop.empty()) throw Error(Errc::kInvalidArgument, name(i) + ": a stop string is empty: leave it out");
    if (!r.stop.empty() && !engine_.tokenizer)
      throw Error(Errc::kInvalidArgument, name(i) + ": stop strings need a tokenizer, and this engine has none");
    check_sampling(r.sampling, name(i));
    check_edits(architecture_, r.edits, name(i));
  }
}

int64_t Generation::limit_of(const GenerateRequest& request) const {
  return std::min(request.max_new_tokens, architecture_.context - static_cast<int64_t>(request.ids.size()));
}

// Rows of nodes carry -1 - node in RowInfo::sequence, those of sequences their request.
BatchEditor::Row Generation::resolve(const RowInfo& row) {
  const bool shared = row.sequence < 0;
  const auto node = static_cast<size_t>(shared ? -1 - row.sequence : 0);
  const auto request = shared ? static_cast<size_t>(trie_.nodes()[node].owner) : static_cast<size_t>(row.sequence);
  const GenerateRequest& r = requests_[request];
  return {r.edits, static_cast<int64_t>(r.ids.size()) - 1,
          shared ? &node_touched_[node] : &results_[request].edited_rows};
}

std::vector<GenerateResult> Generation::run(const Control& control) {
  begin_ = reported_ = std::chrono::steady_clock::now();
  while (done_ < requests_.size()) {
    control.check("generating");
    admit();
    batch_.tokens.clear();
    batch_.rows.clear();
    batch_.runs.clear();
    batch_.kept_rows.clear();
    plan_prefixes();
    plan_sequences();
    sample(engine_.forward.run(batch_));
    report(control, done_ == requests_.size());
  }
  return std::move(results_);
}

// Takes in requests in groups, so that passes over their prefixes are not tiny.
void Generation::admit() {
  const int64_t waiting = static_cast<int64_t>(requests_.size() - admitted_);
  const int64_t free = engine_.options.max_batch - static_cast<int64_t>(active_.size());
  if (waiting == 0 || free < std::min(waiting, std::max<int64_t>(1, engine_.options.max_batch / 8))) return;
  for (int64_t i = 0; i < std::min(waiting, free); ++i) {
    const size_t number = order_[admitted_++];
    const GenerateRequest& r = requests_[number];
    const int64_t stream = r.stream >= 0 ? r.stream : static_cast<int64_t>(number);
    active_.push_back(std::make_unique<Sequence>(number, r, stream, engine_.tokenizer));
    for (const int32_t node : trie_.path(trie_.leaf(number))) {
      if (queued_[node]) continue;
      queued_[node] = true;
      queue_.push_back(node);
    }
  }
}

void Generation::plan_prefixes() {
  int64_t room = engine_.options.max_prefill_rows;
  while (!queue_.empty() && room > 0) {
    const int32_t node = queue_.front();
    const int64_t n = std::min(room, trie_.nodes()[node].length() - kv_->planned(node));
    kv_->append(batch_, node, n, -1 - int64_t{node});
    room -= n;
    if (kv_->complete(node)) queue_.pop_front();
  }
}

// One row of every sequence whose prefix is there, if only since this very batch.
void Generation::plan_sequences() {
  rows_.clear();
  for (const auto& owned : active_) {
    Sequence& s = *owned;
    if (!s.started) {
      const int32_t leaf = trie_.leaf(s.request);
      if (leaf >= 0 && !kv_->complete(leaf)) continue;
      s.chain = kv_->chain(leaf);
      s.started = true;
    }
    extend(s);
    const auto row = static_cast<int64_t>(batch_.tokens.size());
    batch_.tokens.push_back(s.token);
    batch_.rows.push_back({static_cast<int64_t>(s.request), s.position, s.token});
    batch_.runs.push_back({row, 1, s.position, s.chain, architecture_.is_long_prompt(requests_[s.request].ids.size())});
    batch_.kept_rows.push_back(row);
    rows_.push_back(&s);
  }
}

// Makes sure that the last segment has room for one more token.
void Generation::extend(Sequence& s) {
  if (!s.own.empty() && s.own.back()->length() < own_capacity_) return;
  s.own.push_back(std::make_unique<KvSegment>(architecture_, s.position, own_capacity_));
  s.chain.push_back(s.own.back().get());
}

void Generation::sample(Mat<float> logits) {
  if (rows_.empty()) return;
  const auto n = static_cast<int64_t>(rows_.size());
  chosen_.resize(rows_.size());
  parallel_for(n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) chosen_[i] = rows_[i]->sampler.choose(logits.row_span(i));
  });
  for (int64_t i = 0; i < n; ++i) advance(*rows_[i], chosen_[i]);
  std::erase_if(active_, [](const auto& s) { return s->request == SIZE_MAX; });
}

void Generation::advance(Sequence& s, int32_t id) {
  const GenerateRequest& request = requests_[s.request];
  GenerateResult& result = results_[s.request];
  if (result.ids.empty()) check_touched(s);
  if (id < 0)
    throw Error(Errc::kRefused, name(s.request) + ": the logits are not finite after " +
                                    std::to_string(result.ids.size()) +
                                    " new tokens: lower the strength of its edits, or check the model's weights");
  ++tokens_;
  if (!request.ignore_eos && std::ranges::find(stop_ids_, id) != stop_ids_.end()) {
    const bool stopped = s.text.finish();
    const std::string rest = s.text.take_certain();
    if (on_token_ && !rest.empty()) on_token_(s.request, id, rest);
    finish(s, stopped ? "stop_string" : "stop");
    return;
  }
  result.ids.push_back(id);
  if (request.logprobs > 0) result.logprobs.push_back(s.sampler.logprobs());
  bool stopped = s.text.push(id);
  const auto n = static_cast<int64_t>(result.ids.size());
  const bool full = n == limit_of(request);
  if (full) stopped = s.text.finish() || stopped;
  if (on_token_) on_token_(s.request, id, s.text.take_certain());
  if (stopped || full) {
    finish(s, stopped ? "stop_string" : n == request.max_new_tokens ? "length" : "context");
    return;
  }
  s.token = id;
  ++s.position;
}

// The row of the prompt's last token is touched once by every edit that works, whatever its positions.
void Generation::check_touched(const Sequence& s) const {
  const auto& edits = requests_[s.request].edits;
  const int64_t touched = results_[s.request].edited_rows;
  if (touched >= static_cast<int64_t>(edits.size())) return;
  throw Error(Errc::kRefused, name(s.request) + ": " + std::to_string(touched) + " of its " +
                                  std::to_string(edits.size()) + " edits touched a row (the first is at " +
                                  edits[0].site.name() + "): choose sites that the model computes");
}

void Generation::finish(Sequence& s, const char* reason) {
  GenerateResult& result = results_[s.request];
  result.text = s.text.text();
  result.finish = reason;
  for (const int32_t node : trie_.path(trie_.leaf(s.request))) {
    result.edited_rows += node_touched_[node];
    if (--needed_by_[node] == 0) kv_->release(node);
  }
  ++done_;
  if (on_done_) on_done_(s.request, result);
  s.request = SIZE_MAX;  // sample() removes it
}

void Generation::report(const Control& control, bool last) {
  const auto now = std::chrono::steady_clock::now();
  if (!last && seconds(now - reported_) < 0.1) return;
  reported_ = now;
  char note[48];
  std::snprintf(note, sizeof note, "%.0f tok/s", static_cast<double>(tokens_) / std::max(1e-9, seconds(now - begin_)));
  control.report({"generate", static_cast<int64_t>(done_), static_cast<int64_t>(requests_.size()), note});
}

}  // namespace saif
