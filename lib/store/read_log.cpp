#include "store/read_log.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "engine/log_writer.hpp"
#include "log/frame_reader.hpp"
#include "record/try.hpp"

namespace dedup {

Result<std::vector<std::uint64_t>> list_segments(Env& env, const Path& log) {
    std::vector<std::uint64_t> ids;
    for (const std::string& name : DEDUP_TRY(env.list(log))) {
        if (const auto id = segment_id(name)) {
            ids.push_back(*id);
        }
    }
    std::ranges::sort(ids);
    return ids;
}

Error missing_segment(const StoreContext& context, std::uint64_t id) {
    return {Code::corruption,
            fmt::format("{} is missing; it is part of the log: put it back, or save what is left "
                        "in a new store with `dedupctl repair`",
                        (context.log_path / segment_file_name(id)).string())};
}

std::uint64_t expected_bytes(const StoreContext& context, const Segment& newest,
                             std::uint64_t file_bytes) {
    const std::uint64_t previous = newest.header().previous_bytes;
    const std::uint64_t usual =
        previous == 0 ? LogWriter::segment_bytes_for(context.options, {}, 0) : previous;
    return std::min(std::max(usual, file_bytes), kSegmentFileBytesMax);
}

Result<ReplayedSegment> replay_segment(StoreContext& context, std::uint64_t id,
                                       std::uint64_t bytes) {
    const auto segment = DEDUP_TRY(Segment::open(context.env, context.log_path, id));
    const std::uint64_t file_bytes = DEDUP_TRY(segment->bytes_there());
    const std::uint64_t room =
        bytes == 0 ? expected_bytes(context, *segment, file_bytes) : std::min(bytes, file_bytes);
    ReplayedSegment replayed{std::make_shared<Unsealed>(segment, room, file_bytes)};
    Unsealed& unsealed = *replayed.unsealed;
    replayed.frames = DEDUP_TRY(replay(unsealed, context.locator, bytes));
    for (const auto& [begin, end] : unsealed.damaged) {
        (void)context.damage.note(*segment, begin,
                                  segment->corruption(begin, "there is no valid frame"));
    }
    if (bytes != 0 && unsealed.row.bytes != bytes) {
        return std::unexpected(segment->corruption(
            unsealed.row.bytes, fmt::format("it should be {} bytes long", bytes)));
    }
    return replayed;
}

Result<void> check_log(const StoreContext& context, const std::vector<std::uint64_t>& ids,
                       const Unsealed& newest) {
    if (newest.row.bytes == kSegmentHeaderBytes) {
        return std::unexpected(newest.segment->corruption(
            kSegmentHeaderBytes, "there is no valid manifest at the segment's beginning"));
    }
    for (const auto& [id, bytes] : newest.manifest.segments) {
        if (!std::ranges::binary_search(ids, id)) {
            return std::unexpected(missing_segment(context, id));
        }
        const auto segment = DEDUP_TRY(Segment::open(context.env, context.log_path, id));
        if (segment->header().store_id != context.store_id) {
            return std::unexpected(
                segment->corruption(kSegmentStoreIdAt, "it belongs to another store"));
        }
    }
    return {};
}

Result<std::uint64_t> inspect_newest(const Unsealed& newest) {
    const std::uint64_t file_bytes = DEDUP_TRY(newest.segment->bytes_there());
    return DEDUP_TRY(inspect_tail(*newest.segment, newest.row.bytes, file_bytes)).torn_bytes;
}

Result<std::shared_ptr<Catalog>> open_catalog(StoreContext& context) {
    auto opened = context.options.read_only
                      ? Catalog::open_for_reading(context.env, context.catalog_path)
                      : Catalog::open(context.catalog_path, context.internals.catalog_map_bytes);
    if (!opened) {
        const Error& error = opened.error();
        // All of it is in the log, too.
        const bool rebuildable =
            error.code == Code::corruption || error.os_error == ENOENT || error.os_error == EIO;
        return std::unexpected(rebuildable ? Error{Code::corruption, error.message} : error);
    }
    if ((*opened)->meta().store_id != context.store_id) {
        return std::unexpected(context.catalog_problem("it belongs to another store"));
    }
    context.locator = {(*opened)->meta().secret, context.internals.id_mask};
    return std::shared_ptr<Catalog>(std::move(*opened));
}

namespace {

// Compares the rows of a catalog with the segments of the manifest, of which it may know fewer, and
// be a step behind. Gives the rows of segments that are out of the log, or why it cannot be so.
std::expected<std::vector<std::uint64_t>, std::string> compare_rows(
    const std::vector<SegmentRow>& rows, const SweepState& state, const Manifest& manifest) {
    std::vector<std::uint64_t> given_up;
    const bool behind = state.steps != manifest.steps;
    auto next = manifest.segments.begin();
    for (const SegmentRow& row : rows) {
        if (next != manifest.segments.end() && *next == SegmentLength{row.id, row.bytes}) {
            ++next;
        } else if (behind && std::ranges::find(manifest.segments, row.id, &SegmentLength::id) ==
                                 manifest.segments.end()) {
            given_up.push_back(row.id);
        } else {
            return std::unexpected(
                fmt::format("it does not know the log before segment {}", row.id));
        }
    }
    // A segment is sealed, and its row in the catalog, before a sweep takes it out of the log.
    if (behind && manifest.given_up != 0 &&
        (given_up.empty() || given_up.back() != manifest.given_up)) {
        return std::unexpected("it does not know what a sweep has dropped");
    }
    if (manifest.horizon != Horizon() &&
        manifest.segments.end() - next >= static_cast<std::ptrdiff_t>(kUnsealedMax)) {
        return std::unexpected("it knows too few segments");
    }
    return given_up;
}

}  // namespace

Result<CatalogFit> compare_catalog(const StoreContext& context, const Catalog& catalog,
                                   const Unsealed& newest_segment) {
    const Manifest& manifest = newest_segment.manifest;
    const std::uint64_t newest = newest_segment.row.id;
    const auto state = catalog.sweep_state();
    const auto rows = catalog.rows();
    CatalogFit fit;
    const auto misfit = [&](const Error& error) {
        fit.problem = error;
        return fit;
    };
    if (!state || !rows) {
        const Error error = state ? rows.error() : state.error();
        return error.code == Code::corruption ? Result<CatalogFit>(misfit(error))
                                              : std::unexpected(error);
    }
    fit.state = *state;
    if (state->steps == kStepsUnfinished) {
        return misfit(context.catalog_problem("it was not finished"));
    }
    // The catalog only ever follows what is durable in the log. If it is ahead, the log has lost
    // its end, and with it sequences that must not be given again.
    if (!rows->empty() && rows->back().id >= newest) {
        const auto missing = std::ranges::upper_bound(*rows, newest, {}, &SegmentRow::id);
        return std::unexpected(
            missing_segment(context, missing == rows->end() ? newest + 1 : missing->id));
    }
    if (state->steps > manifest.steps) {
        return std::unexpected(missing_segment(context, newest + 1));
    }
    // A sweep writes a step to the log first, and the catalog follows.
    if (state->steps != manifest.steps && state->steps + 1 != manifest.steps) {
        return misfit(context.catalog_problem("it is not of the same age as the log"));
    }
    auto given_up = compare_rows(*rows, *state, manifest);
    if (!given_up) {
        return misfit(context.catalog_problem(given_up.error()));
    }
    fit.given_up = std::move(*given_up);
    return fit;
}

Result<SnapshotPtr> first_snapshot(const StoreContext& context, const Catalog& catalog) {
    auto snapshot = catalog.snapshot(context.env, context.log_path, nullptr);
    if (!snapshot && snapshot.error().code == Code::io && snapshot.error().os_error == ENOENT) {
        return std::unexpected(
            Error{Code::io,
                  fmt::format("{}; it is part of the log: restore it, or save the rest with "
                              "`dedupctl repair`",
                              snapshot.error().message),
                  ENOENT});
    }
    return snapshot;
}

Result<std::uint64_t> make_view(StoreContext& context, ShownView& shown, MakeView from) {
    const std::shared_ptr<Unsealed>& newest = from.newest;
    const Manifest& manifest = newest->manifest;
    std::uint64_t next_sequence = 1;
    std::int64_t time_ms = manifest.time_high_ms;
    const auto take_over = [&](const SegmentRow& row) {
        next_sequence = std::max(next_sequence, row.next_sequence);
        if (row.id >= manifest.time_from_segment()) {
            time_ms = std::max(time_ms, row.time_high_ms);
        }
    };
    std::uint64_t sealed_last = 0;
    for (const SealedSegment& sealed : from.sealed->segments()) {
        take_over(sealed.row);
        sealed_last = sealed.row.id;
    }
    take_over(newest->row);
    auto view = std::make_shared<View>();
    view->sealed = std::move(from.sealed);
    view->unsealed.push_back(newest);
    if (!from.rebuilt) {
        view->horizon = manifest.horizon;
    }
    for (const auto& [id, bytes] : manifest.segments) {
        if (id <= sealed_last) {
            continue;
        }
        const auto replayed = DEDUP_TRY(replay_segment(context, id, bytes));
        take_over(replayed.unsealed->row);
        view->unsealed.insert(view->unsealed.begin() + 1, replayed.unsealed);
        if (!from.seal || view->unsealed.size() <= from.unsealed_max) {
            continue;
        }
        const std::shared_ptr<Unsealed> oldest = view->unsealed.back();
        ShownView::Access(shown).publish(std::move(view));
        DEDUP_TRY(from.seal(*oldest));
        view = std::make_shared<View>(*shown.view());
    }
    view->horizon = manifest.horizon;
    {
        ShownView::Access access(shown);
        access.raise_applied_sequence(next_sequence - 1);
        access.publish(std::move(view));
    }
    context.written_time_ms = time_ms;
    context.clock.saw_time(time_ms);
    return next_sequence;
}

}  // namespace dedup
