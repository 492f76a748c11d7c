// One version of a stream, and its encoding.
//
// docs/format.md describes the encoding byte by byte. All functions here are pure and may be
// called from any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dedup/error.hpp"

namespace dedup {

inline constexpr std::size_t kKeyBytesMax = 1024;
inline constexpr std::size_t kNamespaceBytesMax = 255;
inline constexpr std::size_t kReceiptBytesMax = 16 * 1024 * 1024;
inline constexpr std::size_t kMetadataBytesMax = 64 * 1024;
inline constexpr std::size_t kLabelBytesMax = 1024;  // owner, fingerprint and event id, each
inline constexpr std::size_t kConflictFingerprintsMax = 8;
inline constexpr std::size_t kReasonBytesMax = 4096;

// Expiry is judged this much late, so that clocks that differ a little agree on who is alive.
inline constexpr std::chrono::milliseconds kDefaultGrace{1000};

enum class Kind : std::uint8_t {
    active = 1,     // claimed; in flight without a receipt, completed with one
    tombstone = 2,  // released
};

enum class State : std::uint8_t { in_flight = 0, completed = 1, released = 2 };

// "in-flight", "completed" or "released".
[[nodiscard]] DEDUP_API std::string_view name(State state);

// Requests that named a key in flight with a fingerprint other than the claim's. Those that come
// after the completion are answered Mismatch, too, but not written down.
struct Conflict {
    std::uint64_t count = 0;                // how many there were
    std::vector<std::string> fingerprints;  // the first distinct ones, in order of arrival

    bool operator==(const Conflict&) const = default;
};

// What somebody has said of a claim that its holder did not answer, or of a completed key.
struct Verdict {
    enum class Kind : std::uint8_t {
        none = 0,
        held = 1,       // in flight: nobody knows what became of the work
        resolved = 2,   // a decision ended the claim: completed, or released as not done
        forgotten = 3,  // a tombstone: the completion was taken back
    };

    Kind kind = Kind::none;
    std::string by;      // who says so; at most kLabelBytesMax bytes
    std::string reason;  // at most kReasonBytesMax bytes

    bool operator==(const Verdict&) const = default;
};

// "held", "resolved" or "forgotten"; "none" for none.
[[nodiscard]] DEDUP_API std::string_view name(Verdict::Kind kind);

// All times are milliseconds since 1970-01-01 UTC and never negative.
struct Record {
    Kind kind = Kind::active;
    std::string ns;                      // namespace: 1 to 255 bytes of printable ASCII
    std::string key;                     // 1 to 1,024 bytes, any bytes
    std::uint64_t sequence = 0;          // assigned by the store at append
    std::uint64_t claim_sequence = 0;    // the fence; 0 in an append means "the record's own"
    std::int64_t timestamp_ms = 0;       // when the stream entered this state
    std::int64_t expires_at_ms = 0;      // 0: never
    std::int64_t ttl_ms = 0;             // in flight: what the receipt's lifetime will be; 0: keep
                                         // expires_at_ms as it is
    std::int64_t lease_until_ms = 0;     // in flight: 0 means no lease
    std::uint32_t attempt = 1;           // 1 for the first claim, one more for each later one
    std::string owner;                   // whoever claimed; for people
    std::string fingerprint;             // of the request; empty means "not compared"
    std::string event_id;                // the caller's name for the event
    std::optional<std::string> receipt;  // present, even if empty: completed
    std::string metadata;                // opaque
    Conflict conflict;
    bool hold = false;          // in flight: never taken over, and never expires
    std::int64_t began_ms = 0;  // in a tombstone: when the claim began that it ended; 0: not known
    Verdict verdict;
    std::string unknown_fields;  // optional fields of a newer version, kept as they are

    [[nodiscard]] State state() const {
        if (kind == Kind::tombstone) {
            return State::released;
        }
        return receipt ? State::completed : State::in_flight;
    }

    bool operator==(const Record&) const = default;
};

// The one predicate by which readers, claims and the sweeper judge a record's age.
[[nodiscard]] constexpr bool expired(std::int64_t expires_at_ms, std::int64_t now_ms,
                                     std::chrono::milliseconds grace = kDefaultGrace) {
    // now - grace instead of expires_at + grace: the latter could overflow.
    return expires_at_ms != 0 && now_ms - grace.count() > expires_at_ms;
}

// In flight, and never to be taken over: it waits for a decision. See Cache::resolve.
[[nodiscard]] inline bool held(const Record& record, std::int64_t now_ms) {
    return record.hold && (record.verdict.kind == Verdict::Kind::held ||
                           (record.lease_until_ms != 0 && record.lease_until_ms < now_ms));
}

// Claimed, not answered, and its lease has run out: whoever claimed it may have crashed, or is
// slow, and the next claim takes it over.
[[nodiscard]] inline bool past_lease(const Record& record, std::int64_t now_ms,
                                     std::chrono::milliseconds grace = kDefaultGrace) {
    return record.state() == State::in_flight && !record.hold && record.lease_until_ms != 0 &&
           record.lease_until_ms < now_ms && !expired(record.expires_at_ms, now_ms, grace);
}

// FNV-1a, 64 bits: offset basis cbf29ce484222325, prime 100000001b3.
// Source: Fowler, Noll, Vo; draft-eastlake-fnv.
[[nodiscard]] constexpr std::uint64_t fnv1a_64(std::string_view bytes) {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (const char byte : bytes) {
        hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
    }
    return hash;
}

// "<namespace>:<16 hex digits of fnv1a_64(key)>".
[[nodiscard]] DEDUP_API std::string stream_name(std::string_view ns, std::string_view key);

// Errors: invalid_argument, whose message says what is wrong with the name.
[[nodiscard]] DEDUP_API Result<void> check_namespace(std::string_view ns);
[[nodiscard]] DEDUP_API Result<void> check_key(std::string_view key);

// Checks every limit above and that the fields fit together (a tombstone has no receipt, and so
// on). The sequence may be 0, as in a record that is still to be appended.
// Errors: invalid_argument.
[[nodiscard]] DEDUP_API Result<void> check_record(const Record& record);

// Appends the encoding of `record` to `out`. Equal records give equal bytes.
// Precondition: check_record(record) succeeds; otherwise the bytes may not decode.
DEDUP_API void encode(const Record& record, std::string& out);

// The inverse of encode; strict: decode(bytes) succeeds only if encode of the result gives the
// same bytes back. Never allocates more than a small multiple of bytes.size().
// Errors: corruption (says what is wrong and at which byte), unsupported_version (a newer format,
// or a required field that this version does not know).
[[nodiscard]] DEDUP_API Result<Record> decode(std::string_view bytes);

}  // namespace dedup
