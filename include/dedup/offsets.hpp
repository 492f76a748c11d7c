// How far a pipeline has come in each stream that it consumes: the offset of the last event, kept
// for ever, and moved in one step with the completion of what was done for that event.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "dedup/cache.hpp"

namespace dedup {

struct Position {
    std::uint64_t offset = 0;
    std::string event_id;
    std::int64_t committed_at_ms = 0;
};

struct OffsetCommit {
    std::string pipeline;
    std::string stream;  // with the pipeline's name at most about 1,000 bytes; any bytes
    std::uint64_t offset = 0;
    std::string event_id = {};
    bool may_go_back = false;  // to read a part of the stream again on purpose
};

// The position is the one asked for. Committing an offset again changes nothing.
struct Committed {};

// The position is further on already, and stays there.
struct Behind {
    Position current;
};

// Behind is also what an outcome made by default says: nothing was done.
struct CommitOutcome : std::variant<Behind, Committed> {
    using variant::variant;
    [[nodiscard]] const Behind* behind() const { return std::get_if<Behind>(this); }
    [[nodiscard]] bool committed() const { return std::holds_alternative<Committed>(*this); }
};

// Has no state of its own beyond what it counts; any number may work on one store. All functions
// may be called from any thread, and concurrent commits of one position never lose the higher one.
//
// A position is a record in flight without lease and expiry, so that no sweep and no eviction (see
// Capacity) removes it. Releasing it through a Cache of this namespace forgets it.
class DEDUP_API Offsets {
  public:
    // `store` must outlive this. A bad namespace shows as invalid_argument at the first call. The
    // observer gets Change::committed for a position, and Change::completed for each completion.
    explicit Offsets(StreamStore& store, std::string ns = "offsets",
                     TransitionObserver observer = {});

    // nullopt: nothing was committed yet.
    // Errors: invalid_argument, corruption (the record there is no position), those of heads.
    [[nodiscard]] Result<std::optional<Position>> find(std::string_view pipeline,
                                                       std::string_view stream) const;

    // Errors: those of find and of StreamStore::append.
    [[nodiscard]] Result<CommitOutcome> commit(const OffsetCommit& commit);

    // Completes all of `completions`, which may be of any namespaces but not of one key twice, and
    // commits the offset, in one atomic append: after any crash all of it is there or nothing.
    // Completions that were made before with equal bytes are no-ops. With Behind, as with an error,
    // nothing was completed.
    // Errors: those of find, of Cache::complete, and of an atomic append.
    [[nodiscard]] Result<CommitOutcome> complete_and_commit(std::span<const Completion> completions,
                                                            const OffsetCommit& commit);
    [[nodiscard]] Result<CommitOutcome> complete_and_commit(const Claim& claim,
                                                            std::string_view receipt,
                                                            const OffsetCommit& commit);

    // Commits, and the completions made with them, under this namespace. `find` is not counted.
    [[nodiscard]] CacheMetrics metrics() const { return cache_.metrics(); }

  private:
    friend class Guard;
    friend class Registry;

    Result<CommitOutcome> settle(Cache& completer, std::span<const Completion> completions,
                                 const OffsetCommit& commit);

    StreamStore& store_;
    std::string ns_;
    Cache cache_;  // what it counts, and whom it tells
};

}  // namespace dedup
