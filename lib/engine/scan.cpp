#include "engine/scan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "log/frame_reader.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

// A page of a scan ends after this much of the log, however few heads it found.
constexpr std::uint64_t kScanPageBytes = 64 * 1024 * 1024;

Error bad_cursor(std::string_view cursor) {
    return {Code::invalid_argument, fmt::format("\"{}\" is not a cursor that scan gave", cursor)};
}

// The next frame to look at. As text it is the cursor, "<segment>.<offset>".
struct Place {
    std::uint64_t segment = 0;
    std::uint64_t offset = kSegmentHeaderBytes;
};

Result<Place> parse_cursor(const std::string& cursor) {
    Place place;
    if (cursor.empty()) {
        return place;
    }
    const char* const end = cursor.data() + cursor.size();
    const auto segment = std::from_chars(cursor.data(), end, place.segment);
    const char* const rest = segment.ptr == end ? end : segment.ptr + 1;
    const auto offset = std::from_chars(rest, end, place.offset);
    if (segment.ec != std::errc() || segment.ptr == end || *segment.ptr != '.' ||
        offset.ec != std::errc() || offset.ptr != end || place.offset < kSegmentHeaderBytes) {
        return std::unexpected(bad_cursor(cursor));
    }
    return place;
}

class Scan {
  public:
    Scan(const Reader& reader, const View& view, const ScanOptions& options, OnDamage on_damage)
        : reader_(reader), view_(view), options_(options), on_damage_(on_damage) {}

    // Scans one part from `offset` on, until it ends or the page does.
    Result<void> run(const Part& part, std::uint64_t& offset);
    [[nodiscard]] bool page_ends() const {
        return page.heads.size() >= options_.heads_max || budget_ == 0;
    }

    ScanPage page;

  private:
    Result<void> damaged(const Segment& segment, std::uint64_t offset, const Error& error) const {
        return on_damage_ == OnDamage::pass ? reader_.context().damage.note(segment, offset, error)
                                            : std::unexpected(error);
    }
    Result<void> take_frame(const Segment& segment, const Frame& frame);
    Result<bool> is_head(const Located& at) const;

    const Reader& reader_;
    const View& view_;
    const ScanOptions& options_;
    const OnDamage on_damage_;
    std::uint64_t budget_ = kScanPageBytes;
};

// Whether no newer record of the stream exists, and no sweep has removed it. A newer one that
// cannot be read is one, too, if damage is passed by.
Result<bool> Scan::is_head(const Located& at) const {
    if (removed(view_, at)) {
        return false;
    }
    FrameBuffer buffer;
    const StreamKey stream{at.record.ns, at.record.key};
    const auto newest = DEDUP_TRY(reader_.find_newest(
        view_, at.entry.id, reader_.probe(view_, at.entry.id), [&](Located& found) -> Result<bool> {
            if (same_place(found, at)) {
                return true;
            }
            auto read = Reader::read_record(found, stream, buffer);
            if (read || on_damage_ == OnDamage::stop) {
                return read;
            }
            DEDUP_TRY(
                reader_.context().damage.note(*found.segment, found.entry.offset, read.error()));
            return true;
        }));
    return newest && same_place(*newest, at) && newest->entry.offset == at.entry.offset;
}

Result<void> Scan::take_frame(const Segment& segment, const Frame& frame) {
    FrameRecords records(frame, segment.id());
    while (const FrameRecord* const record = records.next()) {
        const auto decoded = decode_view(record->encoded);
        if (!decoded) {
            DEDUP_TRY(damaged(segment, frame.offset,
                              segment.corruption(frame.offset, decoded.error().message)));
            continue;
        }
        if ((!options_.ns.empty() && decoded->ns != options_.ns) ||
            !decoded->key.starts_with(options_.key_prefix)) {
            continue;
        }
        Located at;
        at.segment = &segment;
        at.entry.id = reader_.context().locator.id({decoded->ns, decoded->key});
        at.entry.sequence = record->sequence;
        at.entry.offset = frame.offset;
        at.record = *decoded;
        at.frame_bytes = frame.bytes();
        if (DEDUP_TRY(is_head(at))) {
            page.heads.push_back(to_version(at));
        }
    }
    const auto outcome = records.outcome();
    return outcome ? outcome
                   : damaged(segment, frame.offset,
                             segment.corruption(frame.offset, outcome.error().message));
}

Result<void> Scan::run(const Part& part, std::uint64_t& offset) {
    const Segment& segment = *part.segment;
    const std::uint64_t end = part.row.bytes;
    FrameReader frames(segment, offset, end);
    while (!page_ends() && offset < end) {
        const auto frame = frames.next();
        if (!frame || !*frame) {
            DEDUP_TRY(damaged(
                segment, offset,
                frame ? segment.corruption(offset, "there is no valid frame") : frame.error()));
            const auto next = find_frame_from(segment, offset + 1, end);
            offset = next ? next->value_or(end) : end;
            frames.skip_to(offset);
            continue;
        }
        if (has_records((*frame)->header.kind)) {
            DEDUP_TRY(take_frame(segment, **frame));
            budget_ -= std::min(budget_, (*frame)->bytes());
        }
        offset = frames.offset();
    }
    return {};
}

}  // namespace

Result<ScanPage> scan(const Reader& reader, const ScanOptions& options, OnDamage on_damage) {
    Place place = DEDUP_TRY(parse_cursor(options.cursor));
    if (options.heads_max == 0) {
        return std::unexpected(
            Error{Code::invalid_argument, "heads_max is 0; at least 1 is needed"});
    }
    const ViewPtr view = DEDUP_TRY(reader.view());
    const std::vector<Part> parts = reader.parts(*view);
    for (const Part& part : parts) {
        const bool checked = !options.cursor.empty() && on_damage == OnDamage::stop;
        if (checked && part.row.id == place.segment && place.offset < part.row.bytes) {
            FrameBuffer buffer;
            if (!DEDUP_TRY(
                    part.segment->find_frame(static_cast<std::uint32_t>(place.offset), buffer))) {
                return std::unexpected(bad_cursor(options.cursor));
            }
        }
    }
    Scan scan(reader, *view, options, on_damage);
    for (const Part& part : parts) {
        if (part.row.id < place.segment) {
            continue;
        }
        place = {part.row.id, part.row.id > place.segment ? kSegmentHeaderBytes : place.offset};
        DEDUP_TRY(scan.run(part, place.offset));
        if (place.offset < part.row.bytes || scan.page_ends()) {
            scan.page.cursor = fmt::format("{}.{}", place.segment, place.offset);
            break;
        }
    }
    return std::move(scan.page);
}

}  // namespace dedup
