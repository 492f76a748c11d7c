// What frames an export: its first line is {"dedup_export": "heads", "version": 1, ...}, its last
// one the same with "records", the number of lines between them.
#pragma once

namespace dedupctl {

inline constexpr const char* kExportMember = "dedup_export";
inline constexpr const char* kExportName = "heads";
inline constexpr unsigned kExportVersion = 1;

}  // namespace dedupctl
