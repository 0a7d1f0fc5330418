// The CPU time that Linux control groups (cgroups) grant this process. Containers are limited by cgroups.
#pragma once

#include <string>

namespace fastgru {

// The CPU quota of this process in processors, rounded up; 0 if there is no limit. Reads cpu.cfs_quota_us over
// cpu.cfs_period_us (cgroup v1) and cpu.max (cgroup v2) of the process' group and all its parents, and returns the
// smallest. A file that cannot be read or parsed sets no limit. `root` is a prefix of all paths: tests set it.
int cpu_quota(const std::string& root = "");

}  // namespace fastgru
