// Sweeps and evictions of tables in use: what somebody's transaction holds, servers that are slow,
// and what is known of a sweep that failed half-way.
#include <chrono>
#include <string>
#include <vector>

#include "postgres/helpers.hpp"
#include "postgres/proxy.hpp"

namespace dedup::test {
namespace {

using std::chrono::milliseconds;

// A store whose time stands still, with keys "0", "1" and so on in namespace "swept".
class Filled {
  public:
    explicit Filled(Capacity capacity = {}) {
        schema_.options.clock = clock_.clock();
        schema_.options.timeout = milliseconds(4'000);
        schema_.options.capacity = capacity;
    }

    [[nodiscard]] Schema& schema() { return schema_; }
    [[nodiscard]] PostgresOptions& options() { return schema_.options; }
    [[nodiscard]] std::unique_ptr<StreamStore> open() const { return schema_.open(); }

    [[nodiscard]] std::vector<Append> claims(int count) {
        std::vector<Append> claims(static_cast<std::size_t>(count));
        for (Append& claim : claims) {
            claim.record.ns = "swept";
            claim.record.key = std::to_string(next_++);
            claim.record.expires_at_ms = clock_.now_ms() + 1'000;
        }
        return claims;
    }
    [[nodiscard]] std::vector<Append> receipts(int count) {
        auto all = claims(count);
        for (Append& one : all) {
            one.record.receipt = "done";
            one.record.expires_at_ms += 1'000'000'000;
        }
        return all;
    }
    static void append(StreamStore& store, const std::vector<Append>& batch,
                       Batch mode = Batch::each) {
        for (const auto& result : store.append(batch, mode)) {
            REQUIRE_MESSAGE(result.has_value(), (result ? "" : result.error().message));
        }
    }
    void expire() { clock_.advance(60'000); }

    // The server does this whenever rows are deleted; `n` is their number.
    void on_delete(const std::string& statements) {
        schema_.sql(
            "CREATE FUNCTION @.on_delete() RETURNS trigger LANGUAGE plpgsql AS $$ "
            "DECLARE n int8 := (SELECT count(*) FROM gone); BEGIN " +
            statements + " RETURN NULL; END $$");
        schema_.sql(
            "CREATE TRIGGER on_delete AFTER DELETE ON @.head REFERENCING OLD TABLE AS gone "
            "FOR EACH STATEMENT EXECUTE FUNCTION @.on_delete()");
    }

  private:
    Schema schema_;
    ManualClock clock_;
    int next_ = 0;
};

SweepReport must_sweep(StreamStore& store, const SweepOptions& options = {}) {
    auto report = store.sweep(options);
    REQUIRE_MESSAGE(report.has_value(), report.error().message);
    return *std::move(report);
}

// Sweeps 300 expired claims of which a transaction revives two, and then ends with `end`.
void sweep_beside_transaction(Filled& filled, StreamStore& store, const std::string& end) {
    CAPTURE(end);
    Filled::append(store, filled.claims(300));
    filled.expire();
    Client client(Schema::url());
    client.row("SET search_path = " + filled.options().schema);
    client.row("BEGIN");
    const auto held = client.row(
        "SELECT count(*) FROM (SELECT claim(ns, key) FROM head WHERE key IN ('0', '150')) c");
    CHECK(held[0] == "2");

    const SweepReport first = must_sweep(store);
    CHECK(first.removed.in_flight == 298);
    CHECK(first.records_dropped == 298);
    CHECK(!first.finished);
    CHECK(!first.next_expiry_ms);
    const SweepReport second = must_sweep(store);  // nothing hinders it, and there is nothing
    CHECK(second.removed.total() == 0);
    CHECK(!second.finished);

    client.row(end);
    const SweepReport last = must_sweep(store);
    CHECK(last.removed.in_flight == (end == "ROLLBACK" ? 2 : 0));
    CHECK(last.unanswered.size() == last.removed.in_flight);
    CHECK(last.finished);
    CHECK(store.head({"swept", "150"}).value().has_value() == (end == "COMMIT"));
}

TEST_CASE("sweep: passes over what an open transaction holds") {
    // Guards against one idle session that keeps a table growing.
    NEEDS_POSTGRES();
    for (const char* const end : {"ROLLBACK", "COMMIT"}) {
        Filled filled;
        const auto store = filled.open();
        sweep_beside_transaction(filled, *store, end);
    }
}

TEST_CASE("sweep: passes over it where the server cannot skip what is locked, too") {
    NEEDS_POSTGRES();
    Proxy proxy(PostgresServer::shared().socket());
    proxy.replace("SKIP LOCKED", "SKIP LACKED");
    for (const char* const end : {"ROLLBACK", "COMMIT"}) {
        Filled filled;
        const auto store = open_postgres(proxy.url(), filled.options());
        REQUIRE_MESSAGE(store.has_value(), store.error().message);
        sweep_beside_transaction(filled, **store, end);
    }
}

TEST_CASE("sweep: makes its batches as small as a slow server needs them") {
    NEEDS_POSTGRES();
    Filled filled;
    filled.options().timeout = milliseconds(1'000);
    const auto store = filled.open();
    Filled::append(*store, filled.claims(900));
    filled.expire();
    filled.on_delete("IF n > 300 THEN PERFORM pg_sleep(600); END IF;");
    const SweepReport report = must_sweep(*store);
    CHECK(report.removed.in_flight == 900);
    CHECK(report.unanswered.size() == 100);
    CHECK(filled.schema().sql("SELECT count(*) FROM @.head") == "0");
    // No batch that was too large goes on behind the sweep's back.
    CHECK(filled.schema().sql(
              "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "0");
}

constexpr const char* kLargeBatchesTimeOut =
    "IF n > 300 THEN RAISE EXCEPTION 'too long' USING ERRCODE = '57014'; END IF;";

TEST_CASE("sweep: evicts in batches, oldest first") {
    NEEDS_POSTGRES();
    Filled filled({.keys_max = 1'000, .evict_oldest = true});
    const auto store = filled.open();
    Filled::append(*store, filled.receipts(1'000));
    filled.on_delete(kLargeBatchesTimeOut);
    Filled::append(*store, filled.receipts(500), Batch::atomic);
    const auto stats = store->stats().value();
    CHECK(stats.evicted >= 500);
    CHECK(stats.completed == 1'500 - stats.evicted);
    const auto kept = [&](std::uint64_t key) {
        return store->head({"swept", std::to_string(key)}).value().has_value();
    };
    CHECK(!kept(0));
    CHECK(!kept(stats.evicted - 1));
    CHECK(kept(stats.evicted));
    CHECK(store->sweep_history().value().front().evicted == stats.evicted);
}

TEST_CASE("sweep: evicts by bytes, and what others hold is not evicted") {
    NEEDS_POSTGRES();
    Filled filled({.bytes_max = 300'000, .evict_oldest = true});
    const auto store = filled.open();
    auto large = filled.receipts(200);
    for (Append& one : large) {
        one.record.receipt = std::string(1'200, 'r');
    }
    Filled::append(*store, large);
    Client client(Schema::url());
    client.row("BEGIN");
    client.row("SELECT 1 FROM " + filled.options().schema + ".head WHERE key = '0' FOR UPDATE");
    large = filled.receipts(100);
    for (Append& one : large) {
        one.record.receipt = std::string(1'200, 'r');
    }
    Filled::append(*store, large, Batch::atomic);
    CHECK(store->head({"swept", "0"}).value().has_value());
    CHECK(!store->head({"swept", "1"}).value().has_value());
    CHECK(store->stats().value().evicted > 85);
    CHECK(store->stats().value().evicted < 200);

    // Nothing else can go: it is an error, and not more than there is room for.
    client.row("SELECT count(*) FROM (SELECT 1 FROM " + filled.options().schema +
               ".head FOR UPDATE) h");
    large = filled.receipts(100);
    for (Append& one : large) {
        one.record.receipt = std::string(1'200, 'r');
    }
    for (const auto& result : store->append(large, Batch::atomic)) {
        REQUIRE(!result.has_value());
        CHECK_MESSAGE(result.error().code == Code::unavailable, result.error().message);
    }
    client.row("ROLLBACK");
    Filled::append(*store, large, Batch::atomic);
}

TEST_CASE("sweep: one that fails has counted what it has removed") {
    NEEDS_POSTGRES();
    Filled filled({.keys_max = 1'000, .evict_oldest = true});
    const auto store = filled.open();
    Filled::append(*store, filled.receipts(1'000));
    filled.schema().sql("CREATE SEQUENCE @.batches");
    filled.on_delete(std::string(kLargeBatchesTimeOut) + "IF nextval('" + filled.options().schema +
                     ".batches') = 3 THEN RAISE EXCEPTION 'the disk is broken'; END IF;");
    for (const auto& result : store->append(filled.receipts(500), Batch::atomic)) {
        REQUIRE(!result.has_value());
        CHECK_MESSAGE(result.error().message.contains("the disk is broken"),
                      result.error().message);
    }
    const auto stats = store->stats().value();
    CHECK(stats.evicted == 1'000 - stats.completed);
    CHECK(stats.evicted >= 300);
    CHECK(stats.last_sweep_ms != 0);
    CHECK(stats.sweep_error.contains("the disk is broken"));
    CHECK(store->metrics().streams_removed == stats.evicted);
    CHECK(store->metrics().sweeps_failed == 1);
    const auto history = store->sweep_history().value();
    REQUIRE(history.size() == 1);
    CHECK(history[0].interrupted);
    CHECK(history[0].evicted == stats.evicted);
}

TEST_CASE("sweep: a dry run says what the sweep behind it removes") {
    NEEDS_POSTGRES();
    Filled filled;
    const auto store = filled.open();
    auto batch = filled.claims(50);
    for (std::size_t i = 0; i < batch.size(); ++i) {
        batch[i].record.ns = i % 3 == 0 ? "a" : "b";
        batch[i].record.owner = "somebody";
        if (i % 5 == 0) {
            batch[i].record.receipt = "done";
        }
    }
    Filled::append(*store, batch);
    filled.expire();
    SweepOptions options{.dry_run = true, .unanswered_max = 7};
    const SweepReport said = must_sweep(*store, options);
    options.dry_run = false;
    const SweepReport done = must_sweep(*store, options);
    CHECK(said.removed == done.removed);
    CHECK(said.records_dropped == done.records_dropped);
    REQUIRE(said.namespaces.size() == 2);
    REQUIRE(done.namespaces.size() == 2);
    CHECK(said.namespaces[0].removed == done.namespaces[0].removed);
    REQUIRE(said.unanswered.size() == 7);
    REQUIRE(done.unanswered.size() == 7);
    for (std::size_t i = 0; i < 7; ++i) {
        CHECK(said.unanswered[i].key == done.unanswered[i].key);
        CHECK(said.unanswered[i].claim_sequence == done.unanswered[i].claim_sequence);
        CHECK(said.unanswered[i].owner == "somebody");
    }
}

TEST_CASE("sweep: an append from its progress may find no room, and gets an answer") {
    NEEDS_POSTGRES();
    Filled filled({.keys_max = 10, .evict_oldest = true});
    const auto store = filled.open();
    Filled::append(*store, filled.receipts(10));
    const auto more = filled.receipts(1);
    Result<std::uint64_t> within = 0;
    SweepOptions options;
    options.progress = [&](std::uint64_t, std::uint64_t) { within = store->append(more).front(); };
    must_sweep(*store, options);
    REQUIRE(!within.has_value());
    CHECK_MESSAGE(within.error().code == Code::out_of_space, within.error().message);
    Filled::append(*store, more);
}

}  // namespace
}  // namespace dedup::test
