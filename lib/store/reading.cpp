// Opening a store for reading only, and following its live writer.

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "store/log_store.hpp"

namespace dedup {
namespace {

// How often a reader starts anew because the writer changed what it was reading, and because of an
// error that shows no sign of that.
constexpr int kSnapshotTries = 100;
constexpr int kErrorTries = 3;

Error too_fast(const Path& path) {
    return {Code::unavailable,
            fmt::format("the writer of store {} is too fast to follow; try again", path.string())};
}

}  // namespace

Result<void> LogStore::open_for_reading() {
    // The writer may seal, and a sweep remove, segments between the steps; then all is read again.
    Result<void> opened;
    int errors = 0;
    for (int tries = 0; tries < kSnapshotTries && errors < kErrorTries; ++tries) {
        std::vector<std::uint64_t> ids;
        opened = try_open_for_reading(ids);
        if (opened || opened.error().code == Code::invalid_argument) {
            break;
        }
        errors += opened.error().code == Code::unavailable || writer_went_on(ids) ? 0 : 1;
        catalog_.reset();
        next_sequence_ = 1;
    }
    if (!opened) {
        return opened;
    }
    // Without a valid frame at the end of what was read, either the writer is just writing one,
    // or a crash tore it, or it is damaged. In the last case the frame does not become valid.
    const std::shared_ptr<Unsealed> newest = view_->unsealed.front();
    const std::uint64_t end = newest->row.bytes;
    const auto inspected = inspect_newest(*newest);
    if (!inspected) {
        if (auto followed = follow(); !followed) {
            return followed;
        }
        if (view_->unsealed.front() == newest && newest->row.bytes == end) {
            return inspected;
        }
    }
    return {};
}

// Whether the log that had the segments `ids`, or the catalog, has changed since it was opened.
// While neither does, what is read of both is what a crash could have left, and must not be in
// error.
bool LogStore::writer_went_on(const std::vector<std::uint64_t>& ids) const {
    const auto now = list_segments();
    return (now && *now != ids) || (catalog_ && catalog_->changed_since_open());
}

// `ids` become those of the log's segments.
Result<void> LogStore::try_open_for_reading(std::vector<std::uint64_t>& ids) {
    if (internals_.only_catalog != nullptr) {
        *internals_.only_catalog = false;
    }
    auto listed = list_segments();
    if (!listed) {
        return std::unexpected(listed.error());
    }
    ids = std::move(*listed);
    if (ids.empty()) {
        return check_creatable();
    }
    const auto segment = Segment::open(env_, log_path_, ids.back());
    if (!segment) {
        return std::unexpected(segment.error());
    }
    store_id_ = (*segment)->header().store_id;
    const auto needs_writer = [this](Error error) {
        if (error.code == Code::corruption) {
            if (internals_.only_catalog != nullptr) {
                *internals_.only_catalog = true;
            }
            error.message += "; opening the store for writing rebuilds it from the log";
        }
        return std::unexpected(error);
    };
    if (auto opened = open_catalog(); !opened) {
        return needs_writer(opened.error());
    }
    std::uint64_t flushed = 0;
    auto newest = replay_segment(ids.back(), 0, flushed);
    if (!newest) {
        return std::unexpected(newest.error());
    }
    if (auto complete = check_log(ids, **newest); !complete) {
        return complete;
    }
    const auto fit = compare_catalog(**newest);
    if (!fit) {
        return std::unexpected(fit.error());
    }
    if (fit->problem) {
        return needs_writer(*fit->problem);
    }
    internals_.pause();
    auto snapshot = first_snapshot();
    if (!snapshot) {
        return needs_writer(snapshot.error());
    }
    // What has been moved since the newest segment was read is found by following it; but not if
    // it has itself been sealed, or sealed and dropped, with others behind it.
    const auto& sealed = (*snapshot)->segments();
    const auto type = env_.type(log_path_ / segment_file_name((*newest)->row.id));
    if (!type) {
        return std::unexpected(type.error());
    }
    if (*type != PathType::file || (!sealed.empty() && sealed.back().row.id >= (*newest)->row.id)) {
        return std::unexpected(too_fast(path_));
    }
    // The writer may not have flushed this yet, and only what is durable may be seen.
    if (auto synced = (*newest)->segment->file().sync(); !synced) {
        return synced;
    }
    return replay_tail(std::move(*snapshot), *newest);
}

// Brings a read-only store up to what the writer has made durable.
Result<void> LogStore::follow() {
    const NoCancel no_cancel;
    const std::lock_guard lock(follow_mutex_);
    if (closed_ || !catalog_) {
        return std::unexpected(closed_error());
    }
    if (failed_) {
        const std::lock_guard failure_lock(failure_mutex_);
        return std::unexpected(Error{Code::failed, failure_});
    }
    for (int tries = 0; tries < kSnapshotTries; ++tries) {
        const auto followed = try_follow();
        if (!followed || *followed) {
            return followed ? Result<void>() : std::unexpected(followed.error());
        }
    }
    return std::unexpected(too_fast(path_));
}

// False: the writer has sealed meanwhile what was being read.
Result<bool> LogStore::try_follow() {
    // What a sweep has moved from a segment that it then dropped is in the tail. So the catalog is
    // read first, but shown last, together with all of the tail.
    SnapshotPtr sealed;
    if (auto done = follow_catalog(sealed); !done) {
        return std::unexpected(done.error());
    }
    std::shared_ptr<View> next;
    while (true) {
        const auto more = follow_segments(next);
        if (!more) {
            return std::unexpected(more.error());
        }
        if (!*more) {
            break;
        }
    }
    const std::lock_guard lock(view_mutex_);
    const Unsealed& newest = *(next ? next : view_)->unsealed.front();
    if ((sealed && !sealed->segments().empty() &&
         sealed->segments().back().row.id >= newest.row.id) ||
        (next && newest.row.bytes == kSegmentHeaderBytes)) {
        return false;
    }
    // The log may have gone further than the catalog was when it was read. What it has given up
    // since is not shown any more, all at once: a segment may hide what lies in an older one.
    if (sealed || newest.manifest.steps != followed_steps_) {
        auto kept = catalog_->only(sealed ? sealed : view_->sealed, newest.manifest.segments);
        if (!kept) {
            return std::unexpected(kept.error());
        }
        sealed = std::move(*kept);
        followed_steps_ = newest.manifest.steps;
    }
    if (newest.manifest.clock != followed_clock_) {
        written_time_ms_ = newest.row.time_high_ms;
        adopt_clock(newest.manifest);
    }
    if (!sealed && !next && newest.manifest.horizon == view_->horizon) {
        return true;
    }
    if (!next) {
        next = std::make_shared<View>(*view_);
    }
    next->horizon = newest.manifest.horizon;
    std::erase_if(next->unsealed, [&](const std::shared_ptr<Unsealed>& unsealed) {
        const bool is_sealed = sealed && !sealed->segments().empty() &&
                               unsealed->row.id <= sealed->segments().back().row.id;
        return is_sealed ||
               (unsealed->row.id != newest.row.id &&
                std::ranges::find(newest.manifest.segments, unsealed->row.id, &SegmentLength::id) ==
                    newest.manifest.segments.end());
    });
    if (sealed) {
        next->sealed = std::move(sealed);
    }
    set_view(std::move(next));
    return true;
}

// `sealed` becomes the catalog as it is now, if it has changed.
Result<void> LogStore::follow_catalog(SnapshotPtr& sealed) {
    auto before = view();
    if (!before) {
        return std::unexpected(before.error());
    }
    const auto replaced = [this] {
        return std::unexpected(
            Error{Code::failed, fmt::format("the catalog of store {} has been made anew; open the "
                                            "store again",
                                            path_.string())});
    };
    if (catalog_->replaced()) {
        return replaced();
    }
    if (!catalog_->changed_since(*(*before)->sealed)) {
        return {};
    }
    auto now = catalog_->snapshot(env_, log_path_, (*before)->sealed);
    for (int tries = 0; !now && now.error().os_error == ENOENT && tries < kSnapshotTries; ++tries) {
        now = catalog_->snapshot(env_, log_path_, (*before)->sealed);
    }
    if (!now) {
        return catalog_->replaced() ? replaced() : std::unexpected(now.error());
    }
    sealed = std::move(*now);
    return {};
}

// Replays what the writer has added to a segment.
Result<void> LogStore::take_up(Unsealed& newest) {
    const std::uint64_t before = newest.row.bytes;
    const Unfinished unfinished(*this);
    if (const auto replayed = replay(newest, locator_); !replayed) {
        return std::unexpected(replayed.error());
    }
    if (newest.row.bytes == before) {
        return {};
    }
    // The writer may not have flushed this yet, and only what is durable may be seen.
    if (auto synced = newest.segment->file().sync(); !synced) {
        (void)fail(synced.error());  // or the next call would show it
        return synced;
    }
    written_time_ms_ = std::max(written_time_ms_.load(), newest.row.time_high_ms);
    saw_time(newest.row.time_high_ms);
    return {};
}

// The id of the segment that follows; 0 if there is none yet.
Result<std::uint64_t> LogStore::next_segment(std::uint64_t previous_id) {
    const auto type = env_.type(log_path_ / segment_file_name(previous_id + 1));
    if (!type) {
        return std::unexpected(type.error());
    }
    if (*type == PathType::file) {
        return previous_id + 1;
    }
    // A sweep may have dropped some in between, even just now. Then it has changed the catalog
    // since the log was last seen to end. (So the version is read after the name was missed, and
    // before the names are listed.)
    const std::uint64_t version = catalog_->version();
    if (version == log_end_version_) {
        return 0;
    }
    const auto ids = list_segments();
    if (!ids) {
        return std::unexpected(ids.error());
    }
    const auto next = std::ranges::upper_bound(*ids, previous_id);
    if (next != ids->end()) {
        return *next;
    }
    log_end_version_ = version;
    return 0;
}

// Replays what the writer has added to the newest segment, or takes up the next one, into `next`.
// False: there is nothing more.
Result<bool> LogStore::follow_segments(std::shared_ptr<View>& next) {
    // Under the lock despite the I/O: other readers of this store would have to wait anyway.
    const std::lock_guard lock(view_mutex_);
    Unsealed& newest = *(next ? next : view_)->unsealed.front();
    const auto take_up_newest = [&] { return readers_.exclusive([&] { return take_up(newest); }); };
    if (const auto taken_up = take_up_newest(); !taken_up) {
        return std::unexpected(taken_up.error());
    }
    applied_sequence_ = std::max(applied_sequence_, newest.last_sequence);
    const auto next_id = next_segment(newest.row.id);
    if (!next_id) {
        return std::unexpected(next_id.error());
    }
    if (*next_id == 0) {
        return false;
    }
    auto segment = Segment::open(env_, log_path_, *next_id);
    if (!segment) {
        // It may have been dropped just now. What was moved from it is in a later one.
        return segment.error().os_error == ENOENT ? Result<bool>(true)
                                                  : std::unexpected(segment.error());
    }
    // The writer may have finished this segment while it was being read. Now nothing is added.
    if (const auto taken_up = take_up_newest(); !taken_up) {
        return std::unexpected(taken_up.error());
    }
    applied_sequence_ = std::max(applied_sequence_, newest.last_sequence);
    const SegmentHeader& header = (*segment)->header();
    if (header.store_id != store_id_) {
        return std::unexpected(
            (*segment)->corruption(kSegmentStoreIdAt, "it belongs to another store"));
    }
    if (header.previous_id == newest.row.id && header.previous_bytes != newest.row.bytes) {
        return std::unexpected(newest.segment->corruption(
            newest.row.bytes, fmt::format("it should be {} bytes long", header.previous_bytes)));
    }
    const auto file_bytes = (*segment)->file().size();
    if (!file_bytes) {
        return std::unexpected(file_bytes.error());
    }
    saw_time(header.time_high_ms);
    if (!next) {
        next = std::make_shared<View>(*view_);
    }
    next->unsealed.insert(
        next->unsealed.begin(),
        std::make_shared<Unsealed>(*segment, expected_bytes(**segment, *file_bytes)));
    return true;
}

}  // namespace dedup
