#include "engine/commit.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "contract/check_batch.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

// A group is written out in pieces of about this size, so that memory does not follow the batch.
constexpr std::uint64_t kWriteBytes = 8 * 1024 * 1024;

// What a record takes in the log besides its texts, and a new segment's beginning, roughly.
constexpr std::uint64_t kRecordOverheadBytes = 512;

Error conflict(std::uint64_t head, std::uint64_t expected) {
    return {Code::sequence_conflict,
            fmt::format("the head of the stream is at sequence {}, not {}", head, expected), 0,
            head};
}

// What an append that begins a new stream takes.
Room room_of(const Record& record) {
    return {1, content_bytes(record) + kRecordOverheadBytes};
}

bool begins_stream(const Link& link) {
    return link.segment == 0 || link.swept;
}

}  // namespace

void Commit::add(AppendRequest& request) {
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

Result<void> Commit::finish_and_go_on() {
    finish();
    return context_.check_writable();
}

// Sees to it that there is a segment with room to encode into a record of this time, and that a
// jump of the clock is noted before it.
Result<void> Commit::prepare(std::int64_t time_ms) {
    DEDUP_TRY(context_.check_writable());
    const bool segment_full = writer_.is_full(turn_);
    if (segment_full || writer_.file(turn_).buffered() >= kWriteBytes) {
        DEDUP_TRY(finish_and_go_on());
    }
    if (segment_full) {
        DEDUP_TRY(writer_.start_segment(turn_));
    }
    if (context_.clock.would_jump(time_ms)) {
        context_.clock.watch_time(time_ms);
    }
    if (writer_.clock_is_new(turn_)) {
        DEDUP_TRY(finish_and_go_on());
        DEDUP_TRY(writer_.note_clock(turn_));
    }
    if (writer_.must_reserve(turn_)) {
        finish();
        DEDUP_TRY(writer_.reserve_sequences(turn_));
        first_sequence_ = writer_.next_sequence(turn_);
    }
    if (!view_) {
        view_ = DEDUP_TRY(reader_.view());
    }
    if (writer_.next_sequence(turn_) > kSequenceMax - kBatchItemsMax) {
        return std::unexpected(Error{Code::out_of_space, "all 2^64 sequences have been assigned"});
    }
    return {};
}

// The staged head of the stream; null if there is none. A sequence is never used twice, so an entry
// with the expected one is of this stream, and its record need not be read.
Result<const IndexEntry*> Commit::find_pending(const Append& item, const StreamId& id) {
    const StreamKey stream{item.record.ns, item.record.key};
    FrameBuffer buffer;
    Result<bool> found = false;
    const IndexEntry* pending = pending_.find(id, [&](const IndexEntry& entry) {
        if (entry.sequence == item.expected_sequence) {
            return true;
        }
        const auto frame = writer_.file(turn_).read_frame(entry.offset, buffer);
        if (!frame) {
            found = std::unexpected(frame.error());
            return true;
        }
        Located at;
        at.segment = writer_.file(turn_).segment().get();
        at.entry = entry;
        found = Reader::find_in_frame(*frame, stream, at);
        return !found || *found;
    });
    return found ? Result<const IndexEntry*>(pending) : std::unexpected(found.error());
}

// The stream's newest record that lookups see, also if a sweep has removed it.
Result<Commit::Head> Commit::find_shown(const Append& item, const StreamId& id) {
    const StreamKey stream{item.record.ns, item.record.key};
    FrameBuffer buffer;
    const auto found =
        reader_.find_newest(*view_, id, dedup::probe(*view_, id), [&](Located& at) -> Result<bool> {
            if (at.entry.sequence == item.expected_sequence) {
                return true;
            }
            return Reader::read_record(at, stream, buffer);
        });
    if (!found) {
        return std::unexpected(found.error());
    }
    if (!*found) {
        return Head{};
    }
    const IndexEntry entry = (*found)->entry;
    Head head{{(*found)->segment->id(), entry.offset, entry.state()}, entry.sequence};
    if (view_->horizon.may_remove(entry)) {
        // It may have been recognised by its sequence alone.
        Located at = **found;
        if (const auto read = Reader::read_record(at, stream, buffer); !read) {
            return std::unexpected(read.error());
        }
        head.link.swept = removed(*view_, at);
    }
    return head;
}

// Compares the stream's head with the expected one; gives it.
Result<Commit::Head> Commit::check(const Append& item, const StreamId& id,
                                   Result<std::uint64_t>& result) {
    const auto pending = find_pending(item, id);
    if (!pending) {
        return std::unexpected(pending.error());
    }
    Head head;
    if (*pending != nullptr) {
        head.sequence = (*pending)->sequence;
        head.link = {writer_.file(turn_).segment()->id(), (*pending)->offset, (*pending)->state()};
    } else {
        auto shown = find_shown(item, id);
        if (!shown) {
            return shown;
        }
        head = *shown;
    }
    const std::uint64_t current = head.link.swept ? 0 : head.sequence;
    if (current != item.expected_sequence) {
        if (*pending != nullptr) {
            lost_to_pending_.push_back(&result);
        }
        return std::unexpected(conflict(current, item.expected_sequence));
    }
    return head;
}

void Commit::stage(AppendRequest& request, std::size_t i, std::uint64_t sequence, const Head& head,
                   std::uint32_t offset, std::uint64_t bytes) {
    const Link& link = head.link;
    const Record& record = request.batch[i].record;
    const IndexEntry entry{request.ids[i], sequence, offset,
                           pack(record.state(), record.expires_at_ms)};
    const bool replaces_pending =
        link.segment == writer_.file(turn_).segment()->id() && pending_.size() != 0;
    pending_.put(entry, replaces_pending ? head.sequence : 0);
    staged_results_.push_back(&request.results[i]);
    staged_.push_back({entry, link, head.sequence, record.ns, record.timestamp_ms,
                       record.expires_at_ms, bytes, false});
    request.results[i] = sequence;  // no sooner than it is staged: who is not, is not written
    flush_ = flush_ || request.batch[i].flush;
    new_streams_ += begins_stream(link);
}

void Commit::add_each(AppendRequest& request, std::size_t i) {
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
        if (auto room = writer_.check_room(turn_, new_streams_, wanted); !room) {
            request.refused.items.push_back(i);
            request.refused.wanted.push_back(wanted);
            request.results[i] = std::unexpected(room.error());
            return;
        }
    }
    SegmentWriter& file = writer_.file(turn_);
    const std::uint64_t sequence = writer_.next_sequence(turn_);
    writer_.set_next_sequence(turn_, sequence + 1);
    const std::uint32_t offset = file.begin();
    add_record(file.buffer(), file.segment()->id(), item.record, sequence, head->link, true);
    file.finish(FrameKind::records, 1, sequence);
    stage(request, i, sequence, *head, offset, file.end() - offset);
}

// False: some conflict, and all items have that for their result.
Result<bool> Commit::check_heads(AppendRequest& request, std::vector<Head>& heads) {
    bool conflicts = false;
    for (std::size_t i = 0; i < request.batch.size(); ++i) {
        const auto head = check(request.batch[i], request.ids[i], request.results[i]);
        if (head) {
            heads[i] = *head;
        } else if (head.error().code == Code::sequence_conflict) {
            request.results[i] = std::unexpected(head.error());
            conflicts = true;
        } else {
            return std::unexpected(head.error());
        }
    }
    // (Those that conflict with a pending head are remembered by check.)
    for (std::size_t i = 0; conflicts && i < request.batch.size(); ++i) {
        if (request.results[i]) {
            request.results[i] = std::unexpected(
                Error{Code::sequence_conflict, "another item of the atomic batch has a conflict", 0,
                      request.batch[i].expected_sequence});
        }
    }
    return !conflicts;
}

Result<void> Commit::check_room_for_all(AppendRequest& request, const std::vector<Head>& heads) {
    const auto begun = std::ranges::count_if(heads, begins_stream, &Head::link);
    if (begun == 0) {
        return {};
    }
    Room wanted;
    for (const Append& item : request.batch) {
        wanted += room_of(item.record);
    }
    wanted.keys = static_cast<std::uint64_t>(begun);
    auto room = writer_.check_room(turn_, new_streams_, wanted);
    if (!room) {
        for (std::size_t i = 0; i < request.batch.size(); ++i) {
            request.refused.items.push_back(i);
        }
        request.refused.wanted.push_back(wanted);
    }
    return room;
}

void Commit::add_atomic(AppendRequest& request) {
    const auto refuse = [&](const Error& error) {
        std::ranges::fill(request.results, std::unexpected(error));
    };
    std::int64_t time_ms = 0;
    for (const Append& item : request.batch) {
        time_ms = std::max(time_ms, item.record.timestamp_ms);
    }
    if (auto prepared = prepare(time_ms); !prepared) {
        return refuse(prepared.error());
    }
    std::vector<Head> heads(request.batch.size());
    const auto passed = check_heads(request, heads);
    if (!passed || !*passed) {
        return passed ? void() : refuse(passed.error());
    }
    if (auto room = check_room_for_all(request, heads); !room) {
        return refuse(room.error());
    }
    SegmentWriter& file = writer_.file(turn_);
    const std::uint64_t first = writer_.next_sequence(turn_);
    const std::uint32_t offset = file.begin();
    for (std::size_t i = 0; i < request.batch.size(); ++i) {
        add_record(file.buffer(), file.segment()->id(), request.batch[i].record, first + i,
                   heads[i].link, request.batch.size() == 1);
    }
    if (file.body_bytes() > kAtomicBatchBytesMax && request.batch.size() > 1) {
        file.drop();
        return refuse(atomic_batch_too_large());
    }
    file.finish(FrameKind::records, static_cast<std::uint16_t>(request.batch.size()), first);
    writer_.set_next_sequence(turn_, first + request.batch.size());
    const std::uint64_t bytes_each = (file.end() - offset) / request.batch.size();
    for (std::size_t i = 0; i < request.batch.size(); ++i) {
        stage(request, i, first + i, heads[i], offset, bytes_each);
    }
}

void Commit::drop_staged(const Error& error) {
    for (Result<std::uint64_t>* result : staged_results_) {
        *result = std::unexpected(error);
    }
    for (Result<std::uint64_t>* result : lost_to_pending_) {
        *result = std::unexpected(error);
    }
    clear();
}

void Commit::give_up(const Error& error) {
    if (!context_.failure.failed()) {
        writer_.set_next_sequence(turn_, first_sequence_);  // nobody will have seen these
    }
    drop_staged(error);
}

void Commit::clear() {
    staged_.clear();
    staged_results_.clear();
    lost_to_pending_.clear();
    pending_.clear();
    new_streams_ = 0;
    flush_ = false;
}

void Commit::finish() {
    view_.reset();
    if (staged_.empty()) {
        return;
    }
    const bool flush = flush_ || context_.options.durability == Durability::sync;
    if (auto written = writer_.write_records(turn_, staged_, flush); !written) {
        give_up(written.error());
        return;
    }
    writer_.add_streams(new_streams_);
    context_.counters.count_group(staged_.size());
    first_sequence_ = writer_.next_sequence(turn_);
    clear();
}

}  // namespace dedup
