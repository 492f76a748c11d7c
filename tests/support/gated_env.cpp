#include "support/gated_env.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <map>
#include <utility>

namespace dedup::test {
namespace {

constexpr std::string_view kStoreName = "store";  // its own threads

std::string& my_name() {
    thread_local std::string name(kStoreName);
    return name;
}

// How often each other thread of this process has slept; nothing if one of them is awake.
std::optional<std::map<std::string, std::string>> sleeps() {
    std::map<std::string, std::string> all;
    const std::string self = std::to_string(::gettid());
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        const std::string thread = task.path().filename().string();
        if (thread == self) {
            continue;
        }
        std::ifstream file(task.path() / "status");
        std::string state;
        std::string count;
        for (std::string line; std::getline(file, line);) {
            if (line.starts_with("State:")) {
                state = line;
            } else if (line.starts_with("voluntary_ctxt_switches:")) {
                count = line;
            }
        }
        if (state.empty()) {
            continue;  // it has just ended
        }
        if (state.find("S (sleeping)") == std::string::npos) {
            return std::nullopt;
        }
        all[thread] = count;
    }
    return all;
}

// Whether all other threads sleep: asked of one after the other, they may have woken each other in
// between, but not if none of them has run until it was asked again.
bool all_sleep() {
    const auto before = sleeps();
    return before && sleeps() == before;
}

// What is written of indexes does not wait: it is the sealer's, and comes when it comes.
bool is_index(const Path& path) {
    return path.native().find(".idx") != std::string::npos;
}

}  // namespace

void GatedEnv::call_me(std::string name) {
    my_name() = std::move(name);
}

std::vector<std::string> GatedEnv::waiting() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> calls;
    for (const Gate& gate : gates_) {
        calls.push_back(gate.call);
    }
    std::ranges::sort(calls);
    return calls;
}

bool GatedEnv::at_rest(bool has_flusher) const {
    if (!all_sleep()) {
        return false;
    }
    const std::lock_guard lock(mutex_);
    const bool somebody_flushes = std::ranges::any_of(gates_, &Gate::flushes);
    return std::ranges::none_of(gates_, &Gate::open) &&
           (!has_flusher || has_failed_ || somebody_flushes || flushed_ == written_);
}

void GatedEnv::let_go(const std::string& call, std::optional<Fault> fault) {
    const std::lock_guard lock(mutex_);
    const auto gate = std::ranges::find(gates_, call, &Gate::call);
    gate->open = true;
    gate->fault = fault;
    has_failed_ = has_failed_ || fault;
    opened_.notify_all();
}

void GatedEnv::open_gates() {
    const std::lock_guard lock(mutex_);
    all_open_ = true;
    opened_.notify_all();
}

std::optional<Fault> GatedEnv::pass(std::string_view action, const Path& path) {
    if (std::this_thread::get_id() == test_) {
        return std::nullopt;
    }
    std::unique_lock lock(mutex_);
    const auto gate = gates_.insert(
        gates_.end(), {my_name() + " " + std::string(action) + " " + below_root(path).string(),
                       action == "sync"});
    opened_.wait(lock, [&] { return gate->open || all_open_; });
    const auto fault = gate->fault;
    gates_.erase(gate);
    return fault;
}

Path GatedEnv::below_root(const Path& path) const {
    return path.lexically_normal().lexically_relative(inner_.root());
}

template <class Work>
Result<void> GatedEnv::gated(std::string_view action, const Path& path, Work work) {
    if (pass(action, path)) {
        return std::unexpected(os_failure(action, path, EIO));
    }
    return work();
}

class GatedEnv::GatedFile final : public File {
  public:
    GatedFile(GatedEnv& env, std::unique_ptr<File> inner, Path path, int node)
        : env_(env), inner_(std::move(inner)), path_(std::move(path)), node_(node) {}

    Result<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
        return inner_->read(offset, into);
    }
    Result<void> write(std::uint64_t offset, std::string_view bytes) override {
        const auto fault = env_.pass("write", path_);
        if (fault == Fault::error) {
            return std::unexpected(os_failure("write", path_, EIO));
        }
        auto written = inner_->write(offset, fault ? bytes.substr(0, bytes.size() * 2 / 3) : bytes);
        if (fault) {
            return std::unexpected(os_failure("write", path_, EIO));
        }
        if (bytes.find_first_not_of('\0') != std::string_view::npos) {
            const std::lock_guard lock(env_.mutex_);
            ++env_.written_;
        }
        return written;
    }
    Result<void> sync() override {
        // Whatever is written from now on is none of this flush's business.
        const std::uint64_t before = env_.disk_.state().next_order;
        std::uint64_t written = 0;
        {
            const std::lock_guard lock(env_.mutex_);
            written = env_.written_;
        }
        const auto fault = env_.pass("sync", path_);
        if (fault == Fault::part) {
            env_.disk_.fail_sync(node_, env_.random_);
        } else if (!fault) {
            env_.disk_.sync(node_, before);
        }
        if (fault) {
            return std::unexpected(os_failure("flush", path_, EIO));
        }
        const std::lock_guard lock(env_.mutex_);
        env_.flushed_ = written;
        return {};
    }
    Result<void> truncate(std::uint64_t bytes) override {
        return env_.gated("truncate", path_, [&] { return inner_->truncate(bytes); });
    }
    Result<bool> reserve(std::uint64_t bytes) override {
        if (env_.pass("reserve", path_)) {
            return std::unexpected(os_failure("reserve", path_, EIO));
        }
        return inner_->reserve(bytes);
    }
    Result<std::uint64_t> size() override { return inner_->size(); }

  private:
    GatedEnv& env_;
    std::unique_ptr<File> inner_;
    const Path path_;  // with which it was opened
    const int node_;
};

Result<std::unique_ptr<File>> GatedEnv::open(const Path& path, OpenMode mode) {
    if (is_index(path)) {
        return inner_.open(path, mode);
    }
    if (mode == OpenMode::create && pass("create", path)) {
        return std::unexpected(os_failure("create", path, EIO));
    }
    auto file = inner_.open(path, mode);
    if (!file) {
        return file;
    }
    return std::make_unique<GatedFile>(*this, std::move(*file), path, disk_.find(below_root(path)));
}

Result<void> GatedEnv::rename(const Path& from, const Path& to) {
    if (is_index(to)) {
        return inner_.rename(from, to);
    }
    return gated("rename", from, [&] { return inner_.rename(from, to); });
}

Result<void> GatedEnv::remove(const Path& path) {
    return gated("remove", path, [&] { return inner_.remove(path); });
}

Result<void> GatedEnv::sync_directory(const Path& path) {
    if (my_name() == kStoreName) {
        return inner_.sync_directory(path);  // an index's: segments are begun by callers
    }
    return gated("sync_directory", path, [&] { return inner_.sync_directory(path); });
}

}  // namespace dedup::test
