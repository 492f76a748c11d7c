// The header's syntax is that of RFC 8941 strings, and nothing else passes for a key.

#include <doctest/doctest.h>

#include <set>
#include <string>

#include "dedup/http.hpp"

using namespace dedup;
using namespace std::string_literals;

TEST_CASE("a quoted string is the key, without its quotes and escapes") {
    for (const auto& [header, key] : {
             std::pair{R"("8e03978e-40d5-43dd-bc93-6894a57f9324")"s,
                       "8e03978e-40d5-43dd-bc93-6894a57f9324"s},
             {R"("a")", "a"},
             {R"(" a ")", " a "},
             {R"(  "padded"	)", "padded"},
             {R"("say \"hi\" \\ there")", R"(say "hi" \ there)"},
             {R"("k";a=1;b="x,\"y";c)", "k"},
             {R"("k" )", "k"},
             {"\"" + std::string(kKeyBytesMax, 'x') + "\"", std::string(kKeyBytesMax, 'x')},
         }) {
        INFO(header);
        const auto parsed = http::parse_key(header);
        REQUIRE(parsed.has_value());
        CHECK(*parsed == key);
    }
}

TEST_CASE("without quotes only where that is allowed, and then it is the same key") {
    const auto bare = [](const std::string& header) {
        return http::parse_key(header, http::KeySyntax::quoted_or_bare);
    };
    CHECK(bare("8e03978e-40d5:a/b=") == "8e03978e-40d5:a/b=");
    CHECK(bare("  k\t") == "k");
    CHECK(bare("\"k\"") == "k");
    CHECK(bare(std::string(kKeyBytesMax, 'x')) == std::string(kKeyBytesMax, 'x'));
    for (const std::string& header :
         {""s, "  "s, "two words"s, "a,b"s, "k;a=1"s, "k\""s, "a\\b"s, "schl\xc3\xbcssel"s,
          "a\x1f"s, "\"open"s, std::string(kKeyBytesMax + 1, 'x')}) {
        INFO(header);
        CHECK(!bare(header));
    }
    CHECK(http::parse_key("bare").error().message.find("with the quotes") != std::string::npos);
}

TEST_CASE("anything else is refused") {
    for (const std::string& header : {
             ""s,
             "   "s,
             "bare"s,
             "'k'"s,
             "\""s,
             "\"open"s,
             "open\""s,
             "\"\""s,
             "\"k\"x"s,
             "\"k\" \"l\""s,
             "\"a\", \"b\""s,
             "\"a\",\"b\""s,
             "\"k\";"s,
             "\"k\";a=\"open"s,
             "\"k\";a=1,b"s,
             R"("bad \n escape")"s,
             R"("ends with \)"s,
             R"("ends with \")"s,
             "\"tab\there\""s,
             "\"nul\0here\""s,
             "\"line\nend\""s,
             "\"del\x7f\""s,
             "\"schl\xc3\xbcssel\""s,
             ":Zm9v:"s,
             "17"s,
             "?1"s,
             "\"" + std::string(kKeyBytesMax + 1, 'x') + "\"",
         }) {
        INFO(header);
        const auto parsed = http::parse_key(header);
        REQUIRE(!parsed.has_value());
        CHECK(parsed.error().code == Code::invalid_argument);
        CHECK(parsed.error().message.starts_with("Idempotency-Key"));
    }
}

TEST_CASE("what format_key gives is what parse_key takes") {
    std::string printable;
    for (char c = 0x20; c < 0x7f; ++c) {
        printable += c;
    }
    const auto header = http::format_key(printable);
    REQUIRE(header.has_value());
    CHECK(http::parse_key(*header).value() == printable);
    for (const std::string& key : {""s, "\x1f"s, "\x7f"s, "\xff"s, std::string(1025, 'x')}) {
        CHECK(!http::format_key(key).has_value());
    }
}

TEST_CASE("a fingerprint tells method, target and body apart, wherever one ends") {
    const std::set<std::string> all{
        http::fingerprint("POST", "/a", "b"),  http::fingerprint("PUT", "/a", "b"),
        http::fingerprint("POST", "/ab", ""),  http::fingerprint("POST", "/", "ab"),
        http::fingerprint("POST", "/a", "b "), http::fingerprint("POST/", "a", "b")};
    CHECK(all.size() == 6);
    CHECK(http::fingerprint("POST", "/a", "b") == http::fingerprint("POST", "/a", "b"));
    // Stored in claims, so that it must never change.
    CHECK(http::fingerprint("POST", "/payments", "10 EUR") ==
          "a39d46e67494239836fc502ac6760eecd64dd9f8a2d3da361be2c299b9a21a18");
}
