// The reservations of another system, as one JSON text. docs/dedupctl.md has the mapping.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_set>
#include <vector>

#include "common/failure.hpp"
#include "common/text.hpp"
#include "import_source.hpp"
#include "line_reader.hpp"
#include "record_json.hpp"
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
            record_.expires_at_ms = defaults_.expires_at_ms(*created_at_ms);
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

std::size_t names_in(const Json& value) {
    std::size_t names = value.is_object() ? value.size() : 0;
    for (const Json& part : value) {
        names += part.is_structured() ? names_in(part) : 0;
    }
    return names;
}

struct Entry {
    std::string key;
    Json value;
    std::size_t names_read = 0;  // within the value: more than there are if one comes twice
};

// Takes the objects out of a text while it is parsed, in their order. As members of one object
// they would take quadratic time, since Json looks through all names whenever it adds one; and of
// two with one name the first would be lost.
class Objects {
  public:
    bool keep(int depth, Json::parse_event_t event, Json& part) {
        using Event = Json::parse_event_t;
        if (event == Event::key) {
            ++names_read_;
            if (depth <= 2) {
                path_.at(static_cast<std::size_t>(depth)).name = part.get<std::string>();
            }
            return true;
        }
        if (depth > 2) {
            return true;
        }
        Level& level = path_.at(static_cast<std::size_t>(depth));
        if (event == Event::object_start || event == Event::array_start) {
            level.is_object = event == Event::object_start;
            level.names_before = names_read_;
        }
        if (event != Event::object_end || depth == 0 || !path_[0].is_object) {
            return true;
        }
        const bool top = depth == 1;
        if (!top && (path_[1].name != "records" || !path_[1].is_object)) {
            return true;
        }
        (top ? members_ : in_records_)
            .push_back({level.name, std::move(part), names_read_ - level.names_before});
        return false;
    }

    // The members of the text that are objects, without those in `records`.
    [[nodiscard]] std::vector<Entry> take_members() { return std::move(members_); }
    // The members of the member `records` that are objects.
    [[nodiscard]] std::vector<Entry> take_in_records() { return std::move(in_records_); }

  private:
    struct Level {
        bool is_object = false;
        std::string name;  // of what is read at this depth
        std::size_t names_before = 0;
    };

    std::array<Level, 3> path_;
    std::size_t names_read_ = 0;
    std::vector<Entry> members_;
    std::vector<Entry> in_records_;
};

class ReservationsSource : public ImportSource {
  public:
    ReservationsSource(ImportInput input, ForeignDefaults defaults)
        : input_(std::move(input)), defaults_(std::move(defaults)) {}

    bool next(ImportItem& item) override {
        if (!read_) {
            read_ = true;
            read_all();
        }
        if (at_ == records_.size()) {
            return false;
        }
        Entry& entry = records_[at_++];
        item.place = "record '" + escape(entry.key) + "'";
        item.record = map(entry);
        return true;
    }

    [[nodiscard]] std::uint64_t bytes_read() const override { return bytes_read_; }

  private:
    [[noreturn]] void refuse(const char* code, const std::string& why) const {
        throw Failure{.code = code,
                      .message = input_.name + ": " + why + "; nothing has been imported"};
    }

    Mapped map(Entry& entry) {
        if (!entry.value.is_object()) {
            return std::unexpected("it is not a JSON object");
        }
        if (!keys_.insert(entry.key).second) {
            return std::unexpected("the file has another record with that key before it");
        }
        if (names_in(entry.value) != entry.names_read) {
            return std::unexpected("a member is there twice");
        }
        return Mapping(std::move(entry.value), defaults_).map(entry.key);
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
        Objects objects;
        auto rest = parse_json(text, [&](int depth, Json::parse_event_t event, Json& part) {
            return objects.keep(depth, event, part);
        });
        if (!rest) {
            refuse("invalid_argument", rest.error());
        }
        if (!rest->is_object()) {
            refuse("invalid_argument", "it is not a JSON object");
        }
        // No reservation is a number, so a number `version` tells the two forms apart.
        if (rest->contains("version")) {
            take_versioned(*rest, objects);
        } else {
            take_bare(*rest, objects);
        }
    }

    void take_versioned(const Json& rest, Objects& objects) {
        const Json& version = rest["version"];
        if (version != kVersion) {
            refuse("unsupported_version",
                   fmt::format("it has version {}, and this dedupctl knows {}",
                               escape(version.dump()), kVersion));
        }
        const auto members = objects.take_members();
        const auto is_records = [](const Entry& member) { return member.key == "records"; };
        const auto records = std::ranges::find_if(members, is_records);
        if (records == members.end()) {
            refuse("invalid_argument", "it has a version and no object `records`");
        }
        if (std::ranges::count_if(members, is_records) > 1) {
            refuse("invalid_argument", "it has two objects `records`");
        }
        records_ = objects.take_in_records();
        add_others(records->value);
    }

    void take_bare(const Json& rest, Objects& objects) {
        records_ = objects.take_members();
        std::vector<Entry> parts = objects.take_in_records();
        if (parts.size() > kPartsMax) {
            refuse("invalid_argument", "it has an object `records` and no version");
        }
        for (Entry& part : parts) {  // `records` is a key like any other here
            const auto record = std::ranges::find(records_, "records", &Entry::key);
            record->value[part.key] = std::move(part.value);
        }
        add_others(rest);
    }

    // What is no object where a record should be.
    void add_others(const Json& object) {
        for (const auto& [key, value] : object.items()) {
            records_.push_back({key, value});
        }
    }

    static constexpr std::size_t kTextBytesMax = 1024 * 1024 * 1024;
    static constexpr std::size_t kPartsMax = 1000;  // objects in one reservation

    ImportInput input_;
    ForeignDefaults defaults_;
    bool read_ = false;
    std::uint64_t bytes_read_ = 0;
    std::vector<Entry> records_;
    std::size_t at_ = 0;
    std::unordered_set<std::string> keys_;  // of the records so far
};

}  // namespace

std::unique_ptr<ImportSource> reservations_source(ImportInput input, ForeignDefaults defaults) {
    return std::make_unique<ReservationsSource>(std::move(input), std::move(defaults));
}

}  // namespace dedupctl
