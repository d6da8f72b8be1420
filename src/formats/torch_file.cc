#include "formats/torch_file.h"

#include <algorithm>
#include <limits>
#include <map>

#include "base/file.h"
#include "formats/pickle.h"
#include "formats/strided.h"
#include "formats/zip.h"

namespace saif {

struct TorchFile::State {
  std::string path;
  std::shared_ptr<const MappedFile> file;
  std::map<std::string, ZipEntry> storages;  // by key
  Pickle pickle;
};

namespace {

using Kind = Pickle::Kind;

constexpr std::string_view kPickleName = "/data.pkl";
constexpr int kPlainDepth = 4;
constexpr int64_t kPlainNodes = 10000;

std::string text_of(const std::vector<int64_t>& values) {
  TensorView view;
  view.shape = values;
  return view.shape_text();
}

// The number of elements that a tensor's storage must have, or nullopt when shape and strides make no sense. A tensor
// has no more elements than its storage: an expanded one could be of any size.
std::optional<int64_t> extent_of(const Pickle::Node& tensor) {
  const std::optional<int64_t> elements = elements_of(tensor.shape);
  if (!elements || tensor.shape.size() != tensor.strides.size() || tensor.integer < 0) return std::nullopt;
  if (*elements == 0) return tensor.integer;
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max() / 16;
  int64_t last = tensor.integer;
  if (last > kMax) return std::nullopt;
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    const int64_t steps = tensor.shape[i] - 1, stride = tensor.strides[i];
    if (stride < 0 || (steps > 0 && stride > (kMax - last) / steps)) return std::nullopt;
    last += steps * stride;
  }
  return std::max(last + 1, *elements);
}

Json plain_value(const Pickle& pickle, const Pickle::Node& node, int depth, int64_t& budget) {
  // A string that many places share would be copied to each of them.
  budget -= 1 + static_cast<int64_t>(node.text.size() / 64);
  if (depth == 0 || budget < 0) return {};
  switch (node.kind) {
    case Kind::kBool:
      return node.integer != 0;
    case Kind::kInt:
      return node.integer;
    case Kind::kFloat:
      return node.number;
    case Kind::kString:
      return node.text;
    case Kind::kTuple:
    case Kind::kList: {
      Json out = Json::array();
      for (const uint32_t child : node.children) {
        if (budget <= 0) break;
        out.push_back(plain_value(pickle, pickle.at(child), depth - 1, budget));
      }
      return out;
    }
    case Kind::kDict: {
      Json out = Json::object();
      for (size_t i = 0; i + 1 < node.children.size() && budget > 0; i += 2) {
        const Pickle::Node &key = pickle.at(node.children[i]), &value = pickle.at(node.children[i + 1]);
        if (key.kind != Kind::kString || value.kind == Kind::kTensor) continue;
        out[key.text] = plain_value(pickle, value, depth - 1, budget);
      }
      return out;
    }
    default:
      return {};
  }
}

}  // namespace

TorchFile TorchFile::open(const std::string& path, bool verify) {
  auto state = std::make_shared<State>();
  state->path = path;
  state->file = MappedFile::open(path);
  const std::span<const std::byte> bytes = state->file->bytes();
  Result<std::vector<ZipEntry>> entries = parse_zip(bytes);
  if (!entries) throw Error(entries.error().code(), path + ": " + entries.error().what());
  const auto main = std::find_if(entries.value().begin(), entries.value().end(), [](const ZipEntry& entry) {
    return entry.name.ends_with(kPickleName) && entry.name.find('/') == entry.name.size() - kPickleName.size();
  });
  if (main == entries.value().end()) {
    throw Error(Errc::kBadFormat,
                path + ": there is no data.pkl in the archive; expected a file that torch.save wrote");
  }
  for (const ZipEntry& entry : entries.value()) {
    if (entry.deflated) {
      throw Error(Errc::kUnsupported, path + ": member " + Json(entry.name.substr(0, 160)).dump() +
                                          " is compressed; expected stored members, as torch.save writes them");
    }
    if (entry.crc == 0 || (!verify && &entry != &*main)) continue;
    if (const auto error = check_crc(entry, bytes.subspan(entry.begin, entry.end - entry.begin))) {
      throw Error(error->code(), path + ": " + error->what());
    }
  }
  const std::string root = main->name.substr(0, main->name.size() - kPickleName.size()) + "/";
  for (const ZipEntry& entry : entries.value()) {
    if (entry.name.starts_with(root + "data/")) state->storages.emplace(entry.name.substr(root.size() + 5), entry);
    if (entry.name != root + "byteorder") continue;
    const std::string order(reinterpret_cast<const char*>(bytes.data()) + entry.begin, entry.end - entry.begin);
    if (order != "little") throw Error(Errc::kUnsupported, path + ": its byte order is not little-endian");
  }
  Result<Pickle> pickle = parse_pickle(bytes.subspan(main->begin, main->end - main->begin));
  if (!pickle) throw Error(pickle.error().code(), path + ": " + pickle.error().what());
  state->pickle = std::move(pickle).value();
  if (state->pickle.at(state->pickle.root).kind != Kind::kDict) {
    throw Error(Errc::kUnsupported, path + ": it holds no dictionary of tensors");
  }
  TorchFile out;
  out.node_ = state->pickle.root;
  out.state_ = std::move(state);
  return out;
}

const std::string& TorchFile::path() const { return state_->path; }

bool TorchFile::has_dictionary(const std::string& key) const {
  const Pickle& pickle = state_->pickle;
  const Pickle::Node* found = pickle.find(pickle.at(node_), key);
  return found != nullptr && found->kind == Kind::kDict;
}

TorchFile TorchFile::dictionary(const std::string& key) const {
  if (!has_dictionary(key)) throw Error(Errc::kBadFormat, path() + ": there is no dictionary \"" + key + "\" in it");
  const Pickle& pickle = state_->pickle;
  TorchFile out = *this;
  out.node_ = static_cast<uint32_t>(pickle.find(pickle.at(node_), key) - pickle.nodes.data());
  return out;
}

TensorArchive TorchFile::tensors() const {
  struct Owner {
    std::shared_ptr<const State> state;
    std::vector<Tensor> copies;
  };
  const auto owner = std::make_shared<Owner>();
  owner->state = state_;
  const Pickle& pickle = state_->pickle;
  const std::vector<uint32_t>& items = pickle.at(node_).children;
  size_t copied = 0;
  TensorArchive out;
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    const Pickle::Node &name = pickle.at(items[i]), &tensor = pickle.at(items[i + 1]);
    if (name.kind != Kind::kString || tensor.kind != Kind::kTensor) continue;
    const std::string what = path() + ": tensor " + Json(name.text.substr(0, 160)).dump();
    const Pickle::Node& storage = pickle.at(tensor.children[0]);
    const auto at = state_->storages.find(storage.text);
    if (at == state_->storages.end()) throw Error(Errc::kBadFormat, what + ": its storage is not in the archive");
    const size_t size = size_of(tensor.dtype), room = (at->second.end - at->second.begin) / size;
    const std::optional<int64_t> extent = extent_of(tensor);
    if (!extent || static_cast<size_t>(*extent) > room) {
      throw Error(Errc::kBadFormat, what + ": shape " + text_of(tensor.shape) + " with strides " +
                                        text_of(tensor.strides) + " does not fit the " + std::to_string(room) +
                                        " elements of its storage");
    }
    const std::byte* data =
        state_->file->bytes().data() + at->second.begin + static_cast<size_t>(tensor.integer) * size;
    TensorView view{tensor.dtype, tensor.shape, data};
    const bool in_place =
        tensor.strides == row_major_strides(tensor.shape) && reinterpret_cast<uintptr_t>(data) % size == 0;
    if (!in_place) {
      copied += view.bytes();
      if (copied > state_->file->bytes().size()) {
        throw Error(Errc::kBadFormat, what + ": its tensors share storages to more than the file's size");
      }
      owner->copies.push_back(copy_strided(tensor.dtype, data, tensor.shape, tensor.strides));
      view.data = owner->copies.back().data();
    }
    out.tensors.emplace_back(name.text, std::move(view));
  }
  out.owner = owner;
  return out;
}

std::vector<std::string> TorchFile::others() const {
  const Pickle& pickle = state_->pickle;
  const std::vector<uint32_t>& items = pickle.at(node_).children;
  std::vector<std::string> out;
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    const Pickle::Node& name = pickle.at(items[i]);
    if (name.kind != Kind::kString) {
      throw Error(Errc::kUnsupported, path() + ": a key of its dictionary is no string, so its effect is not known");
    }
    if (pickle.at(items[i + 1]).kind != Kind::kTensor) out.push_back(name.text);
  }
  return out;
}

Json TorchFile::plain() const {
  int64_t budget = kPlainNodes;
  return plain_value(state_->pickle, state_->pickle.at(node_), kPlainDepth, budget);
}

}  // namespace saif
