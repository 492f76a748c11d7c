// Making a new store of what is intact in a damaged one.

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include "log/frame_reader.hpp"
#include "record/try.hpp"
#include "repair/salvage.hpp"
#include "store/read_log.hpp"

namespace dedup {
namespace {

constexpr std::size_t kItemsPerAppend = 1000;
constexpr std::size_t kBytesPerAppend = 4 * 1024 * 1024;
// The same file, read as a segment with another header.
std::shared_ptr<const Segment> with_header(const std::shared_ptr<const Segment>& segment,
                                           const SegmentHeader& header) {
    const std::shared_ptr<File> file(segment, &segment->file());
    return std::make_shared<const Segment>(file, segment->path(), header);
}

// With the store's id, in one version or another, the first frame of a segment is valid.
bool begins_with_a_frame(const std::shared_ptr<const Segment>& segment, const StoreId& id) {
    SegmentHeader header = segment->header();
    header.store_id = id;
    FrameBuffer buffer;
    for (header.version = kSegmentVersion; header.version != 0; --header.version) {
        const auto frame = with_header(segment, header)->find_frame(kSegmentHeaderBytes, buffer);
        if (frame && *frame) {
            return true;
        }
    }
    return false;
}

// The version in which the segment has a valid frame, if its store has this id; 0: in none.
std::uint32_t guess_version(const std::shared_ptr<const Segment>& segment, const StoreId& id,
                            std::uint64_t end) {
    SegmentHeader header = segment->header();
    header.store_id = id;
    for (header.version = kSegmentVersion; header.version != 0; --header.version) {
        const auto found = find_frame_from(*with_header(segment, header), kSegmentHeaderBytes, end);
        if (found && *found) {
            break;
        }
    }
    return header.version;
}

// The id in a damaged header, with at most one bit put right.
std::optional<StoreId> guess_store_id(const std::shared_ptr<const Segment>& segment) {
    StoreId id{};
    if (const auto got = segment->file().read(kSegmentStoreIdAt, id); !got || *got < id.size()) {
        return std::nullopt;
    }
    if (begins_with_a_frame(segment, id)) {
        return id;
    }
    for (std::size_t bit = 0; bit < id.size() * 8; ++bit) {
        StoreId other = id;
        other[bit / 8] = static_cast<char>(other[bit / 8] ^ (1 << bit % 8));
        if (begins_with_a_frame(segment, other)) {
            return other;
        }
    }
    return std::nullopt;
}

Path partial_path(const Path& target) {
    return target.string() + ".partial";
}

}  // namespace

Result<void> Salvage::prepare() {
    const auto ids = list_segments(env_, log_);
    if (!ids) {
        return std::unexpected(
            ids.error().os_error == ENOENT || ids.error().os_error == ENOTDIR
                ? Error{Code::invalid_argument,
                        fmt::format("there is no store at {}", log_.parent_path().string())}
                : ids.error());
    }
    for (const std::uint64_t id : *ids) {
        if (auto opened = open_segment(id); !opened) {
            return opened;
        }
    }
    if (segments_.empty()) {
        return std::unexpected(
            Error{Code::invalid_argument, fmt::format("{} has no segments", log_.string())});
    }
    auto found = find_store_id();
    if (found) {
        found = find_manifest();
    }
    return found;
}

Result<void> Salvage::open_segment(std::uint64_t id) {
    const Path path = log_ / segment_file_name(id);
    auto file = env_.open(path, OpenMode::read);
    if (!file) {
        return std::unexpected(file.error());
    }
    DamagedSegment damaged;
    damaged.file = std::make_shared<PatchyFile>(std::move(*file));
    const auto intact = Segment::open(env_, log_, id);
    if (!intact && intact.error().code == Code::unsupported_version) {
        return std::unexpected(intact.error());
    }
    damaged.header_intact = intact.has_value();
    SegmentHeader header;
    header.id = id;
    damaged.segment =
        std::make_shared<const Segment>(damaged.file, path, intact ? (*intact)->header() : header);
    const auto bytes = damaged.segment->bytes_there();
    if (!bytes) {
        return std::unexpected(bytes.error());
    }
    damaged.file_bytes = *bytes;
    bytes_total_ += *bytes;
    segments_.push_back(std::move(damaged));
    return {};
}

// The id that the catalog has, if it is the one of these segments.
std::optional<StoreId> Salvage::id_of_catalog() const {
    const Path path = damaged_ / "catalog" / "data.mdb";
    const auto type = env_.type(path);
    if (!type || *type != PathType::file) {
        return std::nullopt;
    }
    auto file = env_.open(path, OpenMode::read);
    if (!file) {
        return std::nullopt;
    }
    PatchyFile patchy(*std::move(file));
    const auto meta = Catalog::find_meta(patchy);
    const bool known =
        meta && std::ranges::any_of(segments_, [&](const DamagedSegment& damaged) {
            return guess_version(damaged.segment, meta->store_id, damaged.file_bytes) != 0;
        });
    return known ? std::optional(meta->store_id) : std::nullopt;
}

// Without the store's id no frame can be told from garbage.
Result<void> Salvage::find_store_id() {
    std::optional<StoreId> id;
    for (const DamagedSegment& damaged : segments_) {
        if (damaged.header_intact) {
            id = damaged.segment->header().store_id;
        }
    }
    for (const DamagedSegment& damaged : segments_) {
        id = id ? id : guess_store_id(damaged.segment);
    }
    id = id ? id : id_of_catalog();
    if (!id) {
        return std::unexpected(Error{
            Code::corruption,
            fmt::format("no segment of {} has an intact header, and the catalog does not know the "
                        "store either, so nothing tells what is valid in it; only a copy helps",
                        log_.string())});
    }
    for (DamagedSegment& damaged : segments_) {
        SegmentHeader header = damaged.segment->header();
        header.store_id = *id;
        if (!damaged.header_intact) {
            header.version = std::max(guess_version(damaged.segment, *id, damaged.file_bytes), 1U);
        }
        damaged.segment = with_header(damaged.segment, header);
    }
    return {};
}

// The manifest or the next segment's header says how long one is; what lies beyond means nothing.
std::uint64_t Salvage::end_of(std::size_t number) const {
    const DamagedSegment& damaged = segments_[number];
    const std::uint64_t id = damaged.segment->id();
    const auto listed = std::ranges::lower_bound(manifest_.segments, id, {}, &SegmentLength::id);
    if (listed != manifest_.segments.end() && listed->id == id) {
        return std::min(listed->bytes, damaged.file_bytes);
    }
    if (number + 1 == segments_.size()) {
        return damaged.file_bytes;
    }
    const DamagedSegment& next = segments_[number + 1];
    const SegmentHeader& header = next.segment->header();
    return next.header_intact && header.previous_id == id
               ? std::min(header.previous_bytes, damaged.file_bytes)
               : damaged.file_bytes;
}

void Salvage::add_loss(RepairLoss loss) {
    report.bytes_lost += loss.bytes;
    loss.after_sequence = last_sequence_;
    report.losses.push_back(std::move(loss));
    ++open_losses_;
}

// Those between two segments that are there.
void Salvage::note_missing(std::uint64_t previous_id, std::uint64_t next_id) {
    for (auto id = std::ranges::upper_bound(missing_, previous_id);
         id != missing_.end() && *id < next_id; ++id) {
        add_loss({(log_ / segment_file_name(*id)).string(), 0, 0, 0, 0, "the file is missing"});
    }
}

Result<void> Salvage::copy_to(LogStore& store) {
    CopyTarget target(store);
    target_ = &target;
    missing_ = missing();
    std::uint64_t previous_id = 0;
    for (std::size_t i = 0; i < segments_.size(); ++i) {
        const std::uint64_t id = segments_[i].segment->id();
        note_missing(previous_id, id);
        if (auto copied = copy_segment(i); !copied) {
            return copied;
        }
        previous_id = id;
        bytes_before_ += segments_[i].file_bytes;
    }
    if (auto appended = append_pending(); !appended) {
        return appended;
    }
    return target.write_end(manifest_, next_sequence_, time_ms_);
}

Result<void> Salvage::copy_segment(std::size_t number) {
    const DamagedSegment& damaged = segments_[number];
    const Segment& segment = *damaged.segment;
    const bool newest = number + 1 == segments_.size();
    ++report.segments;
    if (damaged.header_intact) {
        next_sequence_ = std::max(next_sequence_, segment.header().next_sequence);
        note_time(segment, segment.header().time_high_ms);
    } else {
        add_loss({segment.path().string(), 0,
                  std::min<std::uint64_t>(kSegmentHeaderBytes, damaged.file_bytes), 0, 0,
                  "the header is damaged"});
    }
    const std::uint64_t end = end_of(number);
    FrameReader reader(segment, kSegmentHeaderBytes, end);
    while (reader.offset() < end) {
        const auto frame = reader.next();
        if (!frame) {
            return std::unexpected(frame.error());
        }
        auto done = *frame ? take(segment, **frame) : lose(segment, reader, end, newest);
        if (!done) {
            return done;
        }
        if (progress_) {
            progress_(bytes_before_ + reader.offset(), bytes_total_);
        }
    }
    return {};
}

// Goes on at the next valid frame.
Result<void> Salvage::lose(const Segment& segment, FrameReader& reader, std::uint64_t end,
                           bool newest) {
    const std::uint64_t begin = reader.offset();
    const auto next = find_frame_from(segment, begin + 1, end);
    if (!next) {
        return std::unexpected(next.error());
    }
    reader.skip_to(next->value_or(end));
    if (*next) {
        add_loss({segment.path().string(), begin, **next - begin, 0, 0, "there is no valid frame"});
        return {};
    }
    const auto tail = inspect_tail(segment, begin, end);
    if (!tail) {
        return std::unexpected(tail.error());
    }
    if (tail->torn_bytes != 0 || !newest) {
        add_loss({segment.path().string(), begin, newest ? tail->torn_bytes : end - begin, 0, 0,
                  newest ? "there is no valid frame: damaged, or torn by a crash"
                         : "there is no valid frame"});
    }
    return {};
}

Result<void> Salvage::take(const Segment& segment, const Frame& frame) {
    ++report.frames;
    if (frame.header.kind == FrameKind::mark) {
        next_sequence_ = std::max(next_sequence_, frame.header.sequence + 1);
        note_time(segment, mark_time(frame).value_or(0));
        return {};
    }
    if (is_manifest(frame.header.kind)) {
        next_sequence_ = std::max(next_sequence_, frame.header.sequence + 1);
        const auto manifest = decode_manifest(frame);
        note_time(segment, manifest ? manifest->time_high_ms : 0);
        return {};
    }
    if (frame.header.kind == FrameKind::moved) {
        return take_moved(segment, frame);
    }
    std::vector<CopiedRecord> items;
    FrameRecords records(frame, segment.id());
    const FrameRecord* record = nullptr;
    while ((record = records.next()) != nullptr) {
        auto decoded = decode(record->encoded);
        if (!decoded && decoded.error().code == Code::unsupported_version) {
            return std::unexpected(decoded.error());
        }
        if (!decoded || decoded->sequence != record->sequence) {
            break;
        }
        note_time(segment, decoded->timestamp_ms);
        items.push_back({*std::move(decoded), record->link.swept});
    }
    if (record != nullptr || !records.outcome() || frame.header.sequence <= last_sequence_) {
        add_loss({segment.path().string(), frame.offset, frame.bytes(), 0, 0,
                  "the frame contradicts itself or those before it"});
        return {};
    }
    for (; open_losses_ > 0; --open_losses_) {
        report.losses[report.losses.size() - open_losses_].before_sequence = frame.header.sequence;
    }
    const bool atomic = items.size() > 1;
    if (atomic || pending_mode_ == Batch::atomic || pending_.size() >= kItemsPerAppend ||
        pending_bytes_ >= kBytesPerAppend) {
        if (auto appended = append_pending(); !appended) {
            return appended;
        }
    }
    last_sequence_ = frame.header.sequence + items.size() - 1;
    next_sequence_ = std::max(next_sequence_, last_sequence_ + 1);
    pending_mode_ = atomic ? Batch::atomic : Batch::each;
    pending_bytes_ += frame.bytes();
    std::ranges::move(items, std::back_inserter(pending_));
    return {};
}

// Appends what is pending under the sequences that it had.
Result<void> Salvage::append_pending() {
    if (pending_.empty()) {
        return {};
    }
    DEDUP_TRY(target_->append_as(pending_, pending_mode_));
    report.records += pending_.size();
    pending_.clear();
    pending_bytes_ = 0;
    return {};
}

Result<RepairReport> repair(const std::filesystem::path& damaged,
                            const std::filesystem::path& target, const Progress& progress) {
    const auto from = fixed_path(damaged);
    auto to = fixed_path(target);
    if (!from || !to) {
        return std::unexpected(from ? to.error() : from.error());
    }
    if (!to->has_filename()) {
        to = to->parent_path();  // a slash at the end
    }
    // Paths outside of the new store are taken as they are.
    return repair(*posix_env_of(partial_path(*to), OpenOptions().permissions), *from, *to,
                  progress);
}

Result<RepairReport> repair(Env& env, const Path& damaged, const Path& target,
                            const Progress& progress) {
    // Who writes holds the lock of the file or of the directory.
    std::vector<std::unique_ptr<Lock>> locks;
    for (const Path& path : {damaged / "LOCK", damaged}) {
        auto lock = env.lock_out(path);
        if (!lock) {
            return std::unexpected(lock.error());
        }
        locks.push_back(std::move(*lock));
    }
    Salvage salvage(env, damaged, progress);
    if (auto prepared = salvage.prepare(); !prepared) {
        return std::unexpected(prepared.error());
    }
    std::error_code error;
    const Path inside = std::filesystem::weakly_canonical(target, error)
                            .lexically_relative(std::filesystem::weakly_canonical(damaged, error));
    if (!inside.empty() && *inside.begin() != "..") {
        return std::unexpected(
            Error{Code::invalid_argument, "the new store cannot lie in the damaged one"});
    }
    // Under another name until it is complete.
    const Path partial = partial_path(target);
    for (const Path& path : {target, partial}) {
        const auto type = env.type(path);
        if (!type) {
            return std::unexpected(type.error());
        }
        if (*type != PathType::absent) {
            return std::unexpected(Error{
                Code::invalid_argument,
                fmt::format("there is something at {} already; {}name another path for the new "
                            "store",
                            path.string(),
                            path == partial ? "if a repair that was cut short has left it, remove "
                                              "it; or else "
                                            : "")});
        }
    }
    const auto make = [&]() -> Result<void> {
        LogStoreInternals internals;
        internals.ignore_jumps = true;  // between the records that are copied
        // Whoever uses the damaged store is to use the new one.
        if (auto made = env.make_directory_like(partial, damaged); !made) {
            return made;
        }
        auto store = LogStore::open(env, partial, {}, internals);
        if (!store) {
            return std::unexpected(store.error());
        }
        if (auto copied = salvage.copy_to(**store); !copied) {
            return copied;
        }
        if (auto closed = (*store)->close(); !closed) {
            return closed;
        }
        store->reset();  // gives up its lock
        store = LogStore::open(env, partial, {});
        if (!store) {
            return std::unexpected(store.error());
        }
        const auto stats = (*store)->stats();
        salvage.report.streams = stats ? stats->streams() : 0;
        return (*store)->close();
    };
    auto done = make();
    if (done) {
        done = env.rename(partial, target);
    }
    if (done) {
        done = env.sync_directory(target / "..");
    }
    if (!done) {
        // Or it is another repair's; or the parent's, of a child that was forked in `progress`.
        if (done.error().code != Code::busy && done.error().code != Code::closed) {
            std::error_code ignored;
            std::filesystem::remove_all(partial, ignored);
        }
        return std::unexpected(done.error());
    }
    return std::move(salvage.report);
}

}  // namespace dedup
