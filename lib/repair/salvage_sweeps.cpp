// What repair() makes of sweeps: which segments belong to the log, which streams are gone, and
// records that a sweep has moved.

#include <algorithm>
#include <utility>

#include "log/frame_reader.hpp"
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

void Salvage::show_horizon(const Horizon& horizon) {
    const std::lock_guard lock(target_->view_mutex_);
    auto after = std::make_shared<View>(*target_->view_);
    after->horizon = horizon;
    target_->set_view(std::move(after));
}

// Appends what is pending to streams that have been swept, and so must seem to be gone meanwhile.
Result<void> Salvage::begin_anew() {
    show_horizon(manifest_.horizon);
    auto appended = append_pending();
    show_horizon({});
    return appended;
}

// Its old place has been given up, unless a crash came before that.
Result<void> Salvage::take_moved(const Segment& segment, const Frame& frame) {
    if (auto appended = append_pending(); !appended) {
        return appended;
    }
    FrameRecords records(frame, segment.id());
    FrameRecord record;
    const auto more = records.next(record);
    const auto decoded =
        more && *more ? decode_view(record.encoded) : Result<RecordView>(std::unexpected(Error{}));
    if (!decoded && decoded.error().code == Code::unsupported_version) {
        return std::unexpected(decoded.error());
    }
    if (!decoded || decoded->sequence != record.sequence) {
        add_loss({segment.path().string(), frame.offset, frame.bytes(), 0, 0,
                  "the frame contradicts itself"});
        return {};
    }
    next_sequence_ = std::max(next_sequence_, record.sequence + 1);
    const auto head = target_->head({decoded->ns, decoded->key});
    if (!head) {
        return std::unexpected(head.error());
    }
    if (*head && (*head)->sequence >= record.sequence) {
        return {};
    }
    return write_moved(record.encoded, *decoded);
}

// Appends a record that is older than those around it.
Result<void> Salvage::write_moved(std::string_view encoded, const RecordView& record) {
    LogStore& store = *target_;
    return store.lead([&]() -> Result<void> {
        if (auto ready = store.ready_to_write(); !ready) {
            return ready;
        }
        if (store.writer_->end() >= store.segment_bytes_) {
            if (auto started = store.start_segment(); !started) {
                return started;
            }
        }
        const auto view = store.view();
        if (!view) {
            return std::unexpected(view.error());
        }
        const StreamKey stream{record.ns, record.key};
        const StreamId id = store.locator_.id(stream);
        FrameBuffer buffer;
        const auto older = store.find_newest(
            **view, id, LogStore::probe(**view, id),
            [&](Located& found) { return LogStore::read_record(found, stream, buffer); });
        if (!older) {
            return std::unexpected(older.error());
        }
        Link link;
        if (*older) {
            const IndexEntry& entry = (*older)->entry;
            link = {(*older)->segment->id(), entry.offset, entry.state()};
        }
        SegmentWriter& writer = *store.writer_;
        const auto offset = static_cast<std::uint32_t>(writer.end());
        const std::size_t start = writer.buffered();
        begin_frame(writer.buffer());
        add_moved(writer.buffer(), writer.segment()->id(), encoded, link);
        writer.finish(start, FrameKind::moved, 1, record.sequence);
        auto written = writer.reserve();
        if (written) {
            written = writer.write();
        }
        if (!written) {
            return std::unexpected(store.fail(written.error()));
        }
        const std::lock_guard lock(store.view_mutex_);
        Unsealed& newest = *store.view_->unsealed.front();
        store.readers_.exclusive([&] {
            newest.apply({{id, record.sequence, offset, pack(record.state(), record.expires_at_ms)},
                          link,
                          *older ? (*older)->entry.sequence : 0,
                          record.ns,
                          record.timestamp_ms,
                          record.expires_at_ms,
                          writer.end() - offset,
                          true});
        });
        newest.grown_to(writer.end());
        store.written_time_ms_ = std::max(store.written_time_ms_.load(), newest.row.time_high_ms);
        ++report.records;
        return {};
    });
}

// A time that counts; see Manifest::time_from_segment.
void Salvage::note_time(const Segment& segment, std::int64_t time_ms) {
    if (segment.id() >= manifest_.time_from_segment()) {
        time_ms_ = std::max(time_ms_, time_ms);
        target_->saw_time(time_ms);
    }
}

// The new store's time goes on from that of the old one, with what that had noted of its clock.
Result<void> Salvage::put_clock_in_force() {
    LogStore& store = *target_;
    // From here on the time is the system's, and to that it may be a jump.
    store.set_jumps(LogStore::Jumps::withhold);
    return store.lead([&]() -> Result<void> {
        return manifest_.clock == ClockHistory() ? Result<void>()
                                                 : store.begin_clock(manifest_.clock, time_ms_);
    });
}

// What the sweeps have removed is in the new store's log, too, and gone from here on. How much that
// is, is counted when the store is opened next: the catalog says that it has to be made anew.
Result<void> Salvage::put_horizon_in_force() {
    if (manifest_.horizon == Horizon()) {
        return {};
    }
    LogStore& store = *target_;
    auto done = store.lead([&]() -> Result<void> {
        Manifest manifest = store.manifest_;
        manifest.horizon = manifest_.horizon;
        return store.write_manifest(std::move(manifest));
    });
    SweepState unfinished;
    unfinished.steps = UINT64_MAX;
    return done
               ? store.write_catalog([&] { return store.catalog_->count({}, unfinished, nullptr); })
               : done;
}

}  // namespace dedup
