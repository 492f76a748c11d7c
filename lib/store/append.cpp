// Group commit. Callers that append at the same time form a group, whose first member leads: it
// waits until the group before is durable, takes whoever has joined meanwhile, and for all of them
// checks expected sequences, writes once, flushes once, and makes the records visible.

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <set>
#include <utility>

#include "store/log_store.hpp"

namespace dedup {
namespace {

// A group is written out in pieces of about this size, so that memory does not follow the batch.
constexpr std::uint64_t kWriteBytes = 8 * 1024 * 1024;

// What a record takes in the log besides its texts, and a new segment's beginning, roughly.
constexpr std::uint64_t kRecordOverheadBytes = 512;

// What an item has for a result until it is decided: no sequence.
constexpr std::uint64_t kUnanswered = 0;

// How often an append makes room that others take before it gives up.
constexpr std::uint64_t kRoomRoundsMax = 16;

// Durability::async: how many sequences may be assigned before the next mark. A crash of the
// machine may lose records whose sequences callers hold; recovery goes on above the mark.
constexpr std::uint64_t kReservedSequences = 1024 * 1024;

Error conflict(std::uint64_t head, std::uint64_t expected) {
    return {Code::sequence_conflict,
            fmt::format("the head of the stream is at sequence {}, not {}", head, expected), 0,
            head};
}

// What an append that begins a new stream takes.
Room room_of(const Record& record) {
    return {1, content_bytes(record) + kRecordOverheadBytes};
}

Error batch_too_large() {
    return {Code::invalid_argument,
            fmt::format("the atomic batch has more than {} bytes", kAtomicBatchBytesMax)};
}

bool begins_stream(const Link& link) {
    return link.segment == 0 || link.swept;
}

// What makes an atomic batch impossible whatever the store holds.
Result<void> check_atomic(std::span<const Append> batch) {
    std::set<std::pair<std::string_view, std::string_view>> streams;
    std::uint64_t bytes = 0;
    for (const Append& item : batch) {
        bytes += content_bytes(item.record);
        if (bytes > kAtomicBatchBytesMax) {
            return std::unexpected(batch_too_large());
        }
        if (!streams.emplace(item.record.ns, item.record.key).second) {
            return std::unexpected(
                Error{Code::invalid_argument, "the atomic batch names a stream twice"});
        }
    }
    return {};
}

}  // namespace

// One append call.
struct LogStore::Request {
    std::span<const Append> batch;
    Batch mode = Batch::each;
    Refused& refused;
    std::vector<StreamId> ids;
    std::vector<Result<std::uint64_t>> results;
};

struct LogStore::Group {
    std::vector<Request*> requests;
    std::atomic<bool> done{false};
};

// The right to write. One caller has it at a time; the others wait for it here.
class LogStore::Turn {
  public:
    explicit Turn(LogStore& store) : store_(store) {
        std::unique_lock lock(store_.queue_mutex_);
        store_.turn_.wait(lock, [&] { return !store_.committing_; });
        store_.committing_ = true;
    }
    ~Turn() {
        {
            const std::lock_guard lock(store_.queue_mutex_);
            store_.committing_ = false;
        }
        // close() and flush() may wait for a turn beside the next group's leader.
        store_.turn_.notify_all();
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    // The group that has formed. Whoever comes from now on forms the next one.
    [[nodiscard]] std::shared_ptr<Group> take_group() const {
        const std::lock_guard lock(store_.queue_mutex_);
        return std::exchange(store_.next_group_, nullptr);
    }
    void stop_waiting() const {
        const std::lock_guard lock(store_.queue_mutex_);
        --store_.waiting_leaders_;
    }

  private:
    LogStore& store_;
};

// What the leader has encoded and not yet made durable.
class LogStore::Commit {
  public:
    explicit Commit(LogStore& store, std::size_t items)
        : store_(store), pending_(items), first_sequence_(store.next_sequence_) {}

    void add(Request& request);
    // Writes, flushes and applies what is pending. Its results turn to errors if that fails.
    void finish();
    // When memory has run out in one of these: answers what is pending with `error`.
    void give_up(const Error& error);

  private:
    struct Staged {
        Result<std::uint64_t>* result;
        Applied applied;
    };
    // What an item's record comes after; a removed head, too.
    struct Head {
        Link link;
        std::uint64_t sequence = 0;
    };

    void add_each(Request& request, std::size_t i);
    void add_atomic(Request& request);
    Result<void> prepare(std::int64_t time_ms);
    Result<Head> check(const Append& item, const StreamId& id, Result<std::uint64_t>& result);
    void stage(Request& request, std::size_t i, std::uint64_t sequence, const Head& head,
               std::uint32_t offset, std::uint64_t bytes);
    void drop_staged(const Error& error);
    void clear();

    LogStore& store_;
    ViewPtr view_;   // let go before anything that waits for the sealer
    Delta pending_;  // the heads that the staged records will be
    std::vector<Staged> staged_;
    // Conflicts with a head that is itself pending. Should that head not become durable, nobody
    // may have been told its sequence, which will be assigned again.
    std::vector<Result<std::uint64_t>*> lost_to_pending_;
    std::uint64_t first_sequence_;
    std::uint64_t new_streams_ = 0;  // staged
};

Result<void> LogStore::ready_to_write() const {
    if (mark_.inherited()) {
        return check_process();
    }
    if (closed_) {
        return std::unexpected(closed_error());
    }
    if (options_.read_only) {
        return std::unexpected(
            Error{Code::read_only, fmt::format("store {} is open read-only", path_.string())});
    }
    if (failed_) {
        const std::lock_guard lock(failure_mutex_);
        return std::unexpected(Error{
            Code::failed, fmt::format("store {} takes no more writes since one failed ({}); close "
                                      "it and open it again",
                                      path_.string(), failure_)});
    }
    return {};
}

// Refuses all writes from now on. Gives the error for those whose fate is open.
Error LogStore::fail(const Error& cause) {
    const std::lock_guard lock(failure_mutex_);
    if (!failed_.exchange(true)) {  // first: what follows needs memory
        failure_ = cause.message;
    }
    return {Code::outcome_unknown,
            fmt::format("the append may or may not be durable: {}; open the store again and look",
                        cause.message),
            cause.os_error};
}

Error LogStore::out_of_memory() const noexcept {
    return {failed_ ? Code::outcome_unknown : Code::out_of_space, kOutOfMemory, ENOMEM};
}

LogStore::Unfinished::~Unfinished() {
    if (std::uncaught_exceptions() == exceptions_) {
        return;
    }
    store_.torn_ = true;
    const std::lock_guard lock(store_.failure_mutex_);
    if (!store_.failed_.exchange(true)) {
        store_.failure_ = kOutOfMemory;
    }
}

// What the leader's work gives when memory has run out in it. What it has not written is as if it
// had never been encoded.
Error LogStore::abandon_work() noexcept {
    if (!failed_ && writer_) {
        writer_->discard();
    }
    return out_of_memory();
}

std::vector<Result<std::uint64_t>> LogStore::append(std::span<const Append> batch, Batch mode) {
    ::pthread_testcancel();  // nothing has been done yet
    const NoCancel no_cancel;
    Refused refused;
    auto results = append_once(batch, mode, refused);
    if (!refused.items.empty() && options_.capacity.evict_oldest) {
        try {
            make_room_and_append(batch, mode, std::move(refused), results);
        } catch (const std::bad_alloc&) {
            // What has not been answered since has its first answer, that there is no room.
        }
    }
    counters_.count_failed(results);
    return results;
}

// Makes room for what found none, and appends it again. Each round either answers an item or has
// made room for one, which other appends may have taken; so the rounds without an answer are
// bounded, and each makes more room than the one before.
void LogStore::make_room_and_append(std::span<const Append> batch, Batch mode, Refused refused,
                                    std::vector<Result<std::uint64_t>>& results) {
    if (sweep_mutex_.is_mine()) {
        return;  // from a sweep's callback: that sweep is in the way of another one
    }
    for (std::uint64_t round = 0; round < kRoomRoundsMax && !refused.items.empty(); ++round) {
        const auto made = make_room(refused.wanted, round);
        if (!made) {
            const bool never = made.error().code == Code::out_of_space;
            const Room most = refused.wanted.front();
            Refused others;
            for (std::size_t i = 0; i < refused.items.size(); ++i) {
                const std::size_t at = mode == Batch::atomic ? 0 : i;
                const Room& wanted = refused.wanted[at];
                // What wants as much cannot have it, either.
                if (!never || (wanted.keys >= most.keys && wanted.bytes >= most.bytes)) {
                    results[refused.items[i]] = std::unexpected(made.error());
                } else {
                    others.items.push_back(refused.items[i]);
                    others.wanted.push_back(wanted);
                }
            }
            refused = std::move(others);
            round = 0;
            continue;
        }
        std::vector<Append> rest;
        rest.reserve(refused.items.size());
        for (const std::size_t i : refused.items) {
            rest.push_back(batch[i]);
        }
        Refused again;
        auto retried = append_once(rest, mode, again);
        for (std::size_t i = 0; i < rest.size(); ++i) {
            results[refused.items[i]] = std::move(retried[i]);
        }
        round = again.items.size() < refused.items.size() ? 0 : round;
        for (std::size_t& item : again.items) {
            item = refused.items[item];
        }
        refused = std::move(again);
    }
}

// `refused` gets the items for which the capacity has no room.
std::vector<Result<std::uint64_t>> LogStore::append_once(std::span<const Append> batch, Batch mode,
                                                         Refused& refused) {
    Request request{batch, mode, refused, std::vector<StreamId>(batch.size()),
                    std::vector<Result<std::uint64_t>>(batch.size(), kUnanswered)};
    const auto refuse = [&](const Error& error) {
        std::ranges::fill(request.results, std::unexpected(error));
        return std::move(request.results);
    };
    if (auto ready = ready_to_write(); !ready) {
        return refuse(ready.error());
    }
    if (batch.size() > kBatchItemsMax) {
        return refuse({Code::invalid_argument, fmt::format("the batch has {} items; at most {} are "
                                                           "allowed",
                                                           batch.size(), kBatchItemsMax)});
    }
    for (std::size_t i = 0; i < batch.size(); ++i) {
        const Record& record = batch[i].record;
        if (auto checked = check_record(record); !checked) {
            if (mode == Batch::atomic) {
                return refuse({checked.error().code, fmt::format("item {} of the atomic batch: {}",
                                                                 i, checked.error().message)});
            }
            request.results[i] = std::unexpected(checked.error());
        }
        request.ids[i] = locator_.id({record.ns, record.key});
    }
    if (mode == Batch::atomic) {
        if (auto checked = check_atomic(batch); !checked) {
            return refuse(checked.error());
        }
    }
    if (batch.empty()) {
        return std::move(request.results);
    }

    std::shared_ptr<Group> group;
    {
        const std::lock_guard lock(queue_mutex_);
        if (closed_) {
            return refuse(closed_error());
        }
        if (next_group_) {
            next_group_->requests.push_back(&request);  // from here on it gets an answer
            group = next_group_;
        } else {
            auto formed = std::make_shared<Group>();
            formed->requests.push_back(&request);
            next_group_ = std::move(formed);
        }
    }
    if (group) {
        group->done.wait(false);
        return std::move(request.results);
    }
    {
        const Turn turn(*this);
        group = turn.take_group();
        run_leader(*group);
    }
    group->done = true;
    group->done.notify_all();
    return std::move(request.results);
}

// Runs `work` in the leader's place, with no group.
Result<void> LogStore::lead(const std::function<Result<void>()>& work) {
    if (auto own = check_process(); !own) {
        return own;  // it was forked in a callback
    }
    {
        const std::lock_guard lock(queue_mutex_);
        if (closed_) {
            return std::unexpected(closed_error());
        }
        ++waiting_leaders_;
    }
    const Turn turn(*this);
    turn.stop_waiting();
    try {
        return work();
    } catch (const std::bad_alloc&) {
        return std::unexpected(abandon_work());
    }
}

// Answers all requests of the group, whatever comes: their callers wait for it.
void LogStore::run_leader(Group& group) noexcept {
    std::size_t items = 0;
    for (const Request* request : group.requests) {
        items += request->batch.size();
    }
    std::optional<Commit> commit;
    try {
        commit.emplace(*this, items);
        for (Request* request : group.requests) {
            commit->add(*request);
        }
        commit->finish();
    } catch (const std::bad_alloc&) {
        const Error error = abandon_work();
        if (commit) {
            commit->give_up(error);
        }
        for (Request* request : group.requests) {
            request
                ->refused = {};  // it may be incomplete; and there is no room for a sweep, either
            for (auto& result : request->results) {
                if (result == kUnanswered) {
                    result = std::unexpected(error);
                }
            }
        }
    }
}

void LogStore::Commit::add(Request& request) {
    if (request.mode == Batch::atomic) {
        add_atomic(request);
        return;
    }
    for (std::size_t i = 0; i < request.batch.size(); ++i) {
        if (request.results[i]) {
            add_each(request, i);
        }
    }
}

// Sees to it that there is a segment with room to encode into a record of this time, and that a
// jump of the clock is noted before it.
Result<void> LogStore::Commit::prepare(std::int64_t time_ms) {
    if (auto ready = store_.ready_to_write(); !ready) {
        return ready;
    }
    const bool segment_full = store_.writer_->end() >= store_.segment_bytes_;
    if (segment_full || store_.writer_->buffered() >= kWriteBytes) {
        finish();
        if (auto ready = store_.ready_to_write(); !ready) {
            return ready;
        }
    }
    if (segment_full) {
        if (auto started = store_.start_segment(); !started) {
            return started;
        }
    }
    if (store_.would_jump(time_ms)) {
        store_.watch_time(time_ms);
    }
    if (store_.clock_changes() != store_.clock_noted_) {
        finish();
        if (auto ready = store_.ready_to_write(); !ready) {
            return ready;
        }
        if (auto noted = store_.note_clock(); !noted) {
            return noted;
        }
    }
    if (store_.options_.durability == Durability::async &&
        store_.next_sequence_ + kBatchItemsMax > store_.reserved_sequence_) {
        finish();
        if (auto reserved = store_.reserve_sequences(); !reserved) {
            return reserved;
        }
        first_sequence_ = store_.next_sequence_;
    }
    if (!view_) {
        auto view = store_.view();
        if (!view) {
            return std::unexpected(view.error());
        }
        view_ = std::move(*view);
    }
    if (store_.next_sequence_ > kSequenceMax - kBatchItemsMax) {
        return std::unexpected(Error{Code::out_of_space, "all 2^64 sequences have been assigned"});
    }
    return {};
}

// Compares the stream's head with the expected one; gives it.
Result<LogStore::Commit::Head> LogStore::Commit::check(const Append& item, const StreamId& id,
                                                       Result<std::uint64_t>& result) {
    const StreamKey stream{item.record.ns, item.record.key};
    FrameBuffer buffer;
    Error failure;
    // A sequence is never used twice, so an entry with the expected one is of this stream, and
    // its record need not be read.
    const auto is_stream = [&](Located& at) -> Result<bool> {
        if (at.entry.sequence == item.expected_sequence) {
            return true;
        }
        return read_record(at, stream, buffer);
    };
    const IndexEntry* pending = pending_.find(id, [&](const IndexEntry& entry) {
        if (entry.sequence == item.expected_sequence) {
            return true;
        }
        const auto frame = store_.writer_->read_frame(entry.offset, buffer);
        if (!frame) {
            failure = frame.error();
            return true;
        }
        Located at;
        at.segment = store_.writer_->segment().get();
        at.entry = entry;
        const auto found = find_in_frame(*frame, stream, at);
        if (!found) {
            failure = found.error();
        }
        return !found || *found;
    });
    if (!failure.message.empty()) {
        return std::unexpected(failure);
    }
    Link link;
    std::uint64_t head = 0;
    std::uint64_t last = 0;  // the head, or what was it until a sweep
    if (pending != nullptr) {
        head = pending->sequence;
        last = head;
        link = {store_.writer_->segment()->id(), pending->offset, pending->state()};
    } else {
        auto found = store_.find_newest(*view_, id, probe(*view_, id), is_stream);
        if (!found) {
            return std::unexpected(found.error());
        }
        if (*found) {
            const IndexEntry& entry = (*found)->entry;
            link = {(*found)->segment->id(), entry.offset, entry.state()};
            if (view_->horizon.may_remove(entry)) {
                // It may have been recognised by its sequence alone.
                if (const auto read = read_record(**found, stream, buffer); !read) {
                    return std::unexpected(read.error());
                }
                link.swept = removed(*view_, **found);
            }
            last = entry.sequence;
            head = link.swept ? 0 : last;
        }
    }
    if (head != item.expected_sequence) {
        if (pending != nullptr) {
            lost_to_pending_.push_back(&result);
        }
        return std::unexpected(conflict(head, item.expected_sequence));
    }
    return Head{link, last};
}

void LogStore::Commit::stage(Request& request, std::size_t i, std::uint64_t sequence,
                             const Head& head, std::uint32_t offset, std::uint64_t bytes) {
    const Link& link = head.link;
    const Record& record = request.batch[i].record;
    const IndexEntry entry{request.ids[i], sequence, offset,
                           pack(record.state(), record.expires_at_ms)};
    const bool replaces_pending =
        link.segment == store_.writer_->segment()->id() && pending_.size() != 0;
    pending_.put(entry, replaces_pending ? head.sequence : 0);
    staged_.push_back({&request.results[i],
                       {entry, link, head.sequence, record.ns, record.timestamp_ms,
                        record.expires_at_ms, bytes, false}});
    request.results[i] = sequence;  // no sooner than it is staged: who is not, is not written
    store_.records_since_mark_ = true;
    new_streams_ += begins_stream(link);
}

void LogStore::Commit::add_each(Request& request, std::size_t i) {
    const Append& item = request.batch[i];
    if (auto prepared = prepare(item.record.timestamp_ms); !prepared) {
        request.results[i] = std::unexpected(prepared.error());
        return;
    }
    const auto head = check(item, request.ids[i], request.results[i]);
    if (!head) {
        request.results[i] = std::unexpected(head.error());
        return;
    }
    if (begins_stream(head->link)) {
        const Room wanted = room_of(item.record);
        if (auto room = store_.check_room(new_streams_, wanted); !room) {
            request.refused.items.push_back(i);
            request.refused.wanted.push_back(wanted);
            request.results[i] = std::unexpected(room.error());
            return;
        }
    }
    SegmentWriter& writer = *store_.writer_;
    const auto offset = static_cast<std::uint32_t>(writer.end());
    const std::size_t start = writer.buffered();
    const std::uint64_t sequence = store_.next_sequence_++;
    begin_frame(writer.buffer());
    add_record(writer.buffer(), writer.segment()->id(), item.record, sequence, head->link, true);
    writer.finish(start, FrameKind::records, 1, sequence);
    stage(request, i, sequence, *head, offset, writer.end() - offset);
}

void LogStore::Commit::add_atomic(Request& request) {
    const auto refuse = [&](const Error& error) {
        std::ranges::fill(request.results, std::unexpected(error));
    };
    std::int64_t time_ms = 0;
    for (const Append& item : request.batch) {
        time_ms = std::max(time_ms, item.record.timestamp_ms);
    }
    if (auto prepared = prepare(time_ms); !prepared) {
        refuse(prepared.error());
        return;
    }
    std::vector<Head> heads(request.batch.size());
    bool conflicts = false;
    for (std::size_t i = 0; i < request.batch.size(); ++i) {
        const auto head = check(request.batch[i], request.ids[i], request.results[i]);
        if (head) {
            heads[i] = *head;
        } else if (head.error().code == Code::sequence_conflict) {
            request.results[i] = std::unexpected(head.error());
            conflicts = true;
        } else {
            refuse(head.error());
            return;
        }
    }
    if (conflicts) {
        // (Those that conflict with a pending head are remembered by check.)
        for (std::size_t i = 0; i < request.batch.size(); ++i) {
            if (request.results[i]) {
                request.results[i] = std::unexpected(Error{
                    Code::sequence_conflict, "another item of the atomic batch has a conflict", 0,
                    request.batch[i].expected_sequence});
            }
        }
        return;
    }
    if (const auto begin = std::ranges::count_if(heads, begins_stream, &Head::link); begin != 0) {
        Room wanted;
        for (const Append& item : request.batch) {
            wanted += room_of(item.record);
        }
        wanted.keys = static_cast<std::uint64_t>(begin);
        if (auto room = store_.check_room(new_streams_, wanted); !room) {
            for (std::size_t i = 0; i < request.batch.size(); ++i) {
                request.refused.items.push_back(i);
            }
            request.refused.wanted.push_back(wanted);
            refuse(room.error());
            return;
        }
    }
    SegmentWriter& writer = *store_.writer_;
    const auto offset = static_cast<std::uint32_t>(writer.end());
    const std::size_t start = writer.buffered();
    const std::uint64_t first = store_.next_sequence_;
    begin_frame(writer.buffer());
    for (std::size_t i = 0; i < request.batch.size(); ++i) {
        add_record(writer.buffer(), writer.segment()->id(), request.batch[i].record, first + i,
                   heads[i].link, request.batch.size() == 1);
    }
    if (writer.buffered() - start - kFrameHeaderBytes > kAtomicBatchBytesMax &&
        request.batch.size() > 1) {
        writer.buffer().resize(start);
        refuse(batch_too_large());
        return;
    }
    writer.finish(start, FrameKind::records, static_cast<std::uint16_t>(request.batch.size()),
                  first);
    store_.next_sequence_ += request.batch.size();
    const std::uint64_t bytes_each = (writer.end() - offset) / request.batch.size();
    for (std::size_t i = 0; i < request.batch.size(); ++i) {
        stage(request, i, first + i, heads[i], offset, bytes_each);
    }
}

void LogStore::Commit::drop_staged(const Error& error) {
    for (const Staged& staged : staged_) {
        *staged.result = std::unexpected(error);
    }
    for (Result<std::uint64_t>* result : lost_to_pending_) {
        *result = std::unexpected(error);
    }
    clear();
}

void LogStore::Commit::give_up(const Error& error) {
    if (!store_.failed_) {
        store_.next_sequence_ = first_sequence_;  // nobody will have seen these
    }
    drop_staged(error);
}

void LogStore::Commit::clear() {
    staged_.clear();
    lost_to_pending_.clear();
    pending_.clear();
    new_streams_ = 0;
}

void LogStore::Commit::finish() {
    if (!staged_.empty()) {
        store_.expect_entries(*view_, staged_.size());
    }
    view_.reset();
    if (staged_.empty()) {
        return;
    }
    SegmentWriter& writer = *store_.writer_;
    if (auto reserved = writer.reserve(); !reserved) {
        // Nothing has been written, and nobody will have seen these sequences.
        writer.discard();
        store_.next_sequence_ = first_sequence_;
        drop_staged(reserved.error());
        return;
    }
    const Unfinished unfinished(store_);
    auto done = store_.write_buffered(writer);
    if (done && store_.options_.durability == Durability::sync) {
        done = store_.sync_written();
    }
    if (!done) {
        drop_staged(store_.fail(done.error()));
        return;
    }
    {
        const std::lock_guard lock(store_.view_mutex_);
        Unsealed& newest = *store_.view_->unsealed.front();
        store_.readers_.exclusive([&] {
            for (const Staged& staged : staged_) {
                newest.show(staged.applied);
            }
        });
        for (const Staged& staged : staged_) {
            newest.count(staged.applied);
        }
        newest.grown_to(writer.end());
        store_.written_time_ms_ = newest.row.time_high_ms;
        store_.applied_sequence_ = staged_.back().applied.entry.sequence;
    }
    store_.streams_ += new_streams_;
    store_.counters_.count_group(staged_.size());
    store_.saw_time(store_.written_time_ms_);
    first_sequence_ = store_.next_sequence_;
    clear();
}

// Makes room in the newest delta for so many entries: showing what has been written must not fail.
// The leader calls this with the view as it is now.
void LogStore::expect_entries(const View& view, std::size_t entries) {
    Delta& delta = view.unsealed.front()->delta;
    if (!delta.has_room(entries)) {
        const std::lock_guard lock(view_mutex_);
        readers_.exclusive([&] { delta.make_room(entries); });
    }
}

// Writes a frame without records and flushes it, whatever the durability. It says that no sequence
// above `sequence` has been assigned.
Result<void> LogStore::write_now(FrameKind kind, std::string_view body, std::uint64_t sequence) {
    const std::size_t start = writer_->buffered();
    begin_frame(writer_->buffer());
    writer_->buffer() += body;
    writer_->finish(start, kind, 0, sequence);
    if (auto reserved = writer_->reserve(); !reserved) {
        writer_->discard();
        return reserved;
    }
    const Unfinished unfinished(*this);
    auto done = write_buffered(*writer_);
    if (done) {
        done = flush_written();
    }
    if (!done) {
        return std::unexpected(fail(done.error()));
    }
    return {};
}

Result<void> LogStore::write_mark(std::uint64_t sequence) {
    const std::int64_t time_ms = now_ms();
    if (auto noted = note_clock(); !noted) {
        return noted;
    }
    if (auto written = write_now(FrameKind::mark, mark_body(time_ms), sequence); !written) {
        return written;
    }
    records_since_mark_ = false;
    const std::lock_guard lock(view_mutex_);
    Unsealed& newest = *view_->unsealed.front();
    newest.grown_to(writer_->end());
    SegmentRow& row = newest.row;
    row.time_high_ms = std::max(row.time_high_ms, time_ms);
    row.next_sequence = std::max(row.next_sequence, sequence + 1);
    written_time_ms_ = row.time_high_ms;
    return {};
}

// Puts a manifest in force, with its number of steps, its time and the clock's history filled in.
Result<void> LogStore::write_manifest(Manifest manifest, bool is_step) {
    const std::uint64_t sequence = std::max(next_sequence_ - 1, reserved_sequence_);
    manifest.steps = manifest_.steps + (is_step ? 1 : 0);
    // A jump is in the history before the time behind it is seen. So the time is read last: that of
    // every jump in this history.
    (void)now_ms();
    std::uint64_t changes = 0;
    manifest.clock = clock_history_at(next_sequence_ - 1, changes);
    manifest.time_high_ms = saw_time(0);
    Manifest copy = manifest;  // now, as nothing may fail behind the write
    if (auto written = write_now(manifest_kind(manifest), encode_manifest(manifest), sequence);
        !written) {
        return written;
    }
    clock_noted_ = changes;
    records_since_mark_ = false;
    const std::lock_guard lock(view_mutex_);
    Unsealed& newest = *view_->unsealed.front();
    newest.manifest = std::move(copy);
    newest.grown_to(writer_->end());
    newest.row.time_high_ms = std::max(newest.row.time_high_ms, manifest.time_high_ms);
    newest.row.next_sequence = std::max(newest.row.next_sequence, sequence + 1);
    written_time_ms_ = newest.row.time_high_ms;
    manifest_ = std::move(manifest);
    return {};
}

std::string LogStore::name() const {
    return fmt::format("store {}", path_.string());
}

// Whether the capacity allows `wanted` beside streams that are about to be written.
Result<void> LogStore::check_room(std::uint64_t pending_streams, const Room& wanted) const {
    const Capacity& capacity = options_.capacity;
    Room held{streams_ + pending_streams, 0};
    if (capacity.bytes_max != 0) {
        held.bytes = writer_->end();
        for (const SegmentLength& segment : manifest_.segments) {
            held.bytes += segment.bytes;
        }
    }
    return fits(capacity, held, wanted) ? Result<void>()
                                        : std::unexpected(no_room(name(), capacity, held, wanted));
}

Result<void> LogStore::reserve_sequences() {
    const std::uint64_t last = next_sequence_ + std::min(kReservedSequences + kBatchItemsMax,
                                                         kSequenceMax - next_sequence_);
    if (auto written = write_mark(last); !written) {
        return written;
    }
    reserved_sequence_ = last;
    return {};
}

Result<void> LogStore::flush_written() {
    const std::lock_guard lock(flush_mutex_);
    return sync_written();
}

// What a flush is counted by; see SegmentWriter::sync_written for who may call it.
Result<void> LogStore::sync_written() {
    if (writer_->synced()) {
        return writer_->sync_written();
    }
    const auto start = std::chrono::steady_clock::now();
    const Unfinished unfinished(*this);
    auto done = writer_->sync_written();
    if (done) {
        done = lock_->check();
    }
    counters_.flushes.add(1);
    counters_.flush_ns.add(nanoseconds_since(start));
    return done;
}

Result<void> LogStore::write_buffered(SegmentWriter& writer) {
    const std::uint64_t bytes = writer.buffered();
    auto done = writer.write();
    counters_.bytes_written.add(done ? bytes : 0);
    return done;
}

Result<void> LogStore::flush() {
    ::pthread_testcancel();
    const NoCancel no_cancel;
    if (auto ready = ready_to_write(); !ready) {
        return ready.error().code == Code::read_only ? Result<void>() : ready;
    }
    return lead([&]() -> Result<void> {
        if (auto ready = ready_to_write(); !ready) {
            return ready;
        }
        if (auto flushed = flush_written(); !flushed) {
            return std::unexpected(fail(flushed.error()));
        }
        return {};
    });
}

void LogStore::flush_in_background() {
    std::unique_lock lock(flush_mutex_);
    while (
        !flusher_wakes_.wait_for(lock, options_.flush_interval, [&] { return flusher_stops_; })) {
        if (failed_) {
            continue;
        }
        (void)answered([&]() -> Result<void> {
            if (auto flushed = sync_written(); !flushed) {
                return std::unexpected(fail(flushed.error()));
            }
            return {};
        });
    }
}

Result<void> LogStore::close() {
    if (auto own = check_process(); !own) {
        return own;
    }
    const NoCancel no_cancel;
    if (sweep_mutex_.is_mine()) {
        return std::unexpected(called_back_error("close()"));
    }
    std::call_once(close_once_, [this] { close_result_ = close_now(); });
    return answered([this] { return close_result_; });
}

Result<void> LogStore::close_now() {
    {
        std::unique_lock lock(queue_mutex_);
        closed_ = true;
        {
            const std::lock_guard view_lock(view_mutex_);
            room_.notify_all();
        }
        turn_.wait(lock,
                   [&] { return !committing_ && next_group_ == nullptr && waiting_leaders_ == 0; });
        committing_ = true;  // for good
    }
    {
        const std::scoped_lock locks(flush_mutex_, view_mutex_);
        flusher_stops_ = true;
        sealer_stops_ = true;
    }
    flusher_wakes_.notify_all();
    sealer_wakes_.notify_all();
    room_.notify_all();
    {
        const std::lock_guard lock(sweep_mutex_);  // a sweep ends at its next step
    }
    for (std::thread* thread : {&flusher_, &sealer_}) {
        if (thread->joinable()) {
            thread->join();
        }
    }
    const Result<void> done =
        answered([this] { return writer_ ? finish_writing() : Result<void>(); });
    const std::scoped_lock locks(sweep_mutex_, follow_mutex_, view_mutex_);
    set_view(nullptr);
    writer_.reset();
    catalog_.reset();
    lock_.reset();
    return done;
}

// Leaves the log such that the next opening finds it whole.
Result<void> LogStore::finish_writing() {
    if (failed_) {
        if (writer_->synced()) {
            return {};
        }
        const std::lock_guard lock(failure_mutex_);
        return std::unexpected(Error{
            Code::failed, fmt::format("what was last appended to store {} may not be durable: "
                                      "{}; open the store again and look",
                                      path_.string(), failure_)});
    }
    if (auto flushed = flush_written(); !flushed) {
        return std::unexpected(fail(flushed.error()));
    }
    // The mark proves that all before it was flushed: without it, damage there could not be told
    // from a torn tail. It also keeps a time that only duplicates have seen, if that is worth a
    // flush.
    constexpr std::int64_t kTimeWorthAMarkMs = 60'000;
    if (now_ms() - written_time_ms_ > kTimeWorthAMarkMs || records_since_mark_ ||
        clock_changes() != clock_noted_) {
        // Without room for the mark nothing is lost but that proof.
        auto marked = write_mark(next_sequence_ - 1);
        if (!marked && marked.error().code != Code::out_of_space) {
            return marked;
        }
    }
    return writer_->trim();
}

}  // namespace dedup
