#include "samples.hpp"

namespace dedup::test {

using namespace std::string_literals;

Record minimal_claim() {
    Record record;
    record.ns = "default";
    record.key = "order-1";
    record.sequence = 1;
    record.claim_sequence = 1;
    record.timestamp_ms = 1'700'000'000'000;
    return record;
}

Record completed_claim() {
    Record record = minimal_claim();
    record.sequence = 300;
    record.claim_sequence = 299;
    record.expires_at_ms = record.timestamp_ms + 86'400'000;
    record.owner = "worker-7";
    record.receipt = "paid: 12.00 EUR";
    return record;
}

Record every_field_in_flight() {
    Record record;
    record.ns = "payments eu:1 ~";
    record.key = "\0key\r\n\xff\x80"s;
    record.sequence = 0xffff'ffff'ffff'ffff;
    record.claim_sequence = 0x0102'0304'0506'0708;
    record.timestamp_ms = 0x7fff'ffff'ffff'ffff;
    record.expires_at_ms = 0x0001'0000'0000'0000;
    record.ttl_ms = 1;
    record.lease_until_ms = 256;
    record.attempt = 0xffff'ffff;
    record.owner = "host-1/4711";
    record.fingerprint = "\xde\xad\xbe\xef"s;
    record.event_id = "evt_\xc3\xa4";
    record.metadata = "\0\0"s;
    record.conflict = {0x80, {"\x01"s, "other", "\0"s}};
    record.began_ms = 0x0102'0304'0506;
    record.verdict = {Verdict::Kind::held, "\0b"s, "\0r"s};
    record.unknown_fields = "\x82\x02hi\xff\x00"s;
    return record;
}

std::vector<Sample> samples() {
    std::vector<Sample> all;
    all.push_back({"claim_minimal", "a claim with nothing but what it must have", minimal_claim()});

    Record leased = minimal_claim();
    leased.sequence = 4;
    leased.claim_sequence = 2;  // renewed: the fence is an earlier sequence
    leased.expires_at_ms = leased.timestamp_ms + 86'400'000;
    leased.ttl_ms = 3'600'000;
    leased.lease_until_ms = leased.timestamp_ms + 30'000;
    leased.attempt = 2;
    leased.owner = "worker-7";
    all.push_back({"claim_leased", "a renewed claim with a lease, on its second attempt", leased});

    Record empty = completed_claim();
    empty.receipt = "";
    all.push_back({"completed_empty", "completed; the receipt is there but empty", empty});
    all.push_back({"completed", "completed with a receipt", completed_claim()});

    Record tombstone = minimal_claim();
    tombstone.kind = Kind::tombstone;
    tombstone.sequence = 2;
    tombstone.expires_at_ms = tombstone.timestamp_ms + 86'400'000;
    all.push_back({"tombstone", "a released claim", tombstone});

    Record conflict = completed_claim();
    conflict.fingerprint = "fp-1";
    conflict.conflict = {3, {"fp-2", "fp-3"}};
    all.push_back({"conflict", "three requests came with two other fingerprints", conflict});

    Record unknown = minimal_claim();
    unknown.unknown_fields = "\x82\x03new\x90\x00"s;
    all.push_back({"unknown_optional", "two optional fields of a newer version", unknown});

    Record bare = minimal_claim();
    bare.sequence = 0;
    bare.claim_sequence = 0;
    bare.timestamp_ms = 0;
    all.push_back({"not_appended", "before its append: no sequence, no fence, no time", bare});

    Record hold = minimal_claim();
    hold.ttl_ms = 3'600'000;
    hold.lease_until_ms = hold.timestamp_ms + 30'000;
    hold.hold = true;
    all.push_back({"hold", "a claim that waits for a decision if nobody answers it", hold});
    hold.sequence = 2;
    hold.metadata = "reference 42";
    hold.verdict = {Verdict::Kind::held, "worker-7", "timeout"};
    all.push_back({"held", "a claim whose holder could not say what became of it", hold});

    Record resolved = completed_claim();
    resolved.verdict = {Verdict::Kind::resolved, "ada", "in the bank's list"};
    all.push_back({"resolved", "completed by a decision", resolved});
    Record forgotten = tombstone;
    forgotten.began_ms = tombstone.timestamp_ms - 60'000;
    forgotten.verdict = {Verdict::Kind::forgotten, "", "paid back"};
    all.push_back({"forgotten", "a completion that somebody took back", forgotten});

    all.push_back({"all_fields_in_flight",
                   "every field that a claim in flight can have, with "
                   "large and odd values",
                   every_field_in_flight()});
    Record done = every_field_in_flight();
    done.ttl_ms = 0;
    done.lease_until_ms = 0;
    done.receipt = "\0"s + std::string(130, 'r');
    all.push_back({"all_fields_completed",
                   "every field that a completed claim can have; the "
                   "receipt's length takes two bytes",
                   done});
    return all;
}

std::string encoded(const Record& record) {
    std::string bytes;
    encode(record, bytes);
    return bytes;
}

}  // namespace dedup::test
