// Users of a server: what each may do, and that nobody else's keys can be read, guessed or crowded
// out.
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <initializer_list>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "dedup/memory_store.hpp"
#include "dedup/server.hpp"
#include "server/client.hpp"
#include "server/users_fixture.hpp"
#include "support/hooked_store.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

using namespace std::chrono_literals;

bool is_refused(const std::string& reply) {
    return reply.starts_with("-NOPERM ");
}

std::string record_of(std::string_view ns, std::string_view key) {
    // As a client of ours sends it: taken from the reply to a claim of another store.
    ManualClock clock{1'000'000};
    const auto store = make_memory_store(clock.clock());
    TempDir directory;
    const std::string path = (directory.path() / "socket").string();
    const auto server = Server::start(*store, {.unix_path = path});
    Client client(path);
    client.ask({"DEDUP.CLAIM", key, "NS", ns});
    const std::string heads = client.ask({"DEDUP.HEADS", ns, key});
    const std::size_t begin = heads.find('\'') + 1;
    return heads.substr(begin, heads.rfind('\'') - begin);
}

// A request for each command, about the key `key` of the namespace `ns`, the session's being of
// `ns` too.
std::map<std::string, std::vector<std::string>> all_requests(const std::string& ns,
                                                             const std::string& key) {
    const std::string release_script =
        "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"del\",KEYS[1]) else "
        "return 0 end";
    const std::string sha1 = "c3f8721cbb97f72bc19e972846bd7aaf91901658";
    return {
        {"DEDUP.APPEND", {"DEDUP.APPEND", "EACH", "id", "0", "0", record_of(ns, key)}},
        {"DEDUP.CLAIM", {"DEDUP.CLAIM", key, "NS", ns}},
        {"DEDUP.COMPLETE", {"DEDUP.COMPLETE", key, "CURRENT", "r", "NS", ns}},
        {"DEDUP.FLUSH", {"DEDUP.FLUSH"}},
        {"DEDUP.HEADS", {"DEDUP.HEADS", ns, key}},
        {"DEDUP.HISTORY", {"DEDUP.HISTORY", key, "NS", ns}},
        {"DEDUP.LOOKUP", {"DEDUP.LOOKUP", key, "NS", ns}},
        {"DEDUP.RELEASE", {"DEDUP.RELEASE", key, "CURRENT", "NS", ns}},
        {"DEDUP.REMEMBER", {"DEDUP.REMEMBER", key, "r", "NS", ns}},
        {"DEDUP.RENEW", {"DEDUP.RENEW", key, "7", "1000", "NS", ns}},
        {"DEDUP.SCAN", {"DEDUP.SCAN", "0", "NS", ns}},
        {"DEDUP.STATS", {"DEDUP.STATS"}},
        {"DEDUP.SWEEP", {"DEDUP.SWEEP", "DRYRUN"}},
        {"DEDUP.SWEEPING", {"DEDUP.SWEEPING", "id", "STOP"}},
        {"DEDUP.SWEEPS", {"DEDUP.SWEEPS"}},
        {"DEDUP.WAIT", {"DEDUP.WAIT", key, "0", "NS", ns}},
        {"DBSIZE", {"DBSIZE"}},
        {"DEDUP.FORGET", {"DEDUP.FORGET", key, "CURRENT", "REASON", "r", "NS", ns}},
        {"DEDUP.HOLD", {"DEDUP.HOLD", key, "7", "r", "NS", ns}},
        {"DEDUP.NOTE", {"DEDUP.NOTE", key, "7", "n", "NS", ns}},
        {"DEDUP.RESOLVE", {"DEDUP.RESOLVE", key, "7", "NOTDONE", "REASON", "r", "NS", ns}},
        {"DEL", {"DEL", key}},
        {"DELEX", {"DELEX", key, "IFEQ", "v"}},
        {"DELIFEQ", {"DELIFEQ", key, "v"}},
        {"EVAL", {"EVAL", release_script, "1", key, "v"}},
        {"EVALSHA", {"EVALSHA", sha1, "1", key, "v"}},
        {"EXISTS", {"EXISTS", key}},
        {"EXPIRE", {"EXPIRE", key, "10"}},
        {"EXPIREAT", {"EXPIREAT", key, "10"}},
        {"EXPIRETIME", {"EXPIRETIME", key}},
        {"GET", {"GET", key}},
        {"GETDEL", {"GETDEL", key}},
        {"GETEX", {"GETEX", key}},
        {"MGET", {"MGET", key}},
        {"PERSIST", {"PERSIST", key}},
        {"PEXPIRE", {"PEXPIRE", key, "10"}},
        {"PEXPIREAT", {"PEXPIREAT", key, "10"}},
        {"PEXPIRETIME", {"PEXPIRETIME", key}},
        {"PSETEX", {"PSETEX", key, "10", "v"}},
        {"PTTL", {"PTTL", key}},
        {"SCAN", {"SCAN", "0"}},
        {"SET", {"SET", key, "v"}},
        {"SETEX", {"SETEX", key, "10", "v"}},
        {"SETNX", {"SETNX", key, "v"}},
        {"STRLEN", {"STRLEN", key}},
        {"TTL", {"TTL", key}},
        {"TYPE", {"TYPE", key}},
        {"UNLINK", {"UNLINK", key}},
    };
}

// About the connection alone: nothing that is stored, and nothing of other connections.
bool is_of_connection(const std::string& name) {
    static const std::string kNames =
        " auth client cluster command config echo hello info ping quit reset select wait waitaof "
        "discard exec multi script dedup.store ";
    return kNames.find(" " + name + " ") != std::string::npos;
}

std::vector<std::string> names_of_commands(Client& client) {
    std::vector<std::string> names;
    const std::string reply = client.ask({"COMMAND"});
    for (std::size_t at = reply.find("['"); at != std::string::npos;
         at = reply.find("['", at + 1)) {
        names.push_back(reply.substr(at + 2, reply.find('\'', at + 2) - at - 2));
    }
    return names;
}

TEST_CASE("users: every command is one of the connection, or needs a right") {
    UsersFixture fixture({{.name = "none", .rights = "", .namespaces = "*"},
                          {.name = "nowhere", .rights = "all", .namespaces = ""},
                          {.name = "all", .rights = "all", .namespaces = "*"}});
    auto requests = all_requests("redis:0", "k");
    Client without_rights = fixture.client("none");
    Client without_place = fixture.client("nowhere");
    Client all = fixture.client("all");
    for (const std::string& name : names_of_commands(all)) {
        if (is_of_connection(name)) {
            continue;
        }
        std::string upper = name;
        for (char& c : upper) {
            c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
        }
        REQUIRE_MESSAGE(requests.contains(upper), "a request for " << name << " is missing here");
        CHECK_MESSAGE(is_refused(without_rights.ask_all(requests[upper])), name);
        if (upper != "DEDUP.FLUSH") {
            CHECK_MESSAGE(is_refused(without_place.ask_all(requests[upper])), name);
        }
        const std::string reply = all.ask_all(requests[upper]);
        CHECK_MESSAGE(!is_refused(reply), name);
        CHECK_MESSAGE(!reply.starts_with("-ERR"), reply);
    }
}

TEST_CASE("users: what is somebody else's and what is not there are answered alike") {
    const std::string rights = "read,claim,complete,sweep,admin";
    UsersFixture fixture({{.name = "a", .rights = rights, .namespaces = "a,redis:1"},
                          {.name = "b", .rights = rights, .namespaces = "b*,redis:2"}});
    Client b = fixture.client("b");
    CHECK(b.ask({"SELECT", "2"}) == "OK");
    CHECK(b.ask({"SET", "there", "v"}) == "OK");
    for (const char* ns : {"b", "b-2", "redis:2"}) {
        CHECK_FALSE(is_refused(b.ask({"DEDUP.CLAIM", "there-too", "NS", ns})));
    }
    Client a = fixture.client("a");
    CHECK(a.ask({"SELECT", "2"}) == "OK");
    for (const char* ns : {"redis:2", "b", "b-2"}) {
        const auto absent = all_requests(ns, "absent");
        for (const char* key : {"there", "there-too"}) {
            for (const auto& [name, request] : all_requests(ns, key)) {
                if (name == "DEDUP.FLUSH" ||
                    (!name.starts_with("DEDUP.") && std::string(ns) != "redis:2")) {
                    continue;
                }
                const std::string reply = a.ask_all(request);
                CHECK_MESSAGE(is_refused(reply), name);
                CHECK_MESSAGE(reply == a.ask_all(absent.at(name)), name);
            }
        }
    }
    // Nor by way of others: in a transaction, beside one's own, in one's own namespace's name.
    CHECK(a.ask({"MULTI"}) == "OK");
    CHECK(is_refused(a.ask({"GET", "there"})));
    CHECK(a.ask({"EXEC"}).starts_with("-EXECABORT"));
    CHECK(a.ask({"SELECT", "1"}) == "OK");
    CHECK(a.ask({"MULTI"}) == "OK");
    CHECK(a.ask({"SET", "own", "v"}) == "QUEUED");
    CHECK(a.ask({"SELECT", "2"}).starts_with("-ERR"));
    CHECK(a.ask({"EXEC"}).starts_with("-EXECABORT"));
    CHECK(is_refused(a.ask({"DEDUP.HEADS", "a", "k", "b", "there-too"})));
    CHECK(is_refused(a.ask({"DEDUP.SCAN", "0"})));
    CHECK(is_refused(a.ask({"DEDUP.SCAN", "0", "NS", ""})));
    CHECK(is_refused(a.ask({"DEDUP.LOOKUP", "there-too", "NS", "a", "NS", "b"})));
    CHECK(is_refused(a.ask({"DEDUP.LOOKUP", "k"})));  // the namespace "default"
    for (const char* ns : {"ab", "a*", "A", "redis:10"}) {
        CHECK_FALSE(a.ask({"DEDUP.LOOKUP", "k", "NS", ns}).starts_with("["));
    }
    CHECK(a.ask({"DEDUP.LOOKUP", "there-too", "NS", "a"}).starts_with("['outcome' 'absent'"));
    CHECK(a.ask({"GET", "there"}) == "nil");
    CHECK(a.ask({"SCAN", "0"}) == "['0' []]");
    CHECK(b.ask({"GET", "there"}) == "'v'");
}

TEST_CASE("users: what one has appended is not told to another that names the same id") {
    const std::string rights = "all";
    UsersFixture fixture({{.name = "a", .rights = rights, .namespaces = "a"},
                          {.name = "b", .rights = rights, .namespaces = "b"}});
    Client a = fixture.client("a");
    Client b = fixture.client("b");
    const std::string first = record_of("a", "k");
    const std::string second = record_of("b", "k");
    const std::string told = a.ask({"DEDUP.APPEND", "EACH", "id", "0", "0", first});
    CHECK(told.ends_with(" 1]"));
    CHECK(a.ask({"DEDUP.APPEND", "EACH", "id", "0", "0", first}) == told);
    CHECK(b.ask({"DEDUP.APPEND", "EACH", "id", "0", "0", second}).ends_with(" 2]"));
}

TEST_CASE("users: nobody moves the time of all") {
    UsersFixture fixture({{.name = "a", .rights = "all", .namespaces = "a"},
                          {.name = "root", .rights = "all", .namespaces = "*"}});
    Client a = fixture.client("a");
    const auto record_at = [](std::int64_t timestamp_ms) {
        auto record = *decode(record_of("a", "k"));
        record.timestamp_ms = timestamp_ms;
        std::string encoded;
        encode(record, encoded);
        return encoded;
    };
    const std::string ahead = record_at(system_now_ms() + 3'600'000);
    for (const std::string mode : {"EACH", "ATOMIC"}) {
        const std::string told = a.ask({"DEDUP.APPEND", mode, mode, "0", "0", ahead});
        CHECK(told.find("ahead of the store's time") != std::string::npos);
    }
    CHECK(a.ask({"DEDUP.APPEND", "EACH", "now", "0", "0", record_at(system_now_ms())})
              .ends_with(" 1]"));
    Client root = fixture.client("root");
    CHECK(root.ask({"DEDUP.APPEND", "EACH", "ahead", "0", "1", ahead}).ends_with(" 2]"));
}

TEST_CASE(
    "users: who may do less from now on is disconnected, and gets nothing of what it waits for") {
    UsersFixture fixture({{.name = "gone", .rights = "all", .namespaces = "*"},
                          {.name = "less", .rights = "all", .namespaces = "*"},
                          {.name = "elsewhere", .rights = "all", .namespaces = "n*,*"},
                          {.name = "other", .rights = "read,claim", .namespaces = "n"},
                          {.name = "more", .rights = "read,claim", .namespaces = "n"}});
    Client other = fixture.client("other");
    CHECK(other.ask({"DEDUP.CLAIM", "k", "NS", "n"}).starts_with("['outcome' 'claimed'"));
    const std::string wait = request({"DEDUP.WAIT", "k", "600000", "NS", "n"});
    const std::string claim = request({"DEDUP.CLAIM", "k", "NS", "n", "WAIT", "600000"});
    const std::uint64_t before = fixture.server->metrics().requests;
    std::vector<Client> losers;
    for (const char* name : {"gone", "less", "elsewhere"}) {
        losers.push_back(fixture.client(name));
        losers.back().send(wait + claim + request({"DEDUP.CLAIM", "l", "NS", "n"}));
        losers.push_back(fixture.client(name));
        losers.back().send(claim + wait);
    }
    // It has become somebody else since.
    losers.push_back(fixture.client("gone"));
    losers.back().send(claim + request({"AUTH", "other", secret_of("other")}) +
                       request({"DEDUP.WAIT", "k", "600000", "NS", "n"}));
    Client idle = fixture.client("gone");
    CHECK(idle.ask({"MULTI"}) == "OK");
    CHECK(idle.ask({"SET", "k", "v"}) == "QUEUED");
    Client more = fixture.client("more");
    more.send(wait);
    while (fixture.server->metrics().requests < before + 30) {
        std::this_thread::yield();
    }
    std::string text;
    {
        std::ifstream file(fixture.users_path);
        for (std::string line; std::getline(file, line);) {
            const auto replace = [&line](std::string_view what, std::string_view with) {
                line.replace(line.find(what), what.size(), with);
            };
            if (line.starts_with("less")) {
                replace("rights=all", "rights=read,claim,complete,sweep");
            } else if (line.starts_with("elsewhere")) {
                replace("namespaces=n*,*", "namespaces=n*");
            } else if (line.starts_with("more")) {
                replace("rights=read,claim namespaces=n", "rights=all namespaces=*");
            }
            text += line.starts_with("gone") ? "" : line + "\n";
        }
    }
    std::ofstream(fixture.users_path) << text;
    CHECK(fixture.server->reload_users().has_value());
    CHECK(other.ask({"DEDUP.RELEASE", "k", "CURRENT", "NS", "n"}).contains("'released'"));
    for (Client& client : losers) {
        for (std::string reply = client.reply(); reply != "EOF"; reply = client.reply()) {
            CHECK_MESSAGE((is_refused(reply) || reply == "OK"), reply);
        }
    }
    CHECK(idle.reply() == "EOF");
    CHECK(more.reply().starts_with("['outcome' 'absent'"));
    CHECK(more.ask({"SET", "k", "v"}) == "OK");
    CHECK(other.ask({"DEDUP.LOOKUP", "k", "NS", "n"}).starts_with("['outcome' 'absent'"));
    CHECK(other.ask({"DEDUP.LOOKUP", "l", "NS", "n"}).starts_with("['outcome' 'absent'"));
}

TEST_CASE("users: each right lets do what it is for") {
    UsersFixture fixture({{.name = "read", .rights = "read", .namespaces = "*"},
                          {.name = "claim", .rights = "claim", .namespaces = "*"},
                          {.name = "complete", .rights = "complete", .namespaces = "*"},
                          {.name = "sweep", .rights = "sweep", .namespaces = "*"},
                          {.name = "worker", .rights = "claim,complete", .namespaces = "*"}});
    Client claims = fixture.client("claim");
    Client reads = fixture.client("read");
    Client completes = fixture.client("complete");
    Client sweeps = fixture.client("sweep");
    Client works = fixture.client("worker");
    CHECK(claims.ask({"DEDUP.CLAIM", "k"}).starts_with("['outcome' 'claimed'"));
    CHECK(is_refused(claims.ask({"DEDUP.COMPLETE", "k", "CURRENT", "r"})));
    CHECK(is_refused(claims.ask({"DEDUP.LOOKUP", "k"})));
    CHECK(is_refused(claims.ask({"SET", "k", "v", "GET"})));
    CHECK(is_refused(works.ask({"SET", "k", "v", "GET"})));
    CHECK(is_refused(reads.ask({"DEDUP.CLAIM", "k"})));
    CHECK(reads.ask({"DEDUP.LOOKUP", "k"}).starts_with("['outcome' 'in_flight'"));
    CHECK(reads.ask({"DEDUP.STATS"}).starts_with("["));
    CHECK(is_refused(reads.ask({"DEDUP.SWEEP"})));
    CHECK(completes.ask({"DEDUP.COMPLETE", "k", "CURRENT", "r"})
              .starts_with("['outcome' 'completed'"));
    CHECK(is_refused(completes.ask({"DEDUP.REMEMBER", "l", "r"})));
    CHECK(works.ask({"DEDUP.REMEMBER", "l", "r"}).starts_with("['outcome' 'new'"));
    CHECK(sweeps.ask({"DEDUP.SWEEP"}).starts_with("["));
    CHECK(is_refused(sweeps.ask({"DEDUP.STATS"})));
}

TEST_CASE("users: who has not logged in may say who he is, for a while, and nothing else") {
    UsersFixture fixture({{.name = "default", .rights = "all", .namespaces = "*"},
                          {.name = "a", .rights = "all", .namespaces = "*"}});
    Client client(fixture.path);
    for (const auto& words : {std::vector<std::string>{"PING"},
                              {"GET", "k"},
                              {"DEDUP.STORE"},
                              {"COMMAND"},
                              {"MULTI"},
                              {"NO"}}) {
        CHECK(client.ask_all(words).starts_with("-NOAUTH"));
    }
    const std::string wrong = client.ask({"AUTH", "a", "wrong"});
    CHECK(wrong.starts_with("-WRONGPASS"));
    CHECK(client.ask({"AUTH", "nobody", secret_of("a")}) == wrong);
    CHECK(client.ask({"AUTH", "", ""}) == wrong);
    CHECK(client.ask({"AUTH", secret_of("a")}) == wrong);
    CHECK(client.ask({"AUTH", secret_of("default")}) == "OK");
    CHECK(client.ask({"AUTH", "a", secret_of("a")}) == "OK");
    CHECK(client.ask({"AUTH", "a", "wrong"}) == wrong);
    CHECK(client.ask({"RESET"}) == "RESET");
    CHECK(client.ask({"PING"}).starts_with("-NOAUTH"));
}

TEST_CASE("users: failed logins are told, counted, and do not go on for ever") {
    std::mutex mutex;
    std::vector<std::string> told;
    ServerOptions options;
    options.observer = [&](const ServerEvent& event) {
        const std::lock_guard lock(mutex);
        if (event.what == "login_failed") {
            told.push_back(event.detail);
        }
    };
    UsersFixture fixture({{.name = "a", .rights = "all", .namespaces = "*"}}, std::move(options));
    constexpr int kClients = 10;
    for (int i = 0; i < kClients; ++i) {
        Client client(fixture.path);
        CHECK(client.ask({"AUTH", secret_of("a"), "a"}).starts_with("-WRONGPASS"));
        for (int j = 1; j < 10; ++j) {
            CHECK(client.ask({"HELLO", "3", "AUTH", "a", "guess"}).starts_with("-WRONGPASS"));
        }
        CHECK(client.reply() == "EOF");
    }
    CHECK(fixture.server->metrics().logins_failed == 10 * kClients);
    CHECK(
        prometheus_text(fixture.server->metrics()).find("dedup_server_logins_failed_total 100\n") !=
        std::string::npos);
    fixture.server->stop();
    const std::lock_guard lock(mutex);
    REQUIRE(told.size() > 2);
    CHECK(told[0].starts_with("no such user, from process "));
    CHECK(told[1].starts_with("wrong secret for a, from process "));
    CHECK(told.back().ends_with(" more, which are not told one by one"));
    for (const std::string& detail : told) {
        CHECK(detail.find(secret_of("a")) == std::string::npos);
    }
}

TEST_CASE("users: HTTP needs a token, or it would pass by them") {
    const UsersFixture fixture({{.name = "a", .rights = "read", .namespaces = "a"}});
    ServerOptions options{.tcp = "127.0.0.1:0", .users = fixture.users_path, .http = "127.0.0.1:0"};
    const auto open = Server::start(*fixture.inner, options);
    REQUIRE_FALSE(open.has_value());
    CHECK(open.error().message.find("HTTP needs a token") != std::string::npos);
    options.http_token = "a token of 16 bytes";
    CHECK(Server::start(*fixture.inner, options).has_value());
}

TEST_CASE("users: a decision is of who has logged in, whatever he calls himself") {
    UsersFixture fixture({{.name = "ada", .rights = "all", .namespaces = "*"}});
    Client ada = fixture.client("ada");
    const auto by = [&](std::initializer_list<std::string_view> said) {
        CHECK(ada.ask({"DEDUP.REMEMBER", "k", "r"}).starts_with("['outcome' 'new'"));
        std::vector<std::string> forget = {"DEDUP.FORGET", "k", "CURRENT", "REASON", "r"};
        forget.insert(forget.end(), said.begin(), said.end());
        CHECK(ada.ask_all(forget).starts_with("['outcome' 'forgotten'"));
        const std::string history = ada.ask({"DEDUP.HISTORY", "k"});
        const std::size_t at = history.rfind("'by' ") + 5;
        return history.substr(at, history.find(" 'reason'", at) - at);
    };
    CHECK(by({}) == "'ada'");
    CHECK(by({"BY", "ada"}) == "'ada'");
    CHECK(by({"BY", "somebody"}) == "'somebody, logged in as ada'");
}

TEST_CASE("users: who does not log in is disconnected") {
    UsersFixture fixture({{.name = "a", .rights = "all", .namespaces = "*"}},
                         {.stall_timeout = 300ms});
    Client known = fixture.client("a");
    Client stranger(fixture.path);
    CHECK(stranger.ask({"PING"}).starts_with("-NOAUTH"));
    CHECK(stranger.reply() == "EOF");
    CHECK(known.ask({"PING"}) == "PONG");
}

TEST_CASE("users: a file that has changed counts at once, one that is wrong does not") {
    UsersFixture fixture({{.name = "a", .rights = "all", .namespaces = "*"},
                          {.name = "b", .rights = "all", .namespaces = "*"},
                          {.name = "c", .rights = "all", .namespaces = "*"}});
    Client a = fixture.client("a");
    Client b = fixture.client("b");
    Client c = fixture.client("c");
    CHECK(a.ask({"SET", "k", "v"}) == "OK");
    for (const char* text : {"", "a\n", "a sha256:00:zz rights=all\n", "\x01\n",
                             "a sha256:00:00 rights=all namespaces=*\n"}) {
        std::ofstream(fixture.users_path) << text;
        const auto reloaded = fixture.server->reload_users();
        REQUIRE_FALSE(reloaded.has_value());
        CHECK(reloaded.error().message.find(fixture.users_path) != std::string::npos);
        CHECK(a.ask({"SET", "k", "v"}) == "OK");
    }
    ::unlink(fixture.users_path.c_str());
    std::filesystem::create_directory(fixture.users_path);
    CHECK_FALSE(fixture.server->reload_users().has_value());
    std::filesystem::remove(fixture.users_path);
    CHECK_FALSE(fixture.server->reload_users().has_value());
    fixture.write(
        {{.name = "a", .secret = "another secret of a", .rights = "all", .namespaces = "*"}});
    // Its secret has changed: it has to say the new one.
    CHECK(fixture.server->reload_users().has_value());
    CHECK(a.reply() == "EOF");
    CHECK(b.reply() == "EOF");
    CHECK(c.reply() == "EOF");
    Client again(fixture.path);
    CHECK(again.ask({"AUTH", "a", secret_of("a")}).starts_with("-WRONGPASS"));
    CHECK(again.ask({"AUTH", "a", "another secret of a"}) == "OK");
    std::ofstream(fixture.users_path, std::ios::app)
        << *user_line(
               {.name = "c", .secret = secret_of("c"), .rights = "read", .namespaces = "redis:*"})
        << "\n";
    CHECK(fixture.server->reload_users().has_value());
    CHECK(again.ask({"GET", "k"}) == "'v'");
    Client reads = fixture.client("c");
    CHECK(reads.ask({"GET", "k"}) == "'v'");
    CHECK(is_refused(reads.ask({"SET", "k", "w"})));
}

TEST_CASE("users: what has not changed logs nobody out, a new password does") {
    UsersFixture fixture({{.name = "b", .rights = "all", .namespaces = "*"}},
                         {.password = "the first password"});
    Client client(fixture.path);
    CHECK(client.ask({"AUTH", "the first password"}) == "OK");
    CHECK(fixture.server->reload_users().has_value());
    CHECK(client.ask({"PING"}) == "PONG");
    CHECK(fixture.server->replace_password("the first password").has_value());
    CHECK(client.ask({"PING"}) == "PONG");
    CHECK_FALSE(fixture.server->replace_password("").has_value());
    CHECK(fixture.server->replace_password("the second password").has_value());
    CHECK(client.reply() == "EOF");
    Client next(fixture.path);
    CHECK(next.ask({"AUTH", "the first password"}).starts_with("-WRONGPASS"));
    CHECK(next.ask({"AUTH", "the second password"}) == "OK");
    // The file is checked against it, and it against the file.
    fixture.write({{.name = "default", .rights = "all", .namespaces = "*"}});
    CHECK_FALSE(fixture.server->reload_users().has_value());
    CHECK(next.ask({"PING"}) == "PONG");
    UsersFixture without({{.name = "b", .rights = "all", .namespaces = "*"}});
    CHECK_FALSE(without.server->replace_password("one").has_value());
    CHECK_FALSE(without.server->replace_http_token("one").has_value());
}

TEST_CASE("users: scans that queue when their user goes are refused, and the server goes on") {
    UsersFixture fixture({{.name = "a", .rights = "all", .namespaces = "*"},
                          {.name = "b", .rights = "read", .namespaces = "*"}});
    std::atomic<bool> held = true;
    std::atomic<int> begun = 0;
    fixture.store.before_scan = [&](const ScanOptions&) {
        ++begun;
        held.wait(true);
    };
    Client scans = fixture.client("a");
    scans.send(request({"DEDUP.SCAN", "0"}));
    while (begun == 0) {
        std::this_thread::yield();
    }
    Client queues = fixture.client("b");
    const auto asked = fixture.server->metrics().requests;
    queues.send(request({"DEDUP.SCAN", "0"}));
    while (fixture.server->metrics().requests == asked) {
        std::this_thread::yield();
    }
    std::string kept;  // the line of a, with the secret that it has
    {
        std::ifstream file(fixture.users_path);
        for (std::string line; std::getline(file, line);) {
            kept += line.starts_with("b ") ? "" : line + "\n";
        }
    }
    std::ofstream(fixture.users_path) << kept;
    CHECK(fixture.server->reload_users().has_value());
    CHECK(fixture.client("a").ask({"PING"}) == "PONG");  // so the reactor has looked
    held = false;
    held.notify_all();
    CHECK(scans.reply().contains("'heads'"));
    CHECK(is_refused(queues.reply()));
    CHECK(scans.ask({"PING"}) == "PONG");
}

TEST_CASE("users: the Unix socket is for those whom it names") {
    TempDir directory;
    ManualClock clock{1'000'000};
    const auto store = make_memory_store(clock.clock());
    const std::string path = (directory.path() / "socket").string();
    {
        const auto server = Server::start(*store, {.unix_path = path, .unix_uids = {::getuid()}});
        CHECK(Client(path).ask({"PING"}) == "PONG");
    }
    const auto server = Server::start(*store, {.unix_path = path, .unix_uids = {::getuid() + 1}});
    Client client(path);
    CHECK(client.reply() == "EOF");
    CHECK((*server)->metrics().refused == 1);
}

TEST_CASE("users: lines that are none are refused by number") {
    const UsersFixture fixture({{.name = "a", .rights = "all", .namespaces = "*"}});
    std::ifstream file(fixture.users_path);
    const std::string good{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const auto refused = [&](const std::string& line) {
        std::ofstream(fixture.users_path) << good << line << "\n";
        const auto reloaded = fixture.server->reload_users();
        return !reloaded && reloaded.error().message.find("line 4: ") != std::string::npos;
    };
    const std::string hash = "sha256:00:" + std::string(64, '0');
    CHECK_FALSE(refused("b " + hash + " rights=read,claim namespaces=x,y-*"));
    CHECK_FALSE(refused("b " + hash));  // may nothing
    for (const std::string& line :
         {"a " + hash + " rights=all", "b c " + hash, std::string("b sha256:00:00"),
          "b " + hash + " rights=write", "b " + hash + " right=read", "b " + hash + " rights",
          "b " + hash + " rights=read rights=claim", "b " + hash + " namespaces=a**",
          "b " + hash + " namespaces=" + std::string(1, '\x01'), "b? " + hash}) {
        CHECK_MESSAGE(refused(line), line);
    }
    for (const ServerUser& user : std::vector<ServerUser>{
             {.name = "", .secret = secret_of("x"), .rights = "all"},
             {.name = "a", .secret = "short", .rights = "all"},
             {.name = "a", .secret = secret_of("a"), .rights = "some"},
             {.name = "a", .secret = secret_of("a"), .rights = "all", .namespaces = "a b"}}) {
        CHECK_FALSE(user_line(user).has_value());
    }
    CHECK(random_secret() != random_secret());
}

}  // namespace
}  // namespace dedup::test
