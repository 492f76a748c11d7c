// Reading a view: heads, histories, links, and single records. Pure over the view that it is given;
// what it cannot read, it notes as damage.
//
// Any thread may use one, also beside the one who appends. Views live as long as what was found in
// them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "engine/context.hpp"
#include "engine/head_search.hpp"
#include "engine/shown_view.hpp"

namespace dedup {

class Reader {
  public:
    Reader(StoreContext& context, const ShownView& shown) : context_(context), shown_(shown) {}

    // The view as it is now, and its numbers. Errors: closed.
    [[nodiscard]] Result<ViewPtr> view() const;
    [[nodiscard]] Result<Now> now() const;

    // See StreamStore.
    [[nodiscard]] std::vector<Result<std::optional<Record>>> heads(
        std::span<const StreamKey> streams) const;
    [[nodiscard]] Result<std::optional<Record>> head(StreamKey stream) const;
    [[nodiscard]] Result<std::vector<Version>> history(StreamKey stream,
                                                       const HistoryLimits& limits) const;

    // Looks from new to old for the record of a stream that `accept` recognises: accept(Located&)
    // gives true for the stream, false for one that merely shares its id, or an error. What it has
    // not read may be of another stream. `unsealed` is what a probe has found.
    template <class Accept>
    Result<std::optional<Located>> find_newest(const View& view, const StreamId& id,
                                               UnsealedEntries unsealed, Accept accept) const;

    // Fills in the record of `stream` in a frame of `at.segment`, if it is the one with the
    // sequence of at.entry; with any, if that is 0. False: the frame has none. (A frame may hold
    // two streams that share an id, and the entry of one must not stand for the other.)
    [[nodiscard]] static Result<bool> find_in_frame(const Frame& frame, StreamKey stream,
                                                    Located& at);
    // Reads the record at `at`. False: the frame there holds another stream, which shares the id.
    [[nodiscard]] static Result<bool> read_record(Located& at, StreamKey stream,
                                                  FrameBuffer& buffer);
    // Reads the record of an entry, which names it by its sequence. False: it cannot be read, which
    // is noted.
    [[nodiscard]] Result<bool> read_entry(const Segment& segment, const IndexEntry& entry,
                                          Located& at, FrameBuffer& buffer) const;

    // The record of `stream` that a link leads to; nullopt if it is not there any more. Errors:
    // corruption, io; they are noted as damage.
    [[nodiscard]] Result<std::optional<Located>> follow_link(const View& view, const Link& link,
                                                             StreamKey stream,
                                                             FrameBuffer& buffer) const;
    // The newest record of the stream that `at` belongs to. One of its id that cannot be read is
    // taken for it, and noted. `unsealed` is what a probe has found.
    [[nodiscard]] Result<std::optional<Located>> newest_of(const View& view, const Located& at,
                                                           UnsealedEntries unsealed,
                                                           FrameBuffer& buffer) const;
    // Whether `at` was its stream's head when `as_of` was the last sequence. Not if that cannot be
    // told because of damage: then nothing is removed.
    [[nodiscard]] Result<bool> was_head(const View& view, const Located& at,
                                        std::uint64_t as_of) const;

    // Calls visit for each entry of a part, until it fails.
    // Errors: closed, corruption, those of `visit`.
    using Visit = std::function<Result<void>(const IndexEntry&)>;
    [[nodiscard]] Result<void> visit_entries(const Part& part, const Visit& visit) const;
    [[nodiscard]] Result<void> visit_entries(const SealedSegment& sealed, const Visit& visit) const;
    // Of a delta that may be growing, the first `size`. They are looked at some at a time, so that
    // appends need not wait.
    [[nodiscard]] Result<void> visit_entries(const Unsealed& unsealed, std::size_t size,
                                             const Visit& visit) const;

    [[nodiscard]] UnsealedEntries probe(const View& view, const StreamId& id) const {
        return shown_.shared_probe(view, id);
    }
    [[nodiscard]] std::vector<Part> parts(const View& view) const { return shown_.parts(view); }
    [[nodiscard]] std::uint64_t steps() const { return shown_.steps(); }
    [[nodiscard]] StoreContext& context() const { return context_; }

  private:
    template <class Accept>
    Result<bool> find_newest(HeadSearch& search, Located& at, Accept accept) const;
    void head_chunk(const View& view, std::span<const StreamKey> streams,
                    std::span<Result<std::optional<Record>>> results) const;
    void find_head(const View& view, StreamKey stream, HeadSearch& search,
                   Result<std::optional<Record>>& head) const;
    Result<void> try_read_entry(Located& at, FrameBuffer& buffer) const;
    Result<std::optional<Located>> find_older(const View& view, std::uint64_t before_segment,
                                              StreamKey stream, const Record& newer,
                                              FrameBuffer& buffer) const;

    StoreContext& context_;
    const ShownView& shown_;
};

[[nodiscard]] Version to_version(const Located& at);

template <class Accept>
Result<std::optional<Located>> Reader::find_newest(const View& view, const StreamId& id,
                                                   UnsealedEntries unsealed, Accept accept) const {
    HeadSearch search(view, id, std::move(unsealed));
    Located at;
    const Result<bool> found = find_newest(search, at, accept);
    if (!found) {
        return std::unexpected(found.error());
    }
    return *found ? std::optional(at) : std::nullopt;
}

// The same, of a search that has perhaps been begun, into `at`.
template <class Accept>
Result<bool> Reader::find_newest(HeadSearch& search, Located& at, Accept accept) const {
    while (true) {
        const auto more = search.next(at);
        if (!more) {
            return std::unexpected(context_.damaged_index(*more.error()));
        }
        if (!*more) {
            return false;
        }
        const Result<bool> accepted = accept(at);
        if (!accepted || *accepted) {
            return accepted;
        }
    }
}

}  // namespace dedup
