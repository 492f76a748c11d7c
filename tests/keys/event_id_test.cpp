// Ids that are the same at each delivery and differ between events.
#include "dedup/event_id.hpp"

#include <doctest/doctest.h>

#include <array>
#include <string>

#include "cache/helpers.hpp"

namespace dedup::test {
namespace {

JsonPointer pointer(std::string_view text) {
    return must(JsonPointer::parse(text));
}

TEST_CASE("event id: from a header, whatever the case of its name") {
    const std::array<Header, 4> headers = {
        {{"Content-Type", "json"}, {"X-Event-ID", "e-1"}, {"x-twice", "a"}, {"X-Twice", "b"}}};
    CHECK(must(event_id_from_header(headers, "x-event-id")) == "e-1");
    check_error(event_id_from_header(headers, "x-event"), Code::invalid_argument, "x-event");
    check_error(event_id_from_header(headers, "x-twice"), Code::invalid_argument, "twice");
    const std::array<Header, 2> same = {{{"id", "e"}, {"id", "e"}}};
    CHECK(must(event_id_from_header(same, "id")) == "e");
    const std::array<Header, 1> empty = {{{"id", ""}}};
    check_error(event_id_from_header(empty, "id"), Code::invalid_argument, "header \"id\"");
}

TEST_CASE("event id: from a position") {
    CHECK(must(event_id_from_position("orders", 3, 42)) == "orders-3-42");
    CHECK(must(event_id_from_position("o", 4'294'967'295, 18'446'744'073'709'551'615U)) ==
          "o-4294967295-18446744073709551615");
    check_error(event_id_from_position(std::string(kKeyBytesMax, 'x'), 0, 0),
                Code::invalid_argument, "position");
}

TEST_CASE("event id: from a payload, with the digits that it has") {
    const auto from = [](std::string_view payload, std::string_view at) {
        return event_id_from_payload(payload, pointer(at));
    };
    CHECK(must(from(R"({"data":{"id":"e-1"}})", "/data/id")) == "e-1");
    CHECK(must(from(R"({"id":12345678901234567890123})", "/id")) == "12345678901234567890123");
    CHECK(must(from(R"([{"id":1},{"id":"\u0032"}])", "/1/id")) == "2");
    CHECK(must(from(R"({"id":{"a":[1, 2.50]}})", "/id")) == R"({"a":[1,2.50]})");
    for (const std::string_view bad : {R"({"id":null})", R"({"ID":1})", R"({"id":1)", "", "7"}) {
        check_error(from(bad, "/id"), Code::invalid_argument, "payload");
    }
    check_error(from(R"({"id":""})", "/id"), Code::invalid_argument, "payload");
    const std::string long_id = R"({"id":")" + std::string(kKeyBytesMax + 1, 'x') + R"("})";
    check_error(from(long_id, "/id"), Code::invalid_argument, "payload");
    check_error(JsonPointer::parse("id"), Code::invalid_argument, "\"id\"");
    check_error(JsonPointer::parse("/~2"), Code::invalid_argument);
}

TEST_CASE("event id: from content, by the vectors of FIPS 180-4") {
    CHECK(event_id_from_content("") ==
          "sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(event_id_from_content("abc") ==
          "sha256-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(event_id_from_content("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
          "sha256-248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(event_id_from_content(std::string(1'000'000, 'a')) ==
          "sha256-cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

}  // namespace
}  // namespace dedup::test
