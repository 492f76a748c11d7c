// An Env in which each change that another thread than the test's makes waits for the test.
//
// So the test decides in which order the threads of a store go on, which calls fail, and when
// nobody moves: while a leader waits within its flush, others join the next group. A flush makes
// durable what had been written when it began, and nothing that was written beside it.
//
// Thread safety: the store's threads call the functions of Env; the others are the test's, on the
// thread that made this.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "support/fault_env.hpp"

namespace dedup::test {

class GatedEnv final : public Env {
  public:
    GatedEnv(FaultEnv& inner, FaultDisk& disk, std::uint64_t seed)
        : inner_(inner), disk_(disk), random_(seed) {}

    // Who makes the calls of this thread; a thread that has not said so is the store's own.
    static void call_me(std::string name);

    // The calls that wait, "writer-1 sync store/log/...", sorted.
    [[nodiscard]] std::vector<std::string> waiting() const;
    // Whether nothing can happen before the test does something. A flusher that has something to
    // flush comes, sooner or later, so it is waited for if there is one.
    [[nodiscard]] bool at_rest(bool has_flusher) const;
    // The call goes on; or fails with EIO, as `fault` says.
    void let_go(const std::string& call, std::optional<Fault> fault = {});
    // From now on no call waits.
    void open_gates();

    Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override;
    Result<PathType> type(const Path& path) override { return inner_.type(path); }
    Result<std::vector<std::string>> list(const Path& directory) override {
        return inner_.list(directory);
    }
    Result<void> make_directory(const Path& path) override { return inner_.make_directory(path); }
    Result<void> rename(const Path& from, const Path& to) override;
    Result<void> remove(const Path& path) override;
    Result<void> sync_directory(const Path& path) override;
    Result<std::unique_ptr<Lock>> lock(const Path& path, const LockWait& wait) override {
        return inner_.lock(path, wait);
    }
    Result<void> random(std::span<char> into) override { return inner_.random(into); }

  private:
    class GatedFile;
    struct Gate {
        std::string call;
        bool flushes = false;
        bool open = false;
        std::optional<Fault> fault = {};
    };

    // Waits until the test lets the call go; how it has to fail, if it does.
    std::optional<Fault> pass(std::string_view action, const Path& path);
    template <class Work>
    Result<void> gated(std::string_view action, const Path& path, Work work);
    [[nodiscard]] Path below_root(const Path& path) const;

    FaultEnv& inner_;
    FaultDisk& disk_;
    Random random_;
    const std::thread::id test_ = std::this_thread::get_id();

    mutable std::mutex mutex_;  // guards what follows
    std::condition_variable opened_;
    std::list<Gate> gates_;
    bool all_open_ = false;
    bool has_failed_ = false;    // a call, and the flusher stays away since
    std::uint64_t written_ = 0;  // writes of more than zeros
    std::uint64_t flushed_ = 0;  // how many of these have been flushed
};

}  // namespace dedup::test
