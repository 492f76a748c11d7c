// Where the id of a delivered event comes from, for a Guard or any other user of a Cache.
//
// An id must be the same at each delivery of one event and differ between events. Each function
// gives a valid key; none appends anything. All may be called from any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "dedup/bytes_view.hpp"
#include "dedup/error.hpp"
#include "dedup/json_pointer.hpp"

namespace dedup {

// The bytes need to live for the call only.
struct Header {
    BytesView name;
    BytesView value;
};

// The value of header `name`; letters of both cases are the same in it, as in HTTP. Best, if the
// producer sends one.
// Errors: invalid_argument (no such header, one whose value is no valid key, or two that differ).
[[nodiscard]] DEDUP_API Result<std::string> event_id_from_header(std::span<const Header> headers,
                                                                 std::string_view name);

// "<topic>-<partition>-<offset>": the delivery's place in a log that is never rewritten. Tells
// redeliveries, but not an event that was produced twice.
// Errors: invalid_argument (the topic is too long).
[[nodiscard]] DEDUP_API Result<std::string> event_id_from_position(std::string_view topic,
                                                                   std::uint32_t partition,
                                                                   std::uint64_t offset);

// The value that `pointer` leads to in a payload of JSON.
// Errors: invalid_argument (no JSON, no value there, or one that is no valid key).
[[nodiscard]] DEDUP_API Result<std::string> event_id_from_payload(std::string_view payload,
                                                                  const JsonPointer& pointer);

// "sha256-<64 hex digits>" of the content, for events without a name. Two events of equal content
// are one. Nobody can make two contents with one id (SHA-256; FIPS 180-4).
[[nodiscard]] DEDUP_API std::string event_id_from_content(std::string_view content);

}  // namespace dedup
