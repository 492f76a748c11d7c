#include "catalog/report.hpp"

#include <algorithm>
#include <array>

#include "catalog/value_codec.hpp"

namespace dedup {
namespace {

// The plain numbers of a report, in the order of the format.
constexpr std::array kNumbers = {
    &SweepReport::evicted,          &SweepReport::segments_scanned,
    &SweepReport::segments_dropped, &SweepReport::segments_compacted,
    &SweepReport::records_scanned,  &SweepReport::records_dropped,
    &SweepReport::records_moved,    &SweepReport::bytes_before,
    &SweepReport::bytes_after,      &SweepReport::longest_pause_us,
    &SweepReport::duration_us,
};

// The flags of a report.
constexpr std::uint64_t kFinished = 1;
constexpr std::uint64_t kInterrupted = 2;
constexpr std::uint64_t kNotes = 4;  // what is known of a claim beside its holder and times

// Reports of older versions know none.
bool has_notes(const SweepReport& report) {
    return std::ranges::any_of(report.unanswered,
                               [](const UnansweredClaim& claim) { return claim.attempt != 0; });
}

}  // namespace

std::string encode_report(const SweepReport& report) {
    const bool notes = has_notes(report);
    ValueWriter writer;
    writer.signed_number(report.now_ms);
    writer.number((report.finished ? kFinished : 0) | (report.interrupted ? kInterrupted : 0) |
                  (notes ? kNotes : 0));
    writer.counts(report.removed);
    writer.counts(report.retained);
    // Seen from the format, no next expiry is 0, which no record has.
    writer.signed_number(report.next_expiry_ms.value_or(0));
    for (const auto number : kNumbers) {
        writer.number(report.*number);
    }
    writer.number(report.namespaces.size());
    for (const SweptNamespace& swept : report.namespaces) {
        writer.text(swept.ns);
        writer.counts(swept.removed);
        writer.counts(swept.retained);
    }
    writer.number(report.unanswered.size());
    for (const UnansweredClaim& claim : report.unanswered) {
        writer.text(claim.ns);
        writer.text(claim.key);
        writer.text(claim.owner);
        writer.number(claim.claim_sequence);
        writer.signed_number(claim.claimed_at_ms);
        writer.signed_number(claim.expired_at_ms);
        if (notes) {
            writer.number(claim.attempt);
            writer.text(claim.event_id);
            writer.text(claim.note);
        }
    }
    if (report.damaged != 0) {
        writer.number(report.damaged);
        writer.text(report.damage);
    }
    return writer.finish();
}

Result<SweepReport> decode_report(std::string_view bytes) {
    ValueReader reader(bytes);
    SweepReport report;
    report.now_ms = reader.signed_number();
    const std::uint64_t flags = reader.number();
    if (flags > (kFinished | kInterrupted | kNotes)) {
        reader.refuse();
    }
    report.finished = (flags & kFinished) != 0;
    report.interrupted = (flags & kInterrupted) != 0;
    const bool notes = (flags & kNotes) != 0;
    report.removed = reader.counts();
    report.retained = reader.counts();
    if (const std::int64_t next = reader.signed_number(); next != 0) {
        report.next_expiry_ms = next;
    }
    for (const auto number : kNumbers) {
        report.*number = reader.number();
    }
    for (std::uint64_t left = reader.number(); left > 0 && reader.good(); --left) {
        SweptNamespace& swept = report.namespaces.emplace_back();
        swept.ns = reader.text();
        swept.removed = reader.counts();
        swept.retained = reader.counts();
    }
    for (std::uint64_t left = reader.number(); left > 0 && reader.good(); --left) {
        UnansweredClaim& claim = report.unanswered.emplace_back();
        claim.ns = reader.text();
        claim.key = reader.text();
        claim.owner = reader.text();
        claim.claim_sequence = reader.number();
        claim.claimed_at_ms = reader.signed_number();
        claim.expired_at_ms = reader.signed_number();
        if (notes) {
            claim.attempt = reader.number32();
            claim.event_id = reader.text();
            claim.note = reader.text();
        }
    }
    if (notes != has_notes(report)) {
        reader.refuse();
    }
    if (reader.good() && !reader.finished()) {
        report.damaged = reader.number();
        report.damage = reader.text();
        if (report.damaged == 0) {
            reader.refuse();
        }
    }
    if (!reader.finished()) {
        return std::unexpected(Error{Code::corruption, "a sweep report is not intact"});
    }
    return report;
}

}  // namespace dedup
