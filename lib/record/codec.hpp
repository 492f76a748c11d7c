// The codec without copies, for code that reads many records or assigns sequences itself.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "dedup/record.hpp"

namespace dedup {

// A decoded record whose byte fields point into the encoded bytes.
struct RecordView {
    Kind kind = Kind::active;
    bool has_receipt = false;
    bool hold = false;
    std::uint32_t attempt = 1;
    std::uint64_t sequence = 0;
    std::uint64_t claim_sequence = 0;
    std::int64_t timestamp_ms = 0;
    std::int64_t expires_at_ms = 0;
    std::int64_t ttl_ms = 0;
    std::int64_t lease_until_ms = 0;
    std::int64_t began_ms = 0;
    std::string_view ns;
    std::string_view key;
    std::string_view owner;
    std::string_view fingerprint;
    std::string_view event_id;
    std::string_view receipt;
    std::string_view metadata;
    std::uint64_t conflict_count = 0;
    std::string_view conflict_fingerprints;  // still encoded; checked
    std::string_view verdict;                // still encoded; checked
    std::string_view unknown_fields;

    [[nodiscard]] State state() const {
        if (kind == Kind::tombstone) {
            return State::released;
        }
        return has_receipt ? State::completed : State::in_flight;
    }
};

// As decode, without allocating. The views live as long as `bytes`.
[[nodiscard]] Result<RecordView> decode_view(std::string_view bytes);
// The same into `view`, which must be as a new one is; after an error it is anything.
[[nodiscard]] Result<void> decode_view(std::string_view bytes, RecordView& view);

[[nodiscard]] Record to_record(const RecordView& view);
// The same into `record`, which must be as a new one is.
void copy_to(const RecordView& view, Record& record);

// Appends the encoding of `record` with its sequence replaced by `sequence`, and a claim_sequence
// of 0 likewise.
void encode_as(const Record& record, std::uint64_t sequence, std::string& out);

}  // namespace dedup
