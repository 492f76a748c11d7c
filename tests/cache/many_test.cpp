// The calls that take a span, against every store.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "cache/helpers.hpp"
#include "support/hooked_store.hpp"

namespace dedup::test {
namespace {

TEST_CASE("many: a span of new keys is one append, a span of duplicates none") {
    // Guards against a flush per item, which would make the span as slow as single calls.
    on_each_store([](TestStore& store) {
        HookedStore counted(*store);
        Cache cache(counted);
        std::vector<std::string> keys;
        for (int i = 0; i < 100; ++i) {
            keys.push_back("key-" + std::to_string(i));
        }
        std::vector<ClaimRequest> requests;
        for (const std::string& key : keys) {
            requests.push_back({key, {}});
        }
        const auto answers = cache.claim_many(requests);
        REQUIRE(answers.size() == requests.size());
        std::vector<Completion> completions;
        for (std::size_t i = 0; i < answers.size(); ++i) {
            const Claim claim = as<Claimed>(answers[i]).claim;
            CHECK(claim.key == keys[i]);
            CHECK(claim.claim_sequence == head_of(*store, keys[i]).sequence);
            completions.push_back({claim, "receipt-" + std::to_string(i), {}});
        }
        CHECK(counted.appends == 1);

        for (const auto& duplicate : cache.claim_many(requests)) {
            as<InFlight>(duplicate);
        }
        CHECK(counted.appends == 1);

        for (const auto& completed : cache.complete_many(completions)) {
            must(completed);
        }
        CHECK(counted.appends == 2);
        for (const auto& again : cache.complete_many(completions)) {
            must(again);
        }
        CHECK(counted.appends == 2);
        CHECK(counted.items == 200);

        const std::vector<std::string_view> views(keys.begin(), keys.end());
        const auto found = cache.lookup_many(views);
        REQUIRE(found.size() == keys.size());
        for (std::size_t i = 0; i < keys.size(); ++i) {
            CHECK(as<Completed>(found[i]).receipt == "receipt-" + std::to_string(i));
        }
    });
}

TEST_CASE("many: of two equal keys the first wins, the second gets a duplicate's answer") {
    // Guards against a batch with a redelivery in it that lets both through, or fails.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        ClaimOptions first;
        first.owner = "first";
        const std::vector<ClaimRequest> claims = {
            {"a", first}, {"b", {}}, {"a", {}}, {"a", {}}, {"b", {}}};
        const auto claimed = cache.claim_many(claims);
        const Claim a = as<Claimed>(claimed[0]).claim;
        const Claim b = as<Claimed>(claimed[1]).claim;
        CHECK(as<InFlight>(claimed[2]).owner == "first");
        CHECK(as<InFlight>(claimed[3]).claim_sequence == a.claim_sequence);
        CHECK(as<InFlight>(claimed[4]).claim_sequence == b.claim_sequence);

        const std::vector<Completion> completions = {
            {a, "r", {}}, {a, "r", {}}, {a, "other", {}}, {b, "b", {}}};
        const auto completed = cache.complete_many(completions);
        must(completed[0]);
        must(completed[1]);
        check_error(completed[2], Code::receipt_mismatch);
        must(completed[3]);
        CHECK(as<Completed>(cache.lookup("a")).receipt == "r");

        const std::vector<RememberRequest> lines = {{"x", "1", {}}, {"a", "2", {}}, {"x", "3", {}}};
        const auto remembered = cache.remember_many(lines);
        const New made = as<New>(remembered[0]);
        CHECK(as<Completed>(remembered[1]).receipt == "r");
        CHECK(as<Completed>(remembered[2]).receipt == "1");
        CHECK(as<Completed>(remembered[2]).claim_sequence == made.claim_sequence);
        CHECK(records_in(*store) == (store.keeps_versions() ? 5 : 3));
    });
}

TEST_CASE("many: wrong requests for one key in one span are all counted") {
    // Guards against a conflict record that loses what arrived together.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        const std::vector<ClaimRequest> requests = {{"k", with_fingerprint("right")},
                                                    {"k", with_fingerprint("wrong-1")},
                                                    {"k", with_fingerprint("wrong-2")},
                                                    {"k", with_fingerprint("right")},
                                                    {"k", with_fingerprint("wrong-1")}};
        const auto answers = cache.claim_many(requests);
        const Claim claim = as<Claimed>(answers[0]).claim;
        CHECK(as<Mismatch>(answers[1]).conflicts == 1);
        CHECK(as<Mismatch>(answers[2]).conflicts == 2);
        as<InFlight>(answers[3]);
        CHECK(as<Mismatch>(answers[4]).conflicts == 3);
        CHECK(head_of(*store, "k").conflict ==
              Conflict{.count = 3, .fingerprints = {"wrong-1", "wrong-2"}});
        must(cache.complete(claim, "r"));
    });
}

TEST_CASE("many: any number of wrong requests for one key costs one append") {
    // Guards against a flush for each of them, during which the leases of the span's claims run.
    on_each_store([](TestStore& store) {
        HookedStore counted(*store);
        Cache cache(counted);
        std::vector<ClaimRequest> requests = {{"k", with_fingerprint("right")}, {"l", {}}};
        std::vector<RememberRequest> lines;
        for (int i = 1; i < 200; ++i) {
            requests.push_back({"k", with_fingerprint("wrong-" + std::to_string(i))});
            lines.push_back({"k", "r", requests.back().options});
        }
        const auto answers = cache.claim_many(requests);
        const Claim claim = as<Claimed>(answers[0]).claim;
        as<Claimed>(answers[1]);
        for (std::size_t i = 2; i < answers.size(); ++i) {
            CHECK(as<Mismatch>(answers[i]).conflicts == i - 1);
        }
        CHECK(counted.appends == 2);
        CHECK(counted.items == requests.size() + 1);

        const auto remembered = cache.remember_many(lines);
        CHECK(as<Mismatch>(remembered.back()).conflicts == 2 * lines.size());
        CHECK(counted.appends == 3);
        const Record head = head_of(*store, "k");
        CHECK(head.conflict.count == 2 * lines.size());
        CHECK(head.conflict.fingerprints.size() == kConflictFingerprintsMax);
        CHECK(cache.metrics().counts.mismatches == 2 * lines.size());
        must(cache.complete(claim, "r"));
    });
}

TEST_CASE("many: wrong requests that are counted together lose a race or fail together") {
    // Guards against requests that are told that they were counted, and were not.
    on_each_store([](TestStore& store) {
        HookedStore hooked(*store);
        Cache cache(hooked);
        Cache other(*store);
        must_claim(cache, "k", with_fingerprint("right"));
        hooked.before_append = [&] {
            hooked.before_append = {};
            as<Mismatch>(other.claim("k", with_fingerprint("theirs")));
        };
        const std::vector<ClaimRequest> requests = {{"k", with_fingerprint("a")},
                                                    {"k", with_fingerprint("right")},
                                                    {"k", with_fingerprint("b")},
                                                    {"new", {}}};
        auto answers = cache.claim_many(requests);
        CHECK(as<Mismatch>(answers[0]).conflicts == 2);
        as<InFlight>(answers[1]);
        CHECK(as<Mismatch>(answers[2]).conflicts == 3);
        as<Claimed>(answers[3]);
        CHECK(head_of(*store, "k").conflict ==
              Conflict{.count = 3, .fingerprints = {"theirs", "a", "b"}});

        hooked.fail_append = [](const Append&) { return std::optional(Code::out_of_space); };
        answers = cache.claim_many(requests);
        check_error(answers[0], Code::out_of_space);
        CHECK(as<InFlight>(answers[1]).owner.empty());
        check_error(answers[2], Code::out_of_space);
        CHECK(head_of(*store, "k").conflict.count == 3);
    });
}

TEST_CASE("many: a bad item fails alone, and an empty span is fine") {
    // Guards against one bad line that loses its batch.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        CHECK(cache.claim_many({}).empty());
        CHECK(cache.complete_many({}).empty());
        CHECK(cache.remember_many({}).empty());
        CHECK(cache.lookup_many({}).empty());

        const std::vector<ClaimRequest> requests = {
            {"", {}}, {"a", {}}, {"b", with_ttl(0ms)}, {"c", {}}};
        const auto answers = cache.claim_many(requests);
        check_error(answers[0], Code::invalid_argument, "key");
        CHECK(as<Claimed>(answers[1]).claim.key == "a");
        check_error(answers[2], Code::invalid_argument, "ttl");
        CHECK(as<Claimed>(answers[3]).claim.key == "c");

        const std::string long_key(kKeyBytesMax + 1, 'k');
        const std::vector<std::string_view> keys = {"a", long_key, "none"};
        const auto found = cache.lookup_many(keys);
        as<InFlight>(found[0]);
        check_error(found[1], Code::invalid_argument, "key");
        as<Absent>(found[2]);
    });
}

TEST_CASE("many: renewals and releases, each with its fence, in one append") {
    on_each_store([](TestStore& store) {
        HookedStore counted(*store);
        Cache cache(counted);
        const Claim stale = must_claim(cache, "stale", with_lease(1s));
        store.clock.advance(1'001);
        must_claim(cache, "stale", with_lease(10s));
        const std::vector<Claim> claims = {must_claim(cache, "a", with_lease(1s)), stale,
                                           must_claim(cache, "b")};
        counted.appends = 0;
        const auto renewed = cache.renew_many(claims, 5s);
        CHECK(must(renewed[0]).deadline_ms == store.clock.now_ms() + 5'000);
        check_error(renewed[1], Code::stale_claim);
        CHECK(must(renewed[2]).deadline_ms == store.clock.now_ms() + 5'000);
        CHECK(counted.appends == 1);

        const auto released = cache.release_many(claims);
        CHECK(must(released[0]));
        check_error(released[1], Code::stale_claim);
        CHECK(must(released[2]));
        CHECK(counted.appends == 2);
        CHECK_FALSE(must(cache.release_many(claims)[0]));
        CHECK(cache.renew_many({}, 1s).empty());
        CHECK(cache.release_many({}).empty());
    });
}

TEST_CASE("many: requests made of temporaries name the keys that they were made with") {
    // Guards against views of strings that are gone: all such requests named one key.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        const std::string long_enough(40, 'k');  // to be on the heap
        std::vector<ClaimRequest> claims;
        std::vector<RememberRequest> lines;
        for (int i = 0; i < 10; ++i) {
            claims.push_back({.key = long_enough + std::to_string(i), .options = with_lease(30s)});
            lines.push_back(
                {.key = std::to_string(i) + long_enough, .receipt = "r", .options = {}});
        }
        const auto claimed = cache.claim_many(claims);
        const auto remembered = cache.remember_many(lines);
        for (std::size_t i = 0; i < claims.size(); ++i) {
            CHECK(as<Claimed>(claimed[i]).claim.key == long_enough + std::to_string(i));
            as<New>(remembered[i]);
            as<InFlight>(cache.lookup(long_enough + std::to_string(i)));
            as<Completed>(cache.lookup(std::to_string(i) + long_enough));
        }
    });
}

TEST_CASE("many: a span larger than a batch may be is split") {
    // Guards against a large file that the store refuses at once.
    const auto store = make_memory_store();
    HookedStore counted(*store);
    Cache cache(counted);
    std::vector<std::string> keys;
    for (std::size_t i = 0; i < kBatchItemsMax + 10; ++i) {
        keys.push_back(std::to_string(i % (kBatchItemsMax + 5)));
    }
    std::vector<RememberRequest> requests;
    for (const std::string& key : keys) {
        requests.push_back({key, key, {}});
    }
    const auto answers = cache.remember_many(requests);
    REQUIRE(answers.size() == requests.size());
    std::size_t made = 0;
    for (std::size_t i = 0; i < answers.size(); ++i) {
        made += answers[i] && std::holds_alternative<New>(*answers[i]);
    }
    CHECK(made == kBatchItemsMax + 5);
    CHECK(as<Completed>(answers.back()).receipt == keys.back());
    CHECK(counted.appends == 2);
    CHECK(records_in(*store) == kBatchItemsMax + 5);
}

}  // namespace
}  // namespace dedup::test
