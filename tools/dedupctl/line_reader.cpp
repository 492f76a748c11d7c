#include "line_reader.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace dedupctl {
namespace {

constexpr std::size_t kRoomBytes = 1024 * 1024;

}  // namespace

void LineReader::take_lines(std::size_t lines_max, std::vector<std::string_view>& lines) {
    lines.clear();
    while (lines.size() < lines_max && scanned_ < end_) {
        const void* newline = std::memchr(buffer_.data() + scanned_, end_of_line_, end_ - scanned_);
        if (newline == nullptr) {
            scanned_ = end_;
            break;
        }
        scanned_ = static_cast<std::size_t>(static_cast<const char*>(newline) - buffer_.data()) + 1;
        lines.emplace_back(buffer_.data() + start_, scanned_ - start_);
        start_ = scanned_;
    }
    if (lines.empty() && ended_ && start_ < end_) {
        lines.emplace_back(buffer_.data() + start_, end_ - start_);
        start_ = scanned_ = end_;
    }
}

int LineReader::fill() {
    if (start_ != 0) {
        std::memmove(buffer_.data(), buffer_.data() + start_, end_ - start_);
        end_ -= start_;
        scanned_ -= start_;
        start_ = 0;
    }
    // A line longer than the buffer doubles it, so that it is not copied once a read.
    if (buffer_.size() - end_ < kRoomBytes) {
        buffer_.resize(end_ + std::max(kRoomBytes, end_));
    }
    while (true) {
        const ssize_t got = ::read(fd_, buffer_.data() + end_, kRoomBytes);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return errno;
        }
        ended_ = got == 0;
        end_ += static_cast<std::size_t>(got);
        bytes_read_ += static_cast<std::uint64_t>(got);
        return 0;
    }
}

int LineReader::fill_ready(std::size_t bytes_enough) {
    do {
        if (const int error = fill(); error != 0) {
            return error;
        }
    } while (!ended_ && bytes_buffered() < bytes_enough &&
             readable_within(fd_, std::chrono::milliseconds{0}));
    return 0;
}

bool readable_within(int fd, std::chrono::milliseconds wait) {
    pollfd event{.fd = fd, .events = POLLIN, .revents = 0};
    return ::poll(&event, 1, static_cast<int>(wait.count())) > 0;
}

}  // namespace dedupctl
