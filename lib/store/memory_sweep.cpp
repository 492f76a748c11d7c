#include "store/memory_sweep.hpp"

#include <algorithm>

#include "store/sweep_tally.hpp"

namespace dedup {
namespace {

constexpr std::uint64_t kEvictedPartOfKeys = 64;  // at least this part of keys_max goes at a time

bool within(std::uint64_t limit, std::uint64_t held, std::uint64_t wanted) {
    return limit == 0 || (held <= limit && wanted <= limit - held);
}

void take_from(Room& room, const MemoryStreams::Stream& stream) {
    --room.keys;
    for (const Record& record : stream.second) {
        room.bytes -= memory_bytes(record);
    }
}

}  // namespace

bool fits(const Capacity& capacity, const Room& held, const Room& wanted) {
    return within(capacity.keys_max, held.keys, wanted.keys) &&
           within(capacity.bytes_max, held.bytes, wanted.bytes);
}

std::vector<std::uint64_t> choose_expired(const MemoryStreams& streams, std::int64_t time_ms,
                                          std::chrono::milliseconds grace) {
    std::vector<std::uint64_t> chosen;
    for (const auto& [sequence, stream] : streams.by_head()) {
        if (expired(stream->second.back().expires_at_ms, time_ms, grace)) {
            chosen.push_back(sequence);
        }
    }
    return chosen;
}

std::vector<std::uint64_t> choose_evicted(const MemoryStreams& streams,
                                          const std::vector<std::uint64_t>& expired,
                                          const Capacity& capacity, const Room& wanted) {
    Room left{streams.size(), streams.bytes()};
    for (const std::uint64_t sequence : expired) {
        take_from(left, *streams.by_head().at(sequence));
    }
    std::vector<std::uint64_t> chosen;
    if (fits(capacity, left, wanted)) {
        return chosen;
    }
    for (const auto& [sequence, stream] : streams.by_head()) {
        if (fits(capacity, left, wanted) &&
            chosen.size() >= capacity.keys_max / kEvictedPartOfKeys) {
            break;
        }
        if (stream->second.back().state() == State::completed &&
            !std::ranges::binary_search(expired, sequence)) {
            take_from(left, *stream);
            chosen.push_back(sequence);
        }
    }
    return fits(capacity, left, wanted) ? chosen : std::vector<std::uint64_t>();
}

SweepReport report_of(const MemoryStreams& streams, const Removal& removal,
                      std::size_t unanswered_max) {
    SweepReport report;
    SweepTally tally(unanswered_max);
    for (const auto& [sequence, stream] : streams.by_head()) {
        const Record& head = stream->second.back();
        const bool evicted = std::ranges::binary_search(removal.evicted, sequence);
        if (evicted || std::ranges::binary_search(removal.expired, sequence)) {
            tally.remove(head, evicted);
            report.records_dropped += stream->second.size();
        } else {
            tally.retain(head);
        }
    }
    report.records_scanned = streams.size();
    tally.write(report);
    return report;
}

}  // namespace dedup
