// Attacks what frames hold: taking a frame's body apart must not crash on any input, and what
// could be taken apart must be what putting it together gives.
#include <string>

#include "input.hpp"
#include "log/frame.hpp"
#include "log/manifest.hpp"
#include "record/codec.hpp"

namespace dedup::fuzz {
namespace {

void take_records(const Frame& frame, std::uint64_t segment) {
    FrameRecords records(frame, segment);
    std::string again;
    bool canonical = true;
    std::uint64_t taken = 0;
    while (const FrameRecord* const record = records.next()) {
        ++taken;
        require(record->link.segment <= segment, "a link leads forth");
        const auto decoded = decode(record->encoded);
        canonical = canonical && decoded && decoded->sequence == record->sequence;
        if (canonical) {
            add_record(again, segment, *decoded, record->sequence, record->link,
                       frame.header.records == 1);
        }
    }
    if (const auto outcome = records.outcome(); !outcome) {
        require(outcome.error().code == Code::corruption && !outcome.error().message.empty());
        return;
    }
    require(taken == frame.header.records);
    require(!canonical || again == frame.body, "other bytes stand for the same records");
}

}  // namespace
}  // namespace dedup::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace dedup;
    using fuzz::require;
    fuzz::Input input(data, size);
    Frame frame;
    const std::uint64_t segment = 1 + input.number() % (UINT64_MAX - 1);
    frame.header.records = static_cast<std::uint16_t>(input.number());
    frame.header.sequence = input.number();
    frame.offset = static_cast<std::uint32_t>(input.number());
    frame.body = input.rest();
    frame.header.body_bytes = static_cast<std::uint32_t>(frame.body.size());
    fuzz::take_records(frame, segment);

    frame.header.records = 0;
    const auto time_ms = mark_time(frame);
    require(!time_ms || mark_body(*time_ms) == frame.body);
    const auto manifest = decode_manifest(frame);
    require(!manifest || encode_manifest(*manifest) == frame.body);
    return 0;
}
