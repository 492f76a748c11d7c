// A claim as an object: its lease is renewed while it lives, and its key given back at its end.
//
//     auto outcome = leases->claim("order-17", {.owner = host});
//     if (auto* lease = outcome ? outcome->lease() : nullptr) {
//         lease->note("POST api.bank/payments, reference 8125");
//         lease->complete(pay());  // if pay() throws, the key is held, as there is a note
//     }
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "dedup/cache.hpp"

namespace dedup {

class Heartbeat;
class Lease;
struct LeaseOutcome;

// Claims with one lease, and the thread that renews those that live. Any thread may call it.
class DEDUP_API Leases {
  public:
    // `cache` must outlive it. `lease`: at least 3 ms; renewed every third of it.
    // Errors: invalid_argument, io (no thread).
    [[nodiscard]] static Result<std::unique_ptr<Leases>> start(Cache& cache,
                                                               std::chrono::milliseconds lease);
    ~Leases();  // after all that it gave
    Leases(const Leases&) = delete;
    Leases& operator=(const Leases&) = delete;

    // As Cache::claim; the lease is that of this object.
    [[nodiscard]] Result<LeaseOutcome> claim(std::string_view key, ClaimOptions options = {});

    // Of a claim that was made elsewhere, known by its namespace, key and fence. Renews it at once,
    // so that its lease is that of this object.
    // Errors: those of Cache::renew, such as stale_claim, or invalid_argument if the claim is of
    // another namespace than the cache.
    [[nodiscard]] Result<Lease> keep(const Claim& claim);

  private:
    friend class Lease;
    friend struct LeasesInside;
    Leases(Cache& cache, std::chrono::milliseconds lease);

    Cache& cache_;
    const std::chrono::milliseconds lease_;
    std::unique_ptr<Heartbeat> heartbeat_;
};

// One thread at a time uses it. What ends it ends the renewals, too.
class DEDUP_API Lease {
  public:
    // Unless it has ended, gives the claim back. Holds it if its work may have had its effect: if
    // it was noted since it was claimed, by whomever, or completing it has failed; and at the
    // attempt ClaimOptions::attempts_max. Otherwise releases it. If that fails, the lease runs out
    // by itself. Whether it was noted says Cache::may_have_noted().
    ~Lease();
    Lease(Lease&& other) noexcept;
    Lease& operator=(Lease&& other) noexcept;

    [[nodiscard]] const Claim& claim() const { return claim_; }
    // What is known of the claim before it.
    [[nodiscard]] const std::optional<Previous>& previous() const { return previous_; }

    // As in Cache. The last three end it if they succeed, or get stale_claim or receipt_mismatch;
    // after another error they may be tried again. Ended, they give stale_claim.
    [[nodiscard]] Result<void> note(std::string_view metadata);
    [[nodiscard]] Result<void> complete(std::string_view receipt,
                                        const CompleteOptions& options = {});
    [[nodiscard]] Result<bool> release();
    [[nodiscard]] Result<void> hold(std::string_view reason);

    // Ends it and leaves the claim as it is, for whoever goes on with it.
    Claim leave();

  private:
    friend class Leases;
    Lease(Leases& from, Claimed claimed, std::optional<std::uint32_t> attempts_max);

    void end();      // the renewals
    void give_up();  // what the destructor does
    template <class T>
    Result<T> ended_by(Result<T> result);
    [[nodiscard]] std::unexpected<Error> is_over() const;

    Leases* from_;  // null: it has ended
    Claim claim_;
    std::optional<Previous> previous_;
    bool is_last_;                 // no attempt is to follow this one
    bool may_have_begun_ = false;  // its effect
};

// As a ClaimOutcome, whose Claimed is a Lease here. The lease lives as long as its outcome, or is
// moved out of it.
struct LeaseOutcome : std::variant<InFlight, Lease, Completed, Mismatch, Held> {
    using variant::variant;
    [[nodiscard]] const InFlight* in_flight() const { return std::get_if<InFlight>(this); }
    [[nodiscard]] Lease* lease() { return std::get_if<Lease>(this); }
    [[nodiscard]] const Lease* lease() const { return std::get_if<Lease>(this); }
    [[nodiscard]] const Completed* completed() const { return std::get_if<Completed>(this); }
    [[nodiscard]] const Mismatch* mismatch() const { return std::get_if<Mismatch>(this); }
    [[nodiscard]] const Held* held() const { return std::get_if<Held>(this); }
};

}  // namespace dedup
