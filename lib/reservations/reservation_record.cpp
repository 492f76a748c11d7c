#include "reservations/reservation_record.hpp"

#include <fmt/format.h>

#include <charconv>
#include <utility>

#include "keys/netstring.hpp"
#include "record/check.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

constexpr std::int64_t kOutcomeVersion = 1;
constexpr std::int64_t kStampsVersion = 1;
constexpr std::int64_t kNotedVersion = 2;  // of stamps beside a note

// Begins instead of a netstring where there is no secondary reference.
constexpr char kNone = '-';

// Reads netstrings one after the other; after the first that is missing or wrong, good() is false
// and all others are empty.
class Reader {
  public:
    explicit Reader(std::string_view bytes) : rest_(bytes) {}

    std::string_view text() {
        const auto part = take_netstring(rest_);
        good_ = good_ && part.has_value();
        return good_ ? *part : std::string_view();
    }

    std::int64_t number() {
        const std::string_view digits = text();
        std::int64_t value = 0;
        const char* const end = digits.data() + digits.size();
        const auto [after, problem] = std::from_chars(digits.data(), end, value);
        good_ = good_ && problem == std::errc{} && after == end;
        return good_ ? value : 0;
    }

    bool skip(char c) {
        const bool there = rest_.starts_with(c);
        rest_.remove_prefix(there ? 1 : 0);
        return there;
    }

    [[nodiscard]] bool good() const { return good_; }
    [[nodiscard]] bool all_read() const { return good_ && rest_.empty(); }

  private:
    std::string_view rest_;
    bool good_ = true;
};

std::unexpected<Error> corrupt(const Record& record, std::string_view part) {
    return std::unexpected(
        Error{.code = Code::corruption,
              .message = fmt::format("the {} of key {} in namespace {} is not a reservation's; use "
                                     "another namespace if this one is used for something else",
                                     part, quoted_bytes(record.key), quoted_bytes(record.ns))});
}

Result<std::int64_t> read_version(Reader& reader, std::int64_t newest, const Record& record,
                                  std::string_view part) {
    const std::int64_t version = reader.number();
    if (!reader.good() || version < 1) {
        return corrupt(record, part);
    }
    if (version > newest) {
        return std::unexpected(Error{
            .code = Code::unsupported_version,
            .message = fmt::format("the {} of key {} in namespace {} has version {}; this library "
                                   "knows up to {}, use a newer one",
                                   part, quoted_bytes(record.key), quoted_bytes(record.ns), version,
                                   newest)});
    }
    return version;
}

void append_reference(std::string& out, const Reference& reference) {
    append_netstring(out, reference.kind);
    append_netstring(out, reference.id);
}

Reference read_reference(Reader& reader) {
    Reference reference;
    reference.kind = reader.text();
    reference.id = reader.text();
    return reference;
}

}  // namespace

std::string encode_stamps(const Stamps& stamps) {
    const bool noted = !stamps.note.empty();
    std::string out;
    append_netstring(out, std::to_string(noted ? kNotedVersion : kStampsVersion));
    append_netstring(out, std::to_string(stamps.first_seen_ms));
    append_netstring(out, std::to_string(stamps.last_seen_ms));
    if (noted) {
        append_netstring(out, stamps.note);
    }
    return out;
}

Result<Stamps> decode_stamps(const Record& record) {
    Reader reader(record.metadata);
    const std::int64_t version = DEDUP_TRY(read_version(reader, kNotedVersion, record, "metadata"));
    Stamps stamps;
    stamps.first_seen_ms = reader.number();
    stamps.last_seen_ms = reader.number();
    if (version == kNotedVersion) {
        stamps.note = reader.text();
    }
    if (!reader.all_read()) {
        return corrupt(record, "metadata");
    }
    return stamps;
}

std::optional<std::string> reservation_note(std::string_view key, std::string_view metadata) {
    if (!parse_scoped_key(key)) {
        return std::nullopt;
    }
    Record record;
    record.key = key;
    record.metadata = metadata;
    auto stamps = decode_stamps(record);
    return stamps ? std::optional(std::move(stamps->note)) : std::nullopt;
}

std::string encode_outcome(const Outcome& outcome) {
    std::string out;
    append_netstring(out, std::to_string(kOutcomeVersion));
    append_netstring(out, outcome.kind);
    append_netstring(out, std::to_string(outcome.time_ms));
    append_reference(out, outcome.primary);
    if (outcome.secondary) {
        append_reference(out, *outcome.secondary);
    } else {
        out += kNone;
    }
    append_netstring(out, outcome.details);
    return out;
}

Result<Outcome> decode_outcome(const Record& record) {
    Reader reader(*record.receipt);
    (void)DEDUP_TRY(read_version(reader, kOutcomeVersion, record, "receipt"));
    Outcome outcome;
    outcome.kind = reader.text();
    outcome.time_ms = reader.number();
    outcome.primary = read_reference(reader);
    if (!reader.skip(kNone)) {
        outcome.secondary = read_reference(reader);
    }
    outcome.details = reader.text();
    if (!reader.all_read()) {
        return corrupt(record, "receipt");
    }
    return outcome;
}

Result<KnownReservation> known_from(const Record& record, std::int64_t now_ms) {
    auto stamps = decode_stamps(record);
    if (!stamps) {
        return std::unexpected(stamps.error());
    }
    KnownReservation known{.state = record.state(),
                           .owner = record.owner,
                           .fingerprint = record.fingerprint,
                           .outcome = {},
                           .first_seen_ms = stamps->first_seen_ms,
                           .last_seen_ms = stamps->last_seen_ms,
                           .since_ms = record.timestamp_ms,
                           .expires_at_ms = record.expires_at_ms,
                           .lease_until_ms = record.lease_until_ms,
                           .attempt = record.attempt,
                           .fence = record.claim_sequence,
                           .event_id = record.event_id,
                           .note = std::move(stamps->note),
                           .unanswered = record.hold ? Unanswered::hold : Unanswered::rerun,
                           .held = held(record, now_ms),
                           .conflicts = record.conflict};
    if (record.receipt) {
        auto outcome = DEDUP_TRY(decode_outcome(record));
        known.outcome = std::move(outcome);
    }
    return known;
}

}  // namespace dedup
