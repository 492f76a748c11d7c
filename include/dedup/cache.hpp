// The claim protocol: has this idempotency key been handled?
//
//     absent, expired or released --claim--> in flight --complete(receipt)--> completed
//                                             |  ^  \--release--> released
//                                    renew -->|  |--claim after the lease ran out (takeover),
//                                                   or, under Unanswered::hold: Held, until
//                                                   resolve()
//
// A Cache decides from a stream's head and appends with that head as the expected sequence; it has
// no state of its own beyond its options and what it counts. All functions may be called from any
// thread, and on one key from several processes' worth of callers: exactly one of them wins.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "dedup/metrics.hpp"
#include "dedup/store.hpp"

namespace dedup {

// A time to live of kForever: the key never expires.
inline constexpr std::chrono::milliseconds kForever = std::chrono::milliseconds::max();

// How a call has changed its key. What expires is changed by nobody: it is in a sweep's report.
enum class Change : std::uint8_t {
    claimed = 1,     // nobody held the key
    taken_over = 2,  // claimed from a holder whose lease or time had run out unanswered
    completed = 3,
    remembered = 4,  // claimed and completed in one append
    released = 5,
    renewed = 6,     // the lease runs longer, under the same fence
    noted = 7,       // what its holder wrote down of a claim
    held = 8,        // waits for a decision, as its holder cannot say what became of the work
    resolved = 9,    // a decision completed or released it
    forgotten = 10,  // a completed key is claimable again
    committed = 11   // a pipeline's position was moved; see Offsets
};

// "claimed", "taken_over" and so on, as written above; "unknown" for any other value.
[[nodiscard]] DEDUP_API std::string_view name(Change change);

// Not copyable, as the record is there for the call only: what is to be kept is copied from it.
struct Transition {
    Transition(Change made, const Record& appended) : change(made), record(appended) {}
    Transition(const Transition&) = delete;
    Transition& operator=(const Transition&) = delete;

    Change change;
    const Record& record;  // as it was appended, with its sequences
};

// Gets every change that a cache has made: when it is durable as the store's options say, before
// the call that made it returns, on that call's thread; those of a span in the span's order. Calls
// from several threads come side by side, and changes of one key by several threads in any order;
// their sequences say which was first. If the process dies meanwhile a change may be durable and
// not observed: the log is the truth, this is for logs, traces and tests.
// Must not throw. Holds up its own call only. No lock is held, so it may use the store and the
// cache; what it changes through the cache is observed in turn.
using TransitionObserver = std::function<void(const Transition&)>;

// What becomes of a key whose claim nobody answered before its lease ran out. Nobody can know then
// whether the work was done. Is stored with the claim.
enum class Unanswered : std::uint8_t {
    rerun = 0,  // the next claim takes it over and works again
    // It waits for a decision: later claims get Held, and it is never taken over, swept or evicted.
    // Such a claim does not expire; its ttl is that of the receipt, from the completion on, and so
    // is the time from the claim to an absolute expiry. Without a lease it is in flight, and not
    // held, until it is answered: nothing says that its holder is gone.
    hold = 1,
};

struct CacheOptions {
    std::string ns = "default";
    std::chrono::milliseconds ttl = std::chrono::hours{24};  // at least 1 ms, or kForever
    TransitionObserver observer = {};
    Unanswered unanswered = Unanswered::rerun;
    // A claim with this attempt number or a higher one is under Unanswered::hold. 0: never.
    std::uint32_t attempts_max = 0;
};

// What a successful claim gives. Copyable; its holder may complete, renew or release the claim
// until another caller's claim, a release or the expiry makes it stale.
struct Claim {
    std::string ns;
    std::string key;
    std::uint64_t claim_sequence = 0;  // the fence
    std::int64_t deadline_ms = 0;      // when it may be lost: end of lease, or expiry; 0: never
    std::uint32_t attempt = 1;
    std::int64_t since_ms =
        0;  // when it was claimed; 0: not known, as it was made from key and fence
};

struct Absent {};

// How a claim came to its end, or why it waits.
enum class End : std::uint8_t {
    lease_ran_out = 1,  // unanswered
    expired = 2,        // unanswered, and without a lease
    released = 3,       // by its holder, or by release_current
    resolved = 4,       // somebody said that the work had not been done
    forgotten = 5,      // it was completed, and somebody took that back
    held = 6,           // its holder could not say what became of the work
    restarted = 7,      // unanswered: its owner came again; see ClaimOptions::reclaim_before_ms
};

// "lease_ran_out" and so on, as written above; "unknown" for any other value.
[[nodiscard]] DEDUP_API std::string_view name(End end);

// The claim before this one, and what is known of it.
struct Previous {
    std::string owner;
    std::int64_t began_ms = 0;  // 0: not known, as of what was forgotten
    std::int64_t ended_ms = 0;
    std::uint32_t attempt = 1;
    std::string note;  // the last one, or the metadata that it was claimed with
    std::string event_id;
    std::uint64_t claim_sequence = 0;
    End end = End::lease_ran_out;
    std::string reason;  // of whoever held, resolved or forgot it
    std::string by;      // who that was
};

struct Claimed {
    Claim claim;
    // None if the key was not known, or had been completed and expired.
    std::optional<Previous> previous = {};
    // What the claim begins with: its own, or what the one before had noted; see Cache::claim.
    std::string metadata = {};
};

// Nobody answered the last claim, and nobody works: see Unanswered::hold and Cache::resolve.
struct Held {
    Previous previous;
};

struct Completed {
    std::string receipt;
    std::int64_t completed_at_ms = 0;
    std::uint64_t claim_sequence = 0;
    std::string event_id;  // the original one
    std::string metadata;
    std::uint32_t attempt = 1;
    std::int64_t expires_at_ms = 0;  // 0: never
};

struct InFlight {
    std::string owner;
    std::int64_t since_ms = 0;
    std::int64_t lease_until_ms = 0;  // 0: no lease; it holds until expires_at_ms
    std::int64_t expires_at_ms = 0;   // 0: never
    std::uint64_t claim_sequence = 0;
    std::uint32_t attempt = 1;
    std::string event_id;
    std::string metadata;  // the last note, or what it was claimed with
    Unanswered unanswered = Unanswered::rerun;
    bool held = false;  // nobody works: it waits for a decision
};

// The key is known with another request fingerprint. While the key is in flight, the request is
// counted in the stream's conflict record, and nothing else about the key changes. Once it is
// completed, the answer costs no append, like a duplicate's: nothing is written, and the completion
// stays as old as it is (see Capacity::evict_oldest).
struct Mismatch {
    std::string fingerprint;  // the one that the key is known with
    State state = State::in_flight;
    std::int64_t since_ms = 0;
    // How many such requests came while the key was in flight, this one included if it did.
    std::uint64_t conflicts = 0;
};

struct New {
    std::uint64_t claim_sequence = 0;
    std::optional<Previous> previous = {};  // as in Claimed
};

// What a call came to: one of these. Each can be asked for, which gives null if it is another one:
//
//     if (const auto* claimed = outcome->claimed()) {
//
// or all are told apart by std::visit. One that was made by default says InFlight, upon which
// nobody works.
struct ClaimOutcome : std::variant<InFlight, Claimed, Completed, Mismatch, Held> {
    using variant::variant;
    [[nodiscard]] const InFlight* in_flight() const { return std::get_if<InFlight>(this); }
    [[nodiscard]] const Claimed* claimed() const { return std::get_if<Claimed>(this); }
    [[nodiscard]] const Completed* completed() const { return std::get_if<Completed>(this); }
    [[nodiscard]] const Mismatch* mismatch() const { return std::get_if<Mismatch>(this); }
    [[nodiscard]] const Held* held() const { return std::get_if<Held>(this); }
};

struct LookupOutcome : std::variant<InFlight, Absent, Completed> {
    using variant::variant;
    [[nodiscard]] const InFlight* in_flight() const { return std::get_if<InFlight>(this); }
    [[nodiscard]] bool absent() const { return std::holds_alternative<Absent>(*this); }
    [[nodiscard]] const Completed* completed() const { return std::get_if<Completed>(this); }
};

struct RememberOutcome : std::variant<InFlight, New, Completed, Mismatch, Held> {
    using variant::variant;
    [[nodiscard]] const InFlight* in_flight() const { return std::get_if<InFlight>(this); }
    [[nodiscard]] const New* is_new() const { return std::get_if<New>(this); }
    [[nodiscard]] const Completed* completed() const { return std::get_if<Completed>(this); }
    [[nodiscard]] const Mismatch* mismatch() const { return std::get_if<Mismatch>(this); }
    [[nodiscard]] const Held* held() const { return std::get_if<Held>(this); }
};

struct ClaimOptions {
    std::string owner = {};
    std::string fingerprint = {};  // empty: not compared
    std::string event_id = {};
    std::string metadata = {};
    std::optional<std::chrono::milliseconds> lease =
        {};                                             // at least 1 ms; none: holds until the ttl
    std::optional<std::chrono::milliseconds> ttl = {};  // none: the cache's
    std::optional<std::int64_t> expires_at_ms = {};  // an absolute expiry instead of a ttl; later
                                                     // than now
    std::optional<Unanswered> unanswered = {};       // none: the cache's
    std::optional<std::uint32_t> attempts_max = {};  // none: the cache's
    // Claims of this `owner` from before this time count as if their lease had run out: for a
    // process that starts again under its own name, with the store's time when it started. No
    // other process that lives may have the name. 0: none do.
    std::int64_t reclaim_before_ms = 0;
};

// Requests own what they name, so that a list of them may be filled from temporaries.
struct ClaimRequest {
    std::string key;
    ClaimOptions options;
};

struct CompleteOptions {
    std::optional<std::chrono::milliseconds> ttl = {};  // none: what the claim asked for
    std::optional<std::string> metadata = {};           // none: the claim's stays
};

struct Completion {
    Claim claim;
    std::string receipt;
    CompleteOptions options;
};

// What the holder of a claim writes down.
struct Note {
    Claim claim;
    std::string metadata;
};

// What had become of a claim that nobody answered.
struct Resolution {
    std::optional<std::string> receipt = {};            // the work had been done; none: it had not
    std::string reason = {};                            // 1 to kReasonBytesMax bytes
    std::string by = {};                                // who says so
    std::optional<std::chrono::milliseconds> ttl = {};  // of the receipt; as in CompleteOptions
};

struct RememberRequest {
    std::string key;
    std::string receipt;
    ClaimOptions options;  // a lease has no meaning here and is refused
};

struct CompleteOp;

class DEDUP_API Cache {
  public:
    // `store` must outlive the cache. Bad options show as invalid_argument at the first call.
    explicit Cache(StreamStore& store, CacheOptions options = {});
    ~Cache();
    Cache(const Cache&) = delete;
    Cache& operator=(const Cache&) = delete;

    // Claims `key` if nobody holds it. A duplicate costs no append. A claim in flight whose lease
    // has run out, or that has expired and was not swept yet, is taken over: nobody knows what
    // became of its work. The new claim has the next attempt number, the old one is stale, and
    // Claimed::previous says what is known of it. Under Unanswered::hold the answer is Held.
    // A claim without metadata of its own has that of the one before, taken over or released, so
    // that a note is there until another takes its place, or resolve() or forget() answers it.
    // Errors: invalid_argument, and those of StreamStore::append.
    [[nodiscard]] Result<ClaimOutcome> claim(std::string_view key,
                                             const ClaimOptions& options = {});

    // As claim, for a whole span at the cost of one flush. Of two equal keys the first wins and the
    // second gets what a duplicate gets. The same holds for the other _many calls. What Mismatch
    // counts of keys that the span itself has claimed costs one more flush, however many they are.
    [[nodiscard]] std::vector<Result<ClaimOutcome>> claim_many(
        std::span<const ClaimRequest> requests);

    // Stores the receipt that every later claim of the key will get. Completing a claim again with
    // equal bytes is a no-op.
    // Errors: stale_claim, receipt_mismatch, invalid_argument (such as a receipt above
    // kReceiptBytesMax; the claim still holds, complete it with less), and those of append.
    [[nodiscard]] Result<void> complete(const Claim& claim, std::string_view receipt,
                                        const CompleteOptions& options = {});
    [[nodiscard]] std::vector<Result<void>> complete_many(std::span<const Completion> completions);

    // Completes whatever claim is current, for callers that have no handle. Nothing keeps a caller
    // whose claim was taken over from answering for its successor: use complete() where there is a
    // claim. Whoever answers for a held key has to name the claim.
    // Errors: not_claimed, stale_claim (the key is held: see resolve), and those of complete().
    [[nodiscard]] Result<void> complete_current(std::string_view key, std::string_view receipt,
                                                const CompleteOptions& options = {});

    // Gives the claim up so that somebody can try again. True if this call released it, false if
    // there was nothing to release: the key is absent, released or completed.
    // Errors: stale_claim if somebody else holds the key now, or if the claim is newer than all
    // that the store knows of the key (it was put back from a copy), and those of append.
    [[nodiscard]] Result<bool> release(const Claim& claim);

    [[nodiscard]] std::vector<Result<bool>> release_many(std::span<const Claim> claims);

    // Releases whatever claim is current; see complete_current().
    // Errors: stale_claim (the key is held: see resolve), and those of append.
    [[nodiscard]] Result<bool> release_current(std::string_view key);

    // Lets the lease run until `lease` from now and keeps the fence; gives the claim with its new
    // deadline. A claim without a lease gets one. Works after the lease ran out as long as nobody
    // has taken the claim over.
    // Errors: stale_claim, invalid_argument, and those of append.
    [[nodiscard]] Result<Claim> renew(const Claim& claim, std::chrono::milliseconds lease);
    [[nodiscard]] std::vector<Result<Claim>> renew_many(std::span<const Claim> claims,
                                                        std::chrono::milliseconds lease);

    // Claims and completes in one append, for work that is done by recording it.
    [[nodiscard]] Result<RememberOutcome> remember(std::string_view key, std::string_view receipt,
                                                   const ClaimOptions& options = {});
    [[nodiscard]] std::vector<Result<RememberOutcome>> remember_many(
        std::span<const RememberRequest> requests);

    // Writes down what the holder is about to do, in place of the claim's metadata: whoever finds
    // the claim, or comes after it, sees it. Durable before it returns, with Durability::async,
    // too, so that the effect may follow. Neither renews the lease nor changes anything else.
    // Errors: stale_claim (also once the key is held, as somebody may be deciding by the note that
    // was there), invalid_argument (above kMetadataBytesMax), and those of append.
    [[nodiscard]] Result<void> note(const Claim& claim, std::string_view metadata);
    [[nodiscard]] std::vector<Result<void>> note_many(std::span<const Note> notes);

    // For whoever gives a claim up, and must not free the key if its work may have begun: whether
    // the holder may have noted something since it claimed the key, were it the words that the
    // claim began with. Read from the key's history; where that does not reach back to the claim
    // without a gap, as in PostgreSQL, after sweeps, or beyond 256 renewals, any note that stands
    // counts. False if the key is not in flight under this claim any more.
    // Errors: invalid_argument (a claim of another namespace), and those of a read.
    [[nodiscard]] Result<bool> may_have_noted(const Claim& claim);

    // For a holder who cannot say whether its work was done: nobody works on the key until it is
    // resolved, whatever its policy was. It may still be completed or released under its claim.
    // Durable before it returns, as are resolve() and forget().
    // Errors: stale_claim, invalid_argument (`reason` above kReasonBytesMax), and those of append.
    [[nodiscard]] Result<void> hold(const Claim& claim, std::string_view reason);

    // Answers for a claim whose holder did not: held, or in flight with a lease that has run out,
    // or without a lease. `claim_sequence` is the one that was looked at: whoever decides about
    // another one changes nothing. Deciding the same again is a no-op. What is said is kept in the
    // key's record; a claim that was resolved as not done is the next one's `previous`.
    // Errors: busy (its lease still runs), stale_claim, receipt_mismatch (the key is completed),
    // invalid_argument, and those of append.
    [[nodiscard]] Result<void> resolve(std::string_view key, std::uint64_t claim_sequence,
                                       const Resolution& resolution);

    // Makes a completed key claimable again; nothing else does. The receipt stays in the stream's
    // history until it is swept; a store without history, as PostgreSQL's, keeps who and
    // why until the next claim. False if the key is not completed. `claim_sequence` 0: whichever
    // claim was completed. `reason` as in Resolution.
    // Errors: stale_claim (another claim was completed), invalid_argument, and those of append.
    [[nodiscard]] Result<bool> forget(std::string_view key, std::uint64_t claim_sequence,
                                      std::string_view reason, std::string_view by = {});

    // What is known of the key. Appends nothing and refreshes nothing.
    [[nodiscard]] Result<LookupOutcome> lookup(std::string_view key);
    // The keys need to live for the call only.
    [[nodiscard]] std::vector<Result<LookupOutcome>> lookup_many(
        std::span<const std::string_view> keys);

    // Blocks while the key is in flight and its lease, if any, runs; at most `timeout` (of real
    // time, whatever the store's clock). Gives what lookup gives then: InFlight means that the
    // time or the lease has run out, or that the key is held. A decision through a cache of the
    // same store object ends it at once, and in a store behind a server everybody's does. Otherwise
    // what another process decides is looked for, at most every 50 ms.
    [[nodiscard]] Result<LookupOutcome> wait(std::string_view key,
                                             std::chrono::milliseconds timeout);

    // What this cache has done since it was made.
    [[nodiscard]] CacheMetrics metrics() const;

  private:
    friend struct CacheInside;
    class Counters;  // behind metrics()

    template <class Op>
    std::vector<Result<typename Op::Answer>> settle(std::span<const Op> ops);
    template <class Op>
    Result<typename Op::Answer> settle_one(const Op& op);
    Result<LookupOutcome> look_up(std::string_view key);
    void count_work(std::span<const CompleteOp> ops, std::span<const Result<void>> answers);

    StreamStore& store_;
    const CacheOptions options_;
    const Result<void> options_checked_;
    std::unique_ptr<Counters> counters_;
};

}  // namespace dedup
