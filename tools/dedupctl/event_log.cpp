#include "event_log.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

#include "common/text.hpp"
#include "common/time_text.hpp"
#include "dedup/store_clock.hpp"
#include "output.hpp"
#include "signal_free_thread.hpp"

namespace dedupctl {
namespace {

constexpr std::size_t kLinesMax = 1024;
constexpr std::chrono::seconds kPatience{1};

std::string quoted(std::string_view text) {
    std::string bytes = "\"";
    for (const char byte : escape(text)) {
        bytes += byte == '"' ? "\\\"" : std::string(1, byte);
    }
    return bytes + '"';
}

std::string line_of(bool json, std::string_view event, std::uint64_t connection,
                    std::string_view detail) {
    const std::string at = format_time(dedup::system_now_ms());
    if (json) {
        Json object;
        object["at"] = at;
        object["event"] = event;
        if (connection != 0) {
            object["connection"] = connection;
        }
        object["detail"] = detail;
        return object.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    }
    std::string line = fmt::format("at=\"{}\" event={}", at, event);
    if (connection != 0) {
        line += fmt::format(" connection={}", connection);
    }
    if (!detail.empty()) {
        line += " detail=" + quoted(detail);
    }
    return line + "\n";
}

}  // namespace

struct EventLog::Lines {
    explicit Lines(bool as_json) : json(as_json) {}

    void add(std::string line) {
        const std::lock_guard lock(mutex);
        if (waiting.size() >= kLinesMax) {
            ++lost;
            return;
        }
        waiting.push_back(std::move(line));
        changed.notify_all();
    }

    void write_all_of_them() {
        std::unique_lock lock(mutex);
        for (;;) {
            changed.wait(lock, [this] { return ends || !waiting.empty(); });
            if (waiting.empty()) {
                break;
            }
            std::deque<std::string> lines = std::exchange(waiting, {});
            if (const std::uint64_t count = std::exchange(lost, 0); count != 0) {
                lines.push_back(line_of(json, "log_lost", 0,
                                        fmt::format("{} lines: nobody read the log", count)));
            }
            lock.unlock();
            for (const std::string& line : lines) {
                // Nobody reads the log any more: nothing is left to be told that.
                static_cast<void>(write_all(STDERR_FILENO, line));
            }
            lock.lock();
        }
        ended = true;
        changed.notify_all();
    }

    const bool json;
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::string> waiting;
    std::uint64_t lost = 0;
    bool ends = false;   // no more come
    bool ended = false;  // and all are written
};

EventLog::EventLog(bool json, bool connections)
    : json_(json), connections_(connections), lines_(std::make_shared<Lines>(json)) {
    thread_ = start_signal_free<std::thread>([lines = lines_] { lines->write_all_of_them(); });
}

EventLog::~EventLog() {
    std::unique_lock lock(lines_->mutex);
    lines_->ends = true;
    lines_->changed.notify_all();
    const bool ended = lines_->changed.wait_for(lock, kPatience, [this] { return lines_->ended; });
    lock.unlock();
    ended ? thread_.join() : thread_.detach();
}

void EventLog::write(std::string_view event, std::uint64_t connection,
                     std::string_view detail) const {
    lines_->add(line_of(json_, event, connection, detail));
}

void EventLog::write(const dedup::ServerEvent& event) const {
    if (connections_ || (event.what != "connected" && event.what != "disconnected")) {
        write(event.what, event.connection, event.detail);
    }
}

void EventLog::write(const dedup::Result<dedup::SweepReport>& swept) const {
    if (!swept) {
        write("sweep_failed", 0, to_string(swept.error()));
    } else if (swept->removed.total() != 0 || swept->bytes_reclaimed() != 0) {
        write("swept", 0,
              fmt::format("{} keys removed, {} given back", swept->removed.total(),
                          human_bytes(swept->bytes_reclaimed())));
    }
}

}  // namespace dedupctl
