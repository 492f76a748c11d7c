#include "engine/reader.hpp"

#include <algorithm>
#include <array>

#include "contract/check_stream.hpp"
#include "contract/history_room.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

// How many keys are looked up side by side.
constexpr std::size_t kHeadsChunk = 16;

// How many entries are looked at before appends may go on, and the store may close.
constexpr std::size_t kEntriesAtOnce = 4096;

void prefetch_filters(const View& view, const StreamId& id) {
    for (const SealedRun& run : view.sealed->runs()) {
        run.filters->prefetch(id);
    }
}

}  // namespace

Version to_version(const Located& at) {
    return {to_record(at.record), at.segment->id(), at.entry.offset, at.frame_bytes};
}

Result<ViewPtr> Reader::view() const {
    ViewPtr view = shown_.view();
    return view ? Result<ViewPtr>(std::move(view)) : std::unexpected(context_.closed_error());
}

Result<Now> Reader::now() const {
    Now now = shown_.now();
    return now.view ? Result<Now>(std::move(now)) : std::unexpected(context_.closed_error());
}

Result<bool> Reader::find_in_frame(const Frame& frame, StreamKey stream, Located& at) {
    FrameRecords records(frame, at.segment->id());
    while (const FrameRecord* const record = records.next()) {
        if (at.entry.sequence != 0 && at.entry.sequence != record->sequence) {
            continue;
        }
        at.record = {};
        if (const auto decoded = decode_view(record->encoded, at.record); !decoded) {
            return std::unexpected(at.segment->corruption(frame.offset, decoded.error().message));
        }
        if (at.record.key == stream.key && at.record.ns == stream.ns) {
            at.link = record->link;
            at.entry.sequence = record->sequence;
            at.frame_bytes = frame.bytes();
            return true;
        }
    }
    if (const auto outcome = records.outcome(); !outcome) {
        return std::unexpected(at.segment->corruption(frame.offset, outcome.error().message));
    }
    return false;
}

Result<bool> Reader::read_record(Located& at, StreamKey stream, FrameBuffer& buffer) {
    const auto frame = at.segment->read_frame(at.entry.offset, buffer);
    if (!frame) {
        return std::unexpected(frame.error());
    }
    return find_in_frame(*frame, stream, at);
}

std::vector<Result<std::optional<Record>>> Reader::heads(std::span<const StreamKey> streams) const {
    std::vector<Result<std::optional<Record>>> results(streams.size());
    const auto view = this->view();
    if (!view) {
        std::ranges::fill(results, std::unexpected(view.error()));
        return results;
    }
    for (std::size_t i = 0; i < streams.size(); i += kHeadsChunk) {
        const std::size_t count = std::min(kHeadsChunk, streams.size() - i);
        head_chunk(**view, streams.subspan(i, count), std::span(results).subspan(i, count));
    }
    return results;
}

// The heads of at most kHeadsChunk streams, all of them a step at a time, so that what one key
// needs of memory is fetched while the others are worked on.
void Reader::head_chunk(const View& view, std::span<const StreamKey> streams,
                        std::span<Result<std::optional<Record>>> results) const {
    std::array<StreamId, kHeadsChunk> ids;
    for (std::size_t i = 0; i < streams.size(); ++i) {
        ids[i] = context_.locator.id(streams[i]);
        prefetch_filters(view, ids[i]);
    }
    std::array<std::optional<HeadSearch>, kHeadsChunk> searches;
    shown_.shared([&] {
        for (std::size_t i = 0; i < streams.size() && streams.size() > 1; ++i) {
            for (const auto& segment : view.unsealed) {
                segment->delta.prefetch(ids[i]);
            }
        }
        for (std::size_t i = 0; i < streams.size(); ++i) {
            searches[i].emplace(view, ids[i], dedup::probe(view, ids[i]));
        }
    });
    for (int step = 0; step < HeadSearch::kSteps; ++step) {
        for (std::size_t i = 0; i < streams.size(); ++i) {
            searches[i]->step();
        }
    }
    for (std::size_t i = 0; i < streams.size(); ++i) {
        find_head(view, streams[i], *searches[i], results[i]);
    }
}

// The same for one stream, without what is only worth it for several.
Result<std::optional<Record>> Reader::head(StreamKey stream) const {
    Result<std::optional<Record>> head;  // the only thing returned, so that it is never moved
    const StreamId id = context_.locator.id(stream);
    UnsealedEntries unsealed;
    const ViewPtr view = shown_.view([&](const View& now) {
        prefetch_filters(now, id);
        unsealed = dedup::probe(now, id);
    });
    if (!view) {
        head = std::unexpected(context_.closed_error());
        return head;
    }
    HeadSearch search(*view, id, std::move(unsealed));
    find_head(*view, stream, search, head);
    return head;
}

// Into `head`, which is as a new one is.
void Reader::find_head(const View& view, StreamKey stream, HeadSearch& search,
                       Result<std::optional<Record>>& head) const {
    if (auto checked = check_stream(stream); !checked) {
        head = std::unexpected(std::move(checked).error());
        return;
    }
    FrameBuffer buffer;
    Located at;
    const auto found = find_newest(search, at, [&](Located& candidate) {
        auto read = read_record(candidate, stream, buffer);
        if (!read) {
            (void)context_.damage.note(*candidate.segment, candidate.entry.offset, read.error());
        }
        return read;
    });
    if (!found) {
        head = std::unexpected(found.error());
    } else if (*found && !removed(view, at)) {
        copy_to(at.record, head->emplace());
    }
}

Result<std::vector<Version>> Reader::history(StreamKey stream, const HistoryLimits& limits) const {
    DEDUP_TRY(check_stream(stream));
    const ViewPtr view = DEDUP_TRY(this->view());
    std::vector<Version> versions;
    HistoryRoom room(limits);
    FrameBuffer buffer;
    const StreamId id = context_.locator.id(stream);
    auto at = find_newest(*view, id, this->probe(*view, id),
                          [&](Located& found) { return read_record(found, stream, buffer); });
    if (at && *at && removed(*view, **at)) {
        return versions;
    }
    while (at && *at) {
        // A record that a sweep has moved links to itself at its old place.
        if (versions.empty() || versions.back().record.sequence != (*at)->entry.sequence) {
            versions.push_back(to_version(**at));
            if (!room.is_left_after(versions.back().record)) {
                break;
            }
        }
        const Link link = (*at)->link;
        if (link.swept) {
            break;
        }
        at = follow_link(*view, link, stream, buffer);
        if (at && !*at && link.segment != 0) {
            at = find_older(*view, link.segment, stream, versions.back().record, buffer);
        }
    }
    if (!at) {
        return std::unexpected(at.error());
    }
    std::ranges::reverse(versions);
    return versions;
}

// The record before `newer` in its stream, where the link to it led to a segment that has been
// dropped: the newest in an older segment. One that sweeps have removed belongs to the same history
// only if both are of one claim; else the stream may have begun anew after it.
Result<std::optional<Located>> Reader::find_older(const View& view, std::uint64_t before_segment,
                                                  StreamKey stream, const Record& newer,
                                                  FrameBuffer& buffer) const {
    const StreamId id = context_.locator.id(stream);
    auto older = find_newest(view, id, this->probe(view, id), [&](Located& found) -> Result<bool> {
        return found.segment->id() < before_segment ? read_record(found, stream, buffer)
                                                    : Result<bool>(false);
    });
    if (older && *older && removed(view, **older) &&
        (*older)->record.claim_sequence != newer.claim_sequence) {
        return std::nullopt;
    }
    return older;
}

Result<bool> Reader::read_entry(const Segment& segment, const IndexEntry& entry, Located& at,
                                FrameBuffer& buffer) const {
    at.segment = &segment;
    at.entry = entry;
    if (const auto read = try_read_entry(at, buffer); !read) {
        const auto noted = context_.damage.note(segment, entry.offset, read.error());
        return noted ? Result<bool>(false) : std::unexpected(noted.error());
    }
    return true;
}

Result<void> Reader::try_read_entry(Located& at, FrameBuffer& buffer) const {
    const auto frame = at.segment->read_frame(at.entry.offset, buffer);
    if (!frame) {
        return std::unexpected(frame.error());
    }
    FrameRecords records(*frame, at.segment->id());
    while (const FrameRecord* const record = records.next()) {
        if (record->sequence != at.entry.sequence) {
            continue;
        }
        const auto decoded = decode_view(record->encoded);
        if (!decoded) {
            return std::unexpected(
                at.segment->corruption(at.entry.offset, decoded.error().message));
        }
        at.record = *decoded;
        at.link = record->link;
        at.frame_bytes = frame->bytes();
        return {};
    }
    return std::unexpected(at.segment->corruption(
        at.entry.offset, "the frame does not have the record that an index says"));
}

Result<std::optional<Located>> Reader::follow_link(const View& view, const Link& link,
                                                   StreamKey stream, FrameBuffer& buffer) const {
    Located at;
    for (const auto& unsealed : view.unsealed) {
        if (unsealed->segment->id() == link.segment) {
            at.segment = unsealed->segment.get();
        }
    }
    if (const SealedSegment* const sealed = view.sealed->find(link.segment)) {
        at.segment = sealed->segment.get();
    }
    if (at.segment == nullptr) {
        return std::nullopt;
    }
    at.entry.offset = link.offset;
    auto read = read_record(at, stream, buffer);
    if (read && !*read) {
        read = std::unexpected(
            at.segment->corruption(link.offset, "a link to it comes from another stream"));
    }
    if (!read) {
        if (auto noted = context_.damage.note(*at.segment, link.offset, read.error()); !noted) {
            return std::unexpected(noted.error());
        }
        return std::unexpected(Error{Code::corruption, read.error().message});
    }
    return at;
}

Result<std::optional<Located>> Reader::newest_of(const View& view, const Located& at,
                                                 UnsealedEntries unsealed,
                                                 FrameBuffer& buffer) const {
    const StreamKey stream{at.record.ns, at.record.key};
    return find_newest(view, at.entry.id, std::move(unsealed), [&](Located& found) -> Result<bool> {
        if (same_place(found, at)) {
            return true;
        }
        auto read = read_record(found, stream, buffer);
        if (!read) {
            const auto noted =
                context_.damage.note(*found.segment, found.entry.offset, read.error());
            return noted ? Result<bool>(true) : std::unexpected(noted.error());
        }
        return read;
    });
}

Result<bool> Reader::was_head(const View& view, const Located& at, std::uint64_t as_of) const {
    FrameBuffer buffer;
    auto newest = newest_of(view, at, this->probe(view, at.entry.id), buffer);
    if (!newest) {
        return std::unexpected(newest.error());
    }
    while (*newest && !same_place(**newest, at) && (*newest)->entry.sequence > as_of &&
           (*newest)->link.segment != 0) {
        const Link link = (*newest)->link;
        newest = follow_link(view, link, {at.record.ns, at.record.key}, buffer);
        if (!newest && newest.error().code == Code::corruption) {
            return false;
        }
        if (!newest) {
            return std::unexpected(newest.error());
        }
    }
    return *newest && same_place(**newest, at);
}

Result<void> Reader::visit_entries(const SealedSegment& sealed, const Visit& visit) const {
    for (std::uint64_t i = 0; i < sealed.index.size(); ++i) {
        if (i % kEntriesAtOnce == 0 && context_.closed) {
            return std::unexpected(context_.closed_error());
        }
        const auto entry = sealed.index.entry(i);
        if (!entry) {
            return std::unexpected(context_.damaged_index(sealed));
        }
        if (auto done = visit(*entry); !done) {
            return done;
        }
    }
    return {};
}

Result<void> Reader::visit_entries(const Unsealed& unsealed, std::size_t size,
                                   const Visit& visit) const {
    std::vector<IndexEntry> some;
    for (std::size_t at = 0; at < size; at += kEntriesAtOnce) {
        if (context_.closed) {
            return std::unexpected(context_.closed_error());
        }
        shown_.shared([&] {
            const auto part =
                unsealed.delta.entries().subspan(at, std::min(kEntriesAtOnce, size - at));
            some.assign(part.begin(), part.end());
        });
        for (const IndexEntry& entry : some) {
            if (auto done = visit(entry); !done) {
                return done;
            }
        }
    }
    return {};
}

Result<void> Reader::visit_entries(const Part& part, const Visit& visit) const {
    return part.sealed != nullptr ? visit_entries(*part.sealed, visit)
                                  : visit_entries(*part.unsealed, part.entries, visit);
}

}  // namespace dedup
