// Claims in a store whose reads are remote: where keys were new last, no round trip asks whether
// they are.
#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cache/helpers.hpp"
#include "support/hooked_store.hpp"

namespace dedup::test {
namespace {

struct Remote {
    Remote() { store.remote = true; }

    // How many reads `work` makes.
    template <class Work>
    std::size_t reads(Work work) {
        const std::size_t before = store.reads;
        work();
        return store.reads - before;
    }

    std::unique_ptr<StreamStore> inner = make_memory_store();
    HookedStore store{*inner};
    Cache cache{store};
};

TEST_CASE("remote: new keys are claimed without a read, known ones with one") {
    Remote remote;
    CHECK(remote.reads([&] { must_claim(remote.cache, "a"); }) == 0);
    CHECK(remote.reads([&] { as<New>(remote.cache.remember("b", "done")); }) == 0);
    // The first that is known is found out by its append; the next ones are read.
    const std::size_t appends = remote.store.appends;
    CHECK(remote.reads([&] { as<InFlight>(remote.cache.claim("a")); }) == 1);
    CHECK(remote.store.appends == appends + 1);
    CHECK(remote.reads([&] { as<Completed>(remote.cache.claim("b")); }) == 1);
    CHECK(remote.store.appends == appends + 1);
    CHECK(remote.cache.metrics().counts.races_lost == 0);
    // And when keys are new again, the same the other way round.
    CHECK(remote.reads([&] { must_claim(remote.cache, "c"); }) == 1);
    CHECK(remote.reads([&] { must_claim(remote.cache, "d"); }) == 0);
}

TEST_CASE("remote: one key twice in a span is claimed once") {
    Remote remote;
    const auto answers =
        remote.cache.claim_many(std::vector<ClaimRequest>{{"a", {}}, {"a", {}}, {"b", {}}});
    const Claim won = as<Claimed>(answers[0]).claim;
    CHECK(as<InFlight>(answers[1]).claim_sequence == won.claim_sequence);
    as<Claimed>(answers[2]);
}

TEST_CASE("remote: what expired or was released is claimed although its stream is there") {
    Remote remote;
    const Claim first = must_claim(remote.cache, "a");
    CHECK(must(remote.cache.release(first)));
    CHECK(must_claim(remote.cache, "a").claim_sequence > first.claim_sequence);
}

TEST_CASE("remote: a store that cannot append still says what is known") {
    Remote remote;
    as<New>(remote.cache.remember("a", "done"));
    remote.store.fail_append = [](const Append&) { return std::optional(Code::out_of_space); };
    CHECK(as<Completed>(remote.cache.claim("a")).receipt == "done");
    check_error(remote.cache.claim("b"), Code::out_of_space);
}

TEST_CASE("remote: an unknown outcome is the answer, and not what a look would make of it") {
    Remote remote;
    remote.store.fail_append = [](const Append&) { return std::optional(Code::outcome_unknown); };
    CHECK(remote.reads([&] { check_error(remote.cache.claim("a"), Code::outcome_unknown); }) == 0);
}

}  // namespace
}  // namespace dedup::test
