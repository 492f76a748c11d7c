#include "crash/workload.hpp"

#include <utility>

namespace dedup::test {
namespace {

constexpr std::uint64_t kKeys = 60;
// More than a segment of the smallest size, which nothing else is in.
constexpr std::size_t kBriefClaims = 9;
constexpr std::size_t kBriefBytes = 7'500;
constexpr std::chrono::seconds kBriefTtl{5};

}  // namespace

void Workload::step() {
    switch (steps_++) {
        case 0:
            return fill_segment();
        case kSaidAt:
            return say_all();
        case kOutlivedAt:
            return outlive();
        default:
            return step_at_random();
    }
}

void Workload::fill_segment() {
    std::vector<ClaimRequest> requests(kBriefClaims);
    for (std::size_t i = 0; i < requests.size(); ++i) {
        requests[i].key = "brief-" + std::to_string(i);
        requests[i].options = {.metadata = std::string(kBriefBytes, 'b'), .ttl = kBriefTtl};
    }
    (void)cache_.claim_many(requests);
}

void Workload::say_all() {
    std::vector<ClaimRequest> requests(3);
    for (std::size_t i = 0; i < requests.size(); ++i) {
        requests[i].key = "said-" + std::to_string(i);
    }
    std::vector<Claim> claims;
    for (const auto& outcome : cache_.claim_many(requests)) {
        if (outcome && outcome->claimed() != nullptr) {
            claims.push_back(outcome->claimed()->claim);
        }
    }
    if (claims.size() != requests.size()) {
        return;  // the store has failed
    }
    const Claim& held = claims[0];
    const Claim& resolved = claims[1];
    const Claim& forgotten = claims[2];
    (void)cache_.note(held, "paying");
    (void)cache_.hold(held, "timeout");
    (void)cache_.hold(resolved, "timeout");
    (void)cache_.resolve(resolved.key, resolved.claim_sequence,
                         {.receipt = "found", .reason = "looked", .by = "ada"});
    (void)cache_.complete(forgotten, "paid");
    (void)cache_.forget(forgotten.key, forgotten.claim_sequence, "paid back");
}

void Workload::outlive() {
    clock_.advance(std::chrono::milliseconds(kBriefTtl + store_.grace()).count() + 1);
    (void)store_.sweep({});
}

void Workload::step_at_random() {
    std::uint64_t weights = 0;
    for (const Step& step : kSteps) {
        weights += static_cast<std::uint64_t>(step.weight);
    }
    auto at = static_cast<int>(below(random_, weights));
    for (const Step& step : kSteps) {
        at -= step.weight;
        if (at < 0) {
            (this->*step.run)();
            return;
        }
    }
}

std::string Workload::key() {
    return "key-" + std::to_string(below(random_, kKeys));
}

// Mostly a few bytes; at times enough to fill several sectors, or none at all.
std::string Workload::receipt() {
    const std::uint64_t kind = below(random_, 10);
    const std::uint64_t bytes = kind == 0 ? 0 : below(random_, kind < 5 ? 40 : receipt_bytes_max_);
    std::string text(bytes, '\0');
    for (char& byte : text) {
        byte = static_cast<char>(random_());
    }
    return text;
}

ClaimOptions Workload::options() {
    ClaimOptions options;
    options.owner = "worker-" + std::to_string(below(random_, 3));
    if (brief_ || below(random_, 3) == 0) {
        options.ttl = std::chrono::seconds(1 + below(random_, 20));
    }
    if (below(random_, 3) == 0) {
        options.lease = std::chrono::seconds(1 + below(random_, 10));
    }
    if (below(random_, 4) == 0) {
        options.fingerprint = "request-" + std::to_string(below(random_, 3));
    }
    if (below(random_, 4) == 0) {
        options.metadata = receipt();
    }
    if (below(random_, 6) == 0) {
        options.unanswered = Unanswered::hold;
    }
    return options;
}

Claim Workload::some_claim() {
    if (claims_.empty()) {
        return Claim{"default", key(), 1, 0, 1};
    }
    // The newest ones are likelier to be alive.
    const std::uint64_t back = below(random_, 1 + below(random_, claims_.size()));
    return claims_[claims_.size() - 1 - back];
}

void Workload::keep(const Result<ClaimOutcome>& outcome) {
    if (outcome && std::holds_alternative<Claimed>(*outcome)) {
        claims_.push_back(std::get<Claimed>(*outcome).claim);
    }
}

// Draws one thing a statement, here and below: the order in which arguments are evaluated is each
// compiler's own, and a seed is to mean the same with all.
void Workload::claim() {
    const ClaimOptions how = options();
    keep(cache_.claim(key(), how));
}

void Workload::claim_many() {
    std::vector<ClaimRequest> requests(2 + below(random_, 5));
    for (ClaimRequest& request : requests) {
        request.key = key();
        request.options = options();
    }
    for (const auto& outcome : cache_.claim_many(requests)) {
        keep(outcome);
    }
}

void Workload::complete() {
    // Some receipts are kept for a shorter time than their claim would have been.
    CompleteOptions options;
    if (below(random_, 3) == 0) {
        options.ttl = std::chrono::seconds(1 + below(random_, 5));
    }
    const std::string text = receipt();
    (void)cache_.complete(some_claim(), text, options);
}

void Workload::complete_many() {
    std::vector<Completion> completions(2 + below(random_, 4));
    for (Completion& completion : completions) {
        completion = {some_claim(), receipt(), {}};
    }
    (void)cache_.complete_many(completions);
}

void Workload::release() {
    (void)cache_.release(some_claim());
}

void Workload::renew() {
    const auto lease = std::chrono::seconds(1 + below(random_, 20));
    (void)cache_.renew(some_claim(), lease);
}

void Workload::note() {
    const Claim claim = some_claim();
    (void)cache_.note(claim, receipt());
}

void Workload::hold() {
    (void)cache_.hold(some_claim(), "timeout");
}

void Workload::resolve() {
    const Claim claim = some_claim();
    Resolution resolution{.reason = "looked", .by = "ada"};
    if (below(random_, 2) == 0) {
        resolution.receipt = receipt();
    }
    if (below(random_, 3) == 0) {
        resolution.ttl = std::chrono::seconds(1 + below(random_, 20));
    }
    (void)cache_.resolve(claim.key, claim.claim_sequence, resolution);
}

// Whichever claim was completed, or a certain one.
void Workload::forget() {
    const Claim claim = some_claim();
    const bool any = below(random_, 2) == 0;
    (void)cache_.forget(claim.key, any ? 0 : claim.claim_sequence, "paid back");
}

void Workload::remember() {
    const bool briefly = brief_ || below(random_, 2) == 0;
    const std::chrono::seconds ttl(briefly ? 1 + below(random_, 20) : 100'000);
    const std::string text = receipt();
    (void)cache_.remember(key(), text, {.ttl = ttl});
}

// A consumer's offset and the receipts of what it has consumed, in one step.
void Workload::append_atomically() {
    std::vector<Append> batch;
    for (std::uint64_t i = 0; i < 2 + below(random_, 3); ++i) {
        Record record;
        record.ns = i == 0 ? "offsets" : "events";
        record.key = i == 0 ? "topic" : "event-" + std::to_string(i * 100 + below(random_, 20));
        record.timestamp_ms = store_.now_ms();
        record.receipt = receipt();
        if (brief_ || (i > 0 && below(random_, 4) != 0)) {
            record.expires_at_ms = record.timestamp_ms + 20'000;
        }
        const auto head = store_.head({record.ns, record.key});
        batch.push_back({head && *head ? (*head)->sequence : 0, std::move(record)});
    }
    (void)store_.append(batch, Batch::atomic);
}

void Workload::let_time_pass() {
    const auto hours = below(random_, 6) == 0 ? std::chrono::hours(25) : std::chrono::hours(0);
    clock_.advance(std::chrono::milliseconds(hours).count() +
                   static_cast<std::int64_t>(below(random_, 8000)));
}

void Workload::flush() {
    (void)store_.flush();
}

// Mostly all that there is to do; at times a part of it.
void Workload::sweep() {
    SweepOptions options;
    if (below(random_, 4) == 0) {
        options.records_max = 1 + below(random_, 20);
    }
    if (below(random_, 4) == 0) {
        options.bytes_max = 1;
    }
    (void)store_.sweep(options);
}

}  // namespace dedup::test
