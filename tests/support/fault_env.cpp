#include "support/fault_env.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

namespace dedup::test {
namespace {

constexpr std::uint64_t kLmdbPageBytes = 4096;
// Where an LMDB meta page says which commit wrote it.
constexpr std::uint64_t kCommitAt = 16 + 24 + 2 * 48 + 8;
// Should the other thread be waited for in vain, the run goes on instead of hanging.
constexpr std::chrono::seconds kPatience{20};

std::string read_at(File& file, std::uint64_t offset, std::uint64_t bytes) {
    std::string text(bytes, '\0');
    const auto got = file.read(offset, text);
    text.resize(got.value_or(0));
    return text;
}

}  // namespace

CatalogWatch::CatalogWatch(Path data_file, Random& random)
    : data_file_(std::move(data_file)), random_(random), seen_(commit_numbers()) {
    possible_ = {seen_.empty() ? nullptr : copy()};
    renewed_ = seen_.empty();
}

// Of both meta pages; empty if there is no file.
std::string CatalogWatch::commit_numbers() const {
    const auto file = posix_env().open(data_file_, OpenMode::read);
    return file ? "of " + read_at(**file, kCommitAt, 8) +
                      read_at(**file, kLmdbPageBytes + kCommitAt, 8)
                : "";
}

Bytes CatalogWatch::copy() const {
    while (true) {
        const std::string before = commit_numbers();
        const auto file = posix_env().open(data_file_, OpenMode::read);
        const std::uint64_t bytes = file ? (*file)->size().value_or(0) : 0;
        auto copied = std::make_shared<const std::string>(file ? read_at(**file, 0, bytes) : "");
        if (commit_numbers() == before) {
            return copied;
        }
    }
}

void CatalogWatch::look(bool delayed) {
    if (std::exchange(settles_, false)) {
        relied_on();
    }
    const std::string numbers = commit_numbers();
    if (numbers == seen_ || numbers.empty()) {
        return;
    }
    seen_ = numbers;
    const Bytes newest = copy();
    if (renewed_) {
        const auto cut = below(random_, newest->size());
        possible_.push_back(std::make_shared<const std::string>());
        possible_.push_back(std::make_shared<const std::string>(newest->substr(0, cut)));
        possible_.push_back(std::make_shared<const std::string>(2 * kLmdbPageBytes, '\0'));
    }
    possible_.push_back(newest);
    settles_ = !delayed && !renewed_;
}

void CatalogWatch::removed() {
    seen_.clear();
    possible_.push_back(nullptr);
    renewed_ = true;
    settles_ = false;
}

void CatalogWatch::directory_flushed() {
    relied_on();
    renewed_ = false;
}

void CatalogWatch::relied_on() {
    possible_.erase(possible_.begin(), possible_.end() - 1);
}

class FaultEnv::OpenFile final : public File {
  public:
    OpenFile(FaultEnv& env, int node, Path path) : env_(env), node_(node), path_(std::move(path)) {}

    Result<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
        std::size_t done = 0;
        const auto called = env_.call("read", path_, false, [&](Fault) {
            const std::string& contents = env_.disk_.contents(node_);
            if (offset < contents.size()) {
                done = std::min<std::size_t>(into.size(), contents.size() - offset);
                std::memcpy(into.data(), contents.data() + offset, done);
            }
            return 0;
        });
        return called ? Result<std::size_t>(done) : std::unexpected(called.error());
    }

    Result<void> write(std::uint64_t offset, std::string_view bytes) override {
        return env_.call("write", path_, true, [&](Fault fault) {
            const std::size_t part = fault == Fault::part ? bytes.size() * 2 / 3 : bytes.size();
            env_.disk_.write(node_, offset, bytes.substr(0, part));
            return 0;
        });
    }

    Result<void> sync() override {
        return env_.call("sync", path_, true, [&](Fault fault) {
            if (fault == Fault::part) {
                env_.disk_.fail_sync(node_, env_.random_);
            } else {
                env_.disk_.sync(node_);
            }
            return 0;
        });
    }

    Result<void> truncate(std::uint64_t bytes) override { return resize("truncate", bytes); }

    Result<bool> reserve(std::uint64_t bytes) override {
        if (!env_.disk_.can_reserve) {
            return false;
        }
        const bool longer = env_.disk_.contents(node_).size() < bytes;
        const auto done = longer ? resize("reserve", bytes) : Result<void>();
        return done ? Result<bool>(true) : std::unexpected(done.error());
    }

    Result<std::uint64_t> size() override {
        std::uint64_t bytes = 0;
        const auto called = env_.call("size", path_, false, [&](Fault) {
            bytes = env_.disk_.contents(node_).size();
            return 0;
        });
        return called ? Result<std::uint64_t>(bytes) : std::unexpected(called.error());
    }

  private:
    Result<void> resize(std::string_view action, std::uint64_t bytes) {
        return env_.call(action, path_, true, [&](Fault) {
            env_.disk_.resize(node_, bytes);
            return 0;
        });
    }

    FaultEnv& env_;
    int node_;
    Path path_;
};

FaultEnv::FaultEnv(FaultDisk& disk, Path root, std::uint64_t seed)
    : disk_(disk),
      root_(std::move(root)),
      catalog_path_(root_ / "store" / "catalog"),
      random_(seed),
      catalog_(catalog_path_ / "data.mdb", random_) {}

Path FaultEnv::below_root(const Path& path) const {
    return path.lexically_normal().lexically_relative(root_);
}

bool FaultEnv::in_catalog(const Path& path) const {
    const Path relative = path.lexically_relative(catalog_path_);
    return !relative.empty() && *relative.begin() != "..";
}

std::uint64_t FaultEnv::calls() const {
    const std::lock_guard lock(mutex_);
    return calls_;
}

std::uint64_t FaultEnv::background_calls() const {
    const std::lock_guard lock(mutex_);
    return background_calls_;
}

std::uint64_t FaultEnv::failed_calls() const {
    const std::lock_guard lock(mutex_);
    return failed_calls_;
}

std::string FaultEnv::last_call() const {
    const std::lock_guard lock(mutex_);
    return last_call_;
}

void FaultEnv::wait_for_owner(std::unique_lock<std::mutex>& lock) {
    other_waits_ = true;
    moved_.notify_all();
    moved_.wait_for(lock, kPatience, [&] { return others_run_; });
    other_waits_ = false;
}

// The sealer opens the segment and then commits to the catalog. Once it pauses, the commit is done.
void FaultEnv::meet_sealer() {
    std::unique_lock lock(mutex_);
    if (std::exchange(seal_expected_, false) && !sealer_stays_away) {
        moved_.wait_for(lock, kPatience, [&] { return other_waits_; });
        catalog_.look(true);
    }
    others_run_ = true;
    moved_.notify_all();
}

void FaultEnv::let_others_run() {
    meet_sealer();
}

void FaultEnv::pause() {
    if (std::this_thread::get_id() == owner_) {
        before_owner_changes();
        return;
    }
    std::unique_lock lock(mutex_);
    wait_for_owner(lock);
}

void FaultEnv::before_owner_changes() {
    if (seal_expected_) {
        meet_sealer();
    }
    catalog_.look(false);
    if (before_change) {
        before_change();
    }
}

int FaultEnv::planned(const Failure& plan, std::uint64_t call) {
    if (plan.call == 0 || (plan.stays ? call < plan.call : call != plan.call)) {
        return 0;
    }
    ++failed_calls_;
    return plan.os_error;
}

int FaultEnv::enter(std::string_view action, const Path& path, bool changes) {
    if (std::this_thread::get_id() != owner_) {
        std::unique_lock lock(mutex_);
        const int error = planned(background_failure, ++background_calls_);
        if (error != 0) {
            wait_for_owner(lock);
        }
        return error;
    }
    if (changes) {
        before_owner_changes();
    }
    const std::lock_guard lock(mutex_);
    last_call_ = std::string(action) + " " + below_root(path).string();
    return planned(failure, ++calls_);
}

template <class Work>
Result<void> FaultEnv::call(std::string_view action, const Path& path, bool changes, Work work) {
    const int planned_error = enter(action, path, changes);
    const Fault fault =
        std::this_thread::get_id() == owner_ ? failure.fault : background_failure.fault;
    int os_error = planned_error;
    if (planned_error == 0 || fault != Fault::error) {
        const std::lock_guard lock(mutex_);
        const int own_error = work(planned_error == 0 ? Fault::error : fault);
        os_error = planned_error == 0 ? own_error : planned_error;
    }
    return os_error == 0 ? Result<void>() : std::unexpected(os_failure(action, path, os_error));
}

Result<std::unique_ptr<File>> FaultEnv::open(const Path& path, OpenMode mode) {
    if (in_catalog(path)) {
        return posix_env().open(path, mode);
    }
    int node = -1;
    const bool creates = mode == OpenMode::create;
    const auto called = call(creates ? "create" : "open", path, creates, [&](Fault) {
        node = disk_.find(below_root(path));
        if (creates && node < 0) {
            node = disk_.create(below_root(path), false);
        } else if (creates) {
            disk_.resize(node, 0);
        }
        return node < 0 ? ENOENT : 0;
    });
    if (!called) {
        return std::unexpected(called.error());
    }
    return std::make_unique<OpenFile>(*this, node, path);
}

Result<PathType> FaultEnv::type(const Path& path) {
    int node = -1;
    const auto called = call("type", path, false, [&](Fault) {
        node = disk_.find(below_root(path));
        return 0;
    });
    if (!called) {
        return std::unexpected(called.error());
    }
    if (node < 0) {
        return PathType::absent;
    }
    return disk_.is_directory(node) ? PathType::directory : PathType::file;
}

Result<std::vector<std::string>> FaultEnv::list(const Path& directory) {
    std::vector<std::string> names;
    const auto called = call("list", directory, false, [&](Fault) {
        const int node = disk_.find(below_root(directory));
        if (node < 0) {
            return ENOENT;
        }
        names = disk_.list(node);
        return 0;
    });
    return called ? Result<std::vector<std::string>>(names) : std::unexpected(called.error());
}

Result<void> FaultEnv::make_directory(const Path& path) {
    return call("make_directory", path, true, [&](Fault) {
        if (in_catalog(path) && !posix_env().make_directory(path)) {
            return EIO;
        }
        const bool there = disk_.find(below_root(path)) >= 0;
        return there || disk_.create(below_root(path), true) >= 0 ? 0 : ENOENT;
    });
}

Result<void> FaultEnv::rename(const Path& from, const Path& to) {
    return call("rename", from, true, [&](Fault) {
        segment_named_ = to.extension() == ".log" && to.filename() != "0000000000000001.log";
        return disk_.rename(below_root(from), below_root(to));
    });
}

Result<void> FaultEnv::remove(const Path& path) {
    return call("remove", path, true, [&](Fault) {
        if (!in_catalog(path)) {
            if (path.extension() == ".log") {
                catalog_.relied_on();
            }
            return disk_.remove(below_root(path));
        }
        const auto removed = posix_env().remove(path);
        if (removed && path.filename() == "data.mdb") {
            catalog_.removed();
        }
        return removed ? 0 : removed.error().os_error;
    });
}

Result<void> FaultEnv::sync_directory(const Path& path) {
    return call("sync_directory", path, true, [&](Fault fault) {
        const int node = disk_.find(below_root(path));
        if (node < 0) {
            return ENOENT;
        }
        if (fault == Fault::part) {
            return 0;  // it fails, and what it did nobody knows
        }
        disk_.sync(node);
        if (in_catalog(path)) {
            catalog_.directory_flushed();
        } else if (std::exchange(segment_named_, false)) {
            seal_expected_ = fault == Fault::error;
            others_run_ = !seal_expected_;
        }
        return 0;
    });
}

Result<std::unique_ptr<Lock>> FaultEnv::lock(const Path& path, const LockWait& /*wait*/) {
    struct Held final : Lock {
        explicit Held(FaultEnv& of) : env(of) {}
        bool names_noted() override {
            const std::lock_guard lock(env.mutex_);
            return env.disk_.names_noted();
        }
        void note_names() override {
            const std::lock_guard lock(env.mutex_);
            env.disk_.note_names();
        }
        FaultEnv& env;
    };
    const auto called = call("lock", path, true, [&](Fault) {
        const Path relative = below_root(path);
        return disk_.find(relative) >= 0 || disk_.create(relative, false) >= 0 ? 0 : ENOENT;
    });
    if (!called) {
        return std::unexpected(called.error());
    }
    return std::make_unique<Held>(*this);
}

Result<void> FaultEnv::random(std::span<char> into) {
    return call("random", root_ / "store", false, [&](Fault) {
        std::ranges::generate(into, [&] { return static_cast<char>(random_()); });
        return 0;
    });
}

}  // namespace dedup::test
