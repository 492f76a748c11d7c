// A store that is open for reading: it follows what its writer makes durable, and changes nothing.
//
// Invariants:
//   - What it shows is durable, and is what the store was at one moment. So a catalog that is newer
//     than the log that has been read, or the other way round, is shown only as far as both agree.
//   - A catalog is shown together with all of the log behind it: what a sweep has moved from a
//     segment that it then dropped is there.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/log_clock.hpp"
#include "engine/reader.hpp"
#include "engine/store_catalog.hpp"
#include "env/mutex.hpp"

namespace dedup {

class Follower {
  public:
    Follower(StoreContext& context, ShownView& shown, const Reader& reader, StoreCatalog& catalog,
             LogClock& clock)
        : context_(context), shown_(shown), reader_(reader), catalog_(catalog), clock_(clock) {}

    [[nodiscard]] Result<void> open();
    // Takes up what the writer has made durable. Any thread; before each read.
    // Errors: closed, failed (the catalog was made anew, or a flush failed), unavailable (the
    // writer is too fast), corruption, io.
    [[nodiscard]] Result<void> follow();
    // Of the newest segment when the store was opened.
    [[nodiscard]] std::uint64_t torn_bytes() const { return torn_bytes_; }
    // Waits for who follows now.
    void close() { const MutexLock lock(mutex_); }

  private:
    // What is new: the parts that a follow puts together before it shows them.
    struct News {
        SnapshotPtr sealed;          // null: as shown
        std::shared_ptr<View> view;  // with more segments; null: as shown
    };

    Result<void> try_to_open(std::vector<std::uint64_t>& ids);
    [[nodiscard]] bool writer_went_on(const std::vector<std::uint64_t>& ids) const;
    Result<bool> try_to_follow() DEDUP_REQUIRES(mutex_);
    Result<void> follow_catalog(News& news);
    Result<bool> follow_segments(News& news) DEDUP_REQUIRES(mutex_);
    Result<bool> show(News& news) DEDUP_REQUIRES(mutex_);
    Result<void> take_up(ShownView::Access& shown, Unsealed& newest);
    Result<std::uint64_t> next_segment(std::uint64_t previous_id) DEDUP_REQUIRES(mutex_);

    StoreContext& context_;
    ShownView& shown_;
    const Reader& reader_;
    StoreCatalog& catalog_;
    LogClock& clock_;
    std::uint64_t torn_bytes_ = 0;

    Mutex mutex_;  // one thread follows at a time; taken before the view's lock
    // Of the manifest that the view goes with.
    std::uint64_t followed_steps_ DEDUP_GUARDED_BY(mutex_) = UINT64_MAX;
    // Of the catalog, before the log's segments were listed and none came behind the newest. (Not
    // the version that is shown: a segment may have come and gone before that.)
    std::uint64_t log_end_version_ DEDUP_GUARDED_BY(mutex_) = UINT64_MAX;
};

}  // namespace dedup
