// A disk in memory that can lose power.
//
// Of every file and every directory it knows what has been flushed and what has not. What it
// assumes of a real disk and the file system on it:
//
//   - A sector of 512 bytes is written whole or not at all. Sectors that were not flushed reach
//     the disk in any order, each with what the file had in it at some moment since the flush.
//   - The length of a file changes in the order of the calls, but may be ahead of the data or
//     behind it. What lies between is zeros, or, on a disk made for it, old blocks of other files.
//   - Each name that was made, changed or removed since its directory was flushed may or may not
//     have been, whatever happened to the others, and whether or not the file itself was flushed.
//   - A flush that failed leaves pages clean: some have reached the disk, and later flushes do not
//     write the others again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "dedup/error.hpp"

namespace dedup::test {

using Bytes = std::shared_ptr<const std::string>;
using Random = std::mt19937_64;

inline constexpr std::uint64_t kSectorBytes = 512;

// A number below `end`.
inline std::uint64_t below(Random& random, std::uint64_t end) {
    return random() % end;
}

// A call that changed a file: a write, or, without bytes, a change of its length.
struct Change {
    std::uint64_t order = 0;  // among all changes of the disk
    std::uint64_t offset = 0;
    Bytes bytes;
    std::uint64_t size = 0;  // of the file afterwards
};

// A call that changed a directory.
struct EntryChange {
    std::uint64_t order = 0;
    std::string name = {};
    int node = -1;                  // -1: the name was removed
    std::string renamed_from = {};  // in the same step, this name was removed,
    int exchanged_for = -1;         // or given to this node
};

// A file or a directory: what is on the disk for certain, and what may be.
struct Node {
    bool directory = false;
    Bytes durable = std::make_shared<const std::string>();
    Bytes cached = {};  // what reads see in its place after a flush that failed; null: the same
    std::vector<Change> pending = {};
    std::map<std::string, int> entries = {};
    std::vector<EntryChange> pending_entries = {};
};

// The disk, and what the system's memory has more. Node 0 is the root.
struct DiskState {
    std::vector<Node> nodes = {Node{.directory = true}};
    std::uint64_t next_order = 1;
    bool shows_old_blocks = false;
    bool names_noted = false;  // in the lock's file; a power loss may spare it, so here it does

    [[nodiscard]] bool all_flushed() const;
    // The node of a path below the root, such as "store/log"; -1 if there is none.
    [[nodiscard]] int find(const std::filesystem::path& path) const;
};

// What survives of all that was not flushed.
enum class Survival : std::uint8_t {
    nothing,
    everything,
    in_order,    // all up to some call, and a part of that one
    any_order,   // each sector, length and name for itself
    hole,        // everything but one sector of each file
    one_sector,  // nothing but one sector of each file
};
inline constexpr int kSurvivals = 6;
[[nodiscard]] std::string_view name(Survival survival);

// The disk after a power loss: nothing is pending on it.
[[nodiscard]] DiskState lose_power(const DiskState& disk, Survival survival, Random& random);

// What a disk holds, for telling states apart. Of a disk without anything pending.
[[nodiscard]] std::size_t fingerprint(const DiskState& disk);

// The disk with the system's memory in front of it: what calls see and do. Errors are errno.
class FaultDisk {
  public:
    explicit FaultDisk(DiskState state = {});

    [[nodiscard]] const DiskState& state() const { return state_; }
    // Whether reserve() is possible.
    bool can_reserve = true;

    // The node of a path below the root; -1 if there is none.
    [[nodiscard]] int find(const std::filesystem::path& path) const;
    [[nodiscard]] bool is_directory(int node) const { return at(node).directory; }
    [[nodiscard]] std::vector<std::string> list(int directory) const;
    [[nodiscard]] const std::string& contents(int file) const;
    [[nodiscard]] bool names_noted() const { return state_.names_noted; }
    void note_names() { state_.names_noted = true; }
    // For damage: what reads see changes, and nothing else.
    [[nodiscard]] std::string& contents(int file);

    int create(const std::filesystem::path& path, bool directory);
    [[nodiscard]] int rename(const std::filesystem::path& from, const std::filesystem::path& to);
    [[nodiscard]] int remove(const std::filesystem::path& path);
    // `to` becomes another name of the file `from`.
    void link(const std::filesystem::path& from, const std::filesystem::path& to);
    // Two names in one directory.
    void exchange(const std::filesystem::path& from, const std::filesystem::path& to);
    void write(int file, std::uint64_t offset, std::string_view bytes);
    void resize(int file, std::uint64_t bytes);
    // Makes durable what was changed before the change number `before`.
    void sync(int node, std::uint64_t before = UINT64_MAX);
    // Makes the newest write to a file durable, and no other.
    void sync_last(int file);
    // A flush that fails: some of what was pending is on the disk, and the rest never will be.
    void fail_sync(int node, Random& random);
    // The same for all files.
    void fail_all_syncs(Random& random);
    // The system forgets pages that are clean: reads see what is on the disk.
    void drop_clean_pages();

  private:
    [[nodiscard]] const Node& at(int node) const {
        return state_.nodes[static_cast<std::size_t>(node)];
    }
    [[nodiscard]] Node& at(int node) { return state_.nodes[static_cast<std::size_t>(node)]; }
    void change_entry(int directory, EntryChange change);

    DiskState state_;
    std::vector<std::string> contents_;                // of files, by node
    std::vector<std::map<std::string, int>> entries_;  // of directories, by node
};

}  // namespace dedup::test
