#include "dump_json.hpp"

#include <fmt/format.h>

#include <string>

#include "record_json.hpp"
#include "record_text.hpp"

namespace dedupctl {
namespace {

Json states_json(const dedup::StateCounts& counts) {
    return {{"in_flight", counts.in_flight},
            {"completed", counts.completed},
            {"released", counts.released}};
}

struct JsonDump {
    static Json item(std::string_view name) {
        Json object;
        object["item"] = name;
        return object;
    }

    static Json frame(std::string_view name, const dedup::FramePlace& place) {
        Json object = item(name);
        object["offset"] = place.offset;
        object["bytes"] = place.bytes;
        object["kind"] = place.kind;
        object["sequence"] = place.sequence;
        object["records"] = place.records;
        object["flushed_bytes"] = place.flushed_bytes;
        return object;
    }

    Json operator()(const dedup::SegmentDump& segment) const {
        Json object = item("segment");
        object["version"] = segment.version;
        object["store_id"] = segment.store_id;
        object["segment"] = segment.segment;
        object["previous_segment"] = segment.previous_segment;
        object["previous_bytes"] = segment.previous_bytes;
        object["next_sequence"] = segment.next_sequence;
        object["time_high_ms"] = segment.time_high_ms;
        object["file_bytes"] = segment.file_bytes;
        return object;
    }

    Json operator()(const dedup::RecordDump& found) const {
        Json object = frame("record", found.frame);
        object["sequence"] = found.record.sequence;
        object["number"] = found.number;
        object["encoded_bytes"] = found.encoded_bytes;
        object["stream"] = dedup::stream_name(found.record.ns, found.record.key);
        object["state"] = json_state(std::string(dedup::name(found.record.state())));
        object["previous_segment"] = found.previous_segment;
        object["previous_offset"] = found.previous_offset;
        object["previous_state"] = json_state(std::string(dedup::name(found.previous_state)));
        object["begins_anew"] = found.begins_anew;
        object["record"] = record_to_json(found.record);
        return object;
    }

    Json operator()(const dedup::MarkDump& mark) const {
        Json object = frame("mark", mark.frame);
        object["time_ms"] = mark.time_ms;
        return object;
    }

    Json operator()(const dedup::ManifestDump& manifest) const {
        Json object = frame("manifest", manifest.frame);
        object["steps"] = manifest.steps;
        object["time_high_ms"] = manifest.time_high_ms;
        object["expired_before_ms"] = manifest.expired_before_ms;
        object["evicted_before"] = manifest.evicted_before;
        object["swept_sequence"] = manifest.swept_sequence;
        object["given_up"] = manifest.given_up;
        object["segments"] = Json::array();
        for (const dedup::ManifestDump::Length& segment : manifest.segments) {
            object["segments"].push_back({{"segment", segment.segment}, {"bytes", segment.bytes}});
        }
        object["clock_jumps"] = manifest.clock.jumps.size();
        object["clock_resets"] = manifest.clock.resets.size();
        return object;
    }

    Json operator()(const dedup::DamageDump& damage) const {
        Json object = item("damage");
        object["offset"] = damage.offset;
        object["bytes"] = damage.bytes;
        object["reason"] = damage.reason;
        object["at_end"] = damage.at_end;
        object["may_hold"] = Json::array();
        for (const auto& name : damage.may_hold) {
            Json record{{"sequence", name.sequence}};
            add_bytes(record, "namespace", name.ns);
            add_bytes(record, "key", name.key);
            object["may_hold"].push_back(std::move(record));
        }
        return object;
    }

    Json operator()(const dedup::UnusedDump& unused) const {
        Json object = item("unused");
        object["offset"] = unused.offset;
        object["bytes"] = unused.bytes;
        return object;
    }

    Json operator()(const dedup::IndexDump& index) const {
        Json object = item("index");
        object["version"] = index.version;
        object["store_id"] = index.store_id;
        object["segment"] = index.segment;
        object["segment_bytes"] = index.segment_bytes;
        object["entries"] = index.entries;
        object["next_sequence"] = index.next_sequence;
        object["time_high_ms"] = index.time_high_ms;
        object["expires_max_ms"] = index.expires_max_ms;
        object["records"] = states_json(index.versions);
        object["record_bytes"] = states_json(index.version_bytes);
        object["run_segments"] = index.run_segments;
        object["file_bytes"] = index.file_bytes;
        return object;
    }

    Json operator()(const dedup::TableDump& table) const {
        Json object = item("table");
        object["name"] = table.name;
        object["offset"] = table.offset;
        object["bytes"] = table.bytes;
        object["blocks"] = table.blocks;
        object["damaged_blocks"] = table.damaged;
        return object;
    }

    Json operator()(const dedup::EntryDump& entry) const {
        Json object = item("entry");
        object["number"] = entry.number;
        object["stream"] = fmt::format("{:016x}", entry.stream);
        object["sequence"] = entry.sequence;
        object["offset"] = entry.offset;
        object["state"] = json_state(std::string(dedup::name(entry.state)));
        object["expires_from_ms"] = entry.expires_from_ms ? Json(*entry.expires_from_ms) : Json();
        return object;
    }
};

}  // namespace

Json dump_json(const dedup::DumpItem& item) {
    return std::visit(JsonDump{}, item);
}

}  // namespace dedupctl
