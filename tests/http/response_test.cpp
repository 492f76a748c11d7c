// A stored response comes back as it was, and no other bytes pass for one.

#include <doctest/doctest.h>

#include <string>

#include "dedup/http.hpp"

using namespace dedup;
using namespace dedup::http;
using namespace std::string_literals;

namespace {

const Response kSample{.status = 201,
                       .headers = {{"Content-Type", "text/plain"}, {"X-Empty", ""}},
                       .body = "paid\0\xff\n"s};

}  // namespace

TEST_CASE("a response survives") {
    for (const Response& response :
         {kSample, Response{},
          Response{.status = 599, .headers = {}, .body = std::string(70'000, 'x')},
          Response{.status = 100,
          .headers = Headers(kHeadersMax, {"a", std::string(300, 'v')}),
          .body = {}}}) {
        const auto receipt = encode_response(response);
        REQUIRE(receipt.has_value());
        CHECK(decode_response(*receipt).value() == response);
    }
}

TEST_CASE("the bytes are those that are documented") {
    CHECK(encode_response({.status = 201, .headers = {{"A", "bc"}}, .body = "d"}).value() ==
          "HR\x01\xc9\x00\x01\x00\x01\x00\x02\x00\x00\x00"
          "Abcd"s);
}

TEST_CASE("a receipt that is cut off anywhere in its head is damaged") {
    const std::string receipt = encode_response(kSample).value();
    const std::size_t head = receipt.size() - kSample.body.size();
    for (std::size_t size = 0; size < head; ++size) {
        const auto decoded = decode_response(receipt.substr(0, size));
        REQUIRE(!decoded.has_value());
        CHECK(decoded.error().code == Code::corruption);
    }
    CHECK(decode_response(receipt.substr(0, head)).value().body.empty());
}

TEST_CASE("every change of a byte of the head is an error or another response") {
    const std::string receipt = encode_response(kSample).value();
    for (std::size_t i = 0; i < receipt.size() - kSample.body.size(); ++i) {
        for (int bit = 0; bit < 8; ++bit) {
            std::string changed = receipt;
            changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
            const auto decoded = decode_response(changed);
            if (decoded) {
                CHECK(*decoded != kSample);
                CHECK(encode_response(*decoded).value() == changed);
            }
        }
    }
}

TEST_CASE("versions") {
    std::string receipt = encode_response(kSample).value();
    receipt[2] = 2;
    CHECK(decode_response(receipt).error().code == Code::unsupported_version);
    receipt[2] = 0;
    CHECK(decode_response(receipt).error().code == Code::corruption);
}

TEST_CASE("what could not be sent is not stored") {
    for (const Response& response :
         {Response{.status = 99}, Response{.status = 600}, Response{.headers = {{"", "v"}}},
          Response{.headers = {{"a b", "v"}}}, Response{.headers = {{"a:", "v"}}},
          Response{.headers = {{"a", "v\r\nSet-Cookie: x"}}}, Response{.headers = {{"a", "\0"s}}},
          Response{.headers = {{std::string(256, 'a'), "v"}}},
          Response{.headers = Headers(kHeadersMax + 1, {"a", "v"})},
          Response{.body = std::string(kReceiptBytesMax, 'x')}}) {
        CHECK(encode_response(response).error().code == Code::invalid_argument);
    }
}

TEST_CASE("headers of one connection, or for one client, are not kept") {
    const Headers kept = kept_headers({{"Content-Type", "a"},
                                       {"CONNECTION", "close"},
                                       {"set-cookie", "secret"},
                                       {"Location", "/x"},
                                       {"Content-Length", "3"},
                                       {"Date", "now"},
                                       {"Transfer-Encoding", "chunked"},
                                       {"Location", "/y"}});
    CHECK(kept == Headers{{"Content-Type", "a"}, {"Location", "/x"}, {"Location", "/y"}});
}
