#include "record/check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "record/field_reader.hpp"

namespace dedup {
namespace {

using record_format::Tag;

constexpr unsigned char kPrintableFirst = 0x20;
constexpr unsigned char kPrintableLast = 0x7e;

bool printable(char character) {
    const auto byte = static_cast<unsigned char>(character);
    return byte >= kPrintableFirst && byte <= kPrintableLast;
}

[[gnu::cold]] std::string too_long(std::size_t size, std::size_t size_max) {
    return fmt::format("is {} bytes; at most {} are allowed", grouped(size), grouped(size_max));
}

[[gnu::cold]] std::string unprintable(std::string_view ns) {
    const auto* const bad = std::ranges::find_if_not(ns, printable);
    return fmt::format("has byte 0x{:02x} at position {}; only printable ASCII is allowed",
                       static_cast<unsigned char>(*bad), bad - ns.begin());
}

[[gnu::cold]] Problem bad_bytes(Tag field, std::size_t size, std::size_t size_max) {
    if (size == 0) {
        return {field, fmt::format("is empty; it needs 1 to {} bytes", grouped(size_max))};
    }
    return {field, too_long(size, size_max)};
}

[[gnu::cold]] Problem bad_time(const RecordView& view) {
    const std::array<std::pair<Tag, std::int64_t>, 5> times = {{
        {Tag::timestamp_ms, view.timestamp_ms},
        {Tag::expires_at_ms, view.expires_at_ms},
        {Tag::ttl_ms, view.ttl_ms},
        {Tag::lease_until_ms, view.lease_until_ms},
        {Tag::began_ms, view.began_ms},
    }};
    const auto* const bad = std::ranges::find_if(times, [](auto time) { return time.second < 0; });
    return {bad->first, fmt::format("is {}; times are never negative", bad->second)};
}

std::optional<Problem> namespace_problem(std::string_view ns) {
    if (ns.empty() || ns.size() > kNamespaceBytesMax) {
        return bad_bytes(Tag::ns, ns.size(), kNamespaceBytesMax);
    }
    // All bytes, without leaving at the first bad one, so that it can run on many at once.
    bool good = true;
    for (const char character : ns) {
        good &= printable(character);
    }
    if (!good) {
        return Problem{Tag::ns, unprintable(ns)};
    }
    return std::nullopt;
}

std::optional<Problem> key_problem(std::string_view key) {
    if (key.empty() || key.size() > kKeyBytesMax) {
        return bad_bytes(Tag::key, key.size(), kKeyBytesMax);
    }
    return std::nullopt;
}

std::optional<Problem> size_problem(const RecordView& view) {
    if (view.owner.size() > kLabelBytesMax) {
        return Problem{Tag::owner, too_long(view.owner.size(), kLabelBytesMax)};
    }
    if (view.fingerprint.size() > kLabelBytesMax) {
        return Problem{Tag::fingerprint, too_long(view.fingerprint.size(), kLabelBytesMax)};
    }
    if (view.event_id.size() > kLabelBytesMax) {
        return Problem{Tag::event_id, too_long(view.event_id.size(), kLabelBytesMax)};
    }
    if (view.receipt.size() > kReceiptBytesMax) {
        return Problem{Tag::receipt, too_long(view.receipt.size(), kReceiptBytesMax)};
    }
    if (view.metadata.size() > kMetadataBytesMax) {
        return Problem{Tag::metadata, too_long(view.metadata.size(), kMetadataBytesMax)};
    }
    if (view.unknown_fields.size() > record_format::kUnknownFieldsBytesMax) {
        return Problem{Tag::first_unknown,
                       too_long(view.unknown_fields.size(), record_format::kUnknownFieldsBytesMax)};
    }
    return std::nullopt;
}

// Whether the fields belong to the record's state.
std::optional<Problem> state_problem(const RecordView& view) {
    if (view.kind == Kind::tombstone && view.has_receipt) {
        return Problem{Tag::receipt, "is set in a tombstone, which has none"};
    }
    if (view.hold && view.expires_at_ms != 0) {
        return Problem{Tag::expires_at_ms, "is set in a record that holds its key"};
    }
    if (view.state() == State::in_flight) {
        return std::nullopt;
    }
    if (view.hold) {
        return Problem{Tag::hold, "is set in a record that is not in flight"};
    }
    if (view.ttl_ms != 0) {
        return Problem{Tag::ttl_ms, "is set in a record that is not in flight"};
    }
    if (view.lease_until_ms != 0) {
        return Problem{Tag::lease_until_ms, "is set in a record that is not in flight"};
    }
    return std::nullopt;
}

// `record` as the shared checks take it.
RecordView view_of(const Record& record) {
    RecordView view;
    view.kind = record.kind;
    view.has_receipt = record.receipt.has_value();
    view.attempt = record.attempt;
    view.timestamp_ms = record.timestamp_ms;
    view.expires_at_ms = record.expires_at_ms;
    view.ttl_ms = record.ttl_ms;
    view.lease_until_ms = record.lease_until_ms;
    view.ns = record.ns;
    view.key = record.key;
    view.owner = record.owner;
    view.fingerprint = record.fingerprint;
    view.event_id = record.event_id;
    if (record.receipt) {
        view.receipt = *record.receipt;
    }
    view.metadata = record.metadata;
    view.hold = record.hold;
    view.began_ms = record.began_ms;
    view.unknown_fields = record.unknown_fields;
    return view;
}

std::optional<std::string> find_problem(const Conflict& conflict) {
    if (conflict.fingerprints.size() > kConflictFingerprintsMax) {
        return fmt::format("has {} fingerprints; at most {} are allowed",
                           grouped(conflict.fingerprints.size()), kConflictFingerprintsMax);
    }
    std::array<std::string_view, kConflictFingerprintsMax> views;
    std::ranges::copy(conflict.fingerprints, views.begin());
    return find_conflict_problem(conflict.count,
                                 std::span(views).first(conflict.fingerprints.size()));
}

std::optional<std::string> find_problem(const Verdict& verdict) {
    const auto kind = static_cast<std::uint8_t>(verdict.kind);
    if (kind > record_format::kVerdictKindMax) {
        return fmt::format("has kind {}; only 0 to {} exist", kind, record_format::kVerdictKindMax);
    }
    if (verdict.by.size() > kLabelBytesMax) {
        return "has a name that " + too_long(verdict.by.size(), kLabelBytesMax);
    }
    if (verdict.reason.size() > kReasonBytesMax) {
        return "has a reason that " + too_long(verdict.reason.size(), kReasonBytesMax);
    }
    if (kind == 0 && !(verdict.by.empty() && verdict.reason.empty())) {
        return "has a name or a reason, but no kind";
    }
    return std::nullopt;
}

[[gnu::cold]] std::unexpected<Error> refuse(const Problem& problem) {
    return std::unexpected(
        Error{Code::invalid_argument,
              fmt::format("{} {}", record_format::field_name(problem.field), problem.what)});
}

Result<void> check_unknown_fields(std::string_view bytes) {
    FieldReader fields(bytes, 0, static_cast<std::uint8_t>(Tag::first_unknown) - 1);
    while (!fields.done()) {
        if (!fields.next()) {
            return refuse({Tag::first_unknown, "are malformed: " + fields.problem()});
        }
    }
    return {};
}

}  // namespace

std::string grouped(std::uint64_t number) {
    std::string digits = fmt::format("{}", number);
    for (std::size_t i = digits.size(); i > 3;) {
        i -= 3;
        digits.insert(i, 1, ',');
    }
    return digits;
}

std::string display_name(std::uint8_t tag) {
    const std::string_view known = record_format::field_name(Tag{tag});
    if (known.empty() || tag >= static_cast<std::uint8_t>(Tag::first_unknown)) {
        return fmt::format("field 0x{:02x}", tag);
    }
    return std::string(known);
}

std::optional<Problem> find_problem(const RecordView& view) {
    if (auto problem = namespace_problem(view.ns)) {
        return problem;
    }
    if (auto problem = key_problem(view.key)) {
        return problem;
    }
    // The sign bit of all together is set if any of them is negative.
    if ((view.timestamp_ms | view.expires_at_ms | view.ttl_ms | view.lease_until_ms |
         view.began_ms) < 0) {
        return bad_time(view);
    }
    if (view.attempt == 0) {
        return Problem{Tag::attempt, "is 0; the first attempt is 1"};
    }
    if (auto problem = size_problem(view)) {
        return problem;
    }
    return state_problem(view);
}

std::optional<std::string> find_conflict_problem(std::uint64_t count,
                                                 std::span<const std::string_view> fingerprints) {
    if (count < fingerprints.size()) {
        return fmt::format("counts {} requests but has {} fingerprints", count,
                           fingerprints.size());
    }
    for (std::size_t i = 0; i < fingerprints.size(); ++i) {
        if (fingerprints[i].empty()) {
            return fmt::format("has an empty fingerprint, number {}", i + 1);
        }
        if (fingerprints[i].size() > kLabelBytesMax) {
            return fmt::format("has a fingerprint, number {}, that {}", i + 1,
                               too_long(fingerprints[i].size(), kLabelBytesMax));
        }
        const auto earlier = fingerprints.first(i);
        if (std::ranges::find(earlier, fingerprints[i]) != earlier.end()) {
            return fmt::format("has one fingerprint twice, the second time as number {}", i + 1);
        }
    }
    return std::nullopt;
}

std::string quoted_bytes(std::string_view bytes) {
    constexpr std::size_t kShownMax = 64;
    std::string text = "\"";
    for (const char c : bytes.substr(0, kShownMax)) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20 || byte > 0x7e || c == '"' || c == '\\') {
            text += fmt::format("\\x{:02x}", byte);
        } else {
            text += c;
        }
    }
    text += bytes.size() > kShownMax ? "\"..." : "\"";
    return text;
}

Result<void> check_namespace(std::string_view ns) {
    if (const auto problem = namespace_problem(ns)) {
        return refuse(*problem);
    }
    return {};
}

Result<void> check_key(std::string_view key) {
    if (const auto problem = key_problem(key)) {
        return refuse(*problem);
    }
    return {};
}

Result<void> check_record(const Record& record) {
    if (record.kind != Kind::active && record.kind != Kind::tombstone) {
        return std::unexpected(Error{Code::invalid_argument,
                                     fmt::format("kind is {}; only active (1) and tombstone (2) "
                                                 "exist",
                                                 static_cast<unsigned>(record.kind))});
    }
    if (const auto problem = find_problem(view_of(record))) {
        return refuse(*problem);
    }
    if (record.sequence != 0 && record.claim_sequence == 0) {
        // Encoded, it would come back with its own sequence as the fence.
        return refuse({Tag::claim_sequence,
                       fmt::format("is 0 in a record with sequence {}; it may be 0 only before "
                                   "the append",
                                   record.sequence)});
    }
    if (auto what = find_problem(record.conflict)) {
        return refuse({Tag::conflict, *std::move(what)});
    }
    if (auto what = find_problem(record.verdict)) {
        return refuse({Tag::verdict, *std::move(what)});
    }
    return check_unknown_fields(record.unknown_fields);
}

}  // namespace dedup
