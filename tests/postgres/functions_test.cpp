// The SQL functions beside the library: the same steps in two namespaces give the same answers.
#include <random>
#include <string>
#include <variant>

#include "postgres/helpers.hpp"

namespace dedup::test {
namespace {

using std::chrono::milliseconds;

constexpr std::int64_t kStartMs = 4'000'000'000'000;  // ahead of any clock, so that it is ours

// One answer as text, without what differs between the namespaces: fences.
template <class Outcome>
std::string show_outcome(const Result<Outcome>& outcome) {
    if (!outcome) {
        return std::string(name(outcome.error().code));
    }
    return std::visit(
        [](const auto& answer) -> std::string {
            using Answer = std::decay_t<decltype(answer)>;
            if constexpr (std::is_same_v<Answer, Claimed>) {
                return "claimed " + std::to_string(answer.claim.attempt);
            } else if constexpr (std::is_same_v<Answer, Completed>) {
                return "completed " + answer.receipt;
            } else if constexpr (std::is_same_v<Answer, InFlight>) {
                return "in_flight " + answer.owner + " " + std::to_string(answer.attempt) + " " +
                       std::to_string(answer.lease_until_ms) + " " +
                       std::to_string(answer.expires_at_ms);
            } else if constexpr (std::is_same_v<Answer, Mismatch>) {
                return "mismatch";
            } else if constexpr (std::is_same_v<Answer, New>) {
                return "new";
            } else if constexpr (std::is_same_v<Answer, Held>) {
                return "held";
            } else {
                return "absent";
            }
        },
        *outcome);
}

class SideBySide {
  public:
    SideBySide() : clock_(kStartMs), client_(schema_.url()) {
        schema_.options.clock = clock_.clock();
        schema_.options.trust_clock = true;
        store_ = schema_.open();
        cache_ = std::make_unique<Cache>(*store_, CacheOptions{.ns = "cpp"});
        client_.row("SET search_path = " + schema_.options.schema);
        pass(0);
    }

    void pass(std::int64_t by_ms) {
        clock_.advance(by_ms);
        client_.row("UPDATE meta SET time_high_ms = " + std::to_string(clock_.now_ms()));
    }

    void claim(const std::string& key, const ClaimOptions& options) {
        const auto outcome = cache_->claim(key, options);
        const auto row = client_.row(
            "SELECT outcome, fence, attempt, convert_from(receipt, 'UTF8'), "
            "convert_from(held_by, 'UTF8'), lease_until_ms, expires_at_ms "
            "FROM claim('sql', $1::bytea, $2::bytea, $3::int8, $4::int8, $5::bytea)",
            {{key, true},
             {options.owner, true},
             number(options.lease),
             number(options.ttl),
             {options.fingerprint, true}});
        CHECK(show_row(row) == show_outcome(outcome));
        if (row[0] == "claimed") {
            fences_[key] = {std::get<Claimed>(*outcome).claim, row[1]};
        }
    }
    void remember(const std::string& key, const std::string& receipt) {
        const auto outcome = cache_->remember(key, receipt);
        const auto row = client_.row(
            "SELECT outcome, fence, attempt, convert_from(known_receipt, 'UTF8'), "
            "convert_from(held_by, 'UTF8'), lease_until_ms, expires_at_ms "
            "FROM remember('sql', $1::bytea, $2::bytea)",
            {{key, true}, {receipt, true}});
        CHECK(show_row(row) == show_outcome(outcome));
    }
    void complete(const std::string& key, const std::string& receipt) {
        const auto done = cache_->complete(fences_[key].first, receipt);
        const auto row = client_.row("SELECT complete('sql', $1::bytea, $2::int8, $3::bytea)",
                                     {{key, true}, {fences_[key].second, false}, {receipt, true}});
        CHECK(row[0] == (done ? "completed" : std::string(name(done.error().code))));
    }
    void release(const std::string& key) {
        const auto done = cache_->release(fences_[key].first);
        const auto row = client_.row("SELECT release('sql', $1::bytea, $2::int8)",
                                     {{key, true}, {fences_[key].second, false}});
        CHECK(row[0] == (!done   ? std::string(name(done.error().code))
                         : *done ? "released"
                                 : "nothing"));
    }
    void note(const std::string& key, const std::string& text) {
        const auto done = cache_->note(fences_[key].first, text);
        const auto row = client_.row("SELECT note('sql', $1::bytea, $2::int8, $3::bytea)",
                                     {{key, true}, {fences_[key].second, false}, {text, true}});
        CHECK(row[0] == (done ? "noted" : std::string(name(done.error().code))));
    }
    void renew(const std::string& key, milliseconds lease) {
        const auto done = cache_->renew(fences_[key].first, lease);
        const auto row = client_.row(
            "SELECT outcome, lease_until_ms FROM renew('sql', $1::bytea, $2::int8, $3::int8)",
            {{key, true}, {fences_[key].second, false}, number(lease)});
        CHECK(row[0] == (done ? "renewed" : std::string(name(done.error().code))));
        if (done) {
            CHECK(row[1] == std::to_string(done->deadline_ms));
        }
    }
    void lookup(const std::string& key) {
        const auto outcome = cache_->lookup(key);
        const auto row = client_.row(
            "SELECT outcome, fence, attempt, convert_from(receipt, 'UTF8'), "
            "convert_from(owner, 'UTF8'), lease_until_ms, expires_at_ms "
            "FROM lookup('sql', $1::bytea)",
            {{key, true}});
        CHECK(show_row(row) == show_outcome(outcome));
    }
    [[nodiscard]] bool knows(const std::string& key) const { return fences_.contains(key); }

    // All columns of both namespaces, but for what has to differ.
    void compare() {
        const std::string columns =
            "key, timestamp_ms, expires_ms, expiry_slot, ttl_ms, lease_until_ms, attempt, state, "
            "owner, fingerprint, event_id, receipt, metadata, ended";
        const auto row = client_.row(
            "SELECT count(*) FROM (SELECT " + columns +
            ", count(*) FROM (SELECT *, CASE WHEN state = 2 THEN rest END AS ended FROM head) h "
            "GROUP BY " +
            columns + " HAVING count(*) <> 2) different");
        CHECK(row[0] == "0");
        CHECK(client_.row("SELECT count(*) FROM head WHERE bucket <> bucket_of(ns, key)")[0] ==
              "0");
        CHECK(client_.row("SELECT count(*) - count(DISTINCT sequence) FROM head")[0] == "0");
    }

  private:
    static std::pair<std::string, bool> number(std::optional<milliseconds> value) {
        return {std::to_string(value.value_or(milliseconds(86'400'000)).count()), false};
    }
    static std::string show_row(const std::vector<std::string>& row) {
        const std::string& outcome = row[0];
        if (outcome == "claimed") {
            return "claimed " + row[2];
        }
        if (outcome == "completed") {
            return "completed " + row[3];
        }
        if (outcome == "in_flight") {
            return "in_flight " + row[4] + " " + row[2] + " " + row[5] + " " + row[6];
        }
        return outcome;
    }

    Schema schema_;
    ManualClock clock_;
    Client client_;
    std::unique_ptr<StreamStore> store_;
    std::unique_ptr<Cache> cache_;
    std::map<std::string, std::pair<Claim, std::string>> fences_;
};

TEST_CASE("functions: random steps give what the library gives") {
    // Guards against two protocols over one table.
    NEEDS_POSTGRES();
    SideBySide both;
    std::mt19937 random(7);
    const auto pick = [&](std::size_t below) { return random() % below; };
    for (int step = 0; step < 600; ++step) {
        CAPTURE(step);
        const std::string key = "key-" + std::to_string(pick(6)) + "\xff";
        switch (pick(10)) {
            case 0:
            case 1:
                both.claim(key, {.owner = "o" + std::to_string(pick(3)),
                                 .fingerprint = pick(3) == 0 ? "f" + std::to_string(pick(2)) : "",
                                 .lease = milliseconds(1 + pick(3'000)),
                                 .ttl = milliseconds(1 + pick(8'000))});
                break;
            case 2:
                both.remember(key, "r" + std::to_string(pick(3)));
                break;
            case 3:
            case 4:
                if (both.knows(key)) {
                    both.complete(key, "r" + std::to_string(pick(2)));
                }
                break;
            case 5:
                if (both.knows(key)) {
                    both.release(key);
                }
                break;
            case 6:
                if (both.knows(key)) {
                    both.renew(key, milliseconds(1 + pick(3'000)));
                }
                break;
            case 7:
                both.lookup(key);
                break;
            case 8:
                if (both.knows(key)) {
                    both.note(key, "note-" + std::to_string(pick(3)));
                }
                break;
            default:
                both.pass(static_cast<std::int64_t>(pick(2'500)));
        }
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
    Client client(schema.url());
    client.row("SET search_path = " + schema.options.schema);
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
    CHECK(client.row("SELECT note('n', 'plain', " + fence(plain) + ", 'seen')")[0] == "noted");
    CHECK(client.row("SELECT complete('n', 'plain', " + fence(plain) + ", 'r')")[0] == "completed");
    CHECK(std::get<Completed>(cache.claim("plain").value()).metadata == "seen");
    CHECK(client.row("SELECT release('n', 'conflict', " + fence(conflict) + ")")[0] == "released");
    const auto next = cache.claim("conflict");
    CHECK(std::get<Claimed>(next.value()).previous->end == End::released);
    CHECK(std::get<Claimed>(next.value()).previous->began_ms == kStartMs);
}

TEST_CASE("functions: bad names are refused, and no name is ever code") {
    NEEDS_POSTGRES();
    const Schema schema;
    Client client(schema.url());
    client.row("SET search_path = " + schema.options.schema);
    const std::string hostile = "'; DROP TABLE head; --";
    CHECK(client.row("SELECT outcome FROM claim($1, $2::bytea)",
                     {{hostile, false}, {hostile, true}})[0] == "claimed");
    CHECK(client.row("SELECT outcome FROM lookup($1, $2::bytea)",
                     {{hostile, false}, {hostile, true}})[0] == "in_flight");
    const auto store = schema.open();
    Cache cache(*store, {.ns = hostile});
    CHECK(std::holds_alternative<InFlight>(cache.lookup(hostile).value()));
    for (const char* const bad :
         {"SELECT claim('', 'k')", "SELECT claim('n', '')", "SELECT lookup(E'a\\nb', 'k')",
          "SELECT claim('n', 'k', '', 0)", "SELECT complete('n', 'k', 1, NULL)"}) {
        PGresult* const result = PQexec(client.get(), bad);
        CHECK(std::string_view(PQresultErrorField(result, PG_DIAG_SQLSTATE)) == "22023");
        PQclear(result);
    }
}

}  // namespace
}  // namespace dedup::test
