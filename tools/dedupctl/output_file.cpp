#include "output_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "common/failure.hpp"
#include "common/text.hpp"

namespace dedupctl {

OutputFile::OutputFile(const std::string& path) : path_(path) {
    if (path == "-") {
        file_ = FileDescriptor(STDOUT_FILENO);
        return;
    }
    struct stat status {};
    const bool special = ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode);
    unfinished_ = special ? "" : path + ".unfinished";
    const std::string opened = special ? path : unfinished_;
    const int flags = special ? O_WRONLY : O_WRONLY | O_CREAT | O_TRUNC;
    file_ = FileDescriptor(::open(opened.c_str(), flags | O_CLOEXEC, 0600));
    if (file_.get() < 0) {
        const int error = errno;
        unfinished_.clear();
        throw system_failure("cannot create " + escape(opened), error);
    }
}

OutputFile::~OutputFile() {
    if (!unfinished_.empty()) {
        ::unlink(unfinished_.c_str());
    }
}

void OutputFile::finish() {
    if (unfinished_.empty()) {
        return;
    }
    if (::fsync(fd()) != 0 || ::rename(unfinished_.c_str(), path_.c_str()) != 0) {
        throw system_failure("cannot finish " + escape(path_), errno);
    }
    unfinished_.clear();
}

}  // namespace dedupctl
