// The two halves of dump(): a segment, and an index file.
#pragma once

#include "dedup/dump.hpp"
#include "env/env.hpp"

namespace dedup {

// Errors of both: corruption, unsupported_version, io.
[[nodiscard]] Result<void> dump_segment(Env& env, const Path& path, const DumpVisitor& visit);
[[nodiscard]] Result<void> dump_index(Env& env, const Path& path, const DumpVisitor& visit);

// 32 hex digits.
[[nodiscard]] std::string hex_id(std::string_view store_id);

}  // namespace dedup
