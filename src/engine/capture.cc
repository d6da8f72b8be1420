#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "engine/impl.h"

namespace saif {
namespace {

// Writes each row to its place in the first prompt that owns it.
class Collector : public Observer {
 public:
  Collector(Engine::Capture& capture, std::span<const Site> sites, bool last_only)
      : capture_(capture), sites_(sites), last_only_(last_only) {}
  bool wants(const Site& site) const override { return std::ranges::find(sites_, site) != sites_.end(); }
  void observe(const Site& site, std::span<const RowInfo> rows, Mat<const float> values) override {
    for (size_t s = 0; s < sites_.size(); ++s) {
      if (!(sites_[s] == site)) continue;
      const Mat<float> to = capture_.sites[s].second.f32();
      for (size_t r = 0; r < rows.size(); ++r) {
        const int64_t offset = capture_.row_offsets[static_cast<size_t>(rows[r].sequence)];
        const int64_t row = last_only_ ? offset : offset + rows[r].position;
        std::copy_n(values.row(static_cast<int64_t>(r)), values.cols(), to.row(row));
      }
    }
  }

 private:
  Engine::Capture& capture_;
  std::span<const Site> sites_;
  bool last_only_;
};

// Rows that a prompt shares with an earlier one were written there only.
void copy_shared(Engine::Capture& capture, const Trie& trie, bool last_only) {
  const auto copy = [&](int64_t from, int64_t to, int64_t n) {
    for (auto& [name, tensor] : capture.sites) {
      const Mat<float> m = tensor.f32();
      std::copy_n(m.row(from), n * m.cols(), m.row(to));
    }
  };
  for (size_t p = 0; p + 1 < capture.row_offsets.size(); ++p) {
    const int32_t leaf = trie.leaf(p);
    if (last_only) {
      const int32_t first = trie.nodes()[leaf].first_end;
      if (first != static_cast<int32_t>(p)) copy(capture.row_offsets[first], capture.row_offsets[p], 1);
      continue;
    }
    for (const int32_t id : trie.path(leaf)) {
      const TrieNode& node = trie.nodes()[id];
      if (node.owner != static_cast<int32_t>(p))
        copy(capture.row_offsets[node.owner] + node.begin, capture.row_offsets[p] + node.begin, node.length());
    }
  }
}

}  // namespace

Engine::Capture Engine::capture(std::span<const std::vector<int32_t>> prompts, std::span<const Site> sites,
                                bool last_only, const Control& control) {
  const EngineUse use(impl_->in_use);
  const Architecture& architecture = model().architecture();
  Capture capture;
  capture.row_offsets.push_back(0);
  for (const auto& prompt : prompts)
    capture.row_offsets.push_back(capture.row_offsets.back() + (last_only ? 1 : static_cast<int64_t>(prompt.size())));
  for (const Site& site : sites) {
    const std::string name = site.name();
    Site::parse(name, static_cast<int>(architecture.n_layers));  // refuses a layer that does not exist
    if (!architecture.computes(site))
      throw Error(Errc::kNotFound, "capture: family " + architecture.family + " has no " + name);
    if (site.kind == SiteKind::kPattern)
      throw Error(Errc::kUnsupported, "capture: rows of " + name + " differ in width: use observe()");
    capture.sites.emplace_back(name, Tensor(DType::kF32, {capture.row_offsets.back(), architecture.width(site)}));
  }
  Collector collector(capture, sites, last_only);
  ObserveOptions options;
  options.last_only = last_only;
  const Observed observed = observe_trie(impl_->forward, architecture, prompts, collector, options, control);
  copy_shared(capture, observed.trie, last_only);
  capture.tokens = observed.tokens;
  return capture;
}

const Tensor& Engine::Capture::at(std::string_view name) const {
  for (const auto& [known, tensor] : sites)
    if (known == name) return tensor;
  throw Error(Errc::kNotFound, "the capture has no site " + std::string(name) + ": name it when capturing");
}

}  // namespace saif
