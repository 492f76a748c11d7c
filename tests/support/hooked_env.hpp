// An Env around the real one that fails calls on command, and sees all reads and closes: its files
// cannot be mapped.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "env/env.hpp"

namespace dedup::test {

// Asked before each call that changes something: gives the errno to fail with, or 0.
// `action` is the function's name: "write", "sync", "reserve", "truncate", "create", "rename",
// "sync_directory".
using FailHook = std::function<int(std::string_view action, const Path& path)>;
// Told of each read and how many bytes it gave, by the thread that reads: gives the errno to fail
// with, or 0.
using ReadHook = std::function<int(const Path& path, std::uint64_t offset, std::size_t bytes)>;
// Told of each file that is closed, by the thread that does.
using CloseHook = std::function<void(const Path& path)>;

class HookedFile final : public File {
  public:
    HookedFile(std::unique_ptr<File> inner, Path path, const FailHook& hook,
               const ReadHook& read_hook, const CloseHook& close_hook)
        : inner_(std::move(inner)),
          path_(std::move(path)),
          hook_(hook),
          read_hook_(read_hook),
          close_hook_(close_hook) {}
    ~HookedFile() override { close_hook_(path_); }

    Result<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
        auto got = inner_->read(offset, into);
        if (const int os_error = read_hook_(path_, offset, got.value_or(0)); os_error != 0) {
            return std::unexpected(os_failure("read", path_, os_error));
        }
        return got;
    }
    Result<void> write(std::uint64_t offset, std::string_view bytes) override {
        return guarded("write", [&] { return inner_->write(offset, bytes); });
    }
    Result<void> sync() override {
        return guarded("sync", [&] { return inner_->sync(); });
    }
    Result<void> truncate(std::uint64_t bytes) override {
        return guarded("truncate", [&] { return inner_->truncate(bytes); });
    }
    Result<bool> reserve(std::uint64_t bytes) override {
        return guarded("reserve", [&] { return inner_->reserve(bytes); });
    }
    Result<std::uint64_t> size() override { return inner_->size(); }

  private:
    template <class Call>
    auto guarded(std::string_view action, Call call) -> decltype(call()) {
        if (const int os_error = hook_(action, path_); os_error != 0) {
            return std::unexpected(os_failure(action, path_, os_error));
        }
        return call();
    }

    std::unique_ptr<File> inner_;
    Path path_;
    const FailHook& hook_;
    const ReadHook& read_hook_;
    const CloseHook& close_hook_;
};

class HookedEnv final : public Env {
  public:
    FailHook hook = [](std::string_view, const Path&) { return 0; };
    ReadHook read_hook = [](const Path&, std::uint64_t, std::size_t) { return 0; };
    CloseHook close_hook = [](const Path&) {};

    Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override {
        if (mode == OpenMode::create) {
            if (const int os_error = hook("create", path); os_error != 0) {
                return std::unexpected(os_failure("create", path, os_error));
            }
        }
        auto file = posix_env().open(path, mode);
        if (!file) {
            return file;
        }
        return std::make_unique<HookedFile>(std::move(*file), path, hook, read_hook, close_hook);
    }
    Result<PathType> type(const Path& path) override { return posix_env().type(path); }
    Result<std::vector<std::string>> list(const Path& directory) override {
        return posix_env().list(directory);
    }
    Result<void> make_directory(const Path& path) override {
        return posix_env().make_directory(path);
    }
    Result<void> make_directory_like(const Path& path, const Path& like) override {
        return posix_env().make_directory_like(path, like);
    }
    Result<void> rename(const Path& from, const Path& to) override {
        if (const int os_error = hook("rename", from); os_error != 0) {
            return std::unexpected(os_failure("rename", from, os_error));
        }
        return posix_env().rename(from, to);
    }
    Result<void> remove(const Path& path) override { return posix_env().remove(path); }
    Result<void> sync_directory(const Path& path) override {
        if (const int os_error = hook("sync_directory", path); os_error != 0) {
            return std::unexpected(os_failure("sync_directory", path, os_error));
        }
        return posix_env().sync_directory(path);
    }
    Result<std::unique_ptr<Lock>> lock(const Path& path, const LockWait& wait) override {
        return posix_env().lock(path, wait);
    }
    Result<std::unique_ptr<Lock>> lock_out(const Path& path) override {
        return posix_env().lock_out(path);
    }
    Result<void> random(std::span<char> into) override { return posix_env().random(into); }
};

}  // namespace dedup::test
