#include "dump_text.hpp"

#include <fmt/format.h>

#include <string>
#include <utility>

#include "common/text.hpp"
#include "common/time_text.hpp"
#include "record_text.hpp"
#include "table.hpp"

namespace dedupctl {
namespace {

constexpr std::size_t kOwnerColumns = 32;

std::string time_or(std::int64_t time_ms, std::string_view none) {
    return time_ms == 0 ? std::string(none) : format_time(time_ms);
}

std::string in_states(const dedup::StateCounts& counts) {
    return fmt::format("{} in-flight, {} completed, {} released", group_digits(counts.in_flight),
                       group_digits(counts.completed), group_digits(counts.released));
}

std::string row(std::string_view offset, std::string_view bytes, std::string_view kind,
                std::string_view sequence, std::string_view what) {
    return fmt::format("{:>10}  {:>9}  {:<9}  {:>10}  {}", offset, bytes, kind, sequence, what);
}

}  // namespace

void TextDump::operator()(const dedup::SegmentDump& segment) {
    out_.line(fmt::format("segment {} of store {}, format version {}, {} bytes", segment.segment,
                          segment.store_id, segment.version, group_digits(segment.file_bytes)));
    const std::string before =
        segment.previous_segment == 0
            ? "the first"
            : fmt::format("after segment {} of {} bytes", segment.previous_segment,
                          group_digits(segment.previous_bytes));
    out_.line(fmt::format("{}; next sequence {}; time seen {}\n", before, segment.next_sequence,
                          time_or(segment.time_high_ms, "none")));
    out_.line(row("OFFSET", "BYTES", "KIND", "SEQUENCE", "WHAT"));
}

void TextDump::operator()(const dedup::RecordDump& item) {
    const dedup::Record& record = item.record;
    const std::string state(dedup::name(record.state()));
    std::string what = fmt::format("{}  {}  key {}", paint(state, state_colour(state)),
                                   dedup::stream_name(record.ns, record.key), escape(record.key));
    what +=
        fmt::format("  claim {}, attempt {}, {}, expires {}", record.claim_sequence, record.attempt,
                    format_time(record.timestamp_ms), time_or(record.expires_at_ms, "never"));
    if (record.lease_until_ms != 0) {
        what += ", lease until " + format_time(record.lease_until_ms);
    }
    if (record.hold) {
        what += ", holds its key";
    }
    if (record.verdict != dedup::Verdict{}) {
        what += ", " + verdict_text(record.verdict, kOwnerColumns);
    }
    if (!record.owner.empty()) {
        what += ", owner " + preview(record.owner, kOwnerColumns);
    }
    if (record.receipt) {
        what += ", receipt " + human_bytes(record.receipt->size());
    }
    if (item.previous_segment != 0) {
        what += fmt::format(", after {}{} in segment {} at {}", item.begins_anew ? "swept " : "",
                            dedup::name(item.previous_state), item.previous_segment,
                            item.previous_offset);
    }
    frame(item.frame, record.sequence, what);
}

void TextDump::operator()(const dedup::MarkDump& mark) {
    frame(mark.frame, mark.frame.sequence, "time seen " + time_or(mark.time_ms, "none"));
}

void TextDump::operator()(const dedup::ManifestDump& manifest) {
    std::string what = fmt::format("{} of sweeps; time seen {}; ", count_of(manifest.steps, "step"),
                                   time_or(manifest.time_high_ms, "none"));
    what += manifest.swept_sequence == 0
                ? "nothing swept"
                : fmt::format("swept up to sequence {}: expired before {}", manifest.swept_sequence,
                              time_or(manifest.expired_before_ms, "no time"));
    if (manifest.evicted_before != 0) {
        what += fmt::format(", completed before sequence {}", manifest.evicted_before);
    }
    what += manifest.segments.empty() ? "; no segment before" : "; segments before:";
    for (const dedup::ManifestDump::Length& segment : manifest.segments) {
        what += fmt::format(" {} ({} bytes)", segment.segment, group_digits(segment.bytes));
    }
    if (manifest.given_up != 0) {
        what += fmt::format("; {} is given up", manifest.given_up);
    }
    if (manifest.clock != dedup::ClockHistory()) {
        what += fmt::format("; clock: {}, {}", count_of(manifest.clock.jumps.size(), "jump"),
                            count_of(manifest.clock.resets.size(), "reset"));
    }
    frame(manifest.frame, manifest.frame.sequence, what);
}

void TextDump::operator()(const dedup::DamageDump& damage) {
    std::string what = escape(damage.reason);
    if (damage.at_end) {
        what += "; nothing intact follows, as after a crash";
    }
    for (const auto& name : damage.may_hold) {
        what += fmt::format("; may have held sequence {}, {}  key {}", name.sequence,
                            escape(name.ns), escape(name.key));
    }
    out_.line(row(std::to_string(damage.offset), std::to_string(damage.bytes),
                  damage.at_end ? "TORN" : "DAMAGED", "", paint(what, Colour::red)));
}

void TextDump::operator()(const dedup::UnusedDump& unused) {
    out_.line(
        row(std::to_string(unused.offset), std::to_string(unused.bytes), "unused", "", "zeros"));
}

void TextDump::operator()(const dedup::IndexDump& index) {
    out_.line(fmt::format("index of segment {} of store {}, format version {}, {} bytes",
                          index.segment, index.store_id, index.version,
                          group_digits(index.file_bytes)));
    out_.line(fmt::format(
        "for a segment of {} bytes; next sequence {}; time seen {}; last "
        "expiry {}",
        group_digits(index.segment_bytes), index.next_sequence, time_or(index.time_high_ms, "none"),
        index.expires_max_ms == INT64_MAX ? "never" : time_or(index.expires_max_ms, "none")));
    out_.line("records: " + in_states(index.versions));
    out_.line("their bytes: " + in_states(index.version_bytes));
    out_.line(fmt::format("{}; {}", count_of(index.entries, "stream"),
                          index.run_segments == 0
                              ? "no joint filter"
                              : "joint filter of " + count_of(index.run_segments, "segment")));
}

void TextDump::operator()(const dedup::TableDump& table) {
    std::string state = "intact";
    for (const std::uint64_t block : table.damaged) {
        state += (state == "intact" ? (state.clear(), "DAMAGED: ") : ", ") + std::to_string(block);
    }
    out_.line(fmt::format("{} at {}: {} bytes in {}, {}", table.name, table.offset,
                          group_digits(table.bytes), count_of(table.blocks, "block"),
                          paint(state, table.damaged.empty() ? Colour::none : Colour::red)));
}

void TextDump::operator()(const dedup::EntryDump& entry) {
    if (!std::exchange(titled_, true)) {
        out_.line("\n" + row("ENTRY", "SEQUENCE", "STATE", "OFFSET", "STREAM AND EXPIRY"));
    }
    out_.line(row(std::to_string(entry.number), std::to_string(entry.sequence),
                  std::string(dedup::name(entry.state)), std::to_string(entry.offset),
                  fmt::format("{:016x}  expires {}", entry.stream,
                              entry.expires_from_ms ? "from " + format_time(*entry.expires_from_ms)
                                                    : "never")));
}

void TextDump::frame(const dedup::FramePlace& place, std::uint64_t sequence,
                     std::string_view what) {
    out_.line(row(std::to_string(place.offset), std::to_string(place.bytes), place.kind,
                  std::to_string(sequence), what));
}

}  // namespace dedupctl
