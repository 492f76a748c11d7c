// The rooms of a store that is open for writing.
#pragma once

#include <memory>

#include "engine/append.hpp"
#include "engine/log_writer.hpp"
#include "engine/sealer.hpp"
#include "sweep/log_sweep.hpp"

namespace dedup {

struct Engine {
    Engine(StoreContext& context, ShownView& shown, const Reader& reader, StoreCatalog& catalog,
           const LogClock& clock, SweepPlanner& planner)
        : queue(context.closed, [&context] { return context.closed_error(); }),
          sealer(context, reader, catalog),
          writer(context, shown, queue, sealer),
          appender(context, reader, queue, writer),
          sweep(context, shown, reader, catalog, clock, queue, writer, sealer, planner) {}

    std::unique_ptr<Lock> lock;
    CommitQueue queue;
    Sealer sealer;
    LogWriter writer;
    Appender appender;
    LogSweep sweep;
};

}  // namespace dedup
