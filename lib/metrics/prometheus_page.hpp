// A page in the text format of Prometheus.
//
// Source of the format: "Exposition formats" of Prometheus' documentation, text format 0.0.4.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include "dedup/metrics.hpp"

namespace dedup::prometheus {

inline constexpr double kPerSecondMs = 1e3;
inline constexpr double kPerSecondUs = 1e6;
inline constexpr double kPerSecondNs = 1e9;

class Page {
  public:
    // Begins a metric; its samples follow.
    void metric(std::string_view name, std::string_view type, std::string_view help) {
        name_ = name;
        append("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
    }

    // `labels` as they are written between the braces, or none.
    void sample(std::uint64_t value, std::string_view labels = {}) { line("", labels, value); }
    void sample(double value, std::string_view labels = {}) { line("", labels, value); }

    // Each value of `histogram` was multiplied by `scale` when it was counted.
    void samples(const Histogram& histogram, double scale, std::string_view labels = {}) {
        const std::string before = labels.empty() ? "" : fmt::format("{},", labels);
        std::uint64_t seen = 0;
        for (std::size_t i = 0; i + 1 < Histogram::kBuckets; ++i) {
            seen += histogram.buckets[i];
            const double end = static_cast<double>(Histogram::bucket_max(i)) / scale;
            line("_bucket", fmt::format("{}le=\"{}\"", before, end), seen);
        }
        seen += histogram.buckets.back();
        line("_bucket", fmt::format("{}le=\"+Inf\"", before), seen);
        line("_sum", labels, static_cast<double>(histogram.sum) / scale);
        line("_count", labels, seen);
    }

    void counter(std::string_view name, std::string_view help, std::uint64_t value) {
        metric(name, "counter", help);
        sample(value);
    }
    void gauge(std::string_view name, std::string_view help, std::uint64_t value) {
        metric(name, "gauge", help);
        sample(value);
    }
    void histogram(std::string_view name, std::string_view help, const Histogram& histogram,
                   double scale) {
        metric(name, "histogram", help);
        samples(histogram, scale);
    }

    [[nodiscard]] std::string take() { return std::move(text_); }

  private:
    template <class... Args>
    void append(fmt::format_string<Args...> format, Args&&... args) {
        fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
    }

    template <class Value>
    void line(std::string_view suffix, std::string_view labels, Value value) {
        const std::string_view open = labels.empty() ? "" : "{";
        const std::string_view close = labels.empty() ? "" : "}";
        append("{}{}{}{}{} {}\n", name_, suffix, open, labels, close, value);
    }

    std::string text_;
    std::string_view name_;
};

inline std::string label(std::string_view name, std::string_view value) {
    std::string text = fmt::format("{}=\"", name);
    for (const char c : value) {
        text += c == '\n' ? "\\n" : c == '"' ? "\\\"" : c == '\\' ? "\\\\" : std::string(1, c);
    }
    return text + '"';
}

}  // namespace dedup::prometheus
