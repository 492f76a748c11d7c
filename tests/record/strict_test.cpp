#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "record/codec.hpp"
#include "samples.hpp"
#include "support/hex.hpp"

namespace dedup::test {
namespace {

// Decoding `bytes` must fail with a message, or give a record that encodes to just these bytes.
void check_error_or_same(const std::string& bytes) {
    // A copy of exactly this size, so that a sanitizer sees any read behind its end.
    const std::vector<char> exact(bytes.begin(), bytes.end());
    const std::string_view view(exact.data(), exact.size());
    const auto decoded = decode(view);
    if (!decoded) {
        const Code code = decoded.error().code;
        CHECK((code == Code::corruption || code == Code::unsupported_version));
        CHECK(decoded.error().message.starts_with("record: "));
        return;
    }
    CHECK(check_record(*decoded).has_value());
    CHECK(encoded(*decoded) == bytes);
}

// `hex` is what follows the smallest valid start: version, kind, namespace "n" and key "k", which
// fill bytes 0 to 7.
Error error_after_key(const std::string& hex) {
    const auto bytes = from_hex("01 01 01 01 6e 02 01 6b " + hex);
    REQUIRE(bytes.has_value());
    const auto decoded = decode(*bytes);
    REQUIRE_FALSE(decoded.has_value());
    return decoded.error();
}

Error error_of(const std::string& hex) {
    const auto bytes = from_hex(hex);
    REQUIRE(bytes.has_value());
    const auto decoded = decode(*bytes);
    REQUIRE_FALSE(decoded.has_value());
    return decoded.error();
}

struct Malformed {
    std::string hex;
    std::string message;  // after "record: "
};

void check_corrupt(const std::vector<Malformed>& cases) {
    for (const Malformed& malformed : cases) {
        CAPTURE(malformed.hex);
        const Error error = error_after_key(malformed.hex);
        CHECK(error.code == Code::corruption);
        CHECK(error.message == "record: " + malformed.message);
    }
}

}  // namespace

// Guards against reading past the end of a torn record, or taking half of one for a whole.
TEST_CASE("every truncation is an error or a valid shorter record") {
    for (const Sample& sample : samples()) {
        CAPTURE(sample.name);
        const std::string bytes = encoded(sample.record);
        for (std::size_t size = 0; size < bytes.size(); ++size) {
            CAPTURE(size);
            check_error_or_same(bytes.substr(0, size));
        }
    }
}

// Guards against two encodings of one record, and against bytes that the reader does not look at.
TEST_CASE("every change of one byte is an error or another valid record") {
    for (const Sample& sample : samples()) {
        CAPTURE(sample.name);
        std::string bytes = encoded(sample.record);
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            CAPTURE(i);
            const char before = bytes[i];
            for (unsigned change = 1; change < 256; ++change) {
                bytes[i] = static_cast<char>(static_cast<unsigned char>(before) ^ change);
                check_error_or_same(bytes);
            }
            bytes[i] = before;
        }
    }
}

// Guards against a decoder that stops at the last field that it likes.
TEST_CASE("trailing bytes are never skipped") {
    for (const Sample& sample : samples()) {
        CAPTURE(sample.name);
        const std::string bytes = encoded(sample.record);
        for (unsigned byte = 0; byte < 256; ++byte) {
            // One byte more cannot be a field.
            CHECK_FALSE(decode(bytes + static_cast<char>(byte)).has_value());
            check_error_or_same(bytes + static_cast<char>(byte) + '\0');
        }
    }
}

// Guards against misreading another version's record as this one's.
TEST_CASE("the start of a record is checked") {
    CHECK(error_of("").message == "record: it is empty; the format version is missing at byte 0");
    CHECK(error_of("").code == Code::corruption);
    CHECK(error_of("01").message == "record: it ends at byte 1, where its kind is missing");
    CHECK(error_of("00 01").message ==
          "record: format version at byte 0 is 0, which no version uses");
    CHECK(error_of("00 01").code == Code::corruption);
    CHECK(error_of("02 01").message ==
          "record: format version at byte 0 is 2; this library reads up to 1");
    CHECK(error_of("02").code == Code::unsupported_version);
    CHECK(error_of("ff 01").code == Code::unsupported_version);
    CHECK(error_of("01 03").message ==
          "record: kind at byte 1 is 3; only active (1) and tombstone (2) exist");
    CHECK(error_of("01 00").code == Code::corruption);
    CHECK(error_of("01 01").message == "record: namespace is missing at byte 2");
    CHECK(error_of("01 01 02 01 6b").message == "record: namespace is missing at byte 2");
    CHECK(error_of("01 01 01 01 6e").message == "record: key is missing at byte 5");
    CHECK(error_of("01 01 01 01 6e 03 01 05").message == "record: key is missing at byte 5");
    CHECK(error_of("01 01 01 01 09 02 01 6b").message ==
          "record: namespace at byte 2 has byte 0x09 at position 0; only printable ASCII is "
          "allowed");
}

// Guards against a second way to write a number: equal records would differ in bytes.
TEST_CASE("lengths and integers come in their shortest form only") {
    check_corrupt({
        {"0a 81 00 77", "owner at byte 8 has a length that is not in its shortest form"},
        {"0a 80 80 80 80 80 00", "owner at byte 8 has a length that has too many bytes"},
        {"0a", "owner at byte 8 has a length that is cut off"},
        {"0a 80", "owner at byte 8 has a length that is cut off"},
        {"0a 02 77", "owner at byte 8 is 2 bytes long, but only 1 are left"},
        {"03 02 05 00", "sequence at byte 8 is an integer with a trailing zero byte"},
        {"03 01 00", "sequence at byte 8 is an integer with a trailing zero byte"},
        {"03 00", "sequence at byte 8 is stored although it is empty"},
        {"03 09 01 02 03 04 05 06 07 08 09",
         "sequence at byte 8 is an integer of more than 8 bytes"},
        {"05 08 ff ff ff ff ff ff ff ff",
         "timestamp_ms at byte 8 is an integer above the field's maximum"},
        {"06 08 00 00 00 00 00 00 00 80",
         "expires_at_ms at byte 8 is an integer above the field's maximum"},
        {"07 08 00 00 00 00 00 00 00 80",
         "ttl_ms at byte 8 is an integer above the field's maximum"},
        {"08 08 00 00 00 00 00 00 00 80",
         "lease_until_ms at byte 8 is an integer above the field's maximum"},
        {"09 05 01 00 00 00 01", "attempt at byte 8 is an integer above the field's maximum"},
    });
}

// Guards against fields that are stored although they say nothing: again two ways to write a
// record.
TEST_CASE("default values are not stored") {
    check_corrupt({
        {"03 01 05 04 01 05", "claim_sequence at byte 11 is stored with its default value"},
        {"04 01 00", "claim_sequence at byte 8 is an integer with a trailing zero byte"},
        {"09 01 01", "attempt at byte 8 is stored with its default value"},
        {"0a 00", "owner at byte 8 is stored although it is empty"},
        {"0b 00", "fingerprint at byte 8 is stored although it is empty"},
        {"0c 00", "event_id at byte 8 is stored although it is empty"},
        {"0e 00", "metadata at byte 8 is stored although it is empty"},
        {"0f 00", "conflict at byte 8 is stored although it is empty"},
        {"0f 01 00",
         "conflict at byte 8 counts 0 requests, its default value, which is never "
         "stored"},
    });
}

// Guards against a later field silently replacing an earlier one.
TEST_CASE("tags ascend and none comes twice") {
    check_corrupt({
        {"02 01 6c", "key at byte 8 is out of order: tag 0x02 comes after 0x02"},
        {"0b 01 66 0a 01 77", "owner at byte 11 is out of order: tag 0x0a comes after 0x0b"},
        {"00 00", "tag at byte 8 is 0, which no field uses"},
        {"83 00 82 00", "field 0x82 at byte 10 is out of order: tag 0x82 comes after 0x83"},
        {"83 00 83 00", "field 0x83 at byte 10 is out of order: tag 0x83 comes after 0x83"},
        {"83 00 0a 01 77", "owner at byte 10 is out of order: tag 0x0a comes after 0x83"},
        {"83 00 80 01 77", "began_ms at byte 10 is out of order: tag 0x80 comes after 0x83"},
        {"83 05", "field 0x83 at byte 8 is 5 bytes long, but only 0 are left"},
        {"83 81 00 00", "field 0x83 at byte 8 has a length that is not in its shortest form"},
    });
}

// Guards against a damaged conflict record, whose inner lengths come from the file too.
TEST_CASE("conflict records are read strictly") {
    check_corrupt({
        {"0f 02 81 00", "conflict at byte 8 has a count that is not in its shortest form"},
        {"0f 01 81", "conflict at byte 8 has a count that is cut off"},
        {"0f 0a ff ff ff ff ff ff ff ff ff 02",
         "conflict at byte 8 has a count that does not fit 64 bits"},
        {"0f 0b ff ff ff ff ff ff ff ff ff 81 00",
         "conflict at byte 8 has a count that does not fit 64 bits"},
        {"0f 02 01 80", "conflict at byte 8 has a fingerprint, number 1, whose length is cut off"},
        {"0f 04 01 01 61 05",
         "conflict at byte 8 has a fingerprint, number 2, of 5 bytes where only 0 are left"},
        {"0f 02 01 00", "conflict at byte 8 has an empty fingerprint, number 1"},
        {"0f 05 02 01 61 01 61",
         "conflict at byte 8 has one fingerprint twice, the second time as number 2"},
        {"0f 05 01 01 61 01 62", "conflict at byte 8 counts 1 requests but has 2 fingerprints"},
        {"0f 13 09 01 61 01 62 01 63 01 64 01 65 01 66 01 67 01 68 01 69",
         "conflict at byte 8 has more than 8 fingerprints"},
    });
}

// Guards against a flag or a decision of which each reader makes something else.
TEST_CASE("holds and verdicts are read strictly") {
    check_corrupt({
        {"10 01 00", "hold at byte 8 is an integer with a trailing zero byte"},
        {"10 01 02", "hold at byte 8 is an integer above the field's maximum"},
        {"10 00", "hold at byte 8 is stored although it is empty"},
        {"80 01 00", "began_ms at byte 8 is an integer with a trailing zero byte"},
        {"81 00", "verdict at byte 8 is stored although it is empty"},
        {"81 02 00 00",
         "verdict at byte 8 has a kind that is not held (1), resolved (2) or forgotten (3)"},
        {"81 02 04 00",
         "verdict at byte 8 has a kind that is not held (1), resolved (2) or forgotten (3)"},
        {"81 01 01", "verdict at byte 8 has a name whose length is malformed or more than is left"},
        {"81 03 01 80 00",
         "verdict at byte 8 has a name whose length is malformed or more than is left"},
        {"81 03 01 02 61",
         "verdict at byte 8 has a name whose length is malformed or more than is left"},
    });
}

// Guards against contradictions that only a damaged or foreign file can hold; they name the place.
TEST_CASE("contradicting fields are found where they are") {
    check_corrupt({
        {"07 01 05 0d 00", "ttl_ms at byte 8 is set in a record that is not in flight"},
        {"08 01 05 0d 00", "lease_until_ms at byte 8 is set in a record that is not in flight"},
        {"0d 00 10 01 01", "hold at byte 10 is set in a record that is not in flight"},
        {"06 01 05 10 01 01", "expires_at_ms at byte 8 is set in a record that holds its key"},
    });
    CHECK(error_of("01 02 01 01 6e 02 01 6b 03 01 05 0d 01 78").message ==
          "record: receipt at byte 11 is set in a tombstone, which has none");
}

// Guards against dropping what a newer version meant to be understood, and against refusing what
// it meant to be optional.
TEST_CASE("unknown required fields are refused, unknown optional ones are kept") {
    for (unsigned tag = 0x11; tag < 0x80; ++tag) {
        const std::string byte(1, static_cast<char>(tag));
        const Error error = error_after_key(to_hex(byte) + " 01 78");
        CHECK(error.code == Code::unsupported_version);
        CHECK(error.message == "record: field 0x" + to_hex(byte) +
                                   " at byte 8 is required but unknown; a newer version wrote it");
    }
    for (unsigned tag = 0x82; tag <= 0xff; ++tag) {
        const std::string bytes = encoded(minimal_claim()) + static_cast<char>(tag) + "\x01x";
        const auto decoded = decode(bytes);
        REQUIRE(decoded.has_value());
        CHECK(decoded->unknown_fields == bytes.substr(bytes.size() - 3));
        CHECK(encoded(*decoded) == bytes);
    }
}

}  // namespace dedup::test
