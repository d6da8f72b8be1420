// Edits of a batch whose rows belong to different requests: rows that carry the same edit go to it together.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "model/forward.h"
#include "saif/engine.h"

namespace saif {

// Throws kInvalidArgument for an edit without a RowEdit, kNotFound for a site that the model does not have. `who`
// begins the message: "request 3".
void check_edits(const Architecture& architecture, std::span<const AppliedEdit> edits, const std::string& who);

// Numbers the ways in which edits change a prompt's prefix, for Trie::insert. 0: they do not.
// Sequences share prefix rows only if the same kAll edits see the same steps there, which takes equal lengths.
class EditKeys {
 public:
  uint64_t key(std::span<const AppliedEdit> edits, size_t prompt_length);

 private:
  std::map<std::vector<uint64_t>, uint64_t> keys_;
};

class BatchEditor : public Editor {
 public:
  // What a row is edited with: positions beyond `last` (of the prompt's last token) are generated tokens.
  struct Row {
    std::span<const AppliedEdit> edits;
    int64_t last = 0;
    int64_t* touched = nullptr;  // grows by one per edit and row
  };
  using Resolve = std::function<Row(const RowInfo&)>;
  explicit BatchEditor(Resolve resolve) : resolve_(std::move(resolve)) {}

  void add_sites(std::span<const AppliedEdit> edits);
  bool any() const { return !sites_.empty(); }
  bool wants(const Site& site) const override;
  void edit(const Site& site, std::span<const RowInfo> rows, Mat<float> values) override;

 private:
  // Applies to each row the first edit of the site that stands at or behind its cursor; false when none was left.
  bool apply_next(const Site& site, std::span<const RowInfo> rows, Mat<float> values);
  void apply_to(const RowEdit& edit, std::span<const int64_t> rows, Mat<float> values);

  Resolve resolve_;
  std::vector<Site> sites_;
  std::vector<size_t> cursor_;  // per row: next of its edits to look at
  std::vector<int64_t> steps_, group_steps_;
  std::vector<float> gathered_;
};

}  // namespace saif
