#include "key_counts.hpp"

namespace dedupctl {

void KeyCounts::add(const dedup::Record& record, const Moment& moment) {
    if (moment.expired(record)) {
        ++expired;
        return;
    }
    switch (record.state()) {
        case dedup::State::in_flight:
            ++in_flight;
            stuck += moment.past_lease(record) ? 1U : 0U;
            held += moment.held(record) ? 1U : 0U;
            if (oldest_ms == 0 || record.timestamp_ms < oldest_ms) {
                oldest_ms = record.timestamp_ms;
            }
            break;
        case dedup::State::completed:
            ++completed;
            break;
        case dedup::State::released:
            ++released;
            break;
    }
}

KeyCounts& KeyCounts::operator+=(const KeyCounts& more) {
    in_flight += more.in_flight;
    stuck += more.stuck;
    held += more.held;
    completed += more.completed;
    released += more.released;
    expired += more.expired;
    if (oldest_ms == 0 || (more.oldest_ms != 0 && more.oldest_ms < oldest_ms)) {
        oldest_ms = more.oldest_ms;
    }
    return *this;
}

Json counts_json(const KeyCounts& counts) {
    return {{"in_flight", counts.in_flight}, {"stuck", counts.stuck},
            {"held", counts.held},           {"completed", counts.completed},
            {"released", counts.released},   {"expired", counts.expired}};
}

}  // namespace dedupctl
