// The lines of an export. The first one says its version and the last one how many records are
// between them, so that an export that was cut short does not pass for a whole one. Lines that
// somebody picked out, with neither, are fine; and so are several exports one after the other.

#include <fmt/format.h>

#include <vector>

#include "common/failure.hpp"
#include "common/text.hpp"
#include "export_format.hpp"
#include "import_source.hpp"
#include "line_reader.hpp"
#include "record_json.hpp"

namespace dedupctl {
namespace {

class ExportSource : public ImportSource {
  public:
    explicit ExportSource(ImportInput input) : input_(std::move(input)), reader_(input_.fd) {}

    bool next(ImportItem& item) override {
        while (next_line()) {
            ++number_;
            item.place = fmt::format("line {}", number_);
            if (line_.empty()) {
                continue;
            }
            auto parsed = parse_json(line_);
            if (!parsed) {
                item.record = std::unexpected(parsed.error());
                return true;
            }
            if (parsed->value.is_object() && parsed->value.contains(kExportMember)) {
                if (!read_frame(parsed->value, item)) {
                    return true;
                }
                continue;
            }
            ++records_;
            item.record = record_from_json(parsed->value, parsed->members);
            item.part = part_;
            item.newer = open_ && item.record && item.record->sequence > last_sequence_;
            return true;
        }
        return false;
    }

    [[nodiscard]] std::string complaint() const override {
        if (stopped_) {
            return "";
        }
        if (number_ == 0) {
            return input_.name + " is empty, and an export never is: nothing was imported";
        }
        return open_ ? input_.name +
                           " ends before its last line, which an export always has: it was cut "
                           "short, and records are missing"
                     : "";
    }

    [[nodiscard]] std::uint64_t bytes_read() const override { return reader_.bytes_read(); }

  private:
    // False if there are no more lines.
    bool next_line() {
        while (at_ == lines_.size()) {
            reader_.take_lines(kLinesAtOnce, lines_);
            at_ = 0;
            if (!lines_.empty()) {
                break;
            }
            if (reader_.ended() || stopped_) {
                return false;
            }
            if (reader_.bytes_buffered() > kImportTextBytesMax) {
                throw Failure{.code = "invalid_argument",
                              .message = fmt::format("{}: line {} is longer than any record",
                                                     input_.name, number_ + 1)};
            }
            stopped_ = !input_.wait();
            if (const int error = stopped_ ? 0 : reader_.fill(); error != 0) {
                throw system_failure("cannot read " + input_.name, error);
            }
        }
        line_ = lines_[at_++];
        while (line_.ends_with('\n') || line_.ends_with('\r')) {
            line_.remove_suffix(1);
        }
        return true;
    }

    // The first or the last line of an export. False: something is wrong with it, as `item` says.
    bool read_frame(const Json& object, ImportItem& item) {
        const Json version = object.value("version", Json());
        if (object[kExportMember] != kExportName || !version.is_number_unsigned()) {
            item.record = std::unexpected("it is neither a record nor the frame of an export");
            return false;
        }
        if (version != kExportVersion) {
            throw Failure{.code = "unsupported_version",
                          .message = fmt::format(
                              "{}: {}: the export has version {}, and this dedupctl knows {}; use "
                              "a newer one. What stands before it has been imported",
                              input_.name, item.place, version.dump(), kExportVersion)};
        }
        if (!object.contains("records")) {
            const bool cut = open_;
            const Json last_sequence = object.value("last_sequence", Json());
            if (!last_sequence.is_number_unsigned()) {
                item.record = std::unexpected("last_sequence is missing, or no number");
                return false;
            }
            last_sequence_ = last_sequence.get<std::uint64_t>();
            records_ = 0;
            open_ = true;
            ++part_;
            return !cut || lacks(item,
                                 "another export begins before the last line of the one before: "
                                 "records are missing");
        }
        const bool whole = object["records"] == records_ || !open_;
        open_ = false;
        return whole ||
               lacks(item, fmt::format("the export has {} records, and {} came before its end: "
                                       "lines are missing, or were added",
                                       object["records"].dump(), records_));
    }

    // Gives false.
    static bool lacks(ImportItem& item, std::string what) {
        item.lacks_others = true;
        item.record = std::unexpected(std::move(what));
        return false;
    }

    static constexpr std::size_t kLinesAtOnce = 1024;

    ImportInput input_;
    LineReader reader_;
    std::vector<std::string_view> lines_;
    std::size_t at_ = 0;
    std::string_view line_;
    std::uint64_t number_ = 0;
    std::uint64_t records_ = 0;  // since the first line of an export
    std::uint64_t part_ = 0;
    std::uint64_t last_sequence_ = 0;  // of the store when the export began
    bool open_ = false;                // between the first and the last line of an export
    bool stopped_ = false;
};

}  // namespace

std::unique_ptr<ImportSource> export_source(ImportInput input) {
    return std::make_unique<ExportSource>(std::move(input));
}

}  // namespace dedupctl
