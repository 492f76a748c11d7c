#include "dedup/http.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>

#include "cache/inside.hpp"
#include "cache/reconcile.hpp"
#include "dedup/reservations.hpp"
#include "guard/attempt.hpp"
#include "guard/heartbeat.hpp"
#include "guard/leases_inside.hpp"
#include "http/printable.hpp"
#include "record/check.hpp"
#include "record/invalid.hpp"
#include "record/try.hpp"

namespace dedup::http {
namespace {

std::string quoted_json(std::string_view text) {
    std::string json = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            json += '\\';
        }
        json += is_printable(c) ? std::string(1, c) : "?";
    }
    return json + '"';
}

Response with_retry(Response response, std::int64_t seconds) {
    response.headers.emplace_back("Retry-After", std::to_string(seconds));
    return response;
}

// Whether it is worth trying again: not where the request, or the stored response, is at fault.
bool may_pass(Code code) {
    return code != Code::invalid_argument && code != Code::corruption &&
           code != Code::unsupported_version;
}

Response failed(const Error& error) {
    if (may_pass(error.code)) {
        return with_retry(problem(503, "The request cannot be handled now",
                                  "Nothing is known to have been done; send it again with the "
                                  "same Idempotency-Key."),
                          1);
    }
    return problem(500, "The request cannot be handled", "The server's log says why.");
}

// The request may have been handled.
Response unreadable() {
    return problem(500, "The response that is stored under this Idempotency-Key cannot be read",
                   "The server's log says which key it is, and what its operators can do. Do not "
                   "send the request with another key: it may have been handled.");
}

// What usually remains; of work that takes longer than that, as long again as it has taken. At most
// what is left of the lease, whose end somebody else may go on at.
Response in_flight(const InFlight& claim, std::int64_t now_ms, std::int64_t usual_ms) {
    constexpr std::int64_t kSecondMs = 1000;
    const std::int64_t until_ms =
        claim.lease_until_ms != 0 ? claim.lease_until_ms : now_ms + kSecondMs;
    std::int64_t left_ms = std::max<std::int64_t>(until_ms - now_ms, 1);
    if (usual_ms != 0) {
        const std::int64_t gone_ms = std::max<std::int64_t>(now_ms - claim.since_ms, 1);
        left_ms = std::min(left_ms, usual_ms > gone_ms ? usual_ms - gone_ms : gone_ms);
    }
    return with_retry(problem(409, "A request with this Idempotency-Key is being handled",
                              "Send it again later to get its response."),
                      (left_ms - 1) / kSecondMs + 1);
}

// A key must not be bound to a response that says "not you" or "not now": the request that would
// get another one is the same in all that the fingerprint knows. A status that is none says nothing
// of the kind, so the work counts as done.
bool is_final_by_default(const Response& response) {
    static constexpr std::array kAskAgain{401, 403, 407, 408, 421, 423, 425, 426, 428, 429};
    return (response.status < 500 || response.status > 599) &&
           std::ranges::find(kAskAgain, response.status) == kAskAgain.end();
}

ClaimOptions claim_options(const Request& request, const ServeOptions& options) {
    ClaimOptions claim;
    claim.owner = options.owner;
    claim.fingerprint = fingerprint(request.method, request.target, request.body);
    claim.lease =
        options.heartbeat != nullptr ? LeasesInside::lease(*options.heartbeat) : options.lease;
    claim.unanswered = options.reconcile ? Unanswered::hold : options.unanswered;
    claim.attempts_max = options.attempts_max;
    return claim;
}

// One request on its way through serve().
class Serving {
  public:
    Serving(Cache& cache, const Request& request, const ServeOptions& options)
        : cache_(cache), options_(options), claim_options_(claim_options(request, options)) {}

    // Of the options; the request is refused with it before anything is claimed.
    [[nodiscard]] Result<void> check() const {
        if (options_.heartbeat != nullptr && &LeasesInside::cache(*options_.heartbeat) != &cache_) {
            return invalid(
                "ServeOptions::heartbeat renews the claims of another cache than the one that "
                "serve() is given; start it on that one");
        }
        return {};
    }

    Result<ClaimOutcome> claim(std::string_view key) const {
        auto outcome = cache_.claim(key, claim_options_);
        if (!outcome) {
            tell(outcome.error());
        }
        return outcome;
    }

    Response handle(const Claimed& claimed, const std::function<Response(const Attempt&)>& handle) {
        const Claim& claim = claimed.claim;
        Response response;
        try {
            std::optional<Beating> beating;
            if (options_.heartbeat != nullptr) {
                beating.emplace(LeasesInside::heartbeat(*options_.heartbeat)).add(claim);
            }
            response = handle({.claim = claim,
                               .note = [&](std::string_view text) { return note(claim, text); },
                               .previous = claimed.previous ? &*claimed.previous : nullptr});
        } catch (...) {
            give_up(claim, true, what_was_thrown());
            throw;
        }
        const bool final =
            options_.is_final ? options_.is_final(response) : is_final_by_default(response);
        if (!final) {
            give_up(claim, response.status >= 500,
                    fmt::format("the handler's response was {}", response.status));
            return response;
        }
        Response stored = response;
        stored.headers = kept_headers(response.headers);
        auto receipt = encode_response(stored);
        if (!receipt) {
            // The work is done. With the key released, a repetition would do it again.
            tell(receipt.error());
            response = problem(500, "The request was handled, but its response cannot be given",
                               "The server's log says why.");
            receipt = encode_response(response);
        }
        if (!receipt) {
            return not_stored(receipt.error());
        }
        if (const auto done = cache_.complete(claim, *receipt); !done) {
            if (!decided_by_others(done.error().code)) {
                hold_if_noted(claim, "completing it failed: " + done.error().message);
            }
            return not_stored(done.error());
        }
        return response;
    }

    void tell(const Error& error) const {
        if (options_.on_error) {
            options_.on_error(error);
        }
    }

    // A receipt that something else has stored under the key, and that is no response.
    void tell_of_receipt(std::string_view key, const Result<ClaimOutcome>& outcome) const {
        const auto* completed = outcome ? std::get_if<Completed>(&*outcome) : nullptr;
        if (completed == nullptr || !options_.on_error) {
            return;
        }
        auto response = decode_response(completed->receipt);
        if (response) {
            return;
        }
        Error error = std::move(response).error();
        if (error.code == Code::corruption) {
            const std::string& ns = CacheInside::options(cache_).ns;
            error.message = fmt::format(
                "key {0} in namespace {1}: the receipt of claim {2} is no response, so http::serve "
                "has not stored it, and requests get 500 until it expires: {3}; find out whether "
                "the work was done, and give the key a response, as docs/after-a-crash.md says of "
                "receipts by layer; or, if it was not done, `dedupctl -n {1} forget KEY --claim "
                "{2} --reason WHY` lets the next request be handled",
                quoted_bytes(key), ns, completed->claim_sequence, error.message);
        }
        tell(error);
    }

    // What is to be answered to a key that nobody answered before; nullopt if its handling may go
    // on. `claim` is that of this request, or null if the key is held.
    std::optional<Response> reconcile(std::string_view key, const Previous& previous,
                                      const Claim* claim) const {
        Finding finding = ask(options_.reconcile, key, previous);
        if (finding.what == Finding::What::done) {
            if (const auto response = decode_response(finding.text); !response) {
                tell(response.error());
                finding = Finding::unknown("what was found to have been done is no response");
            }
        }
        if (finding.what == Finding::What::unknown) {
            if (claim != nullptr) {
                tell_of(cache_.hold(*claim, finding.text));
            }
            return as_response(Held{previous});
        }
        if (claim == nullptr && finding.what == Finding::What::not_done &&
            was_last(previous.attempt)) {
            return as_response(Held{previous});
        }
        if (claim != nullptr && finding.what == Finding::What::not_done) {
            // Asking may have taken longer than the lease.
            const auto renewed = cache_.renew(*claim, *claim_options_.lease);
            return renewed ? std::nullopt : std::optional(not_stored(renewed.error()));
        }
        const auto settled = claim != nullptr
                                 ? cache_.complete(*claim, finding.text)
                                 : cache_.resolve(key, previous.claim_sequence,
                                                  resolution_of(finding, options_.owner));
        if (!settled) {
            return claim == nullptr && decided_by_others(settled.error().code)
                       ? std::nullopt
                       : std::optional(not_stored(settled.error()));
        }
        if (finding.what == Finding::What::not_done) {
            return std::nullopt;
        }
        Completed completed;
        completed.receipt = std::move(finding.text);
        return as_response(std::move(completed));
    }

  private:
    Result<void> note(const Claim& claim, std::string_view text) {
        auto noted = cache_.note(claim, text);
        noted_ = noted_ || noted || noted.error().code == Code::outcome_unknown;
        return noted;
    }

    // Whether the effect may have begun.
    [[nodiscard]] bool may_have_begun(const Claim& claim) const {
        return noted_ || cache_.may_have_noted(claim).value_or(true);
    }

    // Releases the key, unless its handling has failed and the effect may have begun, or that was
    // the last attempt.
    void give_up(const Claim& claim, bool has_failed, const std::string& reason) const {
        if (has_failed && (was_last(claim.attempt) || may_have_begun(claim))) {
            tell_of(cache_.hold(claim, reason));
        } else {
            tell_of(cache_.release(claim));
        }
    }

    // Somebody may be able to say by the note what became of work whose completion is not stored.
    void hold_if_noted(const Claim& claim, const std::string& reason) const {
        if (may_have_begun(claim)) {
            tell_of(cache_.hold(claim, kept_reason(reason)));
        }
    }

    // Whether what fails at this attempt is not to be tried again.
    [[nodiscard]] bool was_last(std::uint32_t attempt) const {
        return is_last(attempt,
                       options_.attempts_max.value_or(CacheInside::options(cache_).attempts_max));
    }

    static Response as_response(ClaimOutcome outcome) {
        return std::get<Response>(answer(std::move(outcome), 0));
    }

    template <class T>
    void tell_of(const Result<T>& result) const {
        if (!result) {
            tell(result.error());
        }
    }

    Response not_stored(const Error& error) const {
        tell(error);
        if (error.code == Code::stale_claim) {
            return with_retry(problem(409, "The request took longer than its lease",
                                      "Another one with this Idempotency-Key has replaced it; "
                                      "send it again to get that one's response."),
                              1);
        }
        return with_retry(problem(503, "The request was handled, but its response is not stored",
                                  "Send it again with the same Idempotency-Key: it is not handled "
                                  "again while the first one's lease lasts."),
                          1);
    }

    Cache& cache_;
    const ServeOptions& options_;
    const ClaimOptions claim_options_;
    // Of the request's claim, once there is one:
    bool noted_ = false;  // by its handler
};

// The claim that nobody answered, if it is held, or if this request has taken it over from a server
// with another policy; and in that case this request's claim.
std::pair<const Previous*, const Claim*> unanswered_in(const Result<ClaimOutcome>& outcome) {
    if (!outcome) {
        return {};
    }
    if (const auto* held = std::get_if<Held>(&*outcome)) {
        return {&held->previous, nullptr};
    }
    const auto* claimed = std::get_if<Claimed>(&*outcome);
    if (claimed == nullptr || !claimed->previous || !was_unanswered(*claimed->previous)) {
        return {};
    }
    return {&*claimed->previous, &claimed->claim};
}

// The request's key in the store.
Result<std::string> stored_key(const Request& request, KeySyntax syntax) {
    constexpr char kScopeEnd = '\x1f';  // is in no client's key
    std::string key = DEDUP_TRY(parse_key(*request.key_header, syntax));
    if (request.scope.empty()) {
        return key;
    }
    if (request.scope.size() + 1 + key.size() > kKeyBytesMax) {
        return invalid(fmt::format(
            "Idempotency-Key has {} characters; {} are allowed here", key.size(),
            request.scope.size() + 1 < kKeyBytesMax ? kKeyBytesMax - request.scope.size() - 1 : 0));
    }
    return request.scope + kScopeEnd + key;
}

// How long most of the work takes that this cache has seen completed; 0: it has seen too little.
std::int64_t usual_work_ms(const Cache& cache) {
    constexpr std::uint64_t kEnough = 8;
    constexpr double kMost = 0.75;
    const Histogram work = cache.metrics().work_ms;
    return work.count() < kEnough ? 0 : static_cast<std::int64_t>(work.quantile(kMost)) + 1;
}

bool is_at_work(const Result<ClaimOutcome>& outcome) {
    const auto* claim = outcome ? std::get_if<InFlight>(&*outcome) : nullptr;
    return claim != nullptr && !claim->held;
}

}  // namespace

std::string fingerprint(std::string_view method, std::string_view target, std::string_view body) {
    const std::array parts{method, target, body};
    return request_fingerprint(parts);
}

Response problem(int status, std::string_view title, std::string_view detail) {
    return {.status = status,
            .headers = {{"Content-Type", "application/problem+json"}},
            .body = fmt::format("{{\"type\":\"about:blank\",\"title\":{},\"status\":{},"
                                "\"detail\":{}}}",
                                quoted_json(title), status, quoted_json(detail))};
}

std::variant<Response, Claimed> answer(const Result<ClaimOutcome>& outcome, std::int64_t now_ms,
                                       std::int64_t usual_ms) {
    if (!outcome) {
        return failed(outcome.error());
    }
    if (const auto* claimed = std::get_if<Claimed>(&*outcome)) {
        return *claimed;
    }
    if (const auto* claim = std::get_if<InFlight>(&*outcome)) {
        return in_flight(*claim, now_ms, usual_ms);
    }
    if (const auto* completed = std::get_if<Completed>(&*outcome)) {
        auto response = decode_response(completed->receipt);
        if (!response) {
            return unreadable();
        }
        response->headers.emplace_back(kReplayedHeader, "true");
        return *std::move(response);
    }
    if (std::holds_alternative<Held>(*outcome)) {
        return problem(409, "Nobody knows what became of a request with this Idempotency-Key",
                       "It may have been handled. It is looked into; do not send it with another "
                       "key.");
    }
    return problem(422, "The Idempotency-Key was used for another request",
                   "A key belongs to one request; use a new one for another.");
}

Response serve(StreamStore& store, Cache& cache, const Request& request,
               const std::function<Response(const Attempt&)>& handle, const ServeOptions& options) {
    if (!request.key_header) {
        return problem(400, "Idempotency-Key is missing",
                       "This operation needs an Idempotency-Key header.");
    }
    const auto key = stored_key(request, options.keys);
    if (!key) {
        return problem(400, "Idempotency-Key is malformed", key.error().message);
    }
    Serving serving(cache, request, options);
    if (const auto checked = serving.check(); !checked) {
        serving.tell(checked.error());
        return failed(checked.error());
    }
    const auto wait_until = std::chrono::steady_clock::now() + options.wait;
    while (true) {
        const auto outcome = serving.claim(*key);
        if (const auto left = std::chrono::ceil<std::chrono::milliseconds>(
                wait_until - std::chrono::steady_clock::now());
            is_at_work(outcome) && left.count() > 0 && cache.wait(*key, left)) {
            continue;
        }
        const auto [previous, claim] = unanswered_in(outcome);
        if (options.reconcile && previous != nullptr) {
            if (auto response = serving.reconcile(*key, *previous, claim)) {
                return *std::move(response);
            }
            if (claim == nullptr) {
                continue;  // it is decided: what does the key say now?
            }
        }
        auto decided =
            answer(outcome, store.now_ms(), is_at_work(outcome) ? usual_work_ms(cache) : 0);
        if (auto* response = std::get_if<Response>(&decided)) {
            serving.tell_of_receipt(*key, outcome);
            return std::move(*response);
        }
        return serving.handle(std::get<Claimed>(decided), handle);
    }
}

}  // namespace dedup::http
