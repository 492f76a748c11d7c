// What repair() makes of sweeps: which segments belong to the log, which streams are gone, and
// records that a sweep has moved.

#include <algorithm>
#include <utility>

#include "log/frame_reader.hpp"
#include "record/try.hpp"
#include "repair/salvage.hpp"

namespace dedup {
namespace {

// Of more missing files in a row, only so many are named: any number can stand in a file's name and
// in a manifest.
constexpr std::uint64_t kMissingNamed = 1000;

}  // namespace

// Finds the newest manifest that is intact.
Result<void> Salvage::find_manifest() {
    for (std::size_t i = segments_.size(); i-- > 0 && manifest_in_ == 0;) {
        if (const auto found = find_manifest_in(i); !found) {
            return std::unexpected(found.error());
        }
    }
    leave_out_given_up();
    return {};
}

Result<bool> Salvage::find_manifest_in(std::size_t number) {
    const Segment& segment = *segments_[number].segment;
    const std::uint64_t end = end_of(number);
    FrameReader reader(segment, kSegmentHeaderBytes, end);
    while (reader.offset() < end) {
        const std::uint64_t begin = reader.offset();
        const auto frame = reader.next();
        if (!frame) {
            return std::unexpected(frame.error());
        }
        if (!*frame) {
            const auto next = find_frame_from(segment, begin + 1, end);
            if (!next) {
                return std::unexpected(next.error());
            }
            reader.skip_to(next->value_or(end));
            continue;
        }
        if (!is_manifest((*frame)->header.kind)) {
            continue;
        }
        if (auto manifest = decode_manifest(**frame)) {
            manifest_ = std::move(*manifest);
            manifest_in_ = segment.id();
        }
    }
    return manifest_in_ != 0;
}

// Files that a sweep has not come to remove.
void Salvage::leave_out_given_up() {
    std::erase_if(segments_, [&](const DamagedSegment& damaged) {
        const std::uint64_t id = damaged.segment->id();
        const bool given_up = id < manifest_in_ && !is_expected(id);
        bytes_total_ -= given_up ? damaged.file_bytes : 0;
        return given_up;
    });
}

// Whether a segment of this id should be there, as far as the manifest knows.
bool Salvage::is_expected(std::uint64_t id) const {
    return id >= manifest_in_ ||
           std::ranges::binary_search(manifest_.segments, id, {}, &SegmentLength::id);
}

std::vector<std::uint64_t> Salvage::missing() const {
    std::vector<std::uint64_t> ids;
    auto listed = manifest_.segments.begin();
    std::uint64_t previous = 0;
    for (const DamagedSegment& damaged : segments_) {
        const std::uint64_t next = damaged.segment->id();
        const std::size_t most = ids.size() + kMissingNamed;
        for (; listed != manifest_.segments.end() && listed->id <= next; ++listed) {
            if (listed->id > previous && listed->id < next && ids.size() < most) {
                ids.push_back(listed->id);
            }
        }
        // Those since the manifest was written have all been made.
        const std::uint64_t last = std::max(previous, ids.empty() ? 0 : ids.back());
        for (std::uint64_t id = std::max(last + 1, manifest_in_); id < next && ids.size() < most;
             ++id) {
            ids.push_back(id);
        }
        previous = next;
    }
    return ids;
}

// Its old place has been given up, unless a crash came before that.
Result<void> Salvage::take_moved(const Segment& segment, const Frame& frame) {
    if (auto appended = append_pending(); !appended) {
        return appended;
    }
    FrameRecords records(frame, segment.id());
    const FrameRecord* const record = records.next();
    const auto decoded = record != nullptr ? decode_view(record->encoded)
                                           : Result<RecordView>(std::unexpected(Error{}));
    if (!decoded && decoded.error().code == Code::unsupported_version) {
        return std::unexpected(decoded.error());
    }
    if (!decoded || decoded->sequence != record->sequence) {
        add_loss({segment.path().string(), frame.offset, frame.bytes(), 0, 0,
                  "the frame contradicts itself"});
        return {};
    }
    next_sequence_ = std::max(next_sequence_, record->sequence + 1);
    report.records += DEDUP_TRY(target_->append_moved(record->encoded, *decoded)) ? 1U : 0U;
    return {};
}

// A time that counts; see Manifest::time_from_segment.
void Salvage::note_time(const Segment& segment, std::int64_t time_ms) {
    if (segment.id() >= manifest_.time_from_segment()) {
        time_ms_ = std::max(time_ms_, time_ms);
        target_->note_time(time_ms);
    }
}

}  // namespace dedup
