#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "record/format.hpp"
#include "samples.hpp"

namespace dedup::test {
namespace {

struct Limit {
    std::string field;
    std::size_t size_max;
    std::function<void(Record&, std::string)> set;
};

std::vector<Limit> limits() {
    const auto set_conflict = [](Record& r, std::string v) { r.conflict = {1, {std::move(v)}}; };
    const auto set_name = [](Record& r, std::string v) {
        r.verdict.kind = Verdict::Kind::held;
        r.verdict.by = std::move(v);
    };
    const auto set_reason = [](Record& r, std::string v) {
        r.verdict.kind = Verdict::Kind::held;
        r.verdict.reason = std::move(v);
    };
    return {
        {"namespace", 255, [](Record& r, std::string v) { r.ns = std::move(v); }},
        {"key", 1024, [](Record& r, std::string v) { r.key = std::move(v); }},
        {"owner", 1024, [](Record& r, std::string v) { r.owner = std::move(v); }},
        {"fingerprint", 1024, [](Record& r, std::string v) { r.fingerprint = std::move(v); }},
        {"event_id", 1024, [](Record& r, std::string v) { r.event_id = std::move(v); }},
        {"receipt", 16 * 1024 * 1024, [](Record& r, std::string v) { r.receipt = std::move(v); }},
        {"metadata", 64 * 1024, [](Record& r, std::string v) { r.metadata = std::move(v); }},
        {"conflict", 1024, set_conflict},
        {"verdict", 1024, set_name},
        {"verdict", 4096, set_reason},
    };
}

std::string refusal(const Record& record) {
    const auto checked = check_record(record);
    REQUIRE_FALSE(checked.has_value());
    CHECK(checked.error().code == Code::invalid_argument);
    return checked.error().message;
}

std::vector<std::string> numbered(std::size_t count) {
    std::vector<std::string> fingerprints;
    for (std::size_t i = 0; i < count; ++i) {
        fingerprints.push_back("fp" + std::to_string(i));
    }
    return fingerprints;
}

}  // namespace

// Guards against limits that are off by one, or that the writer knows and the reader does not: a
// record that was accepted must be readable, and one that was refused must not come from a file.
TEST_CASE("byte fields are taken up to their limit and refused above, by both sides") {
    for (const Limit& limit : limits()) {
        CAPTURE(limit.field);
        Record record = minimal_claim();
        limit.set(record, std::string(limit.size_max, 'x'));
        REQUIRE(check_record(record).has_value());
        CHECK(decode(encoded(record)) == record);

        limit.set(record, std::string(limit.size_max + 1, 'x'));
        CHECK(refusal(record).starts_with(limit.field + " "));
        CHECK(refusal(record).find("at most") != std::string::npos);
        const auto decoded = decode(encoded(record));
        REQUIRE_FALSE(decoded.has_value());
        CHECK(decoded.error().code == Code::corruption);
        CHECK(decoded.error().message.find(limit.field + " at byte ") != std::string::npos);
    }
}

// Guards against a frame size that holds for usual records only.
TEST_CASE("the largest record that is allowed stays within kRecordBytesMax") {
    Record record = every_field_in_flight();
    for (const Limit& limit : limits()) {
        limit.set(record, std::string(limit.size_max, 'x'));
    }
    record.ttl_ms = 0;  // the receipt has completed the record
    record.lease_until_ms = 0;
    record.began_ms = record.timestamp_ms;
    record.conflict.count = ~std::uint64_t{0};
    record.conflict.fingerprints = {};
    for (char c = 'a'; c < 'a' + static_cast<int>(kConflictFingerprintsMax); ++c) {
        record.conflict.fingerprints.emplace_back(1024, c);
    }
    const std::size_t unknown_bytes = record_format::kUnknownFieldsBytesMax;
    record.unknown_fields = "\x82\xfc\xff\x3f" + std::string(unknown_bytes - 4, 'u');
    REQUIRE(check_record(record).has_value());
    const std::string bytes = encoded(record);
    CHECK(bytes.size() <= record_format::kRecordBytesMax);
    CHECK(bytes.size() > record_format::kRecordBytesMax - 130);
    CHECK(decode(bytes) == record);

    record.unknown_fields = "\x82\xfd\xff\x3f" + std::string(unknown_bytes - 3, 'u');
    CHECK(refusal(record) == "unknown_fields is 1,048,577 bytes; at most 1,048,576 are allowed");
    CHECK_FALSE(decode(encoded(record)).has_value());
}

// Guards against messages that leave the user guessing which argument was wrong, and how.
TEST_CASE("keys and namespaces are refused with the reason") {
    CHECK(check_key("k").has_value());
    CHECK(check_key(std::string_view("\0", 1)).has_value());
    CHECK(check_key("").error().message == "key is empty; it needs 1 to 1,024 bytes");
    CHECK(check_key(std::string(1025, 'k')).error().message ==
          "key is 1,025 bytes; at most 1,024 are allowed");
    CHECK(check_key("").error().code == Code::invalid_argument);

    CHECK(check_namespace(" a:b/c ~").has_value());
    CHECK(check_namespace("").error().message == "namespace is empty; it needs 1 to 255 bytes");
    CHECK(check_namespace(std::string(256, 'n')).error().message ==
          "namespace is 256 bytes; at most 255 are allowed");
    CHECK(check_namespace("ab\n").error().message ==
          "namespace has byte 0x0a at position 2; only printable ASCII is allowed");
    for (unsigned byte = 0; byte < 256; ++byte) {
        CAPTURE(byte);
        const std::string ns = std::string("x") + static_cast<char>(byte);
        CHECK(check_namespace(ns).has_value() == (byte >= 0x20 && byte <= 0x7e));
        Record record = minimal_claim();
        record.ns = ns;
        CHECK(decode(encoded(record)).has_value() == (byte >= 0x20 && byte <= 0x7e));
    }
}

// Guards against records whose fields contradict each other, such as a released key that still
// has a receipt.
TEST_CASE("fields that do not fit together are refused by both sides") {
    struct Misfit {
        std::string message;
        std::function<void(Record&)> make;
    };
    const std::vector<Misfit> misfits = {
        {"receipt is set in a tombstone, which has none",
         [](Record& r) { r.kind = Kind::tombstone, r.receipt = ""; }},
        {"ttl_ms is set in a record that is not in flight",
         [](Record& r) { r.kind = Kind::tombstone, r.ttl_ms = 1; }},
        {"lease_until_ms is set in a record that is not in flight",
         [](Record& r) { r.kind = Kind::tombstone, r.lease_until_ms = 1; }},
        {"ttl_ms is set in a record that is not in flight",
         [](Record& r) { r.receipt = "", r.ttl_ms = 1; }},
        {"lease_until_ms is set in a record that is not in flight",
         [](Record& r) { r.receipt = "", r.lease_until_ms = 1; }},
        {"conflict counts 1 requests but has 2 fingerprints",
         [](Record& r) {
             r.conflict = {1, numbered(2)};
         }},
        {"conflict has an empty fingerprint, number 2",
         [](Record& r) {
             r.conflict = {9, {"a", ""}};
         }},
        {"conflict has one fingerprint twice, the second time as number 3",
         [](Record& r) {
             r.conflict = {9, {"a", "b", "a"}};
         }},
        {"namespace is empty; it needs 1 to 255 bytes", [](Record& r) { r.ns = ""; }},
        {"key is empty; it needs 1 to 1,024 bytes", [](Record& r) { r.key = ""; }},
        {"attempt is 0; the first attempt is 1", [](Record& r) { r.attempt = 0; }},
        {"timestamp_ms is -1; times are never negative", [](Record& r) { r.timestamp_ms = -1; }},
        {"expires_at_ms is -2; times are never negative", [](Record& r) { r.expires_at_ms = -2; }},
        {"ttl_ms is -3; times are never negative", [](Record& r) { r.ttl_ms = -3; }},
        {"lease_until_ms is -4; times are never negative",
         [](Record& r) { r.lease_until_ms = -4; }},
        {"kind is 0; only active (1) and tombstone (2) exist", [](Record& r) { r.kind = Kind{0}; }},
        {"kind is 3; only active (1) and tombstone (2) exist", [](Record& r) { r.kind = Kind{3}; }},
    };
    for (const Misfit& misfit : misfits) {
        CAPTURE(misfit.message);
        Record record = minimal_claim();
        misfit.make(record);
        CHECK(refusal(record) == misfit.message);
        const auto decoded = decode(encoded(record));
        REQUIRE_FALSE(decoded.has_value());
        CHECK(decoded.error().code == Code::corruption);
    }
}

// Guards against a conflict record that grows with every wrong request.
TEST_CASE("a conflict record holds up to eight fingerprints and any count") {
    Record record = minimal_claim();
    record.conflict = {1'000'000, numbered(8)};
    REQUIRE(check_record(record).has_value());
    CHECK(decode(encoded(record)) == record);
    record.conflict = {1'000'000, numbered(9)};
    CHECK(refusal(record) == "conflict has 9 fingerprints; at most 8 are allowed");
    CHECK_FALSE(decode(encoded(record)).has_value());
    record.conflict = {1, {}};
    CHECK(decode(encoded(record)) == record);
    record.conflict = {0, {"x"}};
    CHECK(refusal(record) == "conflict counts 0 requests but has 1 fingerprints");
}

// Guards against a stored record whose fence would change when it is read back.
TEST_CASE("a record with a sequence has a fence") {
    Record record = minimal_claim();
    record.claim_sequence = 0;
    CHECK(refusal(record) ==
          "claim_sequence is 0 in a record with sequence 1; it may be 0 only before the append");
    record.sequence = 0;
    CHECK(check_record(record).has_value());
}

// Guards against a writer that appends unknown fields which no reader can step over.
TEST_CASE("unknown fields must be well-formed optional fields") {
    using namespace std::string_literals;
    for (const std::string& good : {""s, "\x82\x00"s, "\x82\x01x\x83\x00\xff\x00"s}) {
        Record record = minimal_claim();
        record.unknown_fields = good;
        CHECK(check_record(record).has_value());
    }
    for (const std::string& bad : {"\x7f\x00"s, "\x81\x00"s, "\x82"s, "\x82\x01"s, "\x82\x80\x00"s,
                                   "\x83\x00\x82\x00"s, "\x82\x00\x82\x00"s, "\x82\x00x"s}) {
        Record record = minimal_claim();
        record.unknown_fields = bad;
        CHECK(refusal(record).starts_with("unknown_fields are malformed: "));
        CHECK_FALSE(decode(encoded(record)).has_value());
    }
}

}  // namespace dedup::test
