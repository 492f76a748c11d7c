#include "env/posix_file.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "env/file_id.hpp"
#include "env/process.hpp"

namespace dedup {
namespace {

// Reads of so many bytes that the disk should fetch them in one piece, mapped or not.
constexpr std::size_t kFetchBytes = 16 * 1024;

class Mapping {
  public:
    Mapping(void* start, std::size_t bytes) : start_(start), bytes_(bytes) {}
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    ~Mapping() {
        if (start_ != nullptr) {
            ::munmap(start_, bytes_);
        }
    }
    void leave() { start_ = nullptr; }
    [[nodiscard]] std::string_view view() const {
        return {static_cast<const char*>(start_), bytes_};
    }

  private:
    void* start_;
    std::size_t bytes_;
};

class PosixFile final : public File {
  public:
    PosixFile(Descriptor fd, Path path) : fd_(std::move(fd)), path_(std::move(path)) {}
    ~PosixFile() override {
        if (mark_.inherited() && map_) {
            map_->leave();  // it is not mapped here, and something else may be
        }
    }

    Result<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
        if (fd_.get() < 0) {
            return read_mapped(offset, into);
        }
        const NoCancel no_cancel;
        std::size_t done = 0;
        while (done < into.size()) {
            const ssize_t n = retry([&] {
                return ::pread(fd_.get(), into.data() + done, into.size() - done,
                               static_cast<off_t>(offset + done));
            });
            if (n < 0) {
                return std::unexpected(os_failure("read", path_, errno));
            }
            if (n == 0) {
                break;
            }
            done += static_cast<std::size_t>(n);
        }
        return done;
    }

    Result<void> write(std::uint64_t offset, std::string_view bytes) override {
        if (auto own = check_own(); !own) {
            return own;
        }
        std::size_t done = 0;
        while (done < bytes.size()) {
            const ssize_t n = retry([&] {
                return ::pwrite(fd_.get(), bytes.data() + done, bytes.size() - done,
                                static_cast<off_t>(offset + done));
            });
            if (n <= 0) {
                return std::unexpected(os_failure("write", path_, n < 0 ? errno : EIO));
            }
            done += static_cast<std::size_t>(n);
        }
        return {};
    }

    Result<void> sync() override {
        if (auto own = check_own(); !own) {
            return own;
        }
        // Not retried, whatever the error: after a failed flush the kernel may drop the pages and
        // let the next call succeed.
        if (::fdatasync(fd_.get()) != 0) {
            return std::unexpected(os_failure("flush", path_, errno));
        }
        return {};
    }

    Result<void> truncate(std::uint64_t bytes) override {
        if (auto own = check_own(); !own) {
            return own;
        }
        if (retry([&] { return ::ftruncate(fd_.get(), static_cast<off_t>(bytes)); }) != 0) {
            return std::unexpected(os_failure("truncate", path_, errno));
        }
        return {};
    }

    Result<bool> reserve(std::uint64_t bytes) override {
        if (auto own = check_own(); !own) {
            return std::unexpected(own.error());
        }
        if (retry([&] { return ::fallocate(fd_.get(), 0, 0, static_cast<off_t>(bytes)); }) == 0) {
            return true;
        }
        if (errno == EOPNOTSUPP || errno == ENOSYS) {
            return false;
        }
        return std::unexpected(os_failure("extend", path_, errno));
    }

    Result<std::uint64_t> size() override {
        if (fd_.get() < 0) {
            return size_;
        }
        struct stat status {};
        if (::fstat(fd_.get(), &status) != 0) {
            return std::unexpected(os_failure("stat", path_, errno));
        }
        return static_cast<std::uint64_t>(status.st_size);
    }

    std::uint64_t skip_hole(std::uint64_t offset) override {
        if (fd_.get() < 0) {
            return offset;
        }
        const off_t data = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
        if (data >= 0) {
            return static_cast<std::uint64_t>(data);
        }
        const auto bytes = errno == ENXIO ? size() : Result<std::uint64_t>(offset);
        return bytes ? std::max(*bytes, offset) : offset;
    }

    std::string_view map(std::uint64_t bytes) override {
        if (!map_) {
            void* start = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd_.get(), 0);
            if (start == MAP_FAILED) {
                return {};
            }
            // Lookups jump about; reading ahead would only fetch what nobody has asked for.
            (void)::madvise(start, bytes, MADV_RANDOM);
            // A forked child reads none of it, and should not keep the file on the disk when a
            // sweep has removed it.
            (void)::madvise(start, bytes, MADV_DONTFORK);
            map_.emplace(start, bytes);
        }
        return bytes <= map_->view().size() ? map_->view().substr(0, bytes) : std::string_view();
    }

    void keep_map_only() override {
        if (!map_ || fd_.get() < 0) {
            return;
        }
        if (const auto bytes = size()) {
            size_ = std::min<std::uint64_t>(*bytes, map_->view().size());
            fd_.close();
        }
    }

    bool is_at(const Path& path) override {
        if (id_ == FileId()) {
            id_ = id_of(fd_.get());
        }
        return names(path, id_);
    }

  private:
    // What a forked child inherits is not its own, wherever in the library it was forked.
    [[nodiscard]] Result<void> check_own() const {
        return mark_.inherited() ? std::unexpected(mark_.inherited_error(path_.string()))
                                 : Result<void>();
    }

    Result<std::size_t> read_mapped(std::uint64_t offset, std::span<char> into) const {
        if (offset >= size_) {
            return 0;
        }
        const std::string_view from =
            map_->view().substr(offset, std::min<std::uint64_t>(into.size(), size_ - offset));
        if (from.size() >= kFetchBytes) {
            static const auto kPage = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
            const std::uintptr_t before =
                reinterpret_cast<std::uintptr_t>(from.data()) & (kPage - 1);
            (void)::madvise(const_cast<char*>(from.data()) - before, from.size() + before,
                            MADV_WILLNEED);
        }
        std::memcpy(into.data(), from.data(), from.size());
        return from.size();
    }

    const ProcessMark mark_;
    Descriptor fd_;  // closed once only the map is kept
    Path path_;
    FileId id_;  // once somebody has asked
    std::optional<Mapping> map_;
    std::uint64_t size_ = 0;  // if only the map is kept
};

}  // namespace

std::unique_ptr<File> posix_file(Descriptor fd, Path path) {
    return std::make_unique<PosixFile>(std::move(fd), std::move(path));
}

}  // namespace dedup
