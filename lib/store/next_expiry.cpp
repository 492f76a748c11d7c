// The earliest expiry that is left: when the next sweep has something to remove.

#include <algorithm>
#include <map>
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
    std::map<std::uint64_t, std::int64_t> expires_min_ms;  // of sealed segments
    for (const Entries& entries : all_entries(view)) {
        std::int64_t min_ms = entries.expires_min_ms;
        if (const auto known = looked_expires_min_ms_.find(entries.segment->id());
            entries.sealed != nullptr && known != looked_expires_min_ms_.end()) {
            min_ms = known->second;
        }
        if (min_ms < next.expired_before_ms && entries.may_live) {
            min_ms = INT64_MAX;
            const auto done = visit_entries(entries, [&](const IndexEntry& entry) -> Result<void> {
                if (entry.expiry() != kExpiryNever && !next.surely_removes(entry)) {
                    min_ms = std::min(min_ms, expiry_step_start(entry.expiry()));
                }
                if (view.horizon.surely_removes(entry) || looked_to_.surely_removes(entry)) {
                    return {};
                }
                auto looked = find_removed(view, *entries.segment, entry, next, UINT64_MAX,
                                           [&](const Located& at) {
                                               removes = removes || !removed(view, at);
                                               return Result<void>();
                                           });
                return looked && removes ? std::unexpected(found_one) : looked;
            });
            if (!done) {
                return removes ? Result<bool>(true) : std::unexpected(done.error());
            }
        }
        if (entries.sealed != nullptr) {
            expires_min_ms.emplace(entries.segment->id(), min_ms);
        }
    }
    looked_to_ = next;
    looked_expires_min_ms_ = std::move(expires_min_ms);
    return false;
}

// The earliest expiry of a stream that `horizon` leaves. Segments are looked through in the order
// in which something in them may expire, until none can expire sooner.
Result<std::optional<std::int64_t>> LogStore::next_expiry(const View& view,
                                                          const Horizon& horizon) const {
    std::vector<Entries> all = all_entries(view);
    std::erase_if(all, [&](const Entries& entries) {
        return !entries.may_live ||
               (entries.sealed != nullptr && entries.expires_max_ms < horizon.expired_before_ms);
    });
    std::ranges::sort(all, {}, &Entries::expires_min_ms);
    std::int64_t best = INT64_MAX;
    for (const Entries& part : all) {
        Earliest earliest;
        for (bool more = part.expires_min_ms < best; more;) {
            auto visited = visit_entries(part, [&](const IndexEntry& entry) {
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
                if (std::max(expiry_step_start(entry.expiry()), part.expires_min_ms) >= best) {
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
