// What of the log still counts: which streams have been swept away, and which segments there are.
//
// Every segment begins with a manifest, and a sweep appends one for each of its steps. The last one
// in the newest segment holds. So the log alone says what is gone, whatever becomes of the catalog.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dedup/clock.hpp"
#include "dedup/error.hpp"
#include "dedup/record.hpp"
#include "log/frame.hpp"
#include "log/stream_id.hpp"

namespace dedup {

// The edge behind which streams are gone. It only ever advances.
struct Horizon {
    std::int64_t expired_before_ms = 0;  // heads that expired before this time are gone
    std::uint64_t evicted_before = 0;    // and completed ones with a lower sequence than this
    std::uint64_t sequence = 0;          // if their sequence is at most this

    bool operator==(const Horizon&) const = default;

    // Whether a stream with this head is gone.
    [[nodiscard]] bool removes(State state, std::uint64_t head_sequence,
                               std::int64_t expires_at_ms) const {
        return head_sequence <= sequence &&
               ((expires_at_ms != 0 && expires_at_ms < expired_before_ms) ||
                evicts(state, head_sequence));
    }
    // The same as far as an index entry tells: false if it is certainly not gone.
    [[nodiscard]] bool may_remove(const IndexEntry& head) const {
        return head.sequence <= sequence &&
               (head.expiry() <= expiry_step_of_edge() || evicts(head.state(), head.sequence));
    }

    // True only if a stream with this entry as its head is certainly gone.
    [[nodiscard]] bool surely_removes(const IndexEntry& head) const {
        return head.sequence <= sequence &&
               ((expired_before_ms != 0 && head.expiry() < expiry_step(expired_before_ms)) ||
                evicts(head.state(), head.sequence));
    }

  private:
    [[nodiscard]] bool evicts(State state, std::uint64_t head_sequence) const {
        return state == State::completed && head_sequence < evicted_before;
    }
    [[nodiscard]] std::uint32_t expiry_step_of_edge() const {
        return expired_before_ms == 0 ? 0 : expiry_step(expired_before_ms);
    }
};

struct SegmentLength {
    std::uint64_t id = 0;
    std::uint64_t bytes = 0;

    bool operator==(const SegmentLength&) const = default;
};

struct Manifest {
    Horizon horizon;
    std::uint64_t steps = 0;  // of all sweeps so far; what the catalog knows is compared with this
    std::int64_t time_high_ms = 0;        // the highest time that the store has seen
    std::vector<SegmentLength> segments;  // those before the one it stands in, oldest first
    std::uint64_t given_up = 0;  // the newest segment that its step has taken out; 0: it took none
    ClockHistory clock;

    // Segments before this one tell times from before the clock was reset.
    [[nodiscard]] std::uint64_t time_from_segment() const {
        return clock.resets.empty() ? 0 : clock.resets.back().segment;
    }
};

// Of the frame that the manifest is to be in: a program that does not know the second kind must not
// sweep, and does not open the store.
[[nodiscard]] inline FrameKind manifest_kind(const Manifest& manifest) {
    return manifest.clock == ClockHistory() ? FrameKind::manifest : FrameKind::clock_manifest;
}

[[nodiscard]] std::string encode_manifest(const Manifest& manifest);

// Errors: corruption, which says what is wrong.
[[nodiscard]] Result<Manifest> decode_manifest(const Frame& frame);

}  // namespace dedup
