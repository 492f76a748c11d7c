// Heads of HTTP requests: good ones, and each way to be wrong.
#include "server/http_parser.hpp"

#include <doctest/doctest.h>

#include <string>
#include <string_view>

namespace dedup::server {
namespace {

int status_of(std::string_view bytes) {
    HttpHead head;
    return parse_http(bytes, head).status;
}

std::string get(std::string_view target, std::string_view headers = "") {
    return "GET " + std::string(target) + " HTTP/1.1\r\nHost: h\r\n" + std::string(headers) +
           "\r\n";
}

TEST_CASE("http parser: a request, however it is cut") {
    const std::string whole =
        "\r\nHEAD /key?ns=a%2Fb&key=x+y%00&key=z HTTP/1.1\r\nHost:  localhost:80 \r\n"
        "aUTHORIZATION: Basic bWU6b3BlbjpzZXNhbWU=\r\nConnection: close\r\n\r\n";
    HttpHead head;
    for (std::size_t size = 0; size < whole.size(); ++size) {
        CHECK(parse_http(std::string_view(whole).substr(0, size), head).status == 0);
    }
    const HttpFound found = parse_http(whole + "GET /next", head);
    CHECK(found.status == 200);
    CHECK(found.size == whole.size());
    CHECK(head.head);
    CHECK_FALSE(head.keeps_alive);
    CHECK(head.host == "localhost:80");
    CHECK(head.credentials == "open:sesame");
    CHECK(head.request.path == "/key");
    CHECK(head.request.parameter("ns") == "a/b");
    CHECK(head.request.parameter("key") == std::string_view("x y\0", 4));
    CHECK_FALSE(head.request.parameter("none"));
    CHECK(parse_http(get("/", "Authorization: bearer t\r\n"), head).status == 200);
    CHECK(head.credentials == "t");
    CHECK(head.keeps_alive);
    CHECK(status_of("GET / HTTP/1.0\r\n\r\n") == 200);
}

TEST_CASE("http parser: what is wrong is told") {
    CHECK(status_of("GET / HTTP/1.1\r\n\r\n") == 400);  // no host
    for (const char* bad : {"\x01\x02\r\n", "GET\r\n", "GET / HTTP/1.1\n", "GET  / HTTP/1.1\r\n",
                            "GET x HTTP/1.1\r\n", "GET http://h/ HTTP/1.1\r\n",
                            "GET /%4 HTTP/1.1\r\n", "GET /?a=%zz HTTP/1.1\r\n", "\r\n\r\n"}) {
        CHECK_MESSAGE(status_of(bad) == 400, bad);
    }
    for (const char* bad :
         {"Host: i\r\n", "No colon\r\n", " folded: x\r\n", "A: \x01\r\n", "Content-Length: 1\r\n",
          "Transfer-Encoding: chunked\r\n", "A : x\r\n", "A: x\n", ": x\r\n"}) {
        CHECK_MESSAGE(status_of(get("/", bad)) == 400, bad);
    }
    CHECK(status_of("POST / HTTP/1.1\r\n") == 405);
    CHECK(status_of("GET / HTTP/2.0\r\n") == 505);
    CHECK(status_of("GET /" + std::string(kHttpTargetBytesMax, 'x') + " HTTP/1.1\r\n") == 414);
    CHECK(status_of(std::string(kHttpTargetBytesMax + 100, 'x')) == 414);
    CHECK(status_of(get("/", "A: " + std::string(kHttpHeadBytesMax, 'x'))) == 431);
    CHECK(status_of("GET / HTTP/1.1\r\nA: " + std::string(kHttpHeadBytesMax, 'x')) == 431);
    std::string many = "GET / HTTP/1.1\r\n";
    while (many.size() <= kHttpHeadBytesMax) {
        many += "A: x\r\n";
    }
    CHECK(status_of(many) == 431);
}

}  // namespace
}  // namespace dedup::server
