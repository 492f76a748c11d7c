// Where an import comes from: one of several formats, a record at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>

#include "common/time_text.hpp"
#include "dedup/cache.hpp"

namespace dedupctl {

// A text that is longer than this is no record: a receipt of 16 MiB of control characters is less.
inline constexpr std::size_t kImportTextBytesMax = 128 * 1024 * 1024;

struct ImportItem {
    std::string place = {};  // for people: "line 17"
    // Counts the exports of one file. `newer`: the key changed while its export ran, so that this
    // record may follow an older one of the same key in it, which it replaces.
    std::uint64_t part = 0;
    bool newer = false;
    // Nothing is wrong with this one, but others are missing: as `record` says.
    bool lacks_others = false;
    // What is to be imported, or what is wrong with it.
    std::expected<dedup::Record, std::string> record = {};
};

class ImportSource {
  public:
    ImportSource() = default;
    ImportSource(const ImportSource&) = delete;
    ImportSource& operator=(const ImportSource&) = delete;
    virtual ~ImportSource() = default;

    // False at the end. Throws a Failure if the source cannot be read, or nothing of it can be
    // used.
    [[nodiscard]] virtual bool next(ImportItem& item) = 0;

    // What is wrong with the source as a whole, once next() has given false; empty if nothing is.
    [[nodiscard]] virtual std::string complaint() const { return ""; }

    [[nodiscard]] virtual std::uint64_t bytes_read() const = 0;
};

struct ImportInput {
    std::string name;  // of the file, for messages
    int fd = -1;
    // Waits until there is something to read; false if a signal says to stop. A source that gets
    // false behaves as if it had ended where it is, and has no complaint.
    std::function<bool()> wait;
};

// What a foreign record becomes where it does not say it itself.
struct ForeignDefaults {
    std::string ns;
    milliseconds ttl = {};  // from the record's own time; dedup::kForever

    // Of a record of that time; 0: never.
    [[nodiscard]] std::int64_t expires_at_ms(std::int64_t time_ms) const {
        return ttl == dedup::kForever ? 0 : std::max<std::int64_t>(1, time_ms + ttl.count());
    }
};

// The lines that `dedupctl export` writes.
[[nodiscard]] std::unique_ptr<ImportSource> export_source(ImportInput input);

// One JSON text: {"version": 1, "records": {KEY: {...}}}, or the older bare {KEY: {...}}. Is read
// as a whole before the first record is given, since its version may stand behind them.
[[nodiscard]] std::unique_ptr<ImportSource> reservations_source(ImportInput input,
                                                                ForeignDefaults defaults);

// A table `processed_events` as CSV (RFC 4180) with a header line.
[[nodiscard]] std::unique_ptr<ImportSource> events_source(ImportInput input,
                                                          ForeignDefaults defaults);

}  // namespace dedupctl
