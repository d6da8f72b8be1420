// Errors. The library never prints, aborts or exits: an operation that cannot go on throws saif::Error; an expected
// outcome is a std::optional, or a Result<T> where the reason matters. Parsers of untrusted bytes return Result<T>.
// Errors are plain values, which threads may hand to each other.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

namespace saif {

enum class Errc {
  kInvalidArgument,  // a caller's value is out of range or contradicts another
  kNotFound,         // a file, tensor, key, site or name does not exist
  kBadFormat,        // bytes are not what their format promises
  kUnsupported,      // understood, but not implemented (the message says what is)
  kMismatch,         // two things do not belong together (SAE and model, vector and layer)
  kRefused,          // a check failed (acceptance check, an edit that touched no row)
  kIo,               // the operating system said no
  kInterrupted,      // a stop was requested; what was finished is saved
  kInternal,         // a programmer's error
};

// The snake_case name of a code: "bad_format".
const char* name_of(Errc code);

// One line: the thing, what was found, what was expected, what to do.
class Error : public std::runtime_error {
 public:
  Error(Errc code, const std::string& message) : std::runtime_error(message), code_(code) {}
  Errc code() const { return code_; }

 private:
  Errc code_;
};

// A value or the reason why there is none.
template <typename T>
class Result {
 public:
  Result(T value) : state_(std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::move(error)) {}  // NOLINT(google-explicit-constructor)
  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  // The value; throws the Error when there is none.
  T& value() & {
    if (!ok()) throw error();
    return std::get<0>(state_);
  }
  const T& value() const& {
    if (!ok()) throw error();
    return std::get<0>(state_);
  }
  T&& value() && {
    if (!ok()) throw error();
    return std::get<0>(std::move(state_));
  }
  const Error& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, Error> state_;
};

}  // namespace saif
