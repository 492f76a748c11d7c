#include "dedup/memory_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <map>
#include <mutex>
#include <random>
#include <tuple>
#include <utility>

#include "store/check_stream.hpp"

namespace dedup {
namespace {

struct StreamLess {
    using is_transparent = void;
    template <class A, class B>
    bool operator()(const A& a, const B& b) const {
        return std::tuple<std::string_view, std::string_view>(a.ns, a.key) <
               std::tuple<std::string_view, std::string_view>(b.ns, b.key);
    }
};

struct StreamId {
    std::string ns;
    std::string key;
};

std::unexpected<Error> failure(Code code, std::string message) {
    return std::unexpected(Error{.code = code, .message = std::move(message)});
}

std::string random_store_id() {
    std::random_device random;
    return fmt::format("{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

class MemoryStore final : public StreamStore {
  public:
    MemoryStore(Clock clock, std::chrono::milliseconds grace)
        : StreamStore(std::move(clock), grace) {}

    std::vector<Result<std::uint64_t>> append(std::span<const Append> batch, Batch mode) override {
        const std::lock_guard lock(mutex_);
        if (Result<void> usable = check_batch(batch, mode); !usable) {
            return std::vector<Result<std::uint64_t>>(batch.size(),
                                                      std::unexpected(usable.error()));
        }
        std::vector<Result<std::uint64_t>> results;
        results.reserve(batch.size());
        bool all = true;
        for (const Append& item : batch) {
            if (Result<void> checked = check_item(item); !checked) {
                results.emplace_back(std::unexpected(std::move(checked).error()));
                all = false;
            } else {
                results.emplace_back(mode == Batch::each ? store(item.record) : 0);
            }
        }
        for (std::size_t i = 0; mode == Batch::atomic && i < batch.size(); ++i) {
            if (all) {
                results[i] = store(batch[i].record);
            } else if (results[i]) {
                results[i] = std::unexpected(conflict(batch[i]));
            }
        }
        return results;
    }

    std::vector<Result<std::optional<Record>>> heads(std::span<const StreamKey> streams) override {
        const std::lock_guard lock(mutex_);
        if (closed_) {
            return std::vector<Result<std::optional<Record>>>(streams.size(), closed());
        }
        std::vector<Result<std::optional<Record>>> heads;
        heads.reserve(streams.size());
        for (const StreamKey& stream : streams) {
            if (auto checked = check_stream(stream); !checked) {
                heads.emplace_back(std::unexpected(std::move(checked).error()));
                continue;
            }
            const auto at = streams_.find(stream);
            heads.emplace_back(at == streams_.end() ? std::nullopt
                                                    : std::optional(at->second.back()));
        }
        return heads;
    }

    Result<std::vector<Version>> history(StreamKey stream) override {
        const std::lock_guard lock(mutex_);
        if (closed_) {
            return closed();
        }
        if (auto checked = check_stream(stream); !checked) {
            return std::unexpected(std::move(checked).error());
        }
        std::vector<Version> versions;
        if (const auto at = streams_.find(stream); at != streams_.end()) {
            for (const Record& record : at->second) {
                versions.push_back({.record = record});
            }
        }
        return versions;
    }

    // The cursor is the head sequence at which the last page ended: a stream that changes gets a
    // higher one and so moves behind it, where a later page will find it.
    Result<ScanPage> scan(const ScanOptions& options) override {
        const std::lock_guard lock(mutex_);
        if (closed_) {
            return closed();
        }
        if (options.heads_max == 0) {
            return failure(Code::invalid_argument, "heads_max is 0; it must be at least 1");
        }
        std::uint64_t after = 0;
        const char* const end = options.cursor.data() + options.cursor.size();
        const auto [read, error] = std::from_chars(options.cursor.data(), end, after);
        if (!options.cursor.empty() && (error != std::errc{} || read != end)) {
            return failure(Code::invalid_argument, "cursor is not one that a scan has given");
        }
        ScanPage page;
        for (auto at = by_head_.upper_bound(after); at != by_head_.end(); ++at) {
            const auto& [id, records] = *at->second;
            if ((!options.ns.empty() && id.ns != options.ns) ||
                !id.key.starts_with(options.key_prefix)) {
                continue;
            }
            if (page.heads.size() == options.heads_max) {
                page.cursor = std::to_string(page.heads.back().record.sequence);
                break;
            }
            page.heads.push_back({.record = records.back()});
        }
        return page;
    }

    Result<SweepReport> sweep(const SweepOptions& /*options*/) override {
        return failure(Code::unavailable, "not built yet");
    }

    Result<std::vector<SweepReport>> sweep_history() override {
        return failure(Code::unavailable, "not built yet");
    }

    Result<StoreStats> stats() override {
        const std::lock_guard lock(mutex_);
        if (closed_) {
            return closed();
        }
        StoreStats stats;
        stats.store_id = store_id_;
        stats.records = records_;
        stats.last_sequence = last_sequence_;
        stats.time_high_ms = saw_time(0);
        stats.memory_bytes = memory_bytes_;
        for (const auto& [id, records] : streams_) {
            const State state = records.back().state();
            stats.in_flight += state == State::in_flight;
            stats.completed += state == State::completed;
            stats.released += state == State::released;
        }
        return stats;
    }

    Result<void> flush() override {
        const std::lock_guard lock(mutex_);
        return closed_ ? Result<void>(closed()) : Result<void>();
    }

    Result<void> close() override {
        const std::lock_guard lock(mutex_);
        closed_ = true;
        return {};
    }

  private:
    using Streams = std::map<StreamId, std::vector<Record>, StreamLess>;

    static std::unexpected<Error> closed() {
        return failure(Code::closed, "the store in memory was closed");
    }

    [[nodiscard]] std::uint64_t head_sequence(const Record& record) const {
        const auto at = streams_.find(record);
        return at == streams_.end() ? 0 : at->second.back().sequence;
    }

    [[nodiscard]] Error conflict(const Append& item) const {
        const std::uint64_t head = head_sequence(item.record);
        return {.code = Code::sequence_conflict,
                .message = fmt::format("stream {}: the head is {}, expected was {}",
                                       stream_name(item.record.ns, item.record.key), head,
                                       item.expected_sequence),
                .head_sequence = head};
    }

    // What is wrong with the batch as a whole.
    [[nodiscard]] Result<void> check_batch(std::span<const Append> batch, Batch mode) const {
        if (closed_) {
            return closed();
        }
        if (batch.size() > kBatchItemsMax) {
            return failure(
                Code::invalid_argument,
                fmt::format("a batch of {} items; the limit is {}", batch.size(), kBatchItemsMax));
        }
        // As unlikely as it is, a sequence is never used twice.
        if (batch.size() > std::numeric_limits<std::uint64_t>::max() - last_sequence_) {
            return failure(Code::out_of_space, "all sequences are used up");
        }
        if (mode == Batch::each) {
            return {};
        }
        std::map<StreamKey, int, StreamLess> named;
        std::string encoded;
        std::size_t bytes = 0;
        for (const auto& [expected_sequence, record] : batch) {
            if (Result<void> checked = check_record(record); !checked) {
                return checked;
            }
            if (!named.try_emplace({record.ns, record.key}).second) {
                return failure(Code::invalid_argument,
                               fmt::format("an atomic batch names stream {} twice",
                                           stream_name(record.ns, record.key)));
            }
            encoded.clear();
            encode(record, encoded);
            bytes += encoded.size();
        }
        if (bytes > kAtomicBatchBytesMax) {
            return failure(Code::invalid_argument,
                           fmt::format("an atomic batch of {} bytes; the limit is {}", bytes,
                                       kAtomicBatchBytesMax));
        }
        return {};
    }

    [[nodiscard]] Result<void> check_item(const Append& item) const {
        if (Result<void> checked = check_record(item.record); !checked) {
            return checked;
        }
        if (head_sequence(item.record) != item.expected_sequence) {
            return std::unexpected(conflict(item));
        }
        return {};
    }

    std::uint64_t store(const Record& record) {
        auto at = streams_.find(record);
        if (at == streams_.end()) {
            at = streams_.try_emplace({record.ns, record.key}).first;
        } else {
            by_head_.erase(at->second.back().sequence);
        }
        Record& stored = at->second.emplace_back(record);
        stored.sequence = ++last_sequence_;
        if (stored.claim_sequence == 0) {
            stored.claim_sequence = stored.sequence;
        }
        by_head_.emplace(stored.sequence, &*at);
        saw_time(stored.timestamp_ms);
        ++records_;
        memory_bytes_ += sizeof(Record) + stored.key.size() + stored.metadata.size() +
                         (stored.receipt ? stored.receipt->size() : 0);
        return stored.sequence;
    }

    mutable std::mutex mutex_;
    Streams streams_;
    std::map<std::uint64_t, const Streams::value_type*> by_head_;  // every stream, in log order
    std::string store_id_ = random_store_id();
    std::uint64_t last_sequence_ = 0;
    std::uint64_t records_ = 0;
    std::uint64_t memory_bytes_ = 0;  // an estimate
    bool closed_ = false;
};

}  // namespace

std::unique_ptr<StreamStore> make_memory_store(Clock clock, std::chrono::milliseconds grace,
                                               const Capacity& /*capacity*/) {
    // This function cannot fail, so what makes no sense becomes the nearest thing that does.
    return std::make_unique<MemoryStore>(clock ? std::move(clock) : Clock(system_now_ms),
                                         std::max(grace, std::chrono::milliseconds{0}));
}

}  // namespace dedup
