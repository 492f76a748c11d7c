// Outcomes as maps, in the words of `dedupctl --json`. Bytes are bytes here, so nothing is said a
// second time in base64.
#pragma once

#include <string_view>

#include "dedup/cache.hpp"
#include "server/reply_writer.hpp"

namespace dedup::server {

// {"outcome": ..., "namespace": ..., "key": ...}, to be added to.
[[nodiscard]] MapWriter outcome_map(Protocol protocol, std::string_view outcome,
                                    std::string_view ns, std::string_view key);

[[nodiscard]] MapWriter claimed_map(Protocol protocol, const Claim& claim,
                                    std::string_view outcome = "claimed");
[[nodiscard]] MapWriter in_flight_map(Protocol protocol, std::string_view ns, std::string_view key,
                                      const InFlight& held);
[[nodiscard]] MapWriter completed_map(Protocol protocol, std::string_view ns, std::string_view key,
                                      const Completed& completed,
                                      std::string_view outcome = "completed");
[[nodiscard]] MapWriter previous_map(Protocol protocol, const Previous& previous);
[[nodiscard]] MapWriter held_map(Protocol protocol, std::string_view ns, std::string_view key,
                                 const Held& held);
[[nodiscard]] MapWriter mismatch_map(Protocol protocol, std::string_view ns, std::string_view key,
                                     const Mismatch& mismatch);
// One version of a stream, without its key.
void add_version(MapWriter& map, const Version& version);

}  // namespace dedup::server
