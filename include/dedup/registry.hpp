// What a pipeline needs to process each event exactly once: idempotency keys that remember their
// first event, receipts of what was processed, and offsets.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "dedup/cache.hpp"
#include "dedup/offsets.hpp"

namespace dedup {

struct RegistryOptions {
    // Of the namespaces "<prefix>.keys", "<prefix>.receipts" and "<prefix>.offsets".
    std::string prefix = "registry";
    std::chrono::milliseconds key_ttl = std::chrono::hours{24};
    std::chrono::milliseconds receipt_ttl = kForever;
    TransitionObserver observer = {};  // of keys, receipts and offsets; their namespaces tell which
};

struct ProcessingReceipt {
    std::string details;
    std::int64_t processed_at_ms = 0;
};

// What has not expired.
struct RegistryStats {
    std::uint64_t keys = 0;
    std::uint64_t receipts = 0;
    std::uint64_t offsets = 0;
};

// The value of the member "idempotency_key" of an event's metadata; nullopt if that is not a JSON
// object or has none that is a valid key.
[[nodiscard]] DEDUP_API std::optional<std::string> idempotency_key_in(std::string_view metadata);

// Has no state of its own beyond what it counts; all functions may be called from any thread. How
// many keys there may be is the store's affair: see OpenOptions::capacity. Offsets are never
// evicted.
class DEDUP_API Registry {
  public:
    // The key was used before, by this event.
    struct Duplicate {
        std::string event_id;
        std::int64_t first_seen_ms = 0;
        // The event's claim, by a Cache of this namespace, waits for a decision; see
        // Cache::resolve. Nobody knows then whether its work was done.
        std::optional<Held> held = {};
    };
    struct KeyOutcome;

    // `store` must outlive this. Bad options show as invalid_argument at the first call.
    explicit Registry(StreamStore& store, const RegistryOptions& options = {});

    // Whether an event with this idempotency key was seen before, and which. The first one's id is
    // kept until the key expires. A duplicate costs no append. New::previous says who had claimed
    // the key, by a Cache of this namespace, and given it up or not answered.
    // Errors: those of Cache::remember.
    [[nodiscard]] Result<KeyOutcome> check_idempotency(std::string_view key,
                                                       std::string_view event_id);

    // Notes that `pipeline` has processed the event. False, and nothing changes, if that was noted
    // before. The two names may have about 1,000 bytes together.
    // Errors: those of Cache::remember.
    [[nodiscard]] Result<bool> record_processing(std::string_view pipeline,
                                                 std::string_view event_id,
                                                 std::string_view details = {});
    [[nodiscard]] Result<bool> was_processed(std::string_view pipeline, std::string_view event_id);
    [[nodiscard]] Result<std::optional<ProcessingReceipt>> receipt(std::string_view pipeline,
                                                                   std::string_view event_id);

    // record_processing for the commit's pipeline and event, and the commit, in one atomic append:
    // after any crash both are there or neither. With Behind, as with an error, nothing was done.
    // If the event was noted before, this only commits.
    // Errors: those of record_processing and Offsets::commit.
    [[nodiscard]] Result<CommitOutcome> finish(const OffsetCommit& commit,
                                               std::string_view details = {});

    [[nodiscard]] Offsets& offsets() { return offsets_; }

    // Reads the whole log once, so it is for people and dashboards. Errors: those of scan.
    [[nodiscard]] Result<RegistryStats> stats();

    // Of keys, receipts and offsets, each under its own namespace.
    [[nodiscard]] std::vector<CacheMetrics> metrics() const;

  private:
    StreamStore& store_;
    CacheOptions key_options_;
    CacheOptions receipt_options_;
    Cache keys_;
    Cache receipts_;
    std::string offsets_ns_;
    Offsets offsets_;
};

// Duplicate is also what an outcome made by default says.
struct Registry::KeyOutcome : std::variant<Duplicate, New> {
    using variant::variant;
    [[nodiscard]] const Duplicate* duplicate() const { return std::get_if<Duplicate>(this); }
    [[nodiscard]] const New* is_new() const { return std::get_if<New>(this); }
};

}  // namespace dedup
