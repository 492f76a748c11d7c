// The numbers of the record format; docs/format.md, "Records", says the same in words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>

#include "dedup/record.hpp"

namespace dedup::record_format {

inline constexpr std::uint8_t kVersion = 1;

inline constexpr std::size_t kVersionOffset = 0;
inline constexpr std::size_t kKindOffset = 1;
inline constexpr std::size_t kFieldsOffset = 2;

// A field is its tag, the length of its payload, and the payload. In a record the tags ascend.
enum class Tag : std::uint8_t {
    ns = 1,  // with the key first: recovery needs no more than these two
    key = 2,
    sequence = 3,
    claim_sequence = 4,  // after the sequence, which is its default
    timestamp_ms = 5,
    expires_at_ms = 6,
    ttl_ms = 7,
    lease_until_ms = 8,
    attempt = 9,
    owner = 10,
    fingerprint = 11,
    event_id = 12,
    receipt = 13,
    metadata = 14,
    conflict = 15,
    hold = 16,
    began_ms = 0x80,
    verdict = 0x81,
    first_unknown = 0x82,  // a reader keeps what it does not know from here on
};

inline constexpr std::uint8_t kFirstOptional = 0x80;  // an older reader keeps these, too

inline constexpr std::size_t kTagBytes = 1;
inline constexpr std::size_t kIntegerBytesMax = 8;
inline constexpr std::size_t kLengthBytesMax = 5;   // 35 bits, far above any payload
inline constexpr std::size_t kVarintBytesMax = 10;  // 64 bits
inline constexpr std::size_t kUnknownFieldsBytesMax = 1024 * 1024;

inline constexpr std::uint64_t kTimeMax = std::numeric_limits<std::int64_t>::max();
inline constexpr std::uint32_t kAttemptDefault = 1;
inline constexpr std::uint8_t kVerdictKindMax = 3;

// What a field costs beside its payload, at most.
inline constexpr std::size_t kFieldOverheadMax = kTagBytes + kLengthBytesMax;

// The seven integers from sequence to attempt, hold and began_ms.
inline constexpr std::size_t kIntegerFields =
    static_cast<std::size_t>(Tag::attempt) - static_cast<std::size_t>(Tag::sequence) + 3;
// Namespace, key, three labels, receipt, metadata, conflict and verdict.
inline constexpr std::size_t kByteFields = 9;

inline constexpr std::size_t kConflictBytesMax =
    kVarintBytesMax + kConflictFingerprintsMax * (kLengthBytesMax + kLabelBytesMax);

inline constexpr std::size_t kVerdictBytesMax =
    1 + kLengthBytesMax + kLabelBytesMax + kReasonBytesMax;

// No record that passes check_record is encoded in more bytes than this.
inline constexpr std::size_t kRecordBytesMax =
    kFieldsOffset + kIntegerFields * (kFieldOverheadMax + kIntegerBytesMax) +
    kByteFields * kFieldOverheadMax + kNamespaceBytesMax + kKeyBytesMax + 3 * kLabelBytesMax +
    kReceiptBytesMax + kMetadataBytesMax + kConflictBytesMax + kVerdictBytesMax +
    kUnknownFieldsBytesMax;

static_assert(kIntegerFields == 9);
static_assert(kLengthBytesMax * 7 <= 64);
static_assert(kRecordBytesMax < std::size_t{1} << (kLengthBytesMax * 7));
static_assert(kRecordBytesMax < std::size_t{18} * 1024 * 1024);
static_assert(static_cast<std::uint8_t>(Kind::active) == 1);
static_assert(static_cast<std::uint8_t>(Kind::tombstone) == 2);
static_assert(static_cast<std::uint8_t>(Verdict::Kind::forgotten) == kVerdictKindMax);

// As error messages call the field.
[[nodiscard]] constexpr std::string_view field_name(Tag tag) {
    switch (tag) {
        case Tag::ns:
            return "namespace";
        case Tag::key:
            return "key";
        case Tag::sequence:
            return "sequence";
        case Tag::claim_sequence:
            return "claim_sequence";
        case Tag::timestamp_ms:
            return "timestamp_ms";
        case Tag::expires_at_ms:
            return "expires_at_ms";
        case Tag::ttl_ms:
            return "ttl_ms";
        case Tag::lease_until_ms:
            return "lease_until_ms";
        case Tag::attempt:
            return "attempt";
        case Tag::owner:
            return "owner";
        case Tag::fingerprint:
            return "fingerprint";
        case Tag::event_id:
            return "event_id";
        case Tag::receipt:
            return "receipt";
        case Tag::metadata:
            return "metadata";
        case Tag::conflict:
            return "conflict";
        case Tag::hold:
            return "hold";
        case Tag::began_ms:
            return "began_ms";
        case Tag::verdict:
            return "verdict";
        case Tag::first_unknown:
            return "unknown_fields";
    }
    return "";
}

}  // namespace dedup::record_format
