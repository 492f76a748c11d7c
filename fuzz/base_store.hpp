// The store whose log the recovery target attacks, made once in a process and always the same.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "crash/explore.hpp"
#include "log/manifest.hpp"
#include "log/segment.hpp"

namespace dedup::fuzz {

using Name = std::pair<std::string, std::string>;  // namespace and key

inline constexpr std::int64_t kBaseTimeMs = 1'700'000'000'000;
inline constexpr std::uint64_t kBaseSegments = 3;  // the last is the newest

struct BaseStore {
    test::Wreck wreck;
    std::string newest;  // the bytes of the newest segment, up to its last frame
    SegmentHeader header;
    Manifest manifest;                  // the first in it
    std::vector<std::uint32_t> frames;  // where frames begin in it, and where the last one ends
    std::map<Name, Version> heads;      // of all streams
    std::uint64_t next_sequence = 0;
};

[[nodiscard]] const BaseStore& base_store();
[[nodiscard]] OpenOptions base_options();
// A directory that lives as long as the process.
[[nodiscard]] const Path& base_root();

// Replaces the bytes of the newest segment.
void put_newest_segment(test::Wreck& wreck, std::string bytes);

}  // namespace dedup::fuzz
