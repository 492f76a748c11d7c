#include "log/manifest.hpp"

#include "env/bytes.hpp"

namespace dedup {
namespace {

// The layout; docs/format.md is the normative page.
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
    return bytes;
}

Result<Manifest> decode_manifest(const Frame& frame) {
    const std::string_view bytes = frame.body;
    if (bytes.size() < kSegmentsAt || (bytes.size() - kSegmentsAt) % kGivenUpBytes != 0 ||
        frame.header.records != 0) {
        return malformed_manifest("its length is wrong, or it has records");
    }
    Manifest manifest;
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
