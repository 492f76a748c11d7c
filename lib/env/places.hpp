// Where a path leads, without following a link out of a store.
//
// A store's own files and directories are never symbolic links, pipes or devices: whoever may write
// into its directory could otherwise have us create, empty or delete files elsewhere, or wait for
// ever. The path of the store itself may lead over links.
#pragma once

#include <initializer_list>
#include <map>
#include <mutex>
#include <string>

#include "env/descriptor.hpp"
#include "env/env.hpp"

namespace dedup {

// A directory and a name in it, as the system's calls ending in "at" take them.
struct Place {
    int directory = 0;  // AT_FDCWD: the name is a whole path
    std::string name;
};

struct OpenDirectory {
    int fd = -1;
    Descriptor own;  // closes it, if it does not stay open anyway
};

// The directories of the store at `root`: each is opened once, the first time that something in it
// is named, and stays open. So what is done there later needs no descriptor, and stays in this
// store even if somebody puts another directory in its place. Paths outside are taken as they are.
// Any number of threads may use it.
class Places {
  public:
    explicit Places(const Path& root);  // an empty root: nothing is kept open

    // Errors: invalid_argument (a link or a file where there should be a directory), io.
    [[nodiscard]] Result<Place> place(const Path& path);
    // A directory itself. Errors: as place().
    [[nodiscard]] Result<OpenDirectory> directory(const Path& path);

  private:
    [[nodiscard]] Result<int> kept(const Path& directory);

    const Path root_;
    std::mutex mutex_;
    std::map<Path, Descriptor> open_;
};

// Opens a regular file; `flags` as open() takes them. With O_CREAT, a new file has the access that
// inherit_access gives it.
// Errors: invalid_argument (a link, a directory, a pipe, ...), io, read_only, out_of_space.
[[nodiscard]] Result<Descriptor> open_regular(const Place& place, const Path& path, int flags);

// Gives a new file or directory the access that the directory has in which it was made: its
// permissions, its group, and its owner if the process may give files away. So what the users of
// one group share stays shared whatever their umasks, and what root writes stays its owner's.
// Never less than what the owner needs. What the system refuses is left as it is.
void inherit_access(int fd, int directory);

// The same for files that another library has made in `directory`, if they are there.
void inherit_access(const Path& directory, std::initializer_list<const char*> names);

// Checks that `directory` is one, and that these files in it are regular ones, if they are there:
// for another library, which would follow links. Errors: invalid_argument, io.
[[nodiscard]] Result<void> check_regular(const Path& directory,
                                         std::initializer_list<const char*> names);

// What is wrong with what lies at a place where a file, or a directory, should be; for the error.
[[nodiscard]] Error wrong_type(const Place& place, const Path& path, int os_error);

}  // namespace dedup
