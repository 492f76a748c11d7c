// Attacks recovery: the end of a store's log becomes what the input says.
//
// A store with sealed segments, a sweep behind it, and a newest segment is made once. Each input
// then replaces that segment or what comes after its first frames: by bytes as they are, by bytes
// that get right checksums, or by frames that are built to be nearly right (log_builder.hpp).
//
// Opening has to say what is wrong, or to give a store whose records are well-formed, which says
// the same when it is opened again, and which can be used.
#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base_store.hpp"
#include "input.hpp"
#include "log_builder.hpp"
#include "repair/salvage.hpp"
#include "repair/verify.hpp"

namespace dedup::fuzz {
namespace {

using test::Life;
using test::Wreck;
using Heads = std::map<Name, Record>;

constexpr int kPagesMax = 10'000;

bool is_damage(const Error& error) {
    return error.code == Code::corruption || error.code == Code::unsupported_version;
}

// What a scan gives; nullopt if it ends with an error. All of it has to be well-formed, and lookups
// have to agree.
std::optional<Heads> heads_of(StreamStore& store) {
    Heads heads;
    ScanOptions options;
    options.heads_max = 100;
    for (int pages = 0; pages == 0 || !options.cursor.empty(); ++pages) {
        require(pages < kPagesMax, "a scan does not end");
        const auto page = store.scan(options);
        if (!page) {
            require(is_damage(page.error()), page.error().message);
            return std::nullopt;
        }
        for (const Version& version : page->heads) {
            const Record& record = version.record;
            require(check_record(record).has_value());
            require(heads.emplace(Name{record.ns, record.key}, record).second,
                    "a scan gives a stream twice");
        }
        options.cursor = page->cursor;
    }
    for (const auto& [name, record] : heads) {
        const auto head = store.head({name.first, name.second});
        require(head.has_value() && *head == record, "a head is not what the scan gave");
    }
    return heads;
}

// Of crafted links histories may be wrong, but they end, and say so.
void look_at_histories(StreamStore& store, const Heads& heads) {
    for (const auto& [name, record] : heads) {
        const auto history = store.history({name.first, name.second});
        if (!history) {
            require(is_damage(history.error()), history.error().message);
            continue;
        }
        require(!history->empty() && history->back().record == record);
        for (const Version& version : *history) {
            require(check_record(version.record).has_value());
        }
    }
}

// Appends to every stream and begins a new one: sequences ascend, whatever has been read.
void append_to(Life& life, const Heads& heads) {
    StreamStore& store = life.log_store();
    std::vector<Append> batch;
    std::uint64_t highest = 0;
    for (const auto& [name, record] : heads) {
        Append& item = batch.emplace_back();
        item.expected_sequence = record.sequence;
        item.record.ns = name.first;
        item.record.key = name.second;
        item.record.timestamp_ms = store.now_ms();
        item.record.receipt = "again";
        highest = std::max(highest, record.sequence);
    }
    Record& fresh = batch.emplace_back().record;
    fresh.ns = "new";
    fresh.key = "new";
    fresh.timestamp_ms = store.now_ms();
    for (const auto& result : store.append(batch, Batch::each)) {
        if (!result) {
            require(is_damage(result.error()) || result.error().code == Code::out_of_space,
                    result.error().message);
            return;
        }
        require(*result > highest, "a sequence was assigned that is in use");
        highest = *result;
    }
    life.settle();
    const auto now = heads_of(store);
    require(!now || now->size() == batch.size());
}

void sweep(Life& life) {
    SweepOptions options;
    options.now_ms = kBaseTimeMs + 1'000'000;
    const auto swept = life.log_store().sweep(options);
    require(swept || is_damage(swept.error()), swept ? "" : swept.error().message);
    life.settle();
    (void)heads_of(life.log_store());
}

// What reading beside a writer, or verifying, makes of it.
void read_only(Life& life, bool verifies) {
    const auto path = life.env().root() / "store";
    if (verifies) {
        const auto verified = verify(life.env(), path);
        require(verified || is_damage(verified.error()), verified ? "" : verified.error().message);
    }
    OpenOptions options = base_options();
    options.read_only = true;
    LogStoreInternals internals;
    internals.catalog_map_bytes = std::uint64_t{64} << 20;
    const auto store = LogStore::open(life.env(), path, options, internals);
    if (!store) {
        require(is_damage(store.error()), store.error().message);
        return;
    }
    if (const auto heads = heads_of(**store)) {
        look_at_histories(**store, *heads);
    }
}

struct Ways {
    bool with_catalog;
    bool reads_only;
    bool verifies;
    bool appends;
    bool sweeps;
};

void recover(const Wreck& wreck, const Ways& ways) {
    Life life(base_root(), wreck, base_options(), 1);
    if (ways.reads_only) {
        read_only(life, ways.verifies);
    }
    if (const auto opened = life.open(); !opened) {
        require(is_damage(opened.error()), opened.error().message);
        require(!opened.error().message.empty());
        const auto again = life.open();
        require(!again && again.error().code == opened.error().code, "only one opening failed");
        return;
    }
    life.settle();
    const auto heads = heads_of(life.log_store());
    if (heads) {
        look_at_histories(life.log_store(), *heads);
    }
    require(life.log_store().stats().has_value());
    const auto closed = life.close();
    require(closed.has_value(), closed ? "" : closed.error().message);

    Life after(life, false, 2);
    const auto reopened = after.open();
    require(reopened.has_value(), reopened ? "" : reopened.error().message);
    after.settle();
    require(heads_of(after.log_store()) == heads, "the second opening gives something else");
    if (heads && ways.appends) {
        append_to(after, *heads);
    }
    if (ways.sweeps) {
        sweep(after);
    }
    (void)after.close();
}

}  // namespace
}  // namespace dedup::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace dedup::fuzz;
    Input input(data, size);
    const std::uint8_t how = input.byte();
    const std::uint8_t then = input.byte();
    const Ways ways{(then & 1) == 0, (then & 2) != 0, (then & 4) != 0, (then & 8) != 0,
                    (then & 16) != 0};
    dedup::test::Wreck wreck = base_store().wreck;
    if (!ways.with_catalog) {
        wreck.catalog = nullptr;
    }
    put_newest_segment(wreck, newest_segment(how, input));
    recover(wreck, ways);
    return 0;
}
