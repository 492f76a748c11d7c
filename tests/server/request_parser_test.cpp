// Requests come in pieces of any size, from anybody: the parser finds the same requests however
// they are cut, and takes no memory that a client has not paid for with bytes.
#include "server/request_parser.hpp"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

namespace dedup::test {
namespace {

using server::RequestLimits;
using server::RequestParser;
using Found = RequestParser::Found;
using Requests = std::vector<std::vector<std::string>>;

constexpr RequestLimits kSmall{
    .argument_bytes_max = 100, .arguments_max = 8, .request_bytes_max = 300, .line_bytes_max = 64};

// All requests in `bytes`, which come in pieces of the given sizes, again and again; the error, if
// they end in garbage, is the last one.
Requests parse_in_pieces(const std::string& bytes, const std::vector<std::size_t>& sizes,
                         const RequestLimits& limits = kSmall) {
    Requests requests;
    RequestParser parser;
    std::string buffer;
    std::size_t at = 0;
    for (std::size_t piece = 0; at < bytes.size(); ++piece) {
        const std::string next = bytes.substr(at, sizes[piece % sizes.size()]);
        at += next.size();
        // Another place in memory each time: nothing may depend on the old one.
        buffer = std::string(buffer) + next;
        for (;;) {
            const Found found = parser.parse(buffer, limits);
            if (found == Found::incomplete) {
                break;
            }
            if (found == Found::garbage) {
                requests.push_back({"garbage: " + parser.error()});
                return requests;
            }
            if (found == Found::request) {
                requests.emplace_back(parser.arguments().begin(), parser.arguments().end());
            }
            buffer.erase(0, parser.size());
        }
    }
    return requests;
}

Requests parse_whole(const std::string& bytes) {
    return parse_in_pieces(bytes, {bytes.size()});
}

std::string encode(const std::vector<std::string>& arguments) {
    std::string bytes = "*" + std::to_string(arguments.size()) + "\r\n";
    for (const std::string& argument : arguments) {
        bytes += "$" + std::to_string(argument.size()) + "\r\n" + argument + "\r\n";
    }
    return bytes;
}

TEST_CASE("request parser: arrays and lines") {
    CHECK(parse_whole("*2\r\n$3\r\nGET\r\n$1\r\na\r\n") == Requests{{"GET", "a"}});
    CHECK(parse_whole("*1\r\n$0\r\n\r\n") == Requests{{""}});
    CHECK(parse_whole("PING\r\n") == Requests{{"PING"}});
    CHECK(parse_whole("  SET  a\tb \n") == Requests{{"SET", "a", "b"}});
    CHECK(parse_whole("\r\n\n*0\r\n*-1\r\nPING\n") == Requests{{"PING"}});
    CHECK(parse_whole("*1\r\n$4\r\na\r\nb\r\nPING\r\n") == Requests{{"a\r\nb"}, {"PING"}});
    CHECK(parse_whole("*1\r\n$4\r\nPI").empty());
}

TEST_CASE("request parser: what cannot be a request says why") {
    for (const char* bad : {"*x\r\n", "*1\r\n+OK\r\n", "*1\r\n$-1\r\n", "*1\r\n$x\r\n",
                            "*1\r\n$1\r\nabc\r\n", "*9\r\n", "*1\r\n$101\r\n", "*\r\n", "*1 \r\n",
                            "*99999999999999999999999999999\r\n", "*1\r\n$18446744073709551617\r\n",
                            "SET a \"b c\"\r\n", "a b c d e f g h i\r\n", "*4\r\n$90\r\n"}) {
        std::string bytes = bad;
        if (bytes.ends_with("$90\r\n")) {  // each argument is allowed, all of them are not
            const std::string argument = "$90\r\n" + std::string(90, 'x') + "\r\n";
            bytes = "*4\r\n" + argument + argument + argument + argument;
        }
        const Requests found = parse_in_pieces(bytes, {1});
        REQUIRE_MESSAGE(found.size() == 1, bad);
        CHECK_MESSAGE(found.front().front().starts_with("garbage: "), bad);
    }
    CHECK(parse_whole(std::string(65, 'x')).front().front().find("64 bytes") != std::string::npos);
}

TEST_CASE("request parser: an announcement alone costs nothing") {
    RequestParser parser;
    const RequestLimits limits;
    const std::string many = "*16384\r\n$16777216\r\nab";
    CHECK(parser.parse(many, limits) == Found::incomplete);
    CHECK(parser.arguments().capacity() == 0);
    CHECK(parser.under_way());
}

TEST_CASE("request parser: cut anywhere, the same requests") {
    std::mt19937 random(20261128);
    for (int round = 0; round < 300; ++round) {
        Requests requests;
        std::string bytes;
        for (std::size_t left = random() % 5 + 1; left > 0; --left) {
            std::vector<std::string> arguments;
            for (std::size_t count = random() % 5 + 1; count > 0; --count) {
                std::string argument;
                for (std::size_t size = random() % 20; size > 0; --size) {
                    argument += "ab\r\n$*:\0\xff "[random() % 10];
                }
                arguments.push_back(argument);
            }
            bytes += encode(arguments);
            requests.push_back(arguments);
        }
        REQUIRE(parse_whole(bytes) == requests);
        REQUIRE(parse_in_pieces(bytes, {1}) == requests);
        for (int cut = 0; cut < 10; ++cut) {
            REQUIRE(parse_in_pieces(bytes, {random() % 7 + 1, random() % 30 + 1, 1}) == requests);
        }
        // Damaged, it is the same garbage, however it is cut.
        std::string damaged = bytes;
        damaged[random() % damaged.size()] = static_cast<char>(random() % 256);
        const Requests whole = parse_whole(damaged);
        REQUIRE(parse_in_pieces(damaged, {1}) == whole);
        REQUIRE(parse_in_pieces(damaged, {random() % 9 + 1, 3}) == whole);
    }
}

}  // namespace
}  // namespace dedup::test
