#include "log/manifest.hpp"

#include "env/bytes.hpp"

namespace dedup {
namespace {

// The layout; docs/format.md is the normative page.
// A clock's history comes first, if there is one: how many jumps and resets, u32 each, and those.
constexpr std::size_t kClockCountsBytes = 8;
constexpr std::size_t kJumpBytes = 32;
constexpr std::size_t kResetBytes = 48;
constexpr std::size_t kExpiredBeforeAt = 0;  // i64
constexpr std::size_t kEvictedBeforeAt = 8;  // u64
constexpr std::size_t kSequenceAt = 16;      // u64
constexpr std::size_t kStepsAt = 24;         // u64
constexpr std::size_t kTimeHighAt = 32;      // i64
constexpr std::size_t kSegmentsAt = 40;      // u64 id and u64 length of each
constexpr std::size_t kSegmentBytes = 16;
constexpr std::size_t kGivenUpBytes = 8;  // u64 behind them, unless it is 0

std::unexpected<Error> malformed_manifest(std::string_view what) {
    return std::unexpected(Error{Code::corruption, "malformed manifest: " + std::string(what)});
}

template <class T>
void add(std::string& bytes, T value) {
    bytes.append(sizeof value, '\0');
    store(bytes.data() + bytes.size() - sizeof value, value);
}

template <class T>
T take(std::string_view& bytes) {
    const T value = load<T>(bytes.data());
    bytes.remove_prefix(sizeof value);
    return value;
}

std::string encode_clock(const ClockHistory& clock) {
    std::string bytes;
    add(bytes, static_cast<std::uint32_t>(clock.jumps.size()));
    add(bytes, static_cast<std::uint32_t>(clock.resets.size()));
    for (const ClockJump& jump : clock.jumps) {
        add(bytes, jump.from_ms);
        add(bytes, jump.to_ms);
        add(bytes, jump.sequence);
        add(bytes, std::uint64_t{jump.settled});
    }
    for (const ClockReset& reset : clock.resets) {
        add(bytes, reset.from_ms);
        add(bytes, reset.to_ms);
        add(bytes, reset.wrong_after);
        add(bytes, reset.sequence);
        add(bytes, reset.segment);
        add(bytes, std::uint64_t{reset.finished});
    }
    return bytes;
}

// Takes a clock's history off the front of `bytes`. False: it is malformed.
bool take_clock(std::string_view& bytes, ClockHistory& clock) {
    if (bytes.size() < kClockCountsBytes) {
        return false;
    }
    const auto jumps = take<std::uint32_t>(bytes);
    const auto resets = take<std::uint32_t>(bytes);
    if (jumps > kClockEventsMax || resets > kClockEventsMax || jumps + resets == 0 ||
        bytes.size() < jumps * kJumpBytes + resets * kResetBytes) {
        return false;
    }
    bool good = true;
    for (std::uint32_t i = 0; i < jumps; ++i) {
        ClockJump& jump = clock.jumps.emplace_back();
        jump.from_ms = take<std::int64_t>(bytes);
        jump.to_ms = take<std::int64_t>(bytes);
        jump.sequence = take<std::uint64_t>(bytes);
        const auto settled = take<std::uint64_t>(bytes);
        jump.settled = settled != 0;
        good = good && jump.from_ms >= 0 && jump.to_ms > jump.from_ms && settled <= 1;
    }
    for (std::uint32_t i = 0; i < resets; ++i) {
        ClockReset& reset = clock.resets.emplace_back();
        reset.from_ms = take<std::int64_t>(bytes);
        reset.to_ms = take<std::int64_t>(bytes);
        reset.wrong_after = take<std::uint64_t>(bytes);
        reset.sequence = take<std::uint64_t>(bytes);
        reset.segment = take<std::uint64_t>(bytes);
        const auto finished = take<std::uint64_t>(bytes);
        reset.finished = finished != 0;
        good = good && reset.to_ms > 0 && reset.from_ms > reset.to_ms &&
               reset.wrong_after <= reset.sequence && finished <= 1;
    }
    return good;
}

}  // namespace

std::string encode_manifest(const Manifest& manifest) {
    std::string bytes(kSegmentsAt + manifest.segments.size() * kSegmentBytes +
                          (manifest.given_up == 0 ? 0 : kGivenUpBytes),
                      '\0');
    store(bytes.data() + kExpiredBeforeAt, manifest.horizon.expired_before_ms);
    store(bytes.data() + kEvictedBeforeAt, manifest.horizon.evicted_before);
    store(bytes.data() + kSequenceAt, manifest.horizon.sequence);
    store(bytes.data() + kStepsAt, manifest.steps);
    store(bytes.data() + kTimeHighAt, manifest.time_high_ms);
    char* to = bytes.data() + kSegmentsAt;
    for (const auto& [id, length] : manifest.segments) {
        store(to, id);
        store(to + sizeof id, length);
        to += kSegmentBytes;
    }
    if (manifest.given_up != 0) {
        store(to, manifest.given_up);
    }
    if (manifest_kind(manifest) == FrameKind::clock_manifest) {
        bytes.insert(0, encode_clock(manifest.clock));
    }
    return bytes;
}

Result<Manifest> decode_manifest(const Frame& frame) {
    std::string_view bytes = frame.body;
    Manifest manifest;
    if (frame.header.kind == FrameKind::clock_manifest && !take_clock(bytes, manifest.clock)) {
        return malformed_manifest("its history of the clock makes no sense");
    }
    if (bytes.size() < kSegmentsAt || (bytes.size() - kSegmentsAt) % kGivenUpBytes != 0 ||
        frame.header.records != 0) {
        return malformed_manifest("its length is wrong, or it has records");
    }
    manifest.horizon.expired_before_ms = load<std::int64_t>(bytes.data() + kExpiredBeforeAt);
    manifest.horizon.evicted_before = load<std::uint64_t>(bytes.data() + kEvictedBeforeAt);
    manifest.horizon.sequence = load<std::uint64_t>(bytes.data() + kSequenceAt);
    manifest.steps = load<std::uint64_t>(bytes.data() + kStepsAt);
    manifest.time_high_ms = load<std::int64_t>(bytes.data() + kTimeHighAt);
    std::size_t at = kSegmentsAt;
    for (; at + kSegmentBytes <= bytes.size(); at += kSegmentBytes) {
        const auto id = load<std::uint64_t>(bytes.data() + at);
        if (id <= (manifest.segments.empty() ? 0 : manifest.segments.back().id)) {
            return malformed_manifest("its segments are out of order");
        }
        manifest.segments.push_back({id, load<std::uint64_t>(bytes.data() + at + sizeof id)});
    }
    if (at < bytes.size()) {
        manifest.given_up = load<std::uint64_t>(bytes.data() + at);
        if (manifest.given_up == 0) {
            return malformed_manifest("it gives up segment 0");
        }
    }
    return manifest;
}

}  // namespace dedup
