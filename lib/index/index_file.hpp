// The index file of a sealed segment, beside it in the log: which streams have a record in it and
// where, the filter of these streams, and for the last segment of a run the run's joint filter.
// Written once, under another name until all of it is durable, and never changed. All of it can be
// made again from the segment. docs/format.md describes it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "env/env.hpp"
#include "index/sealed_index.hpp"
#include "index/segment_row.hpp"
#include "log/segment.hpp"

namespace dedup {

inline constexpr std::string_view kIndexMagic = "dedupidx";
inline constexpr std::uint32_t kIndexVersion = 1;

// "0000000000000001.idx".
[[nodiscard]] std::string index_file_name(std::uint64_t segment_id);
// The segment of an index file; nullopt if the name is not that of one.
[[nodiscard]] std::optional<std::uint64_t> indexed_segment(std::string_view file_name);

// What an index file says before its tables.
struct IndexHeader {
    StoreId store_id{};
    HashSecret secret{};  // that the ids of its streams were made with
    SegmentRow row;       // of the segment; without what changes after it was sealed
    // The joint filter: its size, 0 if there is none, and whose streams it knows: a bit for each
    // segment of the run.
    std::uint64_t joint_bytes = 0;
    std::uint64_t joint_members = 0;
};

// Writes the index of a segment, in place of one that may be there. `entries` are sorted by id, and
// header.row.entries of them. Durable when it returns.
// Errors: io, out_of_space.
[[nodiscard]] Result<void> write_index_file(Env& env, const Path& log, const IndexHeader& header,
                                            std::span<const IndexEntry> entries,
                                            std::string_view joint);

// One of the tables of an index file, all of its blocks checked.
struct TableState {
    std::string_view name;     // "entries", "filter" or "joint filter"
    std::uint64_t offset = 0;  // in the file
    std::uint64_t bytes = 0;   // without padding and checksums
    std::uint64_t blocks = 0;
    std::vector<std::uint64_t> damaged;  // the numbers of these blocks
};

// An index file open for reading. Any number of threads may use it at once.
class IndexFile {
  public:
    // Opens the index of segment `id` of a store, which must be `segment_bytes` long, and checks
    // all but its tables, whose blocks are checked when they are first looked at.
    // Errors: corruption (damaged, or of another segment, store or secret; with os_error ENOENT if
    // it is not there), unsupported_version, io.
    [[nodiscard]] static Result<std::shared_ptr<const IndexFile>> open(Env& env, const Path& log,
                                                                       const StoreId& store_id,
                                                                       const HashSecret& secret,
                                                                       std::uint64_t id,
                                                                       std::uint64_t segment_bytes);

    // The same for a file of any name and any store: it has to fit itself only.
    [[nodiscard]] static Result<std::shared_ptr<const IndexFile>> open_file(Env& env,
                                                                            const Path& path);

    [[nodiscard]] const IndexHeader& header() const { return header_; }
    // The size of the file.
    [[nodiscard]] std::uint64_t bytes() const { return bytes_.size(); }
    // The tables lie in the file's memory, and live as long as this.
    [[nodiscard]] SealedIndex index() const;
    // Copies a filter to `to`, which has room for it.
    // Errors: corruption.
    [[nodiscard]] Result<void> copy_filter(char* to) const;
    [[nodiscard]] Result<void> copy_joint(char* to) const;
    // Whether both are intact.
    [[nodiscard]] bool filters_intact() const;
    // Reads all of the file.
    [[nodiscard]] std::vector<TableState> check_tables() const;

  private:
    IndexFile(Path path, IndexHeader header) : path_(std::move(path)), header_(header) {}

    [[nodiscard]] CheckedBlob table(std::size_t section) const;
    [[nodiscard]] Result<void> copy(std::size_t section, std::string_view what, char* to) const;

    Path path_;
    IndexHeader header_;
    std::unique_ptr<File> file_;  // which is mapped
    std::string copy_;            // or else all of it
    std::string_view bytes_;
    std::shared_ptr<CheckedBlocks> checked_;
};

}  // namespace dedup
