#include "server/executor.hpp"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <new>
#include <utility>

#include "cache/inside.hpp"
#include "env/process.hpp"

namespace dedup::server {
namespace {

using std::chrono::steady_clock;

// Those who wait for an answer are woken by the append that brings it. How often it is seen whose
// lease has run out, or whose time is up:
constexpr std::chrono::milliseconds kParkedTick{20};
// Others may append past this server: so many look at their keys a tick, or where there are more
// than that goes round in so many ticks, a part of them.
constexpr std::int64_t kPolledPerTick = 64;
constexpr std::int64_t kPollTicksMax = 50;

// How long a round waits for those whom the last one answered: as long as its append took, while
// one after the other comes, and not when nobody does for a part of that.
constexpr int kCompanyGapShare = 6;
constexpr std::chrono::milliseconds kCompanyMax{2};

CommandPtr sends_no_more() {
    return error_reply(
        Protocol::resp2,
        "ERR the client sends no more, so nothing is waited for; keep the connection "
        "open to wait");
}

CommandPtr server_ends() {
    return error_reply(Protocol::resp2, "CLOSED the server ends");
}

}  // namespace

CommandPtr refusal(const Lane& lane, const Command& command) {
    if (command.kind() == Command::Kind::reply) {
        return nullptr;
    }
    if (lane.revoked) {
        return error_reply(Protocol::resp2,
                           "NOPERM this user is gone, or may do less than before; log in again");
    }
    const bool reads = command.kind() == Command::Kind::chore || !command.appends();
    if (lane.gone && reads) {  // for nobody
        return error_reply(Protocol::resp2, "ERR the client has gone");
    }
    return nullptr;
}

Executor::Executor(StreamStore& store, ExecutorOptions options)
    : store_(store), options_(std::move(options)) {
    rounds_ = start_thread("dedup-rounds", [this] { run_rounds(); });
    try {
        constexpr std::array<const char*, kChoreKinds> kNames = {"dedup-chores", "dedup-sweeps"};
        for (std::size_t kind = 0; kind < kChoreKinds; ++kind) {
            chore_threads_[kind] = start_thread(kNames[kind], [this, kind] { run_chores(kind); });
        }
    } catch (...) {
        finish();
        throw;
    }
}

Executor::~Executor() {
    finish();
}

void Executor::submit(Commands commands) {
    MutexLock lock(mutex_);
    if (incoming_.commands.empty()) {
        incoming_.commands = std::move(commands);
    } else {
        std::ranges::move(commands, std::back_inserter(incoming_.commands));
    }
    work_.notify_one();
}

void Executor::resume(LanePtr lane) {
    MutexLock lock(mutex_);
    incoming_.resumed.push_back(std::move(lane));
    work_.notify_one();
}

void Executor::ask_to_finish(std::vector<LanePtr> resumed) {
    MutexLock lock(mutex_);
    // In one step: between two, the rounds could hold a lane again, and end.
    std::ranges::move(resumed, std::back_inserter(incoming_.resumed));
    stop_ = true;
    stop_source_.request_stop();
    work_.notify_one();
}

void Executor::finish() {
    ask_to_finish({});
    if (rounds_.joinable()) {
        rounds_.join();
    }
    {
        MutexLock lock(mutex_);
        stop_chores_ = true;
        for (Condition& work : chore_work_) {
            work.notify_one();
        }
    }
    for (std::thread& thread : chore_threads_) {
        if (thread.joinable()) {
            thread.join();
        }
    }
}

void Executor::make_ready(const LanePtr& lane) {
    if (!lane->ready && !lane->held && lane->may_go_on()) {
        lane->ready = true;
        ready_.push_back(lane);
    }
}

// Takes over what has come; waits for it if there is nothing to do. False: that was all.
bool Executor::take_incoming() {
    Incoming incoming;
    {
        MutexLock lock(mutex_);
        while (ready_.empty() && incoming_.empty()) {
            finishing_ = stop_;
            if (stop_ && chores_open_ == 0 && parked_.empty()) {
                return false;
            }
            if (parked_.empty()) {
                work_.wait(lock);
            } else {
                if (!stop_) {
                    work_.wait_for(lock, kParkedTick);
                }
                break;
            }
        }
        finishing_ = stop_;
        std::swap(incoming, incoming_);
        chores_open_ -= incoming.done.size();
    }
    take_over(std::move(incoming));
    return true;
}

void Executor::take_over(Incoming incoming) {
    for (auto& [lane, command] : incoming.commands) {
        lane->queue.push_back(std::move(command));
        make_ready(lane);
    }
    for (auto& [lane, command] : incoming.done) {
        // None of what is refused already, as what was queued when the users were replaced.
        if (CommandPtr refused = lane->revoked ? refusal(*lane, *command) : nullptr) {
            refuse(command, std::move(refused));
        }
        Item item{lane, std::move(command)};
        answer(item);
        lane->blocked = false;
        make_ready(lane);
    }
    for (const LanePtr& lane : incoming.resumed) {
        lane->held = false;
        make_ready(lane);
    }
}

// Those who were answered by the last flush are likely to ask again at once. Without waiting for
// them clients fall apart into two halves, each of which waits for the flush of the other.
void Executor::wait_for_company() {
    while (ready_.size() < company_ && !finishing_) {
        const auto left = company_until_ - steady_clock::now();
        if (left <= left.zero()) {
            return;
        }
        Incoming incoming;
        {
            MutexLock lock(mutex_);
            if (incoming_.empty() && !stop_) {
                work_.wait_for(lock, std::min(left, company_gap_));
            }
            if (incoming_.empty()) {
                return;
            }
            finishing_ = stop_;
            std::swap(incoming, incoming_);
            chores_open_ -= incoming.done.size();
        }
        take_over(std::move(incoming));
    }
}

void Executor::run_rounds() {
    while (take_incoming()) {
        wake_due();
        wait_for_company();
        wait_for_room();
        round();
        if (!changed_.empty()) {
            wake_changed();
        }
    }
}

// The reactor ends who does not take replies; it must not be outrun.
void Executor::wait_for_room() {
    constexpr std::chrono::milliseconds kLook{1};
    if (options_.all_unsent_bytes->load() <= options_.all_unsent_bytes_max) {
        return;
    }
    deliver();
    while (options_.all_unsent_bytes->load() > options_.all_unsent_bytes_max) {
        MutexLock lock(mutex_);
        work_.wait_for(lock, kLook);
    }
}

void Executor::round() {
    gather();
    decide();
    deliver();  // what needs no append does not wait for those that do
    const auto begun = steady_clock::now();
    append();
    const auto ended = steady_clock::now();
    const auto took = std::min<steady_clock::duration>(ended - begun, kCompanyMax);
    company_ = batch_.empty() && transacting_.empty() ? 0 : touched_.size();
    company_until_ = ended + took;
    company_gap_ = took / kCompanyGapShare;
    deliver();
    items_.clear();
}

void Executor::answer(Item& item) {
    Lane& lane = *item.lane;
    if (lane.answered == 0) {
        touched_.push_back(item.lane);
    }
    const std::size_t before = lane.replies.size();
    item.command->write_reply(lane.replies);
    lane.add_unsent(lane.replies.size() - before);
    ++lane.answered;
    lane.of_any_order += item.command->of_any_order() ? 1U : 0U;
    if (item.command->timing.histogram != nullptr) {
        answered_.push_back(item.command->timing);
    }
    item.command.reset();
}

void Executor::deliver() {
    if (touched_.empty()) {
        return;
    }
    take_times();
    std::vector<Replies> replies;
    replies.reserve(touched_.size());
    for (LanePtr& lane : touched_) {
        Replies next{lane, std::move(lane->replies), std::exchange(lane->answered, 0),
                     std::exchange(lane->of_any_order, 0)};
        lane->replies.clear();
        replies.push_back(std::move(next));
    }
    touched_.clear();
    options_.deliver(std::move(replies));
}

// One look at the clock for all.
void Executor::take_times() {
    const auto now = steady_clock::now();
    for (const Timing& timing : answered_) {
        const auto took = std::chrono::nanoseconds(now - timing.since).count();
        timing.histogram->add(static_cast<std::uint64_t>(std::max<std::int64_t>(took, 0)));
    }
    answered_.clear();
}

// The lane waits too: its replies come in order.
void Executor::begin_chore(const LanePtr& lane) {
    CommandPtr command = std::move(lane->queue.front());
    lane->queue.pop_front();
    lane->blocked = true;
    const std::size_t kind = command->kind() == Command::Kind::sweep ? 1 : 0;
    MutexLock lock(mutex_);
    ++chores_open_;
    chores_[kind].push({lane, std::move(command)});
    chore_work_[kind].notify_one();
}

// What nobody can know beforehand, such as how long a history is, must not end the process.
void Executor::run_chore(Command& chore, const std::atomic<bool>& gone) {
    try {
        chore.run({store_, stop_source_.get_token(), gone});
    } catch (const std::bad_alloc&) {
        chore.failed({Code::out_of_space, "out of memory"});
    }
}

void Executor::run_chores(std::size_t kind) {
    MutexLock lock(mutex_);
    for (;;) {
        while (chores_[kind].empty() && !stop_chores_) {
            chore_work_[kind].wait(lock);
        }
        if (chores_[kind].empty()) {
            return;
        }
        auto chore = chores_[kind].pop();
        auto& [lane, command] = chore;
        if (CommandPtr refused = stop_ ? server_ends() : refusal(*lane, *command)) {
            command = std::move(refused);
        } else {
            lock.unlock();
            run_chore(*command, lane->gone);
            lock.lock();
        }
        incoming_.done.push_back(std::move(chore));
        work_.notify_one();
    }
}

// The lane waits too, unless its replies come in any order.
void Executor::park(Item& item, std::chrono::milliseconds at_most) {
    if (!item.command->of_any_order()) {
        item.lane->blocked = true;
        stopped_.insert(item.lane.get());
    }
    std::uint64_t& turn = item.command->turn;
    if (turn == 0) {
        turn = ++last_turn_;
    }
    const std::pair place(stream_hash(item.command->stream(0)), turn);
    parked_.emplace(place,
                    Parked{{item.lane, std::move(item.command)}, steady_clock::now() + at_most});
}

// While the server lives, and for a client that may be there: a claim must not go to nobody.
void Executor::park_if_it_waits(Item& item) {
    const auto at_most = finishing_ ? std::nullopt : item.command->waits(now_ms_);
    if (at_most && item.lane->ended) {
        refuse(item.command, sends_no_more());
    } else if (at_most) {
        park(item, *at_most);
    }
}

void Executor::note_change(StreamKey stream) {
    CacheInside::waiters(store_).wake(stream);  // of this process, which has the store, too
    const std::uint64_t hash = parked_.empty() ? 0 : stream_hash(stream);
    const auto at = parked_.lower_bound({hash, 0});
    if (at != parked_.end() && at->first.first == hash) {
        changed_.push_back(hash);
    }
}

// Lets those look again whose stream has changed, in the order in which they came, and before
// anybody who has come since.
void Executor::wake_changed() {
    std::deque<LanePtr> others = std::exchange(ready_, {});
    for (const std::uint64_t stream : changed_) {
        auto at = parked_.lower_bound({stream, 0});
        while (at != parked_.end() && at->first.first == stream) {
            wake(std::move(at->second.item));
            at = parked_.erase(at);
        }
    }
    changed_.clear();
    std::ranges::move(others, std::back_inserter(ready_));
}

// And those who are due, or whose turn it is, with all who wait for the same stream.
void Executor::wake_due() {
    const auto now = steady_clock::now();
    if (parked_.empty() || (now - parked_looked_ < kParkedTick && !finishing_)) {
        return;
    }
    parked_looked_ = now;
    for (const auto& [place, parked] : parked_) {
        const Lane& lane = *parked.item.lane;
        if (finishing_ || parked.due <= now || lane.ended || lane.revoked) {
            changed_.push_back(place.first);
        }
    }
    poll_next();
    wake_changed();
}

// Those whose turn it is: as many as belong to a tick, in the long run, for those of one stream
// look together.
void Executor::poll_next() {
    const auto all = static_cast<std::int64_t>(parked_.size());
    const std::int64_t share = std::max(kPolledPerTick, 1 + all / kPollTicksMax);
    polls_left_ = share + std::clamp(polls_left_, -share * (kPollTicksMax - 1), std::int64_t{0});
    auto at = parked_.upper_bound({polled_, UINT64_MAX});
    for (std::int64_t rest = all; rest > 0 && polls_left_ > 0;) {
        at = at == parked_.end() ? parked_.begin() : at;
        polled_ = at->first.first;
        changed_.push_back(polled_);
        for (; at != parked_.end() && at->first.first == polled_; ++at, --rest) {
            --polls_left_;
        }
    }
}

void Executor::wake(Item item) {
    if (!item.command->of_any_order()) {
        item.lane->blocked = false;
    }
    if (item.lane->ended && !item.lane->revoked) {
        // Nobody may be there who would use the claim.
        refuse(item.command, sends_no_more());
        answer(item);
    } else {
        item.command->timing.since = steady_clock::now();  // the others' time is not its own
        item.lane->queue.push_front(std::move(item.command));
    }
    make_ready(item.lane);
}

}  // namespace dedup::server
