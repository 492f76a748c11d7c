#include <algorithm>
#include <utility>
#include <vector>

#include "engine/count.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

// The entries of a segment that seem to expire first, some at a time and each time more: in the
// order of expiry step and sequence, which no two entries share.
class Earliest {
  public:
    void offer(const IndexEntry& entry) {
        if (entry.expiry() == kExpiryNever || !(after_ < key(entry))) {
            return;
        }
        entries_.push_back(entry);
        if (entries_.size() == 2 * wanted_) {
            cut();
        }
    }
    // The next ones, in order. Empty: that was all.
    [[nodiscard]] std::vector<IndexEntry> take() {
        cut();
        std::ranges::sort(entries_, {}, key);
        if (!entries_.empty()) {
            after_ = key(entries_.back());
        }
        wanted_ = std::min(wanted_ * 4, kWantedMax);
        return std::exchange(entries_, {});
    }

  private:
    static constexpr std::size_t kWantedMax = 256 * 1024;

    using Key = std::pair<std::uint32_t, std::uint64_t>;
    static Key key(const IndexEntry& entry) { return {entry.expiry(), entry.sequence}; }
    void cut() {
        if (entries_.size() > wanted_) {
            std::ranges::nth_element(
                entries_, entries_.begin() + static_cast<std::ptrdiff_t>(wanted_), {}, key);
            entries_.resize(wanted_);
        }
    }

    std::vector<IndexEntry> entries_;
    std::size_t wanted_ = 1024;
    Key after_{0, 0};
};

// Lowers `best` to the expiry of the stream at `entry`, if that is its head, and left.
Result<void> lower_expiry(const Reader& reader, const View& view, const Horizon& horizon,
                          const Segment& segment, const IndexEntry& entry, std::int64_t& best) {
    FrameBuffer buffer;
    Located at;
    if (const auto read = reader.read_entry(segment, entry, at, buffer); !read || !*read) {
        return read ? Result<void>() : std::unexpected(read.error());
    }
    const std::int64_t expires_at_ms = at.record.expires_at_ms;
    if (expires_at_ms >= best ||
        horizon.removes(at.record.state(), entry.sequence, expires_at_ms)) {
        return {};
    }
    const auto head = reader.was_head(view, at, UINT64_MAX);
    if (!head) {
        return std::unexpected(head.error());
    }
    best = *head ? expires_at_ms : best;
    return {};
}

}  // namespace

Result<std::optional<std::int64_t>> next_expiry(const Reader& reader, const View& view,
                                                const Horizon& horizon) {
    std::vector<Part> all = reader.parts(view);
    std::erase_if(all, [&](const Part& part) {
        return !part.may_live() ||
               (part.sealed != nullptr && part.row.expires_max_ms < horizon.expired_before_ms);
    });
    std::ranges::sort(all, {}, [](const Part& part) { return part.row.expires_min_ms; });
    std::int64_t best = INT64_MAX;
    for (const Part& part : all) {
        Earliest earliest;
        for (bool more = part.row.expires_min_ms < best; more;) {
            auto visited = reader.visit_entries(part, [&](const IndexEntry& entry) {
                if (!horizon.surely_removes(entry)) {
                    earliest.offer(entry);
                }
                return Result<void>();
            });
            if (!visited) {
                return std::unexpected(visited.error());
            }
            const std::vector<IndexEntry> entries = earliest.take();
            more = !entries.empty();
            for (const IndexEntry& entry : entries) {
                if (std::max(expiry_step_start(entry.expiry()), part.row.expires_min_ms) >= best) {
                    more = false;
                    break;
                }
                auto checked = lower_expiry(reader, view, horizon, *part.segment, entry, best);
                if (!checked) {
                    return std::unexpected(checked.error());
                }
            }
        }
    }
    return best == INT64_MAX ? std::nullopt : std::optional(best);
}

}  // namespace dedup
