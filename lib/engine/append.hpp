// Appending: what a group's leader does for all of its members.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "contract/capacity.hpp"
#include "engine/commit_queue.hpp"
#include "engine/log_writer.hpp"
#include "engine/reader.hpp"

namespace dedup {

// Items of a batch for which the capacity has no room, and what they take.
struct Refused {
    std::vector<std::size_t> items;
    std::vector<Room> wanted;  // of each; in an atomic batch, of all together
};

// A record that is appended again as the newest of its stream, with its sequence unchanged. `link`
// leads to the one before it, which has the sequence `replaced`.
struct RecordAgain {
    std::string_view encoded;
    const RecordView& record;  // the same, decoded
    StreamId id;
    Link link;
    std::uint64_t replaced = 0;
};
// Adds its frame to the buffer of `file`. LogWriter::write_records is to follow.
[[nodiscard]] Applied encode_again(SegmentWriter& file, const RecordAgain& again);

class Appender {
  public:
    Appender(StoreContext& context, const Reader& reader, CommitQueue& queue, LogWriter& writer)
        : context_(context), reader_(reader), queue_(queue), writer_(writer) {}

    // See StreamStore::append. For any thread. `refused` gets the items for which there is no room;
    // they have that error.
    [[nodiscard]] std::vector<Result<std::uint64_t>> append(std::span<const Append> batch,
                                                            Batch mode, Refused& refused);

  private:
    [[nodiscard]] Result<void> check(std::span<const Append> batch, Batch mode,
                                     AppendRequest& request) const;
    void lead(const Turn& turn, CommitQueue::Requests& requests) noexcept;

    StoreContext& context_;
    const Reader& reader_;
    CommitQueue& queue_;
    LogWriter& writer_;
};

}  // namespace dedup
