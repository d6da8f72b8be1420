#include "app.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "saif/task.h"

namespace saif::cli {
namespace {

using Clock = std::chrono::steady_clock;

// A bar on a terminal; elsewhere a line every ten seconds, so that short work is silent.
class ProgressPrinter {
 public:
  void operator()(const Progress& p) {
    const auto now = Clock::now();
    const bool new_stage = p.stage != stage_;
    const bool finished = p.total > 0 && p.done >= p.total;
    const auto pause = now - last_;
    if (terminal_ ? !new_stage && !finished && pause < std::chrono::milliseconds(100)
                  : pause < std::chrono::seconds(10)) {
      return;
    }
    if (new_stage && terminal_ && drawn_) std::fputc('\n', stderr);
    last_ = now;
    stage_ = p.stage;
    std::string line = p.stage;
    if (p.total > 0) line += " " + std::to_string(p.done) + "/" + std::to_string(p.total);
    if (!p.note.empty()) line += "  " + p.note;
    if (terminal_) {
      std::fprintf(stderr, "\r\033[K%s%s", line.c_str(), finished ? "\n" : "");
      drawn_ = !finished;
    } else {
      std::fprintf(stderr, "%s\n", line.c_str());
    }
    std::fflush(stderr);
  }
  void clear() {
    if (drawn_) std::fputs("\r\033[K", stderr);
    drawn_ = false;
  }

 private:
  bool terminal_ = ::isatty(STDERR_FILENO) != 0;
  bool drawn_ = false;
  std::string stage_;
  Clock::time_point last_ = Clock::now();
};

ProgressPrinter& printer() {
  static ProgressPrinter instance;
  return instance;
}

bool is_numeric(const std::string& cell) {
  return !cell.empty() && cell.find_first_not_of("0123456789.-+%x ") == std::string::npos;
}

// Code points, near enough to columns for the scripts we print.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace

std::string FlagVisitor::flag(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return "--" + name;
}

bool FlagVisitor::skipped(const std::string& name) const {
  return std::find(skip_.begin(), skip_.end(), name) != skip_.end();
}

CLI::App* add_verb(CLI::App& root, Context& context, const std::string& name, const std::string& description,
                   bool json_flag) {
  CLI::App* verb = root.add_subcommand(name, description);
  if (json_flag) verb->add_flag("--json", context.json, "print JSON on stdout");
  verb->add_flag("--quiet", context.quiet, "no talk and no progress on stderr");
  verb->add_option("--threads", context.threads, "threads; 0 is all cores")->capture_default_str();
  return verb;
}

void add_dtype_flag(CLI::App* verb, std::string& dtype) {
  verb->add_option("--dtype", dtype, "auto, bf16 or f32: the type the model runs in")->capture_default_str();
}

void add_load_flags(CLI::App* verb, LoadOptions& options) {
  verb->add_option("--weights", options.weights,
                   "mapped (used where they lie in the file, shared by processes) or resident (copied into huge pages: "
                   "slower to load, faster to decode few rows)")
      ->capture_default_str();
  add_dtype_flag(verb, options.dtype);
  verb->add_option(
          "--quantised", options.quantised,
          "blocks of GGUF: keep (less memory, faster for few rows), widen (to bfloat16: faster for many), auto (what "
          "suits the verb), int8 (as keep, with activations of 8 bits, as in llama.cpp); they differ in rounding")
      ->capture_default_str();
  verb->add_option("--isa", options.isa, "instruction set: auto (the best), amx, avx512bf16, avx512, avx2 or generic")
      ->capture_default_str();
  verb->add_option(
          "--kv", options.kv,
          "keys and values in memory: f32, bf16 (half the memory, faster when long), auto (bf16 on CPUs with AMX)")
      ->capture_default_str();
}

void add_texts(CLI::App* verb, const std::string& flags, std::vector<std::string>& texts, const std::string& help) {
  verb->add_option_function<std::string>(
          flags, [&texts](const std::string& text) { texts.push_back(text); }, help)
      ->trigger_on_parse()
      ->type_name("TEXT ...");
}

Loaded load_engine(const std::string& model, const LoadOptions& options) {
  Loaded out;
  out.model = Model::load(model, options);
  out.tokenizer = Tokenizer::load(out.model->path());
  out.engine = std::make_unique<Engine>(out.model, out.tokenizer);
  return out;
}

Loaded load_for_study(const std::string& model, const std::string& dtype) {
  return load_engine(model, {.dtype = dtype, .many_rows = true});
}

void install_progress(Context& context) {
  context.control.on_progress = [&context](const Progress& p) {
    if (!context.quiet) printer()(p);
  };
}

void say(const Context& context, const std::string& line) {
  if (context.quiet) return;
  printer().clear();
  std::fprintf(stderr, "%s\n", line.c_str());
}

void print_line(const std::string& line) {
  printer().clear();
  if (std::fwrite(line.data(), 1, line.size(), stdout) != line.size() || std::fputc('\n', stdout) == EOF ||
      std::fflush(stdout) != 0) {
    throw Error(Errc::kIo, std::string("standard output cannot be written: ") + std::strerror(errno));
  }
}

void print_json(const Json& json) { print_line(json.dump()); }

std::string format_number(double value, int decimals) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", decimals, value);
  return buffer;
}

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width_of(row[c]));
  }
  std::string out;
  for (size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    for (size_t c = 0; c < rows[r].size(); ++c) {
      const std::string& cell = rows[r][c];
      const std::string pad(widths[c] - width_of(cell), ' ');
      const bool right = c > 0 && (is_numeric(cell) || (r == 0 && rows.size() > 1 && is_numeric(rows[1][c])));
      line += (c ? "  " : "") + (right ? pad + cell : cell + pad);
    }
    out += line.substr(0, line.find_last_not_of(' ') + 1) + (r + 1 < rows.size() ? "\n" : "");
  }
  return out;
}

int32_t token_id(const Json& id, const std::string& where) {
  try {
    return id.as<int32_t>();
  } catch (const Error& e) {
    throw Error(e.code(), where + ": a token's id: " + e.what());
  }
}

namespace {

FilePrompt prompt_of(const Json& line, const std::string& where) {
  const Json* text = &line;
  if (line.is_object()) {
    if (const Json* ids = line.find("ids"); ids != nullptr && ids->is_array()) {
      FilePrompt out;
      for (const Json& id : ids->items()) out.ids.push_back(token_id(id, where));
      if (!out.ids.empty()) return out;
    }
    text = line.find("prompt");
    if (text == nullptr) text = line.find("text");
  }
  if (text == nullptr || !text->is_string()) {
    throw Error(Errc::kBadFormat,
                where + ": expected an object with a string \"prompt\" or \"text\", or a list \"ids\"");
  }
  return {text->as_string(), {}};
}

}  // namespace

std::vector<FilePrompt> read_prompts_or_ids(const std::string& path) {
  std::vector<FilePrompt> prompts;
  if (path.ends_with(".jsonl")) {
    for_each_json_line(path,
                       [&](const Json& json, const std::string& where) { prompts.push_back(prompt_of(json, where)); });
    return prompts;
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error(Errc::kNotFound, path + ": cannot open: " + std::strerror(errno));
  for (std::string line; std::getline(in, line);) prompts.push_back({line, {}});
  if (in.bad()) throw Error(Errc::kIo, path + ": cannot read");
  return prompts;
}

std::vector<std::string> read_prompts(const std::string& path) {
  std::vector<std::string> texts;
  for (FilePrompt& prompt : read_prompts_or_ids(path)) {
    if (!prompt.ids.empty()) throw Error(Errc::kBadFormat, path + ": \"ids\" where texts are needed; give \"text\"");
    texts.push_back(std::move(prompt.text));
  }
  return texts;
}

std::vector<int32_t> parse_ids(const std::string& text, const std::string& flag) {
  std::vector<int32_t> ids;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    int32_t id = 0;
    const auto [rest, ec] = std::from_chars(text.data() + begin, text.data() + end, id);
    if (ec != std::errc() || rest != text.data() + end) {
      throw UsageError(flag + ": \"" + text.substr(begin, end - begin) + "\" is not a whole number; expected 1,2,3");
    }
    ids.push_back(id);
    begin = end + 1;
  }
  return ids;
}

}  // namespace saif::cli
