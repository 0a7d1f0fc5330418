// The CPU time that Linux control groups grant this process. Containers are limited by means of these groups.
#pragma once

#include <string>

namespace fastgru {

// How many processors' time the process may use, rounded up; 0 where nothing limits it. The smallest quota counts of
// the group that the process is in and of those above it, in version 1 (cpu.cfs_quota_us over cpu.cfs_period_us) and
// version 2 (cpu.max) of control groups. Files are read below `root`, which is empty except in tests; what cannot be
// read or understood sets no limit.
int cpu_quota(const std::string& root = "");

}  // namespace fastgru
