// A round of the executor: what it takes, what that comes to, what is appended for it.
#include <algorithm>
#include <memory>
#include <optional>
#include <ranges>
#include <string>
#include <utility>

#include "server/executor.hpp"

namespace dedup::server {
namespace {

// A round takes at most this many commands, so that no lane waits for long, and a batch has at most
// kBatchItemsMax items: a command of many keys has a round of its own.
constexpr std::size_t kRoundCommandsMax = 8192;
constexpr std::size_t kRoundPartsMax = 32768;
// Of one lane, of any order: nothing else says how many there are.
constexpr std::size_t kRoundAnyOrderMax = 1024;

// Values that a round reads: it ends with the slice of streams that has brought it above this.
constexpr std::size_t kRoundBytesMax = 64 * 1024 * 1024;
constexpr std::size_t kSliceStreams = 64;
// What one command may be about: more would have to be in memory several times over.
constexpr std::size_t kCommandBytesMax = 256 * 1024 * 1024;

}  // namespace

void Executor::gather() {
    streams_.clear();
    std::size_t lanes = ready_.size();
    while (lanes-- > 0 && items_.size() < kRoundCommandsMax && streams_.size() < kRoundPartsMax) {
        const LanePtr lane = std::move(ready_.front());
        ready_.pop_front();
        lane->ready = false;
        gather_lane(lane);
        make_ready(lane);
    }
}

// Whether the lane has a command in this round that this one must see the outcome of.
bool Executor::repeats(const Command& command) {
    for (std::size_t part = 0; part < command.parts(); ++part) {
        const auto found = in_lane_.find(stream_hash(command.stream(part)));
        if (found != in_lane_.end() && (found->second || command.appends())) {
            return true;
        }
    }
    for (std::size_t part = 0; part < command.parts(); ++part) {
        in_lane_[stream_hash(command.stream(part))] |= command.appends();
    }
    return false;
}

void Executor::gather_lane(const LanePtr& lane) {
    in_lane_.clear();
    const auto full = [&] { return !lane->gone && lane->unsent_bytes > options_.unsent_bytes_max; };
    if (full() && !finishing_) {
        lane->held = true;
        if (full()) {
            return;
        }
        lane->held = false;
    }
    bool first = true;  // of those in line
    std::size_t any_order = 0;
    while (lane->may_go_on()) {
        if (CommandPtr refused = refusal(*lane, *lane->queue.front())) {
            refuse(lane->queue.front(), std::move(refused));
        }
        Command& command = *lane->queue.front();
        if (command.kind() == Command::Kind::chore || command.kind() == Command::Kind::sweep) {
            if (first) {
                begin_chore(lane);
            }
            return;
        }
        const bool fits = items_.size() < kRoundCommandsMax &&
                          (streams_.empty() || streams_.size() + command.parts() <= kRoundPartsMax);
        if (!fits || any_order == kRoundAnyOrderMax || repeats(command)) {
            return;
        }
        if (command.of_any_order()) {
            ++any_order;
        } else {
            first = false;
        }
        items_.push_back({lane, std::move(lane->queue.front()), streams_.size()});
        lane->queue.pop_front();
        for (std::size_t part = 0; part < command.parts(); ++part) {
            streams_.push_back(command.stream(part));
        }
    }
}

void Executor::decide() {
    batch_.clear();
    appending_.clear();
    transacting_.clear();
    written_.clear();
    stopped_.clear();
    put_back_.clear();
    heads_.clear();
    head_bytes_ = 0;
    lanes_appending_.clear();
    for (std::size_t i = 0; i < items_.size(); ++i) {
        Item& item = items_[i];
        Lane& lane = *item.lane;
        if (stopped_.contains(&lane) || !read_heads(item) || !decide_item(i)) {
            stopped_.insert(&lane);
            put_back_.push_back(i);
        } else if (item.appending) {
            lanes_appending_.insert(&lane);
        } else if (item.command && !lanes_appending_.contains(&lane)) {
            // In order: what follows an append in its lane waits with it.
            answer(item);
            if (!lane.gone && lane.unsent_bytes > options_.unsent_bytes_max) {
                stopped_.insert(&lane);
            }
        }
    }
    put_back();
}

// Reads on until the heads of `item` are there, a slice at a time: nobody knows how large they are.
// False: the round has enough.
bool Executor::read_heads(const Item& item) {
    const std::size_t end = item.first_stream + item.command->parts();
    if (item.command->parts() == 0 && item.command->kind() == Command::Kind::parts) {
        now_ms_ = store_.now_ms();  // about no stream: what it wants is the time
    }
    while (heads_.size() < end) {
        // The first of a round goes on alone, or it would never be done.
        if (head_bytes_ > kRoundBytesMax && item.first_stream > 0) {
            return false;
        }
        if (head_bytes_ > kCommandBytesMax) {
            heads_.resize(end, std::unexpected(Error{
                                   Code::invalid_argument,
                                   "the values of all these keys are too long for one command"}));
            return true;
        }
        const std::size_t from = heads_.size();
        const std::size_t count = std::min(kSliceStreams, streams_.size() - from);
        for (auto& head : store_.heads(std::span(streams_).subspan(from, count))) {
            if (head && *head && (*head)->receipt) {
                head_bytes_ += (*head)->receipt->size();
            }
            heads_.push_back(std::move(head));
        }
        // Read after the heads, so that no head is younger than the time it is judged by.
        now_ms_ = store_.now_ms();
    }
    return true;
}

// False: it is to wait for the next round.
bool Executor::decide_item(std::size_t i) {
    Item& item = items_[i];
    Command& command = *item.command;
    if (!written_.empty()) {
        for (std::size_t part = 0; part < command.parts(); ++part) {
            if (written_.contains(stream_hash(streams_[item.first_stream + part]))) {
                return false;
            }
        }
    }
    if (command.atomic()) {
        return decide_atomic(i);
    }
    command.begin(now_ms_);
    for (std::size_t part = 0; part < command.parts(); ++part) {
        auto& head = heads_[item.first_stream + part];
        if (head && command.refuses(part, {*head, now_ms_, store_.grace()})) {
            return true;
        }
    }
    for (std::size_t part = 0; part < command.parts(); ++part) {
        auto& head = heads_[item.first_stream + part];
        if (!head) {
            command.part_failed(part, head.error());
            continue;
        }
        auto append = command.decide(part, {*head, now_ms_, store_.grace()});
        if (append) {
            item.appending = true;
            written_.insert(stream_hash(streams_[item.first_stream + part]));
            batch_.push_back(*std::move(append));
            appending_.push_back({i, part});
        }
    }
    if (!item.appending) {
        park_if_it_waits(item);
    }
    return true;
}

bool Executor::decide_atomic(std::size_t i) {
    Item& item = items_[i];
    std::vector<std::optional<Record>> heads;
    for (std::size_t part = 0; part < item.command->parts(); ++part) {
        auto& head = heads_[item.first_stream + part];
        if (!head) {
            item.command->failed(head.error());
            return true;
        }
        heads.push_back(*std::move(head));
    }
    auto batch = item.command->decide_all(heads, now_ms_);
    if (!batch.empty()) {
        item.appending = true;
        for (const Append& append : batch) {
            written_.insert(stream_hash({append.record.ns, append.record.key}));
        }
        transacting_.push_back({i, std::move(batch)});
    }
    return true;
}

// To where they were, in front of their lanes' queues.
void Executor::put_back() {
    for (const std::size_t i : put_back_ | std::views::reverse) {
        items_[i].lane->queue.push_front(std::move(items_[i].command));
    }
    for (const std::size_t i : put_back_) {
        make_ready(items_[i].lane);
    }
}

void Executor::append() {
    if (!batch_.empty()) {
        auto landed = store_.append(batch_, Batch::each);
        options_.watch->saw<std::uint64_t>(landed);
        for (std::size_t i = 0; i < landed.size(); ++i) {
            Command& command = *items_[appending_[i].item].command;
            if (landed[i]) {
                command.landed(appending_[i].part, *landed[i]);
                note_change(command.stream(appending_[i].part));
            } else if (landed[i].error().code == Code::sequence_conflict) {
                retry(appending_[i]);
            } else {
                command.part_failed(appending_[i].part, std::move(landed[i]).error());
            }
        }
    }
    for (Transacting& transacting : transacting_) {
        append_atomic(std::move(transacting));
    }
    answer_all();
}

// Replies come in order: what stands in its lane behind a command that has to wait after all waits
// with it, done as it is.
void Executor::answer_all() {
    std::unordered_set<const Lane*> waiting;
    std::vector<Item*> behind;
    for (Item& item : items_) {
        if (!item.command) {
            continue;
        }
        if (waiting.contains(item.lane.get())) {
            behind.push_back(&item);
            continue;
        }
        if (item.lost) {
            park_if_it_waits(item);
        }
        item.command ? answer(item) : static_cast<void>(waiting.insert(item.lane.get()));
    }
    for (Item* const item : behind | std::views::reverse) {
        std::string bytes;
        item->command->write_reply(bytes);
        auto known = std::make_unique<KnownReply>(item->command->protocol(), std::move(bytes));
        known->timing = item->command->timing;
        refuse(item->command, std::move(known));
        item->lane->queue.push_front(std::move(item->command));
    }
}

// As many times as somebody else was faster; each time means that another append has won.
void Executor::append_atomic(Transacting transacting) {
    Item& item = items_[transacting.item];
    Command& command = *item.command;
    while (!transacting.batch.empty()) {
        auto landed = store_.append(transacting.batch, Batch::atomic);
        options_.watch->saw<std::uint64_t>(landed);
        if (landed.front()) {
            command.landed_all(landed);
            for (const auto& [expected, record, flush] : transacting.batch) {
                note_change({record.ns, record.key});
            }
            return;
        }
        if (landed.front().error().code != Code::sequence_conflict) {
            command.append_failed(std::move(landed.front()).error());
            return;
        }
        std::vector<std::optional<Record>> heads;
        for (auto& head :
             store_.heads(std::span(streams_).subspan(item.first_stream, command.parts()))) {
            if (!head) {
                command.failed(std::move(head).error());
                return;
            }
            heads.push_back(*std::move(head));
        }
        transacting.batch = command.decide_all(heads, store_.now_ms());
    }
}

// Somebody else appended to the stream since its head was read: a sweep that removed it, or another
// process that writes to the same database. Settled by reading again, like any lost race.
void Executor::retry(Appending lost) {
    Item& item = items_[lost.item];
    const StreamKey stream = streams_[item.first_stream + lost.part];
    for (;;) {
        auto head = store_.head(stream);
        if (!head) {
            item.command->part_failed(lost.part, std::move(head).error());
            return;
        }
        now_ms_ = store_.now_ms();
        auto append = item.command->decide(lost.part, {*head, now_ms_, store_.grace()});
        if (!append) {
            item.lost = true;
            return;
        }
        auto landed = std::move(store_.append({&*append, 1}, Batch::each).front());
        if (landed) {
            item.command->landed(lost.part, *landed);
            note_change(stream);
            return;
        }
        if (landed.error().code != Code::sequence_conflict) {
            item.command->part_failed(lost.part, std::move(landed).error());
            return;
        }
    }
}

}  // namespace dedup::server
