// The new store that a repair writes: records come with the sequences, and the ends of streams,
// that they had in the damaged one.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <utility>

#include "store/log_store.hpp"

namespace dedup {

// One record of the damaged store.
struct CopiedRecord {
    Record record;
    // Its stream had been swept before it: so it begins anew, whatever lies before it.
    bool begins_anew = false;
};

// For a store that was opened for this, with jumps of the clock ignored. Nobody else uses it.
// Nothing is durable before write_end().
class CopyTarget {
  public:
    explicit CopyTarget(LogStore& store) : store_(store) {}

    // Appends records in the order of their sequences, which are higher than those before. Atomic:
    // in one frame.
    [[nodiscard]] Result<void> append_as(std::span<const CopiedRecord> records, Batch mode);
    // Appends a record that is older than those around it, unless a newer one of its stream is
    // there. True: it has been appended.
    [[nodiscard]] Result<bool> append_moved(std::string_view encoded, const RecordView& record);

    // A time that the damaged store had seen.
    void note_time(std::int64_t time_ms) { store_.context().clock.saw_time(time_ms); }
    // Makes all of it durable: sequences go on from `next_sequence`, the clock's history and the
    // horizon are those of `manifest`, and `time_ms` is the store's time. What the horizon removes
    // is counted when the store is opened next.
    [[nodiscard]] Result<void> write_end(const Manifest& manifest, std::uint64_t next_sequence,
                                         std::int64_t time_ms);

  private:
    // What a record comes after.
    struct Head {
        Link link;
        std::uint64_t sequence = 0;
    };
    using Heads = std::map<std::pair<std::string_view, std::string_view>, Head>;

    [[nodiscard]] Result<void> append_in_turn(const Turn& turn,
                                              std::span<const CopiedRecord> records, Batch mode);
    [[nodiscard]] Result<void> make_ready(const Turn& turn);
    [[nodiscard]] Result<Head> head_of(StreamKey stream) const;

    LogStore& store_;
};

}  // namespace dedup
