// A store around another one: counts what is appended, lets a test step in between a caller's
// heads() and its append(), and fails on command.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "dedup/store.hpp"

namespace dedup::test {

class HookedStore final : public StreamStore {
  public:
    explicit HookedStore(StreamStore& inner)
        : StreamStore([&inner] { return inner.now_ms(); }, inner.grace()), inner_(inner) {}

    // Run before each append, on the thread that appends.
    std::function<void()> before_append;
    // If set, items of an append for which this gives an error get that and are not appended.
    std::function<std::optional<Code>(const Append&)> fail_append;
    // Run before each look at heads.
    std::function<void(std::span<const StreamKey>)> before_heads;
    bool fail_heads = false;
    std::string write_error;  // what stats() say of it
    // Run before each sweep, on the thread that sweeps; an error that it gives is the sweep's.
    std::function<Result<void>(const SweepOptions&)> before_sweep;

    // Likewise before each page of a scan.
    std::function<void(const ScanOptions&)> before_scan;

    bool remote = false;  // see reads_are_remote

    std::size_t appends = 0;  // calls
    std::size_t items = 0;    // in all calls
    std::size_t reads = 0;    // calls of heads
    std::atomic<std::size_t> streams_read = 0;
    std::size_t walks = 0;  // histories and scans: what grows with the store

    std::vector<Result<std::uint64_t>> append(std::span<const Append> batch, Batch mode) override {
        ++appends;
        items += batch.size();
        if (before_append) {
            before_append();
        }
        if (!fail_append) {
            return inner_.append(batch, mode);
        }
        if (mode == Batch::atomic) {
            return append_whole(batch);
        }
        std::vector<Result<std::uint64_t>> results;
        for (const Append& item : batch) {
            if (const auto code = fail_append(item)) {
                results.emplace_back(std::unexpected(Error{.code = *code, .message = "injected"}));
            } else {
                results.push_back(std::move(inner_.append({&item, 1}, mode).front()));
            }
        }
        return results;
    }

    std::vector<Result<std::optional<Record>>> heads(std::span<const StreamKey> streams) override {
        ++reads;
        streams_read += streams.size();
        if (before_heads) {
            before_heads(streams);
        }
        if (fail_heads) {
            return std::vector<Result<std::optional<Record>>>(
                streams.size(), std::unexpected(Error{.code = Code::io, .message = "injected"}));
        }
        return inner_.heads(streams);
    }

    Result<std::vector<Version>> history(StreamKey stream, const HistoryLimits& limits) override {
        ++walks;
        return inner_.history(stream, limits);
    }
    Result<ScanPage> scan(const ScanOptions& options) override {
        ++walks;
        if (before_scan) {
            before_scan(options);
        }
        return inner_.scan(options);
    }
    Result<SweepReport> sweep(const SweepOptions& options) override {
        if (before_sweep) {
            if (Result<void> may = before_sweep(options); !may) {
                return std::unexpected(std::move(may).error());
            }
        }
        return inner_.sweep(options);
    }
    Result<std::vector<SweepReport>> sweep_history() override { return inner_.sweep_history(); }
    Result<StoreStats> stats() override {
        auto stats = inner_.stats();
        if (stats) {
            stats->write_error = write_error;
        }
        return stats;
    }
    [[nodiscard]] StoreMetrics metrics() const override { return inner_.metrics(); }
    [[nodiscard]] bool reads_are_remote() const override { return remote; }
    Result<void> flush() override { return inner_.flush(); }
    Result<void> close() override { return inner_.close(); }

  private:
    std::vector<Result<std::uint64_t>> append_whole(std::span<const Append> batch) {
        for (const Append& item : batch) {
            if (const auto code = fail_append(item)) {
                return std::vector<Result<std::uint64_t>>(
                    batch.size(), std::unexpected(Error{.code = *code, .message = "injected"}));
            }
        }
        return inner_.append(batch, Batch::atomic);
    }

    StreamStore& inner_;
};

}  // namespace dedup::test
