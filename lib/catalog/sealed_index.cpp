#include "catalog/sealed_index.hpp"

#include <algorithm>

#include "env/bytes.hpp"

namespace dedup {
namespace {

// Bisection takes over when interpolation has had this many steps, so that no contents can make a
// search long.
constexpr int kInterpolationsMax = 8;
// Below this many entries (four cache lines) a walk is cheaper than another guess.
constexpr std::uint64_t kWalkEntries = 8;

__extension__ using Uint128 = unsigned __int128;

// How many of `entries` lie in a `distance` of the id space.
std::uint64_t share(std::uint64_t distance, std::uint64_t entries) {
    return static_cast<std::uint64_t>((static_cast<Uint128>(distance) * entries) >> 64);
}

}  // namespace

std::optional<IndexEntry> SealedIndex::entry(std::uint64_t i) const {
    const std::uint64_t offset = i * sizeof(IndexEntry);
    if (!blob_.intact(offset)) {
        return std::nullopt;
    }
    return load<IndexEntry>(blob_.data() + offset);
}

std::optional<std::uint64_t> SealedIndex::lower_bound(const StreamId& id) const {
    // Invariant: the answer lies in [low, high].
    std::uint64_t low = 0;
    std::uint64_t high = entries_;
    std::uint64_t guess = share(id.xxh, entries_);
    for (int steps = 0; high - low > kWalkEntries; ++steps) {
        if (steps >= kInterpolationsMax) {
            guess = low + (high - low) / 2;
        }
        guess = std::clamp(guess, low, high - 1);
        const auto found = entry(guess);
        if (!found) {
            return std::nullopt;
        }
        // The next guess aims past the answer by a few entries, on the side that closes the
        // bracket.
        const std::uint64_t at = guess;
        if (found->id < id) {
            low = at + 1;
            guess = at + share(id.xxh - found->id.xxh, entries_) + kWalkEntries / 2;
        } else {
            high = at;
            const std::uint64_t back = share(found->id.xxh - id.xxh, entries_) + kWalkEntries / 2;
            guess = at > back ? at - back : 0;
        }
    }
    while (low < high) {
        const auto found = entry(low);
        if (!found) {
            return std::nullopt;
        }
        if (!(found->id < id)) {
            break;
        }
        ++low;
    }
    return low;
}

}  // namespace dedup
