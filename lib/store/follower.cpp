#include "store/follower.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "record/try.hpp"
#include "store/creation.hpp"
#include "store/read_log.hpp"

namespace dedup {
namespace {

// How often a reader starts again because the writer changed what it was reading, and because of an
// error that shows no sign of that.
constexpr int kSnapshotTries = 100;
constexpr int kErrorTries = 3;

Error too_fast(const StoreContext& context) {
    return {Code::unavailable,
            fmt::format("the writer of {} is too fast to follow; try again", context.name())};
}

Error made_anew(const StoreContext& context) {
    return {Code::failed, fmt::format("the catalog of {} has been made anew; open the store again",
                                      context.name())};
}

// The id of the newest segment of a snapshot that has some; else 0.
std::uint64_t last_of(const SnapshotPtr& sealed) {
    return sealed && !sealed->segments().empty() ? sealed->segments().back().row.id : 0;
}

}  // namespace

Result<void> Follower::open() {
    // The writer may seal, and a sweep remove, segments between the steps; then all is read again.
    Result<void> opened;
    int errors = 0;
    for (int tries = 0; tries < kSnapshotTries && errors < kErrorTries; ++tries) {
        std::vector<std::uint64_t> ids;
        opened = try_to_open(ids);
        if (opened || opened.error().code == Code::invalid_argument) {
            break;
        }
        errors += opened.error().code == Code::unavailable || writer_went_on(ids) ? 0 : 1;
        catalog_.set(nullptr);
    }
    DEDUP_TRY(std::move(opened));
    // Without a valid frame at the end of what was read, either the writer is just writing one,
    // or a crash tore it, or it is damaged. In the last case the frame does not become valid.
    const std::shared_ptr<Unsealed> newest = shown_.view()->unsealed.front();
    const std::uint64_t end = newest->row.bytes;
    const auto inspected = inspect_newest(*newest);
    if (!inspected) {
        DEDUP_TRY(follow());
        if (shown_.view()->unsealed.front() == newest && newest->row.bytes == end) {
            return std::unexpected(inspected.error());
        }
    }
    torn_bytes_ = inspected.value_or(0);
    return {};
}

// Whether the log that had the segments `ids`, or the catalog, has changed since it was opened.
// While neither does, what is read of both is what a crash could have left, and must not be in
// error.
bool Follower::writer_went_on(const std::vector<std::uint64_t>& ids) const {
    const auto now = list_segments(context_.env, context_.log_path);
    const auto catalog = catalog_.get();
    return (now && *now != ids) || (catalog && catalog->changed_since_open());
}

// `ids` become those of the log's segments.
Result<void> Follower::try_to_open(std::vector<std::uint64_t>& ids) {
    bool* const only_catalog = context_.internals.only_catalog;
    if (only_catalog != nullptr) {
        *only_catalog = false;
    }
    ids = DEDUP_TRY(list_segments(context_.env, context_.log_path));
    if (ids.empty()) {
        return check_creatable(context_);
    }
    const auto segment = DEDUP_TRY(Segment::open(context_.env, context_.log_path, ids.back()));
    context_.store_id = segment->header().store_id;
    const auto needs_writer = [&](Error error) {
        if (error.code == Code::corruption) {
            if (only_catalog != nullptr) {
                *only_catalog = true;
            }
            error.message += "; opening the store for writing rebuilds it from the log";
        }
        return std::unexpected(error);
    };
    auto catalog = open_catalog(context_);
    if (!catalog) {
        return needs_writer(catalog.error());
    }
    catalog_.set(*catalog);
    const std::shared_ptr<Unsealed> newest =
        DEDUP_TRY(replay_segment(context_, ids.back(), 0)).unsealed;
    DEDUP_TRY(check_log(context_, ids, *newest));
    const CatalogFit fit = DEDUP_TRY(compare_catalog(context_, **catalog, *newest));
    if (fit.problem) {
        return needs_writer(*fit.problem);
    }
    context_.internals.pause();
    auto snapshot = first_snapshot(context_, **catalog);
    if (!snapshot) {
        return needs_writer(snapshot.error());
    }
    // What has been moved since the newest segment was read is found by following it; but not if
    // it has itself been sealed, or sealed and dropped, with others behind it.
    const PathType type =
        DEDUP_TRY(context_.env.type(context_.log_path / segment_file_name(newest->row.id)));
    if (type != PathType::file || last_of(*snapshot) >= newest->row.id) {
        return std::unexpected(too_fast(context_));
    }
    // The writer may not have flushed this yet, and only what is durable may be seen.
    DEDUP_TRY(newest->segment->file().sync());
    MakeView from;
    from.sealed = std::move(*snapshot);
    from.newest = newest;
    (void)DEDUP_TRY(make_view(context_, shown_, std::move(from)));
    clock_.adopt(newest->manifest);
    return {};
}

Result<void> Follower::follow() {
    const NoCancel no_cancel;
    const MutexLock lock(mutex_);
    if (context_.closed || !catalog_.get()) {
        return std::unexpected(context_.closed_error());
    }
    if (context_.failure.failed()) {
        return std::unexpected(Error{Code::failed, context_.failure.reason()});
    }
    for (int tries = 0; tries < kSnapshotTries; ++tries) {
        if (DEDUP_TRY(try_to_follow())) {
            return {};
        }
    }
    return std::unexpected(too_fast(context_));
}

// False: the writer has sealed meanwhile what was being read.
Result<bool> Follower::try_to_follow() {
    // What a sweep has moved from a segment that it then dropped is in the unsealed segments. So
    // the catalog is read first, but shown last, together with all of these.
    News news;
    DEDUP_TRY(follow_catalog(news));
    while (DEDUP_TRY(follow_segments(news))) {
    }
    return show(news);
}

Result<bool> Follower::show(News& news) {
    ShownView::Access shown(shown_);
    SnapshotPtr& sealed = news.sealed;
    std::shared_ptr<View>& next = news.view;
    const Unsealed& newest = *(next ? next : shown.view())->unsealed.front();
    if (last_of(sealed) >= newest.row.id || (next && newest.row.bytes == kSegmentHeaderBytes)) {
        return false;
    }
    // The log may have gone further than the catalog was when it was read. What it has given up
    // since is not shown any more, all at once: a segment may hide what lies in an older one.
    const std::vector<SegmentLength>& segments = newest.manifest.segments;
    if (sealed || newest.manifest.steps != followed_steps_) {
        sealed = DEDUP_TRY(catalog_.get()->only(sealed ? sealed : shown.view()->sealed, segments));
        followed_steps_ = newest.manifest.steps;
    }
    if (clock_.differs(newest.manifest)) {
        context_.written_time_ms = newest.row.time_high_ms;
        clock_.adopt(newest.manifest);
    }
    if (!sealed && !next && newest.manifest.horizon == shown.view()->horizon) {
        return true;
    }
    if (!next) {
        next = std::make_shared<View>(*shown.view());
    }
    next->horizon = newest.manifest.horizon;
    std::erase_if(next->unsealed, [&](const std::shared_ptr<Unsealed>& unsealed) {
        const std::uint64_t id = unsealed->row.id;
        return id <= last_of(sealed) ||
               (id != newest.row.id &&
                std::ranges::find(segments, id, &SegmentLength::id) == segments.end());
    });
    if (sealed) {
        next->sealed = std::move(sealed);
    }
    shown.publish(std::move(next));
    return true;
}

// Takes the catalog as it is now, if it has changed.
Result<void> Follower::follow_catalog(News& news) {
    const ViewPtr before = DEDUP_TRY(reader_.view());
    const auto catalog = DEDUP_TRY(catalog_.open_one());
    if (catalog->replaced()) {
        return std::unexpected(made_anew(context_));
    }
    if (!catalog->changed_since(*before->sealed)) {
        return {};
    }
    const auto read = [&] {
        return catalog->snapshot(context_.env, context_.log_path, before->sealed);
    };
    auto now = read();
    for (int tries = 0; !now && now.error().os_error == ENOENT && tries < kSnapshotTries; ++tries) {
        now = read();
    }
    if (!now) {
        return std::unexpected(catalog->replaced() ? made_anew(context_) : now.error());
    }
    news.sealed = std::move(*now);
    return {};
}

// Replays what the writer has added to a segment.
Result<void> Follower::take_up(ShownView::Access& shown, Unsealed& newest) {
    return shown.exclusive([&]() -> Result<void> {
        const std::uint64_t before = newest.row.bytes;
        const Unfinished unfinished(context_.failure);
        (void)DEDUP_TRY(replay(newest, context_.locator));
        if (newest.row.bytes == before) {
            return {};
        }
        // The writer may not have flushed this yet, and only what is durable may be seen.
        if (auto synced = newest.segment->file().sync(); !synced) {
            (void)context_.failure.set(synced.error());  // or the next call would show it
            return synced;
        }
        context_.written_time_ms =
            std::max(context_.written_time_ms.load(), newest.row.time_high_ms);
        context_.clock.saw_time(newest.row.time_high_ms);
        return {};
    });
}

// The id of the segment that follows; 0 if there is none yet.
Result<std::uint64_t> Follower::next_segment(std::uint64_t previous_id) {
    const PathType type =
        DEDUP_TRY(context_.env.type(context_.log_path / segment_file_name(previous_id + 1)));
    if (type == PathType::file) {
        return previous_id + 1;
    }
    // A sweep may have dropped some in between, even just now. Then it has changed the catalog
    // since the log was last seen to end. (So the version is read after the name was missed, and
    // before the names are listed.)
    const std::uint64_t version = catalog_.get()->version();
    if (version == log_end_version_) {
        return 0;
    }
    const auto ids = DEDUP_TRY(list_segments(context_.env, context_.log_path));
    const auto next = std::ranges::upper_bound(ids, previous_id);
    if (next != ids.end()) {
        return *next;
    }
    log_end_version_ = version;
    return 0;
}

// Replays what the writer has added to the newest segment, or takes up the next one. False: there
// is nothing more.
Result<bool> Follower::follow_segments(News& news) {
    // Under the lock despite the I/O: other readers of this store would have to wait anyway.
    ShownView::Access shown(shown_);
    Unsealed& newest = *(news.view ? news.view : shown.view())->unsealed.front();
    DEDUP_TRY(take_up(shown, newest));
    shown.raise_applied_sequence(newest.last_sequence);
    const std::uint64_t next_id = DEDUP_TRY(next_segment(newest.row.id));
    if (next_id == 0) {
        return false;
    }
    auto opened = Segment::open(context_.env, context_.log_path, next_id);
    if (!opened) {
        // It may have been dropped just now. What was moved from it is in a later one.
        return opened.error().os_error == ENOENT ? Result<bool>(true)
                                                 : std::unexpected(opened.error());
    }
    const Segment& segment = **opened;
    // The writer may have finished this segment while it was being read. Now nothing is added.
    DEDUP_TRY(take_up(shown, newest));
    shown.raise_applied_sequence(newest.last_sequence);
    const SegmentHeader& header = segment.header();
    if (header.store_id != context_.store_id) {
        return std::unexpected(
            segment.corruption(kSegmentStoreIdAt, "it belongs to another store"));
    }
    if (header.previous_id == newest.row.id && header.previous_bytes != newest.row.bytes) {
        return std::unexpected(newest.segment->corruption(
            newest.row.bytes, fmt::format("it should be {} bytes long", header.previous_bytes)));
    }
    const std::uint64_t file_bytes = DEDUP_TRY(segment.file().size());
    context_.clock.saw_time(header.time_high_ms);
    if (!news.view) {
        news.view = std::make_shared<View>(*shown.view());
    }
    news.view->unsealed.insert(
        news.view->unsealed.begin(),
        std::make_shared<Unsealed>(*opened, expected_bytes(context_, segment, file_bytes),
                                   file_bytes));
    return true;
}

}  // namespace dedup
