#include "dedup/lease.hpp"

#include <fmt/format.h>

#include <new>
#include <system_error>
#include <utility>

#include "cache/inside.hpp"
#include "guard/attempt.hpp"
#include "guard/heartbeat.hpp"
#include "record/check.hpp"
#include "record/invalid.hpp"
#include "record/try.hpp"

namespace dedup {

Leases::Leases(Cache& cache, std::chrono::milliseconds lease) : cache_(cache), lease_(lease) {}

Leases::~Leases() = default;

Result<std::unique_ptr<Leases>> Leases::start(Cache& cache, std::chrono::milliseconds lease) {
    DEDUP_TRY(check_lease(lease));
    std::unique_ptr<Leases> leases(new Leases(cache, lease));
    leases->heartbeat_ = DEDUP_TRY(Heartbeat::start(cache, lease));
    return leases;
}

Result<LeaseOutcome> Leases::claim(std::string_view key, ClaimOptions options) {
    options.lease = lease_;
    auto outcome = DEDUP_TRY(cache_.claim(key, options));
    return std::visit(
        [&](auto&& found) -> LeaseOutcome {
            if constexpr (std::is_same_v<std::decay_t<decltype(found)>, Claimed>) {
                return Lease(*this, std::forward<decltype(found)>(found), options.attempts_max);
            } else {
                return std::forward<decltype(found)>(found);
            }
        },
        std::move(outcome));
}

Result<Lease> Leases::keep(const Claim& claim) {
    Claim renewed = DEDUP_TRY(cache_.renew(claim, lease_));
    return Lease(*this, {.claim = std::move(renewed)}, {});
}

Lease::Lease(Leases& from, Claimed claimed, std::optional<std::uint32_t> attempts_max)
    : from_(&from),
      claim_(std::move(claimed.claim)),
      previous_(std::move(claimed.previous)),
      is_last_(is_last(claim_.attempt,
                       attempts_max.value_or(CacheInside::options(from.cache_).attempts_max))) {
    from_->heartbeat_->add({&claim_, 1});
}

Lease::~Lease() {
    give_up();
}

Lease::Lease(Lease&& other) noexcept
    : from_(std::exchange(other.from_, nullptr)),
      claim_(std::move(other.claim_)),
      previous_(std::move(other.previous_)),
      is_last_(other.is_last_),
      may_have_begun_(other.may_have_begun_) {}

Lease& Lease::operator=(Lease&& other) noexcept {
    if (this != &other) {
        give_up();
        from_ = std::exchange(other.from_, nullptr);
        claim_ = std::move(other.claim_);
        previous_ = std::move(other.previous_);
        is_last_ = other.is_last_;
        may_have_begun_ = other.may_have_begun_;
    }
    return *this;
}

Result<void> Lease::note(std::string_view metadata) {
    if (from_ == nullptr) {
        return is_over();
    }
    auto noted = from_->cache_.note(claim_, metadata);
    may_have_begun_ = may_have_begun_ || noted || noted.error().code == Code::outcome_unknown;
    return noted;
}

Result<void> Lease::complete(std::string_view receipt, const CompleteOptions& options) {
    if (from_ == nullptr) {
        return is_over();
    }
    may_have_begun_ = true;
    return ended_by(from_->cache_.complete(claim_, receipt, options));
}

Result<bool> Lease::release() {
    if (from_ == nullptr) {
        return is_over();
    }
    return ended_by(from_->cache_.release(claim_));
}

Result<void> Lease::hold(std::string_view reason) {
    if (from_ == nullptr) {
        return is_over();
    }
    return ended_by(from_->cache_.hold(claim_, reason));
}

Claim Lease::leave() {
    end();
    return claim_;
}

void Lease::end() {
    if (from_ != nullptr) {
        std::exchange(from_, nullptr)->heartbeat_->remove({&claim_.claim_sequence, 1});
    }
}

void Lease::give_up() {
    if (from_ == nullptr) {
        return;
    }
    try {
        if (may_have_begun_ || from_->cache_.may_have_noted(claim_).value_or(true)) {
            (void)hold("its holder left it without an answer, after a note or a failed completion");
        } else if (is_last_) {
            (void)hold("its holder left it without an answer, at its last attempt");
        } else {
            (void)release();
        }
    } catch (const std::bad_alloc&) {
        // The lease runs out by itself.
    }
    end();
}

template <class T>
Result<T> Lease::ended_by(Result<T> result) {
    if (result || result.error().code == Code::stale_claim ||
        result.error().code == Code::receipt_mismatch) {
        end();
    }
    return result;
}

std::unexpected<Error> Lease::is_over() const {
    return std::unexpected(
        Error{.code = Code::stale_claim,
              .message = fmt::format("claim {} on key {}: this lease has ended already",
                                     claim_.claim_sequence, quoted_bytes(claim_.key))});
}

}  // namespace dedup
