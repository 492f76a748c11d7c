// The contract of StreamStore: what a sweep reports, how it is limited, and its history.
#include <doctest/doctest.h>

#include <algorithm>
#include <stop_token>
#include <string>
#include <vector>

#include "contract/contract_sweep.hpp"

namespace dedup::test {
namespace {

SweepOptions dry() {
    SweepOptions options;
    options.dry_run = true;
    return options;
}

SweptNamespace row(std::string ns, StateCounts removed, StateCounts retained) {
    return {.ns = std::move(ns), .removed = removed, .retained = retained};
}

// Streams in three namespaces and all states, of which some have expired at 62,001 ms.
void append_mixture(StreamStore& store) {
    const std::uint64_t a = must_append(store, 0, in_flight("a", "one"));
    Record renewed = in_flight("a", "one");
    renewed.owner = "worker-3";
    renewed.claim_sequence = a;
    renewed.lease_until_ms = 30'000;
    renewed.attempt = 3;
    renewed.event_id = "event-7";
    renewed.metadata.assign(kUnansweredNoteBytesMax + 1, 'n');
    must_append(store, a, renewed);
    must_append(store, 0, expiring(completed("b", "r", "one"), 80'000));
    must_append(store, 0, released("c", "one"));
    must_append(store, 0, in_flight("a", "two"));
    must_append(store, 0, completed("b", "r", "two"));
    must_append(store, 0, completed("c", "r", "two"));
    must_append(store, 0, expiring(released("d", "two"), kNever));
    must_append(store, 0, expiring(in_flight("a", "three"), 70'000));
    must_append(store, 0, expiring(completed("b", "r", "three"), kNever));
}

TEST_CASE("sweep report: says exactly what went, by state and namespace, and what is left") {
    // Guards against numbers that are nearly right.
    on_each_store([](TestStore& store) {
        append_mixture(*store);
        const SweepReport report = sweep_at(store, 62'001);
        CHECK(report.removed == StateCounts{.in_flight = 2, .completed = 2, .released = 1});
        CHECK(report.retained == StateCounts{.in_flight = 1, .completed = 2, .released = 1});
        CHECK(report.evicted == 0);
        CHECK(report.next_expiry_ms == 70'000);
        const std::vector<SweptNamespace> expected = {
            row("one", {.in_flight = 1, .released = 1}, {.completed = 1}),
            row("two", {.in_flight = 1, .completed = 2}, {.released = 1})};
        CHECK(report.namespaces == expected);
        CHECK(!report.dry_run);
        CHECK(report.finished);
        CHECK(!report.interrupted);
        if (!store.durable()) {
            CHECK(report.records_dropped == 6);
            CHECK(report.records_scanned == 9);
        }
        const StoreStats stats = stats_of(*store);
        CHECK(stats.in_flight == 1);
        CHECK(stats.completed == 2);
        CHECK(stats.released == 1);
        CHECK(stats.last_sweep_ms == 62'001);
        CHECK(stats.sweep_error == "");
    });
}

TEST_CASE("sweep report: claims that expired unanswered are listed with owner and age") {
    // Guards against work whose outcome nobody knows and nobody is told of.
    on_each_store([](TestStore& store) {
        append_mixture(*store);
        must_append(*store, 0, in_flight("last", "one"));
        const auto listed = [&](std::size_t unanswered_max) {
            SweepOptions options = dry();
            options.unanswered_max = unanswered_max;
            const SweepReport report = must_sweep(*store, options);
            CHECK(report.removed.in_flight == 3);
            return report.unanswered;
        };
        store.clock.set(62'001);
        const auto all = listed(100);
        REQUIRE(all.size() == 3);
        const UnansweredClaim first = {.ns = "one",
                                       .key = "a",
                                       .owner = "worker-3",
                                       .claim_sequence = all[0].claim_sequence,
                                       .claimed_at_ms = 1'000,
                                       .expired_at_ms = 61'000,
                                       .attempt = 3,
                                       .event_id = "event-7",
                                       .note = std::string(kUnansweredNoteBytesMax, 'n')};
        CHECK(all[0] == first);
        CHECK(all[0].claim_sequence + 1 == head_of(*store, "a", "one")->sequence);
        CHECK(all[1].ns == "two");
        CHECK(all[2].key == "last");
        CHECK(listed(3) == all);
        CHECK(listed(2) == std::vector(all.begin(), all.begin() + 2));
        CHECK(listed(0).empty());
        CHECK(must_sweep(*store).unanswered == all);
    });
}

TEST_CASE("sweep report: the next expiry is the earliest that is left, or none") {
    // Guards against a sweeper that sleeps past what it should remove.
    on_each_store([](TestStore& store) {
        must_append(*store, 0, expiring(completed("forever", "r"), kNever));
        CHECK(!must_sweep(*store).next_expiry_ms);
        must_append(*store, 0, expiring(completed("late", "r"), 90'000));
        must_append(*store, 0, expiring(completed("early", "r"), 70'000));
        CHECK(must_sweep(*store).next_expiry_ms == 70'000);
        CHECK(sweep_at(store, 71'000).next_expiry_ms == 70'000);  // past, but within its grace
        CHECK(sweep_at(store, 71'001).next_expiry_ms == 90'000);
        CHECK(!sweep_at(store, 91'001).next_expiry_ms);
    });
}

TEST_CASE("sweep report: what is not sealed is counted once, when all of it has expired, too") {
    // Guards against streams that are counted again because those around them have expired as well.
    on_each_store([](TestStore& store) {
        must_append(*store, 0, expiring(completed("a", "r"), 61'000));
        must_append(*store, 0, expiring(in_flight("b"), 61'000));
        must_append(*store, 0, expiring(in_flight("c"), 80'000));
        must_append(*store, 0, expiring(released("d"), 80'000));
        const SweepReport first = sweep_at(store, 62'001);
        CHECK(first.removed == StateCounts{.in_flight = 1, .completed = 1});
        CHECK(first.retained == StateCounts{.in_flight = 1, .released = 1});
        const SweepReport second = sweep_at(store, 81'001);
        CHECK(second.removed == StateCounts{.in_flight = 1, .released = 1});
        REQUIRE(second.unanswered.size() == 1);
        CHECK(second.unanswered[0].key == "c");
        CHECK(second.retained.total() == 0);
        // Had expired when it came, and no sweep has seen it yet.
        must_append(*store, 0, expiring(in_flight("e"), 50'000));
        now_and_after_reopen(store, [&] { CHECK(stats_of(*store).streams() == 1); });
        const SweepReport third = sweep_at(store, 81'001);
        CHECK(third.removed == StateCounts{.in_flight = 1});
        REQUIRE(third.unanswered.size() == 1);
        CHECK(third.unanswered[0].key == "e");
        now_and_after_reopen(store, [&] { CHECK(stats_of(*store).streams() == 0); });
    });
}

TEST_CASE("sweep report: of sealed and unsealed records alike") {
    // Guards against numbers from a segment's summary that its records do not bear out.
    on_each_store([](TestStore& store) {
        append_many(*store, "gone-", 150, 61'000);
        append_many(*store, "stays-", 50, 100'000);
        for (int i = 0; i < 50; ++i) {
            const std::string key = "gone-" + std::to_string(i);
            must_append(*store, head_sequence(*store, key),
                        expiring(completed(key, "prolonged"), 90'000));
        }
        wait_until_sealed(*store);
        const SweepReport first = sweep_at(store, 62'001);
        CHECK(first.removed == StateCounts{.completed = 100});
        CHECK(first.retained == StateCounts{.completed = 100});
        CHECK(first.next_expiry_ms == 90'000);
        now_and_after_reopen(store, [&] { CHECK(stats_of(*store).streams() == 100); });
        const SweepReport second = sweep_at(store, 91'001);
        CHECK(second.removed == StateCounts{.completed = 50});
        CHECK(second.next_expiry_ms == 100'000);
        CHECK(sweep_at(store, 101'001).retained.total() == 0);
        now_and_after_reopen(store, [&] {
            CHECK(stats_of(*store).streams() == 0);
            CHECK(scan_all(*store, {}).empty());
        });
    });
}

TEST_CASE("sweep report: of an empty store, and of one where nothing has expired") {
    // Guards against a sweep that trips over nothing.
    on_each_store([](TestStore& store) {
        for (const bool dry_run : {true, false}) {
            SweepOptions options;
            options.dry_run = dry_run;
            const SweepReport report = must_sweep(*store, options);
            SweepReport expected;
            expected.now_ms = 1'000;
            CHECK(show(report) == show(expected));
            CHECK(report.dry_run == dry_run);
            CHECK(report.finished);
        }
        must_append(*store, 0, in_flight("k"));
        const SweepReport report = must_sweep(*store);
        CHECK(report.removed == StateCounts{});
        CHECK(report.retained == StateCounts{.in_flight = 1});
        CHECK(report.namespaces.empty());
        CHECK(sweeps_of(*store).empty());
    });
}

TEST_CASE("sweep: a dry run changes nothing, and the real one then does what it said") {
    // Guards against a rehearsal that plays another piece, or plays it for real.
    on_each_store([](TestStore& store) {
        append_mixture(*store);
        append_many(*store, "gone-", 150, 61'000);
        append_many(*store, "stays-", 20, kNever);
        wait_until_sealed(*store);
        store.clock.set(62'001);
        const auto heads = scan_all(*store, {});
        const StoreStats before = stats_of(*store);
        const SweepReport said = must_sweep(*store, dry());
        CHECK(said.dry_run);
        CHECK((scan_all(*store, {}) == heads));
        const StoreStats after = stats_of(*store);
        CHECK(after.streams() == before.streams());
        CHECK(after.records == before.records);
        CHECK(after.last_sequence == before.last_sequence);
        CHECK(after.log_bytes == before.log_bytes);
        CHECK(after.last_sweep_ms == 0);
        CHECK(sweeps_of(*store).empty());
        CHECK(show(must_sweep(*store, dry())) == show(said));

        const SweepReport done = must_sweep(*store);
        CHECK(show(done) == show(said));
        CHECK(!done.dry_run);
        CHECK(done.removed.total() == 155);
        CHECK(must_sweep(*store, dry()).removed.total() == 0);
    });
}

TEST_CASE("sweep: limits bound the space that one gives back, and the next ones go on") {
    // Guards against a limited sweep that starts over each time, or reports a stream twice.
    on_each_store([](TestStore& store) {
        for (int i = 0; i < 10; ++i) {
            append_many(*store, "gone-" + std::to_string(i) + "-", 40, 61'000);
            append_many(*store, "stays-" + std::to_string(i) + "-", 2, kNever);
        }
        wait_until_sealed(*store);
        const StoreStats before = stats_of(*store);
        store.clock.set(62'001);
        SweepOptions options;
        options.bytes_max = 1;
        options.records_max = 1;
        SweepReport report = must_sweep(*store, options);
        CHECK(report.removed == StateCounts{.completed = 400});  // gone at once, limit or not
        CHECK(report.finished == !store.has_segments());
        CHECK(stats_of(*store).streams() == 20);
        int sweeps = 1;
        for (; !report.finished && sweeps < 1'000; ++sweeps) {
            report = must_sweep(*store, options);
            CHECK(report.removed.total() == 0);
        }
        CHECK(report.finished);
        CHECK(scan_all(*store, {}).size() == 20);
        if (store.has_segments()) {
            CHECK(sweeps > 2);
            CHECK(stats_of(*store).log_bytes < before.log_bytes / 2);
        }
    });
}

TEST_CASE("sweep: limits that are far away do not matter") {
    // Guards against a limit in other units than it says.
    on_each_store([](TestStore& store) {
        append_many(*store, "gone-", 100, 61'000);
        wait_until_sealed(*store);
        store.clock.set(62'001);
        SweepOptions options;
        options.time_max = std::chrono::hours(1);
        options.bytes_max = 1ULL << 40U;
        options.records_max = 1ULL << 40U;
        const SweepReport report = must_sweep(*store, options);
        CHECK(report.finished);
        CHECK(report.removed.total() == 100);
    });
}

TEST_CASE("sweep: a stop ends it early, and the next one finishes the work") {
    // Guards against a program that cannot end because it sweeps.
    on_each_store([](TestStore& store) {
        append_many(*store, "gone-", 300, 61'000);
        append_many(*store, "stays-", 3, kNever);
        wait_until_sealed(*store);
        store.clock.set(62'001);
        std::stop_source stop;
        stop.request_stop();
        SweepOptions options;
        options.stop = stop.get_token();
        const SweepReport stopped = must_sweep(*store, options);
        CHECK(stopped.finished == !store.has_segments());
        CHECK(stopped.removed.total() == 300);
        CHECK(stats_of(*store).streams() == 3);
        const SweepReport rest = must_sweep(*store);
        CHECK(rest.finished);
        CHECK(rest.removed.total() == 0);
        CHECK(stats_of(*store).streams() == 3);
    });
}

TEST_CASE("sweep: progress never says more than there is") {
    // Guards against a bar beyond its end.
    on_each_store([](TestStore& store) {
        append_many(*store, "gone-", 300, 61'000);
        append_many(*store, "stays-", 30, kNever);
        wait_until_sealed(*store);
        store.clock.set(62'001);
        int calls = 0;
        int wrong = 0;
        std::uint64_t last = 0;
        SweepOptions options;
        options.progress = [&](std::uint64_t done, std::uint64_t total) {
            ++calls;
            wrong += done > total || done < last;
            last = done;
        };
        must_sweep(*store, options);
        CHECK(calls > 0);
        CHECK(wrong == 0);
    });
}

TEST_CASE("sweep: whoever is called back may use the store, and never waits for itself") {
    // Guards against a sweep that waits for the lock that it has.
    on_each_store([](TestStore& store) {
        append_many(*store, "gone-", 200, 61'000);
        append_many(*store, "stays-", 200, kNever);
        wait_until_sealed(*store);
        store.clock.set(62'001);
        int calls = 0;
        SweepOptions options;
        options.compact = true;
        options.progress = [&](std::uint64_t, std::uint64_t) {
            append_many(*store, "called-" + std::to_string(calls) + "-", 40, kNever);
            CHECK(head_of(*store, "stays-0").has_value());
            CHECK(store->flush().has_value());
            CHECK(store->history({kNs, "stays-1"}).has_value());
            CHECK(store->scan({}).has_value());
            CHECK(store->stats().has_value());
            CHECK(store->sweep_history().has_value());
            CHECK(store->sweep(dry()).has_value() == !store.durable());
            if (store.durable()) {
                check_error(store->sweep(), Code::busy);
                check_error(store->close(), Code::busy);
            }
            ++calls;
        };
        CHECK(must_sweep(*store, options).removed.total() == 200);
        CHECK(calls > 0);
        now_and_after_reopen(store, [&] {
            CHECK(stats_of(*store).streams() == 200 + static_cast<std::uint64_t>(calls) * 40);
        });
    });
}

TEST_CASE("sweep history: the last 100 that did anything, newest first") {
    // Guards against a history that grows without end, or forgets the wrong end.
    on_each_store([](TestStore& store) {
        CHECK(sweeps_of(*store).empty());
        std::vector<std::string> shown;
        std::int64_t now_ms = 1'000;
        for (int i = 0; i < 103; ++i) {
            Record record = in_flight("k-" + std::to_string(i));
            record.owner = "worker-" + std::to_string(i);
            must_append(*store, 0, expiring(record, now_ms));
            now_ms += 1'001;
            store.clock.set(now_ms);
            must_sweep(*store, dry());
            shown.push_back(show(must_sweep(*store)));
        }
        std::ranges::reverse(shown);
        now_and_after_reopen(store, [&] {
            const auto reports = sweeps_of(*store);
            REQUIRE(reports.size() == 100);
            for (std::size_t i = 0; i < reports.size(); ++i) {
                CHECK(show(reports[i]) == shown[i]);
                CHECK(!reports[i].dry_run);
            }
            CHECK(stats_of(*store).last_sweep_ms == now_ms);
        });
    });
}

TEST_CASE("sweep: a closed store says so") {
    // Guards against a background sweep that outlives its store's files.
    on_each_store([](TestStore& store) {
        must_append(*store, 0, in_flight("k"));
        REQUIRE(store->close().has_value());
        check_error(store->sweep(), Code::closed);
        check_error(store->sweep(dry()), Code::closed);
        check_error(store->sweep_history(), Code::closed);
    });
}

TEST_CASE("sweep: a store that is open for reading rehearses only") {
    // Guards against an inspection that changes what it inspects.
    on_each_store([](TestStore& store) {
        if (!store.durable()) {
            return;
        }
        append_mixture(*store);
        append_many(*store, "gone-", 100, 61'000);
        store.clock.set(62'001);
        const auto reader = store.open_reader();
        check_error(reader->sweep(), Code::read_only);
        const SweepReport said = must_sweep(*reader, dry());
        CHECK(said.removed.total() == 105);
        CHECK(sweeps_of(*reader).empty());

        CHECK(show(must_sweep(*store)) == show(said));
        // The reader follows.
        CHECK(!head_of(*reader, "gone-7"));
        CHECK(scan_all(*reader, {}).size() == 4);
        CHECK(stats_of(*reader).streams() == 4);
        CHECK(must_sweep(*reader, dry()).removed.total() == 0);
        const auto reports = sweeps_of(*reader);
        REQUIRE(reports.size() == 1);
        CHECK(show(reports[0]) == show(said));
        CHECK(stats_of(*reader).last_sweep_ms == 62'001);
    });
}

}  // namespace
}  // namespace dedup::test
