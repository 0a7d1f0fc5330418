#include "runtime/cpu_quota.hpp"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <vector>

namespace fastgru {
namespace {

enum class Version { one, two };

// A mount point of a cgroup hierarchy.
struct Mount {
  Version version;
  std::string root;   // the group at the mount point
  std::string point;  // directory
};

// Whether the comma-separated `list` contains `item`.
bool has_item(const std::string& list, const std::string& item) {
  return ("," + list + ",").find("," + item + ",") != std::string::npos;
}

// Decodes the octal escapes that mountinfo uses for white space in paths.
std::string unescape(const std::string& text) {
  const auto is_octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && is_octal(text[i + 1]) && is_octal(text[i + 2]) &&
        is_octal(text[i + 3])) {
      result += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

// Mounts of the hierarchies that can limit CPU time. A line of mountinfo (proc(5)):
//     id parent major:minor root point options [optional fields] - type source super-options
std::vector<Mount> read_mounts(const std::string& root) {
  std::vector<Mount> mounts;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t separator = line.find(" - ");
    if (separator == std::string::npos) continue;
    std::istringstream front(line.substr(0, separator)), back(line.substr(separator + 3));
    std::string id, parent, device, group, point, type, source, options;
    if (!(front >> id >> parent >> device >> group >> point) || !(back >> type >> source >> options)) continue;
    if (type == "cgroup2") {
      mounts.push_back({Version::two, unescape(group), unescape(point)});
    } else if (type == "cgroup" && has_item(options, "cpu")) {
      mounts.push_back({Version::one, unescape(group), unescape(point)});
    }
  }
  return mounts;
}

// The path of this process' group in the hierarchy of a cgroup version. A line of /proc/self/cgroup (cgroups(7)):
//     hierarchy:controllers:path; in version 2 the hierarchy is 0 and the controllers are empty
std::optional<std::string> own_group(const std::string& root, Version version) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (version == Version::two ? controllers.empty() : has_item(controllers, "cpu")) return line.substr(second + 1);
  }
  return std::nullopt;
}

// Processors for `quota` microseconds per `period`, rounded up; 0 for no limit.
int processors(long long quota, long long period) {
  if (quota <= 0 || period <= 0) return 0;
  const long long whole = quota / period + (quota % period != 0);
  return static_cast<int>(std::min<long long>(whole, std::numeric_limits<int>::max()));
}

int quota_of_directory(const std::string& directory, Version version) {
  long long quota = 0, period = 0;
  if (version == Version::two) {
    std::ifstream(directory + "/cpu.max") >> quota >> period;  // "max 100000" does not parse: no limit
  } else {
    std::ifstream(directory + "/cpu.cfs_quota_us") >> quota;  // -1: no limit
    std::ifstream(directory + "/cpu.cfs_period_us") >> period;
  }
  return processors(quota, period);
}

// The part of `path` below `top`; empty if it is not below. That happens in a container that sees the host's path of
// its group, but mounts only its own group.
std::string path_below(const std::string& path, const std::string& top) {
  const std::string prefix = top == "/" ? "" : top;
  const bool below = path.compare(0, prefix.size(), prefix) == 0 && path.size() > prefix.size() + 1 &&
                     path[prefix.size()] == '/' && path.find("/..") == std::string::npos;
  return below ? path.substr(prefix.size()) : "";
}

int smaller_limit(int a, int b) { return a == 0 ? b : b == 0 ? a : std::min(a, b); }

}  // namespace

int cpu_quota(const std::string& root) {
  int limit = 0;
  for (const Mount& mount : read_mounts(root)) {
    const std::optional<std::string> group = own_group(root, mount.version);
    if (!group) continue;
    for (std::string below = path_below(*group, mount.root);; below.erase(below.rfind('/'))) {
      limit = smaller_limit(limit, quota_of_directory(root + mount.point + below, mount.version));
      if (below.empty()) break;
    }
  }
  return limit;
}

}  // namespace fastgru
