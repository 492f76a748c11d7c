#include <doctest/doctest.h>

#include <algorithm>
#include <iterator>
#include <random>
#include <set>
#include <vector>

#include "record/codec.hpp"
#include "record/format.hpp"
#include "samples.hpp"

namespace dedup::test {
namespace {

void check_round_trip(const Record& record) {
    const auto checked = check_record(record);
    REQUIRE_MESSAGE(checked.has_value(), checked.error().message);
    const std::string bytes = encoded(record);
    CHECK(bytes.size() <= record_format::kRecordBytesMax);
    const auto decoded = decode(bytes);
    REQUIRE_MESSAGE(decoded.has_value(), decoded.error().message);
    CHECK(*decoded == record);
    CHECK(encoded(*decoded) == bytes);
}

std::string every_byte(std::size_t size) {
    std::string bytes(size, '\0');
    for (std::size_t i = 0; i < size; ++i) {
        bytes[i] = static_cast<char>(i & 0xff);
    }
    return bytes;
}

// Random records, biased to the edges: lengths around the varint's steps, integers of any width.
class Generator {
  public:
    explicit Generator(std::uint64_t seed) : random_(seed) {}

    Record record() {
        Record record;
        record.kind = one_in(4) ? Kind::tombstone : Kind::active;
        record.ns = ns();
        record.key = bytes(1, 300);
        record.sequence = one_in(8) ? 0 : integer();
        record.claim_sequence =
            one_in(2) || (record.sequence != 0 && one_in(2)) ? record.sequence : 1 + below(1000);
        record.timestamp_ms = time();
        record.expires_at_ms = time();
        record.attempt = one_in(2) ? 1 : 1 + static_cast<std::uint32_t>(below(0xffff'ffff));
        record.owner = bytes(0, 20);
        record.fingerprint = bytes(0, 40);
        record.event_id = bytes(0, 200);
        record.metadata = bytes(0, 20'000);
        if (record.kind == Kind::active && one_in(2)) {
            record.receipt = bytes(0, 40'000);
        } else if (record.kind == Kind::active) {
            record.ttl_ms = time();
            record.lease_until_ms = time();
            record.hold = record.expires_at_ms == 0 && one_in(2);
        }
        record.began_ms = one_in(3) ? time() : 0;
        if (one_in(3)) {
            record.verdict = {Verdict::Kind{static_cast<std::uint8_t>(1 + below(3))},
                              bytes(0, kLabelBytesMax), bytes(0, kReasonBytesMax)};
        }
        if (one_in(3)) {
            record.conflict = conflict();
        }
        if (one_in(5)) {
            record.unknown_fields = unknown_fields();
        }
        return record;
    }

  private:
    std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
    bool one_in(std::uint64_t n) { return below(n) == 0; }

    std::uint64_t integer() {
        const std::uint64_t value = random_() >> below(64);
        return value == 0 ? 1 : value;
    }

    std::int64_t time() { return one_in(3) ? 0 : static_cast<std::int64_t>(integer() >> 1); }

    std::string bytes(std::size_t size_min, std::size_t size_max) {
        constexpr std::size_t kEdges[] = {0, 1, 127, 128, 129, 16'383, 16'384};
        std::size_t size = one_in(2) ? kEdges[below(std::size(kEdges))] : below(64);
        size = std::clamp(size, size_min, size_max);
        std::string result(size, '\0');
        for (char& byte : result) {
            byte = static_cast<char>(below(256));
        }
        return result;
    }

    std::string ns() {
        std::string result = bytes(1, 255);
        for (char& byte : result) {
            byte = static_cast<char>(' ' + below('~' - ' ' + 1));
        }
        return result;
    }

    Conflict conflict() {
        Conflict result;
        std::set<std::string> seen;
        for (std::uint64_t left = below(kConflictFingerprintsMax + 1); left > 0; --left) {
            std::string fingerprint = bytes(1, kLabelBytesMax);
            if (seen.insert(fingerprint).second) {
                result.fingerprints.push_back(std::move(fingerprint));
            }
        }
        // An integer of any width, but never so large that adding the fingerprints wraps it.
        result.count = (integer() >> 4) + result.fingerprints.size() + 1;
        return result;
    }

    std::string unknown_fields() {
        std::string result;
        for (unsigned tag = 0x82; tag <= 0xff; tag += 1 + static_cast<unsigned>(below(60))) {
            const std::string payload = bytes(0, 127);
            result += static_cast<char>(tag);
            result += static_cast<char>(payload.size());
            result += payload;
        }
        return result;
    }

    std::mt19937_64 random_;
};

}  // namespace

// Guards against a field that is dropped, swapped with another or cut on its way to disk.
TEST_CASE("every sample comes back from its encoding unchanged") {
    for (const Sample& sample : samples()) {
        CAPTURE(sample.name);
        check_round_trip(sample.record);
    }
}

// Guards against treating keys and payloads as text: trimming, ending at a zero byte, folding.
TEST_CASE("byte fields hold any bytes") {
    for (const std::size_t size : {1U, 2U, 127U, 128U, 256U, 1024U}) {
        CAPTURE(size);
        Record record = minimal_claim();
        record.key = every_byte(size);
        record.owner = every_byte(size);
        record.fingerprint = every_byte(size);
        record.event_id = every_byte(size);
        record.receipt = every_byte(size * 64);
        record.metadata = every_byte(size * 64);
        record.conflict = {1, {every_byte(size)}};
        check_round_trip(record);
    }
}

// Guards against an encoding that loses bits at the widths where its form changes.
TEST_CASE("integers of every width come back") {
    for (unsigned bit = 0; bit < 64; ++bit) {
        const std::uint64_t power = std::uint64_t{1} << bit;
        for (const std::uint64_t value : {power - 1, power, power + 1}) {
            CAPTURE(value);
            Record record = minimal_claim();
            record.sequence = value;
            record.claim_sequence = value == 0 ? 0 : ~value | 1;
            record.conflict.count = value;
            record.timestamp_ms = static_cast<std::int64_t>(value >> 1);
            record.expires_at_ms = static_cast<std::int64_t>(value >> 1);
            record.ttl_ms = static_cast<std::int64_t>(value >> 1);
            record.lease_until_ms = static_cast<std::int64_t>(value >> 1);
            record.attempt = 1 + static_cast<std::uint32_t>((value >> 1) % 0xffff'ffff);
            check_round_trip(record);
        }
    }
}

// Guards against combinations that nobody thought of. The seed is fixed: a failure repeats.
TEST_CASE("random records come back") {
    Generator generator(20'240'501);
    for (int i = 0; i < 5000; ++i) {
        CAPTURE(i);
        check_round_trip(generator.record());
    }
}

// Guards against a receipt of no bytes being taken for no receipt, which would run the work again.
TEST_CASE("an empty receipt is not the same as none") {
    Record record = minimal_claim();
    const std::string in_flight = encoded(record);
    record.receipt = "";
    const std::string completed = encoded(record);
    CHECK(in_flight != completed);
    CHECK(decode(in_flight)->state() == State::in_flight);
    CHECK(decode(completed)->state() == State::completed);
}

// Guards against a fence that is lost or made up when the store assigns the sequence.
TEST_CASE("encode_as assigns the sequence and, where there is no fence yet, the fence") {
    const auto encoded_as = [](const Record& record, std::uint64_t sequence) {
        std::string bytes;
        encode_as(record, sequence, bytes);
        return *decode(bytes);
    };
    Record record = minimal_claim();
    record.sequence = 0;
    record.claim_sequence = 0;
    CHECK(encoded_as(record, 42).sequence == 42);
    CHECK(encoded_as(record, 42).claim_sequence == 42);

    record.sequence = 9;  // of the head that it was copied from; must not matter
    record.claim_sequence = 7;
    CHECK(encoded_as(record, 42).sequence == 42);
    CHECK(encoded_as(record, 42).claim_sequence == 7);
    CHECK(encoded_as(record, 7).claim_sequence == 7);
}

// Guards against claims that grow by a stored fence which says nothing new.
TEST_CASE("a fence equal to the sequence takes no room") {
    Record record = minimal_claim();
    const std::size_t bytes = encoded(record).size();
    record.sequence = 2;
    CHECK(encoded(record).size() > bytes);
    record.claim_sequence = 2;
    CHECK(encoded(record).size() == bytes);
}

// Guards against encode overwriting the frames that a group has queued in the same buffer.
TEST_CASE("encode appends") {
    std::string bytes = "before";
    encode(minimal_claim(), bytes);
    encode(completed_claim(), bytes);
    CHECK(bytes == "before" + encoded(minimal_claim()) + encoded(completed_claim()));
}

// Guards against the view and the record drifting apart: recovery reads one, callers the other.
TEST_CASE("the view shows what the record holds") {
    for (const Sample& sample : samples()) {
        CAPTURE(sample.name);
        const std::string bytes = encoded(sample.record);
        const auto view = decode_view(bytes);
        REQUIRE(view.has_value());
        CHECK(view->ns == sample.record.ns);
        CHECK(view->key == sample.record.key);
        CHECK(view->sequence == sample.record.sequence);
        CHECK(view->claim_sequence == sample.record.claim_sequence);
        CHECK(view->expires_at_ms == sample.record.expires_at_ms);
        CHECK(view->state() == sample.record.state());
        CHECK(to_record(*view) == sample.record);
        // Not a copy: the key lies within the encoded bytes.
        CHECK(view->key.data() > bytes.data());
        CHECK(view->key.data() < bytes.data() + bytes.size());
    }
}

}  // namespace dedup::test
