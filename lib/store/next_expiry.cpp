// The earliest expiry that is left: when the next sweep has something to remove.

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "store/log_store.hpp"

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

}  // namespace

// Whether `next` removes a stream that the view's horizon leaves. An idle store has none, and then
// a sweep writes nothing; nor does it look again at what it has looked at before. Under
// sweep_mutex_.
Result<bool> LogStore::removes_more(const View& view, const Horizon& next) {
    const Error found_one{Code::unavailable, "one is enough"};
    bool removes = false;
    const auto look_at = [&](const Segment& segment, const IndexEntry& entry) -> Result<void> {
        if (view.horizon.surely_removes(entry) || looked_to_.surely_removes(entry)) {
            return {};
        }
        auto looked = find_removed(view, segment, entry, next, UINT64_MAX, [&](const Located& at) {
            removes = removes || !removed(view, at);
            return Result<void>();
        });
        return looked && removes ? std::unexpected(found_one) : looked;
    };
    Result<void> done;
    for (const auto& unsealed : view.unsealed) {
        const auto [size, min_ms] = readers_.shared(
            [&] { return std::pair(unsealed->delta.size(), unsealed->row.expires_min_ms); });
        if (!done || min_ms >= next.expired_before_ms) {
            continue;
        }
        done = visit_entries(*unsealed, size, [&](const IndexEntry& entry) {
            return look_at(*unsealed->segment, entry);
        });
    }
    std::map<std::uint64_t, std::int64_t> expires_min_ms;
    for (const SealedSegment& sealed : view.sealed->segments()) {
        const std::uint64_t id = sealed.row.id;
        const auto known = looked_expires_min_ms_.find(id);
        std::int64_t& min_ms = expires_min_ms[id];
        min_ms = known == looked_expires_min_ms_.end() ? sealed.row.expires_min_ms : known->second;
        if (!done || min_ms >= next.expired_before_ms || sealed.row.live().total() == 0) {
            continue;
        }
        min_ms = INT64_MAX;
        done = visit_entries(sealed, [&](const IndexEntry& entry) {
            if (entry.expiry() != kExpiryNever && !next.surely_removes(entry)) {
                min_ms = std::min(min_ms, expiry_step_start(entry.expiry()));
            }
            return look_at(*sealed.segment, entry);
        });
    }
    if (done) {
        looked_to_ = next;
        looked_expires_min_ms_ = std::move(expires_min_ms);
    }
    return removes || done ? Result<bool>(removes) : std::unexpected(done.error());
}

// The earliest expiry of a stream that `horizon` leaves. Segments are looked through in the order
// in which something in them may expire, until none can expire sooner.
Result<std::optional<std::int64_t>> LogStore::next_expiry(const View& view,
                                                          const Horizon& horizon) const {
    using Visit = std::function<Result<void>(const IndexEntry&)>;
    struct Part {
        std::int64_t bound;
        const Segment* segment;
        std::function<Result<void>(const Visit&)> visit;
    };
    std::vector<Part> parts;
    for (const SealedSegment& sealed : view.sealed->segments()) {
        if (sealed.row.expires_max_ms < horizon.expired_before_ms ||
            sealed.row.live().total() == 0) {
            continue;
        }
        parts.push_back({sealed.row.expires_min_ms, sealed.segment.get(),
                         [&](const Visit& visit) { return visit_entries(sealed, visit); }});
    }
    {
        const std::lock_guard lock(view_mutex_);
        for (const auto& unsealed : view.unsealed) {
            const std::size_t size = unsealed->delta.size();
            parts.push_back(
                {unsealed->row.expires_min_ms, unsealed->segment.get(),
                 [&, size](const Visit& visit) { return visit_entries(*unsealed, size, visit); }});
        }
    }
    std::ranges::sort(parts, {}, &Part::bound);
    std::int64_t best = INT64_MAX;
    for (const Part& part : parts) {
        Earliest earliest;
        for (bool more = part.bound < best; more;) {
            auto visited = part.visit([&](const IndexEntry& entry) {
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
                if (std::max(expiry_step_start(entry.expiry()), part.bound) >= best) {
                    more = false;
                    break;
                }
                auto checked = lower_expiry(view, horizon, *part.segment, entry, best);
                if (!checked) {
                    return std::unexpected(checked.error());
                }
            }
        }
    }
    return best == INT64_MAX ? std::nullopt : std::optional(best);
}

// Lowers `best` to the expiry of the stream at `entry`, if that is its head, and left.
Result<void> LogStore::lower_expiry(const View& view, const Horizon& horizon,
                                    const Segment& segment, const IndexEntry& entry,
                                    std::int64_t& best) const {
    FrameBuffer buffer;
    Located at;
    if (const auto read = read_entry(segment, entry, at, buffer); !read || !*read) {
        return read ? Result<void>() : std::unexpected(read.error());
    }
    const std::int64_t expires_at_ms = at.record.expires_at_ms;
    if (expires_at_ms >= best ||
        horizon.removes(at.record.state(), entry.sequence, expires_at_ms)) {
        return {};
    }
    const auto head = was_head(view, at, UINT64_MAX);
    if (!head) {
        return std::unexpected(head.error());
    }
    best = *head ? expires_at_ms : best;
    return {};
}

}  // namespace dedup
