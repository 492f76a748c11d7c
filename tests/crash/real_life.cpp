#include "crash/real_life.hpp"

#include <chrono>
#include <fstream>
#include <map>
#include <utility>

namespace dedup::test {
namespace {

namespace fs = std::filesystem;

void lay_out_directory(const DiskState& disk, int node, const Path& path,
                       std::map<int, Path>& files) {
    for (const auto& [name, child] : disk.nodes[static_cast<std::size_t>(node)].entries) {
        const Node& entry = disk.nodes[static_cast<std::size_t>(child)];
        if (entry.directory) {
            fs::create_directory(path / name);
            lay_out_directory(disk, child, path / name, files);
        } else if (const auto [first, fresh] = files.emplace(child, path / name); fresh) {
            std::ofstream file(path / name, std::ios::binary);
            file << *entry.durable;
        } else {
            fs::create_hard_link(first->second, path / name);
        }
    }
}

}  // namespace

void lay_out(const DiskState& disk, const Path& root) {
    std::map<int, Path> files;
    lay_out_directory(disk, 0, root, files);
}

RealLife::RealLife(const Path& root, const OpenOptions& options, const DiskState& disk)
    : root_(root), options_(options), recorder_(root, disk) {}

RealLife::~RealLife() {
    recorder_.alone([&] { recorder_.before_change = [] {}; });
    store_.reset();
}

Result<void> RealLife::open() {
    LogStoreInternals internals;
    internals.catalog_map_bytes = std::uint64_t{64} << 20;
    auto store = LogStore::open(root_ / "store", options_, internals);
    if (!store) {
        return std::unexpected(store.error());
    }
    store_ = std::move(*store);
    return {};
}

void RealLife::record(std::shared_ptr<Ledger> ledger, std::optional<Ledger::Mark> mark) {
    recorder_.alone([&] {
        judged_by_ = std::move(ledger);
        grows_ = !mark.has_value();
        mark_ = mark.value_or(judged_by_->mark());
        recorder_.before_change = [this] {
            // Appends are this thread's. What others do meanwhile may be judged by less.
            if (grows_ && std::this_thread::get_id() == owner_) {
                mark_ = judged_by_->mark();
            }
            moments.push_back({recorder_.disk(), judged_by_, mark_, recorder_.last_call()});
        };
    });
}

void RealLife::keep(Ledger& ledger) {
    ledger_store_ =
        std::make_unique<LedgerStore>(*store_, ledger, options_.durability == Durability::sync);
}

void RealLife::settle() {
    recorder_.alone([&] {
        if (grows_) {
            mark_ = judged_by_->mark();
        }
    });
    for (auto stats = store_->stats();
         stats && stats->background_error.empty() && stats->segments_unsealed > 1;
         stats = store_->stats()) {
        std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
}

}  // namespace dedup::test
