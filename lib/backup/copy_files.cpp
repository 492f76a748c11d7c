#include "backup/copy_files.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <string_view>
#include <vector>

#include "index/index_file.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

constexpr std::size_t kPieceBytes = 1024 * 1024;
// Two files of one name and length are the same if they begin and end alike: both have checksums
// there of what they are and of where it goes on.
constexpr std::uint64_t kHeadBytes = 4096;
constexpr std::uint64_t kTailBytes = 64 * 1024;

// A file to copy: open, so that it can be read although a sweep has removed its name.
struct Source {
    Path path;
    File& file;
    std::uint64_t bytes = 0;
    bool sealed = false;  // nobody will change it
};

class FileCopier {
  public:
    FileCopier(const CopyPlace& place, BackupReport& report, const Progress& progress,
               std::uint64_t total)
        : place_(place), report_(report), progress_(progress), total_(total) {}

    Result<void> take(const Source& from) {
        const Path to = place_.to / "log" / from.path.filename();
        if (from.sealed) {
            if (place_.older) {
                const Path older = *place_.older / "log" / from.path.filename();
                if (is_same(from, older).value_or(false) && linked(older, to, from.bytes)) {
                    return {};
                }
            }
            if (place_.link && linked(from.path, to, from.bytes)) {
                return {};
            }
        }
        return copy(from, to);
    }

  private:
    // False: it was not possible, for whatever reason. Then it is copied.
    bool linked(const Path& from, const Path& to, std::uint64_t bytes) {
        if (::link(from.c_str(), to.c_str()) != 0) {
            return false;
        }
        report_.bytes_linked += bytes;
        advance(bytes);
        return true;
    }

    Result<bool> is_same(const Source& from, const Path& older) {
        if (DEDUP_TRY(place_.env.type(older)) != PathType::file) {
            return false;
        }
        const auto file = DEDUP_TRY(place_.env.open(older, OpenMode::read));
        if (DEDUP_TRY(file->size()) < from.bytes) {
            return false;
        }
        const std::uint64_t head = std::min(from.bytes, kHeadBytes);
        const std::uint64_t tail = std::min(from.bytes, kTailBytes);
        return DEDUP_TRY(read(from.file, 0, head)) == DEDUP_TRY(read(*file, 0, head)) &&
               DEDUP_TRY(read(from.file, from.bytes - tail, tail)) ==
                   DEDUP_TRY(read(*file, from.bytes - tail, tail));
    }

    static Result<std::string> read(File& file, std::uint64_t offset, std::uint64_t bytes) {
        std::string piece(bytes, '\0');
        piece.resize(DEDUP_TRY(file.read(offset, piece)));
        return piece;
    }

    Result<void> copy(const Source& from, const Path& to) {
        const auto file = DEDUP_TRY(place_.env.open(to, OpenMode::create));
        for (std::uint64_t at = 0; at < from.bytes; at += kPieceBytes) {
            const std::uint64_t bytes = std::min<std::uint64_t>(kPieceBytes, from.bytes - at);
            const std::string piece = DEDUP_TRY(read(from.file, at, bytes));
            if (piece.size() != bytes) {
                return std::unexpected(
                    Error{Code::corruption,
                          fmt::format("{} ends at offset {}, and should have {} "
                                      "bytes",
                                      from.path.string(), at + piece.size(), from.bytes)});
            }
            DEDUP_TRY(file->write(at, piece));
            report_.bytes_copied += bytes;
            advance(bytes);
        }
        return file->sync();
    }

    void advance(std::uint64_t bytes) {
        done_ += bytes;
        if (progress_) {
            progress_(done_, std::max(done_, total_));
        }
    }

    const CopyPlace& place_;
    BackupReport& report_;
    const Progress& progress_;
    const std::uint64_t total_;
    std::uint64_t done_ = 0;
};

}  // namespace

Result<void> copy_files(LogStore& store, const CopyPlace& place, BackupReport& report,
                        const Progress& progress) {
    const Path& log = store.context().log_path;
    const ViewPtr view = DEDUP_TRY(store.reader().view());
    std::vector<Source> sources;
    // The indexes, which can be made anew: one whose segment has been dropped meanwhile has no name
    // any more.
    std::vector<std::unique_ptr<File>> indexes;
    for (const SealedSegment& sealed : view->sealed->segments()) {
        sources.push_back({sealed.segment->path(), sealed.segment->file(), sealed.row.bytes, true});
        const Path path = log / index_file_name(sealed.row.id);
        if (auto index = place.env.open(path, OpenMode::read)) {
            const std::uint64_t bytes = DEDUP_TRY((*index)->size());
            sources.push_back({path, **index, bytes, true});
            indexes.push_back(std::move(*index));
        } else if (index.error().os_error != ENOENT) {
            return std::unexpected(index.error());
        }
    }
    // Newest first, which is the only one that may still grow.
    for (const auto& unsealed : view->unsealed) {
        sources.push_back({unsealed->segment->path(), unsealed->segment->file(),
                           unsealed->row.bytes, unsealed != view->unsealed.front()});
    }
    std::uint64_t total = 0;
    for (const Source& source : sources) {
        total += source.bytes;
    }
    FileCopier copier(place, report, progress, total);
    for (const Source& source : sources) {
        DEDUP_TRY(copier.take(source));
    }
    const auto catalog =
        DEDUP_TRY(place.env.open(place.to / "catalog" / "data.mdb", OpenMode::create));
    DEDUP_TRY(DEDUP_TRY(store.catalog().open_one())->copy_to(*catalog));
    DEDUP_TRY(catalog->sync());
    for (const char* directory : {"log", "catalog"}) {
        DEDUP_TRY(place.env.sync_directory(place.to / directory));
    }
    report.segments = view->sealed->segments().size() + view->unsealed.size();
    return {};
}

}  // namespace dedup
