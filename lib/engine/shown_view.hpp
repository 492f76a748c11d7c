// The view that a store shows, and the numbers that go with it.
//
// Who changes either holds the lock, as a ShownView::Access; it is never held during I/O, except by
// a read-only store that takes up what its writer has added. Lookups do not take it: they go
// through gates (see ReaderGates), of which a change of the newest delta closes all.
//
// Invariants:
//   - A view that was published never changes, but for the newest unsealed segment: its delta grows
//     behind closed gates, and its numbers under the lock.
//   - Of the segments of a view, unsealed ones are newer than sealed ones.
//   - The numbers of the newest segment are of the records that lookups see, of no other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/reader_gates.hpp"
#include "engine/view.hpp"
#include "env/mutex.hpp"

namespace dedup {

class ShownView {
  public:
    class Access;

    // Any thread, without the lock. Null: the store has been closed.
    [[nodiscard]] ViewPtr view() const { return gates_.view(); }
    // The same; runs read(view) before anybody can change the newest delta.
    template <class Read>
    [[nodiscard]] ViewPtr view(Read read) const {
        return gates_.view(std::move(read));
    }
    // Runs `read` while nobody changes the newest delta.
    template <class Read>
    auto shared(Read read) const {
        return gates_.shared(std::move(read));
    }
    // For all but the one who has the turn, as only that changes the newest delta.
    [[nodiscard]] UnsealedEntries shared_probe(const View& view, const StreamId& id) const {
        return shared([&] { return probe(view, id); });
    }

    // The view and its numbers at one moment. The view is null if the store has been closed.
    [[nodiscard]] Now now() const;
    // Of the manifest that holds; see Manifest::steps. 0 if the store has been closed.
    [[nodiscard]] std::uint64_t steps() const;
    // All segments of a view, oldest first, with their numbers at one moment.
    [[nodiscard]] std::vector<Part> parts(const View& view) const;

    // Makes room in the newest delta for so many records: showing what has been written must not
    // fail. For who has the turn.
    void expect_entries(std::size_t records);

  private:
    mutable Mutex mutex_;
    ViewPtr view_ DEDUP_GUARDED_BY(mutex_);
    // Of the last record that lookups see.
    std::uint64_t applied_sequence_ DEDUP_GUARDED_BY(mutex_) = 0;
    ReaderGates<View> gates_;  // taken after mutex_
};

// Holds the lock for a scope.
class ShownView::Access {
  public:
    explicit Access(ShownView& shown) : shown_(shown), lock_(shown.mutex_) {}

    [[nodiscard]] const ViewPtr& view() const DEDUP_ANNOTATION(no_thread_safety_analysis) {
        return shown_.view_;
    }
    // The newest segment of the view.
    [[nodiscard]] Unsealed& newest() const { return *view()->unsealed.front(); }
    [[nodiscard]] UnsealedNumbers numbers() const;

    // Shows another view; none, when the store closes. May run out of memory; then nothing has
    // changed.
    void publish(ViewPtr view) DEDUP_ANNOTATION(no_thread_safety_analysis) {
        shown_.gates_.publish(view);
        shown_.view_ = std::move(view);
    }
    // Runs `change` while no lookup looks into the newest delta.
    template <class Change>
    auto exclusive(Change change) const {
        return shown_.gates_.exclusive(std::move(change));
    }

    [[nodiscard]] std::uint64_t applied_sequence() const
        DEDUP_ANNOTATION(no_thread_safety_analysis) {
        return shown_.applied_sequence_;
    }
    void raise_applied_sequence(std::uint64_t to) DEDUP_ANNOTATION(no_thread_safety_analysis) {
        shown_.applied_sequence_ = std::max(shown_.applied_sequence_, to);
    }

  private:
    ShownView& shown_;
    MutexLock lock_;
};

}  // namespace dedup
