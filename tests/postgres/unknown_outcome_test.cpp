// A connection is lost at every message of an append: what was acknowledged is there once, and what
// was refused is not.
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "postgres/helpers.hpp"
#include "postgres/proxy.hpp"

namespace dedup::test {
namespace {

using Fault = Proxy::Fault;

Append item(const std::string& key, std::uint64_t expected = 0) {
    Append append;
    append.expected_sequence = expected;
    append.record.ns = "lost";
    append.record.key = key;
    append.record.timestamp_ms = 1'000;
    append.record.expires_at_ms = 0;
    return append;
}

std::uint64_t head_of_key(StreamStore& store, const std::string& key) {
    const auto head = store.head({"lost", key});
    REQUIRE_MESSAGE(head.has_value(), head.error().message);
    return *head ? (*head)->sequence : 0;
}

// Appends through the proxy with the fault at each request in turn until it comes to none.
template <class Make>
void at_each_request(Fault fault, Batch mode, const Make& make) {
    const Schema schema;
    const auto watcher = schema.open();
    PostgresOptions options = schema.options;
    options.timeout = std::chrono::milliseconds(fault == Fault::hold_answer ? 300 : 10'000);
    Proxy proxy(PostgresServer::shared().socket());
    std::set<std::uint64_t> fences;
    int request = 1;
    for (bool happened = true; happened; ++request) {
        CAPTURE(request);
        // One that has sent nothing yet, or where a request comes depends on what went before.
        const auto store = open_postgres(proxy.url(), options);
        REQUIRE_MESSAGE(store.has_value(), store.error().message);
        const std::string name = std::to_string(request);
        const std::vector<Append> batch = make(*watcher, name);
        proxy.arm(fault, request);
        const auto results = (*store)->append(batch, mode);
        happened = proxy.happened();
        std::size_t landed = 0;
        for (std::size_t i = 0; i < batch.size(); ++i) {
            const std::uint64_t head = head_of_key(*watcher, batch[i].record.key);
            if (results[i]) {
                ++landed;
                CHECK(head == *results[i]);
                CHECK(fences.insert(head).second);
            } else if (results[i].error().code != Code::outcome_unknown) {
                CHECK_MESSAGE(head == batch[i].expected_sequence, results[i].error().message);
            }
        }
        // The server is well, so everything can be found out.
        if (mode == Batch::atomic) {
            CHECK((landed == 0 || landed == batch.size()));
        }
        for (const auto& result : results) {
            CHECK((result || result.error().code == Code::unavailable));
        }
        REQUIRE(request < 50);
    }
    // A block of sequences and the append, or the two halves of it; and once without the fault.
    CHECK(request > (mode == Batch::atomic ? 4 : 3));
}

std::vector<Append> claims(StreamStore&, const std::string& name) {
    return {item(name + "-a"), item(name + "-b"), item(name + "-c")};
}

std::vector<Append> mixed(StreamStore& watcher, const std::string& name) {
    const auto first = item(name + "-old");
    const auto old = watcher.append({&first, 1}).front();
    REQUIRE_MESSAGE(old.has_value(), (old ? "" : old.error().message));
    return {item(name + "-new"), item(name + "-old", *old)};
}

TEST_CASE("lost connection: at every request of an append of claims") {
    // Guards against "not written" as the answer for what is there, and the reverse.
    NEEDS_POSTGRES();
    at_each_request(Fault::lose_request, Batch::each, claims);
    at_each_request(Fault::lose_answer, Batch::each, claims);
}

TEST_CASE("lost connection: at every request of an append that begins and goes on") {
    NEEDS_POSTGRES();
    at_each_request(Fault::lose_request, Batch::each, mixed);
    at_each_request(Fault::lose_answer, Batch::each, mixed);
}

TEST_CASE("lost connection: at every request of an atomic batch") {
    NEEDS_POSTGRES();
    at_each_request(Fault::lose_request, Batch::atomic, mixed);
    at_each_request(Fault::lose_answer, Batch::atomic, mixed);
}

TEST_CASE("lost connection: an answer that never comes is not waited for") {
    // Guards against a caller that hangs with a server that does.
    NEEDS_POSTGRES();
    at_each_request(Fault::hold_answer, Batch::each, claims);
}

TEST_CASE("lost connection: a server that stays away leaves the outcome unknown, and says so") {
    NEEDS_POSTGRES();
    const Schema schema;
    const auto watcher = schema.open();
    PostgresOptions options = schema.options;
    options.timeout = std::chrono::milliseconds(300);
    Proxy proxy(PostgresServer::shared().socket());
    const auto store = open_postgres(proxy.url(), options);
    REQUIRE(store.has_value());
    const auto first = item("first");
    REQUIRE((*store)->append({&first, 1}).front().has_value());
    const auto second = item("second");
    proxy.arm(Fault::lose_answer, 1);
    proxy.refuse(true);
    const auto lost = (*store)->append({&second, 1}).front();
    REQUIRE(!lost.has_value());
    CHECK_MESSAGE(lost.error().code == Code::outcome_unknown, lost.error().message);
    const auto away = (*store)->append({&second, 1}).front();
    REQUIRE(!away.has_value());
    CHECK_MESSAGE(away.error().code == Code::unavailable, away.error().message);
    CHECK((*store)->head({"lost", "second"}).error().code == Code::unavailable);
    proxy.refuse(false);
    CHECK(head_of_key(**store, "second") != 0);
}

TEST_CASE("lost connection: terminated backends under writers cost no acknowledged append") {
    // Guards against a sequence that is used twice, and a winner that is forgotten.
    NEEDS_POSTGRES();
    const Schema schema;
    const auto store = schema.open();
    std::vector<std::vector<std::uint64_t>> fences(4);
    std::vector<std::thread> writers;
    std::atomic<int> failed = 0;
    for (std::size_t writer = 0; writer < fences.size(); ++writer) {
        writers.emplace_back([&, writer] {
            for (int i = 0; i < 150; ++i) {
                const auto claim = item(std::to_string(writer) + "-" + std::to_string(i));
                const auto result = store->append({&claim, 1}).front();
                failed += result ? 0 : 1;
                if (result) {
                    fences[writer].push_back(*result);
                }
            }
        });
    }
    for (int i = 0; i < 10; ++i) {
        schema.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'dedup'");
    }
    for (std::thread& writer : writers) {
        writer.join();
    }
    std::set<std::uint64_t> all;
    for (std::size_t writer = 0; writer < fences.size(); ++writer) {
        all.insert(fences[writer].begin(), fences[writer].end());
    }
    CHECK(all.size() + static_cast<std::size_t>(failed) == 600);
    CHECK(schema.sql("SELECT count(*) FROM @.head") == std::to_string(all.size()));
    CHECK(schema.sql("SELECT count(DISTINCT sequence) FROM @.head") == std::to_string(all.size()));
}

}  // namespace
}  // namespace dedup::test
