// A random mixture of all that callers do with a store, the same for the same seed.
//
// Some steps are the same for all seeds. One leaves a key held, one resolved and one forgotten. The
// first fills a segment with what soon expires, and a later one outlives and sweeps it: so each
// life of more than kOutlivedAt steps drops a segment as it is. By itself that has become rare: an
// empty segment is compacted instead where an older one has superseded versions that have not
// expired (see sort_out in lib/sweep/plan.cpp), and those of a claim under Unanswered::hold never
// do.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "crash/ledger.hpp"
#include "crash/ledger_cache.hpp"
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
    static constexpr int kSaidAt = 20;
    static constexpr int kOutlivedAt = 40;

    void fill_segment();
    void say_all();
    void outlive();
    void step_at_random();

    void claim();
    void claim_many();
    void complete();
    void complete_many();
    void release();
    void renew();
    void note();
    void hold();
    void resolve();
    void forget();
    void remember();
    void append_atomically();
    void let_time_pass();
    void flush();
    void sweep();

    struct Step {
        int weight;
        void (Workload::*run)();
    };
    static constexpr std::array<Step, 15> kSteps = {{
        {26, &Workload::claim},
        {6, &Workload::claim_many},
        {22, &Workload::complete},
        {5, &Workload::complete_many},
        {8, &Workload::release},
        {7, &Workload::renew},
        {6, &Workload::note},
        {4, &Workload::hold},
        {6, &Workload::resolve},
        {5, &Workload::forget},
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
    LedgerCache cache_;
    Random random_;
    bool brief_;  // nothing lasts: whole segments expire
    std::uint64_t receipt_bytes_max_;
    int steps_ = 0;              // done
    std::vector<Claim> claims_;  // also stale ones
};

}  // namespace dedup::test
