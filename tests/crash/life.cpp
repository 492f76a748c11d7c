#include <chrono>
#include <fstream>
#include <thread>
#include <utility>

#include "crash/explore.hpp"

namespace dedup::test {
namespace {

namespace fs = std::filesystem;

// Puts the catalog where LMDB will look for it.
void lay_out(const Path& root, const FaultDisk& disk, const Bytes& data) {
    const Path catalog = root / "store" / "catalog";
    if (disk.find("store/catalog") < 0) {
        fs::remove_all(catalog);
        fs::create_directories(root / "store");
        return;
    }
    fs::create_directories(catalog);
    fs::remove(catalog / "data.mdb");
    if (data) {
        std::ofstream file(catalog / "data.mdb", std::ios::binary);
        file << *data;
    }
}

}  // namespace

Life::Life(const Path& root, const Wreck& wreck, const OpenOptions& options, std::uint64_t seed)
    : disk_(wreck.disk),
      env_((lay_out(root, disk_, wreck.catalog), disk_), root, seed),
      options_(options) {}

Life::Life(Life& before, bool pages_lost, std::uint64_t seed)
    : disk_((before.end(), before.disk_)),
      env_(disk_, before.env_.root(), seed),
      options_(before.options_) {
    if (pages_lost) {
        disk_.drop_clean_pages();
    }
}

Life::~Life() {
    end();
}

Result<void> Life::open() {
    LogStoreInternals internals;
    internals.catalog_map_bytes = std::uint64_t{64} << 20;
    internals.pause = [this] { env_.pause(); };
    auto store = LogStore::open(env_, env_.root() / "store", options_, internals);
    if (!store) {
        return std::unexpected(store.error());
    }
    store_ = std::move(*store);
    return {};
}

void Life::keep(std::shared_ptr<Ledger> ledger) {
    kept_ = std::move(ledger);
    ledger_store_ =
        std::make_unique<LedgerStore>(*store_, *kept_, options_.durability == Durability::sync);
}

void Life::record(std::shared_ptr<const Ledger> ledger, std::optional<Ledger::Mark> mark) {
    judged_by_ = std::move(ledger);
    judged_up_to_ = mark;
    env_.before_change = [this] { note_moment(); };
}

void Life::note_moment() {
    moments.push_back({disk_.state(), env_.catalog_copies(), judged_by_,
                       judged_up_to_ ? *judged_up_to_ : judged_by_->mark(), env_.last_call()});
}

void Life::record_end() {
    env_.look_at_catalog();
    note_moment();
}

void Life::settle() {
    env_.let_others_run();
    auto stats = store_->stats();
    while (stats && stats->background_error.empty() && stats->segments_unsealed > 1) {
        std::this_thread::sleep_for(std::chrono::microseconds(20));
        stats = store_->stats();
    }
    env_.sealer_stays_away = stats && !stats->background_error.empty();
}

Result<void> Life::close() {
    env_.let_others_run();
    return store_ ? store_->close() : Result<void>();
}

void Life::end() {
    env_.before_change = nullptr;
    env_.let_others_run();
    ledger_store_.reset();
    store_.reset();
}

}  // namespace dedup::test
