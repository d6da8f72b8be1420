// What a study is about: an instruction in many wordings, contents to act on, and where the instruction stands. Plain
// values and functions of their arguments: any number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "saif/json.h"
#include "saif/text.h"

namespace saif {

enum class Placement { kPost, kPre, kNone };  // content then instruction | instruction then content | content only
const char* name_of(Placement placement);
Placement parse_placement(std::string_view name);  // offers the nearest known name

enum class Split { kDiscovery, kTuning, kTest };
const char* name_of(Split split);
Split parse_split(std::string_view name);

struct Variant {         // one wording of the instruction
  std::string language;  // "en"
  std::string text;
};

struct Content {
  std::string id, subject, text;
  Split split = Split::kDiscovery;
};

struct Task {
  std::string name, title;
  std::vector<Variant> variants;
  std::vector<std::string> unrelated;  // other instructions of similar length
  std::string verifier;
  Json verifier_args = Json::object();
  std::string path, sha256;  // of the task file
};

// A .json file of data/tasks, or a name looked up there. Throws Error naming the file and the key.
Task load_task(const std::string& path_or_name);
std::vector<std::string> task_names();                             // of the data directory, in the demo's order
std::vector<Content> load_contents(const std::string& path = "");  // JSONL; "": data/contents.jsonl
std::vector<Content> of_split(std::span<const Content> contents, Split split);

// JSON lines: calls fn(value, "path:number") for each line that is not blank; throws Error naming file and line.
void for_each_json_line(const std::string& path, const std::function<void(const Json&, const std::string&)>& fn);

// Where data/ and models/ are: $SAIF_DATA, else beside the binary, else the source tree it was built from.
std::string data_directory();
std::string bundled_saes_directory();  // models/smollm2-135m-instruct

// The user's message: content + "\n" + instruction, instruction + "\n" + content, or content.
std::string place(const std::string& content, const std::string& instruction, Placement placement);
// Its ids: through the chat template when the tokenizer has one (with the generation prompt), plain otherwise.
std::vector<int32_t> prompt_ids(const Tokenizer& tokenizer, const std::string& message);

}  // namespace saif
