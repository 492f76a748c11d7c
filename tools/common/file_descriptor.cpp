#include "common/file_descriptor.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "common/failure.hpp"
#include "common/text.hpp"

namespace dedupctl {

void FileDescriptor::reset() {
    if (fd_ > STDERR_FILENO) {
        ::close(fd_);  // only ever read from, or written through a pipe: nothing to lose here
    }
    fd_ = -1;
}

FileDescriptor open_for_reading(const std::string& path) {
    if (path == "-") {
        return FileDescriptor(STDIN_FILENO);
    }
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        throw system_failure("cannot open " + escape(path), errno);
    }
    return FileDescriptor(fd);
}

}  // namespace dedupctl
