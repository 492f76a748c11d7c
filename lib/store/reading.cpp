// Opening a store for reading only, and following its live writer.

#include <fmt/format.h>

#include <cerrno>

#include "store/log_store.hpp"

namespace dedup {
namespace {

// How often a reader starts anew because the writer changed what it was reading.
constexpr int kSnapshotTries = 10;

}  // namespace

Result<void> LogStore::open_for_reading() {
    // The writer may seal, and a sweep remove, segments between the steps; then all is read again.
    Error error;
    std::uint64_t last_id = 0;
    for (int tries = 0; tries < kSnapshotTries; ++tries) {
        const auto ids = list_segments();
        if (!ids) {
            return std::unexpected(ids.error());
        }
        if (ids->empty()) {
            return std::unexpected(Error{Code::invalid_argument,
                                         fmt::format("there is no store at {}", path_.string())});
        }
        last_id = ids->back();
        const auto newest = Segment::open(env_, log_path_, last_id);
        if (!newest) {
            error = newest.error();
            continue;
        }
        store_id_ = (*newest)->header().store_id;
        auto snapshot = open_catalog(*ids);
        if (snapshot) {
            auto view = std::make_shared<View>();
            view->sealed = std::move(*snapshot);
            set_view(std::move(view));
            break;
        }
        error = snapshot.error();
    }
    if (!view_) {
        if (error.code == Code::corruption) {
            error.message += "; opening the store for writing rebuilds the catalog from the log";
        }
        return std::unexpected(error);
    }
    if (auto followed = follow(); !followed) {
        return followed;
    }
    if (view_->unsealed.empty() || view_->unsealed.front()->segment->id() < last_id) {
        return std::unexpected(missing_segment(
            view_->unsealed.empty() ? last_id + 1 : view_->unsealed.front()->segment->id() + 1));
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
            if (!internals_.tolerate_damage) {
                return inspected;
            }
            damage_ = inspected.error().message;
        }
    }
    return {};
}

// Brings a read-only store up to what the writer has made durable.
Result<void> LogStore::follow() {
    const std::lock_guard lock(follow_mutex_);
    if (closed_ || !catalog_) {
        return std::unexpected(closed_error());
    }
    if (failed_) {
        const std::lock_guard failure_lock(failure_mutex_);
        return std::unexpected(Error{Code::failed, failure_});
    }
    if (auto done = follow_catalog(); !done) {
        return done;
    }
    while (true) {
        const auto more = follow_segments();
        if (!more) {
            return std::unexpected(more.error());
        }
        if (!*more) {
            return {};
        }
    }
}

Result<void> LogStore::follow_catalog() {
    auto before = view();
    if (!before) {
        return std::unexpected(before.error());
    }
    if (!catalog_->changed_since(*(*before)->sealed)) {
        return {};
    }
    auto sealed = catalog_->snapshot(env_, log_path_, (*before)->sealed);
    for (int tries = 0; !sealed && sealed.error().os_error == ENOENT && tries < kSnapshotTries;
         ++tries) {
        sealed = catalog_->snapshot(env_, log_path_, (*before)->sealed);
    }
    if (!sealed && sealed.error().code == Code::unavailable) {
        before = ViewPtr();  // lets go of the map
        return resize_catalog([&] { return catalog_->adopt_size(); });
    }
    if (!sealed) {
        return std::unexpected(sealed.error());
    }
    const std::lock_guard lock(view_mutex_);
    set_view(without_sealed(std::move(*sealed)));
    return {};
}

// Replays what the writer has added to a segment.
Result<void> LogStore::take_up(Unsealed& newest) {
    const std::uint64_t before = newest.row.bytes;
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
    saw_time(newest.row.time_high_ms);
    return {};
}

// Replays what the writer has added to the newest segment, or takes up the next one. False: there
// is nothing more.
Result<bool> LogStore::follow_segments() {
    // Under the lock despite the I/O: other readers of this store would have to wait anyway.
    const std::lock_guard lock(view_mutex_);
    Unsealed* newest = view_->unsealed.empty() ? nullptr : view_->unsealed.front().get();
    std::uint64_t previous_id = 0;
    std::uint64_t previous_bytes = 0;
    if (newest != nullptr) {
        const auto taken_up = readers_.exclusive([&] { return take_up(*newest); });
        if (!taken_up) {
            return std::unexpected(taken_up.error());
        }
        previous_id = newest->row.id;
        previous_bytes = newest->row.bytes;
    } else if (!view_->sealed->segments().empty()) {
        const SegmentRow& row = view_->sealed->segments().back().row;
        previous_id = row.id;
        previous_bytes = row.bytes;
    }
    const auto type = env_.type(log_path_ / segment_file_name(previous_id + 1));
    if (!type) {
        return std::unexpected(type.error());
    }
    if (*type != PathType::file) {
        return false;
    }
    auto next = Segment::open(env_, log_path_, previous_id + 1);
    if (!next) {
        return std::unexpected(next.error());
    }
    if (newest != nullptr && (*next)->header().previous_bytes > newest->row.bytes &&
        newest->row.bytes != finished_early_) {
        // The writer may have finished this segment while it was being read. Looked at once more.
        finished_early_ = newest->row.bytes;
        return true;
    }
    if (auto checked = check_segment(**next, previous_id, previous_bytes); !checked) {
        return std::unexpected(checked.error());
    }
    const auto file_bytes = (*next)->file().size();
    if (!file_bytes) {
        return std::unexpected(file_bytes.error());
    }
    saw_time((*next)->header().time_high_ms);
    auto after = std::make_shared<View>(*view_);
    after->unsealed.insert(after->unsealed.begin(),
                           std::make_shared<Unsealed>(*next, *file_bytes / kFrameBytesTypical));
    set_view(std::move(after));
    return true;
}

}  // namespace dedup
