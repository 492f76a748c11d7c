#include "store/unsealed.hpp"

#include <fmt/format.h>

#include <array>

#include "log/frame_reader.hpp"
#include "record/codec.hpp"

namespace dedup {

void Unsealed::apply(const Applied& applied) {
    const IndexEntry& entry = applied.entry;
    const Link& link = applied.link;
    const bool replaces_own = link.segment == row.id;
    delta.put(entry, replaces_own ? link.offset : 0);
    if (link.segment != 0) {
        --row.streams[static_cast<std::size_t>(link.state)];
        if (!replaces_own) {
            ++superseded[link.segment];
        }
    }
    ++row.streams[entry.state];
    ++row.records;
    last_sequence = entry.sequence;
    row.next_sequence = std::max(row.next_sequence, entry.sequence + 1);
    row.time_high_ms = std::max(row.time_high_ms, applied.timestamp_ms);
    row.expires_max_ms = std::max(row.expires_max_ms,
                                  applied.expires_at_ms == 0 ? INT64_MAX : applied.expires_at_ms);
}

namespace {

Result<void> apply_records(Unsealed& unsealed, const Locator& locator, const Frame& frame) {
    const auto damaged = [&](std::string_view what) {
        return std::unexpected(unsealed.segment->corruption(frame.offset, what));
    };
    if (frame.header.sequence <= unsealed.last_sequence || frame.header.records == 0) {
        return damaged(
            fmt::format("sequence {} follows {}", frame.header.sequence, unsealed.last_sequence));
    }
    FrameRecords records(frame, unsealed.row.id);
    FrameRecord record;
    while (true) {
        const auto more = records.next(record);
        if (!more) {
            return damaged(more.error().message);
        }
        if (!*more) {
            return {};
        }
        const auto view = decode_view(record.encoded);
        if (!view) {
            return view.error().code == Code::unsupported_version ? std::unexpected(view.error())
                                                                  : damaged(view.error().message);
        }
        if (view->sequence != record.sequence) {
            return damaged(fmt::format("the frame says sequence {}, its record {}", record.sequence,
                                       view->sequence));
        }
        unsealed.apply({{locator.id({view->ns, view->key}), record.sequence, frame.offset,
                         static_cast<std::uint32_t>(view->state())},
                        record.link,
                        view->timestamp_ms,
                        view->expires_at_ms});
    }
}

Result<void> apply_mark(Unsealed& unsealed, const Frame& frame) {
    const auto time_ms = mark_time(frame);
    if (!time_ms) {
        return std::unexpected(unsealed.segment->corruption(frame.offset, time_ms.error().message));
    }
    unsealed.row.next_sequence = std::max(unsealed.row.next_sequence, frame.header.sequence + 1);
    unsealed.row.time_high_ms = std::max(unsealed.row.time_high_ms, *time_ms);
    return {};
}

}  // namespace

Result<std::uint64_t> replay(Unsealed& unsealed, const Locator& locator) {
    const auto file_bytes = unsealed.segment->file().size();
    if (!file_bytes) {
        return std::unexpected(file_bytes.error());
    }
    std::uint64_t flushed = kSegmentHeaderBytes;
    // A reader asks often and mostly finds nothing new; that should not cost a block.
    std::array<char, kFrameHeaderBytes> next;
    const auto got = unsealed.segment->file().read(unsealed.row.bytes, next);
    if (!got) {
        return std::unexpected(got.error());
    }
    FrameHeader header;
    if (*got < next.size() || !read_frame_header(next.data(), header)) {
        return flushed;
    }
    FrameReader reader(*unsealed.segment, unsealed.row.bytes, *file_bytes);
    while (true) {
        const auto frame = reader.next();
        if (!frame) {
            return std::unexpected(frame.error());
        }
        if (!*frame) {
            return flushed;
        }
        const auto applied = (*frame)->header.kind == FrameKind::mark
                                 ? apply_mark(unsealed, **frame)
                                 : apply_records(unsealed, locator, **frame);
        if (!applied) {
            return std::unexpected(applied.error());
        }
        flushed = (*frame)->header.flushed;
        unsealed.row.bytes = reader.offset();
    }
}

}  // namespace dedup
