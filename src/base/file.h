// Files: whole reads, atomic writes (beside, then renamed into place), read-only mappings.
// Every failure throws Error{kIo or kNotFound} that names the path and the system's reason.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace saif {

bool file_exists(const std::string& path);  // a regular file (links followed)
bool directory_exists(const std::string& path);
void make_directories(const std::string& path);  // like mkdir -p

std::string read_file(const std::string& path);
// Writes path.tmp.PID, syncs, renames. On failure the temporary is removed and the old file is untouched. A device or
// pipe is written to as it is, never replaced.
void write_file_atomically(const std::string& path, std::string_view bytes);

// The same for content that is produced piece by piece. Destroyed without commit(): nothing is left behind.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(const void* data, size_t bytes);
  void commit();

 private:
  void discard();
  std::string path_, temporary_;  // temporary_ "": path_ is a device
  int fd_ = -1;
};

// A read-only mapping of a whole file, shared by all who hold the pointer. Thread-safe.
class MappedFile {
 public:
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }
  const std::string& path() const { return path_; }
  // The pages no longer count as this process's memory; whoever touches them next finds them in the system's cache.
  void forget_pages() const;
  // All of it will be read: what is not in the system's cache yet comes there in huge pages, where the system has them.
  void expect_all() const;

 private:
  MappedFile() = default;
  std::string path_;
  void* data_ = nullptr;
  size_t size_ = 0;
};

// ${SAIF_CACHE:-${XDG_CACHE_HOME:-~/.cache}/saif}
std::string cache_directory();

}  // namespace saif
