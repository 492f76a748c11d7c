// Each function of libpq that the engine calls stands here once more, under its own name and hidden
// from whoever links this library, and calls the one that was loaded.
#include "postgres/libpq.hpp"

#include <dlfcn.h>
#include <fmt/format.h>
#include <libpq-fe.h>

#include <expected>
#include <string>

namespace dedup::pg {
namespace {

// All versions since PostgreSQL 8.0 have this name.
constexpr const char* kLibpqName = "libpq.so.5";
// What came last of the functions below, with PostgreSQL 14: who has it has all.
constexpr const char* kNewest = "PQpipelineSync";

// The library's handle, or why there is none.
std::expected<void*, std::string> load() {
    void* const library = ::dlopen(kLibpqName, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        return std::unexpected(::dlerror());
    }
    if (::dlsym(library, kNewest) == nullptr) {
        return std::unexpected(fmt::format("{} is older than PostgreSQL 14", kLibpqName));
    }
    return library;
}

// Stays loaded until the process ends.
const std::expected<void*, std::string>& library() {
    static const std::expected<void*, std::string> loaded = load();
    return loaded;
}

}  // namespace

Result<void> load_libpq() {
    if (!library()) {
        return std::unexpected(
            Error{.code = Code::unavailable,
                  .message = fmt::format("stores in PostgreSQL need libpq, which cannot be loaded; "
                                         "Debian's package is libpq5: {}",
                                         library().error())});
    }
    return {};
}

}  // namespace dedup::pg

// Precondition: load_libpq() has succeeded.
#define LOADED(name)                                                                    \
    ([] {                                                                               \
        static const auto function =                                                    \
            reinterpret_cast<decltype(&::name)>(::dlsym(*dedup::pg::library(), #name)); \
        return function;                                                                \
    }())

extern "C" {

void PQclear(PGresult* result) {
    LOADED(PQclear)(result);
}
PGconn* PQconnectdbParams(const char* const* keywords, const char* const* values, int expand) {
    return LOADED(PQconnectdbParams)(keywords, values, expand);
}
void PQconninfoFree(PQconninfoOption* options) {
    LOADED(PQconninfoFree)(options);
}
PQconninfoOption* PQconninfoParse(const char* text, char** error) {
    return LOADED(PQconninfoParse)(text, error);
}
int PQconsumeInput(PGconn* conn) {
    return LOADED(PQconsumeInput)(conn);
}
int PQenterPipelineMode(PGconn* conn) {
    return LOADED(PQenterPipelineMode)(conn);
}
char* PQerrorMessage(const PGconn* conn) {
    return LOADED(PQerrorMessage)(conn);
}
PGresult* PQexec(PGconn* conn, const char* sql) {
    return LOADED(PQexec)(conn, sql);
}
PGresult* PQexecParams(PGconn* conn, const char* sql, int count, const Oid* types,
                       const char* const* values, const int* lengths, const int* formats,
                       int format) {
    return LOADED(PQexecParams)(conn, sql, count, types, values, lengths, formats, format);
}
int PQexitPipelineMode(PGconn* conn) {
    return LOADED(PQexitPipelineMode)(conn);
}
void PQfinish(PGconn* conn) {
    LOADED(PQfinish)(conn);
}
int PQflush(PGconn* conn) {
    return LOADED(PQflush)(conn);
}
void PQfreemem(void* memory) {
    LOADED(PQfreemem)(memory);
}
PGresult* PQgetResult(PGconn* conn) {
    return LOADED(PQgetResult)(conn);
}
int PQgetisnull(const PGresult* result, int row, int column) {
    return LOADED(PQgetisnull)(result, row, column);
}
int PQgetlength(const PGresult* result, int row, int column) {
    return LOADED(PQgetlength)(result, row, column);
}
char* PQgetvalue(const PGresult* result, int row, int column) {
    return LOADED(PQgetvalue)(result, row, column);
}
char* PQhost(const PGconn* conn) {
    return LOADED(PQhost)(conn);
}
int PQisBusy(PGconn* conn) {
    return LOADED(PQisBusy)(conn);
}
int PQntuples(const PGresult* result) {
    return LOADED(PQntuples)(result);
}
int PQpipelineSync(PGconn* conn) {
    return LOADED(PQpipelineSync)(conn);
}
char* PQresultErrorField(const PGresult* result, int field) {
    return LOADED(PQresultErrorField)(result, field);
}
char* PQresultErrorMessage(const PGresult* result) {
    return LOADED(PQresultErrorMessage)(result);
}
ExecStatusType PQresultStatus(const PGresult* result) {
    return LOADED(PQresultStatus)(result);
}
int PQsendPrepare(PGconn* conn, const char* name, const char* sql, int count, const Oid* types) {
    return LOADED(PQsendPrepare)(conn, name, sql, count, types);
}
int PQsendQuery(PGconn* conn, const char* sql) {
    return LOADED(PQsendQuery)(conn, sql);
}
int PQsendQueryParams(PGconn* conn, const char* sql, int count, const Oid* types,
                      const char* const* values, const int* lengths, const int* formats,
                      int format) {
    return LOADED(PQsendQueryParams)(conn, sql, count, types, values, lengths, formats, format);
}
int PQsendQueryPrepared(PGconn* conn, const char* name, int count, const char* const* values,
                        const int* lengths, const int* formats, int format) {
    return LOADED(PQsendQueryPrepared)(conn, name, count, values, lengths, formats, format);
}
PQnoticeReceiver PQsetNoticeReceiver(PGconn* conn, PQnoticeReceiver receiver, void* argument) {
    return LOADED(PQsetNoticeReceiver)(conn, receiver, argument);
}
int PQsetnonblocking(PGconn* conn, int on) {
    return LOADED(PQsetnonblocking)(conn, on);
}
int PQsocket(const PGconn* conn) {
    return LOADED(PQsocket)(conn);
}
ConnStatusType PQstatus(const PGconn* conn) {
    return LOADED(PQstatus)(conn);
}
PGTransactionStatusType PQtransactionStatus(const PGconn* conn) {
    return LOADED(PQtransactionStatus)(conn);
}

}  // extern "C"
