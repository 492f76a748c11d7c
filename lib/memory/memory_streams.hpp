// What a store in memory holds: streams by name and by the sequence of their head. No locking.
#pragma once

#include <cstdint>
#include <map>
#include <new>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "contract/capacity.hpp"
#include "dedup/record.hpp"
#include "dedup/store.hpp"

namespace dedup {

// Compares whatever has a namespace and a key.
struct StreamLess {
    using is_transparent = void;
    template <class A, class B>
    bool operator()(const A& a, const B& b) const {
        return std::tuple<std::string_view, std::string_view>(a.ns, a.key) <
               std::tuple<std::string_view, std::string_view>(b.ns, b.key);
    }
};

// An estimate of what a record takes.
[[nodiscard]] inline std::uint64_t memory_bytes(const Record& record) {
    return sizeof(Record) + content_bytes(record);
}

class MemoryStreams {
  public:
    struct Name {
        std::string ns;
        std::string key;
    };
    using Map = std::map<Name, std::vector<Record>, StreamLess>;  // records oldest first
    using Stream = Map::value_type;

    // Null if there is no such stream.
    template <class Named>
    [[nodiscard]] const std::vector<Record>* find(const Named& stream) const {
        const auto at = streams_.find(stream);
        return at == streams_.end() ? nullptr : &at->second;
    }

    // Every stream by the sequence of its head, which is log order.
    [[nodiscard]] const std::map<std::uint64_t, const Stream*>& by_head() const { return by_head_; }

    // Precondition: record.sequence is above all that there are. Changes nothing if memory runs
    // out.
    void append(const Record& record) {
        auto at = streams_.find(record);
        const bool begins = at == streams_.end();
        if (begins) {
            at = streams_.try_emplace({record.ns, record.key}, 1, record).first;
        }
        const std::uint64_t head = at->second.back().sequence;
        const auto by_head = emplace_head(at, record.sequence, begins);
        if (!begins) {
            try {
                at->second.push_back(record);
            } catch (const std::bad_alloc&) {
                by_head_.erase(by_head);
                throw;
            }
            by_head_.erase(head);
        }
        ++records_;
        bytes_ += memory_bytes(record);
    }

    // Precondition: there is a stream with this head.
    void erase(std::uint64_t head_sequence) {
        const auto at = by_head_.find(head_sequence);
        const auto stream = streams_.find(at->second->first);
        for (const Record& record : stream->second) {
            --records_;
            bytes_ -= memory_bytes(record);
        }
        streams_.erase(stream);
        by_head_.erase(at);
    }

    [[nodiscard]] std::uint64_t size() const { return streams_.size(); }
    [[nodiscard]] std::uint64_t records() const { return records_; }
    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

  private:
    using ByHead = std::map<std::uint64_t, const Stream*>;

    // A stream that has just been made goes again if this fails.
    ByHead::iterator emplace_head(Map::iterator stream, std::uint64_t sequence, bool is_new) {
        try {
            return by_head_.emplace(sequence, &*stream).first;
        } catch (const std::bad_alloc&) {
            if (is_new) {
                streams_.erase(stream);
            }
            throw;
        }
    }

    Map streams_;
    ByHead by_head_;
    std::uint64_t records_ = 0;
    std::uint64_t bytes_ = 0;
};

}  // namespace dedup
