#include "repair/copy_target.hpp"

#include <algorithm>
#include <vector>

#include "record/try.hpp"
#include "store/raise.hpp"
#include "store/read_log.hpp"

namespace dedup {

Result<void> CopyTarget::make_ready(const Turn& turn) {
    LogWriter& writer = store_.engine().writer;
    DEDUP_TRY(store_.context().check_writable());
    return writer.is_full(turn) ? writer.start_segment(turn) : Result<void>();
}

// The newest record of the stream that has been written.
Result<CopyTarget::Head> CopyTarget::head_of(StreamKey stream) const {
    const Reader& reader = store_.reader();
    const ViewPtr view = DEDUP_TRY(reader.view());
    const StreamId id = store_.context().locator.id(stream);
    FrameBuffer buffer;
    const auto newest =
        DEDUP_TRY(reader.find_newest(*view, id, dedup::probe(*view, id), [&](Located& found) {
            return Reader::read_record(found, stream, buffer);
        }));
    if (!newest) {
        return Head{};
    }
    const IndexEntry& entry = newest->entry;
    return Head{{newest->segment->id(), entry.offset, entry.state()}, entry.sequence};
}

Result<void> CopyTarget::append_as(std::span<const CopiedRecord> records, Batch mode) {
    return store_.engine().writer.alone(
        [&](const Turn& turn) { return append_in_turn(turn, records, mode); });
}

Result<void> CopyTarget::append_in_turn(const Turn& turn, std::span<const CopiedRecord> records,
                                        Batch mode) {
    DEDUP_TRY(make_ready(turn));
    LogWriter& writer = store_.engine().writer;
    SegmentWriter& file = writer.file(turn);
    const std::uint64_t segment = file.segment()->id();
    const bool whole = mode == Batch::atomic;
    std::vector<Applied> applied;
    Heads heads;
    std::uint32_t offset = whole ? file.begin() : 0;
    for (const auto& [record, begins_anew] : records) {
        const auto known = heads.find({record.ns, record.key});
        Head head;
        if (known != heads.end()) {
            head = known->second;
        } else {
            auto found = head_of({record.ns, record.key});
            if (!found) {
                file.discard();
                return std::unexpected(found.error());
            }
            head = *found;
        }
        head.link.swept = begins_anew && head.link.segment != 0;
        if (!whole) {
            offset = file.begin();
        }
        add_record(file.buffer(), segment, record, record.sequence, head.link,
                   !whole || records.size() == 1);
        if (!whole) {
            file.finish(FrameKind::records, 1, record.sequence);
        }
        const StreamId id = store_.context().locator.id({record.ns, record.key});
        applied.push_back(
            {{id, record.sequence, offset, pack(record.state(), record.expires_at_ms)},
             head.link,
             head.link.segment == segment ? head.sequence : 0,
             record.ns,
             record.timestamp_ms,
             record.expires_at_ms,
             file.end() - offset,
             false});
        heads[{record.ns, record.key}] = {{segment, offset, record.state()}, record.sequence};
    }
    if (whole) {
        file.finish(FrameKind::records, static_cast<std::uint16_t>(records.size()),
                    records.front().record.sequence);
        std::ranges::for_each(
            applied, [&](Applied& each) { each.bytes = (file.end() - offset) / records.size(); });
    }
    writer.set_next_sequence(turn, records.back().record.sequence + 1);
    return writer.write_records(turn, applied, false);
}

Result<bool> CopyTarget::append_moved(std::string_view encoded, const RecordView& record) {
    LogWriter& writer = store_.engine().writer;
    bool appended = false;
    DEDUP_TRY(writer.alone([&](const Turn& turn) -> Result<void> {
        DEDUP_TRY(make_ready(turn));
        const StreamKey stream{record.ns, record.key};
        const Head head = DEDUP_TRY(head_of(stream));
        if (head.sequence >= record.sequence) {
            return {};
        }
        const StreamId id = store_.context().locator.id(stream);
        const std::uint64_t segment = writer.file(turn).segment()->id();
        const Applied applied = encode_again(
            writer.file(turn),
            {encoded, record, id, head.link, head.link.segment == segment ? head.sequence : 0});
        appended = true;
        return writer.write_records(turn, {&applied, 1}, false);
    }));
    return appended;
}

Result<void> CopyTarget::write_end(const Manifest& manifest, std::uint64_t next_sequence,
                                   std::int64_t time_ms) {
    LogWriter& writer = store_.engine().writer;
    // From here on the time is the system's, and to that it may be a jump.
    store_.context().clock.set_jumps(StoreClock::Jumps::withhold);
    DEDUP_TRY(writer.alone([&](const Turn& turn) -> Result<void> {
        if (manifest.clock != ClockHistory()) {
            DEDUP_TRY(writer.begin_clock(turn, manifest.clock, time_ms));
        }
        writer.set_next_sequence(turn, std::max(writer.next_sequence(turn), next_sequence));
        // Seen or unseen, the end of the log may be lost.
        DEDUP_TRY(pass_lost_sequences(writer, turn, store_.context().env));
        if (manifest.horizon == Horizon()) {
            return {};
        }
        Manifest with_horizon = writer.manifest(turn);
        with_horizon.horizon = manifest.horizon;
        return writer.write_manifest(turn, std::move(with_horizon));
    }));
    if (manifest.horizon == Horizon()) {
        return {};
    }
    // How much the horizon removes is counted by a catalog that is made anew.
    SweepState unfinished;
    unfinished.steps = kStepsUnfinished;
    return store_.catalog().write(
        [&](Catalog& catalog) { return catalog.count({}, unfinished, nullptr); });
}

}  // namespace dedup
