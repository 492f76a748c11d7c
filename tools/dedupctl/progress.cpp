#include "progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "common/text.hpp"
#include "output.hpp"

namespace dedupctl {
namespace {

constexpr std::chrono::milliseconds kRedraw{100};
constexpr std::size_t kBarColumns = 30;

}  // namespace

Progress::Progress(std::string label, std::uint64_t total)
    : label_(std::move(label)), total_(total), on_terminal_(::isatty(STDERR_FILENO) == 1) {}

void Progress::update(std::uint64_t bytes_done, const std::string& detail) {
    draw(bytes_done, human_bytes, detail);
}

void Progress::update_count(std::uint64_t done) {
    draw(done, group_digits, "");
}

void Progress::draw(std::uint64_t done, std::string (*text)(std::uint64_t),
                    const std::string& detail) {
    if (!on_terminal_) {
        return;
    }
    const auto now = std::chrono::steady_clock::now();
    if (drawn_ && now - last_ < kRedraw) {
        return;
    }
    last_ = now;
    drawn_ = true;
    std::string line = "\r" + label_ + " ";
    if (total_ != 0) {
        // What is read may grow while it is read.
        const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total_));
        const auto full = static_cast<std::size_t>(share * static_cast<double>(kBarColumns));
        line += fmt::format("[{}{}] {:3.0f}%  {} of {}", std::string(full, '#'),
                            std::string(kBarColumns - full, '-'), share * 100, text(done),
                            text(total_));
    } else {
        line += text(done);
    }
    if (!detail.empty()) {
        line += "  " + detail;
    }
    static_cast<void>(write_all(STDERR_FILENO, line + "\033[K"));
}

void Progress::clear() {
    if (drawn_) {
        static_cast<void>(write_all(STDERR_FILENO, "\r\033[K"));
        drawn_ = false;
    }
}

}  // namespace dedupctl
