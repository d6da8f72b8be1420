// Parts of the study records' JSON.
#pragma once

#include <vector>

#include "saif/study.h"

namespace saif {

Json interval_json(const Interval& i);                                  // [low, high]
Json share_json(const Share& share, const char* value_name = "share");  // {value_name, n, ci}
Json tokens_json(const std::vector<TokenWeight>& tokens);               // [{token, logit}]

}  // namespace saif
