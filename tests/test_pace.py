"""The pool's decisions when to wake workers and how long they spin, which cpp/runtime/pace.hpp makes from estimates."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

COMPILER = shutil.which("g++") or shutil.which("clang++")
CPP = Path(__file__).parents[1] / "cpp"

# Reads lines "came|woke MICROSECONDS" and "ran OPERATIONS MICROSECONDS"; answers "spin" and "worth OPERATIONS".
PROGRAM = r"""
#include <cstdio>
#include <iostream>
#include <string>
#include "runtime/pace.hpp"

int main() {
  fastgru::Pace pace;
  const auto us = [](double count) { return std::chrono::nanoseconds(static_cast<long long>(count * 1e3)); };
  std::string word;
  double one, two;
  while (std::cin >> word) {
    if (word == "came" && std::cin >> one) pace.came(us(one));
    if (word == "woke" && std::cin >> one) pace.woke(us(one));
    if (word == "ran" && std::cin >> one >> two) pace.ran(one, us(two));
    if (word == "worth" && std::cin >> one) std::printf("%d\n", pace.worth_waking(one));
    if (word == "spin") std::printf("%.1f\n", static_cast<double>(pace.spin().count()) / 1e3);
  }
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if COMPILER is None:
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.mktemp("pace")
    (folder / "pace.cpp").write_text(PROGRAM)
    command = [COMPILER, "-std=c++17", f"-I{CPP}", "-o", folder / "pace", folder / "pace.cpp"]
    subprocess.run(command, check=True, timeout=120)
    return folder / "pace"


def ask(program, *lines):
    result = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True, timeout=60)
    return [float(line) for line in result.stdout.split()]


def test_a_job_is_worth_two_wake_ups(program):
    """With 1 ns per operation: the initial estimate of a wake-up is 200 us, then it follows the measurements."""
    slow, fast = ["woke 500"] * 60, ["woke 20"] * 60
    speed = ["ran 1e5 100"] * 60
    assert ask(program, *speed, "worth 3e5", "worth 6e5") == [0, 1]
    assert ask(program, *speed, *slow, "worth 6e5", "worth 2e6") == [0, 1]
    assert ask(program, *speed, *fast, "worth 2e4", "worth 8e4") == [0, 1]


def test_workers_spin_as_long_as_the_gap_between_jobs(program):
    (short,) = ask(program, *["came 15"] * 100, "spin")
    (longer,) = ask(program, *["came 60"] * 100, "spin")
    (mixed,) = ask(program, *(["came 5"] * 3 + ["came 80"]) * 100, "spin")
    assert 20 <= short <= 45
    assert 90 <= longer <= 180
    assert 110 <= mixed <= 200, "a quarter of the jobs come later, and are worth waiting for"


def test_workers_do_not_spin_for_jobs_that_come_too_late(program):
    assert ask(program, *["came 10000"] * 100, "spin") == [20]
    assert ask(program, *(["came 60"] + ["came 10000"] * 30) * 100, "spin") == [20]


def test_the_spin_time_recovers_quickly(program):
    late, early = ask(program, *["came 1000"] * 30_000, "spin", *["came 60"] * 12, "spin")
    assert late == 20
    assert 90 <= early <= 180


def test_workers_are_woken_again_after_slow_wake_ups(program):
    """Another program occupies a processor: the estimate is at most 1 ms, so that longer jobs wake workers again."""
    speed, held = ["ran 1e5 100"] * 60, ["woke 8000"] * 60
    assert ask(program, *speed, *held, "worth 1e6", "worth 3e6") == [0, 1]


def test_the_spin_time_grows_with_the_wake_up_latency(program):
    gaps = ["came 350"] * 100
    (quick,) = ask(program, *["woke 20"] * 60, *gaps, "spin")
    (slow,) = ask(program, *["woke 400"] * 60, *gaps, "spin")
    assert quick == 20
    assert 500 <= slow <= 900


def test_one_outlier_changes_little(program):
    usual = ["woke 50"] * 60
    before, after = ask(program, *["ran 1e5 100"] * 60, *usual, "worth 2e5", "woke 1e6", "worth 2e5")
    assert before == after == 1
