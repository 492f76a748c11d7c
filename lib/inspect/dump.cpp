#include "inspect/dump.hpp"

#include <fmt/format.h>

#include <array>
#include <string>

#include "index/index_file.hpp"
#include "log/segment.hpp"

namespace dedup {
namespace {

constexpr std::size_t kLookedAtBytes = 32;

// "bytes like 7f 45 4c 46", or what the file is known to be.
std::string what_it_looks_like(std::string_view start) {
    constexpr std::string_view kLmdb = "\xde\xc0\xef\xbe";  // behind a page's header
    if (start.empty()) {
        return "it is empty";
    }
    if (start.size() >= 20 && start.substr(16, 4) == kLmdb) {
        return "it is an LMDB file, as a store's catalog is";
    }
    std::string bytes;
    for (const char byte : start.substr(0, 8)) {
        bytes += fmt::format(" {:02x}", static_cast<unsigned char>(byte));
    }
    return "it begins with the bytes" + bytes;
}

Error neither(const Path& path, std::string_view what) {
    return {Code::invalid_argument,
            fmt::format("{} is neither a segment nor the index of one: {}\n  give a file of a "
                        "store's log/, such as {} or {}",
                        path.string(), what, segment_file_name(1), index_file_name(1))};
}

}  // namespace

std::string hex_id(std::string_view store_id) {
    std::string digits;
    for (const char byte : store_id) {
        digits += fmt::format("{:02x}", static_cast<unsigned char>(byte));
    }
    return digits;
}

Result<void> dump(const std::filesystem::path& file, const DumpVisitor& visit) {
    Env& env = posix_env();
    const auto type = env.type(file);
    if (!type) {
        return std::unexpected(type.error());
    }
    if (*type == PathType::directory) {
        return std::unexpected(neither(file, "it is a directory"));
    }
    if (*type == PathType::other) {
        return std::unexpected(neither(file, "it is no regular file"));
    }
    auto opened = env.open(file, OpenMode::read);
    if (!opened) {
        return std::unexpected(opened.error());
    }
    std::array<char, kLookedAtBytes> bytes;
    const auto got = (*opened)->read(0, bytes);
    if (!got) {
        return std::unexpected(got.error());
    }
    opened->reset();
    // The name counts, too: a segment whose first bytes are damaged is one all the same.
    const std::string_view start(bytes.data(), *got);
    const std::string name = file.filename().string();
    if (start.starts_with(kSegmentMagic)) {
        return dump_segment(env, file, visit);
    }
    if (start.starts_with(kIndexMagic)) {
        return dump_index(env, file, visit);
    }
    if (segment_id(name)) {
        return dump_segment(env, file, visit);
    }
    return indexed_segment(name) ? dump_index(env, file, visit)
                                 : std::unexpected(neither(file, what_it_looks_like(start)));
}

std::filesystem::path segment_path(const std::filesystem::path& store, std::uint64_t id,
                                   bool index) {
    return store / "log" / (index ? index_file_name(id) : segment_file_name(id));
}

}  // namespace dedup
