// What is left of a claim whose holder did not answer: notes, who was here before, holds, and how
// somebody decides.
#include <doctest/doctest.h>

#include "cache/helpers.hpp"

namespace dedup::test {
namespace {

ClaimOptions by(std::string owner, milliseconds lease = 1s) {
    return {.owner = std::move(owner), .lease = lease};
}

ClaimOptions held_by(std::string owner, milliseconds lease = 1s) {
    ClaimOptions options = by(std::move(owner), lease);
    options.unanswered = Unanswered::hold;
    return options;
}

Previous previous_of(Cache& cache, std::string_view key, const ClaimOptions& options = {}) {
    const auto claimed = as<Claimed>(cache.claim(key, options));
    REQUIRE(claimed.previous.has_value());
    return *claimed.previous;
}

TEST_CASE("note: whether the holder himself has noted something can be told") {
    // Guards against a key that is freed although its work has begun, as the note says the same as
    // the one that the claim began with.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const auto noted = [&](const Claim& claim) { return must(cache.may_have_noted(claim)); };
        const Claim first = must_claim(cache, "k", by("w1"));
        CHECK_FALSE(noted(first));
        must(cache.note(first, "reference 42"));
        CHECK(noted(first));
        store.clock.advance(1'001);
        const Claim second = must_claim(cache, "k", {.fingerprint = "one", .lease = 1s});
        CHECK_FALSE(noted(first));
        CHECK_FALSE(noted(second));
        as<Mismatch>(cache.claim("k", {.fingerprint = "other"}));
        must(cache.renew(second, 2s));
        CHECK(noted(second) == !store.keeps_versions());
        must(cache.note(second, "reference 42"));
        CHECK(noted(second));
        must(cache.complete(second, "r"));
        CHECK_FALSE(noted(second));

        CHECK_FALSE(noted(must_claim(cache, "with metadata", {.metadata = "from the queue"})));
        CHECK_FALSE(noted({.ns = "default", .key = "unknown", .claim_sequence = 1}));
    });
}

TEST_CASE("note: one whose record has been swept away counts as the holder's own") {
    // Guards against a key that is freed although its work has begun, as the note's segment is
    // gone.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = kForever});
        must_claim(cache, "first", by("w"));
        as<New>(cache.remember("stays", std::string(40'000, 'r')));
        must(cache.note(must_claim(cache, "k", by("w1")), "calls the bank"));
        store.clock.advance(1'001);
        const Claim second = must_claim(cache, "k", by("w2", 1h));
        int filled = 0;
        const auto fill_segments = [&] {
            for (int i = 0; i < 10; ++i) {
                const std::string key = "short-lived " + std::to_string(filled++);
                as<New>(cache.remember(key, std::string(15'000, 'r'), {.ttl = 1s}));
            }
        };
        fill_segments();
        must(cache.note(second, "calls the bank"));
        fill_segments();
        must(cache.renew(second, 2h));
        fill_segments();
        const auto versions = [&] { return must(store->history({"default", "k"})).size(); };
        const std::size_t all = versions();
        store.clock.advance(5'000);
        CHECK(must(store->sweep()).removed.completed == 30);
        CHECK((versions() < all) == store.has_segments());
        CHECK(must(cache.may_have_noted(second)));
    });
}

TEST_CASE("note: fenced, durable, and changes nothing else about the claim") {
    // Guards against an effect whose announcement was lost, or was somebody else's.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const Claim claim = must_claim(cache, "k", by("w1"));
        const Record before = head_of(*store, "k");
        store.clock.advance(10);
        must(cache.note(claim, "about to call the bank, reference 42"));
        if (store.durable()) {
            store.reopen();
        }
        Record after = head_of(*store, "k");
        CHECK(after.metadata == "about to call the bank, reference 42");
        after.metadata = before.metadata;
        after.sequence = before.sequence;
        CHECK(after == before);

        Cache again(*store, {.ttl = 60s});
        CHECK(as<InFlight>(again.lookup("k")).metadata == "about to call the bank, reference 42");
        const InFlight found = as<InFlight>(again.claim("k"));
        CHECK(found.metadata == "about to call the bank, reference 42");
        CHECK(found.unanswered == Unanswered::rerun);

        store.clock.advance(1'000);
        must(again.note(claim, "late, but nobody has taken over"));
        const Claim next = must_claim(again, "k");
        check_error(again.note(claim, "dead"), Code::stale_claim, "replaced");
        must(again.complete(next, "r"));
        check_error(again.note(next, "over"), Code::stale_claim, "already completed");
        check_error(again.note(next, std::string(kMetadataBytesMax + 1, 'n')),
                    Code::invalid_argument, "metadata is 65,537 bytes");
        CHECK(again.metrics().counts.noted == 1);
    });
}

TEST_CASE("note: who takes over under a hold keeps what the one before had noted") {
    // Guards against a second death that leaves a held key without its evidence.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        const Claim first = must_claim(cache, "k", with_lease(1s));
        must(cache.note(first, "reference 42"));
        store.clock.advance(1'001);
        must_claim(cache, "k", {.lease = 1s, .unanswered = Unanswered::hold});
        store.clock.advance(1'001);
        CHECK(as<Held>(cache.claim("k")).previous.note == "reference 42");
        check_error(cache.remember("k", "r", {.reclaim_before_ms = 1}), Code::invalid_argument,
                    "owner");
    });
}

TEST_CASE("note: it stays until another takes its place or somebody decides, whoever comes") {
    // Guards against a third worker who pays again, as the second one had noted nothing.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const auto next = [&](const ClaimOptions& options = with_lease(1s)) {
            store.clock.advance(1'001);
            return as<Claimed>(cache.claim("k", options));
        };
        const auto first = next();
        CHECK(first.metadata.empty());
        must(cache.note(first.claim, "reference 42"));
        CHECK(next().metadata == "reference 42");  // and dies at once
        const auto third = next();
        CHECK(third.previous->note == "reference 42");
        CHECK(must(cache.release(third.claim)));
        const auto fourth = next();
        CHECK(fourth.previous->end == End::released);
        CHECK(as<InFlight>(cache.lookup("k")).metadata == "reference 42");
        must(cache.note(fourth.claim, "reference 43"));
        CHECK(next().metadata == "reference 43");
        CHECK(next({.metadata = "its own", .lease = 1s}).metadata == "its own");

        const auto last = next();
        store.clock.advance(1'001);
        must(cache.resolve("k", last.claim.claim_sequence, {.reason = "not in the list"}));
        const auto resolved = next();
        CHECK(resolved.previous->note == "its own");
        CHECK(resolved.metadata.empty());
        must(cache.note(resolved.claim, "reference 44"));
        CHECK(must(cache.release(resolved.claim)));
        as<New>(cache.remember("k", "paid"));
        CHECK(as<Completed>(cache.lookup("k")).metadata == "reference 44");
        CHECK(must(cache.forget("k", 0, "refunded")));
        CHECK(next().metadata.empty());
    });
}

TEST_CASE("note: none comes once the key is held, so that none comes behind a decision") {
    // Guards against an operator who sees no note, decides "not done", and was overtaken by one.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        const Claim late = must_claim(cache, "late", held_by("w"));
        const Claim given_up = must_claim(cache, "given up", held_by("w", 1h));
        const Claim endless = must_claim(cache, "endless", {.unanswered = Unanswered::hold});
        store.clock.advance(1'000);
        must(cache.note(late, "in time"));
        must(cache.hold(given_up, "timeout"));
        store.clock.advance(1);
        check_error(cache.note(late, "too late"), Code::stale_claim, "held until somebody decides");
        check_error(cache.note(given_up, "too late"), Code::stale_claim, "held until");
        must(cache.note(endless, "nothing says that its holder is gone"));
        CHECK(head_of(*store, "late").metadata == "in time");

        // A renewal takes it back before anybody has decided; then nobody can.
        const Claim renewed = must(cache.renew(late, 1s));
        must(cache.note(renewed, "in time again"));
        check_error(cache.resolve("late", late.claim_sequence, {.reason = "no note"}), Code::busy);
    });
}

TEST_CASE("note: a span is one append, each with its fence") {
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        const Claim a = must_claim(cache, "a");
        const Claim b = must_claim(cache, "b");
        CHECK(must(cache.release(b)));
        const std::vector<Note> notes{{a, "one"}, {b, "two"}, {a, "three"}};
        const auto answers = cache.note_many(notes);
        must(answers[0]);
        check_error(answers[1], Code::stale_claim, "released");
        must(answers[2]);
        CHECK(head_of(*store, "a").metadata == "three");
    });
}

TEST_CASE("previous: a takeover and a retry after a release can be told apart") {
    // Guards against a second worker who does not learn what the first one knew.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        store.clock.set(10'000);
        CHECK(!as<Claimed>(cache.claim("k", {.owner = "w1", .event_id = "e1", .lease = 1s}))
                   .previous);
        must(cache.note(
            {.ns = "default", .key = "k", .claim_sequence = head_of(*store, "k").claim_sequence},
            "asked the bank"));
        store.clock.set(12'000);
        const auto taken = as<Claimed>(cache.claim("k", by("w2")));
        REQUIRE(taken.previous);
        CHECK(taken.previous->owner == "w1");
        CHECK(taken.previous->event_id == "e1");
        CHECK(taken.previous->note == "asked the bank");
        CHECK(taken.previous->began_ms == 10'000);
        CHECK(taken.previous->ended_ms == 11'000);
        CHECK(taken.previous->attempt == 1);
        CHECK(taken.previous->claim_sequence < taken.claim.claim_sequence);
        CHECK(taken.previous->end == End::lease_ran_out);

        must(cache.note(taken.claim, "the bank says no"));
        store.clock.set(12'500);
        CHECK(must(cache.release(taken.claim)));
        store.clock.set(13'000);
        const Previous freed = previous_of(cache, "k");
        CHECK(freed.owner == "w2");
        CHECK(freed.note == "the bank says no");
        CHECK(freed.began_ms == 12'000);
        CHECK(freed.ended_ms == 12'500);
        CHECK(freed.attempt == 2);
        CHECK(freed.claim_sequence == taken.claim.claim_sequence);
        CHECK(freed.end == End::released);

        store.clock.set(13'000 + 61'001);  // without a lease
        const Previous expired = previous_of(cache, "k");
        CHECK(expired.end == End::expired);
        CHECK(expired.began_ms == 13'000);
        CHECK(expired.ended_ms == 73'000);
        CHECK(expired.attempt == 3);
    });
}

TEST_CASE("previous: whoever remembers a key is told who was there before, too") {
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        CHECK(!as<New>(cache.remember("fresh", "r")).previous);
        must(cache.note(must_claim(cache, "k", by("w1")), "reference 42"));
        store.clock.advance(1'001);
        const auto fresh = as<New>(cache.remember("k", "r", {.owner = "w2"}));
        CHECK(fresh.claim_sequence == head_of(*store, "k").claim_sequence);
        REQUIRE(fresh.previous);
        CHECK(fresh.previous->owner == "w1");
        CHECK(fresh.previous->note == "reference 42");
        CHECK(fresh.previous->end == End::lease_ran_out);
        CHECK(head_of(*store, "k").attempt == 2);
    });
}

TEST_CASE("hold: never taken over, never swept, never evicted, until it is answered") {
    // Guards against money that moves twice because nobody was asked.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s, .unanswered = Unanswered::hold});
        store.clock.set(10'000);
        const Claim claim = must_claim(cache, "k", by("w1"));
        CHECK(claim.deadline_ms == 11'000);
        must(cache.note(claim, "reference 42"));
        store.clock.set(11'000);
        CHECK(!as<InFlight>(cache.claim("k")).held);
        store.clock.set(11'001);
        const Previous previous = as<Held>(cache.claim("k", by("w2"))).previous;
        CHECK(previous.owner == "w1");
        CHECK(previous.note == "reference 42");
        CHECK(previous.began_ms == 10'000);
        CHECK(previous.ended_ms == 11'000);
        CHECK(previous.claim_sequence == claim.claim_sequence);
        CHECK(previous.end == End::lease_ran_out);
        as<Held>(cache.remember("k", "r"));
        CHECK(cache.metrics().counts.held == 2);

        // A policy of the next caller, or of another cache, does not undo the claim's.
        Cache other(*store, {.ttl = 1ms});
        as<Held>(other.claim("k", {.unanswered = Unanswered::rerun}));

        store.clock.set(10'000'000);
        must(store->sweep());
        as<Held>(cache.claim("k"));
        const InFlight seen = as<InFlight>(cache.lookup("k"));
        CHECK(seen.held);
        CHECK(seen.unanswered == Unanswered::hold);
        CHECK(seen.expires_at_ms == 0);
        CHECK(as<InFlight>(cache.wait("k", 1h)).held);

        // The holder may answer after all; the receipt's time runs from then.
        must(cache.complete(claim, "r"));
        CHECK(as<Completed>(cache.claim("k")).expires_at_ms == 10'060'000);
        CHECK(!head_of(*store, "k").hold);
    });
}

TEST_CASE(
    "hold: per claim, with an expiry of its own, without a lease, and after so many attempts") {
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s, .attempts_max = 2});
        store.clock.set(10'000);
        ClaimOptions absolute = held_by("w");
        absolute.expires_at_ms = 15'000;
        const Claim claim = must_claim(cache, "absolute", absolute);
        store.clock.set(20'000);
        as<Held>(cache.claim("absolute"));
        must(cache.complete(claim, "r"));
        CHECK(as<Completed>(cache.lookup("absolute")).expires_at_ms == 25'000);

        const Claim endless = must_claim(cache, "endless", {.unanswered = Unanswered::hold});
        CHECK(endless.deadline_ms == 0);
        store.clock.set(1'000'000);
        const InFlight found = as<InFlight>(cache.claim("endless"));
        CHECK(!found.held);
        CHECK(found.unanswered == Unanswered::hold);

        must_claim(cache, "again", by("w1"));
        store.clock.advance(1'001);
        const Claim second = must_claim(cache, "again", by("w2"));
        CHECK(second.attempt == 2);
        store.clock.advance(1'001);
        CHECK(as<Held>(cache.claim("again")).previous.attempt == 2);
        CHECK(must(cache.release(second)));
        const auto third = as<Claimed>(cache.claim("again", by("w3")));
        CHECK(third.previous->end == End::released);
        store.clock.advance(1'001);
        as<Held>(cache.claim("again"));
    });
}

TEST_CASE("hold: by a holder who cannot say what became of its work") {
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        store.clock.set(10'000);
        const Claim claim = must_claim(cache, "k", by("w1", 1h));
        must(cache.note(claim, "sent"));
        store.clock.set(10'500);
        must(cache.hold(claim, "timeout of the bank"));
        const Previous previous = as<Held>(cache.claim("k")).previous;  // at once
        CHECK(previous.end == End::held);
        CHECK(previous.reason == "timeout of the bank");
        CHECK(previous.by == "w1");
        CHECK(previous.ended_ms == 10'500);
        CHECK(previous.note == "sent");
        check_error(cache.renew(claim, 1s), Code::stale_claim, "held until somebody decides");
        must(cache.complete(claim, "r"));
        CHECK(as<Completed>(cache.claim("k")).expires_at_ms == 70'500);
        check_error(cache.hold(claim, "late"), Code::stale_claim);
        CHECK(cache.metrics().counts.put_on_hold == 1);

        const Claim plain = must_claim(cache, "plain", with_expiry(12'500));
        must(cache.hold(plain, ""));
        store.clock.set(1'000'000);
        as<Held>(cache.claim("plain"));
        must(cache.complete(plain, "r"));
        CHECK(as<Completed>(cache.claim("plain")).expires_at_ms == 1'002'000);
    });
}

TEST_CASE(
    "resolve: it had been done, or it had not, by whom and why, under the fence that was seen") {
    // Guards against two operators who undo each other.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s, .unanswered = Unanswered::hold});
        store.clock.set(10'000);
        const Claim done = must_claim(cache, "done", by("w1"));
        must(cache.note(done, "reference 42"));
        const Claim not_done = must_claim(cache, "not done", by("w1"));
        const Resolution yes{.receipt = "paid", .reason = "in the bank's list", .by = "ada"};
        const Resolution no{.reason = "not in the bank's list", .by = "ada"};
        check_error(cache.resolve("done", done.claim_sequence, yes), Code::busy,
                    "runs for 1000 ms");
        store.clock.set(11'001);
        check_error(cache.resolve("done", done.claim_sequence + 1'000, yes), Code::stale_claim);
        check_error(cache.resolve("absent", 1, no), Code::stale_claim, "knows nothing");
        check_error(cache.resolve("done", 0, yes), Code::invalid_argument, "claim_sequence is 0");
        check_error(cache.resolve("done", done.claim_sequence, {.receipt = "paid"}),
                    Code::invalid_argument, "reason is empty");
        check_error(cache.resolve("done", done.claim_sequence,
                                  {.reason = std::string(kReasonBytesMax + 1, 'r')}),
                    Code::invalid_argument, "reason is 4,097 bytes");

        must(cache.resolve("done", done.claim_sequence, yes));
        const Completed completed = as<Completed>(cache.claim("done"));
        CHECK(completed.receipt == "paid");
        CHECK(completed.metadata == "reference 42");
        CHECK(completed.completed_at_ms == 11'001);
        CHECK(completed.expires_at_ms == 71'001);
        CHECK(head_of(*store, "done").verdict ==
              Verdict{Verdict::Kind::resolved, "ada", "in the bank's list"});
        must(cache.resolve("done", done.claim_sequence, yes));  // again
        check_error(cache.resolve("done", done.claim_sequence, no), Code::receipt_mismatch);
        must(cache.complete(done, "paid"));  // the holder, late

        must(cache.resolve("not done", not_done.claim_sequence, no));
        must(cache.resolve("not done", not_done.claim_sequence, no));
        check_error(cache.resolve("not done", not_done.claim_sequence, yes), Code::stale_claim);
        check_error(cache.complete(not_done, "late"), Code::stale_claim, "released");
        const auto next = as<Claimed>(cache.claim("not done", by("w2")));
        CHECK(next.claim.attempt == 2);
        CHECK(next.previous->end == End::resolved);
        CHECK(next.previous->reason == "not in the bank's list");
        CHECK(next.previous->by == "ada");
        CHECK(next.previous->began_ms == 10'000);
        check_error(cache.resolve("not done", not_done.claim_sequence, no), Code::stale_claim,
                    "replaced");
        CHECK(cache.metrics().counts.resolved == 2);
    });
}

TEST_CASE("resolve: whatever nobody answered, held or not") {
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const Claim leased = must_claim(cache, "leased", by("w"));
        const Claim endless = must_claim(cache, "endless");
        store.clock.advance(1'001);
        must(cache.resolve("leased", leased.claim_sequence, {.reason = "died"}));
        must(cache.resolve("endless", endless.claim_sequence,
                           {.receipt = "r", .reason = "died", .ttl = 5ms}));
        CHECK(as<Completed>(cache.lookup("endless")).expires_at_ms == (*store).now_ms() + 5);
        const Claim released = must_claim(cache, "released");
        CHECK(must(cache.release(released)));
        check_error(cache.resolve("released", released.claim_sequence, {.reason = "no"}),
                    Code::stale_claim, "released");
    });
}

TEST_CASE("hold: whoever answers for a held key names the claim that he means") {
    // Guards against a clean-up that frees what somebody is to look at.
    on_each_store([](TestStore& store) {
        Cache cache(*store);
        const Claim claim = must_claim(cache, "k", held_by("w"));
        const auto refused = [&](const auto& answer) {
            check_error(answer, Code::stale_claim, "resolve it");
        };
        store.clock.advance(1'001);
        refused(cache.release_current("k"));
        refused(cache.complete_current("k", "r"));
        must(cache.renew(claim, 1s));
        CHECK(must(cache.release_current("k")));  // somebody works again
        const Claim given_up = must_claim(cache, "k", with_lease(1s));
        must(cache.hold(given_up, "timeout"));
        refused(cache.release_current("k"));
        refused(cache.complete_current("k", "r"));
        must(cache.complete(given_up, "r"));
        must(cache.complete_current("k", "r"));  // nothing is left to decide
    });
}

TEST_CASE("stale: a claim that expired, was taken back, or is newer than all that is known") {
    // Guards against a late worker who is told to work again, and an old copy that nobody notices.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        const Claim expired = must_claim(cache, "expired");
        store.clock.advance(62'000);
        check_error(cache.complete(expired, "r"), Code::stale_claim,
                    "has expired; find out whether your work was done");

        const Claim paid = must_claim(cache, "forgotten");
        must(cache.complete(paid, "r"));
        CHECK(must(cache.forget("forgotten", 0, "refunded", "ada")));
        check_error(cache.complete(paid, "r"), Code::stale_claim,
                    "was completed, and \"ada\" took that back (\"refunded\")");
        check_error(cache.resolve("forgotten", paid.claim_sequence, {.reason = "late"}),
                    Code::stale_claim, "took that back");

        Claim newer = must_claim(cache, "k");
        const Claim known = newer;
        newer.claim_sequence += 1'000;
        const auto check_newer = [&] {
            check_error(cache.release(newer), Code::stale_claim, "put back from a copy");
        };
        check_newer();
        must(cache.complete(known, "r"));
        check_newer();
        CHECK(must(cache.forget("k", 0, "refunded")));
        check_newer();
        newer.key = "absent";
        CHECK(!must(cache.release(newer)));
    });
}

TEST_CASE("forget: a completed key is claimable again, and the history says why") {
    // Guards against a receipt that goes without a trace.
    on_each_store([](TestStore& store) {
        Cache cache(*store, {.ttl = 60s});
        store.clock.set(10'000);
        const Claim claim = must_claim(cache, "k", with_fingerprint("f"));
        CHECK(!must(cache.forget("k", 0, "in flight")));
        CHECK(!must(cache.forget("absent", 0, "absent")));
        store.clock.set(15'000);
        must(cache.complete(claim, "receipt"));
        check_error(cache.forget("k", 0, ""), Code::invalid_argument, "reason is empty");
        check_error(cache.forget("k", claim.claim_sequence + 1'000, "other"), Code::stale_claim);
        as<Completed>(cache.claim("k"));
        store.clock.set(20'000);
        CHECK(must(cache.forget("k", claim.claim_sequence, "the bank lost it", "ada")));
        CHECK(!must(cache.forget("k", claim.claim_sequence, "the bank lost it", "ada")));
        as<Absent>(cache.lookup("k"));
        if (store.keeps_versions()) {
            const auto history = must(store->history({"default", "k"}));
            REQUIRE(history.size() == 3);
            CHECK(std::ranges::count_if(history, [](const Version& version) {
                      return version.record.receipt == "receipt";
                  }) == 1);
        }
        check_error(cache.complete(claim, "receipt"), Code::stale_claim);
        const auto next = as<Claimed>(cache.claim("k", with_fingerprint("g")));
        CHECK(next.claim.attempt == 2);
        CHECK(next.previous->end == End::forgotten);
        CHECK(next.previous->reason == "the bank lost it");
        CHECK(next.previous->by == "ada");
        CHECK_MESSAGE(next.previous->began_ms == 0, "a completion does not say when it began");
        CHECK(next.previous->ended_ms == 20'000);
        CHECK(cache.metrics().counts.forgotten == 1);
    });
}

}  // namespace
}  // namespace dedup::test
