#include "env/places.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <initializer_list>

#include "env/process.hpp"

namespace dedup {
namespace {

constexpr mode_t kPermissions = 07777;
constexpr mode_t kReadWrite = 0666;
constexpr mode_t kOwnerFile = 0600;
constexpr mode_t kOwnerDirectory = 0700;

std::string_view type_name(mode_t mode) {
    switch (mode & S_IFMT) {
        case S_IFLNK:
            return "a symbolic link";
        case S_IFDIR:
            return "a directory";
        case S_IFREG:
            return "a file";
        case S_IFIFO:
            return "a pipe";
        case S_IFSOCK:
            return "a socket";
        default:
            return "a device";
    }
}

Error not_ours(const Path& path, mode_t mode) {
    return {Code::invalid_argument,
            fmt::format("{} is {}; the files of a store are never that: put what belongs there in "
                        "its place, or remove it",
                        path.string(), type_name(mode))};
}

// "store/" is "store".
Path without_slash(const Path& path) {
    return path.has_filename() ? path : path.parent_path();
}

// Changes `to` to what `from`, its directory, has; see inherit_access.
template <class ChangeOwner, class ChangeMode>
void give_access(const struct stat& from, const struct stat& to, ChangeOwner change_owner,
                 ChangeMode change_mode) {
    mode_t mode = S_ISDIR(to.st_mode) ? (from.st_mode & kPermissions) | kOwnerDirectory
                                      : (from.st_mode & kReadWrite) | kOwnerFile;
    const bool gives_away = ::geteuid() == 0 && to.st_uid != from.st_uid;
    if ((gives_away || to.st_gid != from.st_gid) &&
        change_owner(gives_away ? from.st_uid : static_cast<uid_t>(-1), from.st_gid) != 0) {
        // The process is not in that group: then it is not for that group to use.
        mode &= ~mode_t{S_IRWXG};
    }
    if (mode != (to.st_mode & kPermissions)) {
        static_cast<void>(change_mode(mode));
    }
}

}  // namespace

Error wrong_type(const Place& place, const Path& path, int os_error) {
    const bool may_be =
        os_error == ELOOP || os_error == ENOTDIR || os_error == EISDIR || os_error == ENXIO;
    struct stat status {};
    if (may_be &&
        ::fstatat(place.directory, place.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
        return not_ours(path, status.st_mode);
    }
    return os_failure("open", path, os_error);
}

Places::Places(const Path& root) : root_(without_slash(root)) {}

Result<int> Places::kept(const Path& directory) {
    const std::lock_guard lock(mutex_);
    if (const auto found = open_.find(directory); found != open_.end()) {
        return found->second.get();
    }
    Place at{AT_FDCWD, directory.string()};
    int flags = O_RDONLY | O_DIRECTORY;
    if (directory != root_) {
        const auto root = open_.find(root_);
        if (root == open_.end()) {
            Descriptor fd(open_high(AT_FDCWD, root_.c_str(), flags, 0));
            if (fd.get() < 0) {
                return std::unexpected(os_failure("open", root_, errno));
            }
            at.directory = open_.emplace(root_, std::move(fd)).first->second.get();
        } else {
            at.directory = root->second.get();
        }
        at.name = directory.filename().string();
        flags |= O_NOFOLLOW;
    }
    Descriptor fd(open_high(at.directory, at.name.c_str(), flags, 0));
    if (fd.get() < 0) {
        return std::unexpected(wrong_type(at, directory, errno));
    }
    return open_.emplace(directory, std::move(fd)).first->second.get();
}

Result<Place> Places::place(const Path& path) {
    const Path directory = path.parent_path();
    if (root_.empty() || without_slash(path) == root_ ||
        (directory != root_ && directory.parent_path() != root_)) {
        return Place{AT_FDCWD, path.string()};
    }
    const auto fd = kept(directory);
    if (!fd) {
        return std::unexpected(fd.error());
    }
    return Place{*fd, path.filename().string()};
}

Result<OpenDirectory> Places::directory(const Path& path) {
    OpenDirectory found;
    const Path named = without_slash(path);
    const bool inside = named.parent_path() == root_ && named.filename() != "..";
    if (!root_.empty() && (named == root_ || inside)) {
        const auto fd = kept(named);
        if (!fd) {
            return std::unexpected(fd.error());
        }
        found.fd = *fd;
        return found;
    }
    const auto at = place(path);
    if (!at) {
        return std::unexpected(at.error());
    }
    found.own = Descriptor(open_high(at->directory, at->name.c_str(), O_RDONLY | O_DIRECTORY, 0));
    found.fd = found.own.get();
    if (found.fd < 0) {
        return std::unexpected(wrong_type(*at, path, errno));
    }
    return found;
}

Result<Descriptor> open_regular(const Place& place, const Path& path, int flags) {
    // Without O_NONBLOCK opening a pipe would wait for its other end; files do not know it.
    flags |= O_NOFOLLOW | O_NONBLOCK;
    Descriptor fd(open_high(place.directory, place.name.c_str(), flags, kOwnerFile));
    if (fd.get() < 0) {
        return std::unexpected(wrong_type(place, path, errno));
    }
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) {
        return std::unexpected(os_failure("open", path, errno));
    }
    if (!S_ISREG(status.st_mode)) {
        return std::unexpected(not_ours(path, status.st_mode));
    }
    return fd;
}

void inherit_access(int fd, int directory) {
    struct stat from {};
    struct stat to {};
    if (::fstat(directory, &from) == 0 && ::fstat(fd, &to) == 0) {
        give_access(
            from, to, [&](uid_t user, gid_t group) { return ::fchown(fd, user, group); },
            [&](mode_t mode) { return ::fchmod(fd, mode); });
    }
}

Result<void> check_regular(const Path& directory, std::initializer_list<const char*> names) {
    const Descriptor in(retry([&] {
        return ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }));
    if (in.get() < 0) {
        return std::unexpected(wrong_type({AT_FDCWD, directory.string()}, directory, errno));
    }
    for (const char* name : names) {
        struct stat status {};
        if (::fstatat(in.get(), name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
            !S_ISREG(status.st_mode)) {
            return std::unexpected(not_ours(directory / name, status.st_mode));
        }
    }
    return {};
}

// A link that somebody puts in a file's place in the meantime is not followed.
void inherit_access(const Path& directory, std::initializer_list<const char*> names) {
    const Descriptor in(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    struct stat from {};
    if (in.get() < 0 || ::fstat(in.get(), &from) != 0) {
        return;
    }
    for (const char* name : names) {
        struct stat to {};
        if (::fstatat(in.get(), name, &to, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(to.st_mode)) {
            continue;
        }
        give_access(
            from, to,
            [&](uid_t user, gid_t group) {
                return ::fchownat(in.get(), name, user, group, AT_SYMLINK_NOFOLLOW);
            },
            [&](mode_t mode) { return ::fchmodat(in.get(), name, mode, AT_SYMLINK_NOFOLLOW); });
    }
}

}  // namespace dedup
