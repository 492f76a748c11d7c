#include "postgres/head_rows.hpp"

#include <fmt/format.h>

#include <tuple>

#include "contract/capacity.hpp"
#include "postgres/statements.hpp"
#include "postgres/wire.hpp"
#include "record/sha256.hpp"
#include "record/try.hpp"

namespace dedup::pg {
namespace {

constexpr std::uint64_t kRowBytes = 192;

// What has no column of its own: in the library's own encoding, of a record without anything else.
std::string encode_rest(const Record& record) {
    std::string bytes;
    if (record.conflict == Conflict() && !record.hold && record.began_ms == 0 &&
        record.verdict == Verdict() && record.unknown_fields.empty()) {
        return bytes;
    }
    Record rest;
    rest.ns = "-";
    rest.key = "-";
    rest.conflict = record.conflict;
    rest.hold = record.hold;
    rest.began_ms = record.began_ms;
    rest.verdict = record.verdict;
    rest.unknown_fields = record.unknown_fields;
    encode(rest, bytes);
    return bytes;
}

Result<void> decode_rest(std::string_view bytes, Record& record) {
    if (bytes.empty()) {
        return {};
    }
    auto rest = DEDUP_TRY(decode(bytes));
    record.conflict = std::move(rest.conflict);
    // The functions of format 2 left the flag behind when they ended a claim.
    record.hold = rest.hold && record.state() == State::in_flight;
    record.began_ms = rest.began_ms;
    record.verdict = std::move(rest.verdict);
    record.unknown_fields = std::move(rest.unknown_fields);
    return {};
}

std::int64_t as_signed(std::uint64_t value) {
    return static_cast<std::int64_t>(value);
}

}  // namespace

std::int16_t bucket_of(StreamKey stream) {
    std::string name;
    name.reserve(stream.ns.size() + 1 + stream.key.size());
    name += stream.ns;
    name += '\0';
    name += stream.key;
    return static_cast<std::int16_t>(sha256(name)[0] >> 20U & 1023U);  // see schema.cpp
}

std::uint64_t head_bytes(const Record& record) {
    const std::uint64_t texts = record.ns.size() + record.key.size() + record.owner.size() +
                                record.fingerprint.size() + record.event_id.size() +
                                record.metadata.size();
    return kRowBytes + texts + (record.receipt ? record.receipt->size() : 0) +
           encode_rest(record).size();
}

bool before(const Row& a, const Row& b) {
    const Record& left = a.item->record;
    const Record& right = b.item->record;
    return std::tie(a.bucket, left.ns, left.key) < std::tie(b.bucket, right.ns, right.key);
}

std::vector<std::string> batch_parameters(std::span<const Row> rows, bool expected) {
    std::vector<ArrayWriter> arrays;
    arrays.reserve(kColumns.size());
    for (const Column& column : kColumns) {
        arrays.emplace_back(column.type);
    }
    const auto at = [&](At column) -> ArrayWriter& {
        return arrays[static_cast<std::size_t>(column)];
    };
    for (const Row& row : rows) {
        const Record& record = row.item->record;
        at(At::bucket).number(row.bucket);
        at(At::ns).bytes(record.ns);
        at(At::key).bytes(record.key);
        at(At::sequence).number(as_signed(row.sequence));
        at(At::fence).number(
            as_signed(record.claim_sequence == 0 ? row.sequence : record.claim_sequence));
        at(At::state).number(static_cast<std::int16_t>(record.state()));
        at(At::attempt).number(std::int64_t{record.attempt});
        at(At::timestamp_ms).number(record.timestamp_ms);
        at(At::expires_ms).number(record.expires_at_ms);
        at(At::expiry_slot).number(expiry_slot(record.expires_at_ms));
        at(At::ttl_ms).number(record.ttl_ms);
        at(At::lease_until_ms).number(record.lease_until_ms);
        at(At::owner).bytes(record.owner);
        at(At::fingerprint).bytes(record.fingerprint);
        at(At::event_id).bytes(record.event_id);
        if (record.receipt) {
            at(At::receipt).bytes(*record.receipt);
        } else {
            at(At::receipt).null();
        }
        at(At::metadata).bytes(record.metadata);
        at(At::rest).bytes(encode_rest(record));
        at(At::expected).number(as_signed(row.item->expected_sequence));
    }
    std::vector<std::string> parameters;
    for (std::size_t i = 0; i < (expected ? arrays.size() : arrays.size() - 1); ++i) {
        if (!kColumns[i].varies) {
            arrays[i].fold();
        }
        parameters.push_back(arrays[i].finish());
    }
    return parameters;
}

std::vector<std::string> stream_parameters(std::span<const StreamKey> streams) {
    ArrayWriter buckets(Type::int2);
    ArrayWriter namespaces(Type::text);
    ArrayWriter keys(Type::bytea);
    ArrayWriter numbers(Type::int4);
    std::int32_t number = 0;
    for (const StreamKey& stream : streams) {
        buckets.number(bucket_of(stream));
        namespaces.bytes(stream.ns);
        keys.bytes(stream.key);
        numbers.number(number++);
    }
    return {buckets.finish(), namespaces.finish(), keys.finish(), numbers.finish()};
}

Result<std::size_t> asked_for(const Table& table, std::size_t row, int column, std::size_t asked) {
    const auto number = static_cast<std::size_t>(table.number(row, column));
    if (table.is_null(row, column) || number >= asked) {
        return std::unexpected(
            Error{Code::corruption,
                  "the server's answer is about a key that it was not asked for; see which server, "
                  "or pooler, the store's URL leads to"});
    }
    return number;
}

Result<Record> read_head(const Table& table, std::size_t row) {
    const auto number = [&](At column) { return table.number(row, read_place(column)); };
    const auto bytes = [&](At column) { return table.bytes(row, read_place(column)); };
    Record record;
    const auto state = static_cast<State>(number(At::state));
    record.kind = state == State::released ? Kind::tombstone : Kind::active;
    record.ns = bytes(At::ns);
    record.key = bytes(At::key);
    record.sequence = static_cast<std::uint64_t>(number(At::sequence));
    record.claim_sequence = static_cast<std::uint64_t>(number(At::fence));
    record.attempt = static_cast<std::uint32_t>(number(At::attempt));
    record.timestamp_ms = number(At::timestamp_ms);
    record.expires_at_ms = number(At::expires_ms);
    record.ttl_ms = number(At::ttl_ms);
    record.lease_until_ms = number(At::lease_until_ms);
    record.owner = bytes(At::owner);
    record.fingerprint = bytes(At::fingerprint);
    record.event_id = bytes(At::event_id);
    if (!table.is_null(row, read_place(At::receipt))) {
        record.receipt = bytes(At::receipt);
    }
    record.metadata = bytes(At::metadata);
    Result<void> read = decode_rest(bytes(At::rest), record);
    if (read) {
        read = check_record(record);
    }
    if (read && state != record.state()) {
        read = std::unexpected(Error{Code::corruption, "its state and its receipt disagree"});
    }
    if (!read) {
        return std::unexpected(Error{
            .code = Code::corruption,
            .message = fmt::format("the row of stream {} in the database is none that this "
                                   "library writes: {}; correct or delete it",
                                   stream_name(record.ns, record.key), read.error().message)});
    }
    return record;
}

}  // namespace dedup::pg
