#include "serve_watch.hpp"

#include <algorithm>
#include <new>

#include "dedup/metrics.hpp"
#include "dedup/scan.hpp"
#include "signal_free_thread.hpp"

namespace dedupctl {
namespace {

// What came between two looks.
dedup::Histogram since(const dedup::Histogram& before, dedup::Histogram now) {
    for (std::size_t i = 0; i < now.buckets.size(); ++i) {
        now.buckets.at(i) -= before.buckets.at(i);
    }
    now.sum -= before.sum;
    return now;
}

double number(std::uint64_t value) {
    return static_cast<double>(value);
}

double mean(const dedup::Histogram& histogram) {
    return histogram.count() == 0 ? 0 : number(histogram.sum) / number(histogram.count());
}

}  // namespace

ServeWatch::ServeWatch(dedup::StreamStore& store)
    : store_(store), last_metrics_(store.metrics()), last_look_(Steady::now()) {
    thread_ = start_signal_free<std::thread>([this] { run(); });
}

ServeWatch::~ServeWatch() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
        changed_.notify_all();
    }
    thread_.join();
}

void ServeWatch::watch(const dedup::Server* server) {
    const std::lock_guard lock(mutex_);
    server_ = server;
}

std::deque<Sample> ServeWatch::samples() const {
    const std::lock_guard lock(mutex_);
    return samples_;
}

std::vector<dedup::CommandTime> ServeWatch::command_times() const {
    const std::lock_guard lock(mutex_);
    return server_ == nullptr ? std::vector<dedup::CommandTime>() : server_->metrics().commands;
}

bool ServeWatch::is_fresh() const {
    constexpr std::chrono::seconds kFresh{1};
    return counts_ != 0 && Steady::now() - count_began_ <
                               std::max<Steady::duration>(kFresh, kShareOfTime * count_took_);
}

std::string ServeWatch::count_error() const {
    const std::lock_guard lock(mutex_);
    return count_error_;
}

std::shared_ptr<const Report> ServeWatch::known_keys() {
    const std::lock_guard lock(mutex_);
    if (!is_fresh() && !counting_) {
        wanted_ = true;
        changed_.notify_all();
    }
    return keys_;
}

std::shared_ptr<const Report> ServeWatch::keys() {
    std::unique_lock lock(mutex_);
    if (!is_fresh()) {
        if (!counting_) {
            wanted_ = true;
            count_began_ = Steady::now();
            changed_.notify_all();
        }
        const std::uint64_t before = counts_;
        changed_.wait_until(lock, count_began_ + kCountPatience,
                            [&] { return counts_ != before || stop_; });
    }
    return keys_;
}

void ServeWatch::run() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
        changed_.wait_until(lock, last_look_ + kEvery, [this] { return stop_ || wanted_; });
        if (wanted_ && !stop_) {
            count(lock);
        }
        if (!stop_ && Steady::now() >= last_look_ + kEvery) {
            lock.unlock();
            look();
            lock.lock();
        }
    }
}

void ServeWatch::look() {
    const auto stats = store_.stats();
    const dedup::StoreMetrics metrics = store_.metrics();
    const Steady::time_point now = Steady::now();
    const double seconds = std::chrono::duration<double>(now - last_look_).count();
    const dedup::Histogram flushes = since(last_metrics_.flush_ns, metrics.flush_ns);
    const dedup::Histogram groups = since(last_metrics_.group_records, metrics.group_records);
    constexpr double kNsPerMs = 1e6;
    Sample sample{.at_ms = dedup::system_now_ms(),
                  .records = number(metrics.appended - last_metrics_.appended) / seconds,
                  .flush_median_ms = number(flushes.quantile(0.5)) / kNsPerMs,
                  .flush_p99_ms = number(flushes.quantile(0.99)) / kNsPerMs,
                  .group_mean = mean(groups),
                  .group_p99 = number(groups.quantile(0.99)),
                  .in_flight = stats ? number(stats->in_flight) : 0};
    last_look_ = now;
    last_metrics_ = metrics;
    const std::lock_guard lock(mutex_);
    if (server_ != nullptr) {
        const dedup::ServerMetrics server = server_->metrics();
        sample.requests = number(server.requests - last_requests_) / seconds;
        sample.connections = number(server.connections);
        last_requests_ = server.requests;
    }
    samples_.push_back(sample);
    if (samples_.size() > kSamples) {
        samples_.pop_front();
    }
}

// Reads all heads, a page at a time; what could not be counted is shown as it was before.
void ServeWatch::count(std::unique_lock<std::mutex>& lock) {
    wanted_ = false;
    counting_ = true;
    count_began_ = Steady::now();
    const Steady::time_point began = count_began_;
    lock.unlock();
    std::shared_ptr<Report> report;
    std::string error;
    try {
        auto counted = read_keys();
        if (counted) {
            report = *std::move(counted);
        } else {
            error = counted.error().message;
        }
    } catch (const std::bad_alloc&) {
        error = "there is not enough memory to count the keys";
    }
    lock.lock();
    counting_ = false;
    count_took_ = Steady::now() - began;
    ++counts_;
    if (report && !stop_) {
        keys_ = std::move(report);
    }
    count_error_ = std::move(error);
    changed_.notify_all();
}

dedup::Result<std::shared_ptr<Report>> ServeWatch::read_keys() {
    auto report = std::make_shared<Report>();
    auto stats = store_.stats();
    if (!stats) {
        return std::unexpected(stats.error());
    }
    report->stats = *std::move(stats);
    report->moment = {store_.now_ms(), store_.grace()};
    const auto read = for_each_page(store_, {.heads_max = 256}, [&](const dedup::ScanPage& page) {
        for (const dedup::Version& head : page.heads) {
            report->add(head.record);
        }
        if (Steady::now() >= last_look_ + kEvery) {
            look();
        }
        const std::lock_guard stop_lock(mutex_);
        return !stop_;
    });
    if (!read) {
        return std::unexpected(read.error());
    }
    report->finish();
    return report;
}

}  // namespace dedupctl
