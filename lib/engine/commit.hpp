// One group on its way to the disk.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/append.hpp"
#include "engine/log_writer.hpp"
#include "engine/reader.hpp"
#include "index/delta.hpp"

namespace dedup {

// One append call.
struct AppendRequest {
    std::span<const Append> batch;
    Batch mode = Batch::each;
    Refused& refused;
    std::vector<StreamId> ids;
    std::vector<Result<std::uint64_t>> results;
};

// What an item has for a result until it is decided: no sequence.
inline constexpr std::uint64_t kUnanswered = 0;

// What the leader has encoded and not yet made durable. Each item is checked against the stream's
// head: the newest record that lookups see, or one of this group that is staged.
class Commit {
  public:
    Commit(StoreContext& context, const Reader& reader, LogWriter& writer, const Turn& turn,
           std::size_t items)
        : context_(context),
          reader_(reader),
          writer_(writer),
          turn_(turn),
          pending_(items),
          first_sequence_(writer.next_sequence(turn)) {}

    void add(AppendRequest& request);
    // Writes, flushes and shows what is staged. Its results turn to errors if that fails.
    void finish();
    // When memory has run out in one of these: answers what is staged with `error`.
    void give_up(const Error& error);

  private:
    // What an item's record comes after; a removed head, too.
    struct Head {
        Link link;
        std::uint64_t sequence = 0;
    };

    void add_each(AppendRequest& request, std::size_t i);
    void add_atomic(AppendRequest& request);
    Result<void> prepare(std::int64_t time_ms);
    Result<void> finish_and_go_on();
    Result<Head> check(const Append& item, const StreamId& id, Result<std::uint64_t>& result);
    Result<const IndexEntry*> find_pending(const Append& item, const StreamId& id);
    Result<Head> find_shown(const Append& item, const StreamId& id);
    Result<bool> check_heads(AppendRequest& request, std::vector<Head>& heads);
    Result<void> check_room_for_all(AppendRequest& request, const std::vector<Head>& heads);
    void stage(AppendRequest& request, std::size_t i, std::uint64_t sequence, const Head& head,
               std::uint32_t offset, std::uint64_t bytes);
    void drop_staged(const Error& error);
    void clear();

    StoreContext& context_;
    const Reader& reader_;
    LogWriter& writer_;
    const Turn& turn_;
    ViewPtr view_;   // let go before anything that waits for the sealer
    Delta pending_;  // the heads that the staged records will be
    // Side by side.
    std::vector<Applied> staged_;
    std::vector<Result<std::uint64_t>*> staged_results_;
    // Conflicts with a head that is itself pending. Should that head not become durable, nobody
    // may have been told its sequence, which will be assigned again.
    std::vector<Result<std::uint64_t>*> lost_to_pending_;
    std::uint64_t first_sequence_;
    std::uint64_t new_streams_ = 0;  // staged
    bool flush_ = false;             // something staged asks for it: see Append::flush
};

}  // namespace dedup
