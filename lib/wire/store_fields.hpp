// The fields of what a store reports, by name: the server writes a reply by these lists, and a
// client of ours reads it by them.
#pragma once

#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "dedup/store.hpp"
#include "wire/reply.hpp"

namespace dedup::wire {

template <class T, class Of>
concept MaybeConst = std::same_as<std::remove_const_t<T>, Of>;

// visit(name, field) for each field. `visit.time` is for times of which 0 is none, `visit.text` for
// texts that are left out if there is none.

void visit_fields(MaybeConst<StateCounts> auto& counts, auto& visit) {
    visit("in_flight", counts.in_flight);
    visit("completed", counts.completed);
    visit("released", counts.released);
}

void visit_fields(MaybeConst<SweepWithheld> auto& withheld, auto& visit) {
    visit("jump_from_ms", withheld.jump_from_ms);
    visit("since_ms", withheld.since_ms);
    visit("until_ms", withheld.until_ms);
    visit("by_reset", withheld.by_reset);
}

void visit_fields(MaybeConst<ClockJump> auto& jump, auto& visit) {
    visit("from_ms", jump.from_ms);
    visit("to_ms", jump.to_ms);
    visit("sequence", jump.sequence);
    visit("settled", jump.settled);
}

void visit_fields(MaybeConst<ClockReset> auto& reset, auto& visit) {
    visit("from_ms", reset.from_ms);
    visit("to_ms", reset.to_ms);
    visit("wrong_after", reset.wrong_after);
    visit("sequence", reset.sequence);
    visit("segment", reset.segment);
    visit("finished", reset.finished);
}

void visit_fields(MaybeConst<ClockHistory> auto& history, auto& visit) {
    visit("jumps", history.jumps);
    visit("resets", history.resets);
}

void visit_fields(MaybeConst<StoreStats> auto& stats, auto& visit) {
    visit("store_id", stats.store_id);
    visit("in_flight", stats.in_flight);
    visit("completed", stats.completed);
    visit("released", stats.released);
    visit("records", stats.records);
    visit("last_sequence", stats.last_sequence);
    visit("time_high_ms", stats.time_high_ms);
    visit("clock_ms", stats.clock_ms);
    visit("clock", stats.clock);
    visit("sweeps_withheld", stats.withheld);
    visit("segments_sealed", stats.segments_sealed);
    visit("segments_unsealed", stats.segments_unsealed);
    visit("log_bytes", stats.log_bytes);
    visit("catalog_bytes", stats.catalog_bytes);
    visit("tail_bytes", stats.tail_bytes);
    visit("memory_bytes", stats.memory_bytes);
    visit("torn_bytes_dropped", stats.torn_bytes_dropped);
    visit("catalog_rebuilt", stats.catalog_rebuilt);
    visit.text("background_error", stats.background_error);
    visit.text("write_error", stats.write_error);
    visit("evicted", stats.evicted);
    visit.time("last_sweep_ms", stats.last_sweep_ms);
    visit.text("sweep_error", stats.sweep_error);
    visit("damaged", stats.damaged);
    visit.text("damage", stats.damage);
}

void visit_fields(MaybeConst<SweptNamespace> auto& swept, auto& visit) {
    visit("namespace", swept.ns);
    visit("removed", swept.removed);
    visit("retained", swept.retained);
}

void visit_fields(MaybeConst<UnansweredClaim> auto& claim, auto& visit) {
    visit("namespace", claim.ns);
    visit("key", claim.key);
    visit("owner", claim.owner);
    visit("claim_sequence", claim.claim_sequence);
    visit("claimed_at_ms", claim.claimed_at_ms);
    visit("expired_at_ms", claim.expired_at_ms);
    visit("attempt", claim.attempt);
    visit("event_id", claim.event_id);
    visit("note", claim.note);
}

void visit_fields(MaybeConst<SweepReport> auto& report, auto& visit) {
    visit("now_ms", report.now_ms);
    visit("dry_run", report.dry_run);
    visit("finished", report.finished);
    visit("interrupted", report.interrupted);
    visit("withheld", report.withheld);
    visit("removed", report.removed);
    visit("retained", report.retained);
    visit("evicted", report.evicted);
    visit("next_expiry_ms", report.next_expiry_ms);
    visit("segments_scanned", report.segments_scanned);
    visit("segments_dropped", report.segments_dropped);
    visit("segments_compacted", report.segments_compacted);
    visit("records_scanned", report.records_scanned);
    visit("records_dropped", report.records_dropped);
    visit("records_moved", report.records_moved);
    visit("bytes_before", report.bytes_before);
    visit("bytes_after", report.bytes_after);
    visit("longest_pause_us", report.longest_pause_us);
    visit("duration_us", report.duration_us);
    visit("damaged", report.damaged);
    visit.text("damage", report.damage);
    visit("namespaces", report.namespaces);
    visit("unanswered", report.unanswered);
}

// Reads fields from a reply that is a map. What is not there, or of another kind, stays as it is:
// so a newer server and an older client get on.
class FieldReader {
  public:
    explicit FieldReader(const Reply& map) : map_(map) {}

    template <class T>
    void operator()(std::string_view name, T& field) const {
        if (const Reply* const value = map_.value_of(name); value != nullptr) {
            read(*value, field);
        }
    }
    void time(std::string_view name, std::int64_t& field) const { (*this)(name, field); }
    void text(std::string_view name, std::string& field) const { (*this)(name, field); }

  private:
    template <std::integral T>
    static void read(const Reply& value, T& field) {
        if (value.is_integer()) {
            field = static_cast<T>(value.integer);
        }
    }
    static void read(const Reply& value, std::string& field) {
        if (value.is_text()) {
            field = value.text;
        }
    }
    template <class T>
    static void read(const Reply& value, std::optional<T>& field) {
        if (!value.is_null()) {
            read(value, field.emplace());
        }
    }
    template <class T>
    static void read(const Reply& value, std::vector<T>& field) {
        for (const Reply& row : value.list) {
            read(row, field.emplace_back());
        }
    }
    template <class T>
    requires std::is_class_v<T>
    static void read(const Reply& value, T& field) {
        FieldReader reader(value);
        visit_fields(field, reader);
    }

    const Reply& map_;
};

}  // namespace dedup::wire
