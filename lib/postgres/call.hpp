// A call of a store's function, as long as it runs.
#pragma once

#include "postgres/postgres_store.hpp"

namespace dedup::pg {

class PostgresStore::Call {
  public:
    Call(const PostgresStore& store, bool writes) : store_(store), error_(store.unusable(writes)) {
        if (error_) {
            return;
        }
        const std::lock_guard lock(store.calls_mutex_);
        if (store.closing_) {
            error_ = Error{Code::closed, "the store in the database was closed"};
        } else {
            ++store.calls_;
        }
    }
    ~Call() {
        if (error_ || store_.process_.inherited()) {  // forked in a callback: the lock may be held
            return;
        }
        const std::lock_guard lock(store_.calls_mutex_);
        if (--store_.calls_ == 0) {
            store_.calls_changed_.notify_all();
        }
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    explicit operator bool() const { return !error_; }
    [[nodiscard]] const Error& error() const { return *error_; }

  private:
    const PostgresStore& store_;
    std::optional<Error> error_;
};

}  // namespace dedup::pg
