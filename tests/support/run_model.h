// Tests' plain use of Forward: one sequence at a time, without the engine.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "model/forward.h"
#include "model/loaded_model.h"

namespace saif::test {

// Keeps what it sees, [rows, width] in the order of (sequence, position).
class Recorder : public Observer {
 public:
  explicit Recorder(std::set<std::string> sites = {}) : sites_(std::move(sites)) {}  // none: all
  bool wants(const Site& site) const override { return sites_.empty() || sites_.contains(site.name()); }
  void observe(const Site& site, std::span<const RowInfo> rows, Mat<const float> values) override {
    ++calls[site.name()];
    for (int64_t r = 0; r < values.rows(); ++r) {
      const RowInfo& row = rows[static_cast<size_t>(r)];
      const std::span<const float> v = values.row_span(r);
      seen[site.name()][{row.sequence, row.position}] = {v.begin(), v.end()};
    }
  }
  // All rows of a site, one after another.
  std::vector<float> all(const std::string& site) const {
    std::vector<float> out;
    if (const auto it = seen.find(site); it != seen.end()) {
      for (const auto& [at, row] : it->second) out.insert(out.end(), row.begin(), row.end());
    }
    return out;
  }
  std::map<std::string, int> calls;
  std::map<std::string, std::map<std::pair<int64_t, int64_t>, std::vector<float>>> seen;

 private:
  std::set<std::string> sites_;
};

// Calls a function on each row of one site.
class RowEditor : public Editor {
 public:
  using Change = std::function<void(const RowInfo&, std::span<float>)>;
  RowEditor(Site site, Change change) : site_(site), change_(std::move(change)) {}
  bool wants(const Site& site) const override { return site == site_; }
  void edit(const Site& /*site*/, std::span<const RowInfo> rows, Mat<float> values) override {
    for (int64_t r = 0; r < values.rows(); ++r) change_(rows[static_cast<size_t>(r)], values.row_span(r));
  }

 private:
  Site site_;
  Change change_;
};

struct Watch {
  Observer* observer = nullptr;
  Editor* editor = nullptr;
};

// A sequence that grows, with a cache of its own.
class Sequence {
 public:
  Sequence(Forward& forward, const Architecture& arch, int64_t number = 0)
      : forward_(forward), arch_(arch), number_(number), cache_(arch, 0, arch.context) {}
  // Appends tokens; logits of all of them, or of the last alone.
  std::vector<float> append(const std::vector<int32_t>& tokens, Watch watch = {}, bool last_only = false) {
    ForwardBatch batch;
    batch.tokens = tokens;
    const int64_t position = cache_.end(), n = static_cast<int64_t>(tokens.size());
    for (int64_t i = 0; i < n; ++i) batch.rows.push_back({number_, position + i, tokens[static_cast<size_t>(i)]});
    batch.runs.push_back({0, n, position, {&cache_}});
    batch.last_layer = static_cast<int>(arch_.n_layers) - 1;
    batch.all_rows = !last_only;
    if (last_only) batch.kept_rows = {n - 1};
    batch.logits = true;
    batch.observer = watch.observer;
    batch.editor = watch.editor;
    const Mat<float> logits = forward_.run(batch);
    return {logits.data(), logits.data() + logits.rows() * logits.cols()};
  }
  std::vector<int32_t> greedy(const std::vector<int32_t>& prompt, int64_t n, Watch watch = {}) {
    std::vector<int32_t> out;
    std::vector<int32_t> next = prompt;
    while (static_cast<int64_t>(out.size()) < n) {
      const std::vector<float> logits = append(next, watch, true);
      next = {static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin())};
      out.push_back(next[0]);
    }
    return out;
  }

 private:
  Forward& forward_;
  const Architecture& arch_;
  int64_t number_;
  KvSegment cache_;
};

// Largest absolute difference over the largest absolute value of `golden`; infinite when the sizes differ.
inline double distance(std::span<const float> found, std::span<const float> golden) {
  if (found.size() != golden.size() || golden.empty()) return INFINITY;
  double difference = 0, largest = 0;
  for (size_t i = 0; i < golden.size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(found[i]) - static_cast<double>(golden[i])));
    if (std::isnan(found[i])) return INFINITY;
    largest = std::max(largest, std::abs(static_cast<double>(golden[i])));
  }
  return difference / largest;
}

}  // namespace saif::test
