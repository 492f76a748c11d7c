// What a log store makes of the files that a crash, a careless hand or a bad disk left behind.

#include <doctest/doctest.h>

#include <fstream>
#include <string>
#include <vector>

#include "dedup/cache.hpp"
#include "env/bytes.hpp"
#include "log/frame_reader.hpp"
#include "support/log_helpers.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

constexpr int kKeys = 3000;  // several segments of the smallest size

TEST_CASE("a tail torn at any byte costs the torn append and nothing else") {
    // Guards against a recovery that stops too early, keeps half a frame, or appends after garbage.
    const TempDir dir;
    const auto whole = dir.path() / "whole";
    std::uint64_t kept_bytes = 0;
    std::uint64_t whole_bytes = 0;
    {
        const auto store = must_open(dir.path() / "store");
        must_append(*store, "first");
        must_append(*store, "second");
        kept_bytes = store->stats()->log_bytes;
        must_append(*store, "torn");
        whole_bytes = store->stats()->log_bytes;
        crash_copy(dir.path() / "store", whole);
    }
    for (std::size_t cut = kept_bytes; cut < whole_bytes; ++cut) {
        const auto torn = dir.path() / "torn";
        std::filesystem::copy(whole, torn, std::filesystem::copy_options::recursive);
        std::filesystem::resize_file(segment_path(torn, 1), cut);
        {
            const auto store = must_open(torn);
            const auto stats = store->stats();
            REQUIRE(stats->torn_bytes_dropped <= cut - kept_bytes);
            REQUIRE((cut == kept_bytes || stats->torn_bytes_dropped > 0));
            REQUIRE(receipt_of(*store, "first") == "done");
            REQUIRE(receipt_of(*store, "second") == "done");
            REQUIRE(receipt_of(*store, "torn") == "(absent)");
            must_append(*store, "torn", "again");
        }
        const auto store = must_open(torn);
        REQUIRE(store->stats()->torn_bytes_dropped == 0);
        REQUIRE(receipt_of(*store, "torn") == "again");
        REQUIRE(store->stats()->completed == 3);
        std::filesystem::remove_all(torn);
    }
}

TEST_CASE(
    "what lay behind a torn frame does not come back when the frame's place is filled again") {
    // Guards against a recovery that leaves the torn tail where it is: the frames behind the first
    // torn one may be whole, and would follow the next append of the same size.
    const TempDir dir;
    const auto path = dir.path() / "store";
    {
        const auto store = must_open(path);
        must_append(*store, "before");
        std::vector<Append> batch;
        for (const std::string key : {"torn-1", "torn-2", "torn-3"}) {
            batch.push_back({0, completed_record(key, "lost")});
        }
        for (const auto& result : store->append(batch)) {
            REQUIRE(result);
        }
        crash_copy(path, dir.path() / "torn");
    }
    const auto torn = dir.path() / "torn";
    std::string bytes = read_file(segment_path(torn, 1));
    const std::size_t at = bytes.find("torn-1");
    REQUIRE(at != std::string::npos);
    bytes[at] = 'x';
    write_file(segment_path(torn, 1), bytes);
    {
        const auto store = must_open(torn);
        CHECK(store->stats()->torn_bytes_dropped > 0);
        must_append(*store, "after1", "new1");
        crash_copy(torn, dir.path() / "again");
    }
    const auto store = must_open(dir.path() / "again");
    CHECK(store->stats()->records == 2);
    CHECK(receipt_of(*store, "after1") == "new1");
    for (const std::string key : {"torn-1", "torn-2", "torn-3"}) {
        CHECK(receipt_of(*store, key) == "(absent)");
    }
}

TEST_CASE("zeros and garbage behind the last frame are dropped, and only garbage is counted") {
    // Guards against taking reserved room for a torn tail, and a torn tail for damage.
    const TempDir dir;
    const auto path = dir.path() / "store";
    must_append(*must_open(path), "key");
    const auto segment = segment_path(path, 1);
    const std::string bytes = read_file(segment);

    write_file(segment, bytes + std::string(10'000, '\0'));
    CHECK(must_open(path)->stats()->torn_bytes_dropped == 0);
    CHECK(read_file(segment).size() == bytes.size());

    write_file(segment, bytes + std::string(5'000, '\xa5') + std::string(5'000, '\0'));
    const auto store = must_open(path);
    CHECK(store->stats()->torn_bytes_dropped == 5'000);
    CHECK(receipt_of(*store, "key") == "done");
}

TEST_CASE("a frame copied to another place or segment does not pass") {
    // Guards against stale frames: the checksum is bound to segment and offset.
    const TempDir dir;
    const auto path = dir.path() / "store";
    must_append(*must_open(path), "key");
    const auto segment = segment_path(path, 1);
    const std::string bytes = read_file(segment);
    write_file(segment, bytes + bytes.substr(kSegmentHeaderBytes));
    const auto store = must_open(path);
    // (Zeros at the end of a tail do not count; a mark ends with some.)
    CHECK(store->stats()->torn_bytes_dropped ==
          bytes.find_last_not_of('\0') + 1 - kSegmentHeaderBytes);
    CHECK(store->stats()->records == 1);
}

TEST_CASE("damage in front of flushed frames is an error that names file and offset") {
    // Guards against skipping acknowledged records in silence: after a clean close every byte of
    // every record's frame is flipped in turn, and each time the store must refuse to open and
    // leave the file be.
    const TempDir dir;
    const auto path = dir.path() / "store";
    std::uint64_t proven_end = 0;
    {
        const auto store = must_open(path);
        must_append(*store, "first");
        must_append(*store, "second");
        proven_end = store->stats()->log_bytes;
    }
    const auto segment = segment_path(path, 1);
    const std::string bytes = read_file(segment);
    for (std::size_t i = kSegmentHeaderBytes; i < proven_end; ++i) {
        std::string damaged = bytes;
        damaged[i] = static_cast<char>(damaged[i] ^ 0x40);
        write_file(segment, damaged);
        for (const bool reading : {true, false}) {
            INFO("byte ", i, reading ? ", reading" : ", writing");
            const Error error = open_error(path, reading ? read_only() : OpenOptions{});
            REQUIRE(error.code == Code::corruption);
            REQUIRE(error.message.find(segment.string()) != std::string::npos);
            REQUIRE(error.message.find("offset") != std::string::npos);
        }
        const auto report = verify(path);
        REQUIRE(report);
        REQUIRE_FALSE(report->problems.empty());
        REQUIRE(read_file(segment) == damaged);
    }
}

TEST_CASE("a damaged segment header is an error, never an empty log") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    must_append(*must_open(path), "key");
    const auto segment = segment_path(path, 1);
    const std::string bytes = read_file(segment);
    SegmentHeader header = (*Segment::open(posix_env(), path / "log", 1))->header();
    const auto with_version = [&](std::uint32_t version) {
        header.version = version;
        return encode_segment_header(header) + bytes.substr(kSegmentHeaderBytes);
    };
    for (std::size_t i = 0; i < kSegmentHeaderBytes; ++i) {
        std::string damaged = bytes;
        damaged[i] = static_cast<char>(damaged[i] ^ 1);
        write_file(segment, damaged);
        const Error error = open_error(path);
        REQUIRE(error.code == Code::corruption);
        REQUIRE(error.message.find(segment.string()) != std::string::npos);
    }
    write_file(segment, bytes.substr(0, 20));
    CHECK(open_error(path).code == Code::corruption);
    // Only under a valid checksum another version is one.
    for (const std::uint32_t version : {kSegmentVersion + 1, UINT32_MAX}) {
        write_file(segment, with_version(version));
        CHECK(open_error(path).code == Code::unsupported_version);
        CHECK(open_error(path, read_only()).code == Code::unsupported_version);
        CHECK(verify(path).error().code == Code::unsupported_version);
        CHECK(repair(path, dir.path() / "new").error().code == Code::unsupported_version);
    }
    write_file(segment, with_version(0));
    CHECK(open_error(path).code == Code::corruption);
}

TEST_CASE("damage in a sealed segment is found by whoever reads it, and by verify") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    fill_and_seal(path, kKeys);
    CHECK(verify(path)->problems.empty());

    const auto segment = segment_path(path, 1);
    std::string bytes = read_file(segment);
    const std::size_t at = bytes.find("receipt-7");
    REQUIRE(at != std::string::npos);
    bytes[at] = 'R';
    write_file(segment, bytes);

    const auto store = must_open(path, read_only());
    const auto head = store->head({"test", "key-7"});
    REQUIRE_FALSE(head);
    CHECK(head.error().code == Code::corruption);
    CHECK(head.error().message.find(segment.string()) != std::string::npos);
    CHECK(receipt_of(*store, "key-8") == "receipt-8");

    const auto report = verify(path);
    REQUIRE(report);
    REQUIRE_FALSE(report->problems.empty());
    CHECK(report->problems.front().find(segment.string()) != std::string::npos);
}

TEST_CASE("a frame that comes to claim more bytes than the file has is an error, not a crash") {
    // The newest segment is read where it is mapped, and behind its end there is nothing.
    const TempDir dir;
    const auto path = dir.path() / "store";
    const auto store = must_open(path);
    for (int i = 0; i < 3; ++i) {
        must_append(*store, "key-" + std::to_string(i));
    }
    CHECK(receipt_of(*store, "key-1") == "done");
    const auto segment = segment_path(path, 1);
    const std::string bytes = read_file(segment);
    const std::size_t key_at = bytes.find("key-1");
    REQUIRE(key_at != std::string::npos);
    const auto opened = Segment::open(posix_env(), path / "log", 1);
    REQUIRE(opened);
    std::uint32_t frame_at = 0;
    FrameReader reader(**opened, kSegmentHeaderBytes, bytes.size());
    while (reader.offset() < key_at) {
        frame_at = static_cast<std::uint32_t>(reader.offset());
        REQUIRE(reader.next()->has_value());
    }
    std::string header = bytes.substr(frame_at, kFrameHeaderBytes);
    for (const std::size_t body_bytes : {kFrameBodyBytesMax, std::size_t{100'000}}) {
        dedup::store(header.data() + kFrameBodyBytesAt, static_cast<std::uint32_t>(body_bytes));
        dedup::store(header.data() + kFrameHeaderCheckAt,
                     frame_header_check((*opened)->salt(), frame_at, header.data()));
        std::fstream file(segment, std::ios::binary | std::ios::in | std::ios::out);
        file.seekp(static_cast<std::streamoff>(frame_at)) << header;
        file.close();
        const auto head = store->head({"test", "key-1"});
        REQUIRE_FALSE(head);
        CHECK(head.error().code == Code::corruption);
        CHECK(receipt_of(*store, "key-2") == "done");
    }
}

TEST_CASE("a catalog that is deleted, cut, overwritten or foreign is rebuilt from the log") {
    // Guards the promise that the log is the truth.
    const TempDir dir;
    const auto path = dir.path() / "store";
    fill_and_seal(path, kKeys);
    const auto before = must_open(path, read_only())->stats();
    REQUIRE(before->segments_sealed > 2);
    const auto data = path / "catalog" / "data.mdb";
    const std::string bytes = read_file(data);

    SUBCASE("deleted directory") {
        std::filesystem::remove_all(path / "catalog");
    }
    SUBCASE("deleted file") {
        std::filesystem::remove(data);
    }
    SUBCASE("empty") {
        write_file(data, "");
    }
    SUBCASE("cut in the meta pages") {
        write_file(data, bytes.substr(0, 5'000));
    }
    SUBCASE("cut by a page") {
        write_file(data, bytes.substr(0, bytes.size() - 4096));
    }
    SUBCASE("cut to half") {
        write_file(data, bytes.substr(0, bytes.size() / 2));
    }
    SUBCASE("not LMDB") {
        write_file(data, std::string(bytes.size(), 'x'));
    }
    SUBCASE("of another store") {
        fill_and_seal(dir.path() / "other", kKeys);
        std::filesystem::copy(dir.path() / "other" / "catalog" / "data.mdb", data,
                              std::filesystem::copy_options::overwrite_existing);
    }

    const Error refused = open_error(path, read_only());
    CHECK(refused.code == Code::corruption);
    CHECK(refused.message.find("open") != std::string::npos);

    const auto store = must_open(path, small_segments());
    const auto after = store->stats();
    CHECK(after->catalog_rebuilt);
    CHECK(after->store_id == before->store_id);
    CHECK(after->completed == before->completed);
    CHECK(after->records == before->records);
    CHECK(after->last_sequence == before->last_sequence);
    check_filled(*store, kKeys);
    wait_until_sealed(*store);
    REQUIRE(store->close());
    CHECK(verify(path)->problems.empty());
    CHECK_FALSE(must_open(path)->stats()->catalog_rebuilt);
}

// All keys of fill_and_seal: right, or an error that names the index file. Gives whether one was
// met.
bool meets_damage(StreamStore& store, int keys, const std::string& name) {
    std::vector<std::string> all;
    bool met = false;
    for (int i = 0; i < keys; ++i) {
        all.push_back("key-" + std::to_string(i));
        const auto head = store.head({"test", all.back()});
        if (!head) {
            REQUIRE(head.error().code == Code::corruption);
            REQUIRE(head.error().message.find(name) != std::string::npos);
            met = true;
        } else {
            REQUIRE(*head);
            REQUIRE((*head)->receipt == "receipt-" + std::to_string(i));
        }
    }
    check_heads_together(store, all);
    return met;
}

TEST_CASE("a flipped byte of an index file is an error or harmless, never a wrong answer") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    constexpr int kFewKeys = 1'500;
    fill_and_seal(path, kFewKeys);
    int refused = 0;
    int made_anew = 0;
    int told = 0;
    const std::string name = index_file_name(1);
    const std::string bytes = read_file(path / "log" / name);
    for (std::size_t at = 0; at < bytes.size(); at += 353) {
        INFO("offset ", at);
        std::string damaged = bytes;
        damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
        write_file(path / "log" / name, damaged);
        bool met = false;
        if (const auto reader = LogStore::open(posix_env(), path, read_only()); reader) {
            met = meets_damage(**reader, kFewKeys, name);
            told += met;
        } else {
            REQUIRE(reader.error().code == Code::corruption);
            REQUIRE(reader.error().message.find(name) != std::string::npos);
            ++refused;
        }
        {
            const auto writer = must_open(path, small_segments());
            CHECK_FALSE(writer->stats()->catalog_rebuilt);
            CHECK(meets_damage(*writer, kFewKeys, name) == met);
        }
        if (met) {
            CHECK_FALSE(verify(path)->problems.empty());
            std::filesystem::remove(path / "log" / name);  // as the message says
            CHECK_FALSE(meets_damage(*must_open(path, small_segments()), kFewKeys, name));
        }
        const bool anew = read_file(path / "log" / name) != damaged;
        CHECK((anew || !met));
        made_anew += anew;
        CHECK(verify(path)->problems.empty());
    }
    CHECK(refused > 2);
    CHECK(told > 2);
    CHECK(made_anew == refused + told);
}

TEST_CASE("an index file that is missing, cut, of another segment or store is made anew") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    const auto other = dir.path() / "other";
    fill_and_seal(path, 2000);
    fill_and_seal(other, 2000);
    const auto file = [](const std::filesystem::path& store, std::uint64_t id) {
        return store / "log" / index_file_name(id);
    };
    const std::string intact = read_file(file(path, 1));
    const std::vector<std::string> bad = {"",
                                          intact.substr(0, 100),
                                          intact.substr(0, intact.size() / 2),
                                          intact + "more",
                                          std::string(intact.size(), '\0'),
                                          read_file(file(path, 2)),
                                          read_file(file(other, 1))};
    for (std::size_t i = 0; i <= bad.size(); ++i) {
        INFO("number ", i);
        std::filesystem::remove(file(path, 1));
        if (i < bad.size()) {
            write_file(file(path, 1), bad[i]);
        }
        const Error refused = open_error(path, read_only());
        CHECK(refused.code == Code::corruption);
        CHECK(refused.message.find(index_file_name(1)) != std::string::npos);
        CHECK(refused.message.find("rebuilds it") != std::string::npos);
        const auto store = must_open(path, small_segments());
        CHECK_FALSE(store->stats()->catalog_rebuilt);
        check_filled(*store, 2000);
        CHECK(read_file(file(path, 1)) != (i < bad.size() ? bad[i] : ""));
    }
    // A catalog made anew has another secret, and so other hashes.
    std::filesystem::remove_all(path / "catalog");
    REQUIRE(must_open(path, small_segments())->stats()->catalog_rebuilt);
    write_file(file(path, 1), intact);
    CHECK(open_error(path, read_only()).message.find("another catalog") != std::string::npos);
    check_filled(*must_open(path, small_segments()), 2000);
    CHECK(verify(path)->problems.empty());
}

TEST_CASE("a segment that is too short for its index to be made anew costs the catalog nothing") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    fill_and_seal(path, 2000);
    std::filesystem::remove(path / "log" / index_file_name(1));
    std::filesystem::resize_file(segment_path(path, 1), 30'000);
    const std::string catalog = read_file(path / "catalog" / "data.mdb");
    const Error refused = open_error(path, small_segments());
    CHECK(refused.code == Code::corruption);
    CHECK(refused.message.find(segment_file_name(1)) != std::string::npos);
    CHECK(read_file(path / "catalog" / "data.mdb") == catalog);
}

TEST_CASE("a missing segment is an error that names it") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    fill_and_seal(path, kKeys);
    const std::uint64_t newest = must_open(path)->stats()->segments_sealed + 1;
    for (const std::uint64_t id : {std::uint64_t{1}, std::uint64_t{2}, newest}) {
        const auto copy = dir.path() / "copy";
        std::filesystem::copy(path, copy, std::filesystem::copy_options::recursive);
        std::filesystem::remove(segment_path(copy, id));
        const Error error = open_error(copy);
        CHECK(error.message.find(segment_file_name(id)) != std::string::npos);
        CHECK(open_error(copy, read_only()).message.find(segment_file_name(id)) !=
              std::string::npos);
        // Without a catalog, too, a hole is seen; only at the end there is nothing to tell it by.
        std::filesystem::remove_all(copy / "catalog");
        if (id != newest) {
            CHECK(open_error(copy).message.find(segment_file_name(id)) != std::string::npos);
        }
        std::filesystem::remove_all(copy);
    }
}

TEST_CASE("paths that hold no store are refused and left alone") {
    const TempDir dir;
    CHECK(open_error(dir.path() / "missing", read_only()).code == Code::invalid_argument);
    CHECK_FALSE(std::filesystem::exists(dir.path() / "missing"));
    CHECK(open_error(dir.path() / "no" / "parent").os_error == ENOENT);

    write_file(dir.path() / "file", "text");
    CHECK(open_error(dir.path() / "file").message.find("not a directory") != std::string::npos);

    std::filesystem::create_directory(dir.path() / "home");
    write_file(dir.path() / "home" / "letter", "text");
    CHECK(open_error(dir.path() / "home").message.find("not a store") != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(dir.path() / "home" / "LOCK"));

    OpenOptions existing;
    existing.create = false;
    std::filesystem::create_directories(dir.path() / "bare" / "log");
    CHECK(open_error(dir.path() / "bare", existing).message.find("no store") != std::string::npos);

    // A creation that was cut short is finished.
    std::filesystem::create_directories(dir.path() / "begun");
    write_file(dir.path() / "begun" / "LOCK", "");
    must_append(*must_open(dir.path() / "begun"), "key");
    // So is one that got as far as an empty log.
    std::filesystem::create_directories(dir.path() / "empty" / "log");
    write_file(dir.path() / "empty" / "log" / "0000000000000001.log.tmp", "junk");
    must_append(*must_open(dir.path() / "empty"), "key");
    CHECK_FALSE(std::filesystem::exists(dir.path() / "empty" / "log" / "0000000000000001.log.tmp"));
}

TEST_CASE("bad options are refused by name") {
    const TempDir dir;
    OpenOptions options;
    options.segment_bytes = 1000;
    CHECK(open_error(dir.path() / "s", options).message.find("segment_bytes") != std::string::npos);
    options = {};
    options.flush_interval = std::chrono::milliseconds(0);
    CHECK(open_error(dir.path() / "s", options).message.find("flush_interval") !=
          std::string::npos);
    CHECK_FALSE(std::filesystem::exists(dir.path() / "s"));
}

TEST_CASE("with async durability a lost tail never brings a sequence back") {
    // Guards fences: a claim whose record a power cut took must not be confused with a later one.
    const TempDir dir;
    const auto path = dir.path() / "store";
    OpenOptions async;
    async.durability = Durability::async;
    std::uint64_t lost = 0;
    std::uint64_t after_mark = 0;
    {
        const auto store = must_open(path, async);
        must_append(*store, "first");
        REQUIRE(store->flush());
        after_mark = store->stats()->log_bytes;
        for (int i = 0; i < 100; ++i) {
            lost = must_append(*store, "lost-" + std::to_string(i));
        }
    }
    std::filesystem::resize_file(segment_path(path, 1), after_mark);
    for (const bool again_async : {true, false}) {
        const auto store = must_open(path, again_async ? async : OpenOptions{});
        CHECK(receipt_of(*store, "first") == "done");
        CHECK(receipt_of(*store, "lost-0") == "(absent)");
        CHECK(must_append(*store, again_async ? "a" : "b") > lost);
    }
}

TEST_CASE("with async durability what asks for a flush is durable, and all before it") {
    // Guards a note of the effect that follows it, and what people decide.
    const TempDir dir;
    OpenOptions async;
    async.durability = Durability::async;
    async.flush_interval = std::chrono::minutes(1);
    const auto store = must_open(dir.path() / "store", async);
    const auto flushes = [&] { return store->metrics().flushes; };
    Cache cache(*store);
    const auto claim = [&](const char* key) {
        return std::get<Claimed>(cache.claim(key, {.lease = std::chrono::seconds(1)}).value())
            .claim;
    };
    const Claim held = claim("held");
    const Claim done = claim("done");
    REQUIRE(cache.complete(done, "r"));
    const std::uint64_t before = flushes();
    const auto durable = [&](std::uint64_t calls) { return flushes() == before + calls; };
    REQUIRE(cache.renew(held, std::chrono::seconds(2)));
    CHECK(durable(0));
    REQUIRE(cache.note(held, "reference 42"));
    CHECK(durable(1));
    REQUIRE(cache.note_many(std::vector<Note>{{held, "one"}, {held, "two"}})[1]);
    CHECK(durable(3));  // the second note of one key is an append of its own
    REQUIRE(cache.hold(held, "timeout"));
    CHECK(durable(4));
    REQUIRE(cache.resolve("held", held.claim_sequence, {.reason = "not done"}));
    CHECK(durable(5));
    REQUIRE(cache.forget("done", 0, "refunded").value());
    CHECK(durable(6));
    claim("held");
    CHECK(durable(6));
}

TEST_CASE("the highest time seen outlives a clean close") {
    const TempDir dir;
    const auto path = dir.path() / "store";
    OpenOptions options;
    std::int64_t now = 1'000;
    options.clock = [&] { return now; };
    {
        const auto store = must_open(path, options);
        Append item{0, completed_record("key", "done")};
        item.record.timestamp_ms = now;
        REQUIRE(store->append({&item, 1})[0]);
        now = 10'000'000;
        CHECK(store->now_ms() == 10'000'000);
    }
    now = 5'000;
    CHECK(must_open(path, options)->now_ms() == 10'000'000);
}

TEST_CASE("a close leaves little for the next opening to read, unless the caller chose lengths") {
    const TempDir dir;
    const std::string receipt(64 * 1024, 'r');
    for (const bool chosen : {false, true}) {
        CAPTURE(chosen);
        const auto path = dir.path() / (chosen ? "chosen" : "usual");
        OpenOptions options;
        options.segment_bytes = chosen ? 8 * 1024 * 1024 : 0;
        std::vector<std::string> keys;
        for (const int more : {8, 8, 2}) {  // 0.5 MiB, then 1 MiB in all, then the rest
            const auto store = must_open(path, options);
            for (int i = 0; i < more; ++i) {
                keys.push_back("key-" + std::to_string(keys.size()));
                must_append(*store, keys.back(), receipt);
            }
            REQUIRE(store->close());
        }
        const auto store = must_open(path, options);
        CHECK(store->stats()->segments_sealed == (chosen ? 0 : 1));
        CHECK((store->stats()->tail_bytes < 256 * 1024) == !chosen);
        CHECK(store->stats()->completed == keys.size());
        for (const std::string& key : keys) {
            CHECK(receipt_of(*store, key) == receipt);
        }
    }
}

}  // namespace
}  // namespace dedup::test
