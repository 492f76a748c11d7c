#include "engine/unsealed.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "log/damaged_frame.hpp"
#include "log/frame_reader.hpp"
#include "record/codec.hpp"

namespace dedup {

// Lookups wait while a delta grows; so one that has much in it already is not made to.
std::size_t Unsealed::entries_at_first(std::uint64_t room, std::uint64_t there) {
    constexpr std::uint64_t kEntriesMore = 1024;
    constexpr std::uint64_t kSmallPart = 8;
    const std::uint64_t small = 2 * there / kFrameBytesTypical + kEntriesMore;
    const std::uint64_t whole = room / kFrameBytesTypical;
    return small < whole / kSmallPart ? small : whole;
}

void Unsealed::count(const Applied& applied) {
    const IndexEntry& entry = applied.entry;
    const Link& link = applied.link;
    StateCounts& streams_of_ns = counts(applied.ns);
    if (link.swept) {
        ++counts_of(reclaimed[link.segment], applied.ns)[link.state];
    } else if (link.segment == row.id) {
        --streams_of_ns[link.state];
    } else if (link.segment != 0) {
        ++counts_of(superseded[link.segment], applied.ns)[link.state];
    }
    ++streams_of_ns[entry.state()];
    ++row.versions[entry.state()];
    row.version_bytes[entry.state()] += applied.bytes;
    if (!applied.moved) {
        last_sequence = entry.sequence;
    }
    row.next_sequence = std::max(row.next_sequence, entry.sequence + 1);
    // A moved record tells no time that the manifest before it does not, but perhaps one from
    // before the clock was reset.
    if (!applied.moved) {
        row.time_high_ms = std::max(row.time_high_ms, applied.timestamp_ms);
    }
    const std::int64_t expires_ms = applied.expires_at_ms == 0 ? INT64_MAX : applied.expires_at_ms;
    row.expires_min_ms = std::min(row.expires_min_ms, expires_ms);
    row.expires_max_ms = std::max(row.expires_max_ms, expires_ms);
}

std::string_view Unsealed::intern(std::string_view ns) {
    (void)counts(ns);
    return last_ns_;
}

StateCounts& Unsealed::counts(std::string_view ns) {
    if (last_counts_ == nullptr || last_ns_ != ns) {
        const auto at = streams.try_emplace(std::string(ns)).first;
        last_ns_ = at->first;
        last_counts_ = &at->second;
    }
    return *last_counts_;
}

namespace {

// Calls use(sequence, view) for the records of the frame at `offset`, which has been read before.
template <class Use>
void for_each_record(const Segment& segment, std::uint32_t offset, Use use) {
    FrameBuffer buffer;
    const auto frame = segment.read_frame(offset, buffer);
    if (!frame) {
        return;
    }
    FrameRecords records(*frame, segment.id());
    while (const FrameRecord* const record = records.next()) {
        if (const auto view = decode_view(record->encoded)) {
            use(record->sequence, *view);
        }
    }
}

// Takes up the frames of a segment. A record's place in the delta is fetched while those behind it
// are decoded, and filled a few records later.
class Replay {
  public:
    Replay(Unsealed& unsealed, const Locator& locator)
        : unsealed_(unsealed), locator_(locator), last_sequence_(unsealed.last_sequence) {}

    // Up to `end` or the first place without a valid frame. Whatever the outcome, unsealed.row and
    // the delta are of what lies before row.bytes.
    Result<Replayed> run(std::uint64_t end, bool whole);

  private:
    static constexpr std::size_t kAhead = 16;
    static constexpr std::uint64_t kDamagedSequencesMax = 65'536;

    Result<Replayed> take_frames(std::uint64_t end, bool whole);
    Result<void> take_damage(FrameReader& reader, std::uint64_t end);
    void take_suspect(const DamagedRecord& record);
    void lead_past_damage(Applied& applied) const;
    void apply_waiting();
    Result<void> take_frame(const Frame& frame);
    Result<void> take_records(const Frame& frame);
    Result<void> take_manifest(const Frame& frame);
    Result<void> take_mark(const Frame& frame);
    Applied& next_place();
    void apply_next();
    [[nodiscard]] std::uint64_t replaced_by(const Applied& applied) const;

    Unsealed& unsealed_;
    const Locator& locator_;
    std::uint64_t last_sequence_;
    std::array<Applied, kAhead> waiting_;
    std::size_t taken_ = 0;    // records so far
    std::size_t applied_ = 0;  // of these
};

// Where the next record waits.
Applied& Replay::next_place() {
    if (taken_ - applied_ == kAhead) {
        apply_next();
    }
    return waiting_[taken_++ % kAhead];
}

void Replay::apply_next() {
    Applied& applied = waiting_[applied_++ % kAhead];
    if (!unsealed_.damaged.empty()) {
        lead_past_damage(applied);
    }
    const bool replaces = applied.link.segment == unsealed_.row.id;
    applied.replaced_sequence = replaces ? replaced_by(applied) : 0;
    unsealed_.apply(applied);
}

// A link into what is damaged leads to what was taken from there instead, or to what came before.
void Replay::lead_past_damage(Applied& applied) const {
    Link& link = applied.link;
    const auto next = unsealed_.damaged.upper_bound(link.offset);
    if (link.segment != unsealed_.row.id || next == unsealed_.damaged.begin() ||
        link.offset >= std::prev(next)->second) {
        return;
    }
    const Delta& delta = unsealed_.delta;
    const IndexEntry* before = delta.find(
        applied.entry.id, [&](const IndexEntry& entry) { return entry.offset == link.offset; });
    before = before == nullptr ? delta.find(applied.entry.id) : before;
    link = before == nullptr ? Link() : Link{link.segment, before->offset, before->state()};
}

// The link says in which frame the record is that is replaced. Mostly one entry with this id is of
// that frame. If there are more, of streams that share the id, the names decide.
std::uint64_t Replay::replaced_by(const Applied& applied) const {
    std::uint64_t replaced = 0;
    bool shared = false;
    (void)unsealed_.delta.find(applied.entry.id, [&](const IndexEntry& entry) {
        if (entry.offset == applied.link.offset) {
            shared = replaced != 0;
            replaced = entry.sequence;
        }
        return shared;
    });
    if (!shared) {
        return replaced;
    }
    const Segment& segment = *unsealed_.segment;
    std::string ns;
    std::string key;
    for_each_record(segment, applied.entry.offset, [&](std::uint64_t sequence, auto& view) {
        if (sequence == applied.entry.sequence) {
            ns = view.ns;
            key = view.key;
        }
    });
    for_each_record(segment, applied.link.offset, [&](std::uint64_t sequence, auto& view) {
        if (view.key == key && view.ns == ns) {
            replaced = sequence;
        }
    });
    return replaced;
}

Result<void> Replay::take_records(const Frame& frame) {
    const auto damaged = [&](std::string_view what) {
        return std::unexpected(unsealed_.segment->corruption(frame.offset, what));
    };
    const bool moved = frame.header.kind == FrameKind::moved;
    if (frame.header.records == 0 || (moved && frame.header.records != 1)) {
        return damaged(fmt::format("a frame of {} records", frame.header.records));
    }
    if (!moved && frame.header.sequence <= last_sequence_) {
        return damaged(
            fmt::format("sequence {} follows {}", frame.header.sequence, last_sequence_));
    }
    FrameRecords records(frame, unsealed_.row.id);
    while (const FrameRecord* const record = records.next()) {
        const auto view = decode_view(record->encoded);
        if (!view) {
            return view.error().code == Code::unsupported_version ? std::unexpected(view.error())
                                                                  : damaged(view.error().message);
        }
        if (view->sequence != record->sequence) {
            return damaged(fmt::format("the frame says sequence {}, its record {}",
                                       record->sequence, view->sequence));
        }
        if (!moved) {
            last_sequence_ = record->sequence;
        }
        Applied& applied = next_place();
        applied.entry.id = locator_.id({view->ns, view->key});
        applied.entry.sequence = record->sequence;
        applied.entry.offset = frame.offset;
        applied.entry.packed = pack(view->state(), view->expires_at_ms);
        applied.link = record->link;
        applied.ns = unsealed_.intern(view->ns);
        applied.timestamp_ms = view->timestamp_ms;
        applied.expires_at_ms = view->expires_at_ms;
        applied.bytes = frame.bytes() / frame.header.records;
        applied.moved = moved;
        unsealed_.delta.prefetch(applied.entry.id);
    }
    const auto outcome = records.outcome();
    return outcome ? outcome : damaged(outcome.error().message);
}

Result<void> Replay::take_mark(const Frame& frame) {
    const auto time_ms = mark_time(frame);
    if (!time_ms) {
        return std::unexpected(
            unsealed_.segment->corruption(frame.offset, time_ms.error().message));
    }
    SegmentRow& row = unsealed_.row;
    row.next_sequence = std::max(row.next_sequence, frame.header.sequence + 1);
    row.time_high_ms = std::max(row.time_high_ms, *time_ms);
    return {};
}

Result<void> Replay::take_manifest(const Frame& frame) {
    auto manifest = decode_manifest(frame);
    if (!manifest) {
        return std::unexpected(
            unsealed_.segment->corruption(frame.offset, manifest.error().message));
    }
    unsealed_.manifest = std::move(*manifest);
    SegmentRow& row = unsealed_.row;
    row.next_sequence = std::max(row.next_sequence, frame.header.sequence + 1);
    row.time_high_ms = std::max(row.time_high_ms, unsealed_.manifest.time_high_ms);
    return {};
}

Result<void> Replay::take_frame(const Frame& frame) {
    // A segment is made together with its first manifest, so this one is not a torn tail.
    if (unsealed_.row.bytes == kSegmentHeaderBytes && !is_manifest(frame.header.kind)) {
        return std::unexpected(unsealed_.segment->corruption(
            frame.offset, "the segment does not begin with a manifest"));
    }
    if (frame.header.sequence > kSequenceMax - frame.header.records) {
        return std::unexpected(unsealed_.segment->corruption(
            frame.offset, fmt::format("sequence {} is too high", frame.header.sequence)));
    }
    switch (frame.header.kind) {
        case FrameKind::mark:
            return take_mark(frame);
        case FrameKind::manifest:
        case FrameKind::clock_manifest:
            return take_manifest(frame);
        default:
            return take_records(frame);
    }
}

// One more key that lies in what is damaged, in place of an older record of its stream.
void Replay::take_suspect(const DamagedRecord& record) {
    Applied applied;
    applied.entry.id =
        record.key.empty() ? StreamId{record.unnamed_id} : locator_.id({record.ns, record.key});
    // What is far off cannot be right, and would leave no sequences for appends.
    const bool likely = record.sequence > last_sequence_ &&
                        record.sequence - last_sequence_ <= kDamagedSequencesMax;
    applied.entry.sequence = likely ? record.sequence : last_sequence_;
    applied.entry.offset = record.offset;
    applied.entry.packed = pack(record.state, record.expires_at_ms);
    if (const IndexEntry* const before = unsealed_.delta.find(applied.entry.id)) {
        applied.link = {unsealed_.row.id, before->offset, before->state()};
        applied.replaced_sequence = before->sequence;
    }
    applied.ns = record.ns;
    applied.expires_at_ms = record.expires_at_ms;
    applied.moved = true;
    unsealed_.apply(applied);
}

// Goes on behind a place without a valid frame.
Result<void> Replay::take_damage(FrameReader& reader, std::uint64_t end) {
    const std::uint64_t begin = reader.offset();
    const auto next = find_frame_from(*unsealed_.segment, begin + 1, end);
    if (!next) {
        return std::unexpected(next.error());
    }
    const std::uint64_t next_begin = next->value_or(end);
    const auto records = read_damaged(*unsealed_.segment, begin, next_begin);
    if (!records) {
        return std::unexpected(records.error());
    }
    apply_waiting();
    for (const DamagedRecord& record : *records) {
        take_suspect(record);
    }
    unsealed_.damaged.emplace(begin, next_begin);
    reader.skip_to(next_begin);
    unsealed_.grown_to(next_begin);
    return {};
}

Result<Replayed> Replay::take_frames(std::uint64_t end, bool whole) {
    Replayed replayed;
    FrameReader reader(*unsealed_.segment, unsealed_.row.bytes, end);
    while (true) {
        const auto frame = reader.next();
        if (!frame) {
            return std::unexpected(frame.error());
        }
        if (!*frame && whole && reader.offset() < end) {
            if (auto taken = take_damage(reader, end); !taken) {
                return std::unexpected(taken.error());
            }
            continue;
        }
        if (!*frame) {
            return replayed;
        }
        if (auto taken = take_frame(**frame); !taken) {
            return std::unexpected(taken.error());
        }
        const FrameHeader& header = (*frame)->header;
        replayed.flushed = header.flushed;
        replayed.closed = header.kind == FrameKind::mark && header.flushed == (*frame)->offset;
        unsealed_.grown_to(reader.offset());
    }
}

void Replay::apply_waiting() {
    while (applied_ != taken_) {
        apply_next();
    }
}

Result<Replayed> Replay::run(std::uint64_t end, bool whole) {
    auto replayed = take_frames(end, whole);
    apply_waiting();
    return replayed;
}

}  // namespace

Result<Replayed> replay(Unsealed& unsealed, const Locator& locator, std::uint64_t whole_bytes) {
    const auto file_bytes = unsealed.segment->bytes_there();
    if (!file_bytes) {
        return std::unexpected(file_bytes.error());
    }
    if (whole_bytes != 0) {
        return Replay(unsealed, locator).run(std::min(whole_bytes, *file_bytes), true);
    }
    // A reader asks often and mostly finds nothing new; that should not cost a block.
    std::array<char, kFrameHeaderBytes> next;
    const auto got = unsealed.segment->file().read(unsealed.row.bytes, next);
    if (!got) {
        return std::unexpected(got.error());
    }
    FrameHeader header;
    if (*got < next.size() ||
        !read_frame_header(next.data(), unsealed.segment->salt(),
                           static_cast<std::uint32_t>(unsealed.row.bytes), header)) {
        return Replayed();
    }
    return Replay(unsealed, locator).run(*file_bytes, false);
}

}  // namespace dedup
