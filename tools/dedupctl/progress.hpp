// A progress bar on standard error, if that is a terminal that can be drawn on; else nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace dedupctl {

// From now on there are none: for --quiet.
void forbid_progress();

// One line, never wider than the terminal.
class Progress {
  public:
    // `total` of 0: not known; then only what is done is shown.
    Progress(std::string label, std::uint64_t total);
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress() { clear(); }

    // Cheap enough to be called for every batch: draws ten times a second at most. `detail` goes
    // behind the bar.
    void update(std::uint64_t bytes_done, const std::string& detail = "");
    // The same for what is counted in pieces, not bytes.
    void update_count(std::uint64_t done);
    void set_total(std::uint64_t total) { total_ = total; }

    // Wipes the bar, so that other text can follow.
    void clear();

    [[nodiscard]] bool shown() const { return drawable_; }

  private:
    void draw(std::uint64_t done, std::string (*text)(std::uint64_t), const std::string& detail);

    std::string label_;
    std::uint64_t total_;
    bool drawable_;
    bool drawn_ = false;
    std::chrono::steady_clock::time_point last_;
};

}  // namespace dedupctl
