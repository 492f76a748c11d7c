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
    StateCounts& streams_of_ns = counts(applied.ns);
    if (link.swept) {
        ++counts_of(reclaimed[link.segment], applied.ns)[link.state];
    } else if (replaces_own) {
        --streams_of_ns[link.state];
    } else if (link.segment != 0) {
        ++counts_of(superseded[link.segment], applied.ns)[link.state];
    }
    ++streams_of_ns[entry.state()];
    ++row.records;
    if (!applied.moved) {
        last_sequence = entry.sequence;
    }
    row.next_sequence = std::max(row.next_sequence, entry.sequence + 1);
    row.time_high_ms = std::max(row.time_high_ms, applied.timestamp_ms);
    const std::int64_t expires_ms = applied.expires_at_ms == 0 ? INT64_MAX : applied.expires_at_ms;
    row.expires_min_ms = std::min(row.expires_min_ms, expires_ms);
    row.expires_max_ms = std::max(row.expires_max_ms, expires_ms);
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

Result<void> apply_records(Unsealed& unsealed, const Locator& locator, const Frame& frame) {
    const auto damaged = [&](std::string_view what) {
        return std::unexpected(unsealed.segment->corruption(frame.offset, what));
    };
    const bool moved = frame.header.kind == FrameKind::moved;
    if (frame.header.records == 0 || (moved && frame.header.records != 1)) {
        return damaged(fmt::format("a frame of {} records", frame.header.records));
    }
    if (!moved && frame.header.sequence <= unsealed.last_sequence) {
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
                         pack(view->state(), view->expires_at_ms)},
                        record.link,
                        view->ns,
                        view->timestamp_ms,
                        view->expires_at_ms,
                        moved});
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

Result<void> apply_manifest(Unsealed& unsealed, const Frame& frame) {
    auto manifest = decode_manifest(frame);
    if (!manifest) {
        return std::unexpected(
            unsealed.segment->corruption(frame.offset, manifest.error().message));
    }
    unsealed.manifest = std::move(*manifest);
    SegmentRow& row = unsealed.row;
    row.next_sequence = std::max(row.next_sequence, frame.header.sequence + 1);
    row.time_high_ms = std::max(row.time_high_ms, unsealed.manifest.time_high_ms);
    return {};
}

Result<void> apply_frame(Unsealed& unsealed, const Locator& locator, const Frame& frame) {
    // A segment is made together with its first manifest, so this one is not a torn tail.
    if (unsealed.row.bytes == kSegmentHeaderBytes && frame.header.kind != FrameKind::manifest) {
        return std::unexpected(unsealed.segment->corruption(
            frame.offset, "the segment does not begin with a manifest"));
    }
    switch (frame.header.kind) {
        case FrameKind::mark:
            return apply_mark(unsealed, frame);
        case FrameKind::manifest:
            return apply_manifest(unsealed, frame);
        default:
            return apply_records(unsealed, locator, frame);
    }
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
        if (auto applied = apply_frame(unsealed, locator, **frame); !applied) {
            return std::unexpected(applied.error());
        }
        flushed = (*frame)->header.flushed;
        unsealed.row.bytes = reader.offset();
    }
}

}  // namespace dedup
