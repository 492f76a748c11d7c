// Times as other systems write them.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace dedupctl {

// ISO 8601 or PostgreSQL's timestamp: "2026-03-01T12:00:00Z", "2026-03-01 12:00:00.123456+00",
// "2026-03-01T12:00:00,5+05:30"; without a zone it is UTC. In milliseconds since 1970, what is
// finer is cut off; nullopt for anything else, for a day that does not exist, and before 1970.
[[nodiscard]] std::optional<std::int64_t> parse_timestamp(std::string_view text);

}  // namespace dedupctl
