// What each operation of the claim protocol comes to, given its stream's head and the time.
//
// An operation holds one request. check() finds what is wrong with the request itself; decide()
// gives the answer, and the record that must be appended for the answer to hold, if there is one.
// Nothing here does any I/O: settle() reads the heads, appends the records, and asks again when
// an append has lost a race.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "dedup/cache.hpp"

namespace dedup {

// A stream as one round of settle() found it.
struct Seen {
    std::optional<Record>& head;  // whatever its state or age; a decision may take it
    std::int64_t now_ms = 0;
    std::chrono::milliseconds grace{0};

    // What the next append to the stream must expect; an expired head counts here too.
    [[nodiscard]] std::uint64_t sequence() const { return head ? head->sequence : 0; }

    [[nodiscard]] bool current() const {
        return head && !expired(head->expires_at_ms, now_ms, grace);
    }
    [[nodiscard]] bool live() const { return current() && head->kind == Kind::active; }
    [[nodiscard]] bool in_flight() const { return live() && !head->receipt; }
    [[nodiscard]] bool completed() const { return live() && head->receipt; }

    // Claimed, and never answered, however long ago: also if it has expired, while no sweep has
    // removed it.
    [[nodiscard]] bool unanswered() const { return head && head->state() == State::in_flight; }

    // In flight, and not to be taken over yet.
    [[nodiscard]] bool running() const {
        return in_flight() && head->verdict.kind != Verdict::Kind::held &&
               (head->lease_until_ms == 0 || now_ms <= head->lease_until_ms);
    }

    // In flight, and never to be taken over: it waits for a decision.
    [[nodiscard]] bool held() const { return in_flight() && dedup::held(*head, now_ms); }
};

template <class T>
struct Decision {
    Result<T> answer;  // with an append: the answer once that has landed
    std::optional<Append> append;
    std::optional<Change> change = {};  // what the append comes to, for people who watch
};

// Each operation refers to its request and to the cache's options, which must outlive it. landed()
// writes the sequence that the append was given into the answer, where the answer tells it.
// kDecides says whether success may be what a caller of Cache::wait is waiting for.

struct ClaimOp {
    using Answer = ClaimOutcome;
    static constexpr bool kDecides = false;
    const CacheOptions& cache;
    std::string_view key;
    const ClaimOptions& options;

    [[nodiscard]] Result<void> check() const;
    [[nodiscard]] Decision<Answer> decide(const Seen& seen) const;
    static void landed(Result<Answer>& answer, std::uint64_t sequence);
};

struct RememberOp {
    using Answer = RememberOutcome;
    static constexpr bool kDecides = true;
    const CacheOptions& cache;
    std::string_view key;
    std::string_view receipt;
    const ClaimOptions& options;

    [[nodiscard]] Result<void> check() const;
    [[nodiscard]] Decision<Answer> decide(const Seen& seen) const;
    static void landed(Result<Answer>& answer, std::uint64_t sequence);
};

struct CompleteOp {
    using Answer = void;
    static constexpr bool kDecides = true;
    const CacheOptions& cache;
    std::string_view key;
    const Claim* claim;  // null: whatever claim is current
    std::string_view receipt;
    const CompleteOptions& options;

    [[nodiscard]] Result<void> check() const;
    [[nodiscard]] Decision<Answer> decide(const Seen& seen) const;
    static void landed(Result<Answer>&, std::uint64_t) {}
};

struct ReleaseOp {
    using Answer = bool;
    static constexpr bool kDecides = true;
    const CacheOptions& cache;
    std::string_view key;
    const Claim* claim;  // null: whatever claim is current

    [[nodiscard]] Result<void> check() const;
    [[nodiscard]] Decision<Answer> decide(const Seen& seen) const;
    static void landed(Result<Answer>&, std::uint64_t) {}
};

struct RenewOp {
    using Answer = Claim;
    static constexpr bool kDecides = false;
    const CacheOptions& cache;
    std::string_view key;
    const Claim* claim;  // never null
    std::chrono::milliseconds lease;

    [[nodiscard]] Result<void> check() const;
    [[nodiscard]] Decision<Answer> decide(const Seen& seen) const;
    static void landed(Result<Answer>&, std::uint64_t) {}
};

struct NoteOp {
    using Answer = void;
    static constexpr bool kDecides = false;
    const CacheOptions& cache;
    std::string_view key;
    const Claim* claim;  // never null
    std::string_view metadata;

    [[nodiscard]] Result<void> check() const;
    [[nodiscard]] Decision<Answer> decide(const Seen& seen) const;
    static void landed(Result<Answer>&, std::uint64_t) {}
};

struct HoldOp {
    using Answer = void;
    static constexpr bool kDecides = true;
    const CacheOptions& cache;
    std::string_view key;
    const Claim* claim;  // never null
    std::string_view reason;

    [[nodiscard]] Result<void> check() const;
    [[nodiscard]] Decision<Answer> decide(const Seen& seen) const;
    static void landed(Result<Answer>&, std::uint64_t) {}
};

struct ResolveOp {
    using Answer = void;
    static constexpr bool kDecides = true;
    const CacheOptions& cache;
    std::string_view key;
    std::uint64_t claim_sequence;
    const Resolution& resolution;

    [[nodiscard]] Result<void> check() const;
    [[nodiscard]] Decision<Answer> decide(const Seen& seen) const;
    static void landed(Result<Answer>&, std::uint64_t) {}
};

struct ForgetOp {
    using Answer = bool;
    static constexpr bool kDecides = false;
    const CacheOptions& cache;
    std::string_view key;
    std::uint64_t claim_sequence;  // 0: whichever
    std::string_view reason;
    std::string_view by;

    [[nodiscard]] Result<void> check() const;
    [[nodiscard]] Decision<Answer> decide(const Seen& seen) const;
    static void landed(Result<Answer>&, std::uint64_t) {}
};

struct LookupOp {
    using Answer = LookupOutcome;
    static constexpr bool kDecides = false;
    const CacheOptions& cache;
    std::string_view key;

    [[nodiscard]] Result<void> check() const;
    [[nodiscard]] static Answer answer(const Seen& seen);
    [[nodiscard]] static Decision<Answer> decide(const Seen& seen) { return {answer(seen), {}}; }
    static void landed(Result<Answer>&, std::uint64_t) {}
};

// Checks what a cache was made with.
[[nodiscard]] Result<void> check_options(const CacheOptions& options);

}  // namespace dedup
