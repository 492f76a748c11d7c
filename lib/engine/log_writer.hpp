// Writing to the log: the newest segment, sequences, marks, and the manifest in force.
//
// Whoever changes the log has the turn, and shows it. What has no other guard belongs to that one
// caller: next_sequence_, manifest_ and what stands with them.
//
// Invariants:
//   - What lookups see is on the disk (Durability::sync), or at least written (async).
//   - A sequence that anybody has been told is never assigned again: recovery goes on above every
//     sequence in the log, and above every mark.
//   - From the first byte of a write until the view shows it, an Unfinished stands guard.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <thread>

#include "contract/capacity.hpp"
#include "engine/commit_queue.hpp"
#include "engine/context.hpp"
#include "engine/sealer.hpp"
#include "engine/shown_view.hpp"
#include "env/mutex.hpp"
#include "log/segment_writer.hpp"

namespace dedup {

class LogWriter {
  public:
    LogWriter(StoreContext& context, ShownView& shown, CommitQueue& queue, Sealer& sealer)
        : context_(context), shown_(shown), queue_(queue), sealer_(sealer) {}

    // While the store is opened, in this order. `lock` is the store's, and lives
    // until close_file().
    void resume(std::unique_ptr<SegmentWriter> file, const Manifest& manifest, Lock& lock);
    void begin(std::uint64_t next_sequence, std::uint64_t clock_changes);
    void set_streams(std::uint64_t live) { streams_ = live; }
    // Throws std::system_error as std::thread does.
    void start_flusher();

    // Runs work(turn), and forgets what it has encoded and not written if memory runs out in it.
    // Errors: closed, out_of_space or outcome_unknown (memory), those of `work`.
    template <class Work>
    [[nodiscard]] Result<void> alone(Work work);
    // What the leader's work gives when memory has run out in it. What it has not written is as if
    // it had never been encoded.
    Error abandon(const Turn& turn) noexcept;

    // Makes durable what has been written. For any thread.
    [[nodiscard]] Result<void> flush();
    void stop_flusher();
    // Before the sealer stops: ends the newest segment if the next opening would read it for long.
    // Where that does not succeed, the store has failed, or nothing has changed.
    [[nodiscard]] Result<void> shorten_tail(const Turn& turn);
    // Leaves the log such that the next opening finds it whole.
    [[nodiscard]] Result<void> finish(const Turn& turn);
    void close_file(const Turn& /*turn*/) { file_.reset(); }

    // The newest segment; frames are encoded into its buffer.
    [[nodiscard]] SegmentWriter& file(const Turn& /*turn*/) { return *file_; }
    [[nodiscard]] const Manifest& manifest(const Turn& /*turn*/) const { return manifest_; }
    [[nodiscard]] std::uint64_t next_sequence(const Turn& /*turn*/) const { return next_sequence_; }
    void set_next_sequence(const Turn& /*turn*/, std::uint64_t next) { next_sequence_ = next; }

    // Whether the newest segment takes no more records.
    [[nodiscard]] bool is_full(const Turn& /*turn*/) const {
        return file_->end() >= segment_bytes_;
    }
    // Closes the newest segment and begins the next. With nothing buffered.
    [[nodiscard]] Result<void> start_segment(const Turn& turn);
    // What it will be like; for any thread.
    [[nodiscard]] std::uint64_t segment_bytes() const { return segment_bytes_; }
    void choose_segment_bytes(std::uint64_t log_bytes);
    [[nodiscard]] static std::uint64_t segment_bytes_for(const OpenOptions& options,
                                                         const Horizon& horizon,
                                                         std::uint64_t log_bytes);

    // Writes what is buffered, which are `records`, flushes it if `flush`, and shows it.
    // Errors: out_of_space: nothing has been written, and the buffer is empty; outcome_unknown: the
    // store has failed.
    [[nodiscard]] Result<void> write_records(const Turn& turn, std::span<const Applied> records,
                                             bool flush);
    // Says that no sequence above `sequence` has been assigned; durably if `flush`.
    [[nodiscard]] Result<void> write_mark(const Turn& turn, std::uint64_t sequence,
                                          bool flush = true);
    // Puts a manifest in force, with its number of steps, its time and the clock's history filled
    // in.
    [[nodiscard]] Result<void> write_manifest(const Turn& turn, Manifest manifest,
                                              bool is_step = true);

    // Durability::async: whether so few sequences are left that reserve_sequences() has to come
    // first.
    [[nodiscard]] bool must_reserve(const Turn& turn) const;
    [[nodiscard]] Result<void> reserve_sequences(const Turn& turn);

    // Whether something is new about the clock, which has to be written down before records.
    [[nodiscard]] bool clock_is_new(const Turn& /*turn*/) const {
        return context_.clock.clock_changes() != clock_noted_;
    }
    [[nodiscard]] Result<void> note_clock(const Turn& turn);
    // Makes `clock` what is known of the clock, and, if that was reset, `time_ms` the store's time
    // from a new segment on.
    [[nodiscard]] Result<void> begin_clock(const Turn& turn, ClockHistory clock,
                                           std::int64_t time_ms);

    // Whether the capacity allows `wanted` beside streams that are about to be written.
    // Errors: out_of_space.
    [[nodiscard]] Result<void> check_room(const Turn& turn, std::uint64_t pending_streams,
                                          const Room& wanted) const;
    void add_streams(std::uint64_t begun) { streams_ += begun; }
    void remove_streams(std::uint64_t swept) { streams_ -= swept; }

  private:
    [[nodiscard]] Result<void> write_now(FrameKind kind, std::string_view body,
                                         std::uint64_t sequence, bool flush);
    [[nodiscard]] Result<void> write_buffered();
    [[nodiscard]] Result<void> flush_written() DEDUP_EXCLUDES(flush_mutex_);
    [[nodiscard]] Result<void> sync_written();
    void flush_in_background();
    template <class Change>
    void show(Change change);

    StoreContext& context_;
    ShownView& shown_;
    CommitQueue& queue_;
    Sealer& sealer_;
    Lock* lock_ = nullptr;

    // The turn's.
    std::unique_ptr<SegmentWriter> file_;  // changed under flush_mutex_, too
    std::uint64_t next_sequence_ = 1;
    std::uint64_t reserved_sequence_ = 0;  // Durability::async: the last that a mark allows
    std::uint64_t clock_noted_ = 0;        // what clock_changes() was when it was last written down
    Manifest manifest_;                    // the one that holds
    bool records_since_mark_ = false;

    std::atomic<std::uint64_t> segment_bytes_{0};
    std::atomic<std::uint64_t> streams_{0};  // that no sweep has removed

    Mutex flush_mutex_;  // between who has the turn and the flusher of Durability::async
    Condition flusher_wakes_;
    bool flusher_stops_ DEDUP_GUARDED_BY(flush_mutex_) = false;
    std::thread flusher_;
};

template <class Work>
Result<void> LogWriter::alone(Work work) {
    if (auto own = context_.check_process(); !own) {
        return own;  // it was forked in a callback
    }
    return queue_.alone([&](const Turn& turn) -> Result<void> {
        try {
            return work(turn);
        } catch (const std::bad_alloc&) {
            return std::unexpected(abandon(turn));
        }
    });
}

}  // namespace dedup
