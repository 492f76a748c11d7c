// What a process really does to the files below a directory, call by call, kept as the state of a
// FaultDisk.
//
// LMDB does its own I/O, which no Env sees. So the system calls themselves are noted: a program
// that links call_recorder.cpp has functions named open, pwrite, fdatasync and so on, which come
// before those of the C library, for this program and for the shared libraries that it loads. They
// do the call and tell the recorder. What is not noted:
//
//   - Writes through a shared mapping. Nobody makes any.
//   - Calls with a descriptor that was opened before the recorder or got otherwise than by open.
//
// A write through a descriptor that was opened with O_DSYNC, as LMDB's meta pages are written, is
// durable when it returns; while it is on its way it is not.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "env/env.hpp"
#include "support/fault_disk.hpp"

namespace dedup::test {

// Records from its construction to its destruction. One at a time; calls of any thread, one after
// another.
class CallRecorder {
  public:
    // `state`: what lies below `root` now.
    explicit CallRecorder(Path root, DiskState state = {});
    ~CallRecorder();
    CallRecorder(const CallRecorder&) = delete;
    CallRecorder& operator=(const CallRecorder&) = delete;

    // Run before each call that changes something, and while a synchronous write is on its way.
    // No other call is made meanwhile, and it must not make one itself. To be changed within
    // alone() if other threads may be making calls.
    std::function<void()> before_change = [] {};
    // Whether the file system can exchange two names.
    bool can_exchange = true;
    // For use in before_change, or in a call of alone().
    [[nodiscard]] const DiskState& disk() const { return disk_.state(); }
    [[nodiscard]] const std::string& last_call() const { return last_call_; }
    // Runs `work` while no call is made.
    void alone(const std::function<void()>& work);

    // The first file below the root that does not have what was recorded; empty if there is none.
    [[nodiscard]] Path differing();
    [[nodiscard]] std::uint64_t synchronous_writes() const { return synchronous_writes_; }

  private:
    [[nodiscard]] Path differing_file();
    friend class RecordedCall;  // what the functions named like system calls use

    struct OpenFile {
        int node = -1;
        bool synchronous = false;
        Path path;
    };

    Path root_;
    FaultDisk disk_;
    std::mutex mutex_;  // guards the above and the below
    std::map<int, OpenFile> open_;
    std::string last_call_;
    std::uint64_t synchronous_writes_ = 0;
};

}  // namespace dedup::test
