// What http::serve needs of a Leases.
#pragma once

#include "dedup/lease.hpp"

namespace dedup {

struct LeasesInside {
    [[nodiscard]] static const Cache& cache(const Leases& leases) { return leases.cache_; }
    [[nodiscard]] static std::chrono::milliseconds lease(const Leases& leases) {
        return leases.lease_;
    }
    [[nodiscard]] static Heartbeat& heartbeat(const Leases& leases) { return *leases.heartbeat_; }
};

}  // namespace dedup
