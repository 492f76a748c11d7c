// What users may have written as records: what their rights let them do by commands, and no more,
// whatever they encode.
#include <doctest/doctest.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dedup/cache.hpp"
#include "dedup/offsets.hpp"
#include "dedup/remote_store.hpp"
#include "dedup/reservations.hpp"
#include "server/client.hpp"
#include "server/users_fixture.hpp"

namespace dedup::test {
namespace {

using namespace std::chrono_literals;

struct RecordsFixture : UsersFixture {
    RecordsFixture()
        : UsersFixture({{.name = "claimer", .rights = "read,claim", .namespaces = "n"},
                        {.name = "completer", .rights = "complete", .namespaces = "n"},
                        {.name = "worker", .rights = "read,claim,complete", .namespaces = "*"},
                        {.name = "root", .rights = "all", .namespaces = "*"}}) {}

    std::string write(std::string_view user, std::vector<Append> items, std::string mode = "EACH") {
        std::vector<std::string> words = {"DEDUP.APPEND", std::move(mode), std::to_string(++asked),
                                          "0"};
        for (Append& item : items) {
            item.record.sequence = 0;
            words.push_back(std::to_string(item.expected_sequence));
            encode(item.record, words.emplace_back());
        }
        return client(user).ask_all(words);
    }
    // On top of the head.
    std::string write(std::string_view user, const Record& record) {
        const auto before = head(record.key);
        return write(user, {{before ? before->sequence : 0, record}});
    }
    std::optional<Record> head(std::string_view key) { return inner->head({"n", key}).value(); }
    Record claimed(std::string key, std::string owner = "alice") {
        Record record;
        record.ns = "n";
        record.key = std::move(key);
        record.timestamp_ms = clock.now_ms();
        record.owner = std::move(owner);
        record.lease_until_ms = record.timestamp_ms + 60'000;
        record.expires_at_ms = record.timestamp_ms + 3'600'000;
        return record;
    }
    // A claim that is there.
    Record claim(const std::string& key) {
        const Append append{0, claimed(key)};
        REQUIRE(inner->append({&append, 1}, Batch::each).front().has_value());
        return *head(key);
    }
    Record complete(const std::string& key) {
        const Append append{head(key)->sequence, completion(*head(key))};
        REQUIRE(inner->append({&append, 1}, Batch::each).front().has_value());
        return *head(key);
    }
    static Record completion(Record head, std::string receipt = "receipt") {
        head.receipt = std::move(receipt);
        head.lease_until_ms = 0;
        return head;
    }
    static Record release(Record head) {
        head.kind = Kind::tombstone;
        head.receipt.reset();
        head.lease_until_ms = 0;
        head.fingerprint.clear();
        return head;
    }
    int asked = 0;
};

bool landed(const std::string& reply) {
    return reply.starts_with("[") && !reply.contains("no permissions");
}

// Before the store is asked.
bool needs(const std::string& reply, std::string_view right) {
    return reply.starts_with("-NOPERM ") && reply.contains("lacks " + std::string(right) + ",") &&
           reply.contains("`dedupctl user`");
}

bool needs_admin(const std::string& reply) {
    return needs(reply, "admin") ||
           (reply.starts_with("[") && reply.contains("no permissions") && reply.contains("admin"));
}

template <class Change>
Record changed(Record record, const Change& change) {
    change(record);
    return record;
}

TEST_CASE("append rights: each transition needs the right of its command") {
    RecordsFixture fixture;
    CHECK(needs(fixture.write("completer", fixture.claimed("k")), "claim"));
    CHECK(landed(fixture.write("claimer", fixture.claimed("k"))));
    for (const auto& change : std::vector<std::function<void(Record&)>>{
             [](Record& record) { record.lease_until_ms += 1000; },
             [](Record& record) { record.metadata = "a note"; },
             [](Record& record) { record.conflict = {.count = 1, .fingerprints = {"f"}}; },
             [](Record& record) {
                 record.verdict = {Verdict::Kind::held, record.owner, "cannot tell"};
                 record.hold = true;
                 record.expires_at_ms = 0;
             }}) {
        const Record next = changed(*fixture.head("k"), change);
        CHECK(needs(fixture.write("completer", next), "claim"));
        CHECK(landed(fixture.write("claimer", next)));
    }
    const Record done = changed(RecordsFixture::completion(*fixture.head("k")), [](Record& record) {
        record.hold = false;
        record.verdict = {};
    });
    CHECK(needs(fixture.write("claimer", done), "complete"));
    CHECK(landed(fixture.write("completer", done)));

    const Record other = fixture.claim("other");
    CHECK(needs(fixture.write("completer", RecordsFixture::release(other)), "claim"));
    CHECK(landed(fixture.write("claimer", RecordsFixture::release(other))));
    const Record remembered = changed(fixture.claimed("new"), [](Record& record) {
        record.receipt = "r";
        record.lease_until_ms = 0;
    });
    CHECK(needs(fixture.write("claimer", remembered), "complete"));
    CHECK(needs(fixture.write("completer", remembered), "claim"));
    CHECK(landed(fixture.write("worker", remembered)));
}

TEST_CASE("append rights: what is completed stays so for all but admins") {
    RecordsFixture fixture;
    fixture.claim("k");
    const Record done = fixture.complete("k");
    for (const Record& hostile :
         {RecordsFixture::release(done),
          changed(RecordsFixture::release(done),
                  [](Record& record) {
                      record.verdict = {Verdict::Kind::forgotten, "me", "why"};
                  }),
          changed(done, [](Record& record) { record.receipt.reset(); }),
          changed(done, [](Record& record) { record.receipt = "another"; }),
          changed(done, [](Record& record) { record.expires_at_ms = 1; }),
          changed(done, [](Record& record) { record.owner = "mallory"; }),
          changed(done, [](Record& record) { ++record.timestamp_ms; }),
          changed(done, [](Record& record) { record.claim_sequence = 0; }),
          changed(done,
                  [](Record& record) {
                      record.verdict = {Verdict::Kind::resolved, "alice", "was done"};
                  }),
          fixture.claimed("k"), changed(fixture.claimed("k"), [](Record& record) {
              record.kind = Kind::tombstone;
              record.lease_until_ms = 0;
          })}) {
        CHECK(needs_admin(fixture.write("worker", hostile)));
        CHECK(*fixture.head("k") == done);
    }
    CHECK(landed(fixture.write(
        "worker", changed(done, [](Record& record) { record.metadata = "seen again"; }))));
    CHECK(landed(fixture.write("root", RecordsFixture::release(done))));
    // What has expired is not there any more.
    fixture.claim("old");
    fixture.complete("old");
    fixture.clock.advance(4'000'000);
    CHECK(landed(fixture.write("worker", fixture.claimed("old"))));
}

TEST_CASE("append rights: nobody but admins forges claims, decisions and times") {
    RecordsFixture fixture;
    fixture.claim("k");
    CHECK(landed(fixture.write("worker", fixture.claimed("k"))));  // takes it over: a new fence
    const Record held = *fixture.head("k");
    for (const Record& hostile :
         {changed(held, [](Record& record) { record.claim_sequence = 1; }),  // who was taken over
          changed(held, [](Record& record) { record.claim_sequence = UINT64_MAX; }),
          changed(held, [](Record& record) { record.owner = "mallory"; }),
          changed(held, [](Record& record) { record.attempt = 7; }),
          changed(held, [](Record& record) { record.event_id = "another"; }),
          changed(held, [](Record& record) { record.fingerprint = "another"; }),
          changed(held, [](Record& record) { ++record.timestamp_ms; }),
          changed(held,
                  [](Record& record) {
                      record.verdict = {Verdict::Kind::held, "bob", "why"};
                  }),
          changed(RecordsFixture::completion(held),
                  [](Record& record) { record.claim_sequence = 1; }),
          changed(RecordsFixture::completion(held), [](Record& record) { record.owner = "bob"; }),
          changed(RecordsFixture::completion(held),
                  [](Record& record) {
                      record.verdict = {Verdict::Kind::resolved, "bob", "why"};
                  }),
          changed(RecordsFixture::release(held),
                  [](Record& record) {
                      record.verdict = {Verdict::Kind::resolved, "bob", "why"};
                  }),
          changed(RecordsFixture::release(held),
                  [](Record& record) { record.claim_sequence = 1; })}) {
        CHECK(needs_admin(fixture.write("worker", hostile)));
        CHECK(*fixture.head("k") == held);
    }
    CHECK(landed(fixture.write("worker", RecordsFixture::release(held))));
    const Record released = *fixture.head("k");
    CHECK(needs_admin(fixture.write("worker", held)));  // its holder would be back
    CHECK(needs_admin(fixture.write("worker", RecordsFixture::completion(held))));
    CHECK(*fixture.head("k") == released);
    CHECK(needs_admin(fixture.write("worker", changed(fixture.claimed("none"), [](Record& record) {
                                        record.claim_sequence = 7;
                                    }))));
    const std::string told =
        fixture.write("worker", changed(fixture.claimed("none"), [](Record& record) {
                          record.timestamp_ms = system_now_ms() + 3'600'000;
                          record.lease_until_ms = record.timestamp_ms + 1;
                          record.expires_at_ms = 0;
                      }));
    CHECK(told.contains("ahead of the store's time"));
    CHECK_FALSE(fixture.head("none").has_value());
}

TEST_CASE("append rights: an atomic batch of which one item is not allowed does nothing") {
    RecordsFixture fixture;
    fixture.claim("done");
    const Record done = fixture.complete("done");
    const std::vector<Append> batch = {{0, fixture.claimed("a")},
                                       {done.sequence, RecordsFixture::release(done)}};
    CHECK(needs_admin(fixture.write("worker", batch, "ATOMIC")));
    CHECK_FALSE(fixture.head("a").has_value());
    CHECK(fixture.write("worker", batch, "EACH").contains("admin"));
    CHECK(fixture.head("a").has_value());  // each for itself
    CHECK(*fixture.head("done") == done);
}

TEST_CASE("append rights: what a record says by itself is refused before the store is asked") {
    RecordsFixture fixture;
    fixture.claim("there");
    for (const char* key : {"there", "absent"}) {
        const Record record = RecordsFixture::completion(fixture.claimed(key));
        CHECK(
            fixture.write("claimer", {{5, record}}) ==
            fixture.write("claimer", {{5, RecordsFixture::completion(fixture.claimed("other"))}}));
    }
}

TEST_CASE("append rights: a worker's program has the layers, and no decisions") {
    RecordsFixture fixture;
    const RemoteOptions options{.password = secret_of("worker")};
    const auto store = open_remote("unix:" + fixture.path + "?user=worker", options);
    REQUIRE_MESSAGE(store.has_value(), store.error().message);
    Cache cache(**store, {.ns = "n"});
    const auto claim = [&](const std::string& key) {
        auto outcome = cache.claim(key, {.owner = "w", .lease = 60s});
        REQUIRE_MESSAGE(outcome.has_value(), outcome.error().message);
        return std::get<Claimed>(*outcome).claim;
    };
    const Claim first = claim("first");
    CHECK(cache.note(first, "a note").has_value());
    CHECK(cache.renew(first, 120s).has_value());
    CHECK(cache.complete(first, "receipt").has_value());
    CHECK(cache.release(claim("second")).has_value());
    const Claim third = claim("third");
    CHECK(cache.hold(third, "cannot tell").has_value());
    CHECK(cache.complete(third, "after all").has_value());
    CHECK(cache.remember("fourth", "r").has_value());
    const Claim stuck = claim("stuck");
    fixture.clock.advance(70'000);
    CHECK(cache.claim("stuck", {.owner = "w2", .lease = 60s}).has_value());
    CHECK_FALSE(cache.complete(stuck, "too late").has_value());
    Offsets offsets(**store, "offsets");
    CHECK(offsets.commit({.pipeline = "p", .stream = "s", .offset = 7}).has_value());
    CHECK(offsets.commit({.pipeline = "p", .stream = "s", .offset = 8}).has_value());

    const auto forgotten = cache.forget("fourth", 0, "why");
    REQUIRE_FALSE(forgotten.has_value());
    CHECK(forgotten.error().code == Code::invalid_argument);
    CHECK(forgotten.error().message.contains("lacks admin"));
    fixture.clock.advance(70'000);
    const auto resolved =
        cache.resolve("stuck", fixture.head("stuck")->claim_sequence, {.reason = "by me"});
    REQUIRE_FALSE(resolved.has_value());
    CHECK(resolved.error().message.contains("lacks admin"));
}

}  // namespace
}  // namespace dedup::test
