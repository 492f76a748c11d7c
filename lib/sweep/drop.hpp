// Taking segments out of the log, and the room that a sweep keeps for itself on the disk.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/log_writer.hpp"
#include "engine/reader.hpp"
#include "engine/store_catalog.hpp"

namespace dedup {

// Does `work`, and once more without the reserve if the disk is full.
[[nodiscard]] Result<void> with_reserve(StoreContext& context,
                                        const std::function<Result<void>()>& work);
// Keeps some room on the disk for sweeping, so that a full one can be cleared. Does without if
// there is none.
void keep_reserve(StoreContext& context);

// For one sweep at a time.
class Dropper {
  public:
    Dropper(StoreContext& context, const Reader& reader, StoreCatalog& catalog, CommitQueue& queue,
            LogWriter& writer)
        : context_(context), reader_(reader), catalog_(catalog), queue_(queue), writer_(writer) {}

    // Takes segments out of the manifest, which makes it so.
    [[nodiscard]] Result<void> give_up(std::vector<std::uint64_t> segments, SweepReport& report);
    // Takes out of the catalog what has been given up, also by an earlier sweep, and then removes
    // the files. A file that a crash brings back is not in the manifest, and is removed at the next
    // opening. `state` is what the catalog has, and becomes what it has then.
    [[nodiscard]] Result<void> finish(SweepState& state);

    // After something that has made appends wait for so long, lets them go on if there are any.
    void rest_beside_appends(std::uint64_t pause_us);

  private:
    [[nodiscard]] Result<void> remove_file(std::uint64_t segment);
    void wait_for_readers(const std::shared_ptr<const Segment>& segment,
                          std::chrono::steady_clock::time_point until) const;

    StoreContext& context_;
    const Reader& reader_;
    StoreCatalog& catalog_;
    CommitQueue& queue_;
    LogWriter& writer_;
    std::vector<std::uint64_t> given_up_;  // not in the manifest any more, but in the catalog
};

}  // namespace dedup
