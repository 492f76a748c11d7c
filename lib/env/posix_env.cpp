#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "env/descriptor.hpp"
#include "env/env.hpp"
#include "env/places.hpp"
#include "env/posix_file.hpp"
#include "env/posix_lock.hpp"
#include "env/process.hpp"

namespace dedup {
namespace {

class PosixEnv final : public Env {
  public:
    PosixEnv(const Path& root, std::filesystem::perms permissions)
        : places_(root), mode_(static_cast<mode_t>(permissions)) {}

    Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override {
        const auto at = places_.place(path);
        if (!at) {
            return std::unexpected(at.error());
        }
        auto fd = mode == OpenMode::create
                      ? create(*at, path)
                      : open_regular(*at, path, mode == OpenMode::read ? O_RDONLY : O_RDWR);
        if (!fd) {
            return std::unexpected(fd.error());
        }
        return posix_file(std::move(*fd), path);
    }

    Result<PathType> type(const Path& path) override {
        const auto at = places_.place(path);
        if (!at) {
            return std::unexpected(at.error());
        }
        // The path of a store may lead over links; what lies in it may not.
        const int flags = at->directory == AT_FDCWD ? 0 : AT_SYMLINK_NOFOLLOW;
        struct stat status {};
        if (::fstatat(at->directory, at->name.c_str(), &status, flags) != 0) {
            if (errno == ENOENT) {
                return PathType::absent;
            }
            return std::unexpected(os_failure("open", path, errno));
        }
        if (S_ISREG(status.st_mode)) {
            return PathType::file;
        }
        return S_ISDIR(status.st_mode) ? PathType::directory : PathType::other;
    }

    Result<std::vector<std::string>> list(const Path& path) override {
        const auto directory = places_.directory(path);
        if (!directory) {
            return std::unexpected(directory.error());
        }
        // Of its own, since two that list would share the position in one that stays open.
        const int fd = open_high(directory->fd, ".", O_RDONLY | O_DIRECTORY, 0);
        const std::unique_ptr<DIR, int (*)(DIR*)> entries(fd < 0 ? nullptr : ::fdopendir(fd),
                                                          ::closedir);
        if (!entries) {
            return std::unexpected(os_failure("list", path, errno));
        }
        std::vector<std::string> names;
        errno = 0;
        while (const dirent* entry = ::readdir(entries.get())) {
            const std::string_view name(entry->d_name);
            if (name != "." && name != "..") {
                names.emplace_back(name);
            }
        }
        if (errno != 0) {
            return std::unexpected(os_failure("list", path, errno));
        }
        return names;
    }

    Result<void> make_directory(const Path& path) override {
        const auto at = places_.place(path);
        if (!at) {
            return std::unexpected(at.error());
        }
        if (::mkdirat(at->directory, at->name.c_str(), mode_) != 0) {
            if (errno == EEXIST) {
                return {};
            }
            Error error = os_failure("create directory", path, errno);
            if (error.os_error == ENOENT) {
                error.message += "; create the one that it is to lie in first";
            }
            return std::unexpected(std::move(error));
        }
        if (at->directory != AT_FDCWD) {
            const auto made = places_.directory(path);
            if (!made) {
                return std::unexpected(made.error());
            }
            inherit_access(made->fd, at->directory);
        }
        return {};
    }

    Result<void> make_directory_like(const Path& path, const Path& like) override {
        if (auto done = make_directory(path); !done) {
            return done;
        }
        const auto made = places_.directory(path);
        const auto model = places_.directory(like);
        if (!made || !model) {
            return std::unexpected(made ? model.error() : made.error());
        }
        inherit_access(made->fd, model->fd);
        return {};
    }

    Result<void> rename(const Path& from, const Path& to) override {
        const auto old_at = places_.place(from);
        const auto new_at = places_.place(to);
        if (!old_at || !new_at) {
            return std::unexpected(old_at ? new_at.error() : old_at.error());
        }
        if (::renameat(old_at->directory, old_at->name.c_str(), new_at->directory,
                       new_at->name.c_str()) != 0) {
            return std::unexpected(os_failure("rename", from, errno));
        }
        return {};
    }

    Result<void> remove(const Path& path) override {
        const auto at = places_.place(path);
        if (!at) {
            return std::unexpected(at.error());
        }
        if (::unlinkat(at->directory, at->name.c_str(), 0) != 0) {
            return std::unexpected(os_failure("remove", path, errno));
        }
        return {};
    }

    Result<void> sync_directory(const Path& path) override {
        const auto directory = places_.directory(path);
        if (!directory) {
            return std::unexpected(directory.error());
        }
        const NoCancel no_cancel;
        if (::fsync(directory->fd) != 0) {
            return std::unexpected(os_failure("flush", path, errno));
        }
        return {};
    }

    Result<std::unique_ptr<Lock>> lock(const Path& path, const LockWait& wait) override {
        return lock_file(places_, path, wait);
    }

    Result<std::unique_ptr<Lock>> lock_out(const Path& path) override {
        return lock_out_writers(path);
    }

    Result<void> random(std::span<char> into) override {
        std::size_t done = 0;
        while (done < into.size()) {
            const ssize_t n =
                retry([&] { return ::getrandom(into.data() + done, into.size() - done, 0); });
            if (n < 0) {
                return std::unexpected(Error{Code::io, "the system gives no random bytes", errno});
            }
            done += static_cast<std::size_t>(n);
        }
        return {};
    }

  private:
    // A file that nobody has open or linked elsewhere: what has the name already is removed.
    static Result<Descriptor> create(const Place& at, const Path& path) {
        if (::unlinkat(at.directory, at.name.c_str(), 0) != 0 && errno != ENOENT) {
            return std::unexpected(wrong_type(at, path, errno));
        }
        auto fd = open_regular(at, path, O_RDWR | O_CREAT | O_EXCL);
        if (fd && at.directory != AT_FDCWD) {
            inherit_access(fd->get(), at.directory);
        }
        return fd;
    }

    Places places_;
    const mode_t mode_;
};

}  // namespace

Env& posix_env() {
    static PosixEnv& env =  // never destroyed: a store may outlive static objects
        *new PosixEnv({}, std::filesystem::perms::owner_all);
    return env;
}

std::shared_ptr<Env> posix_env_of(const Path& store, std::filesystem::perms permissions) {
    return std::make_shared<PosixEnv>(store, permissions);
}

Result<void> remove_if_there(Env& env, const Path& path) {
    auto removed = env.remove(path);
    return !removed && removed.error().os_error == ENOENT ? Result<void>() : removed;
}

Error os_failure(std::string_view action, const Path& path, int os_error) {
    Code code = Code::io;
    std::string_view hint;
    if (os_error == ENOSPC || os_error == EDQUOT) {
        code = Code::out_of_space;
        hint = "; free some space and try again";
    } else if (os_error == EROFS || os_error == EACCES || os_error == EPERM) {
        code = Code::read_only;
        hint = os_error == EROFS ? "; here the store can only be opened read-only"
                                 : "; check the owner and the permissions";
    }
    return {code,
            fmt::format("cannot {} {}: {}{}", action, path.string(),
                        std::generic_category().message(os_error), hint),
            os_error};
}

}  // namespace dedup
