// What opening a store for writing and for reading have in common: reading the log, and looking
// whether the catalog goes with it. Changes nothing on the disk.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "engine/context.hpp"
#include "engine/shown_view.hpp"
#include "engine/store_catalog.hpp"

namespace dedup {

// The ids of all segment files, ascending.
[[nodiscard]] Result<std::vector<std::uint64_t>> list_segments(Env& env, const Path& log);

[[nodiscard]] Error missing_segment(const StoreContext& context, std::uint64_t id);

// How large the newest segment is going to be: mostly as the one before it. Whatever its header
// says of that one, memory is asked for as much as the largest segment needs.
[[nodiscard]] std::uint64_t expected_bytes(const StoreContext& context, const Segment& newest,
                                           std::uint64_t file_bytes);

// A segment that has been read.
struct ReplayedSegment {
    std::shared_ptr<Unsealed> unsealed;
    Replayed frames = {};
};
// Opens and replays a segment, which must have `bytes` bytes of frames if that is not 0.
[[nodiscard]] Result<ReplayedSegment> replay_segment(StoreContext& context, std::uint64_t id,
                                                     std::uint64_t bytes);

// Checks that every segment of the log is there and belongs to this store.
[[nodiscard]] Result<void> check_log(const StoreContext& context,
                                     const std::vector<std::uint64_t>& ids, const Unsealed& newest);

// Judges what lies behind the last valid frame of the log; gives how many bytes of it are torn.
[[nodiscard]] Result<std::uint64_t> inspect_newest(const Unsealed& newest);

// Opens the catalog, and takes the store's secret from it.
// Errors: corruption, if it has to be made anew.
[[nodiscard]] Result<std::shared_ptr<Catalog>> open_catalog(StoreContext& context);

// How the catalog goes with the manifest that holds.
struct CatalogFit {
    std::optional<Error> problem;         // why it has to be made anew
    std::vector<std::uint64_t> given_up;  // rows of segments that are out of the log
    SweepState state;
};
// What a catalog that is being made anew says of the steps that it has followed.
inline constexpr std::uint64_t kStepsUnfinished = UINT64_MAX;

// Compares the catalog with the manifest that holds.
// Errors: corruption, if segments are missing that the catalog knows of.
[[nodiscard]] Result<CatalogFit> compare_catalog(const StoreContext& context,
                                                 const Catalog& catalog,
                                                 const Unsealed& newest_segment);

// Errors: corruption, if the catalog has to be made anew; io, if a segment is missing.
[[nodiscard]] Result<SnapshotPtr> first_snapshot(const StoreContext& context,
                                                 const Catalog& catalog);

// Makes the view: replays the segments that the catalog does not know.
struct MakeView {
    SnapshotPtr sealed;
    std::shared_ptr<Unsealed> newest;
    // While a catalog made anew has counted nothing, nothing may seem to be removed.
    bool rebuilt = false;
    // Called for the oldest unsealed segment once there are more than so many; it seals that, and
    // shows it. Null: there is no bound.
    std::function<Result<void>(const Unsealed&)> seal = nullptr;
    std::size_t unsealed_max = kUnsealedMax;
};
// Gives the next sequence. The store's clock has seen the log's time.
[[nodiscard]] Result<std::uint64_t> make_view(StoreContext& context, ShownView& shown,
                                              MakeView from);

}  // namespace dedup
