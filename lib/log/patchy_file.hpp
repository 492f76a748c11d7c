// A file of which the disk cannot read every page.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "env/env.hpp"

namespace dedup {

// Reads a file, and goes on where the disk gives errors. What it cannot read is filled with a byte
// with which no frame is valid, and which is not the zero that lies behind the end of a log. For
// one thread.
class PatchyFile final : public File {
  public:
    explicit PatchyFile(std::unique_ptr<File> inner) : inner_(std::move(inner)) {}

    // By offset, the pages that could not be read, and why.
    [[nodiscard]] const std::map<std::uint64_t, Error>& unreadable() const { return unreadable_; }

    Result<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
        auto got = inner_->read(offset, into);
        if (got) {
            return got;
        }
        const auto file_bytes = inner_->size();
        if (!file_bytes) {
            return std::unexpected(file_bytes.error());
        }
        const std::uint64_t there = *file_bytes < offset ? 0 : *file_bytes - offset;
        const std::size_t bytes = std::min<std::uint64_t>(into.size(), there);
        for (std::size_t done = 0; done < bytes;) {
            const std::uint64_t at = offset + done;
            const std::span<char> part = into.subspan(
                done, std::min<std::size_t>(kPageBytes - at % kPageBytes, bytes - done));
            if (const auto read = inner_->read(at, part); !read) {
                std::ranges::fill(part, kUnreadable);
                unreadable_.emplace(at - at % kPageBytes, read.error());
            }
            done += part.size();
        }
        return bytes;
    }
    Result<void> write(std::uint64_t, std::string_view) override { return refused(); }
    Result<void> sync() override { return refused(); }
    Result<void> truncate(std::uint64_t) override { return refused(); }
    Result<bool> reserve(std::uint64_t) override { return false; }
    Result<std::uint64_t> size() override { return inner_->size(); }
    std::uint64_t skip_hole(std::uint64_t offset) override { return inner_->skip_hole(offset); }

  private:
    static constexpr std::uint64_t kPageBytes = 4096;  // given up at once
    static constexpr char kUnreadable = '\xff';

    static Result<void> refused() {
        return std::unexpected(Error{Code::read_only, "a damaged store is left as it is"});
    }

    std::unique_ptr<File> inner_;
    std::map<std::uint64_t, Error> unreadable_;
};

}  // namespace dedup
