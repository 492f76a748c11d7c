#include "record_json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>

#include "common/text.hpp"

namespace dedupctl {
namespace {

constexpr const char* kBase64 = "_base64";
constexpr int kJsonDepthMax = 100;

void add_text(Json& object, const std::string& name, std::string_view bytes) {
    if (is_utf8(bytes)) {
        object[name] = bytes;
    } else {
        object[name + kBase64] = base64(bytes);
    }
}

void add_unless_empty(Json& object, const std::string& name, std::string_view bytes) {
    if (!bytes.empty()) {
        add_text(object, name, bytes);
    }
}

void add_unless_zero(Json& object, const char* name, std::int64_t number) {
    if (number != 0) {
        object[name] = number;
    }
}

// Takes members out of an object, so that what is left in the end is unknown.
class Members {
  public:
    explicit Members(const Json& object) : rest_(object) {}

    [[nodiscard]] bool has(const std::string& name) const { return rest_.contains(name); }

    std::optional<std::string> text(const std::string& name) {
        const bool plain = has(name);
        const bool encoded = has(name + kBase64);
        if (plain && encoded) {
            return fail(name + " is there both as text and in base64");
        }
        if (!plain && !encoded) {
            return std::nullopt;
        }
        const std::string member = plain ? name : name + kBase64;
        const Json value = take(member);
        if (!value.is_string()) {
            return fail(member + " is not a string");
        }
        if (plain) {
            return value.get<std::string>();
        }
        auto bytes = from_base64(value.get_ref<const std::string&>());
        return bytes ? std::move(bytes) : fail(member + " is not base64");
    }

    std::uint64_t number(const std::string& name, std::uint64_t max, std::uint64_t absent = 0) {
        if (!has(name)) {
            return absent;
        }
        const Json value = take(name);
        if (!value.is_number_unsigned() || value.get<std::uint64_t>() > max) {
            fail(fmt::format("{} is not a whole number from 0 to {}", name, max));
            return absent;
        }
        return value.get<std::uint64_t>();
    }

    std::int64_t time(const std::string& name) {
        return static_cast<std::int64_t>(number(name, std::numeric_limits<std::int64_t>::max()));
    }

    bool flag(const std::string& name) {
        if (!has(name)) {
            return false;
        }
        const Json value = take(name);
        if (!value.is_boolean()) {
            fail(name + " is not true or false");
        }
        return value == true;
    }

    Json take(const std::string& name) {
        Json value = std::move(rest_[name]);
        rest_.erase(name);
        return value;
    }

    // Remembers what was wrong first.
    std::nullopt_t fail(std::string why) {
        if (error_.empty()) {
            error_ = std::move(why);
        }
        return std::nullopt;
    }

    [[nodiscard]] std::string error() const {
        if (error_.empty() && !rest_.empty()) {
            return "member '" + escape(rest_.begin().key()) + "' is unknown";
        }
        return error_;
    }

  private:
    Json rest_;
    std::string error_;
};

void read_conflicts(Members& members, dedup::Conflict& conflict, std::size_t& known) {
    if (!members.has("conflicts")) {
        return;
    }
    const Json value = members.take("conflicts");
    if (!value.is_object()) {
        members.fail("conflicts is not an object");
        return;
    }
    known += value.size();
    Members parts(value);
    conflict.count = parts.number("count", std::numeric_limits<std::uint64_t>::max());
    const Json fingerprints =
        parts.has("fingerprints") ? parts.take("fingerprints") : Json::array();
    if (!fingerprints.is_array()) {
        parts.fail("fingerprints is not an array");
    }
    for (const Json& entry : fingerprints) {
        if (!entry.is_object()) {
            parts.fail("an entry of fingerprints is not an object");
            break;
        }
        known += entry.size();
        Members fingerprint(entry);
        conflict.fingerprints.push_back(fingerprint.text("fingerprint").value_or(""));
        if (const std::string error = fingerprint.error(); !error.empty()) {
            parts.fail(error);
        }
    }
    if (const std::string error = parts.error(); !error.empty()) {
        members.fail("conflicts: " + error);
    }
}

void read_verdict(Members& members, dedup::Verdict& verdict, std::size_t& known) {
    if (!members.has("verdict")) {
        return;
    }
    const Json object = members.take("verdict");
    if (!object.is_object()) {
        members.fail("verdict is not an object");
        return;
    }
    known += object.size();
    Members parts(object);
    const std::string kind = parts.text("kind").value_or("");
    for (const auto each : {dedup::Verdict::Kind::held, dedup::Verdict::Kind::resolved,
                            dedup::Verdict::Kind::forgotten}) {
        if (dedup::name(each) == kind) {
            verdict.kind = each;
        }
    }
    if (verdict.kind == dedup::Verdict::Kind::none) {
        parts.fail("kind is not held, resolved or forgotten");
    }
    verdict.by = parts.text("by").value_or("");
    verdict.reason = parts.text("reason").value_or("");
    if (const std::string error = parts.error(); !error.empty()) {
        members.fail("verdict: " + error);
    }
}

void read_state(Members& members, dedup::Record& record) {
    const std::string state = members.text("state").value_or("");
    record.receipt = members.text("receipt");
    if (state != "in_flight" && state != "completed" && state != "released") {
        members.fail("state is not in_flight, completed or released");
    } else if ((state == "completed") != record.receipt.has_value()) {
        members.fail(record.receipt ? "there is a receipt, but the state is " + state
                                    : "the state is completed, but there is no receipt");
    }
    record.kind = state == "released" ? dedup::Kind::tombstone : dedup::Kind::active;
}

}  // namespace

Json record_to_json(const dedup::Record& record) {
    Json object;
    object["namespace"] = record.ns;
    add_text(object, "key", record.key);
    object["state"] = record.state() == dedup::State::in_flight   ? "in_flight"
                      : record.state() == dedup::State::completed ? "completed"
                                                                  : "released";
    object["sequence"] = record.sequence;
    object["claim_sequence"] = record.claim_sequence;
    object["timestamp_ms"] = record.timestamp_ms;
    add_unless_zero(object, "expires_at_ms", record.expires_at_ms);
    add_unless_zero(object, "ttl_ms", record.ttl_ms);
    add_unless_zero(object, "lease_until_ms", record.lease_until_ms);
    object["attempt"] = record.attempt;
    add_unless_empty(object, "owner", record.owner);
    add_unless_empty(object, "fingerprint", record.fingerprint);
    add_unless_empty(object, "event_id", record.event_id);
    if (record.receipt) {
        add_text(object, "receipt", *record.receipt);
    }
    add_unless_empty(object, "metadata", record.metadata);
    if (record.conflict != dedup::Conflict{}) {
        Json fingerprints = Json::array();
        for (const std::string& fingerprint : record.conflict.fingerprints) {
            Json entry;
            add_text(entry, "fingerprint", fingerprint);
            fingerprints.push_back(std::move(entry));
        }
        object["conflicts"] = {{"count", record.conflict.count},
                               {"fingerprints", std::move(fingerprints)}};
    }
    if (record.hold) {
        object["hold"] = true;
    }
    add_unless_zero(object, "began_ms", record.began_ms);
    if (record.verdict != dedup::Verdict{}) {
        Json verdict{{"kind", dedup::name(record.verdict.kind)}};
        add_unless_empty(verdict, "by", record.verdict.by);
        add_unless_empty(verdict, "reason", record.verdict.reason);
        object["verdict"] = std::move(verdict);
    }
    if (!record.unknown_fields.empty()) {
        object["unknown_fields_base64"] = base64(record.unknown_fields);
    }
    return object;
}

std::expected<dedup::Record, std::string> record_from_json(const Json& object,
                                                           std::size_t members_read) {
    if (!object.is_object()) {
        return std::unexpected("it is not a JSON object");
    }
    std::size_t known = object.size();
    Members members(object);
    dedup::Record record;
    for (const char* required : {"namespace", "state", "timestamp_ms"}) {
        if (!members.has(required)) {
            members.fail(fmt::format("there is no {}", required));
        }
    }
    record.ns = members.text("namespace").value_or("");
    if (!members.has("key") && !members.has("key_base64")) {
        members.fail("there is no key");
    }
    record.key = members.text("key").value_or("");
    read_state(members, record);
    record.sequence = members.number("sequence", std::numeric_limits<std::uint64_t>::max());
    record.claim_sequence =
        members.number("claim_sequence", std::numeric_limits<std::uint64_t>::max());
    record.timestamp_ms = members.time("timestamp_ms");
    record.expires_at_ms = members.time("expires_at_ms");
    record.ttl_ms = members.time("ttl_ms");
    record.lease_until_ms = members.time("lease_until_ms");
    record.attempt = static_cast<std::uint32_t>(
        members.number("attempt", std::numeric_limits<std::uint32_t>::max(), 1));
    record.owner = members.text("owner").value_or("");
    record.fingerprint = members.text("fingerprint").value_or("");
    record.event_id = members.text("event_id").value_or("");
    record.metadata = members.text("metadata").value_or("");
    record.unknown_fields = members.text("unknown_fields").value_or("");
    read_conflicts(members, record.conflict, known);
    record.hold = members.flag("hold");
    record.began_ms = members.time("began_ms");
    read_verdict(members, record.verdict, known);
    if (std::string error = members.error(); !error.empty()) {
        return std::unexpected(std::move(error));
    }
    if (known != members_read) {
        return std::unexpected("a member is there twice");
    }
    if (const auto checked = dedup::check_record(record); !checked) {
        return std::unexpected(checked.error().message);
    }
    return record;
}

std::expected<Json, std::string> parse_json(std::string_view text, const KeepPart& keep) {
    Json value;
    int deepest = 0;
    // What is nested too deeply is not kept: copying and printing it would take a call a level.
    const auto keep_shallow = [&](int depth, Json::parse_event_t event, Json& part) {
        deepest = std::max(deepest, depth);
        return depth <= kJsonDepthMax && keep(depth, event, part);
    };
    try {
        value = Json::parse(text.begin(), text.end(), keep_shallow);
    } catch (const Json::parse_error& error) {
        return std::unexpected(fmt::format("it is not JSON, at byte {}", error.byte));
    } catch (const Json::exception&) {
        return std::unexpected("it is JSON with a number that is out of range");
    }
    if (deepest > kJsonDepthMax) {
        return std::unexpected(
            fmt::format("it is JSON with more than {} levels of nesting", kJsonDepthMax));
    }
    return value;
}

std::expected<ParsedJson, std::string> parse_json(std::string_view text) {
    std::size_t members = 0;
    auto value = parse_json(text, [&](int /*depth*/, Json::parse_event_t event, Json& /*part*/) {
        members += event == Json::parse_event_t::key;
        return true;
    });
    if (!value) {
        return std::unexpected(std::move(value).error());
    }
    return ParsedJson{*std::move(value), members};
}

}  // namespace dedupctl
