#include "engine/shown_view.hpp"

namespace dedup {
namespace {

UnsealedNumbers numbers_of(const View& view, std::uint64_t sequence) {
    UnsealedNumbers numbers;
    numbers.sequence = sequence;
    for (const auto& unsealed : view.unsealed) {
        numbers.parts.push_back({unsealed, unsealed->streams, unsealed->delta.size(), unsealed->row,
                                 unsealed->delta.memory_bytes()});
        for (const auto& [id, tally] : unsealed->superseded) {
            add(numbers.superseded[id], tally);
        }
        for (const auto& [id, tally] : unsealed->reclaimed) {
            add(numbers.reclaimed[id], tally);
        }
    }
    return numbers;
}

}  // namespace

Now ShownView::now() const {
    Now now;
    const MutexLock lock(mutex_);
    now.view = view_;
    if (view_) {
        now.unsealed = numbers_of(*view_, applied_sequence_);
    }
    return now;
}

std::uint64_t ShownView::steps() const {
    const MutexLock lock(mutex_);
    return view_ ? view_->unsealed.front()->manifest.steps : 0;
}

std::vector<Part> ShownView::parts(const View& view) const {
    std::vector<Part> parts;
    parts.reserve(view.sealed->segments().size() + view.unsealed.size());
    for (const SealedSegment& sealed : view.sealed->segments()) {
        parts.push_back({.segment = sealed.segment.get(), .row = sealed.row, .sealed = &sealed});
    }
    const MutexLock lock(mutex_);
    for (auto unsealed = view.unsealed.rbegin(); unsealed != view.unsealed.rend(); ++unsealed) {
        parts.push_back({.segment = (*unsealed)->segment.get(),
                         .row = (*unsealed)->row,
                         .unsealed = unsealed->get(),
                         .entries = (*unsealed)->delta.size()});
    }
    return parts;
}

void ShownView::expect_entries(std::size_t records) {
    const Access shown(*this);
    Delta& delta = shown.newest().delta;
    if (!delta.has_room(records)) {
        shown.exclusive([&] { delta.make_room(records); });
    }
}

UnsealedNumbers ShownView::Access::numbers() const {
    return numbers_of(*view(), applied_sequence());
}

}  // namespace dedup
