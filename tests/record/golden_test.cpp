#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "record/check.hpp"
#include "record/field_reader.hpp"
#include "samples.hpp"
#include "support/hex.hpp"
#include "support/text.hpp"

namespace dedup::test {
namespace {

const std::filesystem::path kSourceRoot = DEDUP_SOURCE_ROOT;
const std::filesystem::path kGoldens = kSourceRoot / "tests" / "golden" / "v1";
constexpr std::string_view kPrefix = "record_";  // other parts of the format have goldens there too

std::string golden_name(const Sample& sample) {
    return std::string(kPrefix) + sample.name + ".hex";
}

bool refreshing() {
    const char* const value = std::getenv("DEDUP_REFRESH_GOLDEN");
    return value != nullptr && std::string_view(value) == "1";
}

// The encoding of the sample, one field a line.
std::string golden_text(const Sample& sample) {
    const std::string bytes = encoded(sample.record);
    std::ostringstream text;
    text << "# " << sample.what << '\n';
    text << to_hex(bytes.substr(0, record_format::kFieldsOffset)) << "  # version, kind\n";
    FieldReader fields(bytes, record_format::kFieldsOffset, 0);
    while (!fields.done()) {
        REQUIRE(fields.next());
        const std::size_t payload = fields.payload().size();
        const auto payload_start = static_cast<std::size_t>(fields.payload().data() - bytes.data());
        const std::size_t size = payload_start + payload - fields.offset();
        text << to_hex(bytes.substr(fields.offset(), size)) << "  # " << display_name(fields.tag())
             << '\n';
    }
    return text.str();
}

// The record that docs/format.md describes above its bytes.
Record documented_record() {
    Record record;
    record.ns = "default";
    record.key = "order-7";
    record.sequence = 300;
    record.claim_sequence = 299;
    record.timestamp_ms = 1'700'000'000'000;
    record.expires_at_ms = 1'700'086'400'000;
    record.attempt = 2;
    record.owner = "w1";
    record.receipt = "ok";
    record.conflict = {3, {"fp-2", "fp-3"}};
    record.unknown_fields = std::string("\x82\x01\x2a", 3);
    return record;
}

}  // namespace

// Guards against a change of the code that can no longer read what an earlier build wrote, or
// writes what an earlier build cannot read. DEDUP_REFRESH_GOLDEN=1 writes the files anew, which is
// right only for a new sample: a stored format is never changed, it gets a new version.
TEST_CASE("the goldens of version 1 are what is written, and are read") {
    for (const Sample& sample : samples()) {
        CAPTURE(sample.name);
        const auto path = kGoldens / golden_name(sample);
        if (refreshing()) {
            std::filesystem::create_directories(kGoldens);
            std::ofstream(path, std::ios::binary) << golden_text(sample);
        }
        const auto golden = from_hex(read_text(path));
        REQUIRE(golden.has_value());
        CHECK(to_hex(encoded(sample.record)) == to_hex(*golden));
        const auto decoded = decode(*golden);
        REQUIRE_MESSAGE(decoded.has_value(), decoded.error().message);
        CHECK(*decoded == sample.record);
    }
}

// Guards against a golden that nothing compares any more, because its sample was dropped.
TEST_CASE("every record golden has its sample") {
    std::set<std::string> names;
    for (const Sample& sample : samples()) {
        names.insert(golden_name(sample));
    }
    for (const auto& entry : std::filesystem::directory_iterator(kGoldens)) {
        const std::string name = entry.path().filename().string();
        CHECK_MESSAGE((!name.starts_with(kPrefix) || names.contains(name)), name);
    }
}

// Guards against a page that describes another format than the code's.
TEST_CASE("the worked example of docs/format.md is what the code reads and writes") {
    const std::string page = read_text(kSourceRoot / "docs" / "format.md");
    const auto bytes = from_hex(code_block(page, "record example"));
    REQUIRE(bytes.has_value());
    CHECK(to_hex(encoded(documented_record())) == to_hex(*bytes));
    CHECK(decode(*bytes) == documented_record());
}

}  // namespace dedup::test
