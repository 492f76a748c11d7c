// Finding a stream's newest record: first among what is not sealed yet, then in the sealed segments
// from new to old.
//
// Nearly all of a search is waiting for memory: for the filters, for an index's fences, for its
// entries, for the frame. So it is done in steps, each of which fetches what the next one needs,
// and several searches take each step side by side. (Known from hash joins: Chen, Ailamaki,
// Gibbons, Mowry, "Improving Hash Join Performance through Prefetching", 2004.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>

#include "engine/view.hpp"

namespace dedup {

class HeadSearch {
  public:
    // A search mostly has its first frame fetched after so many steps.
    static constexpr int kSteps = 4;

    // `unsealed` is what the unsealed segments have with this id. `view` outlives the search.
    HeadSearch(const View& view, const StreamId& id, UnsealedEntries unsealed);

    // Does one step of what next() would do.
    void step();

    // The next older entry with the stream's id, in at.segment and at.entry; false if there is
    // none. The rest of `at` is left alone. In error: the segment whose index is damaged.
    [[nodiscard]] std::expected<bool, const SealedSegment*> next(Located& at);

  private:
    // As many as hits_ has bits. Older ones are asked when it is their turn; only a store of more
    // than 1,024 segments has any.
    static constexpr std::size_t kRunsAtOnce = 64;

    enum class Step : std::uint8_t {
        unsealed,    // the next candidate is an unsealed one, if any is left
        runs,        // ask the joint filters, from the newest run on
        filters,     // ask the filters of segments, up to one that may have the stream
        fences,      // find the place in its index, nearly
        entries,     // and exactly
        found,       // entry_ is the next candidate
        next_entry,  // look at the entry behind it
        none,        // there is no further candidate
        damaged,     // the index is
    };

    void ask_runs();
    void ask_filters();
    void find_place();
    void find_entry();
    void look_at_entry();
    [[nodiscard]] bool may_be_in(std::size_t run) const;

    const View& view_;
    StreamId id_;
    FilterBits bits_;
    UnsealedEntries unsealed_;
    std::size_t unsealed_given_ = 0;
    Step step_ = Step::unsealed;
    bool known_ = false;  // to some sealed segment; or remembered as absent

    // The filters before this one, and those of the runs before this one, are still to be asked.
    std::size_t run_ = 0;
    std::size_t filter_ = 0;
    std::uint64_t hits_ = 0;  // a bit for each of the newest runs: whether to ask its filters

    const SealedSegment* sealed_ = nullptr;  // the one that is being searched
    std::uint64_t at_ = 0;                   // where in its index
    IndexEntry entry_;                       // there, once it is found
};

}  // namespace dedup
