// What callers were told of their keys, and whether a store stands by it after a crash.
//
// The calls that callers make of a Cache are noted beside the ledger (see LedgerCache). Those whose
// entries a crash has left are made again of the model of support/claim_model.hpp, which was
// written from the protocol's description and knows no records. Then the store has to answer as the
// model does: an acknowledged note is there, a held key is held and nobody's, a decision is final,
// and a key that was forgotten is free.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "crash/ledger.hpp"
#include "dedup/cache.hpp"
#include "support/claim_model.hpp"

namespace dedup::test {

// One call of a Cache that was made with told_options().
struct CacheCall {
    struct Part {
        std::string key;
        std::function<void(KeyModel&)> apply;
    };
    std::vector<Part> parts;  // those of a span, in its order
    std::size_t first = 0;    // the ledger's entries before it
    std::size_t end = 0;      // and after it
    bool known = true;        // false: it failed, and its caller cannot know what came of it

    // Nobody can say any more what callers of its keys are to be told.
    void give_up(std::set<std::string>& untold) const {
        for (const Part& part : parts) {
            untold.insert(part.key);
        }
    }
};

[[nodiscard]] CacheOptions told_options();

class Told {
  public:
    // By the calls whose entries are among the first `present` ones.
    Told(const Ledger& ledger, std::size_t present);

    // What the store says otherwise; empty if nothing. Appends nothing, unless something is wrong.
    [[nodiscard]] std::string problem(StreamStore& store) const;
    [[nodiscard]] Standing standing(std::int64_t now_ms) const;

  private:
    void sweep(std::int64_t expired_before_ms);
    [[nodiscard]] std::string wrong_lookup(StreamStore& store) const;
    [[nodiscard]] std::string wrong_held(StreamStore& store) const;
    [[nodiscard]] std::string wrong_resolved(StreamStore& store) const;

    std::map<std::string, KeyModel> models_;
};

}  // namespace dedup::test
