#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

#include "record/check.hpp"
#include "record/codec.hpp"
#include "record/field_reader.hpp"
#include "record/format.hpp"

namespace dedup {
namespace {

using record_format::Tag;

constexpr auto kFirstUnknown = static_cast<std::uint8_t>(Tag::first_unknown);

// Why a payload is not a value of its field, in words that follow the field's name; null if it
// is one. Plain text, so that the hot path builds no message.
using Why = const char*;

constexpr Why kIsDefault = "is stored with its default value";

[[gnu::cold]] std::unexpected<Error> corrupt(std::string message) {
    return std::unexpected(Error{Code::corruption, "record: " + std::move(message)});
}

[[gnu::cold]] std::unexpected<Error> corrupt(std::uint8_t tag, std::size_t offset,
                                             std::string_view what) {
    return corrupt(fmt::format("{} at byte {} {}", display_name(tag), offset, what));
}

[[gnu::cold]] std::unexpected<Error> unsupported(std::string message) {
    return std::unexpected(Error{Code::unsupported_version, "record: " + std::move(message)});
}

std::uint8_t byte_at(std::string_view bytes, std::size_t offset) {
    return static_cast<std::uint8_t>(bytes[offset]);
}

bool known_kind(std::uint8_t kind) {
    return kind == static_cast<std::uint8_t>(Kind::active) ||
           kind == static_cast<std::uint8_t>(Kind::tombstone);
}

[[gnu::cold]] std::unexpected<Error> bad_start(std::string_view bytes) {
    if (bytes.empty()) {
        return corrupt("it is empty; the format version is missing at byte 0");
    }
    const std::uint8_t version = byte_at(bytes, record_format::kVersionOffset);
    if (version == 0) {
        return corrupt("format version at byte 0 is 0, which no version uses");
    }
    if (version > record_format::kVersion) {
        return unsupported(
            fmt::format("format version at byte 0 is {}; this library reads up to {}", version,
                        record_format::kVersion));
    }
    if (bytes.size() <= record_format::kKindOffset) {
        return corrupt("it ends at byte 1, where its kind is missing");
    }
    return corrupt(fmt::format("kind at byte 1 is {}; only active (1) and tombstone (2) exist",
                               byte_at(bytes, record_format::kKindOffset)));
}

Why read_integer(std::string_view payload, std::uint64_t value_max, std::uint64_t& value) {
    if (payload.size() > record_format::kIntegerBytesMax) {
        return "is an integer of more than 8 bytes";
    }
    if (payload.back() == 0) {
        return "is an integer with a trailing zero byte";
    }
    std::uint64_t result = 0;
    for (std::size_t i = 0; i < payload.size(); ++i) {
        result |= static_cast<std::uint64_t>(byte_at(payload, i)) << (8 * i);
    }
    if (result > value_max) {
        return "is an integer above the field's maximum";
    }
    value = result;
    return nullptr;
}

Why read_time(std::string_view payload, std::int64_t& value_ms) {
    std::uint64_t value = 0;
    const Why why = read_integer(payload, record_format::kTimeMax, value);
    value_ms = static_cast<std::int64_t>(value);
    return why;
}

Why read_attempt(std::string_view payload, std::uint32_t& attempt) {
    std::uint64_t value = 0;
    if (const Why why = read_integer(payload, std::numeric_limits<std::uint32_t>::max(), value)) {
        return why;
    }
    attempt = static_cast<std::uint32_t>(value);
    return attempt == record_format::kAttemptDefault ? kIsDefault : nullptr;
}

// Reads the claim sequence; `view` holds the sequence already, as its tag is the lower one.
Why read_claim_sequence(std::string_view payload, RecordView& view) {
    if (const Why why =
            read_integer(payload, std::numeric_limits<std::uint64_t>::max(), view.claim_sequence)) {
        return why;
    }
    return view.claim_sequence == view.sequence ? kIsDefault : nullptr;
}

Why read_hold(std::string_view payload, bool& hold) {
    std::uint64_t value = 0;
    hold = true;
    return read_integer(payload, 1, value);
}

// A verdict's parts.
struct VerdictView {
    std::uint8_t kind = 0;
    std::string_view by;
    std::string_view reason;
};

Why split_verdict(std::string_view payload, VerdictView& verdict) {
    verdict.kind = byte_at(payload, 0);
    if (verdict.kind == 0 || verdict.kind > record_format::kVerdictKindMax) {
        return "has a kind that is not held (1), resolved (2) or forgotten (3)";
    }
    std::size_t position = 1;
    const Varint length = read_varint(payload, position, record_format::kLengthBytesMax);
    if (length.problem != nullptr || length.value > payload.size() - position) {
        return "has a name whose length is malformed or more than is left";
    }
    verdict.by = payload.substr(position, length.value);
    verdict.reason = payload.substr(position + length.value);
    return nullptr;
}

Why read_verdict(std::string_view payload, std::string_view& field) {
    VerdictView verdict;
    if (const Why why = split_verdict(payload, verdict)) {
        return why;
    }
    if (verdict.by.size() > kLabelBytesMax) {
        return "has a name of more bytes than the at most 1,024 that are allowed";
    }
    if (verdict.reason.size() > kReasonBytesMax) {
        return "has a reason of more bytes than the at most 4,096 that are allowed";
    }
    field = payload;
    return nullptr;
}

Why take(std::string_view payload, std::string_view& field) {
    field = payload;
    return nullptr;
}

// Stores one field in `view`. The conflict record is left to read_conflict.
Why read_value(Tag tag, std::string_view payload, RecordView& view) {
    switch (tag) {
        case Tag::ns:
            return take(payload, view.ns);
        case Tag::key:
            return take(payload, view.key);
        case Tag::sequence:
            return read_integer(payload, std::numeric_limits<std::uint64_t>::max(), view.sequence);
        case Tag::claim_sequence:
            return read_claim_sequence(payload, view);
        case Tag::timestamp_ms:
            return read_time(payload, view.timestamp_ms);
        case Tag::expires_at_ms:
            return read_time(payload, view.expires_at_ms);
        case Tag::ttl_ms:
            return read_time(payload, view.ttl_ms);
        case Tag::lease_until_ms:
            return read_time(payload, view.lease_until_ms);
        case Tag::attempt:
            return read_attempt(payload, view.attempt);
        case Tag::owner:
            return take(payload, view.owner);
        case Tag::fingerprint:
            return take(payload, view.fingerprint);
        case Tag::event_id:
            return take(payload, view.event_id);
        case Tag::receipt:
            view.has_receipt = true;
            return take(payload, view.receipt);
        case Tag::metadata:
            return take(payload, view.metadata);
        case Tag::hold:
            return read_hold(payload, view.hold);
        case Tag::began_ms:
            return read_time(payload, view.began_ms);
        case Tag::verdict:
            return read_verdict(payload, view.verdict);
        case Tag::conflict:
        case Tag::first_unknown:
            break;
    }
    return nullptr;
}

// Splits `encoded`, fingerprints each behind its length, into `fingerprints`, and gives their
// number; what is wrong if they are malformed.
std::expected<std::size_t, std::string> split_fingerprints(
    std::string_view encoded,
    std::array<std::string_view, kConflictFingerprintsMax>& fingerprints) {
    std::size_t count = 0;
    for (std::size_t position = 0; position < encoded.size(); ++count) {
        if (count == kConflictFingerprintsMax) {
            return std::unexpected(
                fmt::format("has more than {} fingerprints", kConflictFingerprintsMax));
        }
        const Varint length = read_varint(encoded, position, record_format::kLengthBytesMax);
        if (length.problem != nullptr) {
            return std::unexpected(fmt::format("has a fingerprint, number {}, whose length {}",
                                               count + 1, length.problem));
        }
        if (length.value > encoded.size() - position) {
            return std::unexpected(
                fmt::format("has a fingerprint, number {}, of {} bytes where only {} are left",
                            count + 1, grouped(length.value), grouped(encoded.size() - position)));
        }
        fingerprints[count] = encoded.substr(position, length.value);
        position += length.value;
    }
    return count;
}

std::optional<std::string> read_conflict(std::string_view payload, RecordView& view) {
    std::size_t position = 0;
    const Varint count = read_varint(payload, position, record_format::kVarintBytesMax);
    if (count.problem != nullptr) {
        return fmt::format("has a count that {}", count.problem);
    }
    if (count.value == 0) {
        return "counts 0 requests, its default value, which is never stored";
    }
    view.conflict_count = count.value;
    view.conflict_fingerprints = payload.substr(position);
    std::array<std::string_view, kConflictFingerprintsMax> fingerprints;
    const auto found = split_fingerprints(view.conflict_fingerprints, fingerprints);
    if (!found) {
        return found.error();
    }
    return find_conflict_problem(count.value, std::span(fingerprints).first(*found));
}

// Where the field `tag`, or else the next one, starts in `bytes`, whose fields are well-formed.
[[gnu::cold]] std::size_t offset_of(Tag tag, std::string_view bytes) {
    FieldReader fields(bytes, record_format::kFieldsOffset, 0);
    while (!fields.done() && fields.next()) {
        if (fields.tag() >= static_cast<std::uint8_t>(tag)) {
            return fields.offset();
        }
    }
    return bytes.size();
}

[[gnu::cold]] std::unexpected<Error> missing(Tag tag, std::string_view bytes) {
    return corrupt(fmt::format("{} is missing at byte {}", record_format::field_name(tag),
                               offset_of(tag, bytes)));
}

// What is wrong with the field on which `fields` stands, if anything.
Result<void> read_field(const FieldReader& fields, RecordView& view) {
    const std::uint8_t tag = fields.tag();
    if (tag > static_cast<std::uint8_t>(Tag::hold) && tag < record_format::kFirstOptional) {
        return unsupported(fmt::format(
            "field 0x{:02x} at byte {} is required but unknown; a newer version wrote it", tag,
            fields.offset()));
    }
    // Only a receipt means something when empty.
    if (fields.payload().empty() && Tag{tag} != Tag::receipt) {
        return corrupt(tag, fields.offset(), "is stored although it is empty");
    }
    if (Tag{tag} == Tag::conflict) {
        if (const auto what = read_conflict(fields.payload(), view)) {
            return corrupt(tag, fields.offset(), *what);
        }
        return {};
    }
    if (const Why why = read_value(Tag{tag}, fields.payload(), view)) {
        return corrupt(tag, fields.offset(), why);
    }
    return {};
}

}  // namespace

Result<RecordView> decode_view(std::string_view bytes) {
    Result<RecordView> view;
    if (auto decoded = decode_view(bytes, *view); !decoded) {
        view = std::unexpected(std::move(decoded).error());
    }
    return view;
}

Result<void> decode_view(std::string_view bytes, RecordView& view) {
    if (bytes.size() < record_format::kFieldsOffset ||
        byte_at(bytes, record_format::kVersionOffset) != record_format::kVersion ||
        !known_kind(byte_at(bytes, record_format::kKindOffset))) {
        return bad_start(bytes);
    }
    view.kind = Kind{byte_at(bytes, record_format::kKindOffset)};
    FieldReader fields(bytes, record_format::kFieldsOffset, 0);
    while (!fields.done()) {
        if (!fields.next()) {
            return corrupt(fields.problem());
        }
        if (fields.tag() >= kFirstUnknown) {
            // Whatever follows is optional too, as the tags ascend.
            if (view.unknown_fields.empty()) {
                view.unknown_fields = bytes.substr(fields.offset());
            }
        } else if (auto read = read_field(fields, view); !read) {
            return read;
        }
    }
    if (view.claim_sequence == 0) {
        view.claim_sequence = view.sequence;
    }
    if (view.ns.empty()) {
        return missing(Tag::ns, bytes);
    }
    if (view.key.empty()) {
        return missing(Tag::key, bytes);
    }
    if (const auto problem = find_problem(view)) {
        return corrupt(static_cast<std::uint8_t>(problem->field), offset_of(problem->field, bytes),
                       problem->what);
    }
    return {};
}

Record to_record(const RecordView& view) {
    Record record;
    copy_to(view, record);
    return record;
}

void copy_to(const RecordView& view, Record& record) {
    record.kind = view.kind;
    record.ns = view.ns;
    record.key = view.key;
    record.sequence = view.sequence;
    record.claim_sequence = view.claim_sequence;
    record.timestamp_ms = view.timestamp_ms;
    record.expires_at_ms = view.expires_at_ms;
    record.ttl_ms = view.ttl_ms;
    record.lease_until_ms = view.lease_until_ms;
    record.attempt = view.attempt;
    record.owner = view.owner;
    record.fingerprint = view.fingerprint;
    record.event_id = view.event_id;
    if (view.has_receipt) {
        record.receipt.emplace(view.receipt);
    }
    record.metadata = view.metadata;
    record.hold = view.hold;
    record.began_ms = view.began_ms;
    record.unknown_fields = view.unknown_fields;
    if (VerdictView verdict;
        !view.verdict.empty() && split_verdict(view.verdict, verdict) == nullptr) {
        record.verdict = {Verdict::Kind{verdict.kind}, std::string(verdict.by),
                          std::string(verdict.reason)};
    }
    if (view.conflict_count == 0) {
        return;
    }
    record.conflict.count = view.conflict_count;
    std::array<std::string_view, kConflictFingerprintsMax> fingerprints;
    const auto found = split_fingerprints(view.conflict_fingerprints, fingerprints);
    record.conflict.fingerprints.assign(
        fingerprints.begin(),
        fingerprints.begin() + static_cast<std::ptrdiff_t>(found.value_or(0)));
}

Result<Record> decode(std::string_view bytes) {
    const auto view = decode_view(bytes);
    if (!view) {
        return std::unexpected(view.error());
    }
    return to_record(*view);
}

}  // namespace dedup
