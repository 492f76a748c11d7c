// The store, open for writing only while there is work: others get their turns in between.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "context.hpp"

namespace dedupctl {

// For commands that read a stream, which may rest for hours. The first opening waits for another
// writer as long as --lock-timeout says. Later ones wait as long as it takes: what was read is not
// given up because somebody else writes meanwhile.
class WriterTurns {
  public:
    // `stopped` says whether to give up waiting.
    WriterTurns(const Context& context, std::function<bool()> stopped);
    WriterTurns(const WriterTurns&) = delete;
    WriterTurns& operator=(const WriterTurns&) = delete;

    // Opens it if it is closed. Null if it was told to stop. Throws a Failure, also if there is
    // another store at the path by now.
    [[nodiscard]] dedup::StreamStore* store();

    // Between two batches: closes the store if there is nothing to read at `fd` for a moment, or
    // if it has been open for so long that others should have their turn.
    void rest(int fd);

    void close();

  private:
    void open();
    void check_same();

    const Context& context_;
    std::function<bool()> stopped_;
    std::unique_ptr<dedup::StreamStore> store_;
    std::string store_id_;  // of the first opening
    std::chrono::steady_clock::time_point opened_at_;
};

}  // namespace dedupctl
