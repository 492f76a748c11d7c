// What a disk can do at best for whoever flushes after each write.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "common/file_descriptor.hpp"

namespace dedupctl {

// A file that is appended to and flushed. It is written in full when it is made, so that an append
// changes data only: no block has to be allocated, no size and no extent be updated. At its end it
// starts over.
class DiskLimit {
  public:
    // Makes the file; it has no name, and goes with this object. Throws a Failure.
    explicit DiskLimit(const std::string& path);

    // Writes `bytes`, at most kFileBytes, behind the last ones and calls fdatasync.
    void append(std::size_t bytes);

    static constexpr std::size_t kFileBytes = std::size_t{64} * 1024 * 1024;

  private:
    std::string path_;
    FileDescriptor file_;
    std::string bytes_;
    std::size_t offset_ = 0;
};

}  // namespace dedupctl
