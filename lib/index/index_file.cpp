#include "index/index_file.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "env/bytes.hpp"
#include "index/filter.hpp"

namespace dedup {
namespace {

constexpr std::string_view kIndexSuffix = ".idx";

// The file's beginning. The layout on disk is this structure, followed by its checksum.
struct FileStart {
    std::array<char, 8> magic{};
    std::uint32_t version = kIndexVersion;
    std::uint32_t start_bytes = 0;
    IndexHeader header;
};
static_assert(sizeof(FileStart) == 16 + 16 + 192 + sizeof(SegmentRow) + 16);

// Sections begin such that their data, behind the padding, begin on a cache line.
constexpr std::uint64_t kLineBytes = 64;
constexpr std::uint64_t kSectionShift = kLineBytes - kBlobPadBytes;

std::uint64_t section_start(std::uint64_t from) {
    return (from + kLineBytes - 1 - kSectionShift) / kLineBytes * kLineBytes + kSectionShift;
}

enum Section : std::size_t { kIndex, kFilter, kJoint, kSections };

struct SectionPlace {
    std::uint64_t begin = 0;
    std::uint64_t data_bytes = 0;  // 0: there is none

    [[nodiscard]] std::uint64_t bytes() const {
        return data_bytes == 0 ? 0 : blob_bytes(data_bytes);
    }
};

struct Layout {
    explicit Layout(const IndexHeader& header) {
        const std::uint64_t entries = header.row.entries;
        const std::array<std::uint64_t, kSections> data = {
            index_bytes(entries), Filter::bytes_for(entries), header.joint_bytes};
        end = sizeof(FileStart) + sizeof(std::uint64_t);
        for (std::size_t i = 0; i < kSections; ++i) {
            if (data[i] != 0) {
                places[i] = {section_start(end), data[i]};
                end = places[i].begin + places[i].bytes();
            }
        }
    }
    std::array<SectionPlace, kSections> places;
    std::uint64_t end = 0;
};

std::uint64_t section_owner(const IndexHeader& header, std::size_t section) {
    return XXH3_64bits_withSeed(header.store_id.data(), header.store_id.size(),
                                header.row.id * kSections + section);
}

std::string encode_start(const IndexHeader& header) {
    FileStart start;
    std::ranges::copy(kIndexMagic, start.magic.begin());
    start.start_bytes = sizeof start;
    start.header = header;
    // What sweeps and later seals change is the catalog's.
    SegmentRow& row = start.header.row;
    row.expires_min_ms = 0;
    row.streams = row.superseded = row.removed = {};
    std::string bytes(sizeof start + sizeof(std::uint64_t), '\0');
    store(bytes.data(), start);
    store(bytes.data() + sizeof start, XXH3_64bits(bytes.data(), sizeof start));
    return bytes;
}

// Writes a section piece by piece: the padding, the data, and a checksum for each block of these.
class SectionWriter {
  public:
    SectionWriter(File& file, std::uint64_t begin, std::uint64_t owner)
        : file_(file), at_(begin + kBlobPadBytes), owner_(owner) {}

    Result<void> add(std::string_view bytes) {
        while (!bytes.empty()) {
            const std::size_t part = std::min(bytes.size(), kPieceBytes - piece_.size());
            piece_.append(bytes.substr(0, part));
            bytes.remove_prefix(part);
            if (piece_.size() == kPieceBytes) {
                if (auto written = write_piece(); !written) {
                    return written;
                }
            }
        }
        return {};
    }
    Result<void> finish() {
        if (auto written = write_piece(); !written) {
            return written;
        }
        return file_.write(at_, {reinterpret_cast<const char*>(checksums_.data()),
                                 checksums_.size() * sizeof(std::uint64_t)});
    }

  private:
    static constexpr std::size_t kPieceBytes = 256 * kBlobBlockBytes;

    Result<void> write_piece() {
        for (std::size_t at = 0; at < piece_.size(); at += kBlobBlockBytes) {
            checksums_.push_back(blob_checksum(std::string_view(piece_).substr(at, kBlobBlockBytes),
                                               owner_, checksums_.size()));
        }
        auto written = file_.write(at_, piece_);
        at_ += piece_.size();
        piece_.clear();
        return written;
    }

    File& file_;
    std::uint64_t at_;
    std::uint64_t owner_;
    std::string piece_;
    std::vector<std::uint64_t> checksums_;
};

Result<void> write_section(File& file, const IndexHeader& header, Section section,
                           std::span<const std::string_view> parts) {
    SectionWriter writer(file, Layout(header).places[section].begin,
                         section_owner(header, section));
    for (const std::string_view part : parts) {
        if (auto added = writer.add(part); !added) {
            return added;
        }
    }
    return writer.finish();
}

Result<void> write_sections(File& file, const IndexHeader& header,
                            std::span<const IndexEntry> entries, std::string_view joint) {
    auto done = file.write(0, encode_start(header));
    if (done && !entries.empty()) {
        const std::string fences = index_fences(entries);
        const std::array<std::string_view, 2> parts = {
            std::string_view(reinterpret_cast<const char*>(entries.data()), entries.size_bytes()),
            fences};
        done = write_section(file, header, kIndex, parts);
    }
    if (done) {
        std::string filter(Filter::bytes_for(entries.size()), '\0');
        build_filter(entries, filter.data());
        const std::string_view part = filter;
        done = write_section(file, header, kFilter, {&part, 1});
    }
    return done && !joint.empty() ? write_section(file, header, kJoint, {&joint, 1}) : done;
}

}  // namespace

std::string index_file_name(std::uint64_t segment_id) {
    return segment_file_name(segment_id, kIndexSuffix);
}

std::optional<std::uint64_t> indexed_segment(std::string_view file_name) {
    return segment_id(file_name, kIndexSuffix);
}

Result<void> write_index_file(Env& env, const Path& log, const IndexHeader& header,
                              std::span<const IndexEntry> entries, std::string_view joint) {
    const Path path = log / index_file_name(header.row.id);
    const Path unnamed = path.string() + ".tmp";
    auto file = env.open(unnamed, OpenMode::create);
    if (!file) {
        return std::unexpected(file.error());
    }
    auto done = write_sections(**file, header, entries, joint);
    if (done) {
        done = (*file)->sync();
    }
    file->reset();
    if (done) {
        done = env.rename(unnamed, path);
    }
    if (!done) {
        (void)env.remove(unnamed);  // on a full disk, what there is of it would be in the way
        return done;
    }
    return env.sync_directory(log);
}

Result<std::shared_ptr<const IndexFile>> IndexFile::open(Env& env, const Path& log,
                                                         const StoreId& store_id,
                                                         const HashSecret& secret, std::uint64_t id,
                                                         std::uint64_t segment_bytes) {
    const Path path = log / index_file_name(id);
    auto index = open_file(env, path);
    if (!index) {
        return index;
    }
    const auto damaged = [&](std::string_view what) {
        return std::unexpected(Error{Code::corruption, fmt::format("{} {}", path.string(), what)});
    };
    const IndexHeader& header = (*index)->header();
    if (header.store_id != store_id || header.row.id != id || header.row.bytes != segment_bytes) {
        return damaged("is of another segment");
    }
    if (header.secret != secret) {
        return damaged("is of another catalog");
    }
    return index;
}

Result<std::shared_ptr<const IndexFile>> IndexFile::open_file(Env& env, const Path& path) {
    const auto damaged = [&](std::string_view what, int os_error = 0) {
        return std::unexpected(
            Error{Code::corruption, fmt::format("{} {}", path.string(), what), os_error});
    };
    auto file = env.open(path, OpenMode::read);
    if (!file) {
        return file.error().os_error == ENOENT ? damaged("is missing", ENOENT)
                                               : std::unexpected(file.error());
    }
    std::array<char, sizeof(FileStart) + sizeof(std::uint64_t)> bytes;
    const auto got = (*file)->read(0, bytes);
    const auto size = (*file)->size();
    if (!got || !size) {
        return std::unexpected(got ? size.error() : got.error());
    }
    if (*got < bytes.size() || !std::string_view(bytes.data(), *got).starts_with(kIndexMagic) ||
        load<std::uint64_t>(bytes.data() + sizeof(FileStart)) !=
            XXH3_64bits(bytes.data(), sizeof(FileStart))) {
        return damaged("is damaged at its beginning");
    }
    const auto start = load<FileStart>(bytes.data());
    if (start.version > kIndexVersion) {
        return std::unexpected(Error{
            Code::unsupported_version,
            fmt::format("{} has format version {}, and this program knows versions up to {}; use a "
                        "newer one",
                        path.string(), start.version, kIndexVersion)});
    }
    const IndexHeader& header = start.header;
    if (header.row.entries > header.row.records() || header.row.records() > header.row.bytes ||
        header.row.bytes > kSegmentFileBytesMax || header.joint_bytes > *size ||
        header.joint_bytes % JointFilter::kBlockBytes != 0 || Layout(header).end != *size) {
        return damaged(fmt::format("has {} bytes, which is not what it says", *size));
    }
    std::shared_ptr<IndexFile> index(new IndexFile(path, header));
    index->bytes_ = (*file)->map(*size);
    if (index->bytes_.empty()) {
        index->copy_.resize(*size);
        const auto read = (*file)->read(0, index->copy_);
        if (!read) {
            return std::unexpected(read.error());
        }
        if (*read != *size) {
            return damaged("has become shorter");
        }
        index->bytes_ = index->copy_;
    } else {
        (*file)->keep_map_only();
        index->file_ = std::move(*file);
    }
    index->checked_ = std::make_shared<CheckedBlocks>(index_bytes(header.row.entries));
    return index;
}

SealedIndex IndexFile::index() const {
    const SectionPlace place = Layout(header_).places[kIndex];
    return {CheckedBlob(bytes_.substr(place.begin, place.bytes()), place.data_bytes,
                        section_owner(header_, kIndex), checked_),
            header_.row.entries};
}

CheckedBlob IndexFile::table(std::size_t section) const {
    const SectionPlace place = Layout(header_).places[section];
    return {bytes_.substr(place.begin, place.bytes()), place.data_bytes,
            section_owner(header_, section), std::make_shared<CheckedBlocks>(place.data_bytes)};
}

bool IndexFile::filters_intact() const {
    return table(kFilter).intact() && table(kJoint).intact();
}

std::vector<TableState> IndexFile::check_tables() const {
    constexpr std::array<std::string_view, kSections> kNames = {"entries", "filter",
                                                                "joint filter"};
    std::vector<TableState> tables;
    for (std::size_t i = 0; i < kSections; ++i) {
        const SectionPlace place = Layout(header_).places[i];
        if (place.data_bytes == 0) {
            continue;
        }
        const CheckedBlob blob = table(i);
        TableState& state = tables.emplace_back();
        state.name = kNames[i];
        state.offset = place.begin + kBlobPadBytes;
        state.bytes = place.data_bytes;
        for (std::uint64_t at = 0; at < place.data_bytes; at += kBlobBlockBytes) {
            if (!blob.intact(at)) {
                state.damaged.push_back(state.blocks);
            }
            ++state.blocks;
        }
    }
    return tables;
}

Result<void> IndexFile::copy(std::size_t section, std::string_view what, char* to) const {
    const CheckedBlob blob = table(section);
    std::memcpy(to, blob.data(), Layout(header_).places[section].data_bytes);
    if (!blob.intact()) {
        return std::unexpected(
            Error{Code::corruption, fmt::format("{} is damaged: {}", path_.string(), what)});
    }
    return {};
}

Result<void> IndexFile::copy_filter(char* to) const {
    return copy(kFilter, "its filter", to);
}

Result<void> IndexFile::copy_joint(char* to) const {
    return copy(kJoint, "the filter of its run", to);
}

}  // namespace dedup
