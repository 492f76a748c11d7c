// What the files of decisions share: checks of requests, errors, and how a claim ends.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "cache/decide.hpp"

namespace dedup {

// Times, which never overflow.
[[nodiscard]] std::int64_t later(std::int64_t now_ms, std::chrono::milliseconds by);
[[nodiscard]] std::int64_t expiry_after(std::int64_t now_ms, std::chrono::milliseconds ttl);

struct Limit {
    std::string_view field;
    std::size_t bytes;
    std::size_t bytes_max;
};
[[nodiscard]] Result<void> check_sizes(std::initializer_list<Limit> limits);
[[nodiscard]] Result<void> check_duration(std::string_view field,
                                          std::optional<std::chrono::milliseconds> value);
[[nodiscard]] Result<void> check_claim(const CacheOptions& cache, std::string_view key,
                                       const Claim* claim);

[[nodiscard]] inline Error error(Code code, std::string message) {
    return {.code = code, .message = std::move(message)};
}
// Says which end the claim came to, and what its holder is to do.
[[nodiscard]] std::unexpected<Error> stale(const Claim& claim, const Seen& seen);
[[nodiscard]] std::unexpected<Error> other_receipt(std::string_view key, const Seen& seen);
// For whoever answers without a claim for a key that waits for a decision.
[[nodiscard]] std::unexpected<Error> held_error(std::string_view key, const Seen& seen);

// `head`, which is in flight, as it is completed or released now.
[[nodiscard]] Record completed(Record head, std::int64_t now_ms, std::string_view receipt,
                               std::optional<std::chrono::milliseconds> ttl);
[[nodiscard]] Record released(Record head, std::int64_t now_ms, const CacheOptions& cache);

// What the next claim is told now of the head, which is released or unanswered.
[[nodiscard]] Previous previous_from(Record&& head, std::int64_t now_ms);

}  // namespace dedup
