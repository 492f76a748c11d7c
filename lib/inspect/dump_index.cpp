#include <bit>

#include "index/index_file.hpp"
#include "inspect/dump.hpp"

namespace dedup {
namespace {

IndexDump index_dump(const IndexFile& file) {
    const IndexHeader& header = file.header();
    IndexDump dump;
    dump.version = kIndexVersion;
    dump.store_id = hex_id({header.store_id.data(), header.store_id.size()});
    dump.segment = header.row.id;
    dump.segment_bytes = header.row.bytes;
    dump.entries = header.row.entries;
    dump.next_sequence = header.row.next_sequence;
    dump.time_high_ms = header.row.time_high_ms;
    dump.expires_max_ms = header.row.expires_max_ms;
    dump.versions = header.row.versions;
    dump.version_bytes = header.row.version_bytes;
    dump.run_segments = static_cast<std::uint64_t>(std::popcount(header.joint_members));
    dump.file_bytes = file.bytes();
    return dump;
}

EntryDump entry_dump(std::uint64_t number, const IndexEntry& entry) {
    EntryDump dump{.number = number,
                   .stream = entry.id.xxh,
                   .sequence = entry.sequence,
                   .offset = entry.offset,
                   .state = entry.state(),
                   .expires_from_ms = {}};
    if (entry.expiry() != kExpiryNever) {
        dump.expires_from_ms = expiry_step_start(entry.expiry());
    }
    return dump;
}

}  // namespace

Result<void> dump_index(Env& env, const Path& path, const DumpVisitor& visit) {
    const auto file = IndexFile::open_file(env, path);
    if (!file) {
        return std::unexpected(file.error());
    }
    if (!visit(index_dump(**file))) {
        return {};
    }
    for (const TableState& table : (*file)->check_tables()) {
        if (!visit(TableDump{table.name, table.offset, table.bytes, table.blocks, table.damaged})) {
            return {};
        }
    }
    const SealedIndex index = (*file)->index();
    for (std::uint64_t i = 0; i < index.size(); ++i) {
        const auto entry = index.entry(i);  // nullopt: in a block that is damaged, as said above
        if (entry && !visit(entry_dump(i, *entry))) {
            return {};
        }
    }
    return {};
}

}  // namespace dedup
