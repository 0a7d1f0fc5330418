"""The default number of threads follows the CPU quota of control groups, read from files in Linux' formats."""

from __future__ import annotations

import os
import subprocess
import sys

import fastgru
import pytest
from fastgru._native import kernels

pytestmark = [
    pytest.mark.isa_independent,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="control groups are Linux'"),
]

V2 = "{id} 23 0:26 {root} {point} rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "{id} 23 0:29 {root} {point} rw,nosuid,relatime - cgroup cgroup rw,{controllers}"
OTHERS = [
    "23 28 0:21 / /proc rw,nosuid - proc proc rw",
    "31 23 0:28 / /sys/fs/cgroup ro,relatime - tmpfs tmpfs ro,mode=755",
    "40 31 0:40 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
    "41 31 0:41 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset",
    "damaged",
]


def v2(root="/", point="/sys/fs/cgroup"):
    return V2.format(id=50, root=root, point=point)


def v1(root="/", point="/sys/fs/cgroup/cpu,cpuacct", controllers="cpu,cpuacct"):
    return V1.format(id=51, root=root, point=point, controllers=controllers)


def machine(folder, groups, mounts, files):
    """Return a root folder with these lines of /proc/self/cgroup and mountinfo, and these files."""
    process = folder / "proc" / "self"
    process.mkdir(parents=True)
    if groups is not None:
        (process / "cgroup").write_text("".join(f"{line}\n" for line in groups))
    if mounts is not None:
        (process / "mountinfo").write_text("".join(f"{line}\n" for line in [*OTHERS, *mounts]))
    for name, text in files.items():
        path = folder / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


@pytest.fixture(autouse=True)
def _no_wish(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def limited_to(folder, groups, mounts, files):
    """Return the default number of threads on a machine with many processors."""
    root = machine(folder, groups, mounts, files)
    limited = kernels.default_threads(root)
    assert limited == min(kernels.cpu_quota(root) or 10**9, len(os.sched_getaffinity(0)))
    return kernels.cpu_quota(root)


CGROUP = "/sys/fs/cgroup"
CPU = "/sys/fs/cgroup/cpu,cpuacct"
CASES = {
    "v2, in a container": (["0::/"], [v2()], {f"{CGROUP}/cpu.max": "150000 100000\n"}, 2),
    "v2, one processor": (["0::/"], [v2()], {f"{CGROUP}/cpu.max": "100000 100000\n"}, 1),
    "v2, a tenth": (["0::/"], [v2()], {f"{CGROUP}/cpu.max": "10000 100000\n"}, 1),
    "v2, another period": (["0::/"], [v2()], {f"{CGROUP}/cpu.max": "50001 10000\n"}, 6),
    "v2, no limit": (["0::/"], [v2()], {f"{CGROUP}/cpu.max": "max 100000\n"}, 0),
    "v2, no file": (["0::/"], [v2()], {}, 0),
    "v2, a service": (["0::/system.slice/a.service"], [v2()],
                      {f"{CGROUP}/system.slice/a.service/cpu.max": "300000 100000"}, 3),
    "v2, above the group": (["0::/a/b/c"], [v2()],
                            {f"{CGROUP}/a/b/c/cpu.max": "max 100000", f"{CGROUP}/a/cpu.max": "200000 100000"}, 2),
    "v2, the smallest of all": (["0::/a/b"], [v2()],
                                {f"{CGROUP}/a/b/cpu.max": "500000 100000", f"{CGROUP}/a/cpu.max": "400000 100000",
                                 f"{CGROUP}/cpu.max": "700000 100000"}, 4),
    "v2, another group's": (["0::/a"], [v2()], {f"{CGROUP}/ab/cpu.max": "100000 100000"}, 0),
    "v2, only the own group mounted": (["0::/docker/1"], [v2(root="/docker/1")],
                                       {f"{CGROUP}/cpu.max": "200000 100000"}, 2),
    "v2, below the mounted group": (["0::/docker/1/x"], [v2(root="/docker/1")],
                                    {f"{CGROUP}/x/cpu.max": "200000 100000"}, 2),
    "v2, the host's path in a container": (["0::/docker/1"], [v2(root="/elsewhere")],
                                           {f"{CGROUP}/cpu.max": "200000 100000"}, 2),
    "v2, outside of its namespace": (["0::/../../other"], [v2()], {f"{CGROUP}/cpu.max": "200000 100000"}, 2),
    "v2, a point with a blank": (["0::/"], [v2(point=r"/my\040groups")], {"/my groups/cpu.max": "200000 100000"}, 2),
    "v2, a group with a colon": (["0::/a:b"], [v2()], {f"{CGROUP}/a:b/cpu.max": "200000 100000"}, 2),
    "v1, in a container": (["4:cpu,cpuacct:/docker/1"], [v1(root="/docker/1")],
                           {f"{CPU}/cpu.cfs_quota_us": "250000\n", f"{CPU}/cpu.cfs_period_us": "100000\n"}, 3),
    "v1, no limit": (["4:cpu,cpuacct:/"], [v1()],
                     {f"{CPU}/cpu.cfs_quota_us": "-1\n", f"{CPU}/cpu.cfs_period_us": "100000\n"}, 0),
    "v1, above the group": (["4:cpu:/a/b"], [v1(point="/c", controllers="cpu")],
                            {"/c/a/b/cpu.cfs_quota_us": "-1", "/c/a/b/cpu.cfs_period_us": "100000",
                             "/c/a/cpu.cfs_quota_us": "150000", "/c/a/cpu.cfs_period_us": "50000"}, 3),
    "v1, other controllers' groups": (["5:cpuset:/a", "6:cpuacct:/b", "4:cpu:/"], [v1(controllers="cpu")],
                                      {f"{CPU}/a/cpu.cfs_quota_us": "100000", f"{CPU}/a/cpu.cfs_period_us": "100000",
                                       f"{CPU}/b/cpu.cfs_quota_us": "100000", f"{CPU}/b/cpu.cfs_period_us": "100000"},
                                      0),
    "both, v1 has the controller": (["4:cpu,cpuacct:/a", "0::/a"], [v1(), v2(point="/sys/fs/cgroup/unified")],
                                    {f"{CPU}/a/cpu.cfs_quota_us": "200000", f"{CPU}/a/cpu.cfs_period_us": "100000"}, 2),
    "damaged numbers": (["0::/"], [v2()], {f"{CGROUP}/cpu.max": "many few"}, 0),
    "a number alone": (["0::/"], [v2()], {f"{CGROUP}/cpu.max": "100000"}, 0),
    "a period of 0": (["0::/"], [v2()], {f"{CGROUP}/cpu.max": "100000 0"}, 0),
    "too large a number": (["0::/"], [v2()], {f"{CGROUP}/cpu.max": f"{10**30} 100000"}, 0),
    "a large number": (["0::/"], [v2()], {f"{CGROUP}/cpu.max": f"{10**18} 1"}, 2**31 - 1),
    "empty files": ([""], [""], {f"{CGROUP}/cpu.max": ""}, 0),
    "no groups": (None, [v2()], {f"{CGROUP}/cpu.max": "100000 100000"}, 0),
    "no mounts": (["0::/"], None, {f"{CGROUP}/cpu.max": "100000 100000"}, 0),
    "damaged lines": (["0:/", "::", "x"], [v2()[:-20], "1 - "], {f"{CGROUP}/cpu.max": "100000 100000"}, 0),
}  # fmt: skip


@pytest.mark.parametrize(("groups", "mounts", "files", "expected"), CASES.values(), ids=CASES)
def test_quotas(tmp_path, groups, mounts, files, expected):
    assert limited_to(tmp_path, groups, mounts, files) == expected


def test_a_machine_without_control_groups(tmp_path):
    assert kernels.cpu_quota(str(tmp_path / "none")) == 0
    assert kernels.default_threads(str(tmp_path / "none")) == len(os.sched_getaffinity(0))


def test_the_default_is_the_smaller_of_quota_and_affinity_and_omp_num_threads_goes_first(tmp_path, monkeypatch):
    half = machine(tmp_path / "half", ["0::/"], [v2()], {f"{CGROUP}/cpu.max": "50000 100000"})
    many = machine(tmp_path / "many", ["0::/"], [v2()], {f"{CGROUP}/cpu.max": "90000000 100000"})
    assert kernels.default_threads(half) == 1
    assert kernels.default_threads(many) == len(os.sched_getaffinity(0))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert kernels.default_threads(half) == 7


def test_a_new_process_uses_the_default():
    program = "import fastgru; print(fastgru.get_num_threads())"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(printed) == kernels.default_threads()
    assert 1 <= fastgru.get_num_threads() <= 1024
