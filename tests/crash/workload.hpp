// A random mixture of all that callers do with a store, the same for the same seed.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "crash/ledger.hpp"
#include "dedup/cache.hpp"
#include "support/fault_disk.hpp"
#include "support/manual_clock.hpp"

namespace dedup::test {

class Workload {
  public:
    Workload(LedgerStore& store, ManualClock& clock, std::uint64_t seed,
             std::uint64_t receipt_bytes_max = 8000)
        : store_(store),
          clock_(clock),
          cache_(store),
          random_(seed),
          brief_(seed % 2 == 0),
          receipt_bytes_max_(receipt_bytes_max) {}

    // One operation. Its outcome is the ledger's business.
    void step();

  private:
    void claim();
    void claim_many();
    void complete();
    void complete_many();
    void release();
    void renew();
    void remember();
    void append_atomically();
    void let_time_pass();
    void flush();
    void sweep();

    struct Step {
        int weight;
        void (Workload::*run)();
    };
    static constexpr std::array<Step, 11> kSteps = {{
        {26, &Workload::claim},
        {6, &Workload::claim_many},
        {22, &Workload::complete},
        {5, &Workload::complete_many},
        {8, &Workload::release},
        {7, &Workload::renew},
        {10, &Workload::remember},
        {6, &Workload::append_atomically},
        {7, &Workload::let_time_pass},
        {5, &Workload::flush},
        {5, &Workload::sweep},
    }};

    std::string key();
    std::string receipt();
    ClaimOptions options();
    Claim some_claim();
    void keep(const Result<ClaimOutcome>& outcome);

    LedgerStore& store_;
    ManualClock& clock_;
    Cache cache_;
    Random random_;
    bool brief_;  // nothing lasts: whole segments expire
    std::uint64_t receipt_bytes_max_;
    std::vector<Claim> claims_;  // also stale ones
};

}  // namespace dedup::test
