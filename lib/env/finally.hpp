// What has to be done at the end of a scope, whatever ends it.
#pragma once

#include <utility>

namespace dedup {

// Runs `run`, which throws nothing, when it is destroyed.
template <class Run>
class Finally {
  public:
    explicit Finally(Run run) : run_(std::move(run)) {}
    ~Finally() { run_(); }
    Finally(const Finally&) = delete;
    Finally& operator=(const Finally&) = delete;

  private:
    Run run_;
};

}  // namespace dedup
