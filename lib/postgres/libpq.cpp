// Each function of libpq that the engine calls stands here once more, under its own name and hidden
// from whoever links this library, and calls the one that was loaded. Parameters have libpq's
// names.
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
PQconninfoOption* PQconninfoParse(const char* conninfo, char** errmsg) {
    return LOADED(PQconninfoParse)(conninfo, errmsg);
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
PGresult* PQexec(PGconn* conn, const char* query) {
    return LOADED(PQexec)(conn, query);
}
PGresult* PQexecParams(PGconn* conn, const char* command, int nParams, const Oid* paramTypes,
                       const char* const* paramValues, const int* paramLengths,
                       const int* paramFormats, int resultFormat) {
    return LOADED(PQexecParams)(conn, command, nParams, paramTypes, paramValues, paramLengths,
                                paramFormats, resultFormat);
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
void PQfreemem(void* ptr) {
    LOADED(PQfreemem)(ptr);
}
PGresult* PQgetResult(PGconn* conn) {
    return LOADED(PQgetResult)(conn);
}
int PQgetisnull(const PGresult* res, int tup_num, int field_num) {
    return LOADED(PQgetisnull)(res, tup_num, field_num);
}
int PQgetlength(const PGresult* res, int tup_num, int field_num) {
    return LOADED(PQgetlength)(res, tup_num, field_num);
}
char* PQgetvalue(const PGresult* res, int tup_num, int field_num) {
    return LOADED(PQgetvalue)(res, tup_num, field_num);
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
int PQsendPrepare(PGconn* conn, const char* stmtName, const char* query, int nParams,
                  const Oid* paramTypes) {
    return LOADED(PQsendPrepare)(conn, stmtName, query, nParams, paramTypes);
}
int PQsendQuery(PGconn* conn, const char* query) {
    return LOADED(PQsendQuery)(conn, query);
}
int PQsendQueryParams(PGconn* conn, const char* command, int nParams, const Oid* paramTypes,
                      const char* const* paramValues, const int* paramLengths,
                      const int* paramFormats, int resultFormat) {
    return LOADED(PQsendQueryParams)(conn, command, nParams, paramTypes, paramValues, paramLengths,
                                     paramFormats, resultFormat);
}
int PQsendQueryPrepared(PGconn* conn, const char* stmtName, int nParams,
                        const char* const* paramValues, const int* paramLengths,
                        const int* paramFormats, int resultFormat) {
    return LOADED(PQsendQueryPrepared)(conn, stmtName, nParams, paramValues, paramLengths,
                                       paramFormats, resultFormat);
}
PQnoticeReceiver PQsetNoticeReceiver(PGconn* conn, PQnoticeReceiver proc, void* arg) {
    return LOADED(PQsetNoticeReceiver)(conn, proc, arg);
}
int PQsetnonblocking(PGconn* conn, int arg) {
    return LOADED(PQsetnonblocking)(conn, arg);
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
