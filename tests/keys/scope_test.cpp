// Tenants choose their names to read or block somebody else's keys.
#include "dedup/scope.hpp"

#include <doctest/doctest.h>

#include <array>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "cache/helpers.hpp"

namespace dedup::test {
namespace {

// All that has a meaning in an encoded scope, and what looks like parts of one.
constexpr std::array<std::string_view, 10> kHostile = {
    "a", "-", ",", ":", "1", "1:a,", "-1:a,", "1:a,1:a,", std::string_view("\0", 1), "\xff"};

TEST_CASE("scope: hostile names never share a key, and each key gives its names back") {
    std::map<std::string, int> seen;
    int count = 0;
    for (const std::string_view organisation : kHostile) {
        for (const std::string_view workspace : kHostile) {
            for (std::size_t d = 0; d <= kHostile.size(); ++d) {
                for (const std::string_view operation : kHostile) {
                    Scope scope{.organisation = std::string(organisation),
                                .workspace = std::string(workspace),
                                .operation = std::string(operation)};
                    if (d < kHostile.size()) {
                        scope.deployment = kHostile.at(d);
                    }
                    for (const std::string_view key : {"a", "-", "1:a,a", "1:a,-1:a,a"}) {
                        const auto bytes = scoped_key(scope, key);
                        REQUIRE(bytes.has_value());
                        ++seen[*bytes];
                        ++count;
                        const bool same =
                            parse_scoped_key(*bytes) == ScopedKey{scope, std::string(key)};
                        REQUIRE(same);
                    }
                }
            }
        }
    }
    CHECK(count == 10 * 10 * 11 * 10 * 4);
    CHECK(seen.size() == static_cast<std::size_t>(count));
}

TEST_CASE("scope: the encoding is pinned, since stores hold it") {
    CHECK(must(scoped_key({.organisation = "acme", .workspace = "main", .operation = "charge"},
                          "order-17")) == "4:acme,4:main,-6:charge,order-17");
    CHECK(must(scoped_key({.organisation = "acme",
                           .workspace = "main",
                           .deployment = "blue",
                           .operation = "charge"},
                          "order-17")) == "4:acme,4:main,4:blue,6:charge,order-17");
}

TEST_CASE("scope: missing names and too long ones are refused") {
    const Scope good{.organisation = "o", .workspace = "w", .operation = "p"};
    const auto without = [&](auto change) {
        Scope scope = good;
        change(scope);
        return scoped_key(scope, "k");
    };
    check_error(without([](Scope& s) { s.organisation = ""; }), Code::invalid_argument,
                "organisation");
    check_error(without([](Scope& s) { s.workspace = ""; }), Code::invalid_argument, "workspace");
    check_error(without([](Scope& s) { s.deployment = ""; }), Code::invalid_argument, "deployment");
    check_error(without([](Scope& s) { s.operation = ""; }), Code::invalid_argument, "operation");
    check_error(scoped_key(good, ""), Code::invalid_argument, "key");
    const std::size_t overhead = must(scoped_key(good, "k")).size() - 1;
    CHECK(must(scoped_key(good, std::string(kKeyBytesMax - overhead, 'x'))).size() == kKeyBytesMax);
    check_error(scoped_key(good, std::string(kKeyBytesMax - overhead + 1, 'x')),
                Code::invalid_argument, "scope and key");
}

TEST_CASE("scope: only what scoped_key writes is read") {
    for (const std::string_view bad :
         {"", "4:acme", "4:acme,", "4:acme,4:main,-6:charge,", "04:acme,4:main,-6:charge,k",
          "+4:acme,4:main,-6:charge,k", "4:acme;4:main,-6:charge,k", "0:,4:main,-6:charge,k",
          "4:acme,4:main,0:,6:charge,k", "4:acme,4:main,--6:charge,k",
          "18446744073709551615:a,1:b,-1:c,k", "99999999999999999999:a,1:b,-1:c,k", "order-17"}) {
        CHECK_FALSE_MESSAGE(parse_scoped_key(bad).has_value(), bad);
    }
    // Every byte exchanged for every other: what is still read is written just so.
    const std::string good = "2:ab,1:w,-1:p,k";
    for (std::size_t at = 0; at < good.size(); ++at) {
        for (int byte = 0; byte < 256; ++byte) {
            std::string changed = good;
            changed[at] = static_cast<char>(byte);
            if (const auto parsed = parse_scoped_key(changed)) {
                CHECK(must(scoped_key(parsed->scope, parsed->key)) == changed);
            }
        }
    }
}

}  // namespace
}  // namespace dedup::test
