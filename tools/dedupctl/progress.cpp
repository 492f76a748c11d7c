#include "progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "common/text.hpp"
#include "output.hpp"
#include "terminal.hpp"

namespace dedupctl {
namespace {

constexpr std::chrono::milliseconds kRedraw{100};
constexpr std::size_t kBarColumns = 30;
constexpr std::size_t kBarColumnsMin = 8;  // a shorter one says nothing

bool forbidden = false;

std::string bar(double share, std::size_t columns) {
    const auto full = static_cast<std::size_t>(share * static_cast<double>(columns));
    return "[" + std::string(full, '#') + std::string(columns - full, '-') + "] ";
}

}  // namespace

void forbid_progress() {
    forbidden = true;
}

Progress::Progress(std::string label, std::uint64_t total)
    : label_(std::move(label)),
      total_(total),
      drawable_(!forbidden && can_draw_on(STDERR_FILENO)) {}

void Progress::update(std::uint64_t bytes_done, const std::string& detail) {
    draw(bytes_done, human_bytes, detail);
}

void Progress::update_count(std::uint64_t done) {
    draw(done, group_digits, "");
}

void Progress::draw(std::uint64_t done, std::string (*text)(std::uint64_t),
                    const std::string& detail) {
    if (!drawable_) {
        return;
    }
    const auto now = std::chrono::steady_clock::now();
    if (drawn_ && now - last_ < kRedraw) {
        return;
    }
    last_ = now;
    drawn_ = true;
    std::string text_of_it = text(done);
    double share = 0;
    if (total_ != 0) {
        // What is read may grow while it is read.
        share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total_));
        text_of_it = fmt::format("{:3.0f}%  {} of {}", share * 100, text(done), text(total_));
    }
    if (!detail.empty()) {
        text_of_it += "  " + detail;
    }
    // The last column stays free: some terminals go to the next line as soon as it is written.
    const std::size_t columns_max = terminal_size(STDERR_FILENO).columns - 1;
    const std::size_t used = label_.size() + 4 + columns(text_of_it);
    const std::size_t left = columns_max > used ? columns_max - used : 0;
    if (total_ != 0 && left >= kBarColumnsMin) {
        text_of_it = bar(share, std::min(left, kBarColumns)) + text_of_it;
    }
    const std::string line = cut_to(label_ + " " + text_of_it, columns_max);
    static_cast<void>(write_all(STDERR_FILENO, "\r" + line + "\033[K"));
}

void Progress::clear() {
    if (drawn_) {
        static_cast<void>(write_all(STDERR_FILENO, "\r\033[K"));
        drawn_ = false;
    }
}

}  // namespace dedupctl
