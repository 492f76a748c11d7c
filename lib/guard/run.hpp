// One call of process_if_new, process_batch or process_stream.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dedup/guard.hpp"
#include "guard/retry.hpp"

namespace dedup {

class Beating;

[[nodiscard]] Result<void> check_event_id(std::string_view event_id);

// Whether a result can be kept; if not, kResultNotKept says so.
[[nodiscard]] inline bool fits(const std::string& result) {
    return result.size() <= kReceiptBytesMax;
}

// Where the events of a run lie, and whose position follows them.
struct RunStream {
    Offsets& offsets;
    std::string_view pipeline;
    std::string_view stream;
    std::span<const StreamEvent> events;  // as many as the run has, in its order
};

struct RunOptions {
    std::size_t complete_every = 0;
    const RunStream* stream = nullptr;  // null: no position is moved
};

// Invariant: the position never becomes durable before the completions of all events up to it: it
// is appended in one atomic batch with the last of them, or after them.
//
// Invariant: the first of equal ids has its outcome before the run claims another one of them.
class Guard::Run {
  public:
    Run(Guard& guard, std::span<const BatchEvent> events, WorkRef work, const RunOptions& options);

    std::vector<Result<ProcessOutcome>> run();

    // After run(): see StreamOutcome.
    [[nodiscard]] std::optional<std::uint64_t> reached() const;
    [[nodiscard]] Result<CommitOutcome> commit() && { return std::move(commit_); }

  private:
    // Of an event that this run has claimed.
    struct Mine {
        std::size_t index;
        Claim claim;
        std::optional<Previous> previous;
        std::optional<std::expected<std::string, Failure>> result = {};  // none: it did not run
        std::uint32_t retries = 0;
        bool noted = false;
        bool found_done = false;  // by the reconciling function, which gave the result
        std::optional<std::string> hold_reason = {};  // set: to be held, not released
    };

    [[nodiscard]] Backoff backoff() const {
        return {guard_.options_.retry, guard_.store_, deadline_ms_};
    }
    template <class Call>
    auto until_available(const Call& call) const {
        return call_until_available(backoff(), call);
    }
    template <class Request, class Call>
    auto until_available(std::vector<Request> requests, const Call& call) const {
        return call_until_available(std::move(requests), backoff(), call);
    }

    std::vector<std::size_t> take_turns(std::vector<std::size_t>& open);
    [[nodiscard]] bool has_failed(std::size_t index) const;
    std::vector<std::size_t> claim_and_work(std::span<const std::size_t> turn);
    std::vector<std::size_t> claim(std::span<const std::size_t> turn, Beating& beating);
    void decide_held(std::vector<std::size_t>& in_flight);
    std::optional<Result<ProcessOutcome>> decide(std::string_view event_id, Held held) const;
    std::vector<std::size_t> wait(std::span<const std::size_t> in_flight);
    [[nodiscard]] bool holds(const InFlight& held) const;
    [[nodiscard]] bool was_last(std::uint32_t attempt) const;

    void work_all(Beating& beating);
    void work_on(std::span<Mine> part);
    bool goes_ahead(Mine& mine) const;
    [[nodiscard]] bool must_ask(const Mine& mine) const;
    Result<void> note(Mine& mine, std::string_view text) const;
    std::expected<std::string, Failure> attempt(Mine& mine);

    void complete(std::span<Mine> part);
    std::vector<Result<void>> store(std::span<Mine* const> done,
                                    const std::vector<Completion>& completions);
    void completed(Mine& mine, Completion& completion, const Result<void>& stored);
    void give_up(std::span<Mine> part);
    void hold(Mine& mine);

    bool complete_and_move(std::span<Mine* const> done, std::span<const Completion> completions);
    void move_offset();
    [[nodiscard]] std::size_t done_up_to(std::span<Mine* const> about_to_be);
    bool move_to(std::size_t end, std::span<const Completion> completions);
    [[nodiscard]] bool is_done(std::size_t index) const;

    Guard& guard_;
    std::span<const BatchEvent> events_;
    const WorkRef work_;
    const RunOptions options_;
    std::chrono::steady_clock::time_point start_;
    std::int64_t deadline_ms_;
    std::vector<Result<ProcessOutcome>> outcomes_;
    // By id: the event whose outcome says whether the others with the id are claimed together.
    std::unordered_map<std::string_view, std::size_t> ahead_;
    std::vector<Mine> mine_;
    std::vector<std::pair<std::size_t, Held>> held_;  // by index; not decided yet
    std::vector<bool> completing_;                    // by index; only where a position is moved
    std::size_t moved_to_ = 0;                        // so many events are behind the position
    Result<CommitOutcome> commit_;
};

}  // namespace dedup
