#include "catalog/lmdb_check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <set>
#include <vector>

#include "env/bytes.hpp"

namespace dedup {
namespace {

// The layout of LMDB's data version 1; see mdb.c: MDB_page, MDB_node, MDB_meta, MDB_db.
constexpr std::uint32_t kMagic = 0xbeefc0de;
constexpr std::uint32_t kDataVersion = 1;

constexpr std::size_t kPageNumberAt = 0;  // u64
constexpr std::size_t kPageFlagsAt = 10;  // u16
constexpr std::size_t kPageLowerAt = 12;  // u16: end of the node offsets
constexpr std::size_t kPageUpperAt = 14;  // u16: start of the nodes
constexpr std::size_t kPagePagesAt = 12;  // u32, in overflow pages: how many
constexpr std::size_t kPageHeaderBytes = 16;
constexpr std::uint16_t kBranchPage = 0x01;
constexpr std::uint16_t kLeafPage = 0x02;
constexpr std::uint16_t kOverflowPage = 0x04;
constexpr std::uint16_t kMetaPage = 0x08;

constexpr std::size_t kNodeHeaderBytes = 8;  // u16 low, u16 high, u16 flags, u16 key size
constexpr std::uint16_t kBigData = 0x01;     // the value lies in overflow pages
constexpr std::size_t kKeyBytesMax = 511;

constexpr std::size_t kMagicAt = 16;                            // u32
constexpr std::size_t kVersionAt = kMagicAt + 4;                // u32
constexpr std::size_t kAddressAt = kMagicAt + 8;                // u64
constexpr std::size_t kTreesAt = kMagicAt + 24;                 // of free pages, and of the data
constexpr std::size_t kTreeBytes = 48;                          // see read_tree
constexpr std::size_t kLastPageAt = kTreesAt + 2 * kTreeBytes;  // u64
constexpr std::size_t kCommitAt = kLastPageAt + 8;              // u64
constexpr std::size_t kMetaBytes = kCommitAt + 8;
constexpr std::uint64_t kMetaPages = 2;

constexpr std::uint16_t kIntegerKeys = 0x08;
constexpr std::uint64_t kNoPage = UINT64_MAX;
constexpr unsigned kDepthMax = 32;
constexpr std::uint32_t kPageBytesMin = 4096;  // the smallest that Linux has
constexpr std::uint32_t kPageBytesMax = 32768;
// Far more than a store can need. It bounds what the check of a made-up file costs.
constexpr std::uint64_t kFileBytesMax = std::uint64_t{1} << 40;
// LMDB counts commits one by one, and aborts the process where it cannot count on.
constexpr std::uint64_t kCommitMax = UINT64_MAX / 2;
constexpr std::size_t kListBytesPerRead = 64 * 1024;

struct Tree {
    std::uint32_t pad = 0;  // in the tree of free pages: the size of a page
    std::uint16_t flags = 0;
    std::uint16_t depth = 0;
    std::uint64_t branch_pages = 0;
    std::uint64_t leaf_pages = 0;
    std::uint64_t overflow_pages = 0;
    std::uint64_t entries = 0;
    std::uint64_t root = kNoPage;

    bool operator==(const Tree&) const = default;
};
static_assert(sizeof(Tree) == kTreeBytes);

// A copy's blocks, and how often it begins anew.
constexpr std::uint64_t kCopyBytes = 256 * 1024;
constexpr int kCopyTries = 100;

struct Meta {
    std::uint32_t version = 0;
    std::uint64_t address = 0;
    Tree free;
    Tree data;
    std::uint64_t last_page = 0;
    std::uint64_t commit = 0;

    bool operator==(const Meta&) const = default;
};

// What stands before a node's key. (Two numbers share their bytes with the flags.)
struct NodeHeader {
    explicit NodeHeader(const char* node)
        : low(load<std::uint32_t>(node)),
          flags(load<std::uint16_t>(node + 4)),
          key_bytes(load<std::uint16_t>(node + 6)) {}

    [[nodiscard]] std::uint64_t child() const { return low | std::uint64_t{flags} << 32; }
    [[nodiscard]] std::uint64_t value_bytes() const { return low; }

    std::uint64_t low;
    std::uint16_t flags;
    std::size_t key_bytes;
};

struct TreeNode {
    std::string_view key;
    std::uint64_t child = 0;  // in a branch page
    std::uint64_t value_bytes = 0;
    std::string_view value;  // in the page itself
    bool big = false;
    std::uint64_t big_page = 0;
};

// Checks one committed state. Functions give false and say in what() why the file is damaged, or
// keep an error of the system's in error().
class Checker {
  public:
    Checker(File& file, const Meta& meta, std::uint64_t file_pages)
        : file_(file),
          meta_(meta),
          page_bytes_(meta.free.pad),
          used_(std::min(file_pages, meta.last_page + 1)) {}

    bool run() {
        used_[0] = used_[1] = true;
        if (!check_tree(meta_.free, true) || !check_tree(meta_.data, false)) {
            return false;
        }
        // LMDB does not write pages that a transaction takes at the end and frees again.
        const std::uint64_t unwritten = free_beyond_end_.size();
        const std::uint64_t missing =
            meta_.last_page < used_.size() ? 0 : meta_.last_page + 1 - used_.size();
        return missing == unwritten ||
               damaged(used_.size(), fmt::format("the file ends here, and {} pages of {} bytes are "
                                                 "missing",
                                                 missing - unwritten, page_bytes_));
    }

    [[nodiscard]] const std::string& what() const { return what_; }
    [[nodiscard]] const std::optional<Error>& error() const { return error_; }

  private:
    bool damaged(std::uint64_t page, std::string_view what) {
        what_ = fmt::format("at offset {}: {}", page * page_bytes_, what);
        return false;
    }

    bool read(std::uint64_t page, std::uint64_t offset, std::span<char> into) {
        const auto got = file_.read(page * page_bytes_ + offset, into);
        if (!got) {
            error_ = got.error();
            return false;
        }
        return *got == into.size() || damaged(page, "the file ends here");
    }

    // Notes that `pages` pages serve one purpose.
    bool use(std::uint64_t page, std::uint64_t pages) {
        if (page < kMetaPages || page > meta_.last_page || pages > meta_.last_page - page + 1) {
            return damaged(page, "there is no such page, yet something refers to it");
        }
        if (pages > used_.size() || page > used_.size() - pages) {
            return damaged(used_.size(), "the file ends here, within pages that are in use");
        }
        for (std::uint64_t i = page; i < page + pages; ++i) {
            if (used_[i]) {
                return damaged(i, "this page serves two purposes");
            }
            used_[i] = true;
        }
        return true;
    }

    bool check_tree(const Tree& tree, bool free_pages) {
        counted_ = {};
        integer_keys_ = free_pages;
        last_key_.clear();
        least_key_.clear();
        if (tree.root != kNoPage && !check_page(tree.root, 1, tree.depth)) {
            return false;
        }
        if ((tree.root == kNoPage && tree.depth != 0) ||
            counted_.branch_pages != tree.branch_pages || counted_.leaf_pages != tree.leaf_pages ||
            counted_.overflow_pages != tree.overflow_pages || counted_.entries != tree.entries) {
            return damaged(0, "a tree has more or fewer pages and entries than this page says");
        }
        return true;
    }

    bool check_page(std::uint64_t page, unsigned level, unsigned depth);
    bool read_nodes(std::uint64_t page, const std::string& bytes, bool branch,
                    std::vector<TreeNode>& nodes);
    bool check_leaf_node(std::uint64_t page, const TreeNode& node);
    bool check_big_value(const TreeNode& node);
    bool check_free_pages(std::uint64_t page, const TreeNode& node);
    bool check_free_page(std::uint64_t page, std::uint64_t free, std::uint64_t previous);
    [[nodiscard]] bool less(std::string_view a, std::string_view b) const {
        return integer_keys_ ? load<std::uint64_t>(a.data()) < load<std::uint64_t>(b.data())
                             : a < b;
    }
    [[nodiscard]] bool follows(std::string_view key) const {
        return (last_key_.empty() || less(last_key_, key)) &&
               (least_key_.empty() || !less(key, least_key_));
    }

    File& file_;
    const Meta& meta_;
    const std::uint64_t page_bytes_;
    std::vector<bool> used_;  // of the pages that the file has
    std::set<std::uint64_t> free_beyond_end_;
    Tree counted_;
    bool integer_keys_ = false;
    std::string last_key_;   // of the leaf node before, in order
    std::string least_key_;  // that a branch page promises for what follows
    std::string what_;
    std::optional<Error> error_;
};

// Reads the nodes of a page, which fill it from its end without gaps or overlaps.
bool Checker::read_nodes(std::uint64_t page, const std::string& bytes, bool branch,
                         std::vector<TreeNode>& nodes) {
    const std::size_t lower = load<std::uint16_t>(bytes.data() + kPageLowerAt);
    const std::size_t upper = load<std::uint16_t>(bytes.data() + kPageUpperAt);
    if (lower < kPageHeaderBytes + 2 || lower % 2 != 0 || lower > upper || upper > bytes.size()) {
        return damaged(page, "the bounds of its nodes make no sense");
    }
    std::vector<std::pair<std::size_t, std::size_t>> places;  // begin and end
    for (std::size_t at = kPageHeaderBytes; at < lower; at += 2) {
        const std::size_t begin = load<std::uint16_t>(bytes.data() + at);
        if (begin < upper || begin + kNodeHeaderBytes > bytes.size()) {
            return damaged(page, "a node lies outside of it");
        }
        const char* node_bytes = bytes.data() + begin;
        const NodeHeader header(node_bytes);
        const std::size_t key_bytes = header.key_bytes;
        TreeNode node;
        node.child = header.child();
        node.value_bytes = branch ? 0 : header.value_bytes();
        node.big = !branch && header.flags == kBigData;
        const std::uint64_t stored = node.big ? sizeof(std::uint64_t) : node.value_bytes;
        const std::uint64_t end = begin + kNodeHeaderBytes + key_bytes + stored;
        const bool key_fits = integer_keys_ ? key_bytes == sizeof(std::uint64_t)
                                            : key_bytes != 0 && key_bytes <= kKeyBytesMax;
        if ((!branch && header.flags != 0 && !node.big) || end > bytes.size() ||
            (!key_fits && !(branch && nodes.empty()))) {
            return damaged(page, "a node of it makes no sense");
        }
        node.key = {node_bytes + kNodeHeaderBytes, key_bytes};
        node.value = {node_bytes + kNodeHeaderBytes + key_bytes, stored};
        if (node.big) {
            node.big_page = load<std::uint64_t>(node.value.data());
        }
        nodes.push_back(node);
        places.emplace_back(begin, end + end % 2);
    }
    std::ranges::sort(places);
    std::size_t filled = upper;
    for (const auto& [begin, end] : places) {
        if (begin != filled) {
            return damaged(page, "its nodes overlap or leave a gap");
        }
        filled = end;
    }
    return filled == bytes.size() || damaged(page, "its nodes do not reach its end");
}

// Keys ascend through the whole tree, which is walked in order.
bool Checker::check_page(std::uint64_t page, unsigned level, unsigned depth) {
    std::string bytes(page_bytes_, '\0');
    if (level > depth || level > kDepthMax) {
        return damaged(page, "the tree is deeper than it should be");
    }
    if (!use(page, 1) || !read(page, 0, bytes)) {
        return false;
    }
    const bool branch = level < depth;
    if (load<std::uint64_t>(bytes.data() + kPageNumberAt) != page ||
        load<std::uint16_t>(bytes.data() + kPageFlagsAt) != (branch ? kBranchPage : kLeafPage)) {
        return damaged(page, "this is not the page that should be here");
    }
    std::vector<TreeNode> nodes;
    if (!read_nodes(page, bytes, branch, nodes)) {
        return false;
    }
    ++(branch ? counted_.branch_pages : counted_.leaf_pages);
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        // (The first key of a branch page stands for everything below and is not looked at.)
        const bool bound = !branch || i > 0;
        if (bound && !follows(nodes[i].key)) {
            return damaged(page, "its keys are out of order");
        }
        if (branch) {
            least_key_ = bound ? std::string(nodes[i].key) : least_key_;
            if (!check_page(nodes[i].child, level + 1, depth)) {
                return false;
            }
        } else if (!check_leaf_node(page, nodes[i])) {
            return false;
        }
    }
    return true;
}

bool Checker::check_leaf_node(std::uint64_t page, const TreeNode& node) {
    ++counted_.entries;
    last_key_ = node.key;
    return (!node.big || check_big_value(node)) && (!integer_keys_ || check_free_pages(page, node));
}

// Checks the first of a value's own pages.
bool Checker::check_big_value(const TreeNode& node) {
    const std::uint64_t pages = (kPageHeaderBytes - 1 + node.value_bytes) / page_bytes_ + 1;
    std::array<char, kPageHeaderBytes> header;
    if (!use(node.big_page, pages) || !read(node.big_page, 0, header)) {
        return false;
    }
    if (load<std::uint64_t>(header.data() + kPageNumberAt) != node.big_page ||
        load<std::uint16_t>(header.data() + kPageFlagsAt) != kOverflowPage ||
        load<std::uint32_t>(header.data() + kPagePagesAt) != pages) {
        return damaged(node.big_page, "this is not the value that should be here");
    }
    counted_.overflow_pages += pages;
    return true;
}

// A list of the pages that a commit has freed: their number, then each, in descending order. It is
// read in pieces, since a file with holes can have a list that is longer than the memory.
bool Checker::check_free_pages(std::uint64_t page, const TreeNode& node) {
    constexpr std::size_t kBytes = sizeof(std::uint64_t);
    const auto commit = load<std::uint64_t>(node.key.data());
    if (commit == 0 || commit > meta_.commit) {
        return damaged(page, "a list of free pages is of a commit that has not been");
    }
    std::string piece;
    std::uint64_t previous = kNoPage;
    for (std::uint64_t at = 0; at < std::max(node.value_bytes, kBytes); at += piece.size()) {
        if (node.big) {
            piece.resize(std::min<std::uint64_t>(kListBytesPerRead, node.value_bytes - at));
            if (!read(node.big_page, kPageHeaderBytes + at, piece)) {
                return false;
            }
        } else {
            piece = node.value;
        }
        if (at == 0 && (piece.size() < kBytes || node.value_bytes % kBytes != 0 ||
                        load<std::uint64_t>(piece.data()) != node.value_bytes / kBytes - 1)) {
            return damaged(page, "a list of free pages has not the length that it says");
        }
        for (std::size_t i = at == 0 ? kBytes : 0; i < piece.size(); i += kBytes) {
            const auto free = load<std::uint64_t>(piece.data() + i);
            if (!check_free_page(page, free, previous)) {
                return false;
            }
            previous = free;
        }
    }
    return true;
}

bool Checker::check_free_page(std::uint64_t page, std::uint64_t free, std::uint64_t previous) {
    if (free >= previous) {
        return damaged(page, "a list of free pages is out of order");
    }
    if (free >= used_.size() && free <= meta_.last_page) {
        return free_beyond_end_.insert(free).second || damaged(page, "a page is free twice");
    }
    return use(free, 1);
}

Tree read_tree(const char* bytes) {
    return load<Tree>(bytes);
}

Error damaged_file(const Path& path, std::string_view what) {
    return {Code::corruption, fmt::format("{} is damaged {}", path.string(), what)};
}

// Reads the two meta pages, of which the one with the later commit counts.
Result<Meta> read_meta(const Path& path, File& file) {
    std::array<Meta, kMetaPages> metas;
    for (std::uint64_t page = 0; page < kMetaPages; ++page) {
        const std::uint64_t at = page == 0 ? 0 : metas[0].free.pad;
        std::array<char, kMetaBytes> bytes;
        const auto got = file.read(at, bytes);
        if (!got) {
            return std::unexpected(got.error());
        }
        Meta& meta = metas[page];
        meta.version = load<std::uint32_t>(bytes.data() + kVersionAt);
        meta.address = load<std::uint64_t>(bytes.data() + kAddressAt);
        meta.free = read_tree(bytes.data() + kTreesAt);
        meta.data = read_tree(bytes.data() + kTreesAt + kTreeBytes);
        meta.last_page = load<std::uint64_t>(bytes.data() + kLastPageAt);
        meta.commit = load<std::uint64_t>(bytes.data() + kCommitAt);
        const std::uint32_t page_bytes = meta.free.pad;
        if (*got < bytes.size() || load<std::uint32_t>(bytes.data() + kMagicAt) != kMagic ||
            load<std::uint64_t>(bytes.data() + kPageNumberAt) != page ||
            load<std::uint16_t>(bytes.data() + kPageFlagsAt) != kMetaPage ||
            page_bytes < kPageBytesMin || page_bytes > kPageBytesMax ||
            !std::has_single_bit(page_bytes) || page_bytes != metas[0].free.pad ||
            meta.version != metas[0].version) {
            return std::unexpected(
                damaged_file(path, fmt::format("at offset {}: this is no LMDB meta page", at)));
        }
    }
    const std::uint64_t newest = metas[0].commit < metas[1].commit ? 1 : 0;
    const Meta& meta = metas[newest];
    // LMDB takes the later commit's number, and then the page that has the number's parity.
    if (meta.version == kDataVersion &&
        (meta.commit % kMetaPages != newest || meta.commit > kCommitMax)) {
        return std::unexpected(
            damaged_file(path, fmt::format("at offset {}: there cannot have been {} commits",
                                           newest * metas[0].free.pad + kCommitAt, meta.commit)));
    }
    return meta;
}

Result<void> check_state(const Path& path, File& file, const Meta& meta) {
    if (meta.version != kDataVersion) {
        return {};  // not for this to judge; LMDB refuses what it does not know
    }
    const auto file_bytes = file.size();
    if (!file_bytes) {
        return std::unexpected(file_bytes.error());
    }
    const std::uint64_t file_pages = *file_bytes / meta.free.pad;
    if (file_pages < kMetaPages) {
        return std::unexpected(damaged_file(path, "at its end: its meta pages are cut"));
    }
    if (meta.address != 0 || meta.free.flags != kIntegerKeys || meta.data.flags != 0 ||
        meta.last_page < kMetaPages - 1 || meta.last_page >= kFileBytesMax / meta.free.pad) {
        return std::unexpected(damaged_file(path, "at offset 0: its meta page makes no sense"));
    }
    Checker checker(file, meta, file_pages);
    if (!checker.run()) {
        return std::unexpected(checker.error() ? *checker.error()
                                               : damaged_file(path, checker.what()));
    }
    return {};
}

}  // namespace

Result<void> check_lmdb_file(const Path& path, File& file) {
    const auto meta = read_meta(path, file);
    return meta ? check_state(path, file, *meta) : std::unexpected(meta.error());
}

Result<LmdbState> read_lmdb_state(const Path& path, File& file) {
    const auto meta = read_meta(path, file);
    if (!meta) {
        return std::unexpected(meta.error());
    }
    return LmdbState{meta->commit, meta->free.pad, meta->last_page};
}

std::uint64_t newest_commit(std::string_view metas, std::uint64_t page_bytes) {
    const auto commit_at = [&](std::uint64_t page) {
        return *reinterpret_cast<const volatile std::uint64_t*>(metas.data() + page * page_bytes +
                                                                kCommitAt);
    };
    return std::max(commit_at(0), commit_at(1));
}

std::optional<std::string> find_lmdb_value(const Path& path, File& file, std::string_view key) {
    const auto meta = read_meta(path, file);
    std::uint64_t page = meta ? meta->data.root : kNoPage;
    for (unsigned level = 1; meta && level <= kDepthMax && page <= meta->last_page; ++level) {
        std::string bytes(meta->free.pad, '\0');
        const auto got = file.read(page * bytes.size(), bytes);
        const std::size_t lower = load<std::uint16_t>(bytes.data() + kPageLowerAt);
        if (!got || *got != bytes.size() || lower > bytes.size()) {
            return std::nullopt;
        }
        const bool branch = load<std::uint16_t>(bytes.data() + kPageFlagsAt) == kBranchPage;
        std::optional<std::uint64_t> child;
        for (std::size_t at = kPageHeaderBytes; at + 2 <= lower; at += 2) {
            const std::size_t begin = load<std::uint16_t>(bytes.data() + at);
            if (begin + kNodeHeaderBytes > bytes.size()) {
                return std::nullopt;
            }
            const char* const node = bytes.data() + begin;
            const NodeHeader header(node);
            const std::uint64_t value_bytes = branch ? 0 : header.value_bytes();
            if (begin + kNodeHeaderBytes + header.key_bytes + value_bytes > bytes.size()) {
                continue;  // a large value
            }
            const std::string_view name(node + kNodeHeaderBytes, header.key_bytes);
            if (!branch && header.flags == 0 && name == key) {
                return std::string(name.data() + name.size(), value_bytes);
            }
            if (branch && (!child || name <= key)) {
                child = header.child();
            }
        }
        if (!child) {
            return std::nullopt;
        }
        page = *child;
    }
    return std::nullopt;
}

namespace {

// False: a writer has been too fast.
Result<bool> try_copy(const Path& path, File& from, File& to) {
    const auto state = read_lmdb_state(path, from);
    if (!state) {
        return std::unexpected(state.error());
    }
    std::vector<char> metas(kMetaPages * state->page_bytes);
    std::vector<char> again(metas.size());
    const auto got_metas = from.read(0, metas);
    const auto got_again = from.read(0, again);
    const auto same = read_lmdb_state(path, from);
    if (!got_metas || !got_again || !same) {
        return std::unexpected(!got_metas   ? got_metas.error()
                               : !got_again ? got_again.error()
                                            : same.error());
    }
    if (*same != *state || metas != again) {
        return false;
    }
    auto done = to.write(0, {metas.data(), *got_metas});
    std::vector<char> block(kCopyBytes);
    const std::uint64_t end = (state->last_page + 1) * state->page_bytes;
    for (std::uint64_t at = from.skip_hole(metas.size()); done && at < end;) {
        const auto got = from.read(at, {block.data(), std::min(kCopyBytes, end - at)});
        if (!got) {
            return std::unexpected(got.error());
        }
        if (*got == 0) {
            break;  // free pages at the end were never written
        }
        done = to.write(at, {block.data(), *got});
        at = from.skip_hole(at + *got);
    }
    const auto now = read_lmdb_state(path, from);
    if (!done || !now) {
        return std::unexpected(done ? now.error() : done.error());
    }
    return now->commit <= state->commit + 1;
}

}  // namespace

// A writer leaves the pages of its newest commit alone until two commits later. So what has been
// copied is whole if there has been at most one since; the meta pages are copied as they were at
// first.
Result<void> copy_lmdb_file(const Path& path, File& from, File& to) {
    for (int tries = 0; tries < kCopyTries; ++tries) {
        const auto copied = try_copy(path, from, to);
        if (!copied || *copied) {
            return copied ? Result<void>() : std::unexpected(copied.error());
        }
    }
    return std::unexpected(
        Error{Code::unavailable,
              fmt::format("{} changes too fast to be read; try again", path.string())});
}

}  // namespace dedup
