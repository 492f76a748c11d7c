#include "engine/head_search.hpp"

#include <algorithm>
#include <utility>

namespace dedup {

HeadSearch::HeadSearch(const View& view, const StreamId& id, UnsealedEntries unsealed)
    : view_(view), id_(id), bits_(id), unsealed_(std::move(unsealed)) {
    if (unsealed_.newest.segment != nullptr) {
        unsealed_.newest.segment->prefetch(unsealed_.newest.entry.offset);
    } else {
        step_ = Step::runs;
    }
}

void HeadSearch::ask_runs() {
    if (view_.sealed->absent().has(id_)) {
        known_ = true;
        step_ = Step::none;
        return;
    }
    const auto& runs = view_.sealed->runs();
    for (std::size_t i = 0; i < std::min(runs.size(), kRunsAtOnce); ++i) {
        const bool hit = runs[runs.size() - 1 - i].filters->may_have(id_, bits_);
        hits_ |= std::uint64_t{hit} << i;
    }
    run_ = runs.size();
    step_ = Step::filters;
}

bool HeadSearch::may_be_in(std::size_t run) const {
    const auto& runs = view_.sealed->runs();
    const std::size_t from_newest = runs.size() - 1 - run;
    return from_newest < kRunsAtOnce ? (hits_ >> from_newest & 1) != 0
                                     : runs[run].filters->may_have(id_, bits_);
}

void HeadSearch::ask_filters() {
    const auto& runs = view_.sealed->runs();
    while (filter_ > 0 || run_ > 0) {
        if (filter_ == 0) {
            --run_;
            filter_ = may_be_in(run_) ? runs[run_].filters->filters().size() : 0;
        } else if (--filter_; bits_.in(runs[run_].filters->filters()[filter_])) {
            sealed_ = &view_.sealed->segments()[runs[run_].begin + filter_];
            sealed_->index.prefetch_fence(id_);
            step_ = Step::fences;
            return;
        }
    }
    step_ = Step::none;
}

void HeadSearch::find_place() {
    const auto guess = sealed_->index.guess(id_);
    at_ = guess.value_or(0);
    step_ = guess ? Step::entries : Step::damaged;
}

void HeadSearch::find_entry() {
    const auto first = sealed_->index.lower_bound(id_, at_);
    if (!first) {
        step_ = Step::damaged;
        return;
    }
    at_ = *first;
    look_at_entry();
}

// Whether the entry at at_ is one of the stream's id.
void HeadSearch::look_at_entry() {
    if (at_ == sealed_->index.size()) {
        step_ = Step::filters;
        return;
    }
    const auto entry = sealed_->index.entry(at_);
    if (!entry) {
        step_ = Step::damaged;
    } else if (entry->id != id_) {
        step_ = Step::filters;
    } else {
        entry_ = *entry;
        sealed_->segment->prefetch(entry_.offset);
        known_ = true;
        step_ = Step::found;
    }
}

void HeadSearch::step() {
    switch (step_) {
        case Step::runs:
            return ask_runs();
        case Step::filters:
            return ask_filters();
        case Step::fences:
            return find_place();
        case Step::entries:
            return find_entry();
        case Step::next_entry:
            ++at_;
            return look_at_entry();
        case Step::unsealed:
        case Step::found:
        case Step::none:
        case Step::damaged:
            return;
    }
}

std::expected<bool, const SealedSegment*> HeadSearch::next(Located& at) {
    if (step_ == Step::unsealed) {
        if (unsealed_given_ <= unsealed_.older.size()) {
            const UnsealedEntry& candidate =
                unsealed_given_ == 0 ? unsealed_.newest : unsealed_.older[unsealed_given_ - 1];
            ++unsealed_given_;
            at.segment = candidate.segment;
            at.entry = candidate.entry;
            return true;
        }
        step_ = Step::runs;
    }
    while (step_ != Step::found && step_ != Step::none && step_ != Step::damaged) {
        step();
    }
    if (step_ == Step::damaged) {
        return std::unexpected(sealed_);
    }
    if (step_ == Step::none) {
        if (!known_) {
            view_.sealed->absent().add(id_);
        }
        return false;
    }
    step_ = Step::next_entry;
    at.segment = sealed_->segment.get();
    at.entry = entry_;
    return true;
}

}  // namespace dedup
