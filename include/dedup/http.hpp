// The Idempotency-Key header of HTTP, on a cache: what a server answers to a request that it may
// have seen before. Knows no HTTP library; docs/examples/http_server.cpp shows it with one.
//
// Source: draft-ietf-httpapi-idempotency-key-header; the header's syntax is RFC 8941, sections 3.3
// and 3.3.3; problem documents are RFC 9457.
//
//     no key, or a bad one   400      the key with another request   422
//     in flight              409, Retry-After what usually remains, at most until the lease ends
//     held                   409, without Retry-After: somebody has to decide
//     completed              the stored response; 500 if the receipt is no encoded response
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "dedup/lease.hpp"
#include "dedup/reconcile.hpp"

namespace dedup::http {

inline constexpr std::string_view kKeyHeader = "Idempotency-Key";
// In a response that was stored earlier, with the value "true".
inline constexpr std::string_view kReplayedHeader = "Idempotency-Replayed";
inline constexpr std::size_t kHeadersMax = 1000;

// How a client may write its key.
enum class KeySyntax : std::uint8_t {
    // A string in double quotes, as the draft asks for, in which \" and \\ stand for a quote and a
    // backslash. Parameters behind it are allowed and ignored.
    quoted,
    // That, or without quotes, as many clients do: without spaces, quotes, backslashes, commas and
    // semicolons then. Both are the same key.
    quoted_or_bare,
};

// The key in the header's value: 1 to kKeyBytesMax printable ASCII characters.
// Errors: invalid_argument, whose message is fit for the client.
[[nodiscard]] DEDUP_API Result<std::string> parse_key(std::string_view header,
                                                      KeySyntax syntax = KeySyntax::quoted);

// The inverse, for clients. Errors: invalid_argument (what is not printable ASCII).
[[nodiscard]] DEDUP_API Result<std::string> format_key(std::string_view key);

// Tells requests apart that were sent with one key: request_fingerprint of method, target and body
// (see reservations.hpp). Is stored with claims, so it never changes.
[[nodiscard]] DEDUP_API std::string fingerprint(std::string_view method, std::string_view target,
                                                std::string_view body);

using Headers = std::vector<std::pair<std::string, std::string>>;

struct Response {
    int status = 200;  // 100 to 599
    Headers headers = {};
    std::string body = {};

    bool operator==(const Response&) const = default;
};

// The headers that are worth keeping with a response: not those of one connection (RFC 9110,
// section 7.6.1), not Content-Length and Date, which the replay gets anew, and not Set-Cookie,
// which may only ever go to the one who asked first. Names are compared as HTTP does.
[[nodiscard]] DEDUP_API Headers kept_headers(const Headers& headers);

// A response as a receipt. The encoding has a version; docs/format.md has its bytes. Errors:
// invalid_argument (a status out of range, a header name that is no token, a header value with a
// line end or NUL in it, more than kHeadersMax headers, or more than kReceiptBytesMax in all).
[[nodiscard]] DEDUP_API Result<std::string> encode_response(const Response& response);

// The inverse; strict. Errors: corruption (no encoded response; says what is wrong),
// unsupported_version.
[[nodiscard]] DEDUP_API Result<Response> decode_response(std::string_view receipt);

// A problem document: `title` for every such problem, `detail` for this one.
[[nodiscard]] DEDUP_API Response problem(int status, std::string_view title,
                                         std::string_view detail);

// What to answer to a request whose claim came to `outcome`: the claim to work under, with what is
// known of the one before it, or the response to send instead. An error becomes 503 if another try
// may help, else 500; what it says is for the server's log and not in the response. `usual_ms`: how
// long such work mostly takes, from which Retry-After is guessed; 0: not known, it is what is left
// of the lease.
[[nodiscard]] DEDUP_API std::variant<Response, Claimed> answer(const Result<ClaimOutcome>& outcome,
                                                               std::int64_t now_ms,
                                                               std::int64_t usual_ms = 0);

struct Request {
    std::string method = {};
    std::string target = {};                     // path and query, as they were sent
    std::optional<std::string> key_header = {};  // the value of Idempotency-Key, if there is one
    std::string body = {};
    // Whom the server has authenticated, or what else keeps keys apart: any bytes without 1f. Keys
    // of different scopes never meet; in the store a key is the scope, 1f and the client's key.
    // Empty: the client's key alone.
    std::string scope = {};
};

// What a handler is told of its request's claim. For the call only.
struct Attempt {
    Claim claim;
    // Says what the handler is about to do; durable before it returns. See Cache::note. If it
    // fails, the effect should not follow.
    std::function<Result<void>(std::string_view note)> note = {};
    // What is known of the claim before this one; null if there was none.
    const Previous* previous = nullptr;
};

struct ServeOptions {
    std::string owner = {};  // of the claims; such as host and process
    // For how long nobody else may do the work. Should outlast it: whoever takes longer may find
    // that somebody else has done it too, and cannot store his response. With a `heartbeat` the
    // lease is the heartbeat's, and this one has no meaning.
    std::chrono::milliseconds lease = std::chrono::seconds{30};
    // Whether a response is final. A response that is not is sent and not stored, and the key
    // released, so that the client can try again: so it must mean that nothing was done. Empty: all
    // but those that ask for the same request once more, with other credentials or headers, on
    // another connection, or later: 401, 403, 407, 408, 421, 423, 425, 426, 428, 429, and 500 to
    // 599. Must not throw.
    std::function<bool(const Response&)> is_final = {};
    // Gets errors of the store, which the client is not told. Must not throw.
    std::function<void(const Error&)> on_error = {};
    // Of a key whose server died at work: as in CacheOptions. None: the cache's.
    std::optional<Unanswered> unanswered = {};
    // The attempt whose failure, by an exception or a response of 500 to 599 that is not final,
    // holds the key instead of releasing it; and from which on keys are under Unanswered::hold, so
    // that a server that dies at it leaves the key held, too. None: the cache's. 0: never.
    std::optional<std::uint32_t> attempts_max = {};
    // Asked before a key is handled again that nobody answered, or that is held. The receipt of
    // Finding::done is an encoded response. With it keys are under Unanswered::hold, so that what
    // is known of them stays until it has answered.
    Reconcile reconcile = {};
    KeySyntax keys = KeySyntax::quoted;
    // How long a request waits, and its thread with it, for the response to the same one that is
    // being handled, before it gets 409.
    std::chrono::milliseconds wait{0};
    // Gives the lease, and renews it as long as `handle` works, for handlers that may outlast it.
    // Was started on the cache that serve() is given (every request gets 500 otherwise, and
    // on_error is told), and lives longer than the call. Null: the lease runs out.
    Leases* heartbeat = nullptr;
};

// Handles a request whose key decides whether it is handled at all: claims, calls `handle`, stores
// the response (its kept headers) and gives it; or gives what stands above. If `handle` throws, the
// key is released and the exception passed on. **So a handler whose effect may have taken place by
// then must have said so before: with a note, Attempt::note, the key is held instead, and so it is
// when a response of 500 to 599 comes that is not final.** (A note by Cache::note counts, too.)
// Either of them at the attempt ServeOptions::attempts_max holds the key, too. If its response
// cannot be stored because somebody has taken the claim over, the client gets 409 and will get the
// other one's response. If it is no response that can be stored (its status is none, a header has a
// line break, it is longer than a receipt), 500 is stored and given instead, and on_error told: the
// work has been done.
//
// All that use one `cache` share its keys: whoever sends another's key with the same request gets
// the other's response. So give each request the scope of whom the server has authenticated, or
// those who must not see each other's a cache with a namespace of its own. Any thread; blocks as
// long as `handle` and the store do.
[[nodiscard]] DEDUP_API Response serve(StreamStore& store, Cache& cache, const Request& request,
                                       const std::function<Response(const Attempt&)>& handle,
                                       const ServeOptions& options = {});

}  // namespace dedup::http
