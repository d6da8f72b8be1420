// What the report looks like: colours of the light and the dark scheme (Okabe and Ito's palette, safe for colour-blind
// readers), text, tables and the classes of the pictures. Every method has a shape besides its colour.
#pragma once

#include <string>
#include <string_view>

#include "saif/json.h"

namespace saif::report {

struct MethodLook {
  std::string_view key, name;     // "diffmean", "difference of means"
  std::string_view style, shape;  // class and marker
};
// The key of a row: its method; prompting with the instruction first is "prompt_pre".
std::string method_key(const Json& row);
MethodLook look_of(std::string_view method_key);  // an unknown method gets its own name in grey
MethodLook look_of_line(size_t number);           // of lines that stand for layers

std::string page_style();     // the page's style sheet
std::string picture_style();  // of a standalone picture: the light scheme

}  // namespace saif::report
