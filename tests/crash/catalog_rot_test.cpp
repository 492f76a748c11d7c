// A catalog that is not what was written: damaged, cut, older than the log, or another store's.
//
// The log is the truth. Whatever has happened to the catalog, opening the store for writing gives
// the right answers, from this catalog or from one made anew, or says clearly why it does not
// open. A wrong answer would be a payment made twice; a crash would take the whole service along.
//
// LMDB trusts its file. So each damaged one is opened in a process of its own, which may crash.
#include <doctest/doctest.h>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/blob.hpp"
#include "support/environment.hpp"
#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

namespace fs = std::filesystem;

constexpr int kKeys = 260;
constexpr int kLaterKeys = 150;
constexpr std::size_t kPageBytes = 4096;

enum Outcome : signed char { untried, right, refused, wrong };

std::string key(int i) {
    return "key-" + std::to_string(i);
}

std::string receipt(int i) {
    return "receipt-" + std::to_string(i) +
           std::string(static_cast<std::size_t>(i * 31 % 1200), 'r');
}

// Whether all were appended.
bool append_keys(StreamStore& store, int from, int to) {
    std::vector<Append> batch;
    for (int i = from; i < to; ++i) {
        batch.push_back({0, completed_record(key(i), receipt(i))});
    }
    return std::ranges::all_of(store.append(batch), [](const auto& r) { return r.has_value(); });
}

// Fails nothing by itself: this runs in processes that no test framework watches.
void wait_for_sealer(StreamStore& store) {
    for (auto stats = store.stats();
         stats && stats->segments_unsealed > 1 && stats->background_error.empty();
         stats = store.stats()) {
        std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
}

// What the store says of every key, and of keys that it never saw.
Outcome ask(StreamStore& store, int keys) {
    Outcome outcome = right;
    for (int i = 0; i < keys + 100; ++i) {
        const std::string name = i < keys ? key(i) : "other-" + key(i);
        const auto head = store.head({"test", name});
        if (!head && head.error().code == Code::corruption) {
            outcome = refused;
        } else if (!head ||
                   (i >= keys ? head->has_value() : !*head || (*head)->receipt != receipt(i))) {
            return wrong;
        }
    }
    return outcome;
}

bool is_clear(const Error& error) {
    return (error.code == Code::corruption || error.code == Code::unsupported_version) &&
           error.message.find("catalog") != std::string::npos;
}

Outcome open_and_ask(const Path& path, const OpenOptions& options, int keys = kKeys) {
    LogStoreInternals internals;
    internals.catalog_map_bytes = std::uint64_t{64} << 20;
    const auto store = LogStore::open(posix_env(), path, options, internals);
    if (!store) {
        return is_clear(store.error()) ? refused : wrong;
    }
    const Outcome outcome = ask(**store, keys);
    if (options.read_only || outcome != right) {
        return outcome;
    }
    // What is now added to the catalog must not destroy what is in it.
    if (!append_keys(**store, keys, keys + kLaterKeys)) {
        return refused;
    }
    wait_for_sealer(**store);
    return ask(**store, keys + kLaterKeys) == wrong ? wrong : right;
}

// Runs `work` for each place of `outcomes`, in a process that may crash; the places where it does
// get minus the signal.
void in_children(std::span<signed char> outcomes, const std::function<Outcome(std::size_t)>& work) {
    for (std::size_t next = 0; next < outcomes.size();) {
        const pid_t child = ::fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            for (std::size_t i = next; i < outcomes.size(); ++i) {
                ::alarm(20);
                outcomes[i] = work(i);
            }
            ::_exit(0);
        }
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        while (next < outcomes.size() && outcomes[next] != untried) {
            ++next;
        }
        if (next < outcomes.size()) {
            outcomes[next++] = WIFSIGNALED(status) ? static_cast<signed char>(-WTERMSIG(status))
                                                   : static_cast<signed char>(wrong);
        }
    }
}

// Memory that child processes write to.
class SharedOutcomes {
  public:
    explicit SharedOutcomes(std::size_t size) : size_(size) {
        memory_ = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        REQUIRE(memory_ != MAP_FAILED);
    }
    ~SharedOutcomes() { ::munmap(memory_, size_); }
    SharedOutcomes(const SharedOutcomes&) = delete;
    SharedOutcomes& operator=(const SharedOutcomes&) = delete;
    [[nodiscard]] std::span<signed char> get() const {
        return {static_cast<signed char*>(memory_), size_};
    }

  private:
    void* memory_;
    std::size_t size_;
};

class Victim {
  public:
    Victim() {
        const auto store = must_open(pristine, small_segments());
        for (int i = 0; i < kKeys; i += 20) {
            REQUIRE(append_keys(*store, i, i + 20));
            wait_until_sealed(*store);
            const std::string catalog_now = read_file(pristine / "catalog" / "data.mdb");
            if (older.empty() || catalog_now != older.back()) {
                older.push_back(catalog_now);
            }
        }
        REQUIRE(store->stats()->segments_sealed >= 2);
        REQUIRE(store->close());
        catalog = read_file(pristine / "catalog" / "data.mdb");
    }

    // Opens a copy of the store with this catalog.
    [[nodiscard]] Outcome open_with(const std::string& other, bool reading) const {
        fs::remove_all(copy);
        fs::copy(pristine, copy, fs::copy_options::recursive);
        write_file(copy / "catalog" / "data.mdb", other);
        return open_and_ask(copy, reading ? read_only() : small_segments());
    }

    const TempDir dir{fast_directory()};
    const Path pristine = dir.path() / "store";
    const Path copy = dir.path() / "copy";
    std::string catalog;
    std::vector<std::string> older;  // the catalog as it was at times
};

// Where most of the damage is done: the pages that LMDB itself understands. Of the others, which
// are ours and have checksums, every 61st bit.
std::vector<std::size_t> bits_to_flip(const std::string& catalog, std::size_t step) {
    std::vector<std::size_t> bits;
    std::size_t pages_of_value = 0;
    for (std::size_t page = 0; page < catalog.size() / kPageBytes; ++page) {
        const char* header = catalog.data() + page * kPageBytes;
        constexpr std::size_t kFlagsAt = 10;
        constexpr int kOverflow = 4;
        if (pages_of_value == 0 && (header[kFlagsAt] & kOverflow) != 0) {
            pages_of_value = load<std::uint32_t>(header + 12);
        }
        const bool value = pages_of_value > 0;
        pages_of_value -= value ? 1 : 0;
        for (std::size_t bit = page % step; bit < kPageBytes * 8; bit += step * (value ? 61 : 1)) {
            // Zeros between the nodes mean nothing.
            if (value || bit < std::size_t{32} * 8 || header[bit / 8] != 0) {
                bits.push_back(page * kPageBytes * 8 + bit);
            }
        }
    }
    return bits;
}

TEST_CASE("a flipped bit in the catalog: the right answer or a clear error, never a crash") {
    const Victim victim;
    const std::size_t step = number_from_environment("DEDUP_ROT_STEP", 13);
    const auto bits = bits_to_flip(victim.catalog, step);
    REQUIRE(bits.size() > 6000 / step);
    const SharedOutcomes outcomes(bits.size() * 2);
    in_children(outcomes.get(), [&](std::size_t i) {
        std::string damaged = victim.catalog;
        const std::size_t bit = bits[i / 2];
        damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
        return victim.open_with(damaged, i % 2 == 0);
    });
    std::size_t told = 0;
    for (std::size_t i = 0; i < bits.size() * 2; ++i) {
        const int outcome = outcomes.get()[i];
        told += outcome == refused ? 1 : 0;
        INFO((i % 2 == 0 ? "reading" : "writing"), ", bit ", bits[i / 2] % 8, " of page ",
             bits[i / 2] / 8 / kPageBytes, " + ", bits[i / 2] / 8 % kPageBytes, ": ", outcome);
        CHECK((outcome == right || outcome == refused));
    }
    CHECK(told > bits.size() / 4);
    MESSAGE(bits.size() << " bits, " << told << " openings refused");
}

// A number of LMDB's meta pages.
struct MetaField {
    std::string_view name;
    std::size_t at;
    std::size_t bytes;
};

constexpr MetaField kMetaFields[] = {
    {"page number", 0, 8},
    {"page flags", 10, 2},
    {"magic", 16, 4},
    {"version", 20, 4},
    {"address", 24, 8},
    {"map size", 32, 8},
    {"page size", 40, 4},
    {"free: flags", 44, 2},
    {"free: depth", 46, 2},
    {"free: branch pages", 48, 8},
    {"free: leaf pages", 56, 8},
    {"free: overflow pages", 64, 8},
    {"free: entries", 72, 8},
    {"free: root", 80, 8},
    {"data: pad", 88, 4},
    {"data: flags", 92, 2},
    {"data: depth", 94, 2},
    {"data: branch pages", 96, 8},
    {"data: leaf pages", 104, 8},
    {"data: overflow pages", 112, 8},
    {"data: entries", 120, 8},
    {"data: root", 128, 8},
    {"last page", 136, 8},
    {"commit", 144, 8},
};

struct MetaDamage {
    MetaField field;
    std::vector<std::size_t> pages;
    std::uint64_t value;
};

std::uint64_t number_at(const std::string& bytes, std::size_t at, std::size_t width) {
    std::uint64_t value = 0;
    std::memcpy(&value, bytes.data() + at, width);  // (of a little-endian machine)
    return value;
}

std::vector<MetaDamage> meta_damages(const std::string& catalog) {
    std::vector<MetaDamage> all;
    for (const MetaField& field : kMetaFields) {
        const std::uint64_t most = UINT64_MAX >> (64 - field.bytes * 8);
        for (const std::vector<std::size_t>& pages : {std::vector<std::size_t>{0}, {1}, {0, 1}}) {
            const std::uint64_t now =
                number_at(catalog, pages[0] * kPageBytes + field.at, field.bytes);
            for (const std::uint64_t value :
                 {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{512}, std::uint64_t{4097},
                  std::uint64_t{65'536}, most, most - 1, most / 2, most / 2 + 1, now - 1, now + 1,
                  now + 2}) {
                all.push_back({field, pages, value & most});
            }
        }
    }
    return all;
}

TEST_CASE("any number in LMDB's meta pages: right answers or a clear error, never a crash") {
    const Victim victim;
    const auto damages = meta_damages(victim.catalog);
    // Each is opened for writing, and then each fifth for reading.
    const auto is_reading = [&](std::size_t i) { return i >= damages.size(); };
    const auto number = [&](std::size_t i) { return is_reading(i) ? (i - damages.size()) * 5 : i; };
    const SharedOutcomes outcomes(damages.size() + damages.size() / 5);
    in_children(outcomes.get(), [&](std::size_t i) {
        const MetaDamage& damage = damages[number(i)];
        std::string damaged = victim.catalog;
        for (const std::size_t page : damage.pages) {
            std::memcpy(damaged.data() + page * kPageBytes + damage.field.at, &damage.value,
                        damage.field.bytes);
        }
        return victim.open_with(damaged, is_reading(i));
    });
    for (std::size_t i = 0; i < outcomes.get().size(); ++i) {
        const MetaDamage& damage = damages[number(i)];
        const int outcome = outcomes.get()[i];
        INFO((is_reading(i) ? "reading" : "writing"), ", ", std::string(damage.field.name), " of ",
             damage.pages.size(), " pages from ", damage.pages[0], ": ", damage.value, ": ",
             outcome);
        // Whoever writes makes the catalog anew, but of a version that is not known.
        const bool newer = is_reading(i) || damage.field.name == "version";
        CHECK((outcome == right || (newer && outcome == refused)));
    }
}

TEST_CASE("a catalog cut at any page, empty, or of zeros is made anew") {
    const Victim victim;
    std::vector<std::string> damaged = {"", "x", std::string(victim.catalog.size(), '\0')};
    for (std::size_t bytes = 100; bytes < victim.catalog.size(); bytes += kPageBytes / 2) {
        damaged.push_back(victim.catalog.substr(0, bytes));
        damaged.push_back(victim.catalog.substr(0, bytes) +
                          std::string(victim.catalog.size() - bytes, '\0'));
    }
    const SharedOutcomes outcomes(damaged.size());
    in_children(outcomes.get(), [&](std::size_t i) { return victim.open_with(damaged[i], false); });
    for (std::size_t i = 0; i < damaged.size(); ++i) {
        INFO("number ", i);
        // Zeros in an index are found by whoever reads it.
        CHECK((outcomes.get()[i] == right || outcomes.get()[i] == refused));
    }
}

TEST_CASE("an older copy of the catalog gives right answers, and so does another store's") {
    const Victim victim;
    const Victim other;
    REQUIRE(victim.older.size() >= 3);
    for (const std::string& catalog : victim.older) {
        CHECK(victim.open_with(catalog, false) == right);
        CHECK(victim.open_with(catalog, true) == right);
    }
    for (const std::string& catalog : other.older) {
        CHECK(victim.open_with(catalog, false) == right);
        CHECK(victim.open_with(catalog, true) == refused);
    }
}

// A store in which streams expire and sweeps drop and compact segments, and its catalog at times.
struct SweptVictim {
    SweptVictim() {
        options.clock = clock.clock();
        const auto store = must_open(pristine, options);
        for (int i = 0; i < 900; ++i) {
            put(*store, i);
            clock.advance(20);
            if (i % 15 == 0) {
                wait_until_sealed(*store);
                keep();
            }
            if (i % 150 == 149) {
                const auto report = store->sweep();
                REQUIRE(report);
                given_up += report->segments_dropped + report->segments_compacted;
                keep();
            }
        }
        wait_until_sealed(*store);
        REQUIRE(given_up > 3);
        truth = heads(*store);
        REQUIRE(store->close());
    }

    // Every eighth key lasts; the others come again after they have been swept.
    void put(StreamStore& store, int i) const {
        const bool lasts = i % 8 == 0;
        Append item{0, completed_record(key(lasts ? i % 200 : i % 400), std::string(700, 'r'))};
        item.record.timestamp_ms = clock.now_ms();
        item.record.expires_at_ms = lasts ? 0 : clock.now_ms() + 500;
        const auto head = store.head({"test", item.record.key});
        item.expected_sequence = *head ? (*head)->sequence : 0;
        REQUIRE(store.append({&item, 1})[0]);
    }

    void keep() {
        const std::string now = read_file(pristine / "catalog" / "data.mdb");
        if (older.empty() || now != older.back()) {
            older.push_back(now);
        }
    }

    static std::map<std::string, std::uint64_t> heads(StreamStore& store) {
        std::map<std::string, std::uint64_t> all;
        ScanOptions scan;
        do {
            const auto page = store.scan(scan);
            REQUIRE(page);
            for (const Version& head : page->heads) {
                all[head.record.key] = head.record.sequence;
            }
            scan.cursor = page->cursor;
        } while (!scan.cursor.empty());
        return all;
    }

    ManualClock clock{1'700'000'000'000};
    const TempDir dir{fast_directory()};
    const Path pristine = dir.path() / "store";
    const Path copy = dir.path() / "copy";
    OpenOptions options = small_segments();
    std::uint64_t given_up = 0;
    std::vector<std::string> older;
    std::map<std::string, std::uint64_t> truth;
};

TEST_CASE("an older copy of the catalog from before sweeps: right answers and exact counts") {
    SweptVictim victim;
    REQUIRE(victim.older.size() > 10);
    int rebuilt = 0;
    for (std::size_t i = 0; i < victim.older.size(); ++i) {
        INFO("copy ", i, " of ", victim.older.size());
        fs::remove_all(victim.copy);
        fs::copy(victim.pristine, victim.copy, fs::copy_options::recursive);
        write_file(victim.copy / "catalog" / "data.mdb", victim.older[i]);
        const auto store = must_open(victim.copy, victim.options);
        CHECK(SweptVictim::heads(*store) == victim.truth);
        CHECK(store->stats()->streams() == victim.truth.size());
        rebuilt += store->stats()->catalog_rebuilt;
        wait_until_sealed(*store);
        CHECK(store->stats()->streams() == victim.truth.size());
        SweepOptions later;
        later.now_ms = victim.clock.now_ms() + 60'000;
        const auto report = store->sweep(later);
        REQUIRE(report);
        CHECK(report->removed.total() + report->retained.total() == victim.truth.size());
        CHECK(SweptVictim::heads(*store).size() == report->retained.total());
    }
    CHECK(rebuilt > 5);
}

TEST_CASE("a catalog from before a segment was sealed that a sweep has dropped since") {
    SweptVictim victim;
    fs::remove_all(victim.pristine);
    const auto store = must_open(victim.pristine, victim.options);
    const auto put = [&](const std::string& kind, int count) {
        for (int i = 0; i < count; ++i) {
            Append item{0, completed_record(kind + std::to_string(i), std::string(700, 'r'))};
            const auto head = store->head({"test", item.record.key});
            item.expected_sequence = *head ? (*head)->sequence : 0;
            REQUIRE(store->append({&item, 1})[0]);
        }
        wait_until_sealed(*store);
    };
    put("again", 30);  // in segment 1, with others that stay its streams' heads
    for (int i = 0; store->stats()->segments_sealed == 0; ++i) {
        put("lasting" + std::to_string(i) + "-", 1);
    }
    const std::string older = read_file(victim.pristine / "catalog" / "data.mdb");
    for (int i = 0; i < 4; ++i) {
        put("again", 30);
    }
    SweepOptions one;
    one.bytes_max = 1;
    REQUIRE(store->sweep(one)->segments_compacted == 1);
    REQUIRE_FALSE(fs::exists(segment_path(victim.pristine, 2)));
    victim.truth = SweptVictim::heads(*store);
    REQUIRE(store->close());
    write_file(victim.pristine / "catalog" / "data.mdb", older);
    const auto again = must_open(victim.pristine, victim.options);
    CHECK(SweptVictim::heads(*again) == victim.truth);
    CHECK(again->stats()->streams() == victim.truth.size());
}

TEST_CASE("a catalog that is newer than the log is refused or made anew") {
    // A backup that was put back in part.
    const Victim victim;
    const Path log = victim.copy / "log";
    for (const std::uint64_t last : {1U, 2U}) {
        fs::remove_all(victim.copy);
        fs::copy(victim.pristine, victim.copy, fs::copy_options::recursive);
        for (std::uint64_t id = last + 1; fs::remove(segment_path(victim.copy, id)); ++id) {
        }
        for (const bool reading : {true, false}) {
            const auto store =
                LogStore::open(posix_env(), victim.copy, reading ? read_only() : small_segments());
            REQUIRE_FALSE(store);
            CHECK(store.error().message.find(segment_file_name(last + 1)) != std::string::npos);
        }
    }
}

TEST_CASE("two values of the catalog that have changed places are both found out") {
    // As a disk may give back a page that it should have overwritten: intact, but not the one.
    for (const std::uint64_t owner : {0U, 1U}) {
        const std::string bytes = make_blob(std::string(64, '\0'), owner);
        REQUIRE(bytes.size() == blob_bytes(64));
        for (const std::uint64_t reader : {0U, 1U}) {
            const CheckedBlob blob(bytes, 64, reader, std::make_shared<CheckedBlocks>(64));
            CHECK(blob.intact(0) == (owner == reader));
        }
    }
}

}  // namespace
}  // namespace dedup::test
