// The study folder. SQLite keeps every write a transaction: a killed run leaves what was finished, and nothing half.
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/file.h"
#include "base/hash.h"
#include "saif/options.h"
#include "saif/sweep.h"

namespace saif {
namespace {

constexpr int kSchema = 2;  // 2: cells have conditions

[[noreturn]] void fail(sqlite3* db, const std::string& file, const std::string& action) {
  const int code = sqlite3_errcode(db);
  std::string message = file + ": cannot " + action + ": " + sqlite3_errmsg(db);
  if (code == SQLITE_NOTADB || code == SQLITE_CORRUPT) {
    throw Error(Errc::kBadFormat, message + "; it is not a study's database, choose another folder");
  }
  if (code == SQLITE_FULL) message += "; free some space and run the same command again, finished cells are kept";
  throw Error(Errc::kIo, message);
}

// One prepared statement, bound by position.
class Statement {
 public:
  Statement(sqlite3* db, const std::string& file, const char* sql) : db_(db), file_(file) {
    if (sqlite3_prepare_v2(db, sql, -1, &statement_, nullptr) != SQLITE_OK) fail(db, file, "read");
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  Statement& bind(const std::string& text) {
    sqlite3_bind_text(statement_, ++bound_, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT);
    return *this;
  }
  bool step() {
    const int code = sqlite3_step(statement_);
    if (code != SQLITE_ROW && code != SQLITE_DONE) fail(db_, file_, "write");
    return code == SQLITE_ROW;
  }
  std::string text(int column) const {
    const auto* data = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return data ? std::string(data, static_cast<size_t>(sqlite3_column_bytes(statement_, column))) : std::string();
  }

 private:
  sqlite3* db_;
  const std::string& file_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

Json answer_json(const Answer& a) {
  return Json::object({{"content", a.content_id},
                       {"prompt", a.prompt},
                       {"text", a.text},
                       {"finish", a.finish},
                       {"checker", a.verdict.checker},
                       {"strict", a.verdict.strict},
                       {"loose", a.verdict.loose},
                       {"words", a.quality.words},
                       {"distinct2", a.quality.distinct2},
                       {"repetition", a.quality.repetition},
                       {"empty", a.quality.empty},
                       {"ids", Json(a.ids)},
                       {"perplexity", a.perplexity}});
}

Answer answer_from(const Json& j) {
  Answer a;
  a.content_id = j.at("content").as_string();
  a.prompt = j.at("prompt").as_string();
  a.text = j.at("text").as_string();
  a.finish = j.at("finish").as_string();
  a.verdict = {j.at("checker").as_bool(), j.at("strict").as_bool(), j.at("loose").as_bool()};
  a.quality = {j.at("words").as_int(), j.at("distinct2").as_double(), j.at("repetition").as_double(),
               j.at("empty").as_bool()};
  if (const Json* ids = j.find("ids")) {
    for (const Json& id : ids->items()) a.ids.push_back(id.as<int32_t>());
  }
  a.perplexity = j.at("perplexity").as_double();
  return a;
}

MethodResult result_from(const Json& recipe, const Json& summary) {
  MethodResult out;
  out.recipe = options_from_json<Recipe>(recipe, "stored recipe");
  out.site = summary.at("site").as_string();
  const int64_t n = summary.at("n").as_int();
  out.checker = {summary.at("checker_hits").as_int(), n};
  out.strict = {summary.at("strict_hits").as_int(), n};
  out.loose = {summary.at("loose_hits").as_int(), n};
  out.vector_norm = summary.at("vector_norm").as_double();
  out.perplexity = summary.at("perplexity").is_null() ? 0.0 : summary.at("perplexity").as_double();
  out.distinct2 = summary.at("distinct2").as_double();
  out.repetition = summary.at("repetition").as_double();
  out.empty = summary.at("empty").as_double();
  out.quality = summary.at("quality").as_double();
  return out;
}

class SqliteStudy : public Study {
 public:
  SqliteStudy(std::string folder, Mode mode) : folder_(std::move(folder)), file_(folder_ + "/results.sqlite") {
    const bool present = file_exists(file_);
    if (!present && mode != Mode::kCreateOrOpen) {
      throw Error(Errc::kNotFound,
                  folder_ + ": not a study folder (no results.sqlite); make one with saif find --out " + folder_);
    }
    if (mode == Mode::kCreateOrOpen) make_directories(folder_ + "/vectors");
    if (mode != Mode::kReadOnly) lock();
    const int flags = mode == Mode::kReadOnly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    if (sqlite3_open_v2(file_.c_str(), &db_, flags, nullptr) != SQLITE_OK) open_failed();
    sqlite3_busy_timeout(db_, 10000);
    try {
      schema_ = stored_schema();
      if (mode == Mode::kReadOnly) return;
      execute("PRAGMA journal_mode=WAL");
      execute("PRAGMA synchronous=NORMAL");
      execute(
          "CREATE TABLE IF NOT EXISTS discoveries(task TEXT, site TEXT, placement TEXT, body TEXT,"
          " PRIMARY KEY(task, site, placement))");
      execute(
          "CREATE TABLE IF NOT EXISTS cells(key TEXT PRIMARY KEY, task TEXT, split TEXT, recipe TEXT, summary TEXT,"
          " made INTEGER DEFAULT (strftime('%s','now')), conditions TEXT DEFAULT 'null')");
      if (schema_ == 1) execute("ALTER TABLE cells ADD COLUMN conditions TEXT DEFAULT 'null'");
      execute(
          "CREATE TABLE IF NOT EXISTS answers(cell TEXT REFERENCES cells(key), number INTEGER, body TEXT,"
          " PRIMARY KEY(cell, number))");
      execute(
          "CREATE TABLE IF NOT EXISTS explanations(task TEXT, sae TEXT, latent TEXT, body TEXT,"
          " PRIMARY KEY(task, sae, latent))");
      execute(("PRAGMA user_version=" + std::to_string(kSchema)).c_str());
      schema_ = kSchema;
    } catch (...) {
      close();
      throw;
    }
  }
  ~SqliteStudy() override { close(); }
  SqliteStudy(const SqliteStudy&) = delete;
  SqliteStudy& operator=(const SqliteStudy&) = delete;

  const std::string& folder() const override { return folder_; }
  Json manifest() const override {
    const std::string path = folder_ + "/manifest.json";
    return file_exists(path) ? read_json_file(path) : Json::object();
  }
  void set_manifest(const Json& manifest) override { write_json_file(folder_ + "/manifest.json", manifest); }

  void save_discovery(const Discovery& d) override {
    Statement(db_, file_, "INSERT OR REPLACE INTO discoveries(task, site, placement, body) VALUES(?,?,?,?)")
        .bind(d.task)
        .bind(d.site)
        .bind(d.placement)
        .bind(d.to_json().dump())
        .step();
  }
  std::vector<Discovery> discoveries(const std::string& task) const override {
    Statement query(
        db_, file_,
        "SELECT body FROM discoveries WHERE ?1 = '' OR task = ?1 ORDER BY task, length(site), site, placement");
    query.bind(task);
    std::vector<Discovery> out;
    while (query.step()) out.push_back(Discovery::from_json(parse_json(query.text(0)).value()));
    return out;
  }
  std::vector<std::string> tasks() const override {
    Statement query(db_, file_, "SELECT DISTINCT task FROM discoveries ORDER BY task");
    std::vector<std::string> out;
    while (query.step()) out.push_back(query.text(0));
    return out;
  }

  bool has_cell(const std::string& key) const override {
    return Statement(db_, file_, "SELECT 1 FROM cells WHERE key = ?").bind(key).step();
  }
  void save_cell(const CellRow& cell) override {
    const MethodResult& result = cell.result;
    execute("BEGIN IMMEDIATE");
    try {
      Statement(db_, file_,
                "INSERT OR REPLACE INTO cells(key, task, split, conditions, recipe, summary) VALUES(?,?,?,?,?,?)")
          .bind(cell.key)
          .bind(cell.task)
          .bind(cell.split)
          .bind(cell.conditions.dump())
          .bind(options_to_json(result.recipe).dump())
          .bind(result.to_json().dump())
          .step();
      for (size_t i = 0; i < result.answers.size(); ++i) {
        Statement(db_, file_, "INSERT OR REPLACE INTO answers(cell, number, body) VALUES(?,?,?)")
            .bind(cell.key)
            .bind(std::to_string(i))
            .bind(answer_json(result.answers[i]).dump())
            .step();
      }
      execute("COMMIT");
    } catch (...) {
      sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
      throw;
    }
  }
  MethodResult cell(const std::string& key) const override {
    Statement query(db_, file_, "SELECT recipe, summary FROM cells WHERE key = ?");
    query.bind(key);
    if (!query.step()) throw Error(Errc::kNotFound, folder_ + ": no cell " + key);
    MethodResult out = result_from(parse_json(query.text(0)).value(), parse_json(query.text(1)).value());
    Statement answers(db_, file_, "SELECT body FROM answers WHERE cell = ? ORDER BY CAST(number AS INTEGER)");
    answers.bind(key);
    while (answers.step()) out.answers.push_back(answer_from(parse_json(answers.text(0)).value()));
    return out;
  }
  std::vector<CellRow> cells(const std::string& task, const std::string& split) const override {
    const std::string conditions = schema_ < 2 ? "'null'" : "conditions";
    Statement query(db_, file_,
                    ("SELECT key, task, split, " + conditions +
                     ", recipe, summary FROM cells WHERE (?1 = '' OR task = ?1) AND (?2 = '' OR split = ?2)"
                     " ORDER BY rowid")
                        .c_str());
    query.bind(task).bind(split);
    std::vector<CellRow> out;
    while (query.step()) {
      out.push_back({query.text(0), query.text(1), query.text(2), parse_json(query.text(3)).value(),
                     result_from(parse_json(query.text(4)).value(), parse_json(query.text(5)).value())});
    }
    return out;
  }

  void save_explanation(const std::string& task, const Json& explanation) override {
    Statement(db_, file_, "INSERT OR REPLACE INTO explanations(task, sae, latent, body) VALUES(?,?,?,?)")
        .bind(task)
        .bind(explanation.at("sae_sha256").as_string())
        .bind(std::to_string(explanation.at("index").as_int()))
        .bind(explanation.dump())
        .step();
  }
  Json explanation(const std::string& task, const std::string& sae_sha256, int32_t index) const override {
    // A study of an earlier version that was only read since has no such table.
    if (!Statement(db_, file_, "SELECT 1 FROM sqlite_master WHERE name = 'explanations'").step()) return {};
    Statement query(db_, file_, "SELECT body FROM explanations WHERE task = ? AND sae = ? AND latent = ?");
    query.bind(task).bind(sae_sha256).bind(std::to_string(index));
    return query.step() ? parse_json(query.text(0)).value() : Json();
  }

 private:
  void execute(const char* sql) {
    if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK) fail(db_, file_, "write");
  }
  // 0: a new file.
  int stored_schema() {
    Statement query(db_, file_, "PRAGMA user_version");
    const int found = query.step() ? std::stoi(query.text(0)) : 0;
    if (found <= kSchema) return found;
    throw Error(Errc::kUnsupported, file_ + ": has layout " + std::to_string(found) + ", this saif knows " +
                                        std::to_string(kSchema) +
                                        " at most; read it with the newer saif that wrote it");
  }
  // One writer at a time: the lock lives as long as this object, and the system frees it when a process dies.
  void lock() {
    const std::string path = folder_ + "/.lock";
    lock_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (lock_ < 0) throw Error(Errc::kIo, folder_ + ": cannot write: " + std::strerror(errno));
    if (::flock(lock_, LOCK_EX | LOCK_NB) == 0) return;
    ::close(lock_);
    lock_ = -1;
    throw Error(Errc::kRefused, folder_ + ": another saif process is writing to this study; wait until it is done");
  }
  [[noreturn]] void open_failed() {
    const std::string why = db_ ? sqlite3_errmsg(db_) : "out of memory";
    close();
    throw Error(Errc::kIo, file_ + ": cannot open: " + why);
  }
  void close() {
    sqlite3_close(db_);
    db_ = nullptr;
    if (lock_ >= 0) ::close(lock_);
    lock_ = -1;
  }

  std::string folder_, file_;
  sqlite3* db_ = nullptr;
  int lock_ = -1;
  int schema_ = 0;
};

}  // namespace

std::unique_ptr<Study> Study::open(const std::string& folder, Mode mode) {
  if (folder.empty()) throw Error(Errc::kInvalidArgument, "the study's folder has an empty name; give one");
  return std::make_unique<SqliteStudy>(folder, mode);
}

}  // namespace saif
