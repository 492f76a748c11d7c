// The catalog of an open store, and the writing to it.
#pragma once

#include <functional>
#include <memory>

#include "engine/context.hpp"
#include "engine/shown_view.hpp"
#include "env/mutex.hpp"

namespace dedup {

// Any thread may call any of these.
class StoreCatalog {
  public:
    StoreCatalog(StoreContext& context, ShownView& shown) : context_(context), shown_(shown) {}

    // While the store is opened, and when it closes.
    void set(std::shared_ptr<Catalog> catalog);
    // Null once the store has been closed, or before it is open.
    [[nodiscard]] std::shared_ptr<Catalog> get() const;
    // Errors: closed.
    [[nodiscard]] Result<std::shared_ptr<Catalog>> open_one() const;

    // Writes to the catalog, and shows readers what has changed. Nothing may fail between the two:
    // what is in memory would count streams of a segment that the catalog has, too. So the files of
    // a segment that is added are open before. Takes the lock of the view; the caller holds none.
    // Errors: those of `write`; nothing has changed then. Others leave the store failed.
    using Write = std::function<Result<void>(Catalog&)>;
    [[nodiscard]] Result<void> write(const Write& write, const AddedSegment& added = {});

  private:
    StoreContext& context_;
    ShownView& shown_;
    Mutex write_mutex_;  // held until the view shows what was written; taken before the view's lock
    mutable Mutex mutex_;
    std::shared_ptr<Catalog> catalog_ DEDUP_GUARDED_BY(mutex_);
};

}  // namespace dedup
