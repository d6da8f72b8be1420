// What a call that must fail says.
#pragma once

#include <string>

#include "saif/error.h"

namespace saif::test {

// The message of the Error that the action throws; "" when it throws none.
template <typename Action>
std::string message_of(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace saif::test
