#include "support/fault_disk.hpp"

#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <span>
#include <utility>

namespace dedup::test {
namespace {

// Applies a change to the part of `image` in [from, end).
void apply(const Change& change, std::string& image, std::uint64_t from, std::uint64_t end) {
    end = std::min<std::uint64_t>(end, image.size());
    if (!change.bytes) {
        for (std::uint64_t at = std::max(from, change.size); at < end; ++at) {
            image[at] = '\0';
        }
        return;
    }
    const std::uint64_t first = std::max(from, change.offset);
    const std::uint64_t last = std::min(end, change.offset + change.bytes->size());
    if (first < last) {
        image.replace(first, last - first, *change.bytes, first - change.offset, last - first);
    }
}

void apply_entry(const EntryChange& change, std::map<std::string, int>& entries) {
    if (change.exchanged_for >= 0) {
        entries[change.renamed_from] = change.exchanged_for;
    } else if (!change.renamed_from.empty()) {
        entries.erase(change.renamed_from);
    }
    if (change.node < 0) {
        entries.erase(change.name);
    } else {
        entries[change.name] = change.node;
    }
}

// Which changes of a file touch which sector, by their number in `pending`.
std::map<std::uint64_t, std::vector<std::size_t>> touched_sectors(const Node& file,
                                                                  std::uint64_t image_bytes) {
    std::map<std::uint64_t, std::vector<std::size_t>> sectors;
    for (std::size_t i = 0; i < file.pending.size(); ++i) {
        const Change& change = file.pending[i];
        const std::uint64_t from = change.bytes ? change.offset : change.size;
        const std::uint64_t end = change.bytes ? from + change.bytes->size() : image_bytes;
        for (std::uint64_t s = from / kSectorBytes; s * kSectorBytes < end; ++s) {
            sectors[s].push_back(i);
        }
    }
    return sectors;
}

// Decides for one power loss.
class Fate {
  public:
    // What is pending has orders from `first` to `last`.
    Fate(Survival survival, Random& random, std::uint64_t first, std::uint64_t last)
        : survival_(survival),
          random_(random),
          last_order_(first + below(random, last - first + 1)),
          torn_sectors_(below(random, 8)) {}

    // How many of a file's pending changes of length survive.
    std::size_t lengths(const Node& file) {
        const std::size_t all = file.pending.size();
        switch (survival_) {
            case Survival::nothing:
                return 0;
            case Survival::in_order:
                return static_cast<std::size_t>(std::ranges::count_if(
                    file.pending,
                    [&](const Change& change) { return change.order <= last_order_; }));
            case Survival::any_order:
                return coin() ? all : below(random_, all + 1);
            default:
                return all;
        }
    }

    void begin_file(std::size_t sectors) {
        chosen_sector_ = sectors == 0 ? 0 : below(random_, sectors);
    }

    // How many of the changes that touch a file's `position`-th touched sector survive in it.
    std::size_t changes(const Node& file, std::uint64_t sector, std::size_t position,
                        const std::vector<std::size_t>& touching) {
        const std::size_t all = touching.size();
        switch (survival_) {
            case Survival::nothing:
                return 0;
            case Survival::everything:
                return all;
            case Survival::hole:
                return position == chosen_sector_ ? below(random_, all) : all;
            case Survival::one_sector:
                return position == chosen_sector_ ? all : 0;
            case Survival::any_order:
                return coin() ? all : below(random_, all + 1);
            case Survival::in_order:
                break;
        }
        std::size_t count = 0;
        for (const std::size_t i : touching) {
            const Change& change = file.pending[i];
            const bool torn = change.order == last_order_ && change.bytes != nullptr &&
                              sector - change.offset / kSectorBytes >= torn_sectors_;
            count += change.order <= last_order_ && !torn ? 1 : 0;
        }
        return count;
    }

    bool entry(const EntryChange& change) {
        switch (survival_) {
            case Survival::nothing:
                return false;
            case Survival::in_order:
                return change.order <= last_order_;
            case Survival::any_order:
                return coin();
            default:
                return true;
        }
    }

  private:
    bool coin() { return below(random_, 2) == 0; }

    Survival survival_;
    Random& random_;
    std::uint64_t last_order_;
    std::uint64_t torn_sectors_;
    std::size_t chosen_sector_ = 0;
};

std::string with_changes(std::string image, std::span<const Change> changes) {
    for (const Change& change : changes) {
        image.resize(std::max<std::uint64_t>(image.size(), change.size));
        apply(change, image, 0, image.size());
        image.resize(change.size);
    }
    return image;
}

// A file's bytes with all of its pending changes.
std::string with_pending(std::string image, const Node& file) {
    return with_changes(std::move(image), file.pending);
}

// Where nothing has been written, an old block may show: here another place of the same file,
// which is the likeliest to be mistaken for something valid.
void show_old_blocks(const Node& file, std::string& image, const std::set<std::uint64_t>& written,
                     Random& random) {
    const std::uint64_t old_sectors = file.durable->size() / kSectorBytes;
    for (std::uint64_t s = old_sectors + 1; s * kSectorBytes < image.size(); ++s) {
        if (!written.contains(s) && old_sectors != 0) {
            const std::uint64_t from = below(random, old_sectors) * kSectorBytes;
            const std::uint64_t bytes = std::min(kSectorBytes, image.size() - s * kSectorBytes);
            image.replace(s * kSectorBytes, bytes, *file.durable, from, bytes);
        }
    }
}

std::string survivor(const Node& file, Fate& fate, bool old_blocks, Random& random) {
    std::uint64_t image_bytes = file.durable->size();
    for (const Change& change : file.pending) {
        image_bytes = std::max(image_bytes, change.size);
    }
    std::string image = *file.durable;
    image.resize(image_bytes);
    const std::size_t lengths = fate.lengths(file);
    const auto sectors = touched_sectors(file, image_bytes);
    fate.begin_file(sectors.size());
    std::set<std::uint64_t> written;
    std::size_t position = 0;
    for (const auto& [sector, touching] : sectors) {
        std::size_t count = fate.changes(file, sector, position++, touching);
        // What a surviving truncation cut off does not come back.
        for (std::size_t i = count; i < touching.size() && touching[i] < lengths; ++i) {
            count = file.pending[touching[i]].bytes ? count : i + 1;
        }
        for (std::size_t i = 0; i < count; ++i) {
            apply(file.pending[touching[i]], image, sector * kSectorBytes,
                  (sector + 1) * kSectorBytes);
            written.insert(sector);
        }
    }
    image.resize(lengths == 0 ? file.durable->size() : file.pending[lengths - 1].size);
    if (old_blocks) {
        show_old_blocks(file, image, written, random);
    }
    return image;
}

// Walks from the root; `entries_of` gives the entries of a directory.
template <class EntriesOf>
int find_node(const std::filesystem::path& path, EntriesOf entries_of) {
    int node = 0;
    for (const auto& part : path) {
        if (part.empty() || part == ".") {
            continue;
        }
        const std::map<std::string, int>& entries = entries_of(static_cast<std::size_t>(node));
        const auto entry = entries.find(part.string());
        if (entry == entries.end()) {
            return -1;
        }
        node = entry->second;
    }
    return node;
}

}  // namespace

std::string_view name(Survival survival) {
    constexpr std::string_view kNames[kSurvivals] = {"nothing",   "everything", "in order",
                                                     "any order", "a hole",     "one sector"};
    return kNames[static_cast<std::size_t>(survival)];
}

bool DiskState::all_flushed() const {
    return std::ranges::all_of(nodes, [](const Node& node) {
        return node.pending.empty() && node.pending_entries.empty();
    });
}

int DiskState::find(const std::filesystem::path& path) const {
    return find_node(
        path, [&](std::size_t node) -> auto& { return nodes[node].entries; });
}

DiskState lose_power(const DiskState& disk, Survival survival, Random& random) {
    DiskState after;
    after.nodes.clear();
    after.next_order = disk.next_order;
    after.shows_old_blocks = disk.shows_old_blocks;
    after.names_noted = disk.names_noted;
    std::set<std::uint64_t> orders;
    for (const Node& node : disk.nodes) {
        for (const Change& change : node.pending) {
            orders.insert(change.order);
        }
        for (const EntryChange& change : node.pending_entries) {
            orders.insert(change.order);
        }
    }
    Fate fate(survival, random, orders.empty() ? 0 : *orders.begin(),
              orders.empty() ? 0 : *orders.rbegin());
    for (const Node& node : disk.nodes) {
        Node& survived = after.nodes.emplace_back();
        survived.directory = node.directory;
        survived.durable = node.durable;
        survived.entries = node.entries;
        if (!node.pending.empty()) {
            survived.durable = std::make_shared<const std::string>(
                survivor(node, fate, disk.shows_old_blocks, random));
        }
        for (const EntryChange& change : node.pending_entries) {
            if (fate.entry(change)) {
                apply_entry(change, survived.entries);
            }
        }
    }
    return after;
}

std::size_t fingerprint(const DiskState& disk) {
    std::size_t hash = 0;
    const auto mix = [&](const std::string& bytes) {
        hash = XXH3_64bits_withSeed(bytes.data(), bytes.size(), hash);
    };
    std::vector<int> open = {0};
    while (!open.empty()) {
        const Node& node = disk.nodes[static_cast<std::size_t>(open.back())];
        open.pop_back();
        mix(*node.durable);
        for (const auto& [name, child] : node.entries) {
            mix(name);
            open.push_back(child);
        }
    }
    return hash;
}

FaultDisk::FaultDisk(DiskState state)
    : state_(std::move(state)), contents_(state_.nodes.size()), entries_(state_.nodes.size()) {
    for (std::size_t i = 0; i < state_.nodes.size(); ++i) {
        const Node& node = state_.nodes[i];
        contents_[i] = with_pending(node.cached ? *node.cached : *node.durable, node);
        entries_[i] = node.entries;
        for (const EntryChange& change : node.pending_entries) {
            apply_entry(change, entries_[i]);
        }
    }
}

void FaultDisk::drop_clean_pages() {
    for (std::size_t i = 0; i < state_.nodes.size(); ++i) {
        state_.nodes[i].cached = nullptr;
        contents_[i] = with_pending(*state_.nodes[i].durable, state_.nodes[i]);
    }
}

int FaultDisk::find(const std::filesystem::path& path) const {
    return find_node(
        path, [&](std::size_t node) -> auto& { return entries_[node]; });
}

std::vector<std::string> FaultDisk::list(int directory) const {
    std::vector<std::string> names;
    for (const auto& [name, node] : entries_[static_cast<std::size_t>(directory)]) {
        names.push_back(name);
    }
    return names;
}

const std::string& FaultDisk::contents(int file) const {
    return contents_[static_cast<std::size_t>(file)];
}

std::string& FaultDisk::contents(int file) {
    return contents_[static_cast<std::size_t>(file)];
}

void FaultDisk::change_entry(int directory, EntryChange change) {
    change.order = state_.next_order++;
    apply_entry(change, entries_[static_cast<std::size_t>(directory)]);
    at(directory).pending_entries.push_back(std::move(change));
}

// The new node, or -1 if there is no such directory.
int FaultDisk::create(const std::filesystem::path& path, bool directory) {
    const int parent = find(path.parent_path());
    if (parent < 0) {
        return -1;
    }
    const int node = static_cast<int>(state_.nodes.size());
    state_.nodes.push_back(Node{.directory = directory});
    contents_.emplace_back();
    entries_.emplace_back();
    change_entry(parent, {.name = path.filename().string(), .node = node});
    return node;
}

int FaultDisk::rename(const std::filesystem::path& from, const std::filesystem::path& to) {
    const int node = find(from);
    if (node < 0) {
        return ENOENT;
    }
    change_entry(
        find(to.parent_path()),
        {.name = to.filename().string(), .node = node, .renamed_from = from.filename().string()});
    return 0;
}

int FaultDisk::remove(const std::filesystem::path& path) {
    if (find(path) < 0) {
        return ENOENT;
    }
    change_entry(find(path.parent_path()), {.name = path.filename().string()});
    return 0;
}

void FaultDisk::link(const std::filesystem::path& from, const std::filesystem::path& to) {
    change_entry(find(to.parent_path()), {.name = to.filename().string(), .node = find(from)});
}

void FaultDisk::exchange(const std::filesystem::path& from, const std::filesystem::path& to) {
    change_entry(find(to.parent_path()), {.name = to.filename().string(),
                                          .node = find(from),
                                          .renamed_from = from.filename().string(),
                                          .exchanged_for = find(to)});
}

void FaultDisk::write(int file, std::uint64_t offset, std::string_view bytes) {
    std::string& contents = this->contents(file);
    contents.resize(std::max<std::uint64_t>(contents.size(), offset + bytes.size()));
    contents.replace(offset, bytes.size(), bytes);
    at(file).pending.push_back(
        {state_.next_order++, offset, std::make_shared<const std::string>(bytes), contents.size()});
}

void FaultDisk::resize(int file, std::uint64_t bytes) {
    contents(file).resize(bytes);
    at(file).pending.push_back({state_.next_order++, 0, nullptr, bytes});
}

void FaultDisk::sync(int node, std::uint64_t before) {
    Node& synced = at(node);
    const auto changes = std::ranges::find_if(
        synced.pending, [&](const Change& change) { return change.order >= before; });
    const std::span<const Change> reached(synced.pending.begin(), changes);
    for (Bytes* image : {&synced.durable, &synced.cached}) {
        if (*image && !reached.empty()) {
            *image = std::make_shared<const std::string>(with_changes(**image, reached));
        }
    }
    synced.pending.erase(synced.pending.begin(), changes);
    const auto entries = std::ranges::find_if(
        synced.pending_entries, [&](const EntryChange& change) { return change.order >= before; });
    for (auto change = synced.pending_entries.begin(); change != entries; ++change) {
        apply_entry(*change, synced.entries);
    }
    synced.pending_entries.erase(synced.pending_entries.begin(), entries);
}

void FaultDisk::sync_last(int file) {
    Node& node = at(file);
    const Change last = std::move(node.pending.back());
    node.pending.pop_back();
    std::string image = *node.durable;
    const std::uint64_t end = last.offset + last.bytes->size();
    image.resize(std::max<std::uint64_t>(image.size(), end));
    apply(last, image, 0, image.size());
    node.durable = std::make_shared<const std::string>(std::move(image));
    // What else is pending must not bring older bytes back, nor a shorter file.
    for (Change& change : node.pending) {
        change.size = std::max(change.size, end);
        if (change.bytes && change.offset < end &&
            last.offset < change.offset + change.bytes->size()) {
            std::string bytes = *change.bytes;
            const std::uint64_t from = std::max(last.offset, change.offset);
            const std::uint64_t to = std::min(end, change.offset + bytes.size());
            bytes.replace(from - change.offset, to - from, *last.bytes, from - last.offset,
                          to - from);
            change.bytes = std::make_shared<const std::string>(std::move(bytes));
        }
    }
}

void FaultDisk::fail_sync(int node, Random& random) {
    Node& failed = at(node);
    if (failed.pending.empty()) {
        return;
    }
    Fate fate(Survival::any_order, random, 0, 0);
    const std::uint64_t size = failed.pending.back().size;
    std::string image = survivor(failed, fate, false, random);
    // The length is the file system's own and not lost: only data is.
    image.resize(size);
    failed.cached = std::make_shared<const std::string>(contents(node));
    failed.pending.clear();
    failed.durable = std::make_shared<const std::string>(std::move(image));
}

void FaultDisk::fail_all_syncs(Random& random) {
    for (std::size_t i = 0; i < state_.nodes.size(); ++i) {
        fail_sync(static_cast<int>(i), random);
    }
}

}  // namespace dedup::test
