// A file descriptor that closes itself, unless it is one of the standard ones.
#pragma once

#include <string>
#include <utility>

namespace dedupctl {

class FileDescriptor {
  public:
    FileDescriptor() = default;
    explicit FileDescriptor(int fd) : fd_(fd) {}
    FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    FileDescriptor& operator=(FileDescriptor&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~FileDescriptor() { reset(); }

    [[nodiscard]] int get() const { return fd_; }
    void reset();

  private:
    int fd_ = -1;
};

// `path` may be "-" for standard input. Throws a Failure that names the file.
[[nodiscard]] FileDescriptor open_for_reading(const std::string& path);

}  // namespace dedupctl
