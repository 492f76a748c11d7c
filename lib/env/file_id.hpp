// Which file a name stands for.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "env/env.hpp"

namespace dedup {

// It is another file's as soon as nobody has this one open.
struct FileId {
    dev_t device = 0;
    ino_t inode = 0;
    bool operator==(const FileId&) const = default;
};

inline FileId id_of(const struct stat& status) {
    return {status.st_dev, status.st_ino};
}

inline FileId id_of(int fd) {
    struct stat status {};
    return ::fstat(fd, &status) == 0 ? id_of(status) : FileId();
}

// Whether `name`, seen from `directory`, names this file. One that cannot be looked at any more, as
// after a change of user, is taken to.
inline bool names(int directory, const char* name, FileId file) {
    struct stat status {};
    if (::fstatat(directory, name, &status, 0) != 0) {
        return errno != ENOENT && errno != ENOTDIR;
    }
    return id_of(status) == file;
}

inline bool names(const Path& path, FileId file) {
    return names(AT_FDCWD, path.c_str(), file);
}

}  // namespace dedup
