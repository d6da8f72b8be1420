#include "saif/json.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "base/file.h"

namespace saif {
namespace {

const char* type_name(const Json& j) {
  if (j.is_null()) return "null";
  if (j.is_bool()) return "a boolean";
  if (j.is_int()) return "an integer";
  if (j.is_number()) return "a number";
  if (j.is_string()) return "a string";
  return j.is_array() ? "an array" : "an object";
}

[[noreturn]] void wrong_type(const Json& j, const char* expected) {
  std::string text = j.dump();
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  throw Error(Errc::kBadFormat, std::string("JSON: found ") + type_name(j) + " (" + text + "), expected " + expected);
}

// Builds a Json from nlohmann's SAX events, refusing deep nesting and duplicate keys.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  Json root;
  std::string error;
  size_t position = 0;

  bool null() override { return add(Json()); }
  bool boolean(bool v) override { return add(Json(v)); }
  bool number_integer(number_integer_t v) override { return add(Json(v)); }
  bool number_unsigned(number_unsigned_t v) override {
    if (v > static_cast<uint64_t>(INT64_MAX)) return add(Json(static_cast<double>(v)));
    return add(Json(static_cast<int64_t>(v)));
  }
  bool number_float(number_float_t v, const string_t&) override { return add(Json(v)); }
  bool string(string_t& v) override { return add(Json(std::move(v))); }
  bool binary(binary_t&) override { return fail("binary value"); }
  bool start_object(size_t) override { return push(Json::object()); }
  bool start_array(size_t) override { return push(Json::array()); }
  bool key(string_t& v) override {
    if (is_duplicate(v)) return fail("duplicate key \"" + v + "\"");
    key_ = std::move(v);
    return true;
  }
  bool end_object() override { return pop(); }
  bool end_array() override { return pop(); }
  bool parse_error(size_t at, const std::string&, const nlohmann::detail::exception& e) override {
    position = at;
    if (error.empty()) error = e.what();
    return false;
  }

 private:
  static constexpr size_t kMaxDepth = 128;

  bool fail(std::string why) {
    error = std::move(why);
    return false;
  }
  Json* place(Json value) {
    if (stack_.empty()) {
      root = std::move(value);
      return &root;
    }
    if (stack_.back()->is_array()) {
      stack_.back()->push_back(std::move(value));
      return &stack_.back()->items().back();
    }
    stack_.back()->members().emplace_back(std::move(key_), std::move(value));
    return &stack_.back()->members().back().second;
  }
  bool add(Json value) {
    place(std::move(value));
    return true;
  }
  bool push(Json container) {
    if (stack_.size() >= kMaxDepth) return fail("nested deeper than 128 levels");
    stack_.push_back(place(std::move(container)));  // children move only after their parent is popped
    keys_.emplace_back();
    return true;
  }
  bool pop() {
    stack_.pop_back();
    keys_.pop_back();
    return true;
  }
  // Few keys are compared one by one; a large object is indexed, so that parsing takes linear time.
  bool is_duplicate(const std::string& key) {
    constexpr size_t kFew = 32;
    const Json& object = *stack_.back();
    if (object.size() < kFew) return object.contains(key);
    std::unordered_set<std::string>& known = keys_.back();
    if (known.empty()) {
      for (const auto& [name, value] : object.members()) known.insert(name);
    }
    return !known.insert(key).second;
  }

  std::vector<Json*> stack_;
  std::vector<std::unordered_set<std::string>> keys_;  // of the large objects of the stack
  std::string key_;
};

nlohmann::ordered_json to_nlohmann(const Json& j) {
  if (j.is_null()) return nullptr;
  if (j.is_bool()) return j.as_bool();
  if (j.is_int()) return j.as_int();
  if (j.is_number()) {
    const double d = j.as_double();
    return std::isfinite(d) ? nlohmann::ordered_json(d) : nlohmann::ordered_json(nullptr);
  }
  if (j.is_string()) return j.as_string();
  if (j.is_array()) {
    auto out = nlohmann::ordered_json::array();
    for (const Json& item : j.items()) out.push_back(to_nlohmann(item));
    return out;
  }
  auto out = nlohmann::ordered_json::object();
  // Appended, as our keys differ already: operator[] would look through all of them.
  auto& members = out.get_ref<nlohmann::ordered_json::object_t&>();
  for (const auto& [key, value] : j.members()) {
    static_cast<nlohmann::ordered_json::object_t::Container&>(members).emplace_back(key, to_nlohmann(value));
  }
  return out;
}

}  // namespace

bool Json::as_bool() const {
  if (!is_bool()) wrong_type(*this, "a boolean");
  return std::get<bool>(value_);
}

int64_t Json::as_int() const {
  if (is_int()) return std::get<int64_t>(value_);
  if (const double* d = std::get_if<double>(&value_); d && std::nearbyint(*d) == *d && std::abs(*d) < 9e15) {
    return static_cast<int64_t>(*d);
  }
  wrong_type(*this, "an integer");
}

void Json::out_of_range(int64_t least, int64_t most) const {
  throw Error(Errc::kBadFormat, "JSON: found " + dump() + ", expected an integer from " + std::to_string(least) +
                                    " to " + std::to_string(most));
}

double Json::as_double() const {
  if (is_int()) return static_cast<double>(std::get<int64_t>(value_));
  if (const double* d = std::get_if<double>(&value_)) return *d;
  wrong_type(*this, "a number");
}

const std::string& Json::as_string() const {
  if (!is_string()) wrong_type(*this, "a string");
  return std::get<std::string>(value_);
}

const Json::Array& Json::items() const {
  if (!is_array()) wrong_type(*this, "an array");
  return std::get<Array>(value_);
}

Json::Array& Json::items() {
  if (!is_array()) wrong_type(*this, "an array");
  return std::get<Array>(value_);
}

const Json::Object& Json::members() const {
  if (!is_object()) wrong_type(*this, "an object");
  return std::get<Object>(value_);
}

Json::Object& Json::members() {
  if (!is_object()) wrong_type(*this, "an object");
  return std::get<Object>(value_);
}

size_t Json::size() const {
  if (is_array()) return std::get<Array>(value_).size();
  if (is_object()) return std::get<Object>(value_).size();
  return 0;
}

const Json* Json::find(std::string_view key) const {
  for (const auto& [name, value] : members()) {
    if (name == key) return &value;
  }
  return nullptr;
}

const Json& Json::at(std::string_view key) const {
  if (const Json* found = find(key)) return *found;
  throw Error(Errc::kNotFound, "JSON object has no key \"" + std::string(key) + "\"");
}

Json& Json::operator[](std::string_view key) {
  if (is_null()) value_ = Object{};
  for (auto& [name, value] : members()) {
    if (name == key) return value;
  }
  members().emplace_back(std::string(key), Json());
  return members().back().second;
}

void Json::push_back(Json item) {
  if (is_null()) value_ = Array{};
  items().push_back(std::move(item));
}

std::string Json::dump(int indent) const {
  return to_nlohmann(*this).dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

Result<Json> parse_json(std::string_view text) {
  Builder builder;
  const bool ok = nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  if (ok) return std::move(builder.root);
  std::string why = builder.error;
  // nlohmann: "[json.exception.parse_error.101] parse error at line 1, column 3: ..."
  if (const size_t at = why.find("parse error"); at != std::string::npos) why = why.substr(at);
  return Error(Errc::kBadFormat, "JSON: " + why);
}

Json read_json_file(const std::string& path) {
  Result<Json> parsed = parse_json(read_file(path));
  if (!parsed) throw Error(parsed.error().code(), path + ": " + parsed.error().what());
  return std::move(parsed).value();
}

void write_json_file(const std::string& path, const Json& value, int indent) {
  write_file_atomically(path, value.dump(indent) + "\n");
}

}  // namespace saif
