// What lies in one file of a store, piece by piece: for people who look at damage, and for tests.
//
// A store need not be there: a file that was copied out of one will do. Nothing here decides what
// counts; a frame that is shown may have been swept, superseded or given up long ago.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "dedup/clock.hpp"
#include "dedup/error.hpp"
#include "dedup/record.hpp"
#include "dedup/sweep.hpp"

namespace dedup {

// The header of a segment, which is the first thing in it. docs/format.md says what its fields
// mean.
struct SegmentDump {
    std::uint32_t version = 0;
    std::string store_id;  // 32 hex digits
    std::uint64_t segment = 0;
    std::uint64_t previous_segment = 0;  // 0: this is the first
    std::uint64_t previous_bytes = 0;
    std::uint64_t next_sequence = 0;
    std::int64_t time_high_ms = 0;
    std::uint64_t file_bytes = 0;
};

// Where an intact frame lies, and what its header says.
struct FramePlace {
    std::uint64_t offset = 0;  // in the file
    std::uint64_t bytes = 0;   // with its header
    std::string_view kind;     // "records", "moved", "mark" or "manifest"; a literal
    std::uint64_t sequence = 0;
    std::uint32_t records = 0;
    std::uint64_t flushed_bytes = 0;  // of the segment, when the frame was written
};

// One record of a frame of kind "records" or "moved". A frame of several gives one for each.
struct RecordDump {
    FramePlace frame;
    std::uint32_t number = 0;  // in the frame, from 0
    std::uint64_t encoded_bytes = 0;
    std::uint64_t previous_segment = 0;  // the record before it in its stream; 0: there is none
    std::uint64_t previous_offset = 0;
    State previous_state = State::in_flight;
    bool begins_anew = false;  // the record before it had been swept away
    Record record;
};

// A frame of kind "mark": the highest sequence that may have been assigned, and the time seen.
struct MarkDump {
    FramePlace frame;
    std::int64_t time_ms = 0;
};

// A frame of kind "manifest": what has been swept, and which segments there are.
struct ManifestDump {
    struct Length {
        std::uint64_t segment = 0;
        std::uint64_t bytes = 0;
    };
    FramePlace frame;
    std::uint64_t steps = 0;  // of all sweeps so far
    std::int64_t time_high_ms = 0;
    // Streams are gone whose head has at most the sequence `swept_sequence`, and expired before
    // this time or is completed with a lower sequence than `evicted_before`.
    std::int64_t expired_before_ms = 0;
    std::uint64_t evicted_before = 0;
    std::uint64_t swept_sequence = 0;
    std::uint64_t given_up = 0;    // the newest segment that the step has taken out; 0: none
    std::vector<Length> segments;  // before the one that the frame lies in, oldest first
    ClockHistory clock;
};

// A part of a segment in which no intact frame begins, or a frame whose body is wrong.
struct DamageDump {
    struct Name {
        std::uint64_t sequence = 0;
        std::string ns;
        std::string key;
    };
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
    std::string reason;
    bool at_end = false;         // no intact frame follows: what a crash tears looks the same
    std::vector<Name> may_hold;  // records that could still be made out; none of it is proven
};

// The zeros at the end of a segment, which is written into room that was reserved before.
struct UnusedDump {
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
};

// The header of an index file, and what it says of its segment.
struct IndexDump {
    std::uint32_t version = 0;
    std::string store_id;  // 32 hex digits
    std::uint64_t segment = 0;
    std::uint64_t segment_bytes = 0;
    std::uint64_t entries = 0;
    std::uint64_t next_sequence = 0;
    std::int64_t time_high_ms = 0;
    std::int64_t expires_max_ms = 0;  // INT64_MAX: of a record that never expires
    StateCounts versions;             // records, by the state that each gives its stream
    StateCounts version_bytes;
    std::uint64_t run_segments = 0;  // whose streams the joint filter knows; 0: there is none
    std::uint64_t file_bytes = 0;
};

// A table of an index file. It is checked by block.
struct TableDump {
    std::string_view name;  // "entries", "filter" or "joint filter"; a literal
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
    std::uint64_t blocks = 0;
    std::vector<std::uint64_t> damaged;  // numbers of blocks, from 0
};

// One entry of an index: a stream's newest record in the segment.
struct EntryDump {
    std::uint64_t number = 0;  // from 0
    std::uint64_t stream = 0;  // the hash that the stream is found by
    std::uint64_t sequence = 0;
    std::uint64_t offset = 0;  // of the frame, in the segment
    State state = State::in_flight;
    // When the record expires, rounded down to a step of 4,096 ms; nullopt: never.
    std::optional<std::int64_t> expires_from_ms;
};

using DumpItem = std::variant<SegmentDump, RecordDump, MarkDump, ManifestDump, DamageDump,
                              UnusedDump, IndexDump, TableDump, EntryDump>;

// Gets each item, in the order of the file; false ends the dump.
using DumpVisitor = std::function<bool(const DumpItem& item)>;

// Shows a segment (.log) or the index of one (.idx), whatever the file's name. Damage is an item,
// and what is intact behind it is shown. Memory for one frame and one item is needed. The file is
// read only and may be one that a store is writing to: what was written meanwhile may be shown, or
// look like damage at the end.
// Errors: invalid_argument (the file is neither; says what it looks like), corruption (its header
// is damaged, without which nothing else can be checked), unsupported_version, io. May be called
// from any thread.
[[nodiscard]] DEDUP_API Result<void> dump(const std::filesystem::path& file,
                                          const DumpVisitor& visit);

// Where the log of the store at `store` has segment `id`, or with `index` its index.
[[nodiscard]] DEDUP_API std::filesystem::path segment_path(const std::filesystem::path& store,
                                                           std::uint64_t id, bool index = false);

}  // namespace dedup
