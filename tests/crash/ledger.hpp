// What has been appended to a store, in the order of its log, and what of that has to be there
// after a crash.
//
// The log is written in one order and recovery cuts its tail at most. So what a recovered store
// has must be the ledger up to some point: not before what had been acknowledged as durable, not
// within an atomic batch, and not beyond what had been begun. A sweep is one more entry: it takes
// effect at one point of that order, whatever its counting and reclaiming come to.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "dedup/store.hpp"

namespace dedup::test {

struct CacheCall;  // see told.hpp

struct LedgerEntry {
    Record record;            // sequence 0: the caller was not told it
    std::uint64_t after = 0;  // but it is above this one
    std::size_t call = 0;     // where the entries of the same append begin
    bool atomic = false;      // together with all others of its call
    bool refused = false;     // the caller was told that it was not appended
    // Set if this is a sweep: streams whose head expired before that are gone from here on.
    std::optional<std::int64_t> swept_before_ms = {};
};

struct Ledger {
    std::vector<LedgerEntry> entries;
    std::size_t durable = 0;          // so many of them have to survive a power loss now
    std::uint64_t sequence_told = 0;  // the highest that a caller knows
    bool in_doubt = false;            // an outcome is unknown, and nothing is durable from there on
    bool reports_lost = false;        // a catalog has been lost, and with it reports of sweeps
    std::vector<std::shared_ptr<const CacheCall>> calls;  // of caches, beside the entries they made
    std::set<std::string> untold;  // keys of which nobody can say what callers are to be told

    // How far it has come; what a crash at that moment may leave.
    struct Mark {
        std::size_t durable = 0;
        std::size_t begun = 0;
        std::uint64_t sequence_told = 0;
    };
    [[nodiscard]] Mark mark() const { return {durable, entries.size(), sequence_told}; }
};

// Keeps a ledger of what goes through to `inner`.
class LedgerStore final : public StreamStore {
  public:
    // `acknowledged_is_durable`: as with Durability::sync.
    LedgerStore(StreamStore& inner, Ledger& ledger, bool acknowledged_is_durable)
        : StreamStore([&inner] { return inner.now_ms(); }, inner.grace()),
          inner_(inner),
          ledger_(ledger),
          acknowledged_is_durable_(acknowledged_is_durable) {}

    std::vector<Error> errors;  // that appends and sweeps gave, but for conflicts
    std::string wrong;          // what was wrong with a sequence or a report; empty if nothing was
    std::vector<SweepReport> reports;

    std::vector<Result<std::uint64_t>> append(std::span<const Append> batch, Batch mode) override;
    std::vector<Result<std::optional<Record>>> heads(std::span<const StreamKey> streams) override {
        return inner_.heads(streams);
    }
    Result<std::vector<Version>> history(StreamKey stream, const HistoryLimits& limits) override {
        return inner_.history(stream, limits);
    }
    Result<ScanPage> scan(const ScanOptions& options) override { return inner_.scan(options); }
    Result<SweepReport> sweep(const SweepOptions& options) override;
    // Finds out whether a sweep that failed had taken hold, if nothing could be read then.
    void settle_sweep();
    Result<std::vector<SweepReport>> sweep_history() override { return inner_.sweep_history(); }
    Result<StoreStats> stats() override { return inner_.stats(); }
    Result<void> flush() override;
    Result<void> close() override { return inner_.close(); }
    [[nodiscard]] Ledger& ledger() { return ledger_; }

  private:
    void note_sequence(std::uint64_t sequence);
    void note_outcome(LedgerEntry& entry, const Result<SweepReport>& report);

    StreamStore& inner_;
    Ledger& ledger_;
    bool acknowledged_is_durable_;
    // Of such a sweep: its entry, and a stream that it would have removed.
    std::optional<std::pair<std::size_t, std::pair<std::string, std::string>>> open_;
};

// Keys, by what was said of them.
struct Standing {
    std::uint64_t held = 0;
    std::uint64_t resolved = 0;
    std::uint64_t forgotten = 0;

    Standing& operator+=(const Standing& more) {
        held += more.held;
        resolved += more.resolved;
        forgotten += more.forgotten;
        return *this;
    }
};

struct Verdict {
    std::size_t present = 0;         // so many of the ledger's entries are in the store
    std::uint64_t sequence_max = 0;  // of the heads there
    Standing standing = {};          // of the keys whose calls were noted
    std::string wrong;               // what is wrong with it; empty if nothing is
};

// Compares all that a store says with the ledger up to `mark`. Nothing may have been appended to
// the store that is not in the ledger.
[[nodiscard]] Verdict compare(StreamStore& store, const Ledger& ledger, const Ledger::Mark& mark);

// The ledger of a store that has just the entries that were found: what the next crash is judged
// by. They have been seen, so they have to stay, and no others may come back.
[[nodiscard]] Ledger continued(const Ledger& ledger, const Ledger::Mark& mark,
                               const Verdict& found);

}  // namespace dedup::test
