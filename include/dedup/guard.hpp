// Runs a function once per event, however often the event is delivered.
//
// A Guard claims the event, runs the function, and completes the claim with what the function gave.
// Everybody else who has the same event gets that result, now or after waiting. A heartbeat keeps
// the lease of what is running alive; the events of a consumer that died are free again when their
// lease has run out. A function that failed leaves its event free at once.
//
// What no guard can know: if a consumer dies after the function's effect and before the completion,
// whether it had its effect. Where that matters, pass Attempt::fence or the event's id on to
// whatever the function changes; or let the function say Attempt::note before the effect, and
// choose what shall become of events that nobody answered: GuardOptions::unanswered, ::reconcile.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "dedup/offsets.hpp"
#include "dedup/reconcile.hpp"

namespace dedup {

class Heartbeat;
class LivingGuard;

// Why a function did not do its work.
struct Failure {
    std::string message;
    bool transient = false;  // worth another try soon; see Retry
};

// What a function is told of its event.
struct Attempt {
    std::string event_id;
    std::size_t index = 0;      // of the event in its batch
    std::uint32_t number = 1;   // of claims of the event so far, this one included
    std::uint32_t retries = 0;  // within this claim
    std::uint64_t fence = 0;    // higher than that of any attempt before it, and not used again
    // Says what the function is about to do; durable before it returns. See Cache::note. If it
    // fails, the effect should not follow.
    std::function<Result<void>(std::string_view note)> note = {};
    // What is known of the claim before this one; null if there was none. For the call only.
    const Previous* previous = nullptr;
};

// The work. Gives bytes that whoever gets the event later is told. If they are more than
// kReceiptBytesMax, the event counts as processed all the same, and those who come later are told
// that its result was not kept. An exception counts as a failure and goes on to the caller; but
// one that comes after a note holds the event, as nobody knows then what has been done, while a
// Failure says that it has not.
using Work = std::function<std::expected<std::string, Failure>(const Attempt&)>;

// Refers to work for the length of a call: a Work, or any other function of an Attempt, also one
// that can only be moved. One that gives nothing has done its work, with an empty result.
class WorkRef {
  public:
    using Given = std::expected<std::string, Failure>;

    // NOLINTBEGIN(cppcoreguidelines-missing-std-forward): it is referred to
    template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, WorkRef> &&
             std::is_invocable_v<F&, const Attempt&>) WorkRef(F&& work)
        : work_(address_of(work)), call_([](void* called, const Attempt& attempt) -> Given {
              auto& f = *reinterpret_cast<std::remove_reference_t<F>*>(called);
              if constexpr (std::is_void_v<std::invoke_result_t<F&, const Attempt&>>) {
                  f(attempt);
                  return std::string();
              } else {
                  return f(attempt);
              }
          }) {}
    // NOLINTEND(cppcoreguidelines-missing-std-forward)

    Given operator()(const Attempt& attempt) const { return call_(work_, attempt); }

  private:
    template <class F>
    static void* address_of(F& work) {
        if constexpr (std::is_function_v<F>) {
            return reinterpret_cast<void*>(&work);
        } else {
            return const_cast<void*>(static_cast<const void*>(std::addressof(work)));
        }
    }

    void* work_;
    Given (*call_)(void*, const Attempt&);
};

struct Success {
    std::string result;
    bool result_kept = true;  // false: it was longer than kReceiptBytesMax; only this caller has it
};

struct AlreadyProcessed {
    std::string result;  // of whoever processed it
    std::int64_t processed_at_ms = 0;
    std::string metadata;     // that mark_processed was given, or the last note before
    bool result_kept = true;  // false: there was one, longer than kReceiptBytesMax
};

struct Failed {
    Failure failure;
    std::uint32_t retries = 0;
};

// InFlight: another consumer has the event, and did not finish within GuardOptions::wait. That is
// also what an outcome made by default says. Held: the event waits for a decision, see
// Cache::resolve. Can be asked as a ClaimOutcome can.
struct ProcessOutcome : std::variant<InFlight, Success, AlreadyProcessed, Failed, Held, Mismatch> {
    using variant::variant;
    [[nodiscard]] const InFlight* in_flight() const { return std::get_if<InFlight>(this); }
    [[nodiscard]] const Success* success() const { return std::get_if<Success>(this); }
    [[nodiscard]] const AlreadyProcessed* already_processed() const {
        return std::get_if<AlreadyProcessed>(this);
    }
    [[nodiscard]] const Failed* failed() const { return std::get_if<Failed>(this); }
    [[nodiscard]] const Held* held() const { return std::get_if<Held>(this); }
    [[nodiscard]] const Mismatch* mismatch() const { return std::get_if<Mismatch>(this); }
};

// The metadata of an event whose result was too long to keep, for those who read its record.
inline constexpr std::string_view kResultNotKept = "the result was too long to keep";

// How transient failures are tried again: those of functions, and Code::unavailable of the store.
// Each pause is random, up to a bound that doubles ("full jitter"; Brooker, Exponential Backoff And
// Jitter, AWS Architecture Blog, 2015).
struct Retry {
    std::chrono::milliseconds pause_min{50};  // the first bound; at least 1 ms
    std::chrono::milliseconds pause_max{5'000};
    // From the start of the call, in the store's time: no pause ends after it. 0: no retries.
    std::chrono::milliseconds deadline{30'000};
    std::function<void(std::chrono::milliseconds)> sleep = {};  // empty: sleeps
};

struct GuardOptions {
    std::string ns = "events";
    std::string owner = {};  // shown to those who find the event in flight
    std::chrono::milliseconds retention = std::chrono::hours{24 * 7};  // of results
    // After so long the events of a consumer that died are free. Renewed every third of it; at
    // least 3 ms.
    std::chrono::milliseconds lease{30'000};
    // How long to wait for the result of another consumer that has the event. If it fails, one of
    // those that wait takes over.
    std::chrono::milliseconds wait{0};
    Retry retry = {};
    // Of an event whose consumer died: as in CacheOptions. An event that fails at its attempt
    // number attempts_max is held, too, with the failure's message.
    Unanswered unanswered = Unanswered::rerun;
    std::uint32_t attempts_max = 0;
    // Whether events that `owner` had in flight before this guard started are free at once, or
    // held at once. Only where no other process that lives has the name. Other guards of this
    // process may: what was claimed since the first of those that live has started stays theirs.
    bool reclaim_own = false;
    // Asked before the function runs for an event that nobody answered, or that is held. With it
    // events are under Unanswered::hold, so that what is known of them stays until it has answered.
    Reconcile reconcile = {};
    TransitionObserver observer = {};  // of the events; renewals come from the heartbeat's thread
};

struct BatchOptions {
    // After so many functions have run, what came of them is stored, with one flush, before the
    // next one runs; so a crash repeats at most that many. 0: once, after the last one.
    std::size_t complete_every = 0;
};

// An event of a batch. With a `fingerprint` of its content, another event under the same id that
// has another one gets Mismatch; empty: not compared, on either side.
struct BatchEvent {
    std::string_view id;
    std::string_view fingerprint = {};
};

// Likewise, and where it lies in the stream that it is read from.
struct StreamEvent {
    std::string_view id;
    std::uint64_t offset = 0;
    std::string_view fingerprint = {};
};

// What a batch of a stream's events came to. Done are those with Success and AlreadyProcessed.
struct StreamOutcome {
    std::vector<Result<ProcessOutcome>> events;
    // The offset to which the position was moved: of the last event before the first that is not
    // done. None: it was not moved.
    std::optional<std::uint64_t> reached = {};
    // What the last attempt to move it came to: Behind if it stands further on already, and stays
    // there; or why it could not be moved. Also Behind if the first event is not done.
    Result<CommitOutcome> commit = {};
};

// All functions may be called from any thread.
class DEDUP_API Guard {
  public:
    // Starts the heartbeat's thread. `store` must outlive the guard.
    // Errors: invalid_argument (an option out of range), io (no thread).
    [[nodiscard]] static Result<std::unique_ptr<Guard>> start(StreamStore& store,
                                                              GuardOptions options = {});
    ~Guard();
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

    // Runs `work` on the calling thread unless the event has been processed or is in flight.
    // Errors: invalid_argument (the message begins with "event id" if that is what is wrong);
    // stale_claim (the function ran, but for so long without a heartbeat that another consumer has
    // the event); those of StreamStore::append. If the result could not be stored, the event stays
    // claimed until its lease runs out. With a `fingerprint` of the event's content, another event
    // under the same id gets Mismatch; empty: not compared.
    [[nodiscard]] Result<ProcessOutcome> process_if_new(std::string_view event_id, WorkRef work,
                                                        std::string_view fingerprint = {});

    // As process_if_new for each event, in order, but with one flush for all claims and one for all
    // completions, or for each BatchOptions::complete_every of them. Of equal ids in one batch the
    // first runs, and the others get what they would get alone when it has its outcome, without an
    // append if it is done: AlreadyProcessed, or Mismatch with another fingerprint. If it has
    // failed, the next one runs, whatever its fingerprint, with a flush for its claim and one for
    // what comes of it. What has run and is not stored is repeated after a crash. The retries'
    // deadline is that of the whole batch.
    [[nodiscard]] std::vector<Result<ProcessOutcome>> process_batch(
        std::span<const BatchEvent> events, WorkRef work, const BatchOptions& options = {});
    // Of events without fingerprints.
    [[nodiscard]] std::vector<Result<ProcessOutcome>> process_batch(
        std::span<const std::string_view> event_ids, WorkRef work,
        const BatchOptions& options = {});

    // As process_batch for events of a stream, and moves the pipeline's position there behind those
    // that are done without a gap from the first. Completions and position are one atomic append,
    // on every engine: after any crash both are there or neither. Where that append is refused (an
    // event's claim is lost, the position is further on, or it would be too large), each event is
    // completed for itself and the position follows in an append of its own; a crash between the
    // two leaves it behind. So the position is never beyond an event that is not done. It stays
    // before an event that failed, is in flight elsewhere, is held, or has another one's id (see
    // Mismatch); whoever wants to go past it says so with Offsets::commit.
    // `offsets` is on the guard's store; the events' offsets rise. The position's event id is left
    // empty if it is longer than kLabelBytesMax. An exception of the function's goes on to the
    // caller; what had run before it is stored, and the position moved so far.
    // Errors, of all events, before any runs: invalid_argument (another store, offsets that do not
    // rise, names as in Offsets), those of Offsets::find.
    [[nodiscard]] StreamOutcome process_stream(Offsets& offsets, std::string_view pipeline,
                                               std::string_view stream,
                                               std::span<const StreamEvent> events, WorkRef work,
                                               const BatchOptions& options = {});

    // Whether somebody has processed the event. False while it is in flight.
    [[nodiscard]] Result<bool> is_processed(std::string_view event_id);

    // Says that the event needs no processing, whoever has it in flight. True if it was not known
    // to be processed before; otherwise nothing changes. Without `metadata` a note stays.
    // Errors: stale_claim (it is held: see Cache::resolve), invalid_argument (the id, or metadata
    // above kMetadataBytesMax or equal to kResultNotKept), and those of StreamStore::append.
    [[nodiscard]] Result<bool> mark_processed(std::string_view event_id,
                                              std::string_view metadata = {});

    // What became of the events. Work that was found to be done already counts as completed.
    [[nodiscard]] CacheMetrics metrics() const { return cache_.metrics(); }

    // Sweeps the store, and gives the number of events that this removed from the guard's
    // namespace. Other sweeps, such as a Sweeper's, make it needless. Errors: those of sweep.
    [[nodiscard]] Result<std::uint64_t> cleanup_old_events();

  private:
    class Run;

    Guard(StreamStore& store, GuardOptions options);
    [[nodiscard]] Result<void> check_stream(const Offsets& offsets, std::string_view pipeline,
                                            std::string_view stream,
                                            std::span<const StreamEvent> events) const;

    StreamStore& store_;
    GuardOptions options_;
    std::unique_ptr<const LivingGuard> living_;
    const std::int64_t started_ms_;  // or that of the first guard with this namespace and owner
    Cache cache_;
    std::unique_ptr<Heartbeat> heartbeat_;
};

}  // namespace dedup
