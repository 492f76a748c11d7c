#include "common/disk_limit.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "common/failure.hpp"

namespace dedupctl {
namespace {

// In pages: a kernel that caches what is written in one piece as one piece would dirty all of it
// at each append.
constexpr std::size_t kFillBytes = 4096;

void write_at(int fd, const std::string& path, const char* bytes, std::size_t count,
              std::size_t offset) {
    if (::pwrite(fd, bytes, count, static_cast<off_t>(offset)) != static_cast<ssize_t>(count)) {
        throw system_failure("cannot write " + path, errno);
    }
}

}  // namespace

DiskLimit::DiskLimit(const std::string& path)
    : path_(path),
      file_(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)),
      bytes_(kFillBytes, 'x') {
    if (file_.get() < 0) {
        throw system_failure("cannot create " + path, errno);
    }
    ::unlink(path.c_str());
    for (std::size_t offset = 0; offset < kFileBytes; offset += bytes_.size()) {
        write_at(file_.get(), path_, bytes_.data(), bytes_.size(), offset);
    }
    if (::fsync(file_.get()) != 0) {
        throw system_failure("cannot flush " + path, errno);
    }
}

void DiskLimit::append(std::size_t bytes) {
    if (bytes > bytes_.size()) {
        bytes_.resize(bytes, 'x');
    }
    if (offset_ + bytes > kFileBytes) {
        offset_ = 0;
    }
    write_at(file_.get(), path_, bytes_.data(), bytes, offset_);
    offset_ += bytes;
    if (::fdatasync(file_.get()) != 0) {
        throw system_failure("cannot flush " + path_, errno);
    }
}

}  // namespace dedupctl
