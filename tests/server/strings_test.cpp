// Redis' strings, to the millisecond, and beside claims. What each command answers otherwise is
// compared with Redis itself, in redis_answers_test.py.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "dedup/cache.hpp"
#include "dedup/memory_store.hpp"
#include "dedup/server.hpp"
#include "server/client.hpp"
#include "support/hooked_store.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

struct Strings {
    Strings() {
        auto started = Server::start(*store, {.unix_path = path});
        REQUIRE_MESSAGE(started.has_value(), started.error().message);
        server = *std::move(started);
        client = std::make_unique<Client>(path);
    }
    std::string ask(std::initializer_list<std::string_view> arguments) const {
        return client->ask(arguments);
    }
    TempDir directory;
    const std::string path = (directory.path() / "socket").string();
    ManualClock clock{1'000'000};
    std::unique_ptr<StreamStore> store = make_memory_store(clock.clock());
    std::unique_ptr<Server> server;
    std::unique_ptr<Client> client;
};

TEST_CASE("strings: a lock of 500 ms holds for 500 ms, whatever the store's grace") {
    const Strings strings;
    CHECK(strings.ask({"SET", "lock", "a", "NX", "PX", "500"}) == "OK");
    ManualClock clock = strings.clock;
    clock.advance(500);
    CHECK(strings.ask({"SET", "lock", "b", "NX", "PX", "500"}) == "nil");
    CHECK(strings.ask({"PTTL", "lock"}) == "0");
    clock.advance(1);
    CHECK(strings.ask({"GET", "lock"}) == "nil");
    CHECK(strings.ask({"EXISTS", "lock"}) == "0");
    CHECK(strings.ask({"PTTL", "lock"}) == "-2");
    CHECK(strings.ask({"SET", "lock", "b", "NX", "PX", "500"}) == "OK");
    CHECK(strings.ask({"GET", "lock"}) == "'b'");
}

TEST_CASE("strings: how long keys stay") {
    const Strings strings;
    CHECK(strings.ask({"SET", "k", "v", "EX", "10"}) == "OK");
    CHECK(strings.ask({"TTL", "k"}) == "10");
    CHECK(strings.ask({"PEXPIRETIME", "k"}) == "1010000");
    CHECK(strings.ask({"SET", "k", "w", "KEEPTTL"}) == "OK");
    CHECK(strings.ask({"PTTL", "k"}) == "10000");
    CHECK(strings.ask({"SET", "k", "w"}) == "OK");
    CHECK(strings.ask({"PTTL", "k"}) == "-1");
    CHECK(strings.ask({"PEXPIREAT", "k", "1000001"}) == "1");
    CHECK(strings.ask({"PTTL", "k"}) == "1");
    CHECK(strings.ask({"GETEX", "k", "PERSIST"}) == "'w'");
    CHECK(strings.ask({"EXPIRETIME", "k"}) == "-1");
    CHECK(strings.ask({"EXPIRE", "k", "-1"}) == "1");
    CHECK(strings.ask({"GET", "k"}) == "nil");
    CHECK(strings.ask({"SET", "k", "v", "PXAT", "999999"}) == "OK");
    CHECK(strings.ask({"EXISTS", "k"}) == "0");
    CHECK(strings.ask({"SET", "k", "v", "PX", "9223372036854775807"}) ==
          "-ERR invalid expire time in 'set' command");
    CHECK(strings.ask({"GET", "k"}) == "nil");
    CHECK(strings.ask({"SET", "k", "v", "EX", "9223372036854775807"}) ==
          "-ERR invalid expire time in 'set' command");
}

TEST_CASE("strings: a claim in flight is a key of another type, and nothing overwrites it") {
    const Strings strings;
    Cache cache(*strings.store, {.ns = "redis:0"});
    const auto outcome = cache.claim("k");
    REQUIRE(outcome.has_value());
    const Claim claim = std::get<Claimed>(*outcome).claim;
    CHECK(strings.ask({"SET", "k", "v", "NX"}) == "nil");
    for (const auto& command : {std::initializer_list<std::string_view>{"GET", "k"},
                                {"SET", "k", "v"},
                                {"GETDEL", "k"},
                                {"SET", "k", "v", "NX", "GET"},
                                {"PEXPIRE", "k", "1"},
                                {"TTL", "k"},
                                {"STRLEN", "k"}}) {
        CHECK(strings.ask(command).starts_with("-WRONGTYPE "));
    }
    CHECK(strings.ask({"SET", "other", "v"}) == "OK");
    CHECK(strings.ask({"DEL", "other", "k"}).starts_with("-ERR a key is a claim"));
    CHECK(strings.ask({"GET", "other"}) == "'v'");
    CHECK(strings.ask({"EXISTS", "k"}) == "1");
    CHECK(strings.ask({"TYPE", "k"}) == "claim");
    CHECK(strings.ask({"MGET", "k"}) == "[nil]");
    REQUIRE(cache.complete(claim, "receipt").has_value());
    CHECK(strings.ask({"GET", "k"}) == "'receipt'");
    CHECK(strings.ask({"TYPE", "k"}) == "string");
}

TEST_CASE("strings: a DEL that names a claim removes nothing in a transaction, either") {
    ManualClock clock{1'000'000};
    const auto inner = make_memory_store(clock.clock());
    HookedStore store(*inner);
    TempDir directory;
    const std::string path = (directory.path() / "socket").string();
    const auto server = Server::start(store, {.unix_path = path});
    REQUIRE(server.has_value());
    Client client(path);
    CHECK(client.ask({"SET", "s", "v"}) == "OK");
    CHECK(client.ask({"DEDUP.CLAIM", "c", "NS", "redis:0"}).starts_with("['outcome' 'claimed'"));
    const auto transact = [&] {
        CHECK(client.ask({"MULTI"}) == "OK");
        CHECK(client.ask({"SET", "x", "1"}) == "QUEUED");
        CHECK(client.ask({"DEL", "s", "c"}) == "QUEUED");
        CHECK(client.ask({"GET", "s"}) == "QUEUED");
        return client.ask({"EXEC"});
    };
    CHECK(transact() == "[OK -ERR a key is a claim in flight; DEDUP.RELEASE gives it up 'v']");
    CHECK(client.ask({"GET", "s"}) == "'v'");
    // What it found before somebody else was faster is not what it says.
    bool raced = false;
    store.before_append = [&] {
        if (std::exchange(raced, true)) {
            return;
        }
        Cache cache(*inner, {.ns = "redis:0"});
        CHECK(cache.release_current("c").has_value());
        CHECK(cache.forget("x", 0, "a race").has_value());
    };
    CHECK(transact() == "[OK 1 nil]");
    CHECK(client.ask({"GET", "s"}) == "nil");
}

TEST_CASE("strings: databases are namespaces, and keys are the store's") {
    const Strings strings;
    CHECK(strings.ask({"SET", "k", "zero"}) == "OK");
    CHECK(strings.ask({"SELECT", "3"}) == "OK");
    CHECK(strings.ask({"GET", "k"}) == "nil");
    CHECK(strings.ask({"SET", "k", "three"}) == "OK");
    CHECK(strings.ask({"SELECT", "16"}).starts_with("-ERR DB index"));
    CHECK(strings.ask({"GET", "k"}) == "'three'");
    Cache cache(*strings.store, {.ns = "redis:3"});
    const auto found = cache.lookup("k");
    REQUIRE(found.has_value());
    CHECK(std::get<Completed>(*found).receipt == "three");
    CHECK(strings.ask({"GET", ""}).starts_with("-ERR key is empty"));
    CHECK(strings.ask({"GET", std::string(1025, 'k')}).starts_with("-ERR key is 1,025 bytes"));
}

TEST_CASE("strings: a scan gives each key once, by patterns") {
    const Strings strings;
    for (int i = 0; i < 250; ++i) {
        CHECK(strings.ask({"SET", "k" + std::to_string(i), "v"}) == "OK");
    }
    CHECK(strings.ask({"DEL", "k7"}) == "1");
    CHECK(strings.ask({"DEDUP.CLAIM", "claim", "NS", "redis:0"}).find("claimed") !=
          std::string::npos);
    std::size_t keys = 0;
    std::string cursor = "0";
    do {
        const std::string page = strings.ask({"SCAN", cursor, "COUNT", "20"});
        const std::size_t quote = page.find('\'', 2);
        cursor = page.substr(2, quote - 2);
        keys += static_cast<std::size_t>(std::count(page.begin(), page.end(), 'k'));
    } while (cursor != "0");
    CHECK(keys == 249);
    const auto matching = [&](std::string_view pattern) {
        const std::string page = strings.ask({"SCAN", "0", "MATCH", pattern, "COUNT", "1000"});
        return std::count(page.begin(), page.end(), 'k');
    };
    CHECK(matching("k24?") == 10);
    CHECK(matching("k[^1]") == 8);
    CHECK(matching("k1[0-4]") == 5);
    CHECK(matching("*9") == 25);
    CHECK(matching("k\\*") == 0);
    CHECK(matching("**********x") == 0);
    CHECK(strings.ask({"SCAN", "0", "TYPE", "hash", "COUNT", "1000"}) == "['0' []]");
    CHECK(strings.ask({"SCAN", "12345"}).starts_with("-ERR invalid cursor"));
}

TEST_CASE("strings: scripts are known by what they are, and no other is run") {
    const Strings strings;
    const std::string release =
        "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"del\",KEYS[1]) else "
        "return 0 end";
    CHECK(strings.ask({"SET", "lock", "token", "PX", "1000"}) == "OK");
    CHECK(strings.ask({"EVAL", release, "1", "lock", "other"}) == "0");
    CHECK(strings.ask({"EVAL", release, "1", "lock", "token"}) == "1");
    CHECK(strings.ask({"GET", "lock"}) == "nil");
    CHECK(strings.ask({"EVAL", "return 1", "0"}).starts_with("-NOSCRIPT "));
    CHECK(strings.ask({"EVAL", release + " ", "1", "lock", "token"}).starts_with("-NOSCRIPT "));
    CHECK(strings.ask({"SCRIPT", "LOAD", release}) == "'b70c2384248f88e6b75b9f89241a180f856ad852'");
    CHECK(strings.ask({"SCRIPT", "LOAD", "return 1"}).starts_with("-NOSCRIPT "));
    CHECK(strings.ask({"SCRIPT", "EXISTS", "B70C2384248F88E6B75B9F89241A180F856AD852",
                       std::string(40, '0')}) == "[1 0]");
    const std::string touch_or_set = "b6b55c439e02c6f52ffb8be7ec8c0d0ac816ea79";
    CHECK(strings.ask({"EVALSHA", touch_or_set, "1", "lock", "a", "500"}) == "1");
    CHECK(strings.ask({"EVALSHA", touch_or_set, "1", "lock", "b", "500"}) == "0");
    CHECK(strings.ask({"EVALSHA", touch_or_set, "1", "lock", "a", "900"}) == "1");
    CHECK(strings.ask({"PTTL", "lock"}) == "900");
    const std::string delete_script = "e950836ed1e694540c503ef9972b8de518044d3b";
    CHECK(strings.ask({"EVALSHA", delete_script, "1", "lock", "b"}) == "0");
    CHECK(strings.ask({"EVALSHA", delete_script, "1", "lock", "a"}) == "1");
    CHECK(strings.ask({"EVALSHA", delete_script, "1", "lock", "a"}) == "-1");
    CHECK(strings.ask({"EVALSHA", delete_script, "2", "lock", "a"}).starts_with("-ERR this"));
    CHECK(strings.ask({"EVALSHA", delete_script, "9", "lock"}).starts_with("-ERR Number of keys"));
}

TEST_CASE("strings: a transaction takes effect as one, and its commands see each other") {
    const Strings strings;
    CHECK(strings.ask({"SET", "a", "old"}) == "OK");
    CHECK(strings.ask({"MULTI"}) == "OK");
    for (const auto& command : {std::initializer_list<std::string_view>{"SET", "a", "new"},
                                {"GET", "a"},
                                {"SET", "b", "x", "PX", "100"},
                                {"PTTL", "b"},
                                {"DEL", "a", "b", "a"},
                                {"GET", "b"},
                                {"SET", "c", "y", "NX"},
                                {"SET", "c", "z", "NX"},
                                {"PING"},
                                {"SET", "b", "again"}}) {
        CHECK(strings.ask(command) == "QUEUED");
    }
    Client other(strings.path);
    CHECK(other.ask({"MGET", "a", "b", "c"}) == "['old' nil nil]");
    CHECK(strings.ask({"EXEC"}) == "[OK 'new' OK 100 2 nil OK nil PONG OK]");
    CHECK(other.ask({"MGET", "a", "b", "c"}) == "[nil 'again' 'y']");
    const auto appended = strings.store->stats();
    REQUIRE(appended.has_value());
    CHECK(appended->last_sequence == 4);  // of a, b and c, once each

    CHECK(strings.ask({"EXEC"}) == "-ERR EXEC without MULTI");
    CHECK(strings.ask({"MULTI"}) == "OK");
    CHECK(strings.ask({"SET", "c", "w"}) == "QUEUED");
    CHECK(strings.ask({"MULTI"}).starts_with("-ERR MULTI calls"));
    CHECK(strings.ask({"DISCARD"}) == "OK");
    for (const auto& bad : {std::initializer_list<std::string_view>{"NO"},
                            {"GET"},
                            {"SET", "c", "w", "BOGUS"},
                            {"SELECT", "1"},
                            {"DEDUP.CLAIM", "c"},
                            {"SCAN", "0"}}) {
        CHECK(strings.ask({"MULTI"}) == "OK");
        CHECK(strings.ask({"SET", "c", "w"}) == "QUEUED");
        CHECK(strings.ask(bad).starts_with("-ERR "));
        CHECK(strings.ask({"EXEC"}).starts_with("-EXECABORT "));
    }
    CHECK(strings.ask({"GET", "c"}) == "'y'");
    CHECK(strings.ask({"MULTI"}) == "OK");
    CHECK(strings.ask({"EXEC"}) == "[]");
    CHECK(strings.ask({"MULTI"}) == "OK");
    CHECK(strings.ask({"SET", "big", std::string(2 << 20, 'v')}).starts_with("-ERR a transaction"));
    CHECK(strings.ask({"RESET"}) == "RESET");
    CHECK(strings.ask({"GET", "c"}) == "'y'");
}

TEST_CASE("native commands: maps in RESP3, flat arrays in RESP2, and fences") {
    const Strings strings;
    CHECK(strings.ask({"HELLO", "3"}).starts_with("{'server': 'dedup'"));
    CHECK(strings.ask(
              {"DEDUP.CLAIM", "k", "OWNER", "me", "LEASE", "100", "TTL", "5000", "EVENT", "e"}) ==
          "{'outcome': 'claimed', 'namespace': 'default', 'key': 'k', 'claim_sequence': 1, "
          "'attempt': 1, 'deadline_ms': 1000100}");
    CHECK(strings.ask({"DEDUP.RENEW", "k", "1", "200"}).find("'deadline_ms': 1000200") !=
          std::string::npos);
    CHECK(strings.ask({"DEDUP.CLAIM", "k"}) ==
          "{'outcome': 'in_flight', 'namespace': 'default', 'key': 'k', 'claim_sequence': 1, "
          "'attempt': 1, 'owner': 'me', 'since_ms': 1000000, 'lease_until_ms': 1000200, "
          "'expires_at_ms': 1005000, 'held': 0}");
    CHECK(strings.ask({"DEDUP.COMPLETE", "k", "9", "r"}).starts_with("-STALE_CLAIM "));
    CHECK(strings.ask({"DEDUP.COMPLETE", "k", "1", "r"}) ==
          "{'outcome': 'completed', 'namespace': 'default', 'key': 'k', 'claim_sequence': 1, "
          "'receipt': 'r'}");
    CHECK(strings.ask({"DEDUP.COMPLETE", "k", "1", "s"}).starts_with("-RECEIPT_MISMATCH "));
    CHECK(strings.ask({"DEDUP.LOOKUP", "k"}) ==
          "{'outcome': 'completed', 'namespace': 'default', 'key': 'k', 'claim_sequence': 1, "
          "'attempt': 1, 'completed_at_ms': 1000000, 'expires_at_ms': 1005000, 'event_id': 'e', "
          "'receipt': 'r'}");
    CHECK(strings.ask({"DEDUP.CLAIM", "k"}) == strings.ask({"DEDUP.LOOKUP", "k"}));
    CHECK(strings.ask({"DEDUP.REMEMBER", "k", "x"}).find("'duplicate'") != std::string::npos);
    CHECK(strings.ask({"DEDUP.REMEMBER", "n", "x"}).find("'new'") != std::string::npos);
    CHECK(strings.ask({"DEDUP.RELEASE", "k", "CURRENT"}).find("'completed'") != std::string::npos);
    CHECK(strings.ask({"DEDUP.LOOKUP", "none", "NS", "other"}) ==
          "{'outcome': 'absent', 'namespace': 'other', 'key': 'none'}");
    CHECK(strings.ask({"DEDUP.CLAIM", "f", "FINGERPRINT", "a"}).find("claimed") !=
          std::string::npos);
    CHECK(strings.ask({"DEDUP.CLAIM", "f", "FINGERPRINT", "b"}).find("'mismatch'") !=
          std::string::npos);
    CHECK(strings.ask({"DEDUP.STATS"}).find("'in_flight': 1") != std::string::npos);
    CHECK(strings.ask({"DEDUP.SWEEP", "DRYRUN"}).find("'dry_run': 1") != std::string::npos);
    CHECK(strings.ask({"DEDUP.HISTORY", "k"}).find("'state': 'completed'") != std::string::npos);
    CHECK(strings.ask({"DEDUP.SCAN", "0", "NS", "default"}).find("'key': 'n'") !=
          std::string::npos);
    CHECK(strings.ask({"HELLO", "2"}).starts_with("['server' 'dedup'"));
    CHECK(strings.ask({"DEDUP.LOOKUP", "none"}) ==
          "['outcome' 'absent' 'namespace' 'default' 'key' 'none']");
}

TEST_CASE("native commands: an option that is not one is an error, never a guess") {
    const Strings strings;
    for (const auto& command :
         {std::initializer_list<std::string_view>{"DEDUP.CLAIM", "k", "OWNR", "me"},
          {"DEDUP.CLAIM", "k", "OWNER"},
          {"DEDUP.CLAIM", "k", "LEASE", "0"},
          {"DEDUP.CLAIM", "k", "LEASE", "10s"},
          {"DEDUP.CLAIM", "k", "TTL", "1", "EXPIREAT", "2000000"},
          {"DEDUP.CLAIM", "k", "NS", ""},
          {"DEDUP.CLAIM", ""},
          {"DEDUP.COMPLETE", "k", "x", "r"},
          {"DEDUP.COMPLETE", "k", "1", "r", "LEASE", "10"},
          {"DEDUP.RENEW", "k", "CURRENT", "10"},
          {"DEDUP.REMEMBER", "k", "r", "LEASE", "10"},
          {"DEDUP.LOOKUP", "k", "OWNER", "me"},
          {"DEDUP.WAIT", "k", "-1"},
          {"DEDUP.SCAN", "0", "COUNT", "0"},
          {"DEDUP.SWEEP", "NOW"},
          {"SET", "k", "v", "NX", "XX"},
          {"SET", "k", "v", "EX", "1", "PX", "1"},
          {"SET", "k", "v", "IFNE", "x"},
          {"EXPIRE", "k", "1", "GT", "LT"},
          {"HELLO", "4"}}) {
        const std::string reply = strings.ask(command);
        CHECK_MESSAGE((reply.starts_with("-ERR ") || reply.starts_with("-NOPROTO ")), reply);
    }
    CHECK(strings.ask({"DEDUP.STATS"}).find("'streams' 0") != std::string::npos);
}

TEST_CASE("strings: an option that is none is an error, of the commands of later Redis, too") {
    const Strings client;
    CHECK(client.ask({"WAITAOF", "1", "0", "0"}) == "[1 0]");
    CHECK(client.ask({"WAITAOF", "x", "0", "0"}).starts_with("-ERR value is not an integer"));
    CHECK(client.ask({"WAITAOF", "2", "0", "0"}).starts_with("-ERR value is out of range"));
    CHECK(client.ask({"WAITAOF", "0", "-1", "0"}).starts_with("-ERR value is out of range"));
    CHECK(client.ask({"WAITAOF", "0", "0", "-1"}) == "-ERR timeout is negative");
    CHECK(client.ask({"CLIENT", "SETINFO", "lib-name", "mine"}) == "OK");
    CHECK(client.ask({"CLIENT", "SETINFO", "foo", "bar"}) == "-ERR Unrecognized option 'foo'");
    CHECK(client.ask({"CLIENT", "SETINFO", "LIB-VER", "a b"}).find("cannot contain") !=
          std::string::npos);
    CHECK(client.ask({"CLIENT", "NO-TOUCH", "OFF"}) == "OK");
    CHECK(client.ask({"CLIENT", "NO-TOUCH", "x"}) == "-ERR syntax error");
    CHECK(client.ask({"INFO", "server"}).find("Replication") == std::string::npos);
    CHECK(client.ask({"INFO", "Replication", "nope"}).starts_with("'# Replication"));
    for (const char* all : {"all", "default", "everything"}) {
        CHECK(client.ask({"INFO", all}).find("# Latencystats") != std::string::npos);
    }
}

}  // namespace
}  // namespace dedup::test
