// The verifiers' makers, one file each; the table is registry.cc.
#pragma once

#include <memory>

#include "saif/json.h"
#include "saif/verify.h"

namespace saif {
using VerifierPointer = std::unique_ptr<const Verifier>;
VerifierPointer make_language_verifier(const Json& args);
VerifierPointer make_json_verifier(const Json& args);
VerifierPointer make_python_verifier(const Json& args);
VerifierPointer make_numbered_list_verifier(const Json& args);
VerifierPointer make_verse_verifier(const Json& args);
VerifierPointer make_prefix_verifier(const Json& args);
VerifierPointer make_sentences_verifier(const Json& args);
}  // namespace saif
