#include "dedup/convert.hpp"

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <string>

#include "dedup/cache.hpp"
#include "dedup/memory_store.hpp"
#include "support/manual_clock.hpp"

namespace dedup::test {
namespace {

using namespace std::chrono_literals;

TEST_CASE("keys and receipts may be bytes, and times time points") {
    ManualClock clock(1'700'000'000'000);
    const auto store = make_memory_store(clock.clock());
    Cache cache(*store);
    const std::array key{std::byte{0}, std::byte{0xff}, std::byte{'k'}};
    const std::chrono::system_clock::time_point expiry{1'700'000'100'000ms + 999us};
    const auto claimed =
        cache.claim(from_bytes(key), {.lease = 5s, .expires_at_ms = from_time(expiry)});
    REQUIRE(claimed.has_value());
    REQUIRE(claimed->claimed() != nullptr);
    CHECK(claimed->claimed()->claim.key == std::string("\0\xffk", 3));

    const auto found = cache.lookup(from_bytes(key));
    REQUIRE(found.has_value());
    REQUIRE(found->in_flight() != nullptr);
    CHECK(to_time(found->in_flight()->lease_until_ms)->time_since_epoch() == 1'700'000'005'000ms);
    CHECK(to_time(found->in_flight()->expires_at_ms)->time_since_epoch() == 1'700'000'100'000ms);
    CHECK_FALSE(to_time(0).has_value());
    CHECK(from_time(std::chrono::system_clock::time_point(-1us)) == -1);

    const auto receipt = to_bytes("paid");
    REQUIRE(cache.complete(claimed->claimed()->claim, from_bytes(receipt)).has_value());
    const auto done = cache.lookup(from_bytes(key));
    REQUIRE(done->completed() != nullptr);
    CHECK(done->completed()->receipt == "paid");
    CHECK(from_bytes({}).empty());
}

}  // namespace
}  // namespace dedup::test
