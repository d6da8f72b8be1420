// Runs a program as a user would: arguments in, exit code, standard output and standard error out.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace saif::test {

struct ProgramOptions {
  std::map<std::string, std::string> environment = {};  // added to the test's own
  std::string stdout_path = {};                         // "": a file that becomes ProgramResult::out
  std::chrono::seconds timeout{300};                    // then it is killed
  int64_t file_limit = 0;                               // bytes: longer files fail to be written (EFBIG); 0: none
  std::string small_disk = {};                          // folder over which the program finds a tmpfs of 64 KiB
};

struct ProgramResult {
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;
  bool timed_out = false;
  std::string out, err;
};

// `small_disk` needs rights that not every user has.
constexpr int kNoSmallDisk = 99;

// A child process with standard input closed. It dies with the test; destroyed while running, it is killed.
class Program {
 public:
  Program(const std::string& path, const std::vector<std::string>& arguments, ProgramOptions options = {});
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  bool running();
  void send(int signal);
  // Asks every millisecond; false when the program ended or the timeout passed before `condition` held.
  bool wait_until(const std::function<bool()>& condition);
  std::string out_so_far() const;
  ProgramResult wait();

 private:
  void reap(bool block);
  ProgramOptions options_;
  std::string out_path_, err_path_;
  std::chrono::steady_clock::time_point deadline_;
  pid_t pid_ = -1;
  bool ended_ = false;
  int status_ = 0;
};

inline ProgramResult run_program(const std::string& path, const std::vector<std::string>& arguments,
                                 ProgramOptions options = {}) {
  return Program(path, arguments, std::move(options)).wait();
}

}  // namespace saif::test
