// What the tests of the claim protocol share: calls that must succeed, and checks of errors.
#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "dedup/cache.hpp"
#include "support/stores.hpp"

namespace dedup::test {

using namespace std::chrono_literals;
using namespace std::string_literals;
using std::chrono::milliseconds;

// What `result` holds; the test fails if that is an error.
template <class T>
T must(Result<T> result) {
    REQUIRE_MESSAGE(result.has_value(), result.error().message);
    return *std::move(result);
}

inline void must(const Result<void>& result) {
    REQUIRE_MESSAGE(result.has_value(), result.error().message);
}

// The `T` that `outcome` holds; the test fails if it is an error or another outcome.
template <class T, class Outcome>
T as(Result<Outcome> outcome) {
    REQUIRE_MESSAGE(outcome.has_value(), outcome.error().message);
    REQUIRE(std::holds_alternative<T>(*outcome));
    return std::get<T>(*std::move(outcome));
}

inline Claim must_claim(Cache& cache, std::string_view key, const ClaimOptions& options = {}) {
    return as<Claimed>(cache.claim(key, options)).claim;
}

// Checks that `result` is an error of `code` whose message has `word` in it.
template <class T>
void check_error(const Result<T>& result, Code code, std::string_view word = {}) {
    REQUIRE(!result.has_value());
    CHECK_MESSAGE(result.error().code == code, result.error().message);
    CHECK_MESSAGE(result.error().message.find(word) != std::string::npos, result.error().message);
}

inline ClaimOptions with_lease(milliseconds lease) {
    ClaimOptions options;
    options.lease = lease;
    return options;
}

inline ClaimOptions with_ttl(milliseconds ttl) {
    ClaimOptions options;
    options.ttl = ttl;
    return options;
}

inline ClaimOptions with_expiry(std::int64_t expires_at_ms) {
    ClaimOptions options;
    options.expires_at_ms = expires_at_ms;
    return options;
}

inline ClaimOptions with_fingerprint(std::string fingerprint) {
    ClaimOptions options;
    options.fingerprint = std::move(fingerprint);
    return options;
}

inline Record head_of(StreamStore& store, std::string_view key, std::string_view ns = "default") {
    const auto head = must(store.head({ns, key}));
    REQUIRE(head.has_value());
    return *head;
}

inline std::uint64_t records_in(StreamStore& store) {
    return must(store.stats()).records;
}

}  // namespace dedup::test
