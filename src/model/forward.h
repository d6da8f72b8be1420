// The one forward pass. A batch is rows in topological order: whatever a row attends to is earlier in the batch or
// already in its KV chain.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "saif/model.h"

namespace saif {

// Keys and values of a run of tokens, all layers: a node of the prompt trie or a sequence's own tail.
// Owner of its memory, which comes from a process-wide pool. Layers are allocated when first written.
class KvSegment {
 public:
  KvSegment(const Architecture& arch, int64_t begin, int64_t capacity);
  ~KvSegment();
  KvSegment(KvSegment&&) = default;
  KvSegment& operator=(KvSegment&&) = default;
  int64_t begin() const { return begin_; }
  int64_t length() const { return length_; }
  int64_t end() const { return begin_ + length_; }
  int64_t capacity() const { return capacity_; }
  void grow_to(int64_t length);                            // more tokens are about to be stored; length <= capacity
  KvView view(int layer);                                  // allocates the layer's memory on first use
  KvView view_to_store(int layer, int64_t at, int64_t n);  // and tokens [at, at + n) will be written
  void release_layer(int layer);  // the layer is no longer needed (capture runs that never decode)
  bool has_layer(int layer) const;

 private:
  int64_t begin_, capacity_, length_ = 0;
  int64_t n_kv_heads_, d_head_;
  bool in_bf16_;
  std::vector<Tensor> keys_, values_;  // per layer; pairs of bfloat16 lie in float32 tensors, too
};

// Consecutive rows of one sequence or trie node. chain.back() is the segment that receives the rows' own keys; the
// others are its ancestors in order, already filled or filled by earlier runs of this batch. Before the call
// chain.back()->length() counts the tokens stored so far; forward() grows it.
struct ForwardRun {
  int64_t row = 0, n_rows = 0, position = 0;
  std::vector<KvSegment*> chain;
  // The prompt reaches beyond Architecture::rope_context(); a run that does so itself needs no flag.
  bool long_prompt = false;
};

struct ForwardBatch {
  std::vector<int32_t> tokens;   // [rows]
  std::vector<RowInfo> rows;     // [rows]
  std::vector<ForwardRun> runs;  // cover all rows in order
  // Block after which the pass may stop; architecture.n_layers - 1 for a whole pass.
  int last_layer = 0;
  // Rows whose values after attention of the last block (and whose logits) somebody needs, ascending; the others stop
  // after storing their keys there. Empty with all_rows: every row.
  std::vector<int64_t> kept_rows;
  bool all_rows = true;
  bool logits = false;             // compute the final norm and logits of the kept rows
  bool release_kv_layers = false;  // free each layer's keys and values once the next layer is done
  Observer* observer = nullptr;
  Editor* editor = nullptr;
};

// Owns scratch that is reused from call to call. One per thread of callers.
class Forward {
 public:
  explicit Forward(std::shared_ptr<const Model> model);
  ~Forward();
  // Returns logits [kept rows, vocab] (empty unless batch.logits). The view is valid until the next call.
  // Observers and editors are called once per site, in the order of computation, with the rows that exist there; the
  // editor first, so that an observer sees what goes on. wants() is asked once per site. Edits at a site change all
  // that is computed after it (an edit of hook_k changes the stored keys). In the last block hook_q holds the kept rows
  // only, unless somebody wants it; kPattern's rows are padded with zeros, head by head, to the most keys in the call.
  // An ancestor in a chain may reach beyond the begin of its successor (a fork): the surplus is not attended to.
  Mat<float> run(ForwardBatch& batch);
  Backend& backend();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace saif
