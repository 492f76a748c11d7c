// The reservations of another system, as one JSON text. docs/dedupctl.md has the mapping.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

#include "dedup/cache.hpp"
#include "failure.hpp"
#include "import_source.hpp"
#include "line_reader.hpp"
#include "record_json.hpp"
#include "text.hpp"
#include "timestamp.hpp"

namespace dedupctl {
namespace {

constexpr unsigned kVersion = 1;

struct Status {
    std::string_view name;
    dedup::State state;
};
constexpr std::array kStatuses{
    Status{"reserved", dedup::State::in_flight},    Status{"pending", dedup::State::in_flight},
    Status{"in_progress", dedup::State::in_flight}, Status{"in_flight", dedup::State::in_flight},
    Status{"completed", dedup::State::completed},   Status{"done", dedup::State::completed},
    Status{"released", dedup::State::released},     Status{"cancelled", dedup::State::released},
    Status{"failed", dedup::State::released}};

// A text as it is, anything else as it is written in JSON.
std::string bytes_of(const Json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
}

// A time as text, or as seconds since 1970, with or without a fraction.
std::optional<std::int64_t> time_of(const Json& value) {
    if (value.is_string()) {
        return parse_timestamp(value.get_ref<const std::string&>());
    }
    constexpr double kSecondsMax = 253'402'300'799;  // the end of the year 9999
    if (!value.is_number() || !(value.get<double>() >= 0) || value.get<double>() > kSecondsMax) {
        return std::nullopt;
    }
    return std::llround(value.get<double>() * 1000);
}

using Mapped = std::expected<dedup::Record, std::string>;

// Takes the fields of one reservation one after the other; what is left goes into the metadata.
class Mapping {
  public:
    Mapping(Json rest, const ForeignDefaults& defaults)
        : rest_(std::move(rest)), defaults_(defaults) {}

    Mapped map(const std::string& key) {
        record_.ns = defaults_.ns;
        record_.key = key;
        read_status();
        read_label("owner", record_.owner);
        read_label("fingerprint", record_.fingerprint);
        read_times();
        record_.metadata = rest_.empty() ? "" : rest_.dump();
        if (error_.empty()) {
            if (const auto checked = dedup::check_record(record_); !checked) {
                error_ = checked.error().message;
            }
        }
        return error_.empty() ? Mapped(std::move(record_)) : std::unexpected(std::move(error_));
    }

  private:
    // Null counts as not there.
    Json take(const char* name) {
        Json value = rest_.contains(name) ? rest_[name] : Json();
        rest_.erase(name);
        return value;
    }

    void fail(std::string why) {
        if (error_.empty()) {
            error_ = std::move(why);
        }
    }

    void read_status() {
        const Json status = take("status");
        const Json outcome = take("outcome");
        const auto* const known =
            std::ranges::find_if(kStatuses, [&](const Status& s) { return status == s.name; });
        if (known == kStatuses.end()) {
            fail(status.is_null() ? "there is no status"
                                  : "status " + escape(status.dump()) + " is unknown");
            return;
        }
        if (known->state == dedup::State::released) {
            record_.kind = dedup::Kind::tombstone;
        } else if (known->state == dedup::State::completed) {
            record_.receipt = outcome.is_null() ? "" : bytes_of(outcome);
        }
        if (known->state != dedup::State::completed && !outcome.is_null()) {
            fail(fmt::format("there is an outcome, but the status is {}", known->name));
        }
    }

    void read_label(const char* name, std::string& label) {
        const Json value = take(name);
        label = value.is_null() ? "" : bytes_of(value);
    }

    void read_times() {
        const auto created_at_ms = time_of(take("created_at"));
        if (!created_at_ms) {
            fail("created_at is missing, or no time");
            return;
        }
        record_.timestamp_ms = *created_at_ms;
        const Json expires_at = take("expires_at");
        if (expires_at.is_null()) {
            record_.expires_at_ms =
                defaults_.ttl == dedup::kForever ? 0 : *created_at_ms + defaults_.ttl.count();
        } else if (const auto expires_at_ms = time_of(expires_at); expires_at_ms) {
            record_.expires_at_ms = std::max<std::int64_t>(1, *expires_at_ms);
        } else {
            fail("expires_at is no time");
        }
    }

    Json rest_;
    const ForeignDefaults& defaults_;
    dedup::Record record_;
    std::string error_;
};

class ReservationsSource : public ImportSource {
  public:
    ReservationsSource(ImportInput input, ForeignDefaults defaults)
        : input_(std::move(input)), defaults_(std::move(defaults)) {}

    bool next(ImportItem& item) override {
        if (!read_) {
            read_ = true;
            read_all();
            at_ = records_.begin();
        }
        if (at_ == records_.end()) {
            return false;
        }
        item.place = "record '" + escape(at_.key()) + "'";
        item.record = at_.value().is_object()
                          ? Mapping(std::move(at_.value()), defaults_).map(at_.key())
                          : std::unexpected(std::string("it is not a JSON object"));
        ++at_;
        return true;
    }

    [[nodiscard]] std::uint64_t bytes_read() const override { return bytes_read_; }

  private:
    [[noreturn]] void refuse(const char* code, const std::string& why) const {
        throw Failure{.code = code,
                      .message = input_.name + ": " + why + "; nothing has been imported"};
    }

    void read_all() {
        LineReader reader(input_.fd);
        while (!reader.ended()) {
            if (!input_.wait()) {
                return;
            }
            if (const int error = reader.fill(); error != 0) {
                throw system_failure("cannot read " + input_.name, error);
            }
            if (reader.bytes_buffered() > kTextBytesMax) {
                refuse("invalid_argument", "it has more than 1 GiB");
            }
        }
        bytes_read_ = reader.bytes_read();
        std::string text;
        std::vector<std::string_view> lines;
        for (reader.take_lines(SIZE_MAX, lines); !lines.empty();
             reader.take_lines(SIZE_MAX, lines)) {
            for (const std::string_view line : lines) {
                text += line;
            }
        }
        auto parsed = parse_json(text);
        if (!parsed) {
            refuse("invalid_argument", parsed.error());
        }
        take_records(std::move(parsed->value));
    }

    // No reservation is a number, so a number `version` tells the two forms apart.
    void take_records(Json document) {
        if (!document.is_object()) {
            refuse("invalid_argument", "it is not a JSON object");
        }
        if (!document.contains("version") || document["version"].is_object()) {
            records_ = std::move(document);
            return;
        }
        const Json version = document["version"];
        if (version != kVersion) {
            refuse("unsupported_version",
                   fmt::format("it has version {}, and this dedupctl knows {}",
                               escape(version.dump()), kVersion));
        }
        if (!document.contains("records") || !document["records"].is_object()) {
            refuse("invalid_argument", "it has a version and no object `records`");
        }
        records_ = std::move(document["records"]);
    }

    static constexpr std::size_t kTextBytesMax = 1024 * 1024 * 1024;

    ImportInput input_;
    ForeignDefaults defaults_;
    bool read_ = false;
    std::uint64_t bytes_read_ = 0;
    Json records_ = Json::object();
    Json::iterator at_;
};

}  // namespace

std::unique_ptr<ImportSource> reservations_source(ImportInput input, ForeignDefaults defaults) {
    return std::make_unique<ReservationsSource>(std::move(input), std::move(defaults));
}

}  // namespace dedupctl
