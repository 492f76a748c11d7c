#include "log_builder.hpp"

#include <algorithm>
#include <vector>

#include "base_store.hpp"
#include "log/frame.hpp"
#include "log/segment.hpp"

namespace dedup::fuzz {
namespace {

constexpr int kFramesMax = 40;

std::string first_frames(std::uint64_t count) {
    const BaseStore& base = base_store();
    return base.newest.substr(0, base.frames[std::min(count, base.frames.size() - 1)]);
}

// Gives each frame from `at` on its checks; a length that reaches too far is cut.
void repair_frames(std::string& bytes, std::size_t at, const FrameSalt& salt) {
    while (at + kFrameHeaderBytes <= bytes.size()) {
        char* frame = bytes.data() + at;
        const std::size_t room = bytes.size() - at - kFrameHeaderBytes;
        const auto body = static_cast<std::uint32_t>(
            std::min<std::size_t>(room, load<std::uint32_t>(frame + kFrameBodyBytesAt) % 4096));
        store(frame + kFrameBodyBytesAt, body);
        const auto offset = static_cast<std::uint32_t>(at);
        store(frame + kFrameHeaderCheckAt, frame_header_check(salt, offset, frame));
        const std::size_t checked = kFrameHeaderBytes - kFrameHeaderCheckAt + body;
        store(frame + kFrameChecksumAt,
              frame_checksum(salt, offset, {frame + kFrameHeaderCheckAt, checked}));
        at += kFrameHeaderBytes + body;
    }
}

// All of the segment, with its header's checksum right.
std::string whole_segment(Input& input) {
    std::string bytes(input.rest());
    if (bytes.size() < kSegmentHeaderBytes) {
        return bytes;
    }
    SegmentHeader header = base_store().header;
    if (load<std::uint32_t>(bytes.data() + kSegmentVersionAt) == 1) {
        header.version = 1;
    }
    header.previous_id = load<std::uint64_t>(bytes.data() + kSegmentPreviousIdAt);
    header.previous_bytes = load<std::uint64_t>(bytes.data() + kSegmentPreviousBytesAt);
    header.next_sequence = load<std::uint64_t>(bytes.data() + kSegmentNextSequenceAt);
    header.time_high_ms = load<std::int64_t>(bytes.data() + kSegmentTimeHighAt);
    bytes.replace(0, kSegmentHeaderBytes, encode_segment_header(header));
    repair_frames(bytes, kSegmentHeaderBytes, segment_salt(header));
    return bytes;
}

// Frames as a store would write them, but for what the input gets wrong.
class Builder {
  public:
    Builder(std::string start, Input& input)
        : bytes_(std::move(start)), input_(input), sequence_(base_store().next_sequence) {
        for (const auto& [name, head] : base_store().heads) {
            streams_.push_back({name,
                                {head.segment, static_cast<std::uint32_t>(head.offset),
                                 head.record.state(), false}});
        }
        streams_.push_back({{"odd", "fresh"}, {}});
    }

    std::string build() {
        for (int frames = 0; frames < kFramesMax && !input_.done(); ++frames) {
            frame();
        }
        return std::move(bytes_);
    }

  private:
    struct Stream {
        Name name;
        Link head;
    };

    void frame() {
        flushed_ = input_.below(4) == 0 ? static_cast<std::uint32_t>(input_.number())
                                        : static_cast<std::uint32_t>(bytes_.size());
        switch (input_.below(8)) {
            case 0:
                return mark();
            case 1:
                return manifest();
            case 2:
                bytes_ += input_.text();
                return;
            case 3:
                return records(FrameKind::moved, 1);
            case 4:
                return records(FrameKind::records, 2 + input_.below(3));
            default:
                return records(FrameKind::records, 1);
        }
    }

    // The next one, one further on, or any.
    std::uint64_t any_sequence() {
        const std::uint64_t choice = input_.below(8);
        return choice == 0 ? input_.number() : sequence_ + (choice == 1 ? input_.byte() : 0);
    }

    void finish(std::size_t start, FrameKind kind, std::uint64_t records, std::uint64_t sequence) {
        FrameHeader header;
        header.kind = kind;
        header.records = static_cast<std::uint16_t>(records);
        header.flushed = flushed_;
        header.sequence = sequence;
        finish_frame(bytes_, start, header, segment_salt(base_store().header),
                     static_cast<std::uint32_t>(start));
    }

    void mark() {
        const std::size_t start = bytes_.size();
        begin_frame(bytes_);
        bytes_ += mark_body(input_.below(2) == 0 ? kBaseTimeMs
                                                 : static_cast<std::int64_t>(input_.number()));
        finish(start, FrameKind::mark, 0, any_sequence());
    }

    // The one that the base begins with, and some of it different.
    void manifest() {
        Manifest manifest = base_store().manifest;
        const auto time = [&] { return static_cast<std::int64_t>(input_.number()); };
        const std::uint8_t changes = input_.byte();
        manifest.steps += changes & 1;
        if (changes & 2) {
            manifest.horizon = {time(), input_.number(), input_.number()};
        } else if (changes & 4) {
            manifest.horizon = {kBaseTimeMs + 600'000, 0, sequence_};
        }
        if (changes & 8) {
            manifest.steps = input_.number();
        }
        if (changes & 16) {
            manifest.time_high_ms = time();
        }
        if ((changes & 32) && !manifest.segments.empty()) {
            manifest.segments.erase(manifest.segments.begin());
        }
        if (changes & 64) {
            manifest.segments.push_back({input_.number(), input_.number()});
        }
        const std::size_t start = bytes_.size();
        begin_frame(bytes_);
        bytes_ += encode_manifest(manifest);
        finish(start, FrameKind::manifest, 0, any_sequence());
    }

    Record record_of(const Name& name) {
        Record record;
        record.ns = name.first;
        record.key = name.second;
        record.timestamp_ms = kBaseTimeMs;
        const std::uint8_t shape = input_.byte();
        if (shape % 4 == 0) {
            record.kind = Kind::tombstone;
        } else if (shape % 4 != 1) {
            record.receipt = input_.text();
        }
        if (shape & 4) {
            record.expires_at_ms = kBaseTimeMs + input_.byte() * 10'000;
        }
        if (shape & 8) {
            record.timestamp_ms = static_cast<std::int64_t>(input_.number());
            record.claim_sequence = input_.number();
        }
        return record;
    }

    Link any_link(const Stream& stream) {
        Link link = stream.head;
        const std::uint8_t choice = input_.byte();
        if (choice < 160) {
            return link;
        }
        link.segment = choice % 8 == 0 ? 0 : input_.below(kBaseSegments) + 1;
        link.state = static_cast<State>(input_.below(3));
        link.swept = choice % 2 == 0;
        link.offset = choice % 4 == 0 ? static_cast<std::uint32_t>(input_.number()) : link.offset;
        return link;
    }

    void records(FrameKind kind, std::uint64_t count) {
        const std::size_t start = bytes_.size();
        std::uint64_t sequence = any_sequence();
        begin_frame(bytes_);
        for (std::uint64_t i = 0; i < count; ++i) {
            Stream& stream = streams_[input_.below(streams_.size())];
            Record record = record_of(stream.name);
            Link link = any_link(stream);
            if (kind == FrameKind::moved) {
                sequence = move(stream, record);
            }
            const std::uint64_t own = input_.below(16) == 1 ? any_sequence() : sequence + i;
            add_record(bytes_, kBaseSegments, record, own, link, count == 1);
            stream.head = {kBaseSegments, static_cast<std::uint32_t>(start), record.state(), false};
        }
        if (input_.below(16) == 1) {
            bytes_ += input_.text();
        }
        finish(start, kind, input_.below(16) == 1 ? input_.byte() : count, sequence);
        if (kind == FrameKind::records) {
            sequence_ = std::max(sequence_, sequence + count);
        }
    }

    // Mostly the head that the base has, as a sweep would move it; gives its sequence.
    std::uint64_t move(const Stream& stream, Record& record) {
        const auto head = base_store().heads.find(stream.name);
        if (head == base_store().heads.end() || input_.below(4) == 1) {
            return any_sequence();
        }
        record = head->second.record;
        record.receipt =
            record.receipt ? std::optional(record.receipt->substr(0, 100)) : std::nullopt;
        return record.sequence;
    }

    std::string bytes_;
    Input& input_;
    std::uint64_t sequence_;
    std::uint32_t flushed_ = 0;
    std::vector<Stream> streams_;
};

}  // namespace

std::string newest_segment(std::uint8_t how, Input& input) {
    const std::uint64_t kept = 1 + how / 4 % 16;
    switch (how % 4) {
        case 0:
            return first_frames(kept).append(input.rest());
        case 1:
            return whole_segment(input);
        case 2: {
            std::string bytes = first_frames(kept);
            const std::size_t start = bytes.size();
            bytes += input.rest();
            repair_frames(bytes, start, segment_salt(base_store().header));
            return bytes;
        }
        default:
            return Builder(first_frames(kept), input).build();
    }
}

}  // namespace dedup::fuzz
