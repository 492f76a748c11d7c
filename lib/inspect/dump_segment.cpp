#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "inspect/dump.hpp"
#include "log/damaged_frame.hpp"
#include "log/frame_reader.hpp"
#include "log/manifest.hpp"

namespace dedup {
namespace {

std::string_view kind_name(FrameKind kind) {
    return is_manifest(kind)            ? "manifest"
           : kind == FrameKind::mark    ? "mark"
           : kind == FrameKind::moved   ? "moved"
           : kind == FrameKind::records ? "records"
                                        : "unknown";
}

FramePlace place_of(const Frame& frame) {
    return {.offset = frame.offset,
            .bytes = frame.bytes(),
            .kind = kind_name(frame.header.kind),
            .sequence = frame.header.sequence,
            .records = frame.header.records,
            .flushed_bytes = frame.header.flushed};
}

ManifestDump manifest_dump(const Frame& frame, const Manifest& manifest) {
    ManifestDump dump;
    dump.frame = place_of(frame);
    dump.steps = manifest.steps;
    dump.time_high_ms = manifest.time_high_ms;
    dump.expired_before_ms = manifest.horizon.expired_before_ms;
    dump.evicted_before = manifest.horizon.evicted_before;
    dump.swept_sequence = manifest.horizon.sequence;
    dump.given_up = manifest.given_up;
    for (const SegmentLength& segment : manifest.segments) {
        dump.segments.push_back({segment.id, segment.bytes});
    }
    dump.clock = manifest.clock;
    return dump;
}

// Shows a segment from its header to its end. Wherever no intact frame begins it looks for the next
// one, so damage costs what lies in it and nothing behind it.
class SegmentDumper {
  public:
    SegmentDumper(const Segment& segment, std::uint64_t end, const DumpVisitor& visit)
        : segment_(segment), end_(end), visit_(visit), reader_(segment, kSegmentHeaderBytes, end) {}

    Result<void> run() {
        while (wanted_) {
            const auto frame = reader_.next();
            if (!frame && frame.error().code != Code::unsupported_version) {
                return std::unexpected(frame.error());
            }
            if (frame && *frame) {
                show(**frame);
                continue;
            }
            if (reader_.offset() >= end_) {
                break;
            }
            auto skipped = skip(frame ? "" : frame.error().message);
            if (!skipped || !*skipped) {
                return skipped ? Result<void>() : std::unexpected(skipped.error());
            }
        }
        return {};
    }

  private:
    void give(const DumpItem& item) { wanted_ = wanted_ && visit_(item); }

    void show(const Frame& frame) {
        if (has_records(frame.header.kind)) {
            show_records(frame);
        } else if (frame.header.kind == FrameKind::mark) {
            const auto time = mark_time(frame);
            time ? give(MarkDump{place_of(frame), *time}) : show_wrong(frame, time.error());
        } else {
            const auto manifest = decode_manifest(frame);
            manifest ? give(manifest_dump(frame, *manifest)) : show_wrong(frame, manifest.error());
        }
    }

    void show_records(const Frame& frame) {
        FrameRecords records(frame, segment_.id());
        std::uint32_t number = 0;
        while (const FrameRecord* const found = wanted_ ? records.next() : nullptr) {
            auto record = decode(found->encoded);
            if (!record) {
                show_wrong(frame, record.error());
                continue;
            }
            give(RecordDump{.frame = place_of(frame),
                            .number = number++,
                            .encoded_bytes = found->encoded.size(),
                            .previous_segment = found->link.segment,
                            .previous_offset = found->link.offset,
                            .previous_state = found->link.state,
                            .begins_anew = found->link.swept,
                            .record = std::move(*record)});
        }
        if (const auto outcome = records.outcome(); !outcome) {
            show_wrong(frame, outcome.error());
        }
    }

    // The checksum is right, so these bytes were written like this.
    void show_wrong(const Frame& frame, const Error& error) {
        give(DamageDump{.offset = frame.offset,
                        .bytes = frame.bytes(),
                        .reason = "the frame is intact, but " + error.message,
                        .at_end = false,
                        .may_hold = {}});
    }

    // No intact frame begins where the reader stands. False: none begins further on either.
    Result<bool> skip(const std::string& newer) {
        const std::uint64_t begin = reader_.offset();
        const auto next = find_frame_from(segment_, begin + 1, end_);
        if (!next) {
            return std::unexpected(next.error());
        }
        std::uint64_t damage_end = *next ? **next : end_;
        if (!*next) {
            const auto tail = inspect_tail(segment_, begin, end_);
            if (!tail) {
                return std::unexpected(tail.error());
            }
            damage_end = begin + tail->torn_bytes;
        }
        if (damage_end > begin) {
            auto damage = describe(begin, damage_end);
            if (!damage) {
                return std::unexpected(damage.error());
            }
            damage->reason = newer.empty() ? damage->reason : newer;
            damage->at_end = !*next;
            give(*damage);
        }
        if (!*next) {
            if (damage_end < end_) {
                give(UnusedDump{damage_end, end_ - damage_end});
            }
            return false;
        }
        reader_.skip_to(**next);
        return true;
    }

    Result<DamageDump> describe(std::uint64_t begin, std::uint64_t end) const {
        DamageDump damage{.offset = begin, .bytes = end - begin, .reason = {}, .may_hold = {}};
        const auto reason = what_is_wrong(begin);
        const auto records = read_damaged(segment_, begin, end);
        if (!reason || !records) {
            return std::unexpected(reason ? records.error() : reason.error());
        }
        damage.reason = *reason;
        for (const DamagedRecord& record : *records) {
            if (!record.key.empty()) {
                damage.may_hold.push_back({record.sequence, record.ns, record.key});
            }
        }
        return damage;
    }

    Result<std::string> what_is_wrong(std::uint64_t begin) const {
        std::array<char, kFrameHeaderBytes> bytes;
        const auto got = segment_.file().read(begin, bytes);
        if (!got) {
            return std::unexpected(got.error());
        }
        FrameHeader header;
        if (*got < bytes.size()) {
            return "the file ends within a frame's header";
        }
        if (std::ranges::all_of(bytes, [](char byte) { return byte == '\0'; })) {
            return "there are zeros in place of a frame";
        }
        if (!read_frame_header(bytes.data(), segment_.salt(), static_cast<std::uint32_t>(begin),
                               header)) {
            return "no frame's header is here: its check is wrong, or it is another place's";
        }
        if (header.body_bytes > end_ - begin - kFrameHeaderBytes) {
            return fmt::format("the file ends within the frame's body of {} bytes",
                               header.body_bytes);
        }
        return fmt::format("the checksum over the frame's body of {} bytes is wrong",
                           header.body_bytes);
    }

    const Segment& segment_;
    std::uint64_t end_;
    const DumpVisitor& visit_;
    FrameReader reader_;
    bool wanted_ = true;
};

}  // namespace

Result<void> dump_segment(Env& env, const Path& path, const DumpVisitor& visit) {
    const auto segment = Segment::open_file(env, path);
    if (!segment) {
        return std::unexpected(segment.error());
    }
    const auto end = (*segment)->bytes_there();
    if (!end) {
        return std::unexpected(end.error());
    }
    const SegmentHeader& header = (*segment)->header();
    SegmentDump start;
    start.version = header.version;
    start.store_id = hex_id({header.store_id.data(), header.store_id.size()});
    start.segment = header.id;
    start.previous_segment = header.previous_id;
    start.previous_bytes = header.previous_bytes;
    start.next_sequence = header.next_sequence;
    start.time_high_ms = header.time_high_ms;
    start.file_bytes = *end;
    return visit(start) ? SegmentDumper(**segment, *end, visit).run() : Result<void>();
}

}  // namespace dedup
