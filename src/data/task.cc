#include "saif/task.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>

#include "base/file.h"
#include "base/hash.h"
#include "saif/options.h"

namespace saif {
namespace {

namespace fs = std::filesystem;

// The demo's order; tasks that are not listed follow alphabetically.
const char* const kOrder[] = {"french", "german",        "spanish", "portuguese", "python",
                              "json",   "numbered_list", "poem",    "fairy_tale", "one_sentence"};

template <typename Enum>
Enum parse_name(std::string_view name, const char* what, std::initializer_list<Enum> values) {
  std::vector<std::string> names;
  std::string message = std::string(what) + " \"" + std::string(name) + "\" is unknown; expected one of";
  for (const Enum value : values) {
    if (name == name_of(value)) return value;
    names.emplace_back(name_of(value));
    message += " " + names.back();
  }
  const std::string near = nearest_name(name, names);
  if (!near.empty()) message += "; did you mean \"" + near + "\"?";
  throw Error(Errc::kInvalidArgument, message);
}

const Json& require(const Json& json, const std::string& path, const char* key) {
  const Json* found = json.is_object() ? json.find(key) : nullptr;
  if (!found) throw Error(Errc::kBadFormat, path + ": key \"" + key + "\" is missing");
  return *found;
}

std::string require_text(const Json& json, const std::string& path, const char* key) {
  const Json& value = require(json, path, key);
  if (!value.is_string() || value.as_string().empty()) {
    throw Error(Errc::kBadFormat, path + ": key \"" + key + "\" is " + value.dump() + ", expected a non-empty string");
  }
  return value.as_string();
}

fs::path executable_directory() {
  std::error_code ec;
  const fs::path self = fs::read_symlink("/proc/self/exe", ec);
  return ec ? fs::path() : self.parent_path();
}

Task parse_task(const Json& json, const std::string& path) {
  if (!json.is_object()) throw Error(Errc::kBadFormat, path + ": found " + json.dump() + ", a task is a JSON object");
  internal::refuse_unknown_keys(json, {"name", "title", "instructions", "unrelated", "verifier"}, path);
  Task task;
  task.path = path;
  task.name = require_text(json, path, "name");
  task.title = require_text(json, path, "title");
  for (const auto& [language, wordings] : require(json, path, "instructions").members()) {
    for (const Json& wording : wordings.items()) task.variants.push_back({language, wording.as_string()});
  }
  if (task.variants.empty()) throw Error(Errc::kBadFormat, path + ": \"instructions\" holds no wording");
  for (const Json& text : require(json, path, "unrelated").items()) task.unrelated.push_back(text.as_string());
  const Json& verifier = require(json, path, "verifier");
  task.verifier = require_text(verifier, path + ": verifier", "name");
  if (const Json* args = verifier.find("args")) task.verifier_args = *args;
  return task;
}

[[noreturn]] void unknown_task(const std::string& name, const std::vector<std::string>& names) {
  std::string message = "task \"" + name + "\" is neither a file nor one of";
  for (const std::string& n : names) message += " " + n;
  const std::string near = nearest_name(name, names);
  throw Error(Errc::kNotFound, message + (near.empty() ? "" : "; did you mean \"" + near + "\"?"));
}

}  // namespace

const char* name_of(Placement placement) {
  switch (placement) {
    case Placement::kPost:
      return "post";
    case Placement::kPre:
      return "pre";
    case Placement::kNone:
      return "none";
  }
  return "none";
}

Placement parse_placement(std::string_view name) {
  return parse_name(name, "placement", {Placement::kPost, Placement::kPre, Placement::kNone});
}

const char* name_of(Split split) {
  switch (split) {
    case Split::kDiscovery:
      return "discovery";
    case Split::kTuning:
      return "tuning";
    case Split::kTest:
      return "test";
  }
  return "test";
}

Split parse_split(std::string_view name) {
  return parse_name(name, "split", {Split::kDiscovery, Split::kTuning, Split::kTest});
}

std::string data_directory() {
  if (const char* own = std::getenv("SAIF_DATA"); own && *own) return own;
  const fs::path beside = executable_directory();
  for (const fs::path& candidate :
       {beside / "data", beside / "../../data", beside / "../share/saif/data", fs::path(SAIF_SOURCE_DATA_DIR)}) {
    if (directory_exists((candidate / "tasks").string())) return fs::weakly_canonical(candidate).string();
  }
  throw Error(Errc::kNotFound,
              "the data folder (tasks, contents) was not found beside the program; set SAIF_DATA to it");
}

std::string bundled_saes_directory() {
  return (fs::path(data_directory()).parent_path() / "models" / "smollm2-135m-instruct").string();
}

std::vector<std::string> task_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(fs::path(data_directory()) / "tasks")) {
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  }
  const auto rank = [](const std::string& name) { return std::find(std::begin(kOrder), std::end(kOrder), name); };
  std::sort(names.begin(), names.end(),
            [&](const std::string& a, const std::string& b) { return rank(a) != rank(b) ? rank(a) < rank(b) : a < b; });
  return names;
}

Task load_task(const std::string& path_or_name) {
  std::string path = path_or_name;
  if (!file_exists(path) && path.find('/') == std::string::npos && !path.ends_with(".json")) {
    const std::vector<std::string> names = task_names();
    if (std::find(names.begin(), names.end(), path) == names.end()) unknown_task(path, names);
    path = data_directory() + "/tasks/" + path + ".json";
  }
  const std::string bytes = read_file(path);
  Result<Json> json = parse_json(bytes);
  if (!json) throw Error(json.error().code(), path + ": " + json.error().what());
  Task task = parse_task(json.value(), path);
  task.sha256 = sha256_hex(std::string_view(bytes));
  return task;
}

void for_each_json_line(const std::string& path, const std::function<void(const Json&, const std::string&)>& fn) {
  const std::string bytes = read_file(path);
  size_t begin = 0;
  for (int number = 1; begin < bytes.size(); ++number) {
    const size_t end = std::min(bytes.find('\n', begin), bytes.size());
    const std::string_view line(bytes.data() + begin, end - begin);
    begin = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = path + ":" + std::to_string(number);
    const Result<Json> json = parse_json(line);
    if (!json) throw Error(json.error().code(), where + ": " + json.error().what());
    fn(json.value(), where);
  }
}

std::vector<Content> load_contents(const std::string& path_or_default) {
  const std::string path = path_or_default.empty() ? data_directory() + "/contents.jsonl" : path_or_default;
  std::vector<Content> contents;
  std::set<std::string> ids;
  std::map<std::string, Split> subjects;
  for_each_json_line(path, [&](const Json& json, const std::string& where) {
    Content content{require_text(json, where, "id"), require_text(json, where, "subject"),
                    require_text(json, where, "text"), parse_split(require_text(json, where, "split"))};
    if (!ids.insert(content.id).second) {
      throw Error(Errc::kBadFormat, where + ": id \"" + content.id + "\" occurs twice");
    }
    if (subjects.emplace(content.subject, content.split).first->second != content.split) {
      throw Error(Errc::kBadFormat, where + ": subject \"" + content.subject + "\" is in two splits");
    }
    contents.push_back(std::move(content));
  });
  if (contents.empty()) throw Error(Errc::kBadFormat, path + ": holds no content");
  return contents;
}

std::vector<Content> of_split(std::span<const Content> contents, Split split) {
  std::vector<Content> out;
  std::copy_if(contents.begin(), contents.end(), std::back_inserter(out),
               [&](const Content& c) { return c.split == split; });
  return out;
}

std::string place(const std::string& content, const std::string& instruction, Placement placement) {
  if (placement == Placement::kNone || instruction.empty()) return content;
  if (content.empty()) return instruction;
  return placement == Placement::kPost ? content + "\n" + instruction : instruction + "\n" + content;
}

std::vector<int32_t> prompt_ids(const Tokenizer& tokenizer, const std::string& message) {
  if (!tokenizer.has_chat_template()) return tokenizer.encode(message, {});
  const Message user{"user", message};
  return encode_chat(tokenizer, {&user, 1}, true);
}

}  // namespace saif
