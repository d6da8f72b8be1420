#include "support/run_program.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <stdexcept>
#include <thread>

#include "base/file.h"

namespace saif::test {
namespace {

using Clock = std::chrono::steady_clock;

std::string new_file() {
  std::string path = "/tmp/saif_program_XXXXXX";
  const int fd = ::mkstemp(path.data());
  if (fd < 0) throw std::runtime_error("no temporary file");
  ::close(fd);
  return path;
}

void redirect(int fd, const char* path, int flags) {
  const int opened = ::open(path, flags, 0600);
  if (opened < 0 || ::dup2(opened, fd) < 0) ::_exit(98);
  ::close(opened);
}

void limit_files(int64_t bytes) {
  std::signal(SIGXFSZ, SIG_IGN);  // a failed write, not a death
  const rlimit limit = {static_cast<rlim_t>(bytes), static_cast<rlim_t>(bytes)};
  if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(98);
}

// Seen by the child alone, gone with it.
void mount_small_disk(const char* folder) {
  if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount("tmpfs", folder, "tmpfs", 0, "size=64k") != 0) {
    ::_exit(kNoSmallDisk);
  }
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

std::vector<std::string> environment_with(const std::map<std::string, std::string>& added) {
  std::vector<std::string> out;
  for (char** each = environ; *each; ++each) {
    const std::string entry = *each;
    if (!added.contains(entry.substr(0, entry.find('=')))) out.push_back(entry);
  }
  for (const auto& [name, value] : added) out.push_back(name + "=" + value);
  return out;
}

}  // namespace

Program::Program(const std::string& path, const std::vector<std::string>& arguments, ProgramOptions options)
    : options_(std::move(options)), out_path_(new_file()), err_path_(new_file()) {
  // All memory is had before the fork: between it and exec only system calls are safe.
  std::vector<std::string> texts = {path};
  texts.insert(texts.end(), arguments.begin(), arguments.end());
  std::vector<std::string> environment = environment_with(options_.environment);
  const std::vector<char*> argv = pointers(texts), envp = pointers(environment);
  const std::string& out = options_.stdout_path.empty() ? out_path_ : options_.stdout_path;
  deadline_ = Clock::now() + options_.timeout;
  pid_ = ::fork();
  if (pid_ < 0) throw std::runtime_error("cannot fork");
  if (pid_ > 0) return;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  redirect(STDIN_FILENO, "/dev/null", O_RDONLY);
  redirect(STDOUT_FILENO, out.c_str(), O_WRONLY);
  redirect(STDERR_FILENO, err_path_.c_str(), O_WRONLY);
  if (options_.file_limit > 0) limit_files(options_.file_limit);
  if (!options_.small_disk.empty()) mount_small_disk(options_.small_disk.c_str());
  ::execve(path.c_str(), argv.data(), envp.data());
  ::_exit(97);
}

Program::~Program() {
  if (running()) {
    send(SIGKILL);
    reap(true);
  }
  ::unlink(out_path_.c_str());
  ::unlink(err_path_.c_str());
}

void Program::reap(bool block) {
  if (ended_) return;
  const pid_t found = ::waitpid(pid_, &status_, block ? 0 : WNOHANG);
  ended_ = found == pid_ || (found < 0 && errno == ECHILD);
}

bool Program::running() {
  reap(false);
  return !ended_;
}

void Program::send(int signal) {
  if (running()) ::kill(pid_, signal);
}

bool Program::wait_until(const std::function<bool()>& condition) {
  while (running() && Clock::now() < deadline_) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

std::string Program::out_so_far() const { return read_file(out_path_); }

ProgramResult Program::wait() {
  ProgramResult result;
  wait_until([] { return false; });
  if (running()) {
    result.timed_out = true;
    send(SIGKILL);
    reap(true);
  }
  if (WIFEXITED(status_)) result.exit_code = WEXITSTATUS(status_);
  if (WIFSIGNALED(status_)) result.signal = WTERMSIG(status_);
  result.out = read_file(out_path_);
  result.err = read_file(err_path_);
  return result;
}

}  // namespace saif::test
