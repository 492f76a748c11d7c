// Checking a store: every frame against its checksum, every record against the indexes, and every
// index entry against the log. Of a store that does not open, the log alone.

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "engine/count.hpp"
#include "log/frame_reader.hpp"
#include "log/patchy_file.hpp"
#include "record/try.hpp"
#include "repair/salvage.hpp"
#include "repair/verify.hpp"
#include "store/log_store.hpp"

namespace dedup {
namespace {

constexpr std::size_t kProblemsMax = 1000;
constexpr std::uint64_t kProgressBytes = 4 * 1024 * 1024;

// "<file> is damaged at offset <n>" of a message that goes on, or else all of it.
std::string_view place_in(std::string_view message) {
    constexpr std::string_view kDamagedAt = " is damaged at offset ";
    const std::size_t at = message.find(kDamagedAt);
    return at == std::string_view::npos
               ? message
               : message.substr(0, message.find_first_not_of("0123456789", at + kDamagedAt.size()));
}

class Verifier {
  public:
    Verifier(const Locator& locator, const Progress& progress, std::uint64_t bytes_total)
        : locator_(locator), progress_(progress), bytes_total_(bytes_total) {}

    // Reads the frames of a segment up to `row.bytes`, and counts what a row should say.
    // `newest`: what no valid frame follows is room, or torn by a crash.
    SegmentRow read_segment(const Segment& segment, const SegmentRow& row,
                            const SealedSegment* sealed, bool newest = false);
    void check_index(const SealedSegment& sealed, const Segment& segment);
    void compare(const SegmentRow& counted, const SegmentRow& row, const Path& path);
    void name_unreadable(const Segment& segment, const PatchyFile& file);

    // Of the log; one of the catalog goes away by itself.
    void problem(std::string text) {
        report.log_damaged = true;
        catalog_problem(std::move(text));
    }
    // What has been known before anything was read is told first, unless it has been found again.
    void cause(std::string text) {
        const auto tells_it = [&](std::string_view problem) {
            return place_in(problem) == place_in(text) || text.starts_with(problem);
        };
        if (std::ranges::none_of(report.problems, tells_it)) {
            report.problems.insert(report.problems.begin(), std::move(text));
        }
    }
    void catalog_problem(std::string text) {
        if (report.problems.size() < kProblemsMax) {
            report.problems.push_back(std::move(text));
        }
    }

    VerifyReport report;

  private:
    void check_records(const Segment& segment, const Frame& frame, const SealedSegment* sealed,
                       SegmentRow& counted);
    void check_entry_of(const Segment& segment, const Frame& frame, const RecordView& record,
                        const SealedSegment& sealed);

    const Locator& locator_;
    const Progress& progress_;
    std::uint64_t bytes_total_;
    std::uint64_t progress_due_ = 0;
    std::uint64_t last_sequence_ = 0;
};

// A record of a sealed segment must be findable: the filter knows its stream, and the index leads
// to it or to a newer record in the same segment.
void Verifier::check_entry_of(const Segment& segment, const Frame& frame, const RecordView& record,
                              const SealedSegment& sealed) {
    const StreamId id = locator_.id({record.ns, record.key});
    const FilterBits bits(id);
    if (!bits.in(sealed.filter) || (sealed.joint.data != nullptr && !bits.in(sealed.joint))) {
        catalog_problem(
            segment.corruption(frame.offset, "a filter of the catalog does not know its stream")
                .message);
    }
    const auto first = sealed.index.lower_bound(id);
    if (!first) {
        return;  // a block is damaged, of which check_index tells
    }
    bool found = false;
    for (auto i = *first; !found && i < sealed.index.size(); ++i) {
        const auto entry = sealed.index.entry(i);
        if (!entry || entry->id != id) {
            break;
        }
        found = entry->sequence >= record.sequence && entry->offset >= frame.offset;
    }
    if (!found) {
        catalog_problem(
            segment.corruption(frame.offset, "the catalog's index does not lead to its stream")
                .message);
    }
}

void Verifier::check_records(const Segment& segment, const Frame& frame,
                             const SealedSegment* sealed, SegmentRow& counted) {
    FrameRecords records(frame, segment.id());
    while (const FrameRecord* const record = records.next()) {
        const auto decoded = decode_view(record->encoded);
        if (!decoded) {
            problem(segment.corruption(frame.offset, decoded.error().message).message);
            continue;
        }
        const bool moved = frame.header.kind == FrameKind::moved;
        if (decoded->sequence != record->sequence ||
            (!moved && record->sequence <= last_sequence_)) {
            problem(segment
                        .corruption(frame.offset,
                                    fmt::format("sequence {} is out of order", decoded->sequence))
                        .message);
        }
        last_sequence_ = std::max(last_sequence_, record->sequence);
        ++report.records;
        ++counted.versions[decoded->state()];
        counted.version_bytes[decoded->state()] += frame.bytes() / frame.header.records;
        if (record->link.segment != segment.id()) {
            ++counted.entries;
        }
        counted.next_sequence = std::max(counted.next_sequence, record->sequence + 1);
        counted.expires_max_ms =
            std::max(counted.expires_max_ms,
                     decoded->expires_at_ms == 0 ? INT64_MAX : decoded->expires_at_ms);
        ++counted.streams[decoded->state()];
        if (record->link.segment == segment.id() && !record->link.swept) {
            --counted.streams[record->link.state];
        }
        if (sealed != nullptr) {
            check_entry_of(segment, frame, *decoded, *sealed);
        }
    }
    if (const auto outcome = records.outcome(); !outcome) {
        problem(segment.corruption(frame.offset, outcome.error().message).message);
    }
}

SegmentRow Verifier::read_segment(const Segment& segment, const SegmentRow& row,
                                  const SealedSegment* sealed, bool newest) {
    SegmentRow counted;
    counted.id = row.id;
    counted.next_sequence = segment.header().next_sequence;
    const std::uint64_t before = report.bytes;
    FrameReader reader(segment, kSegmentHeaderBytes, row.bytes);
    while (reader.offset() < row.bytes) {
        const auto frame = reader.next();
        if (!frame || !*frame) {
            const auto next = find_frame_from(segment, reader.offset() + 1, row.bytes);
            if (newest && frame && next && !*next) {
                break;
            }
            problem(!frame
                        ? frame.error().message
                        : segment.corruption(reader.offset(), "there is no valid frame").message);
            if (!next || !*next) {
                break;
            }
            reader.skip_to(**next);
            continue;
        }
        ++report.frames;
        report.bytes = before + reader.offset();
        if (has_records((*frame)->header.kind)) {
            check_records(segment, **frame, sealed, counted);
        } else {
            counted.next_sequence = std::max(counted.next_sequence, (*frame)->header.sequence + 1);
        }
        if (progress_ && report.bytes >= progress_due_) {
            progress_(report.bytes, bytes_total_);
            progress_due_ = report.bytes + kProgressBytes;
        }
    }
    ++report.segments;
    counted.bytes = reader.offset();
    report.bytes = before + reader.offset();
    return counted;
}

// Every entry must be in order, known to the filter, and lead to a record of its stream.
void Verifier::check_index(const SealedSegment& sealed, const Segment& segment) {
    const std::string file =
        (segment.path().parent_path() / index_file_name(sealed.row.id)).string();
    const auto wrong = [&](std::uint64_t position, std::string_view what) {
        catalog_problem(fmt::format("{}, entry {}: {}", file, position, what));
    };
    if (!sealed.file->filters_intact()) {
        catalog_problem(fmt::format("{}: a filter is damaged", file));
    }
    StreamId previous;
    FrameBuffer buffer;
    const bool intact = sealed.index.blob().intact();
    if (!intact) {
        catalog_problem(fmt::format("{}: a block of it is damaged", file));
    }
    for (std::uint64_t i = 0; i < sealed.index.size(); ++i) {
        ++report.index_entries;
        const auto entry = sealed.index.entry(i);
        if (!entry) {
            if (intact) {
                wrong(i, "it has no state that there is");
            }
            continue;
        }
        if (entry->id < previous) {
            wrong(i, "it is out of order");
        }
        previous = entry->id;
        const auto frame = segment.read_frame(entry->offset, buffer);
        if (!frame) {
            wrong(i, frame.error().message);
            continue;
        }
        FrameRecords records(*frame, sealed.row.id);
        bool found = false;
        while (const FrameRecord* const record = records.next()) {
            const auto decoded = decode_view(record->encoded);
            found = found || (decoded && record->sequence == entry->sequence &&
                              locator_.id({decoded->ns, decoded->key}) == entry->id &&
                              pack(decoded->state(), decoded->expires_at_ms) == entry->packed);
        }
        if (!found) {
            wrong(i, fmt::format("the frame at {} offset {} is not its record",
                                 segment.path().string(), entry->offset));
        }
    }
}

void Verifier::compare(const SegmentRow& counted, const SegmentRow& row, const Path& path) {
    const auto differs = [&](std::string_view what, auto in_log, auto in_catalog) {
        if (in_log != in_catalog) {
            catalog_problem(fmt::format("{}: the log has {} {}, the catalog says {}", path.string(),
                                        in_log, what, in_catalog));
        }
    };
    differs("bytes", counted.bytes, row.bytes);
    for (const State state : {State::in_flight, State::completed, State::released}) {
        differs(fmt::format("records {}", name(state)), counted.versions[state],
                row.versions[state]);
        differs(fmt::format("bytes of records {}", name(state)), counted.version_bytes[state],
                row.version_bytes[state]);
    }
    differs("streams with a record", counted.entries, row.entries);
    differs("as the latest expiry", counted.expires_max_ms, row.expires_max_ms);
    differs("as the next sequence", counted.next_sequence, row.next_sequence);
    for (const State state : {State::in_flight, State::completed, State::released}) {
        differs(fmt::format("streams {}", name(state)), counted.streams[state], row.streams[state]);
    }
}

void Verifier::name_unreadable(const Segment& segment, const PatchyFile& file) {
    for (const auto& [offset, error] : file.unreadable()) {
        const std::string why = std::generic_category().message(error.os_error);
        problem(segment.corruption(offset, "the disk cannot read this page: " + why).message);
    }
}

// Adds to `problems` what a catalog says wrongly of a segment and a sweep would act on: a segment
// without live streams is dropped, and one whose records have all expired is not read.
Result<void> check_counts(const Reader& reader, const Catalog& catalog, const Now& now,
                          const SealedSegment& sealed, std::vector<std::string>& problems) {
    const SweepState state = DEDUP_TRY(catalog.sweep_state());
    if (state.counted != now.view->horizon) {
        return {};  // a sweep has not counted yet
    }
    const Recounted counted =
        DEDUP_TRY(recount(reader, *now.view, sealed, state.counted, now.unsealed.sequence));
    if (counted.damaged != 0) {
        return {};
    }
    const auto problem = [&](std::string what) {
        problems.push_back(fmt::format("{}: {}", sealed.segment->path().string(), what));
    };
    const StateCounts in_unsealed = total(tally_of(now.unsealed.superseded, sealed.row.id));
    StateCounts live = sealed.row.live();
    live -= in_unsealed;
    StateCounts superseded = sealed.row.superseded;
    superseded += in_unsealed;
    const StateCounts live_in_log = total(counted.live);
    const StateCounts superseded_in_log = total(counted.superseded);
    for (const State in : {State::in_flight, State::completed, State::released}) {
        if (live[in] != live_in_log[in]) {
            problem(fmt::format("the log has {} live streams {}, the catalog says {}",
                                live_in_log[in], dedup::name(in), live[in]));
        }
        // (Of them, the catalog goes on counting those that have expired.)
        if (superseded[in] < superseded_in_log[in]) {
            problem(fmt::format("the log has {} superseded records {}, the catalog says {}",
                                superseded_in_log[in], dedup::name(in), superseded[in]));
        }
    }
    if (counted.expires_min_ms < sealed.row.expires_min_ms) {
        problem(
            fmt::format("a record in it expires at {}, the catalog says that none does before {}",
                        counted.expires_min_ms, sealed.row.expires_min_ms));
    }
    return {};
}

// Checks one segment of a store that is open. Errors: closed, in a child that was forked in
// `progress`.
Result<void> verify_part(Verifier& verifier, LogStore& store, const Now& now, const Part& part) {
    // Opened anew, and so not mapped: what the disk cannot read must become a problem in the
    // report.
    auto file = store.context().env.open(part.segment->path(), OpenMode::read);
    if (!file) {
        if (file.error().os_error != ENOENT) {  // a sweep may have removed it meanwhile
            verifier.problem(file.error().message);
        }
        return {};
    }
    const auto patchy = std::make_shared<PatchyFile>(*std::move(file));
    const Segment segment(patchy, part.segment->path(), part.segment->header());
    const std::size_t problems = verifier.report.problems.size();
    const auto intact = [&] { return verifier.report.problems.size() == problems; };
    const SegmentRow counted = verifier.read_segment(segment, part.row, part.sealed);
    DEDUP_TRY(store.context().check_process());
    // Where frames are damaged, the counts differ anyway.
    if (part.sealed != nullptr && intact()) {
        verifier.compare(counted, part.row, segment.path());
    }
    verifier.name_unreadable(segment, *patchy);
    if (part.sealed == nullptr) {
        return {};
    }
    verifier.check_index(*part.sealed, segment);
    if (intact()) {
        const auto catalog = DEDUP_TRY(store.catalog().open_one());
        if (auto done =
                check_counts(store.reader(), *catalog, now, *part.sealed, verifier.report.problems);
            !done) {
            verifier.report.problems.push_back(done.error().message);
        }
    }
    return {};
}

}  // namespace

Result<VerifyReport> verify(LogStore& store, const Progress& progress) {
    const NoCancel no_cancel;
    DEDUP_TRY(store.take_up());
    const Now now = DEDUP_TRY(store.reader().now());
    const std::vector<Part> parts = store.reader().parts(*now.view);
    std::uint64_t bytes_total = 0;
    for (const Part& part : parts) {
        bytes_total += part.row.bytes;
    }
    Verifier verifier(store.context().locator, progress, bytes_total);
    for (const Part& part : parts) {
        DEDUP_TRY(verify_part(verifier, store, now, part));
    }
    verifier.report.time_high_ms = store.context().written_time_ms;
    if (progress) {
        progress(bytes_total, bytes_total);
    }
    return std::move(verifier.report);
}

namespace {

// Reads all that there is of a log that does not open as a store, as repair() would find it.
// `only_catalog`: that is why, and not the log.
Result<VerifyReport> verify_log(Env& env, const Path& path, const Error& why, bool only_catalog,
                                const Progress& progress) {
    Salvage salvage(env, path, progress);
    const auto prepared = salvage.prepare();
    const bool no_segments = !prepared && prepared.error().code == Code::invalid_argument;
    if (!prepared && !no_segments && prepared.error().code != Code::corruption) {
        return std::unexpected(prepared.error());
    }
    std::uint64_t bytes_total = 0;
    for (std::size_t i = 0; prepared && i < salvage.segments().size(); ++i) {
        bytes_total += salvage.end_of(i);
    }
    const Locator nobody;
    Verifier verifier(nobody, progress, bytes_total);
    verifier.report.log_damaged = !only_catalog;
    if (!prepared) {
        verifier.problem(why.message);
        if (!no_segments) {
            verifier.problem(prepared.error().message);
        }
        return std::move(verifier.report);
    }
    for (const std::uint64_t id : salvage.missing()) {
        verifier.problem(
            fmt::format("{} is missing", (path / "log" / segment_file_name(id)).string()));
    }
    for (std::size_t i = 0; i < salvage.segments().size(); ++i) {
        const DamagedSegment& damaged = salvage.segments()[i];
        if (!damaged.header_intact) {
            verifier.problem(damaged.segment->corruption(0, "the header is not valid").message);
        }
        SegmentRow row;
        row.id = damaged.segment->id();
        row.bytes = salvage.end_of(i);
        verifier.read_segment(*damaged.segment, row, nullptr, i + 1 == salvage.segments().size());
        verifier.name_unreadable(*damaged.segment, *damaged.file);
    }
    verifier.cause(why.message);
    return std::move(verifier.report);
}

}  // namespace

Result<VerifyReport> verify(Env& env, const Path& path, const Progress& progress) {
    OpenOptions options;
    options.read_only = true;
    bool only_catalog = false;
    LogStoreInternals internals;
    internals.only_catalog = &only_catalog;
    auto store = LogStore::open(env, path, options, internals);
    if (store) {
        return verify(**store, progress);
    }
    const Code code = store.error().code;
    return code == Code::corruption || code == Code::io
               ? verify_log(env, path, store.error(), only_catalog, progress)
               : std::unexpected(store.error());
}

Result<VerifyReport> verify(const std::filesystem::path& path, const Progress& progress) {
    const auto fixed = fixed_path(path);
    if (!fixed) {
        return std::unexpected(fixed.error());
    }
    return verify(*posix_env_of(*fixed, OpenOptions().permissions), *fixed, progress);
}

}  // namespace dedup
