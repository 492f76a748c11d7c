// What a store holds and what a sweep of it reports, as a plain map.
//
// Written from the contract's words, not from a store: it knows no records, sequences, segments or
// horizons. Of a new claim it is told the fence; all else it works out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dedup/sweep.hpp"

namespace dedup::test {

inline constexpr std::int64_t kModelGraceMs = 1'000;
inline constexpr std::int64_t kModelJumpMs = 24 * 3'600 * 1'000;
inline constexpr std::int64_t kModelTtlMs = 8'000;  // of what is released without a ttl of its own

struct ModelStream {
    State state = State::in_flight;
    std::uint64_t fence = 0;
    std::int64_t since_ms = 0;
    std::int64_t expires_at_ms = 0;  // 0: never
    std::int64_t ttl_ms = 0;         // 0: for ever
    std::int64_t lease_until_ms = 0;
    std::uint32_t attempt = 1;
    std::string owner;
    std::string receipt;
    std::uint64_t changed = 0;  // when, in the order of all changes to the store
};

class SweepModel {
  public:
    using Name = std::pair<std::string, std::string>;  // namespace and key
    using Streams = std::map<Name, ModelStream>;

    std::int64_t now_ms = 0;
    std::int64_t withheld_until_ms =
        0;  // before this time a sweep removes nothing that has expired

    // The time goes on. `trusted`: however far.
    void see(std::int64_t time_ms, bool trusted) {
        if (now_ms > 0 && time_ms - now_ms > kModelJumpMs && !trusted) {
            withheld_until_ms = time_ms + kModelJumpMs;
        }
        now_ms = time_ms;
    }
    [[nodiscard]] bool withheld() const { return now_ms < withheld_until_ms; }

    [[nodiscard]] const Streams& streams() const { return streams_; }
    [[nodiscard]] bool has(const Name& name) const { return streams_.contains(name); }

    // The stream if it counts for claims now.
    ModelStream* alive(const Name& name) {
        const auto at = streams_.find(name);
        return at == streams_.end() || expired(at->second) || at->second.state == State::released
                   ? nullptr
                   : &at->second;
    }

    [[nodiscard]] bool claimable(const Name& name) {
        const ModelStream* const stream = alive(name);
        return stream == nullptr ||
               (stream->state == State::in_flight && stream->lease_until_ms != 0 &&
                now_ms > stream->lease_until_ms);
    }

    ModelStream& begin(const Name& name, std::uint64_t fence, std::int64_t ttl_ms) {
        ModelStream stream;
        stream.fence = fence;
        stream.since_ms = now_ms;
        stream.ttl_ms = ttl_ms;
        stream.expires_at_ms = ttl_ms == 0 ? 0 : now_ms + ttl_ms;
        return streams_[name] = touch(stream);
    }

    void lend(ModelStream& stream, std::int64_t lease_ms) {
        stream.lease_until_ms = now_ms + lease_ms;
        if (stream.expires_at_ms != 0) {
            stream.expires_at_ms = std::max(stream.expires_at_ms, stream.lease_until_ms);
        }
        touch(stream);
    }

    void complete(ModelStream& stream, const std::string& receipt) {
        stream.state = State::completed;
        stream.receipt = receipt;
        stream.since_ms = now_ms;
        if (stream.ttl_ms != 0) {
            stream.expires_at_ms = now_ms + stream.ttl_ms;
        }
        touch(stream);
    }

    void release(ModelStream& stream) {
        stream.state = State::released;
        stream.since_ms = now_ms;
        stream.expires_at_ms = now_ms + (stream.ttl_ms != 0 ? stream.ttl_ms : kModelTtlMs);
        touch(stream);
    }

    // How many streams a sweep would leave.
    [[nodiscard]] std::uint64_t unexpired() const {
        return static_cast<std::uint64_t>(std::ranges::count_if(
            streams_, [this](const auto& stream) { return !goes(stream.second); }));
    }

    [[nodiscard]] StateCounts counts() const {
        StateCounts counts;
        for (const auto& [name, stream] : streams_) {
            ++counts[stream.state];
        }
        return counts;
    }

    // Sweeps, and evicts the `evicted` oldest completions that have not expired.
    SweepReport sweep(std::size_t unanswered_max, bool dry_run, std::uint64_t evicted = 0) {
        const std::vector<Name> oldest = oldest_completions(evicted);
        SweepReport report;
        report.now_ms = now_ms;
        report.evicted = oldest.size();
        std::map<std::string, SweptNamespace> namespaces;
        std::map<std::uint64_t, UnansweredClaim> unanswered;
        Streams left;
        for (const auto& [name, stream] : streams_) {
            SweptNamespace& row = namespaces[name.first];
            row.ns = name.first;
            if (!goes(stream) && std::ranges::find(oldest, name) == oldest.end()) {
                ++row.retained[stream.state];
                left.emplace(name, stream);
                continue;
            }
            ++row.removed[stream.state];
            if (stream.state == State::in_flight) {
                unanswered[stream.changed] = unanswered_claim(name, stream);
            }
        }
        for (const auto& [ns, row] : namespaces) {
            report.removed += row.removed;
            report.retained += row.retained;
            if (row.removed.total() != 0) {
                report.namespaces.push_back(row);
            }
        }
        for (const auto& [changed, claim] : unanswered) {
            if (report.unanswered.size() < unanswered_max) {
                report.unanswered.push_back(claim);
            }
        }
        for (const auto& [name, stream] : left) {
            const std::int64_t expiry_ms = stream.expires_at_ms;
            if (expiry_ms != 0 && expiry_ms < report.next_expiry_ms.value_or(INT64_MAX)) {
                report.next_expiry_ms = expiry_ms;
            }
        }
        if (!dry_run) {
            streams_ = std::move(left);
        }
        return report;
    }

  private:
    [[nodiscard]] bool expired(const ModelStream& stream) const {
        return stream.expires_at_ms != 0 && now_ms > stream.expires_at_ms + kModelGraceMs;
    }

    // What a sweep removes.
    [[nodiscard]] bool goes(const ModelStream& stream) const {
        return !withheld() && expired(stream);
    }

    ModelStream& touch(ModelStream& stream) {
        stream.changed = ++changes_;
        return stream;
    }

    [[nodiscard]] std::vector<Name> oldest_completions(std::uint64_t count) const {
        std::map<std::uint64_t, Name> completions;
        for (const auto& [name, stream] : streams_) {
            if (stream.state == State::completed && !goes(stream)) {
                completions[stream.changed] = name;
            }
        }
        std::vector<Name> oldest;
        for (const auto& [changed, name] : completions) {
            if (oldest.size() < count) {
                oldest.push_back(name);
            }
        }
        return oldest;
    }

    static UnansweredClaim unanswered_claim(const Name& name, const ModelStream& stream) {
        return {.ns = name.first,
                .key = name.second,
                .owner = stream.owner,
                .claim_sequence = stream.fence,
                .claimed_at_ms = stream.since_ms,
                .expired_at_ms = stream.expires_at_ms,
                .attempt = stream.attempt,
                .event_id = {},
                .note = {}};
    }

    Streams streams_;
    std::uint64_t changes_ = 0;
};

}  // namespace dedup::test
