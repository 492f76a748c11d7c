#include "engine/store_catalog.hpp"

#include "record/try.hpp"

namespace dedup {

void StoreCatalog::set(std::shared_ptr<Catalog> catalog) {
    const MutexLock lock(mutex_);
    catalog_ = std::move(catalog);
}

std::shared_ptr<Catalog> StoreCatalog::get() const {
    const MutexLock lock(mutex_);
    return catalog_;
}

Result<std::shared_ptr<Catalog>> StoreCatalog::open_one() const {
    auto catalog = get();
    return catalog ? Result<std::shared_ptr<Catalog>>(std::move(catalog))
                   : std::unexpected(context_.closed_error());
}

Result<void> StoreCatalog::write(const Write& write, const AddedSegment& added) {
    const MutexLock one_at_a_time(write_mutex_);
    if (context_.failure.torn()) {
        return std::unexpected(context_.failure.out_of_memory());  // memory's counts are wrong
    }
    const auto catalog = DEDUP_TRY(open_one());
    DEDUP_TRY(write(*catalog));
    const Unfinished unfinished(context_.failure);
    context_.internals.pause();
    const ViewPtr before = shown_.view();
    if (!before) {
        return std::unexpected(context_.closed_error());
    }
    auto sealed = catalog->snapshot(context_.env, context_.log_path, before->sealed, added);
    if (!sealed) {
        return std::unexpected(context_.failure.set(sealed.error()));
    }
    ShownView::Access shown(shown_);
    shown.publish(with_sealed(*shown.view(), std::move(*sealed)));
    return {};
}

}  // namespace dedup
