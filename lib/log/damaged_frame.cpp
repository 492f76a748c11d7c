#include "log/damaged_frame.hpp"

#include <algorithm>
#include <optional>
#include <string_view>

#include "log/frame.hpp"
#include "record/codec.hpp"

namespace dedup {
namespace {

// So much of a damaged part is looked at; what lies behind counts as one record.
constexpr std::uint64_t kLookedAtBytes = 4 * 1024 * 1024;

// The namespace and the key with which an encoded record begins: see docs/format.md.
bool read_names(std::string_view encoded, DamagedRecord& record) {
    std::string_view rest = encoded.substr(std::min<std::size_t>(2, encoded.size()));
    const auto take = [&](char tag, std::string& into, std::size_t bytes_max) {
        if (rest.size() < 2 || rest[0] != tag) {
            return false;
        }
        std::size_t bytes = static_cast<unsigned char>(rest[1]) % 128;
        std::size_t at = 2;
        if (static_cast<unsigned char>(rest[1]) >= 128) {
            if (rest.size() < 3) {
                return false;
            }
            bytes += std::size_t{static_cast<unsigned char>(rest[2])} * 128;
            at = 3;
        }
        if (bytes == 0 || bytes > bytes_max || bytes > rest.size() - at) {
            return false;
        }
        into = rest.substr(at, bytes);
        rest.remove_prefix(at + bytes);
        return true;
    };
    return take(1, record.ns, 255) && take(2, record.key, 1024);
}

DamagedRecord make_out(const FrameRecord& found, std::uint32_t offset) {
    DamagedRecord record;
    record.offset = offset;
    record.sequence = found.sequence;
    if (const auto view = decode_view(found.encoded)) {
        record.ns = view->ns;
        record.key = view->key;
        record.state = view->state();
        record.expires_at_ms = view->expires_at_ms;
    } else if (!read_names(found.encoded, record)) {
        record.ns.clear();
        record.key.clear();
    }
    return record;
}

}  // namespace

Result<std::vector<DamagedRecord>> read_damaged(const Segment& segment, std::uint64_t begin,
                                                std::uint64_t end) {
    std::string bytes(std::min(end - begin, kLookedAtBytes), '\0');
    const auto got = segment.file().read(begin, bytes);
    if (!got) {
        return std::unexpected(got.error());
    }
    bytes.resize(*got);
    std::vector<DamagedRecord> records;
    bool all = true;  // that is there has been made out
    std::size_t at = 0;
    while (all && begin + at < end) {
        Frame frame;
        frame.offset = static_cast<std::uint32_t>(begin + at);
        all = bytes.size() - at >= kFrameHeaderBytes &&
              read_frame_header(bytes.data() + at, segment.salt(), frame.offset, frame.header) &&
              bytes.size() - at - kFrameHeaderBytes >= frame.header.body_bytes &&
              known_frame(frame.header);
        if (!all) {
            break;
        }
        frame.body =
            std::string_view(bytes).substr(at + kFrameHeaderBytes, frame.header.body_bytes);
        at += frame.bytes();
        if (!has_records(frame.header.kind)) {
            continue;
        }
        FrameRecords found(frame, segment.id());
        while (const FrameRecord* const record = found.next()) {
            records.push_back(make_out(*record, frame.offset));
            all = all && !records.back().key.empty();
        }
        all = all && found.outcome();
    }
    std::erase_if(records, [](const DamagedRecord& record) { return record.key.empty(); });
    if (!all) {
        DamagedRecord unnamed;
        unnamed.offset = static_cast<std::uint32_t>(begin);
        unnamed.unnamed_id = frame_checksum(segment.salt(), unnamed.offset, "");
        records.push_back(unnamed);
    }
    for (DamagedRecord& record : records) {
        record.sequence = std::min(record.sequence, kSequenceMax - 1);
    }
    return records;
}

}  // namespace dedup
