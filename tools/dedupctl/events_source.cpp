// A table `processed_events` as CSV: id, event_id, processed_at, metadata. docs/dedupctl.md has
// the mapping.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "common/failure.hpp"
#include "common/text.hpp"
#include "csv_reader.hpp"
#include "dedup/cache.hpp"
#include "import_source.hpp"
#include "timestamp.hpp"

namespace dedupctl {
namespace {

constexpr std::size_t kPieceBytes = 1024 * 1024;
constexpr std::array<std::string_view, 4> kColumns{"event_id", "processed_at", "id", "metadata"};
constexpr std::size_t kColumnsNeeded = 2;

class EventsSource : public ImportSource {
  public:
    EventsSource(ImportInput input, ForeignDefaults defaults)
        : input_(std::move(input)),
          defaults_(std::move(defaults)),
          reader_([this](std::string& piece) { return read(piece); }, kImportTextBytesMax) {}

    bool next(ImportItem& item) override {
        if (!titles_read_) {
            titles_read_ = true;
            read_titles();
        }
        if (!reader_.next(fields_) || stopped_) {
            return false;
        }
        item.place = fmt::format("line {}", reader_.line());
        item.record = map();
        return true;
    }

    [[nodiscard]] std::uint64_t bytes_read() const override { return bytes_read_; }

  private:
    bool read(std::string& piece) {
        stopped_ = stopped_ || !input_.wait();
        if (stopped_) {
            return false;
        }
        piece.resize(kPieceBytes);
        ssize_t got = 0;
        do {
            got = ::read(input_.fd, piece.data(), piece.size());
        } while (got < 0 && errno == EINTR);
        if (got < 0) {
            throw system_failure("cannot read " + input_.name, errno);
        }
        piece.resize(static_cast<std::size_t>(got));
        bytes_read_ += piece.size();
        return got != 0;
    }

    [[noreturn]] void refuse(const std::string& why) const {
        throw Failure{.code = "invalid_argument",
                      .message = fmt::format("{}: {}; the first line names the columns: "
                                             "id,event_id,processed_at,metadata in any order, of "
                                             "which event_id and processed_at are needed. "
                                             "Nothing has been imported",
                                             input_.name, why)};
    }

    void read_titles() {
        if (!reader_.next(fields_)) {
            if (stopped_) {
                return;
            }
            refuse("it is empty");
        }
        if (!reader_.error().empty()) {
            refuse("its first line cannot be read: " + reader_.error());
        }
        if (fields_.front().starts_with("\xef\xbb\xbf")) {  // a byte order mark
            fields_.front().erase(0, 3);
        }
        columns_ = fields_.size();
        for (std::size_t i = 0; i < columns_; ++i) {
            const auto* const known = std::ranges::find(kColumns, fields_[i]);
            if (known == kColumns.end()) {
                refuse("column '" + escape(fields_[i]) + "' is unknown");
            }
            auto& place = places_[static_cast<std::size_t>(known - kColumns.begin())];
            if (place) {
                refuse("column '" + fields_[i] + "' is there twice");
            }
            place = i;
        }
        for (std::size_t i = 0; i < kColumnsNeeded; ++i) {
            if (!places_[i]) {
                refuse(fmt::format("there is no column '{}'", kColumns[i]));
            }
        }
    }

    [[nodiscard]] std::string field(std::size_t column) const {
        return places_[column] ? fields_[*places_[column]] : "";
    }

    [[nodiscard]] std::expected<dedup::Record, std::string> map() const {
        if (!reader_.error().empty()) {
            return std::unexpected(reader_.error());
        }
        if (fields_.size() != columns_) {
            return std::unexpected(fmt::format("the row has {}, and the first line {}",
                                               count_of(fields_.size(), "field"), columns_));
        }
        const auto processed_at_ms = parse_timestamp(field(1));
        if (!processed_at_ms) {
            return std::unexpected("processed_at '" + preview(field(1), 64) + "' is no time");
        }
        dedup::Record record;
        record.ns = defaults_.ns;
        record.key = field(0);
        record.timestamp_ms = *processed_at_ms;
        record.expires_at_ms = defaults_.expires_at_ms(*processed_at_ms);
        record.receipt = "";
        record.event_id = field(2);
        record.metadata = field(3);
        if (const auto checked = dedup::check_record(record); !checked) {
            return std::unexpected(checked.error().message);
        }
        return record;
    }

    ImportInput input_;
    ForeignDefaults defaults_;
    CsvReader reader_;
    std::vector<std::string> fields_;
    std::array<std::optional<std::size_t>, kColumns.size()> places_;
    std::size_t columns_ = 0;
    bool titles_read_ = false;
    bool stopped_ = false;
    std::uint64_t bytes_read_ = 0;
};

}  // namespace

std::unique_ptr<ImportSource> events_source(ImportInput input, ForeignDefaults defaults) {
    return std::make_unique<EventsSource>(std::move(input), std::move(defaults));
}

}  // namespace dedupctl
