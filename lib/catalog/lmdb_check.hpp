// Checking an LMDB file before LMDB maps it.
//
// LMDB has no checksums and trusts its file: a flipped bit in one of its pages makes it read
// outside of the map, loop, or write over pages that are in use. What the catalog's values say is
// guarded by their own checksums; this guards the structure around them. Only tree pages and lists
// of free pages are read, a few kilobytes whatever the size of the store.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "env/env.hpp"

namespace dedup {

// What an LMDB file says of its newest commit.
struct LmdbState {
    std::uint64_t commit = 0;
    std::uint64_t page_bytes = 0;
    std::uint64_t last_page = 0;

    bool operator==(const LmdbState&) const = default;
};

// Works beside a live writer. Errors: corruption, io.
[[nodiscard]] Result<LmdbState> read_lmdb_state(const Path& path, File& file);

// The newest commit's number as the mapped beginning of a file says it, unchecked: the two meta
// pages, of `page_bytes` each, beside a writer.
[[nodiscard]] std::uint64_t newest_commit(std::string_view metas, std::uint64_t page_bytes);

// The value of a key, if it is there and short; nullopt also if the file is not as it should be, or
// if a writer is changing it: this is for a first look.
[[nodiscard]] std::optional<std::string> find_lmdb_value(const Path& path, File& file,
                                                         std::string_view key);

// Copies the newest committed state of an LMDB file, which a writer may be changing, to the empty
// file `to`. `path` is for errors.
// Errors: corruption, io, unavailable (the writer is too fast).
[[nodiscard]] Result<void> copy_lmdb_file(const Path& path, File& from, File& to);

// Checks the newest committed state of the file: that it is as long as it says, but for free pages
// at its end; that its pages are what their headers and counters claim; that keys ascend; and that
// no page serves two purposes.
// Errors: corruption, io.
[[nodiscard]] Result<void> check_lmdb_file(const Path& path, File& file);

}  // namespace dedup
