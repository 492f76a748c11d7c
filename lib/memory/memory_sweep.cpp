#include "memory/memory_sweep.hpp"

#include <algorithm>

#include "contract/sweep_tally.hpp"

namespace dedup {
namespace {

Room room_of(const MemoryStreams::Stream& stream) {
    Room room{1, 0};
    for (const Record& record : stream.second) {
        room.bytes += memory_bytes(record);
    }
    return room;
}

}  // namespace

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

Usage usage_without(const MemoryStreams& streams, const std::vector<std::uint64_t>& expired) {
    Usage usage;
    for (const auto& [sequence, stream] : streams.by_head()) {
        if (!std::ranges::binary_search(expired, sequence)) {
            const Room room = room_of(*stream);
            usage.live += room;
            usage.evictable += stream->second.back().state() == State::completed ? room : Room();
        }
    }
    usage.held = usage.live;
    return usage;
}

std::vector<std::uint64_t> choose_evicted(const MemoryStreams& streams,
                                          const std::vector<std::uint64_t>& expired,
                                          const Room& evict) {
    std::vector<std::uint64_t> chosen;
    Room gone;
    for (const auto& [sequence, stream] : streams.by_head()) {
        if (gone.keys >= evict.keys && gone.bytes >= evict.bytes) {
            break;
        }
        if (stream->second.back().state() == State::completed &&
            !std::ranges::binary_search(expired, sequence)) {
            gone += room_of(*stream);
            chosen.push_back(sequence);
        }
    }
    return chosen;
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
