#include <doctest/doctest.h>

#include <limits>
#include <sstream>
#include <string>
#include <type_traits>

#include "dedup/bytes_view.hpp"
#include "dedup/error.hpp"
#include "dedup/record.hpp"
#include "dedup/version.hpp"

namespace dedup::test {

// Guards against lists of names that are gone.
static_assert(!std::is_constructible_v<BytesView, std::string>);
static_assert(!std::is_constructible_v<BytesView, const std::string>);
static_assert(std::is_constructible_v<BytesView, const std::string&>);
static_assert(std::is_convertible_v<std::string_view, BytesView>);
static_assert(std::is_convertible_v<const char*, BytesView>);

TEST_CASE("errors have one text, with the code and the message") {
    const Error error{.code = Code::busy, .message = "the store s is open in process 17"};
    std::ostringstream out;
    out << error << "; " << Code::out_of_space << "; " << Error{.code = Code::io, .message = {}};
    CHECK(out.str() == "busy: the store s is open in process 17; out_of_space; io");
    CHECK(to_string(error) == "busy: the store s is open in process 17");
    CHECK(to_string(Code::stale_claim) == "stale_claim");
#ifdef __cpp_lib_format
    CHECK(std::format("{} {:>4}", error, Code::io) == to_string(error) + "   io");
#endif
}

TEST_CASE("the library says the version of its headers") {
    CHECK(version() == std::to_string(DEDUP_VERSION_MAJOR) + "." +
                           std::to_string(DEDUP_VERSION_MINOR) + "." +
                           std::to_string(DEDUP_VERSION_PATCH));
    CHECK(DEDUP_VERSION_NUMBER ==
          DEDUP_VERSION_MAJOR * 10'000 + DEDUP_VERSION_MINOR * 100 + DEDUP_VERSION_PATCH);
}

static_assert(fnv1a_64("") == 0xcbf29ce484222325);

// Guards against a hash that differs from everybody else's: names printed here are searched for
// elsewhere. The values are those published with the algorithm.
TEST_CASE("FNV-1a gives the published values") {
    CHECK(fnv1a_64("") == 0xcbf29ce484222325);
    CHECK(fnv1a_64("a") == 0xaf63dc4c8601ec8c);
    CHECK(fnv1a_64("foobar") == 0x85944171f73967e8);
    // A byte above 0x7f must count as 0x80 to 0xff, whether or not char is signed.
    CHECK(fnv1a_64("\xff") == (0xcbf29ce484222325 ^ 0xff) * 0x100000001b3);
}

// Guards against names of varying length, which would not sort or parse.
TEST_CASE("a stream is named by its namespace and 16 hex digits") {
    CHECK(stream_name("default", "foobar") == "default:85944171f73967e8");
    CHECK(stream_name("a:b", "a") == "a:b:af63dc4c8601ec8c");
    // This key's hash starts with a zero digit.
    CHECK(stream_name("n", "key-200") == "n:0cbf70b501fcff6b");
}

// Guards against a receipt that vanishes early, or a key that some callers see and others do not:
// sixty seconds from 1,000 are over at 61,000, and the grace of one second at 62,000.
TEST_CASE("a record is expired once its time and the grace are over, not before") {
    using std::chrono::milliseconds;
    constexpr std::int64_t kExpiresAt = 1000 + 60'000;
    static_assert(!expired(kExpiresAt, 62'000));
    static_assert(expired(kExpiresAt, 62'001));
    CHECK_FALSE(expired(kExpiresAt, 62'000, milliseconds(1000)));
    CHECK(expired(kExpiresAt, 62'001, milliseconds(1000)));
    CHECK_FALSE(expired(kExpiresAt, kExpiresAt, milliseconds(0)));
    CHECK(expired(kExpiresAt, kExpiresAt + 1, milliseconds(0)));
}

// Guards against "never" being taken for "long ago", and against overflow at the end of time.
TEST_CASE("a record without expiry never expires") {
    constexpr std::int64_t kEndOfTime = std::numeric_limits<std::int64_t>::max();
    CHECK_FALSE(expired(0, kEndOfTime));
    CHECK_FALSE(expired(kEndOfTime, kEndOfTime));
    CHECK_FALSE(expired(1, 0));
}

// Guards against names that scripts match on changing without notice.
TEST_CASE("states and codes have fixed names and numbers") {
    CHECK(name(State::in_flight) == "in-flight");
    CHECK(name(State::completed) == "completed");
    CHECK(name(State::released) == "released");

    constexpr std::string_view kNames[] = {
        "unknown",      "invalid_argument",  "io",
        "out_of_space", "corruption",        "unsupported_version",
        "busy",         "read_only",         "closed",
        "failed",       "sequence_conflict", "stale_claim",
        "not_claimed",  "receipt_mismatch",  "outcome_unknown",
        "unavailable",  "unknown",
    };
    for (std::uint8_t number = 0; number < std::size(kNames); ++number) {
        CHECK(name(Code{number}) == kNames[number]);
    }
}

}  // namespace dedup::test
