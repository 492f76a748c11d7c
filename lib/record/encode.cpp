#include <bit>
#include <cassert>
#include <cstring>

#include "record/codec.hpp"
#include "record/format.hpp"

namespace dedup {
namespace {

using record_format::Tag;

// Writes fields into room that the caller has made. Nothing here checks for its end: room_for()
// says beforehand how much any record can need.
class Writer {
  public:
    explicit Writer(char* position) : position_(position) {}

    [[nodiscard]] char* position() const { return position_; }

    void byte(std::uint8_t value) { *position_++ = static_cast<char>(value); }

    void varint(std::uint64_t value) {
        for (; value >= 0x80; value >>= 7) {
            byte(static_cast<std::uint8_t>(value | 0x80));
        }
        byte(static_cast<std::uint8_t>(value));
    }

    void raw(std::string_view bytes) {
        if (!bytes.empty()) {
            std::memcpy(position_, bytes.data(), bytes.size());
            position_ += bytes.size();
        }
    }

    void bytes_field(Tag tag, std::string_view payload) {
        byte(static_cast<std::uint8_t>(tag));
        varint(payload.size());
        raw(payload);
    }

    void label(Tag tag, std::string_view payload) {
        if (!payload.empty()) {
            bytes_field(tag, payload);
        }
    }

    void integer(Tag tag, std::uint64_t value, std::uint64_t value_default = 0) {
        if (value == value_default) {
            return;
        }
        const auto length = static_cast<std::uint8_t>((std::bit_width(value) + 7) / 8);
        byte(static_cast<std::uint8_t>(tag));
        byte(length);
        // All eight bytes in one store; what is above `length` is zero and gets overwritten.
        for (unsigned i = 0; i < record_format::kIntegerBytesMax; ++i) {
            position_[i] = static_cast<char>(value >> (8 * i));
        }
        position_ += length;
    }

    void time(Tag tag, std::int64_t value_ms) {
        integer(tag, static_cast<std::uint64_t>(value_ms));
    }

  private:
    char* position_;
};

constexpr std::size_t varint_bytes(std::uint64_t value) {
    return value == 0 ? 1 : (static_cast<std::size_t>(std::bit_width(value)) + 6) / 7;
}

static_assert(varint_bytes(0x7f) == 1 && varint_bytes(0x80) == 2);
static_assert(varint_bytes(~std::uint64_t{0}) == record_format::kVarintBytesMax);

std::size_t conflict_bytes(const Conflict& conflict) {
    std::size_t bytes = varint_bytes(conflict.count);
    for (const std::string& fingerprint : conflict.fingerprints) {
        bytes += varint_bytes(fingerprint.size()) + fingerprint.size();
    }
    return bytes;
}

bool has_conflict(const Conflict& conflict) {
    return conflict.count != 0 || !conflict.fingerprints.empty();
}

void write_conflict(Writer& writer, const Conflict& conflict) {
    writer.byte(static_cast<std::uint8_t>(Tag::conflict));
    writer.varint(conflict_bytes(conflict));
    writer.varint(conflict.count);
    for (const std::string& fingerprint : conflict.fingerprints) {
        writer.varint(fingerprint.size());
        writer.raw(fingerprint);
    }
}

std::size_t verdict_bytes(const Verdict& verdict) {
    return 1 + varint_bytes(verdict.by.size()) + verdict.by.size() + verdict.reason.size();
}

void write_verdict(Writer& writer, const Verdict& verdict) {
    writer.byte(static_cast<std::uint8_t>(Tag::verdict));
    writer.varint(verdict_bytes(verdict));
    writer.byte(static_cast<std::uint8_t>(verdict.kind));
    writer.varint(verdict.by.size());
    writer.raw(verdict.by);
    writer.raw(verdict.reason);
}

// At least as many bytes as the encoding can take. Holds for any record, checked or not, so that
// a forgotten check costs an undecodable record and not memory.
std::size_t room_for(const Record& record) {
    constexpr std::size_t kFixed = record_format::kFieldsOffset +
                                   (record_format::kIntegerFields + record_format::kByteFields) *
                                       (record_format::kTagBytes + record_format::kVarintBytesMax) +
                                   record_format::kIntegerFields * record_format::kIntegerBytesMax;
    std::size_t room = kFixed + record.ns.size() + record.key.size() + record.owner.size() +
                       record.fingerprint.size() + record.event_id.size() + record.metadata.size() +
                       record.unknown_fields.size();
    if (record.receipt) {
        room += record.receipt->size();
    }
    if (has_conflict(record.conflict)) {
        room += conflict_bytes(record.conflict);
    }
    if (record.verdict.kind != Verdict::Kind::none) {
        room += verdict_bytes(record.verdict);
    }
    return room;
}

void write_record(Writer& writer, const Record& record, std::uint64_t sequence) {
    const std::uint64_t claim_sequence =
        record.claim_sequence == 0 ? sequence : record.claim_sequence;
    writer.byte(record_format::kVersion);
    writer.byte(static_cast<std::uint8_t>(record.kind));
    writer.bytes_field(Tag::ns, record.ns);
    writer.bytes_field(Tag::key, record.key);
    writer.integer(Tag::sequence, sequence);
    writer.integer(Tag::claim_sequence, claim_sequence, sequence);
    writer.time(Tag::timestamp_ms, record.timestamp_ms);
    writer.time(Tag::expires_at_ms, record.expires_at_ms);
    writer.time(Tag::ttl_ms, record.ttl_ms);
    writer.time(Tag::lease_until_ms, record.lease_until_ms);
    writer.integer(Tag::attempt, record.attempt, record_format::kAttemptDefault);
    writer.label(Tag::owner, record.owner);
    writer.label(Tag::fingerprint, record.fingerprint);
    writer.label(Tag::event_id, record.event_id);
    if (record.receipt) {
        writer.bytes_field(Tag::receipt, *record.receipt);
    }
    writer.label(Tag::metadata, record.metadata);
    if (has_conflict(record.conflict)) {
        write_conflict(writer, record.conflict);
    }
    writer.integer(Tag::hold, record.hold ? 1 : 0);
    writer.time(Tag::began_ms, record.began_ms);
    if (record.verdict.kind != Verdict::Kind::none) {
        write_verdict(writer, record.verdict);
    }
    writer.raw(record.unknown_fields);
}

}  // namespace

void encode_as(const Record& record, std::uint64_t sequence, std::string& out) {
    const std::size_t before = out.size();
    out.resize_and_overwrite(before + room_for(record), [&](char* begin, std::size_t size) {
        Writer writer(begin + before);
        write_record(writer, record, sequence);
        const auto written = static_cast<std::size_t>(writer.position() - begin);
        assert(written <= size);
        static_cast<void>(size);
        return written;
    });
}

void encode(const Record& record, std::string& out) {
    encode_as(record, record.sequence, out);
}

}  // namespace dedup
