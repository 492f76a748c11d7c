// What a store takes at its limits, and what it says beyond them; docs/limits.md.

#include <algorithm>

#include "support/log_helpers.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

// The newest sequence that is assigned to a record on its own.
constexpr std::uint64_t kLastSequence = UINT64_MAX - 65'536;

// A new store whose next sequence is `next`.
void make_store(const std::filesystem::path& path, std::uint64_t next) {
    REQUIRE(must_open(path)->close());
    const auto made = Segment::open(posix_env(), path / "log", 1);
    REQUIRE(made);
    SegmentHeader header = (*made)->header();
    header.next_sequence = next;
    write_file(segment_path(path, 1), segment_start(header, {}));
}

Record largest_record() {
    Record record = completed_record(std::string(kKeyBytesMax, '\xff'), "");
    record.ns.assign(kNamespaceBytesMax, '~');
    record.owner.assign(kLabelBytesMax, 'o');
    record.fingerprint.assign(kLabelBytesMax, 'f');
    record.event_id.assign(kLabelBytesMax, 'e');
    record.metadata.assign(kMetadataBytesMax, 'm');
    record.receipt = std::string(kReceiptBytesMax, 'r');
    record.sequence = 1;
    record.claim_sequence = 1;
    return record;
}

TEST_CASE("a record with every field at its limit survives a seal, a restart and a lost catalog") {
    // Guards against a limit that the codec takes and a segment, an index or a replay does not.
    const TempDir dir;
    const auto path = dir.path() / "store";
    const Record record = largest_record();
    const auto has_it = [&](StreamStore& store) {
        const auto head = store.head({record.ns, record.key});
        REQUIRE_MESSAGE(head, (head ? "" : head.error().message));
        return *head == record;  // not to be printed
    };
    {
        const auto store = must_open(path, small_segments());
        const auto results = store->append({{Append{0, record}}}, Batch::each);
        REQUIRE_MESSAGE(results[0], (results[0] ? "" : results[0].error().message));
        CHECK(has_it(*store));
        must_append(*store, "next");  // ends the segment
        wait_until_sealed(*store);
        CHECK(has_it(*store));
    }
    CHECK(has_it(*must_open(path, small_segments())));
    std::filesystem::remove_all(path / "catalog");
    CHECK(has_it(*must_open(path, small_segments())));
    CHECK(verify(path)->problems.empty());
}

TEST_CASE("a segment may be as small and as large as it says, and not a byte beyond") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    OpenOptions options;
    for (const std::uint64_t bytes : {kSegmentBytesMin, kSegmentBytesMax, std::uint64_t{0}}) {
        options.segment_bytes = bytes;
        CHECK(must_open(path, options)->close());
    }
    for (const std::uint64_t bytes : {kSegmentBytesMin - 1, kSegmentBytesMax + 1, UINT64_MAX}) {
        options.segment_bytes = bytes;
        const Error error = open_error(path, options);
        CHECK(error.code == Code::invalid_argument);
        CHECK(error.message.find("segment_bytes is " + std::to_string(bytes)) != std::string::npos);
    }
}

TEST_CASE("the largest batch lands, each item on its own or all in one frame") {
    // Guards the 16 bits in which a frame counts its records.
    const TempDir dir;
    const auto path = dir.path() / "store";
    for (const Batch mode : {Batch::each, Batch::atomic}) {
        const auto store = must_open(path, small_segments());
        const std::string prefix = mode == Batch::each ? "each-" : "atomic-";
        std::vector<Append> batch;
        for (std::size_t i = 0; i < kBatchItemsMax; ++i) {
            batch.push_back({0, completed_record(prefix + std::to_string(i), "done")});
        }
        const auto results = store->append(batch, mode);
        CHECK(std::ranges::all_of(results, [](const auto& result) { return result.has_value(); }));
    }
    const auto store = must_open(path, small_segments());
    CHECK(store->stats()->completed == 2 * kBatchItemsMax);
    for (const std::string prefix : {"each-", "atomic-"}) {
        CHECK(receipt_of(*store, prefix + "0") == "done");
        CHECK(receipt_of(*store, prefix + std::to_string(kBatchItemsMax - 1)) == "done");
    }
}

TEST_CASE("once all sequences have been assigned nothing is appended, and nothing wraps") {
    // Guards fences: a sequence that came round to 1 would be somebody's claim.
    for (const Durability durability : {Durability::sync, Durability::async}) {
        const TempDir dir;
        const auto path = dir.path() / "store";
        make_store(path, kLastSequence - 2);
        OpenOptions options;
        options.durability = durability;
        const auto refuses = [](StreamStore& store) {
            for (const Batch mode : {Batch::each, Batch::atomic}) {
                const auto results =
                    store.append({{Append{0, completed_record("more", "")}}}, mode);
                REQUIRE_FALSE(results[0]);
                CHECK(results[0].error().code == Code::out_of_space);
                CHECK(results[0].error().message.find("sequences") != std::string::npos);
            }
        };
        {
            const auto store = must_open(path, options);
            CHECK(must_append(*store, "a") == kLastSequence - 2);
            CHECK(must_append(*store, "b") == kLastSequence - 1);
            CHECK(must_append(*store, "c") == kLastSequence);
            refuses(*store);
            CHECK(receipt_of(*store, "c") == "done");
            CHECK(receipt_of(*store, "more") == "(absent)");
            CHECK(store->sweep({}));
            CHECK(store->close());
        }
        const auto store = must_open(path, options);
        refuses(*store);
        CHECK(receipt_of(*store, "a") == "done");
        CHECK(store->stats()->last_sequence >= kLastSequence);
        CHECK(store->close());
        CHECK(verify(path)->problems.empty());
    }
}

TEST_CASE("a store is repaired at the end of its sequences, too") {
    // Guards the room that a repair leaves between what it found and what is assigned next.
    const TempDir dir;
    make_store(dir.path() / "store", kLastSequence);
    CHECK(must_append(*must_open(dir.path() / "store"), "a") == kLastSequence);
    REQUIRE(repair(dir.path() / "store", dir.path() / "repaired"));
    const auto store = must_open(dir.path() / "repaired");
    CHECK(receipt_of(*store, "a") == "done");
    const auto results = store->append({{Append{0, completed_record("more", "")}}}, Batch::each);
    REQUIRE_FALSE(results[0]);
    CHECK(results[0].error().code == Code::out_of_space);
}

TEST_CASE("a length that no segment has is an error at most, and costs no memory") {
    // Guards against making room for what a header or a manifest claims: open() threw.
    for (const std::uint64_t bytes : {1UL << 36, 1UL << 45, 1UL << 62, UINT64_MAX}) {
        const TempDir dir;
        const auto path = dir.path() / "store";
        make_store(path, 1);
        SegmentHeader header = (*Segment::open(posix_env(), path / "log", 1))->header();
        header.previous_bytes = bytes;
        write_file(segment_path(path, 1), segment_start(header, {}));
        CHECK(must_open(path)->stats()->records == 0);
        CHECK(must_open(path, read_only())->stats()->records == 0);

        header.id = 2;
        header.previous_id = 1;
        write_file(segment_path(path, 2), segment_start(header, {{}, 0, 0, {{1, bytes}}, 0, {}}));
        for (const bool with_catalog : {true, false}) {
            if (!with_catalog) {
                std::filesystem::remove_all(path / "catalog");
            }
            CHECK(open_error(path).code == Code::corruption);
        }
    }
}

TEST_CASE("a frame with a sequence that no store assigns is damage") {
    // Guards against a next sequence that wraps to 0 when it is taken from such a frame.
    for (const FrameKind kind : {FrameKind::records, FrameKind::mark, FrameKind::manifest}) {
        const TempDir dir;
        const auto path = dir.path() / "store";
        make_store(path, 1);
        std::string bytes = read_file(segment_path(path, 1));
        const std::size_t start = bytes.size();
        begin_frame(bytes);
        FrameHeader header;
        header.kind = kind;
        header.sequence = UINT64_MAX;
        if (kind == FrameKind::records) {
            header.records = 1;
            add_record(bytes, 1, completed_record("a", ""), UINT64_MAX, {}, true);
        } else {
            bytes += kind == FrameKind::mark ? mark_body(1) : encode_manifest({});
        }
        const auto segment = Segment::open(posix_env(), path / "log", 1);
        finish_frame(bytes, start, header, (*segment)->salt(), static_cast<std::uint32_t>(start));
        write_file(segment_path(path, 1), bytes);
        const Error error = open_error(path);
        CHECK(error.code == Code::corruption);
        CHECK(error.message.find("too high") != std::string::npos);
    }
}

}  // namespace
}  // namespace dedup::test
