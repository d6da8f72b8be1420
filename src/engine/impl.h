// The parts behind Engine's interface: one file per job (generate.cc, observe.cc, score.cc).
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/trie.h"
#include "model/forward.h"
#include "saif/engine.h"

namespace saif {

struct EngineParts {
  EngineParts(std::shared_ptr<const Model> m, std::shared_ptr<const Tokenizer> t, EngineOptions o)
      : model(std::move(m)), tokenizer(std::move(t)), options(o), forward(model) {}
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Tokenizer> tokenizer;  // may be nullptr: then ids only
  EngineOptions options;
  Forward forward;
};

struct Engine::Impl : EngineParts {
  using EngineParts::EngineParts;
  std::atomic_flag in_use;
};

// Held by each call that runs the model. Throws kRefused when another call of the same engine has not returned.
class EngineUse {
 public:
  explicit EngineUse(std::atomic_flag& in_use) : in_use_(in_use) {
    if (in_use_.test_and_set(std::memory_order_acquire))
      throw Error(Errc::kRefused,
                  "this engine is in use by a call that has not returned: make one Engine per thread (they share the "
                  "Model), and none of its calls from its own callbacks");
  }
  ~EngineUse() { in_use_.clear(std::memory_order_release); }
  EngineUse(const EngineUse&) = delete;
  EngineUse& operator=(const EngineUse&) = delete;

 private:
  std::atomic_flag& in_use_;
};

// Rows of logits that exist at a time when every row of a pass needs them: 256 x 49,152 floats are 50 MB.
constexpr int64_t kLogitRows = 256;

// Throws kInvalidArgument when ids are empty, longer than `limit` or outside the vocabulary.
void check_ids(const Architecture& architecture, std::span<const int32_t> ids, int64_t limit, const std::string& who);

// The trie of observe(), and what was counted.
struct Observed {
  Trie trie;
  TokenCounts tokens;
};
Observed observe_trie(Forward& forward, const Architecture& architecture, std::span<const std::vector<int32_t>> prompts,
                      Observer& observer, const Engine::ObserveOptions& options, const Control& control);

}  // namespace saif
