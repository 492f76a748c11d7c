// The SQL functions beside the library: the same steps in two namespaces give the same answers.
#include <random>
#include <set>
#include <string>
#include <variant>

#include "postgres/helpers.hpp"
#include "postgres/sql_answers.hpp"

namespace dedup::test {
namespace {

using std::chrono::milliseconds;

constexpr std::int64_t kStartMs = 4'000'000'000'000;  // ahead of any clock, so that it is ours

class SideBySide {
  public:
    SideBySide() : clock_(kStartMs), client_(schema_) {
        schema_.options.clock = clock_.clock();
        schema_.options.trust_clock = true;
        store_ = schema_.open();
        cache_ = std::make_unique<Cache>(*store_, CacheOptions{.ns = "cpp"});
        pass(0);
    }

    void pass(std::int64_t by_ms) {
        clock_.advance(by_ms);
        client_.row("UPDATE meta SET time_high_ms = " + std::to_string(clock_.now_ms()));
    }

    void claim(const std::string& key, const ClaimOptions& options) {
        const auto outcome = cache_->claim(key, options);
        const auto row = answer(
            "claim('sql', $1::bytea, $2::bytea, $3::int8, $4::int8, $5::bytea, $6::bytea, "
            "$7::bytea, $8, $9::int8)",
            {{key, true},
             {options.owner, true},
             number(options.lease),
             number(options.ttl),
             {options.fingerprint, true},
             {options.event_id, true},
             {options.metadata, true},
             {options.unanswered == Unanswered::hold ? "hold" : "rerun", false},
             {std::to_string(options.attempts_max.value_or(0)), false}});
        same(key, outcome, Result<ClaimOutcome>(claim_outcome(row)));
        if (const auto* claimed = outcome ? outcome->claimed() : nullptr) {
            claims_[key].push_back({claimed->claim, fence_of(row)});
        }
    }
    void remember(const std::string& key, const std::string& receipt) {
        const auto outcome = cache_->remember(key, receipt);
        const auto row =
            answer("remember('sql', $1::bytea, $2::bytea)", {{key, true}, {receipt, true}});
        same(key, outcome, Result<RememberOutcome>(remember_outcome(row)));
        if (const auto* made = outcome ? outcome->is_new() : nullptr) {
            claims_[key].push_back(
                {{.ns = "cpp", .key = key, .claim_sequence = made->claim_sequence}, fence_of(row)});
        }
    }
    void lookup(const std::string& key) {
        const auto outcome = cache_->lookup(key);
        const auto row = answer("lookup('sql', $1::bytea)", {{key, true}});
        same(key, outcome, Result<LookupOutcome>(lookup_outcome(row)));
    }

    // One of the claims of a key, by how many came after it.
    struct Both {
        Claim claim;
        std::string fence;
    };
    [[nodiscard]] const Both* claimed(const std::string& key, std::size_t back) const {
        const auto of_key = claims_.find(key);
        return of_key == claims_.end() || of_key->second.size() <= back
                   ? nullptr
                   : &of_key->second[of_key->second.size() - 1 - back];
    }

    void complete(const Both& both, const std::string& receipt) {
        same(cache_->complete(both.claim, receipt), "completed",
             call("complete('sql', $1::bytea, $2::int8, $3::bytea)", both, {{receipt, true}}));
    }
    void complete_current(const std::string& key, const std::string& receipt) {
        same(cache_->complete_current(key, receipt), "completed",
             call("complete('sql', $1::bytea, $2::int8, $3::bytea)", current(key),
                  {{receipt, true}}));
    }
    void release(const Both& both) {
        same(cache_->release(both.claim), "released",
             call("release('sql', $1::bytea, $2::int8)", both));
    }
    void release_current(const std::string& key) {
        same(cache_->release_current(key), "released",
             call("release('sql', $1::bytea, $2::int8)", current(key)));
    }
    void note(const Both& both, const std::string& text) {
        same(cache_->note(both.claim, text), "noted",
             call("note('sql', $1::bytea, $2::int8, $3::bytea)", both, {{text, true}}));
    }
    void hold(const Both& both, const std::string& reason) {
        same(cache_->hold(both.claim, reason), "held",
             call("hold('sql', $1::bytea, $2::int8, $3::bytea)", both, {{reason, true}}));
    }
    void renew(const Both& both, milliseconds lease) {
        const auto done = cache_->renew(both.claim, lease);
        same(done, "renewed " + std::to_string(done ? done->deadline_ms : 0),
             call("concat_ws(' ', outcome, lease_until_ms) FROM "
                  "renew('sql', $1::bytea, $2::int8, $3::int8)",
                  both, {number(lease)}));
    }
    void resolve(const Both& both, const Resolution& resolution) {
        const auto done = cache_->resolve(both.claim.key, both.claim.claim_sequence, resolution);
        const bool had_been_done = resolution.receipt.has_value();
        const std::string tail =
            had_been_done ? ", receipt => $5::bytea, ttl_ms => $6::int8)" : ")";
        Parameters more = {{resolution.reason, true}, {resolution.by, true}};
        if (had_been_done) {
            more.push_back({*resolution.receipt, true});
            more.push_back(number(resolution.ttl.value_or(milliseconds(5'000))));
        }
        same(done, had_been_done ? "completed" : "released",
             call("resolve('sql', $1::bytea, $2::int8, " +
                      std::string(had_been_done ? "true" : "false") + ", $3::bytea, $4::bytea" +
                      tail,
                  both, more));
    }
    void forget(const Both& both, const std::string& reason) {
        same(cache_->forget(both.claim.key, both.claim.claim_sequence, reason, "ada"), "forgotten",
             call("forget('sql', $1::bytea, $2::int8, $3::bytea, 'ada')", both, {{reason, true}}));
    }
    [[nodiscard]] static Both current(const std::string& key) {
        return {{.ns = "cpp", .key = key}, "0"};
    }

    // The same keys wait for a decision.
    void held() {
        std::set<std::string> keys;
        const auto page = store_->scan({.ns = "cpp"});
        REQUIRE(page);
        for (const Version& head : page->heads) {
            if (dedup::held(head.record, clock_.now_ms())) {
                keys.insert(head.record.key);
            }
        }
        const auto count = client_.row(
            "SELECT count(*), coalesce(bool_and(ended), true) FROM (SELECT previous_ended_ms >= "
            "lag(previous_ended_ms, 1, 0::int8) OVER () AS ended FROM held('sql')) h");
        CHECK(count[0] == std::to_string(keys.size()));
        CHECK(count[1] == "t");
        for (const std::string& key : keys) {
            CHECK(client_.row("SELECT h = lookup('sql', $1::bytea) FROM held('sql') h WHERE "
                              "key = $1::bytea AND outcome = 'held'",
                              {{key, true}})[0] == "t");
        }
    }

    // All columns of both namespaces, but for what has to differ.
    void compare() {
        const std::string columns =
            "key, timestamp_ms, expires_ms, expiry_slot, ttl_ms, lease_until_ms, attempt, state, "
            "owner, fingerprint, event_id, receipt, metadata, "
            "hold, began_ms, verdict, said_by, reason, unknown";
        CHECK(client_.row("SELECT count(*) FROM (SELECT " + columns +
                          ", count(*) FROM head, LATERAL read_rest(rest) r GROUP BY " + columns +
                          " HAVING count(*) <> 2) different")[0] == "0");
        CHECK(client_.row(
                  "SELECT count(*) FROM head WHERE rest <> write_rest(read_rest(rest))")[0] == "0");
        CHECK(client_.row("SELECT count(*) FROM head WHERE bucket <> bucket_of(ns, key)")[0] ==
              "0");
        CHECK(client_.row("SELECT count(*) - count(DISTINCT sequence) FROM head")[0] == "0");
    }

  private:
    using Parameters = std::vector<std::pair<std::string, bool>>;

    static std::pair<std::string, bool> number(std::optional<milliseconds> value) {
        return {std::to_string(value.value_or(milliseconds(86'400'000)).count()), false};
    }
    static std::string fence_of(const AnswerRow& row) {
        return std::to_string(row.claim.claim_sequence);
    }
    AnswerRow answer(const std::string& from, const Parameters& parameters) {
        return AnswerRow(client_.row("SELECT " + std::string(AnswerRow::kColumns) + " FROM " + from,
                                     parameters));
    }
    std::string call(const std::string& what, const Both& both, const Parameters& more = {}) {
        Parameters all = {{both.claim.key, true}, {both.fence, false}};
        all.insert(all.end(), more.begin(), more.end());
        return client_.row("SELECT " + what, all)[0];
    }
    template <class T>
    static void same(const Result<T>& done, const std::string& word, const std::string& row) {
        if (!done) {
            CHECK(row == name(done.error().code));
            return;
        }
        if constexpr (std::is_same_v<T, bool>) {
            CHECK(row == (*done ? word : "nothing"));
        } else {
            CHECK(row == word);
        }
    }
    template <class T>
    void same(const std::string& key, const Result<T>& library, const Result<T>& functions) {
        auto& [of_library, of_functions] = fences_[key];
        CHECK(of_functions.show(functions) == of_library.show(library));
    }

    Schema schema_;
    ManualClock clock_;
    SchemaClient client_;
    std::unique_ptr<StreamStore> store_;
    std::unique_ptr<Cache> cache_;
    std::map<std::string, std::vector<Both>> claims_;
    std::map<std::string, std::pair<Fences, Fences>> fences_;
};

// One claim protocol, steps at random, everything that a claim can ask for.
class RandomSteps {
  public:
    RandomSteps(SideBySide& both, std::uint32_t seed) : both_(both), random_(seed) {}

    void step() {
        const std::string key = "key-" + std::to_string(pick(6)) + "\xff";
        switch (pick(9)) {
            case 0:
            case 1:
                both_.claim(key, options());
                break;
            case 2:
                both_.remember(key, "r" + std::to_string(pick(3)));
                break;
            case 3:
                both_.lookup(key);
                both_.held();
                break;
            case 4:
                pick(4) == 0 ? both_.release_current(key)
                             : both_.complete_current(key, "r" + std::to_string(pick(2)));
                break;
            case 5:
                both_.pass(static_cast<std::int64_t>(pick(2'500)));
                break;
            default:
                if (const auto* of = both_.claimed(key, pick(8) == 0 ? 1 : 0)) {
                    end(*of);
                }
        }
    }

  private:
    std::size_t pick(std::size_t below) { return random_() % below; }
    std::string some(const std::string& what, std::size_t below) {
        return pick(2) == 0 ? "" : what + std::to_string(pick(below));
    }
    ClaimOptions options() {
        ClaimOptions options = {.owner = "o" + std::to_string(pick(3)),
                                .fingerprint = pick(3) == 0 ? "f" + std::to_string(pick(2)) : "",
                                .event_id = some("e", 2),
                                .metadata = some("m", 2),
                                .lease = milliseconds(1 + pick(3'000)),
                                .ttl = milliseconds(1 + pick(8'000))};
        if (pick(3) == 0) {
            options.unanswered = Unanswered::hold;
        }
        if (pick(3) == 0) {
            options.attempts_max = 1 + pick(3);
        }
        return options;
    }
    // What is done about a claim that was made.
    void end(const SideBySide::Both& of) {
        const std::string long_text(100 + pick(100), 'x');  // its length takes one byte or two
        switch (pick(8)) {
            case 0:
                return both_.complete(of, "r" + std::to_string(pick(2)));
            case 1:
                return both_.release(of);
            case 2:
                return both_.renew(of, milliseconds(1 + pick(3'000)));
            case 3:
                return both_.note(of, "note-" + std::to_string(pick(3)));
            case 4:
                return both_.hold(of, pick(2) == 0 ? "" : long_text);
            case 5:
                return both_.forget(of, long_text);
            case 6:
                return both_.resolve(of, {.reason = "not done", .by = long_text});
            default:
                return both_.resolve(of, {.receipt = "r" + std::to_string(pick(2)),
                                          .reason = long_text,
                                          .ttl = milliseconds(5'000)});
        }
    }

    SideBySide& both_;
    std::mt19937 random_;
};

TEST_CASE("functions: random steps give what the library gives") {
    // Guards against two protocols over one table.
    NEEDS_POSTGRES();
    SideBySide both;
    RandomSteps steps(both, 7);
    for (int step = 0; step < 1'500; ++step) {
        CAPTURE(step);
        steps.step();
    }
    both.compare();
}

TEST_CASE("functions: what the library holds is not claimed, however the head came about") {
    // Guards against a worker on SQL that works on what waits for a decision.
    NEEDS_POSTGRES();
    Schema schema;
    ManualClock clock(kStartMs);
    schema.options.clock = clock.clock();
    schema.options.trust_clock = true;
    const auto store = schema.open();
    SchemaClient client(schema);
    Cache cache(*store, {.ns = "n"});
    const auto pass = [&](std::int64_t by_ms) {
        clock.advance(by_ms);
        client.row("UPDATE meta SET time_high_ms = " + std::to_string(clock.now_ms()));
    };
    const auto claim = [&](const char* key, bool conflict) {
        const auto made = cache.claim(key, {.owner = "w",
                                            .fingerprint = "f",
                                            .lease = milliseconds(1'000),
                                            .unanswered = Unanswered::hold});
        if (conflict) {  // of more than 127 bytes: its length takes two
            REQUIRE(cache.claim(key, {.fingerprint = std::string(200, 'g')}).has_value());
        }
        return std::get<Claimed>(made.value()).claim;
    };
    pass(0);
    const Claim plain = claim("plain", false);
    const Claim conflict = claim("conflict", true);
    const auto outcome = [&](const char* key) {
        return client.row("SELECT outcome FROM claim('n', $1::bytea)", {{key, true}})[0];
    };
    CHECK(outcome("plain") == "in_flight");
    pass(1'001);
    CHECK(outcome("plain") == "held");
    CHECK(outcome("conflict") == "held");
    const Claim given_up = claim("given up", true);
    const Claim runs = claim("runs", true);
    REQUIRE(cache.hold(given_up, "no answer"));
    const auto renewed = [&](const Claim& of) {
        return client.row("SELECT outcome FROM renew('n', $1::bytea, $2::int8, 1000)",
                          {{of.key, true}, {std::to_string(of.claim_sequence), false}})[0];
    };
    const auto looked_up = [&](const char* key) {
        return client.row("SELECT outcome FROM lookup('n', $1::bytea)", {{key, true}})[0];
    };
    CHECK(looked_up("plain") == "held");
    CHECK(looked_up("given up") == "held");  // although its lease still runs
    CHECK(outcome("given up") == "held");
    CHECK(looked_up("runs") == "in_flight");
    CHECK(renewed(given_up) == "stale_claim");
    CHECK(renewed(runs) == "renewed");
    CHECK(cache.release(runs).has_value());
    CHECK(cache.release(given_up).has_value());
    CHECK(client.row("SELECT outcome FROM remember('n', 'plain', 'r')")[0] == "held");
    CHECK(client.row("SELECT count(*) FROM heads WHERE state = 'held'")[0] == "2");
    const auto fence = [](const Claim& of) { return std::to_string(of.claim_sequence); };
    CHECK(client.row("SELECT note('n', 'plain', " + fence(plain) + ", 'late')")[0] ==
          "stale_claim");
    CHECK(client.row("SELECT release('n', 'plain', 0)")[0] == "stale_claim");
    CHECK(client.row("SELECT complete('n', 'plain', 0, 'r')")[0] == "stale_claim");
    CHECK(client.row("SELECT outcome, previous_owner, previous_note, previous_fence "
                     "FROM claim('n', 'plain', fingerprint => 'other')") ==
          std::vector<std::string>{"mismatch", "", "", ""});
    CHECK(client.row("SELECT complete('n', 'plain', " + fence(plain) + ", 'r')")[0] == "completed");
    CHECK(client.row("SELECT release('n', 'plain', " + fence(plain) + " + 1000000)")[0] ==
          "stale_claim");
    CHECK(client.row("SELECT release('n', 'conflict', " + fence(conflict) + ")")[0] == "released");
    const auto next = cache.claim("conflict");
    CHECK(std::get<Claimed>(next.value()).previous->end == End::released);
    CHECK(std::get<Claimed>(next.value()).previous->began_ms == kStartMs);
}

TEST_CASE("functions: what they say of a claim the library reads, and the other way round") {
    // Guards against decisions that are lost between a worker in SQL and an operator's dedupctl.
    NEEDS_POSTGRES();
    Schema schema;
    ManualClock clock(kStartMs);
    schema.options.clock = clock.clock();
    schema.options.trust_clock = true;
    const auto store = schema.open();
    SchemaClient client(schema);
    Cache cache(*store, {.ns = "n"});
    const auto pass = [&](std::int64_t by_ms) {
        clock.advance(by_ms);
        client.row("UPDATE meta SET time_high_ms = " + std::to_string(clock.now_ms()));
    };
    pass(0);
    const std::string fence =
        client.row("SELECT fence FROM claim('n', 'k', 'w1', 1000, unanswered => 'hold')")[0];
    CHECK(client.row("SELECT note('n', 'k', " + fence + ", 'reference 42')")[0] == "noted");
    pass(1'001);
    const Previous held = std::get<Held>(cache.claim("k").value()).previous;
    CHECK(held.owner == "w1");
    CHECK(held.note == "reference 42");
    CHECK(std::to_string(held.claim_sequence) == fence);
    CHECK(held.end == End::lease_ran_out);
    CHECK(client.row("SELECT outcome, previous_end, previous_note FROM claim('n', 'k')") ==
          std::vector<std::string>{"held", "lease_ran_out", "\\x7265666572656e6365203432"});

    REQUIRE(cache.resolve("k", held.claim_sequence, {.reason = "not in the list", .by = "ada"}));
    CHECK(client.row("SELECT outcome, attempt, previous_end, convert_from(previous_reason, 'UTF8'),"
                     " convert_from(previous_by, 'UTF8'), previous_began_ms "
                     "FROM claim('n', 'k', unanswered => 'hold')") ==
          std::vector<std::string>{"claimed", "2", "resolved", "not in the list", "ada",
                                   std::to_string(kStartMs)});
    const auto second = client.row("SELECT fence FROM lookup('n', 'k')")[0];
    CHECK(client.row("SELECT hold('n', 'k', " + second + ", 'timeout')")[0] == "held");
    CHECK(std::get<Held>(cache.claim("k").value()).previous.reason == "timeout");
    CHECK(client.row("SELECT said FROM heads WHERE key = 'k'")[0] == "held by : timeout");

    CHECK(client.row("SELECT resolve('n', 'k', " + second +
                     ", true, 'in the list', 'bob', 'paid')")[0] == "completed");
    CHECK(std::get<Completed>(cache.claim("k").value()).receipt == "paid");
    CHECK(store->head({"n", "k"}).value()->verdict ==
          Verdict{Verdict::Kind::resolved, "bob", "in the list"});
    CHECK(client.row("SELECT forget('n', 'k', 0, 'refunded')")[0] == "forgotten");
    const auto next = std::get<Claimed>(cache.claim("k").value());
    CHECK(next.previous->end == End::forgotten);
    CHECK(next.previous->reason == "refunded");
    CHECK(next.previous->by == "dedup");  // whoever has logged in
    CHECK(next.previous->began_ms == 0);
}

TEST_CASE("functions: what a newer library has written down stays") {
    // Guards against a function that drops what it does not know, or a conflict record.
    NEEDS_POSTGRES();
    const Schema schema;
    const auto store = schema.open();
    SchemaClient client(schema);
    Append append;
    append.record.ns = "n";
    append.record.key = "k";
    append.record.hold = true;
    append.record.conflict = {300, {std::string(200, 'g'), "f"}};
    append.record.unknown_fields = std::string("\x82\x01\x2a", 3);
    const std::string fence = std::to_string(store->append({&append, 1}).front().value());
    const auto call = [&](const std::string& function, const std::string& more) {
        return client.row("SELECT " + function + "('n', 'k', " + fence + more + ")")[0];
    };
    const auto head = [&] { return store->head({"n", "k"}).value().value(); };
    CHECK(call("note", ", 'm'") == "noted");
    const std::string renewed = call("renew", ", 1000");
    CHECK(renewed == "(renewed," + std::to_string(head().lease_until_ms) + ")");
    CHECK(call("hold", ", 'why'") == "held");
    CHECK(head().conflict == append.record.conflict);
    CHECK(head().unknown_fields == append.record.unknown_fields);
    CHECK(call("resolve", ", true, 'known', 'ada', 'r'") == "completed");
    CHECK(!head().hold);
    CHECK(head().conflict == append.record.conflict);
    CHECK(head().verdict == Verdict{Verdict::Kind::resolved, "ada", "known"});
    CHECK(call("forget", ", 'undone', 'ada'") == "forgotten");
    CHECK(head().conflict == Conflict());
    CHECK(head().unknown_fields == append.record.unknown_fields);
}

}  // namespace
}  // namespace dedup::test
