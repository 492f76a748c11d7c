// What a client gets, for everything that a claim can come to.

#include <doctest/doctest.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cache/helpers.hpp"
#include "dedup/http.hpp"
#include "support/hooked_store.hpp"
#include "support/stores.hpp"

using namespace dedup;
using namespace dedup::test;
using http::Request;
using http::Response;

namespace {

std::optional<std::string> header(const Response& response, std::string_view name) {
    for (const auto& [found, value] : response.headers) {
        if (found == name) {
            return value;
        }
    }
    return std::nullopt;
}

// A server on a store in memory, and what its handler does.
struct Service {
    TestStore store = store_factories().front().make();
    HookedStore hooked{*store};
    Cache cache{hooked};
    http::ServeOptions options;
    std::vector<Error> errors;
    int handled = 0;
    std::function<Response(const http::Attempt&)> handler = [](const http::Attempt&) {
        return Response{.status = 201, .headers = {{"X-A", "b"}, {"Set-Cookie", "c"}}, .body = "d"};
    };

    Service() {
        options.on_error = [this](const Error& error) { errors.push_back(error); };
    }

    Response post(const std::string& key, const std::string& body = "body") {
        const Request request{
            .method = "POST", .target = "/", .key_header = '"' + key + '"', .body = body};
        return http::serve(
            hooked, cache, request,
            [this](const http::Attempt& attempt) {
                ++handled;
                return handler(attempt);
            },
            options);
    }
};

}  // namespace

TEST_CASE("the first request is handled, the second one gets what was kept") {
    Service server;
    const Response first = server.post("k");
    CHECK(first.status == 201);
    CHECK_MESSAGE(header(first, "Set-Cookie") == "c", "who asked first gets everything");
    CHECK(!header(first, http::kReplayedHeader));
    const Response second = server.post("k");
    CHECK(second == Response{.status = 201,
                             .headers = {{"X-A", "b"}, {"Idempotency-Replayed", "true"}},
                             .body = "d"});
    CHECK(server.handled == 1);
    CHECK(server.errors.empty());
}

TEST_CASE("without a good key nothing is claimed") {
    Service server;
    const auto handle = [](const http::Attempt&) -> Response { throw std::logic_error("handled"); };
    const Response missing =
        http::serve(*server.store, server.cache,
                    {.method = "POST", .target = "/", .key_header = {}, .body = ""}, handle);
    CHECK(missing.status == 400);
    CHECK(header(missing, "Content-Type") == "application/problem+json");
    const Response bad =
        http::serve(*server.store, server.cache,
                    {.method = "POST", .target = "/", .key_header = "bare", .body = ""}, handle);
    CHECK(bad.status == 400);
    CHECK(bad.body.find("double quotes") != std::string::npos);
    CHECK(server.cache.metrics().counts == CacheCounts{});
}

TEST_CASE("while it is handled others get 409 until the lease is over") {
    Service server;
    server.options.lease = 2500ms;
    Response during;
    server.handler = [&](const http::Attempt&) {
        server.store.clock.advance(400);
        during = server.post("k");
        return Response{};
    };
    CHECK(server.post("k").status == 200);
    CHECK(during.status == 409);
    CHECK_MESSAGE(header(during, "Retry-After") == "3", "2.1 s are left");
    CHECK(server.handled == 1);
}

TEST_CASE("Retry-After is whole seconds, and never 0") {
    const auto retry_after = [](std::int64_t lease_until_ms) {
        InFlight claim;
        claim.lease_until_ms = lease_until_ms;
        const auto answer = http::answer(claim, 10'000);
        return header(std::get<Response>(answer), "Retry-After");
    };
    CHECK(retry_after(11'000) == "1");
    CHECK(retry_after(11'001) == "2");
    CHECK(retry_after(10'000) == "1");
    CHECK(retry_after(9'000) == "1");
    CHECK_MESSAGE(retry_after(0) == "1", "no lease: nobody knows");
}

TEST_CASE("Retry-After is what such work usually takes, once that is known") {
    Service server;
    server.options.lease = 60s;
    server.handler = [&](const http::Attempt&) {
        server.store.clock.advance(2000);
        return Response{};
    };
    for (int i = 0; i < 8; ++i) {
        server.post(std::to_string(i));
    }
    std::vector<std::optional<std::string>> told;
    server.handler = [&](const http::Attempt&) {
        for (const int step_ms : {400, 5000, 50'000}) {
            server.store.clock.advance(step_ms);
            told.push_back(header(server.post("k"), "Retry-After"));
        }
        return Response{};
    };
    server.post("k");
    // What is left; as long again; what is left of the lease.
    CHECK(told == std::vector<std::optional<std::string>>{"2", "6", "5"});
}

TEST_CASE("who waits gets the response of the one that is being handled") {
    Service server;
    server.options.wait = 60s;
    Response second;
    std::thread waiting;
    server.handler = [&](const http::Attempt&) {
        waiting = std::thread([&] { second = server.post("k"); });
        while (server.cache.metrics().counts.in_flight == 0) {
            std::this_thread::yield();
        }
        return Response{.status = 201};
    };
    const Response first = server.post("k");
    waiting.join();
    CHECK(first.status == 201);
    CHECK(second.status == 201);
    CHECK(header(second, http::kReplayedHeader) == "true");
    CHECK(server.handled == 1);

    // But not longer than it is told to.
    server.options.wait = 1ms;
    server.handler = [&](const http::Attempt&) {
        second = server.post("other");
        return Response{.status = 201};
    };
    server.post("other");
    CHECK(second.status == 409);
}

TEST_CASE("with a heartbeat the lease outlasts the handler") {
    Service server;
    const auto leases = Leases::start(server.cache, 60ms);
    REQUIRE(leases);
    server.options.heartbeat = leases->get();
    server.handler = [&](const http::Attempt& attempt) {
        // Or the first renewal might come after the lease.
        CHECK(attempt.claim.deadline_ms == server.store.clock.now_ms() + 60);
        const auto until = std::chrono::steady_clock::now() + 60s;
        while (server.cache.metrics().counts.renewed < 2) {
            REQUIRE(std::chrono::steady_clock::now() < until);
            std::this_thread::sleep_for(1ms);
            server.store.clock.advance(1);
        }
        return Response{.status = 201, .body = attempt.claim.key};
    };
    CHECK(server.post("k").status == 201);
    CHECK(server.post("k").status == 201);
    CHECK(server.handled == 1);
    // What throws is released as without one.
    server.handler = [](const http::Attempt&) -> Response { throw std::runtime_error("no"); };
    CHECK_THROWS(server.post("thrown"));
    server.handler = [](const http::Attempt&) { return Response{.status = 202}; };
    CHECK(server.post("thrown").status == 202);
}

TEST_CASE("a heartbeat of another cache is refused before anything is claimed") {
    Service server;
    Cache other(server.hooked, {.ns = "other"});
    const auto leases = must(Leases::start(other, 1h));
    server.options.heartbeat = leases.get();
    CHECK(server.post("k").status == 500);
    REQUIRE(server.errors.size() == 1);
    CHECK(server.errors.front().code == Code::invalid_argument);
    CHECK(server.handled == 0);
    as<Absent>(server.cache.lookup("k"));
}

TEST_CASE("keys of two scopes never meet") {
    Service server;
    const auto post = [&](const std::string& scope, const std::string& key) {
        const Request request{.method = "POST",
                              .target = "/",
                              .key_header = '"' + key + '"',
                              .body = "body",
                              .scope = scope};
        return http::serve(
            server.hooked, server.cache, request,
            [&](const http::Attempt&) {
                ++server.handled;
                return Response{.status = 201, .body = scope + " " + key};
            },
            server.options);
    };
    CHECK(post("ann", "k").body == "ann k");
    CHECK(post("bob", "k").body == "bob k");
    CHECK(post("", "k").body == " k");
    CHECK(post("ann", "k").body == "ann k");
    CHECK(server.handled == 3);
    // Where a scope ends no client can say.
    CHECK(post("a", "nn\x1fk").status == 400);
    CHECK(post("", "ann\x1fk").status == 400);
    CHECK(post(std::string(1000, 's'), std::string(23, 'k')).status == 201);
    CHECK(post(std::string(1000, 's'), std::string(24, 'k')).status == 400);
    CHECK(post(std::string(2000, 's'), "k").status == 400);
}

TEST_CASE("another request with the key gets 422 and is not handled") {
    Service server;
    server.post("k", "one");
    const Response other = server.post("k", "two");
    CHECK(other.status == 422);
    CHECK(header(other, "Content-Type") == "application/problem+json");
    CHECK(server.handled == 1);
}

TEST_CASE("a response that is not final releases the key") {
    // "Not you", "not so" and "not now": the same request may get another answer.
    for (const int status : {500, 503, 599, 401, 403, 407, 408, 421, 423, 425, 426, 428, 429}) {
        Service server;
        server.handler = [&](const http::Attempt&) { return Response{.status = status}; };
        CHECK(server.post("k").status == status);
        server.handler = [](const http::Attempt& attempt) {
            CHECK(attempt.claim.attempt == 2);
            return Response{.status = 404};
        };
        CHECK(server.post("k").status == 404);
        CHECK_MESSAGE(server.post("k").status == 404, "an answer like any other");
        CHECK(server.handled == 2);
    }
    Service server;
    server.options.is_final = [](const Response& response) { return response.status == 500; };
    server.handler = [](const http::Attempt&) { return Response{.status = 500}; };
    server.post("k");
    CHECK(header(server.post("k"), http::kReplayedHeader) == "true");
}

// Guards against doing the work twice: it was done, whatever is wrong with what it gave.
TEST_CASE("a response that cannot be stored is an error for good, and its work is not repeated") {
    Service server;
    server.handler = [](const http::Attempt&) { return Response{.status = 7}; };
    CHECK(server.post("bad").status == 500);
    CHECK(server.errors.back().code == Code::invalid_argument);
    CHECK(server.post("bad").status == 500);
    CHECK(server.handled == 1);
}

TEST_CASE("a status above all is no reason to do the work again") {
    Service server;
    server.handler = [](const http::Attempt&) { return Response{.status = 999}; };
    CHECK(server.post("k").status == 500);
    CHECK(server.post("k").status == 500);
    CHECK(server.handled == 1);
}

TEST_CASE("an exception releases the key and is passed on") {
    Service server;
    server.handler = [](const http::Attempt&) -> Response { throw std::runtime_error("mine"); };
    CHECK_THROWS_WITH(server.post("k"), "mine");
    CHECK(std::holds_alternative<Absent>(must(server.cache.lookup("k"))));
}

TEST_CASE("after a note an exception or a 5xx holds the key, and others get 409 for good") {
    // Guards against a payment that is made twice because its answer was lost.
    Service server;
    const auto note_and = [&](auto then) {
        return [then](const http::Attempt& attempt) -> Response {
            must(attempt.note("calls the bank"));
            return then();
        };
    };
    server.handler = note_and([]() -> Response { throw std::runtime_error("timeout"); });
    CHECK_THROWS_AS(server.post("thrown"), std::runtime_error);
    server.handler = note_and([] { return Response{.status = 502}; });
    CHECK(server.post("bad").status == 502);
    server.handler = note_and([] { return Response{.status = 429}; });
    CHECK(server.post("asks again").status == 429);
    server.handler = [](const http::Attempt&) { return Response{.status = 201}; };
    for (const char* key : {"thrown", "bad"}) {
        const Response held = server.post(key);
        CHECK(held.status == 409);
        CHECK(!header(held, "Retry-After"));
        CHECK(held.body.find("Nobody knows") != std::string::npos);
    }
    CHECK(as<Held>(server.cache.claim("thrown")).previous.reason == "timeout");
    CHECK(as<Held>(server.cache.claim("bad")).previous.reason == "the handler's response was 502");
    CHECK(server.post("asks again").status == 201);
    CHECK(server.errors.empty());
}

TEST_CASE("a handler is told of the one before it, and whose note it is decides") {
    // Guards against an effect that is repeated because nobody was told, and against a key that is
    // held for another one's note.
    Service server;
    server.options.unanswered = Unanswered::hold;
    std::function<void(const http::Attempt&)> notes;
    server.handler = [&](const http::Attempt& attempt) -> Response {
        REQUIRE(attempt.previous != nullptr);
        CHECK(attempt.previous->note == "reference 8125");
        notes(attempt);
        throw std::runtime_error("no");
    };
    const auto holds = [&](const char* key) {
        const ClaimOptions dead{.fingerprint = http::fingerprint("POST", "/", "body"),
                                .lease = milliseconds{1'000},
                                .unanswered = Unanswered::rerun};
        must(server.cache.note(must_claim(server.cache, key, dead), "reference 8125"));
        server.store.clock.advance(1'001);
        CHECK_THROWS_WITH(server.post(key), "no");
        return must(server.cache.claim(key)).held() != nullptr;
    };
    notes = [](const http::Attempt&) {};
    CHECK(!holds("inherited"));
    notes = [](const http::Attempt& attempt) { must(attempt.note("reference 8125")); };
    CHECK(holds("the same again"));
    notes = [&](const http::Attempt& attempt) {
        must(server.cache.note(attempt.claim, "reference 8126"));
    };
    CHECK(holds("by the cache"));
}

TEST_CASE("a request that fails at its last attempt is held, with its last error") {
    // Guards against a request that fails for ever, whoever sends it.
    for (const bool of_the_cache : {false, true}) {
        CAPTURE(of_the_cache);
        Service server;
        Cache capped(server.hooked, {.attempts_max = 2});
        if (!of_the_cache) {
            server.options.attempts_max = 2;
        }
        int handled = 0;
        const auto post = [&](const char* key, auto then) {
            const Request request{
                .method = "POST", .target = "/", .key_header = std::string("\"") + key + '"'};
            const auto handle = [&](const http::Attempt&) -> Response {
                ++handled;
                return then();
            };
            return http::serve(server.hooked, of_the_cache ? capped : server.cache, request, handle,
                               server.options);
        };
        const auto fail = []() -> Response { throw std::runtime_error("no such column"); };
        const auto refuse = [] { return Response{.status = 429}; };
        CHECK_THROWS_AS(post("thrown", fail), std::runtime_error);
        CHECK_THROWS_AS(post("thrown", fail), std::runtime_error);
        CHECK(post("thrown", fail).status == 409);
        CHECK(as<Held>(server.cache.claim("thrown")).previous.reason == "no such column");
        CHECK(post("bad", [] { return Response{.status = 500}; }).status == 500);
        CHECK(post("bad", [] { return Response{.status = 502}; }).status == 502);
        CHECK(post("bad", refuse).status == 409);
        CHECK(as<Held>(server.cache.claim("bad")).previous.reason ==
              "the handler's response was 502");
        handled = 0;
        for (int i = 0; i < 3; ++i) {
            CHECK_MESSAGE(post("refused", refuse).status == 429, "no failure of the handler's");
        }
        CHECK(post("refused", [] { return Response{.status = 201}; }).status == 201);
        CHECK(handled == 4);
        CHECK(server.errors.empty());
    }
}

TEST_CASE("what failed for the last time stays held, although nothing was done") {
    Service server;
    server.options.attempts_max = 1;
    server.options.reconcile = [](std::string_view, const Previous&) {
        return Finding::not_done();
    };
    server.handler = [](const http::Attempt&) { return Response{.status = 500}; };
    CHECK(server.post("k").status == 500);
    CHECK(server.post("k").status == 409);
    CHECK(server.handled == 1);
    server.options.attempts_max = 2;
    CHECK(server.post("k").status == 500);
    CHECK(server.handled == 2);
}

TEST_CASE("a server that died is asked after before its request is handled again") {
    Service server;
    Finding finding;
    int asked = 0;
    const auto die_at = [&](const char* key, Unanswered unanswered) {
        const auto claim = must_claim(server.cache, key,
                                      {.owner = "dead",
                                       .fingerprint = http::fingerprint("POST", "/", "body"),
                                       .lease = milliseconds{1'000},
                                       .unanswered = unanswered});
        must(server.cache.note(claim, "reference 8125"));
    };
    server.options.reconcile = [&](std::string_view, const Previous& previous) {
        ++asked;
        CHECK(previous.note == "reference 8125");
        return finding;
    };
    for (const Unanswered policy : {Unanswered::rerun, Unanswered::hold}) {
        CAPTURE(static_cast<int>(policy));
        const auto key = [&](std::string name) {
            return name + std::to_string(static_cast<int>(policy));
        };
        server.handled = 0;
        asked = 0;
        for (const char* name : {"done", "not done", "unknown", "nonsense"}) {
            die_at(key(name).c_str(), policy);
        }
        server.store.clock.advance(1'001);
        finding = Finding::done(http::encode_response({.status = 201, .body = "paid"}).value());
        const Response found = server.post(key("done"));
        CHECK(found.body == "paid");
        CHECK(header(found, http::kReplayedHeader) == "true");
        CHECK(server.post(key("done")).body == "paid");
        finding = Finding::unknown("pending");
        CHECK(server.post(key("unknown")).status == 409);
        CHECK(as<Held>(server.cache.claim(key("unknown"))).previous.note == "reference 8125");
        finding = Finding::done("no response");
        CHECK(server.post(key("nonsense")).status == 409);
        CHECK(server.errors.size() == 1);
        server.errors.clear();
        CHECK(server.handled == 0);
        CHECK(asked == 3);
        finding = Finding::not_done();
        CHECK(server.post(key("not done")).status == 201);
        CHECK(server.handled == 1);
    }
}

TEST_CASE("who takes longer than his lease and is overtaken gets 409") {
    Service server;
    server.options.lease = 1s;
    server.handler = [&](const http::Attempt& attempt) {
        if (attempt.claim.attempt == 1) {
            server.store.clock.advance(1500);
            CHECK(server.post("k").body == "second");
            return Response{.body = "first"};
        }
        return Response{.body = "second"};
    };
    CHECK(server.post("k").status == 409);
    CHECK(server.errors.back().code == Code::stale_claim);
    CHECK(server.post("k").body == "second");
}

TEST_CASE("errors of the store are told to the server and not to the client") {
    Service server;
    server.hooked.fail_append = [](const Append&) { return std::optional(Code::io); };
    const Response failed = server.post("k");
    CHECK(failed.status == 503);
    CHECK(header(failed, "Retry-After"));
    CHECK(failed.body.find("injected") == std::string::npos);
    CHECK(server.errors.back().message == "injected");
    CHECK(server.handled == 0);

    server.hooked.fail_append = nullptr;
    as<New>(server.cache.remember("no response", "bytes"));
    const Response unreadable = server.post("no response");
    CHECK(unreadable.status == 500);
    CHECK(unreadable.body.find("may have been handled") != std::string::npos);
    CHECK(server.errors.back().code == Code::corruption);
    for (const char* said : {"key \"no response\"", "claim 1 ", "forget", "receipts by layer"}) {
        CHECK_MESSAGE(server.errors.back().message.find(said) != std::string::npos, said);
    }
}
