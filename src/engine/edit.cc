#include "engine/edit.h"

#include <algorithm>
#include <utility>

namespace saif {
namespace {

bool applies(EditPositions positions, int64_t step) {
  switch (positions) {
    case EditPositions::kAll:
      return true;
    case EditPositions::kGenerated:
      return step >= 0;
    case EditPositions::kLast:
      return step == 0;
  }
  return false;
}

bool has_layer(SiteKind kind) {
  return kind != SiteKind::kEmbed && kind != SiteKind::kPosEmbed && kind != SiteKind::kFinalNorm &&
         kind != SiteKind::kLogits;
}

}  // namespace

void check_edits(const Architecture& architecture, std::span<const AppliedEdit> edits, const std::string& who) {
  for (size_t i = 0; i < edits.size(); ++i) {
    const std::string name = who + ": edit " + std::to_string(i);
    if (!edits[i].edit) throw Error(Errc::kInvalidArgument, name + " has no RowEdit: give it one or leave it out");
    const Site& site = edits[i].site;
    if (has_layer(site.kind) && (site.layer < 0 || site.layer >= architecture.n_layers))
      throw Error(Errc::kNotFound, name + " is at " + site.name() + ", but the model's layers are 0 to " +
                                       std::to_string(architecture.n_layers - 1) + ": choose one of them");
    if (!architecture.computes(site))
      throw Error(Errc::kNotFound, name + " is at " + site.name() + ", which family " + architecture.family +
                                       " does not have: choose another site");
  }
}

uint64_t EditKeys::key(std::span<const AppliedEdit> edits, size_t prompt_length) {
  std::vector<uint64_t> id;
  for (const AppliedEdit& e : edits) {
    if (e.positions != EditPositions::kAll) continue;
    id.push_back(static_cast<uint64_t>(e.site.kind));
    id.push_back(static_cast<uint64_t>(static_cast<int64_t>(e.site.layer)));
    id.push_back(reinterpret_cast<uintptr_t>(e.edit.get()));
  }
  if (id.empty()) return 0;
  id.push_back(prompt_length);
  return keys_.try_emplace(std::move(id), keys_.size() + 1).first->second;
}

void BatchEditor::add_sites(std::span<const AppliedEdit> edits) {
  for (const AppliedEdit& e : edits)
    if (std::find(sites_.begin(), sites_.end(), e.site) == sites_.end()) sites_.push_back(e.site);
}

bool BatchEditor::wants(const Site& site) const {
  return std::find(sites_.begin(), sites_.end(), site) != sites_.end();
}

void BatchEditor::edit(const Site& site, std::span<const RowInfo> rows, Mat<float> values) {
  cursor_.assign(rows.size(), 0);
  while (apply_next(site, rows, values)) {
  }
}

bool BatchEditor::apply_next(const Site& site, std::span<const RowInfo> rows, Mat<float> values) {
  steps_.resize(rows.size());
  std::vector<std::pair<const RowEdit*, std::vector<int64_t>>> groups;  // in order of their first rows
  std::map<const RowEdit*, size_t> index;
  for (size_t r = 0; r < rows.size(); ++r) {
    const Row row = resolve_(rows[r]);
    steps_[r] = rows[r].position - row.last;
    size_t& at = cursor_[r];
    while (at < row.edits.size() && !(row.edits[at].site == site && applies(row.edits[at].positions, steps_[r]))) ++at;
    if (at == row.edits.size()) continue;
    const RowEdit* edit = row.edits[at++].edit.get();
    const auto [found, is_new] = index.try_emplace(edit, groups.size());
    if (is_new) groups.emplace_back(edit, std::vector<int64_t>{});
    groups[found->second].second.push_back(static_cast<int64_t>(r));
    if (row.touched) ++*row.touched;
  }
  for (const auto& [edit, group] : groups) apply_to(*edit, group, values);
  return !groups.empty();
}

void BatchEditor::apply_to(const RowEdit& edit, std::span<const int64_t> rows, Mat<float> values) {
  const auto n = static_cast<int64_t>(rows.size());
  group_steps_.clear();
  for (const int64_t r : rows) group_steps_.push_back(steps_[r]);
  if (rows.back() - rows.front() == n - 1) {  // neighbours: in place
    edit.apply(values.rows_range(rows.front(), rows.back() + 1), group_steps_);
    return;
  }
  gathered_.resize(static_cast<size_t>(n * values.cols()));
  const Mat<float> copy(gathered_.data(), n, values.cols());
  for (int64_t i = 0; i < n; ++i) std::copy_n(values.row(rows[i]), values.cols(), copy.row(i));
  edit.apply(copy, group_steps_);
  for (int64_t i = 0; i < n; ++i) std::copy_n(copy.row(i), values.cols(), values.row(rows[i]));
}

}  // namespace saif
