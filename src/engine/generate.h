// Engine::generate: prefixes of the prompt trie are computed once, then up to max_batch sequences advance one token per
// step; a finished one makes room for the next request at once. Rows of prefixes and of sequences share the passes.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/edit.h"
#include "engine/impl.h"
#include "engine/sampler.h"
#include "engine/stop_text.h"
#include "engine/trie_kv.h"

namespace saif {

class Generation {
 public:
  Generation(EngineParts& engine, std::span<const GenerateRequest> requests, const Engine::OnToken& on_token,
             const Engine::OnDone& on_done);
  std::vector<GenerateResult> run(const Control& control);

 private:
  // A request that is being computed. Its row of a step is its newest token, first the prompt's last one.
  struct Sequence {
    Sequence(size_t number, const GenerateRequest& request, int64_t stream, std::shared_ptr<const Tokenizer> tokenizer);
    size_t request;
    int32_t token;                  // of the next row
    int64_t position;               // of the next row
    bool started = false;           // its chain is complete and was run at least once
    std::vector<KvSegment*> chain;  // prefix nodes, then own segments
    std::vector<std::unique_ptr<KvSegment>> own;
    Sampler sampler;
    StopText text;
  };

  void validate() const;
  int64_t limit_of(const GenerateRequest& request) const;  // new tokens that it can have
  BatchEditor::Row resolve(const RowInfo& row);
  void admit();
  void plan_prefixes();
  void plan_sequences();
  void extend(Sequence& sequence);
  void sample(Mat<float> logits);
  void advance(Sequence& sequence, int32_t id);
  void finish(Sequence& sequence, const char* reason);
  void check_touched(const Sequence& sequence) const;
  void report(const Control& control, bool last);
  std::string name(size_t request) const { return "request " + std::to_string(request); }

  EngineParts& engine_;
  const Architecture& architecture_;
  std::span<const GenerateRequest> requests_;
  const Engine::OnToken& on_token_;
  const Engine::OnDone& on_done_;

  Trie trie_;                   // of all prompts without their last tokens
  std::unique_ptr<TrieKv> kv_;  // made once the trie is whole
  std::vector<size_t> order_;   // requests as they are admitted: those of one prefix together
  size_t admitted_ = 0, done_ = 0;
  std::vector<int32_t> needed_by_;     // per node: requests that still need it
  std::vector<bool> queued_;           // per node
  std::deque<int32_t> queue_;          // nodes to compute, ancestors first
  std::vector<int64_t> node_touched_;  // per node: rows that edits touched, counted per edit
  std::vector<std::unique_ptr<Sequence>> active_;
  std::vector<Sequence*> rows_;  // of the kept rows of the step
  std::vector<int32_t> chosen_;
  int64_t own_capacity_ = 0;  // of own segments: equal, so that their memory is used again
  std::vector<int32_t> stop_ids_;
  BatchEditor editor_;
  ForwardBatch batch_;
  std::vector<GenerateResult> results_;
  int64_t tokens_ = 0;
  std::chrono::steady_clock::time_point begin_, reported_;
};

}  // namespace saif
