#include "server/executor.hpp"

#include <algorithm>
#include <chrono>
#include <iterator>

#include "env/process.hpp"

namespace dedup::server {
namespace {

using std::chrono::steady_clock;

// How often those who wait for an answer look whether a lease has run out or time is up.
constexpr std::chrono::milliseconds kParkedPoll{20};

// How long a round waits for those whom the last one answered: as long as its append took, while
// one after the other comes, and not when nobody does for a part of that.
constexpr int kCompanyGapShare = 6;
constexpr std::chrono::milliseconds kCompanyMax{2};

}  // namespace

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
    if (!lane->ready && !lane->blocked && !lane->held && !lane->queue.empty()) {
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
                    work_.wait_for(lock, kParkedPoll);
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
        if (!parked_.empty() &&
            (finishing_ || wake_parked_ || steady_clock::now() - parked_looked_ >= kParkedPoll)) {
            wake_parked();
        }
        wait_for_company();
        round();
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
    lane.unsent_bytes += lane.replies.size() - before;
    ++lane.answered;
    item.command.reset();
}

void Executor::deliver() {
    if (touched_.empty()) {
        return;
    }
    std::vector<Replies> replies;
    replies.reserve(touched_.size());
    for (LanePtr& lane : touched_) {
        Replies next{lane, std::move(lane->replies), lane->answered};
        lane->replies.clear();
        lane->answered = 0;
        replies.push_back(std::move(next));
    }
    touched_.clear();
    options_.deliver(std::move(replies));
}

// The lane waits too: its replies come in order.
void Executor::begin_chore(const LanePtr& lane) {
    CommandPtr command = std::move(lane->queue.front());
    lane->queue.pop_front();
    lane->blocked = true;
    const std::size_t kind = command->kind() == Command::Kind::sweep ? 1 : 0;
    MutexLock lock(mutex_);
    ++chores_open_;
    chores_[kind].emplace_back(lane, std::move(command));
    chore_work_[kind].notify_one();
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
        auto chore = std::move(chores_[kind].front());
        chores_[kind].pop_front();
        lock.unlock();
        chore.second->run({store_, stop_source_.get_token()});
        lock.lock();
        incoming_.done.push_back(std::move(chore));
        work_.notify_one();
    }
}

// The lane waits too: its replies come in order.
void Executor::park(Item& item) {
    item.lane->blocked = true;
    parked_streams_.insert(stream_hash(item.command->stream(0)));
    parked_.push_back({item.lane, std::move(item.command)});
    stopped_.insert(item.lane.get());
}

// Lets those who wait look again.
void Executor::wake_parked() {
    wake_parked_ = false;
    parked_looked_ = steady_clock::now();
    parked_streams_.clear();
    for (Item& item : std::exchange(parked_, {})) {
        item.lane->blocked = false;
        if (item.lane->gone) {
            // Nobody is there who would use the claim.
            item.command = error_reply(Protocol::resp2, "ERR the client has gone");
            answer(item);
        } else {
            item.lane->queue.push_front(std::move(item.command));
        }
        make_ready(item.lane);
    }
}

}  // namespace dedup::server
