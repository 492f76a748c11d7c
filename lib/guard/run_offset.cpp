// How a run moves the position of the stream that its events come from.
#include "guard/run.hpp"

namespace dedup {

// Stores `completions`, those of `done`, and moves the position behind the events that are done
// then, in one atomic append. False: nothing of that was stored, as there is no position, or it
// would stay, or something refuses; then each is to be completed for itself.
bool Guard::Run::complete_and_move(std::span<Mine* const> done,
                                   std::span<const Completion> completions) {
    if (options_.stream == nullptr) {
        return false;
    }
    const std::size_t end = done_up_to(done);
    return end > moved_to_ && move_to(end, completions);
}

// Behind whatever is done by now: repetitions, and what could not be completed in one append.
void Guard::Run::move_offset() {
    if (options_.stream == nullptr) {
        return;
    }
    if (const std::size_t end = done_up_to({}); end > moved_to_) {
        (void)move_to(end, {});
    }
}

// So many events from the first are done without a gap, once `about_to_be` are.
std::size_t Guard::Run::done_up_to(std::span<Mine* const> about_to_be) {
    for (const Mine* mine : about_to_be) {
        completing_[mine->index] = true;
    }
    std::size_t end = moved_to_;
    while (end < outcomes_.size() && (is_done(end) || completing_[end])) {
        ++end;
    }
    for (const Mine* mine : about_to_be) {
        completing_[mine->index] = false;
    }
    return end;
}

bool Guard::Run::move_to(std::size_t end, std::span<const Completion> completions) {
    const RunStream& stream = *options_.stream;
    const StreamEvent& last = stream.events[end - 1];
    const OffsetCommit commit{
        .pipeline = std::string(stream.pipeline),
        .stream = std::string(stream.stream),
        .offset = last.offset,
        .event_id = last.id.size() <= kLabelBytesMax ? std::string(last.id) : std::string()};
    // What is refused together with completions is tried again without them, and counted then.
    commit_ = until_available([&] {
        return completions.empty() ? stream.offsets.commit(commit)
                                   : stream.offsets.settle(guard_.cache_, completions, commit);
    });
    if (!commit_ || !std::holds_alternative<Committed>(*commit_)) {
        return false;
    }
    moved_to_ = end;
    return true;
}

bool Guard::Run::is_done(std::size_t index) const {
    const auto& outcome = outcomes_[index];
    return outcome && (std::holds_alternative<Success>(*outcome) ||
                       std::holds_alternative<AlreadyProcessed>(*outcome));
}

std::optional<std::uint64_t> Guard::Run::reached() const {
    return moved_to_ == 0 ? std::nullopt
                          : std::optional(options_.stream->events[moved_to_ - 1].offset);
}

}  // namespace dedup
