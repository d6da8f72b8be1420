// Model folders: one file, or an index with shards.
#include <algorithm>
#include <map>
#include <unordered_map>

#include "formats/safetensors.h"
#include "saif/json.h"

namespace saif {
namespace {

constexpr const char* kSingle = "/model.safetensors";
constexpr const char* kIndex = "/model.safetensors.index.json";

std::string quoted(std::string_view name) { return Json(name).dump(); }

bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

// Tensor name to shard, as the index says.
std::map<std::string, std::string> read_index(const std::string& path) {
  const Json json = read_json_file(path);
  const Json* map = json.is_object() ? json.find("weight_map") : nullptr;
  if (!map || !map->is_object() || map->size() == 0) {
    throw Error(Errc::kBadFormat, path + ": expected an object \"weight_map\" from tensor names to shard files");
  }
  std::map<std::string, std::string> out;
  for (const auto& [name, shard] : map->members()) {
    if (!shard.is_string() || !is_plain_file_name(shard.as_string())) {
      throw Error(Errc::kBadFormat, path + ": tensor " + quoted(name) + " is put into shard " + shard.dump() +
                                        ", expected the name of a file in the same folder");
    }
    out.emplace(name, shard.as_string());
  }
  return out;
}

}  // namespace

struct SafetensorsFolder::State {
  std::string folder;
  std::vector<SafetensorsFile> files;
  std::vector<std::string> names;
  std::unordered_map<std::string_view, size_t> file_of;  // keys point into the files' names

  void add(SafetensorsFile file) {
    for (const std::string& name : file.names()) {
      const auto [other, fresh] = file_of.emplace(name, files.size());
      if (!fresh) {
        throw Error(Errc::kBadFormat, file.path() + ": tensor " + quoted(name) + " is also in " +
                                          files[other->second].path() + ", expected it in one shard only");
      }
      names.push_back(name);
    }
    files.push_back(std::move(file));
  }
};

bool SafetensorsFolder::present(const std::string& folder) {
  return file_exists(folder + kSingle) || file_exists(folder + kIndex);
}

SafetensorsFolder SafetensorsFolder::open(const std::string& folder) {
  auto state = std::make_shared<State>();
  state->folder = folder;
  if (file_exists(folder + kSingle)) {
    state->add(SafetensorsFile::open(folder + kSingle));
  } else if (file_exists(folder + kIndex)) {
    const std::string index = folder + kIndex;
    const std::map<std::string, std::string> shard_of = read_index(index);
    std::map<std::string, size_t> opened;
    for (const auto& [name, shard] : shard_of) opened.emplace(shard, 0);
    for (auto& [shard, number] : opened) {
      const std::string path = folder + "/" + shard;
      if (!file_exists(path)) {
        throw Error(Errc::kNotFound, index + ": shard " + shard + " is missing, expected " + path);
      }
      number = state->files.size();
      state->add(SafetensorsFile::open(path));
    }
    for (const auto& [name, shard] : shard_of) {
      const auto found = state->file_of.find(name);
      if (found != state->file_of.end() && found->second == opened[shard]) continue;
      throw Error(Errc::kBadFormat,
                  index + ": tensor " + quoted(name) + " is not in shard " + shard +
                      (found == state->file_of.end() ? std::string(" nor in any other")
                                                     : " but in " + state->files[found->second].path()));
    }
  } else {
    throw Error(Errc::kNotFound,
                folder + ": found neither model.safetensors nor model.safetensors.index.json, expected one of them");
  }
  std::sort(state->names.begin(), state->names.end());
  SafetensorsFolder out;
  out.state_ = std::move(state);
  return out;
}

const std::vector<std::string>& SafetensorsFolder::names() const { return state_->names; }
const std::vector<SafetensorsFile>& SafetensorsFolder::files() const { return state_->files; }

const TensorView* SafetensorsFolder::find(std::string_view name) const {
  const auto found = state_->file_of.find(name);
  return found == state_->file_of.end() ? nullptr : state_->files[found->second].find(name);
}

const TensorView& SafetensorsFolder::at(std::string_view name) const {
  if (const TensorView* found = find(name)) return *found;
  throw Error(Errc::kNotFound, state_->folder + ": no tensor " + quoted(name) + " among its " +
                                   std::to_string(names().size()) + " tensors");
}

}  // namespace saif
