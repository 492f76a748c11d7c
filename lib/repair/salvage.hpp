// What repair() reads of a damaged store, in two parts: repair.cpp copies records, and
// salvage_sweeps.cpp tells what sweeps have done.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "log/frame_reader.hpp"
#include "log/patchy_file.hpp"
#include "repair/copy_target.hpp"

namespace dedup {

struct DamagedSegment {
    std::shared_ptr<PatchyFile> file;
    std::shared_ptr<const Segment> segment;
    std::uint64_t file_bytes = 0;  // the most that a segment can have, if the file has more
    bool header_intact = false;
};

class Salvage {
  public:
    Salvage(Env& env, const Path& damaged, const Progress& progress)
        : env_(env), damaged_(damaged), log_(damaged / "log"), progress_(progress) {}

    // Finds the segments and the store's id.
    Result<void> prepare();
    // Copies what is intact.
    Result<void> copy_to(LogStore& store);

    // Oldest first; those that a sweep has given up are not among them.
    [[nodiscard]] const std::vector<DamagedSegment>& segments() const { return segments_; }
    // Where the frames of segments()[number] end at the latest.
    [[nodiscard]] std::uint64_t end_of(std::size_t number) const;
    // The ids of segments that should be there and are not, ascending.
    [[nodiscard]] std::vector<std::uint64_t> missing() const;

    RepairReport report;

  private:
    Result<void> open_segment(std::uint64_t id);
    Result<void> find_store_id();
    [[nodiscard]] std::optional<StoreId> id_of_catalog() const;
    void note_missing(std::uint64_t previous_id, std::uint64_t next_id);
    Result<void> find_manifest();
    Result<bool> find_manifest_in(std::size_t number);
    void leave_out_given_up();
    void note_time(const Segment& segment, std::int64_t time_ms);
    [[nodiscard]] bool is_expected(std::uint64_t id) const;
    Result<void> take_moved(const Segment& segment, const Frame& frame);
    Result<void> copy_segment(std::size_t number);
    Result<void> lose(const Segment& segment, FrameReader& reader, std::uint64_t end, bool newest);
    void add_loss(RepairLoss loss);
    Result<void> take(const Segment& segment, const Frame& frame);
    Result<void> append_pending();

    Env& env_;
    Path damaged_;
    Path log_;
    const Progress& progress_;
    std::vector<DamagedSegment> segments_;
    std::uint64_t bytes_total_ = 0;
    std::uint64_t bytes_before_ = 0;  // of the segments that have been copied
    std::uint64_t manifest_in_ = 0;  // the segment with the newest valid manifest; 0: there is none
    Manifest manifest_;
    std::int64_t time_ms_ = 0;  // the highest that the damaged store had seen
    std::vector<std::uint64_t> missing_;
    CopyTarget* target_ = nullptr;
    std::vector<CopiedRecord> pending_;
    std::size_t pending_bytes_ = 0;
    Batch pending_mode_ = Batch::each;
    std::uint64_t last_sequence_ = 0;
    std::uint64_t next_sequence_ = 1;
    std::size_t open_losses_ = 0;  // at the end of report.losses, whose later bound is not known
};

// The same as the public one, in any environment.
[[nodiscard]] Result<RepairReport> repair(Env& env, const Path& damaged, const Path& target,
                                          const Progress& progress = {});

}  // namespace dedup
