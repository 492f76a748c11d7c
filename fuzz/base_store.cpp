#include "base_store.hpp"

#include "input.hpp"
#include "support/manual_clock.hpp"

namespace dedup::fuzz {
namespace {

using test::Life;

Append item(StreamStore& store, const std::string& key, std::optional<std::string> receipt,
            std::int64_t ttl_ms) {
    Append append;
    append.record.ns = key.size() % 2 == 0 ? "even" : "odd";
    append.record.key = key;
    append.record.timestamp_ms = store.now_ms();
    append.record.expires_at_ms = ttl_ms == 0 ? 0 : store.now_ms() + ttl_ms;
    append.record.receipt = std::move(receipt);
    const auto head = store.head({append.record.ns, append.record.key});
    append.expected_sequence = head && *head ? (*head)->sequence : 0;
    return append;
}

void append(Life& life, const std::vector<Append>& batch, Batch mode = Batch::each) {
    for (const auto& result : life.log_store().append(batch, mode)) {
        require(result.has_value(), result ? "" : result.error().message);
    }
    life.settle();
}

// Claims, receipts, a stream that began anew after a sweep, one that has been released, a batch.
void fill(Life& life) {
    StreamStore& store = life.log_store();
    const std::string large(40'000, 'x');
    append(life, {item(store, "a", {}, 0), item(store, "bb", "done", 0)});
    append(life, {item(store, "gone", {}, 1), item(store, "back", "old", 1)});
    append(life, {item(store, "c1", large, 900'000), item(store, "c2", large, 900'000)});
    append(life, {item(store, "a", "done", 0), item(store, "d", {}, 500'000)});
    const auto swept = store.sweep({.now_ms = kBaseTimeMs + 10'000});
    require(swept && swept->removed.total() == 2);
    append(life, {item(store, "c1", large, 900'000), item(store, "c3", large, 100'000)});
    Append released = item(store, "d", {}, 500'000);
    released.record.kind = Kind::tombstone;
    append(life, {item(store, "back", "new", 0), released});
    append(life, {item(store, "e", "one", 0), item(store, "ff", "two", 0)}, Batch::atomic);
}

void read_newest(BaseStore& base) {
    const int node = base.wreck.disk.find(Path("store/log") / segment_file_name(kBaseSegments));
    require(node >= 0, "the base store has other segments");
    base.newest = *base.wreck.disk.nodes[static_cast<std::size_t>(node)].durable;
    base.header.id = kBaseSegments;
    const char* bytes = base.newest.data();
    base.header.store_id = load<StoreId>(bytes + kSegmentStoreIdAt);
    base.header.previous_id = load<std::uint64_t>(bytes + kSegmentPreviousIdAt);
    base.header.previous_bytes = load<std::uint64_t>(bytes + kSegmentPreviousBytesAt);
    base.header.next_sequence = load<std::uint64_t>(bytes + kSegmentNextSequenceAt);
    base.header.time_high_ms = load<std::int64_t>(bytes + kSegmentTimeHighAt);
    std::uint32_t at = kSegmentHeaderBytes;
    FrameHeader header;
    const FrameSalt salt = segment_salt(base.header);
    while (at + kFrameHeaderBytes <= base.newest.size() &&
           read_frame_header(bytes + at, salt, at, header)) {
        base.frames.push_back(at);
        at += static_cast<std::uint32_t>(kFrameHeaderBytes) + header.body_bytes;
    }
    require(base.frames.size() > 2);
    base.newest.resize(at);
    Frame first;
    first.header = load_frame_header(bytes + base.frames[0]);
    first.body = {bytes + base.frames[0] + kFrameHeaderBytes, first.header.body_bytes};
    const auto manifest = decode_manifest(first);
    require(manifest.has_value());
    base.manifest = *manifest;
    base.frames.push_back(at);
}

BaseStore make() {
    BaseStore base;
    Life life(base_root(), {}, base_options(), 1);
    const auto opened = life.open();
    require(opened.has_value(), opened ? "" : opened.error().message);
    fill(life);
    const auto page = life.log_store().scan({});
    require(page && page->cursor.empty());
    for (const Version& head : page->heads) {
        base.heads.emplace(Name{head.record.ns, head.record.key}, head);
    }
    base.next_sequence = life.log_store().stats()->last_sequence + 1;
    require(life.close().has_value());
    test::Random random(1);
    base.wreck.disk = lose_power(life.disk().state(), test::Survival::everything, random);
    life.env().look_at_catalog();
    base.wreck.catalog = life.env().catalog_copies().back();
    life.end();
    read_newest(base);
    return base;
}

}  // namespace

const BaseStore& base_store() {
    static const BaseStore base = make();
    return base;
}

OpenOptions base_options() {
    OpenOptions options;
    options.segment_bytes = kSegmentBytesMin;
    options.clock = [] { return kBaseTimeMs; };
    return options;
}

const Path& base_root() {
    static const test::TempDir dir(test::fast_directory());
    return dir.path();
}

void put_newest_segment(test::Wreck& wreck, std::string bytes) {
    const int node = wreck.disk.find(Path("store/log") / segment_file_name(kBaseSegments));
    wreck.disk.nodes[static_cast<std::size_t>(node)].durable =
        std::make_shared<const std::string>(std::move(bytes));
}

}  // namespace dedup::fuzz
