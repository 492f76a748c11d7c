// Reservations of tenants: an operation that a request asks for is reserved, carried out once, and
// its outcome is given to every repetition of the request; another request under the same key is a
// conflict.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "dedup/cache.hpp"
#include "dedup/scope.hpp"

namespace dedup {

// A name for what a request asks for: 64 hex digits, the SHA-256 of its parts, each with its
// length, so that no two lists of parts have one name ({"ab", "c"} is not {"a", "bc"}).
[[nodiscard]] DEDUP_API std::string request_fingerprint(std::span<const std::string_view> parts);

// A thing that an operation made or changed, such as {"invoice", "in-17"}.
struct Reference {
    std::string kind;
    std::string id;

    bool operator==(const Reference&) const = default;
};

// Of a note on a reservation; the rest of a record's metadata is kept for when the key was seen.
inline constexpr std::size_t kReservationNoteBytesMax = kMetadataBytesMax - 64;

// The holder's note in the metadata of a record, for programs that read the records themselves:
// empty if it has written none. nullopt if `key` and `metadata` are no reservation's.
[[nodiscard]] DEDUP_API std::optional<std::string> reservation_note(std::string_view key,
                                                                    std::string_view metadata);

// What became of an operation; kReceiptBytesMax in all.
struct Outcome {
    std::string kind;          // such as "charged" or "declined"
    std::int64_t time_ms = 0;  // when it took place; 0: not said
    Reference primary;
    std::optional<Reference> secondary = {};
    std::string details = {};  // a JSON text, kept byte by byte; or empty

    bool operator==(const Outcome&) const = default;
};

struct ReservationRequest {
    Scope scope;
    std::string key;          // the tenant's own
    std::string fingerprint;  // 1 to kLabelBytesMax bytes; see request_fingerprint
    std::string owner = {};
    // As in ClaimOptions.
    std::optional<std::chrono::milliseconds> lease = {};
    std::optional<std::chrono::milliseconds> ttl = {};
    std::optional<std::int64_t> expires_at_ms = {};
    std::string event_id = {};
    std::optional<Unanswered> unanswered = {};
    std::optional<std::uint32_t> attempts_max = {};
};

// A reservation that is its holder's to note, complete, release, renew or hold. Says nothing of its
// scope.
struct Reservation {
    std::string key;
    std::uint64_t fence = 0;
    std::int64_t deadline_ms = 0;  // as in Claim
    std::uint32_t attempt = 1;
};

// What is known of a key.
struct KnownReservation {
    State state = State::in_flight;
    std::string owner;
    std::string fingerprint;
    std::optional<Outcome> outcome;   // if completed
    std::int64_t first_seen_ms = 0;   // of the key, while it is not forgotten
    std::int64_t last_seen_ms = 0;    // see ReservationsOptions
    std::int64_t since_ms = 0;        // in this state
    std::int64_t expires_at_ms = 0;   // 0: never
    std::int64_t lease_until_ms = 0;  // 0: no lease
    std::uint32_t attempt = 1;
    std::uint64_t fence = 0;
    std::string event_id;
    std::string note;  // the last one
    Unanswered unanswered = Unanswered::rerun;
    bool held = false;  // nobody works: it waits for a decision; see Reservations::resolve
    // Requests with other fingerprints that came while it was in flight: how many, and the first
    // kConflictFingerprintsMax distinct ones.
    Conflict conflicts;
};

// What had become of an operation whose reservation nobody answered. As Resolution.
struct ReservationResolution {
    std::optional<Outcome> outcome = {};                // it had been carried out; none: it had not
    std::string reason = {};                            // 1 to kReasonBytesMax bytes
    std::string by = {};                                // who says so
    std::optional<std::chrono::milliseconds> ttl = {};  // of the outcome; as in CompleteOptions
};

struct ReservationsOptions {
    std::string ns = "reservations";
    std::chrono::milliseconds ttl = std::chrono::hours{24};
    // A repetition is noted as last seen if the last note is at least so old; whatever else is
    // written is noted always. 0: each repetition costs an append. With such a note a completed
    // operation is the newest, hence the last to go by Capacity::evict_oldest.
    std::chrono::milliseconds last_seen_step{60'000};
    TransitionObserver observer = {};  // that a key was seen again is no change
    // As in CacheOptions.
    Unanswered unanswered = Unanswered::rerun;
    std::uint32_t attempts_max = 0;
};

// Has no state of its own beyond what it counts; all functions may be called from any thread. Each
// call names the scope that it acts in: take that from whoever was authenticated, never from the
// request.
//
// All of them give unsupported_version if the record was written by a newer version, which then
// stays as it is, and corruption if it is no reservation.
class DEDUP_API Reservations {
  public:
    struct Reserved {
        Reservation reservation;
        std::optional<Previous> previous = {};  // as in Claimed
    };
    // The request was seen before; this is what was known of it then.
    struct Duplicate {
        KnownReservation known;
    };
    // The key is known with another fingerprint. While it is in flight, the request is counted, and
    // noted as last seen; once it is completed, nothing is written.
    struct Conflict {
        KnownReservation known;
    };
    // The request was seen before, nobody answered it, and nobody works: see Unanswered::hold and
    // resolve.
    struct Held {
        KnownReservation known;
        Previous previous;
    };
    struct ReserveOutcome;

    // `store` must outlive this. Bad options show as invalid_argument at the first call.
    explicit Reservations(StreamStore& store, const ReservationsOptions& options = {});

    // Errors: invalid_argument, and those of StreamStore::append.
    [[nodiscard]] Result<ReserveOutcome> reserve(const ReservationRequest& request);

    // Completing again with an equal outcome is a no-op.
    // Errors: stale_claim, receipt_mismatch, invalid_argument (no kind, details that are no JSON,
    // more than kReceiptBytesMax in all; the reservation still holds, complete it with less), those
    // of append.
    [[nodiscard]] Result<void> complete(const Scope& scope, const Reservation& reservation,
                                        const Outcome& outcome);

    // As Cache::release and Cache::renew.
    [[nodiscard]] Result<bool> release(const Scope& scope, const Reservation& reservation);
    [[nodiscard]] Result<Reservation> renew(const Scope& scope, const Reservation& reservation,
                                            std::chrono::milliseconds lease);

    // Writes down what the holder is about to do, in place of its last note: whoever finds the
    // reservation, or comes after it, sees it. Durable before it returns.
    // Errors: stale_claim, invalid_argument (above kReservationNoteBytesMax), and those of append.
    [[nodiscard]] Result<void> note(const Scope& scope, const Reservation& reservation,
                                    std::string_view text);

    // As Cache::hold, Cache::resolve and Cache::forget. `fence` is that of the reservation that was
    // looked at; for forget 0: whichever was completed.
    // Errors: theirs, and of resolve those of complete about its outcome.
    [[nodiscard]] Result<void> hold(const Scope& scope, const Reservation& reservation,
                                    std::string_view reason);
    [[nodiscard]] Result<void> resolve(const Scope& scope, std::string_view key,
                                       std::uint64_t fence,
                                       const ReservationResolution& resolution);
    [[nodiscard]] Result<bool> forget(const Scope& scope, std::string_view key, std::uint64_t fence,
                                      std::string_view reason, std::string_view by = {});

    // nullopt: not reserved, released, or expired. Appends nothing.
    [[nodiscard]] Result<std::optional<KnownReservation>> find(const Scope& scope,
                                                               std::string_view key);

    // Reservations count as claims, and conflicts as mismatches. `find` is not counted.
    [[nodiscard]] CacheMetrics metrics() const { return cache_.metrics(); }

  private:
    StreamStore& store_;
    CacheOptions cache_options_;
    Cache cache_;
    std::chrono::milliseconds last_seen_step_;
};

// One of these; can be asked as a ClaimOutcome can. Duplicate is also what an outcome made by
// default says.
struct Reservations::ReserveOutcome : std::variant<Duplicate, Reserved, Conflict, Held> {
    using variant::variant;
    [[nodiscard]] const Duplicate* duplicate() const { return std::get_if<Duplicate>(this); }
    [[nodiscard]] const Reserved* reserved() const { return std::get_if<Reserved>(this); }
    [[nodiscard]] const Conflict* conflict() const { return std::get_if<Conflict>(this); }
    [[nodiscard]] const Held* held() const { return std::get_if<Held>(this); }
};

}  // namespace dedup
