// How well identify_language does on the first N code points of sentences.
// usage: measure_language CODE FILE [CODE FILE ...]     one sentence a line
#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>

#include "saif/text.h"

namespace {

std::string first_characters(const std::string& text, int count) {
  size_t end = 0;
  for (; end < text.size(); ++end) {
    if ((static_cast<unsigned char>(text[end]) & 0xC0) != 0x80 && count-- == 0) break;
  }
  return text.substr(0, end);
}

void measure(const std::string& code, const char* path, int characters) {
  std::ifstream file(path);
  std::map<std::string, int> answers;
  int n = 0, confident = 0;
  double seconds = 0;
  for (std::string line; std::getline(file, line); ++n) {
    const std::string text = first_characters(line, characters);
    const auto start = std::chrono::steady_clock::now();
    const auto guess = saif::identify_language(text);
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const bool sure = guess && guess->confidence >= 0.5;
    ++answers[sure ? guess->code : "?"];
    confident += sure && guess->code == code ? 1 : 0;
  }
  if (n == 0) return;
  std::printf("%s %4d chars: correct %.3f undecided %.3f of %d, %.1f us a call; other:", code.c_str(), characters,
              confident / double(n), answers["?"] / double(n), n, seconds / n * 1e6);
  for (const auto& [answer, count] : answers) {
    if (answer != code && answer != "?" && count > 0) std::printf(" %s:%d", answer.c_str(), count);
  }
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc % 2 == 0) {
    std::fprintf(stderr, "usage: measure_language CODE FILE [CODE FILE ...]\n");
    return 2;
  }
  for (const int characters : {20, 40, 80, 160}) {
    for (int i = 1; i + 1 < argc; i += 2) measure(argv[i], argv[i + 1], characters);
  }
  return 0;
}
