// Names of parameterised tests whose parameter is a text.
#pragma once

#include <gtest/gtest.h>

#include <cctype>
#include <string>

namespace saif::test {

template <class Text>
std::string param_name(const testing::TestParamInfo<Text>& info) {
  std::string name(info.param);
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return name;
}

}  // namespace saif::test
