"""Weights that are packed once and used in several calls. C++ only: the tests compile a program with cpp/."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CPP = Path(__file__).parents[1] / "cpp"
COMPILER = shutil.which("g++") or shutil.which("clang++")
EIGEN = next((path for entry in sys.path if (path := Path(entry) / "cmeel.prefix/include/eigen3").is_dir()), None)

PROGRAM = r"""
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "kernels/gru_forward.hpp"

using namespace fastgru;

// Numbers between -1 and 1 that differ from each other.
template <class T>
std::vector<T> numbers(Index count) {
  std::vector<T> result(static_cast<std::size_t>(count));
  unsigned state = static_cast<unsigned>(count);
  for (T& value : result) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<T>(state >> 8) / T(1 << 23) - T(1);
  }
  return result;
}

// Whether a call that the packed weights do not fit is refused before anything is read.
template <class T, class Change>
bool refuses(GruForwardArguments<T> arguments, Change change) {
  change(arguments);
  Workspace scratch;
  try {
    gru_forward(arguments, scratch, nullptr);
  } catch (const std::invalid_argument&) {
    return true;
  }
  return false;
}

// Whether a call with weights packed before gives the bits of one that packs them, again and again.
template <class T>
bool same_bits(WeightLayout layout, bool reset_after) {
  constexpr Index N = 5, F = 7, H = 19, steps = 3;
  const auto x = numbers<T>(N * steps * F), kernel = numbers<T>(F * 3 * H), recurrent = numbers<T>(H * 3 * H);
  const auto bias = numbers<T>(3 * H), recurrent_bias = numbers<T>(3 * H + 1);
  std::vector<T> expected(N * H), found(N * H);

  GruForwardArguments<T> arguments;
  arguments.shape = {N, steps, F, H};
  arguments.options.reset_after = reset_after;
  arguments.parameters = {layout, kernel.data(), recurrent.data(), bias.data(), recurrent_bias.data()};
  arguments.x = {x.data(), steps * F, F};
  arguments.sequences.steps = steps;
  arguments.last_state = expected.data();
  Workspace scratch;
  gru_forward(arguments, scratch, nullptr);

  const OwnedForwardWeights<T> packed(arguments.shape, reset_after, arguments.parameters);
  arguments.packed = &packed.view();
  arguments.parameters = {};
  arguments.last_state = found.data();
  for (int call = 0; call < 2; ++call) {
    std::memset(found.data(), 0, found.size() * sizeof(T));
    scratch.reset();
    gru_forward(arguments, scratch, nullptr);
    if (std::memcmp(expected.data(), found.data(), found.size() * sizeof(T)) != 0) return false;
  }
  return refuses(arguments, [](auto& a) { a.shape.units += 8; }) &&
         refuses(arguments, [](auto& a) { a.shape.features += 1; }) &&
         refuses(arguments, [](auto& a) { a.options.reset_after = !a.options.reset_after; });
}

int main() {
  for (const WeightLayout layout : {WeightLayout::keras, WeightLayout::torch}) {
    for (const bool reset_after : {true, false}) {
      std::printf("%d%d", same_bits<float>(layout, reset_after), same_bits<double>(layout, reset_after));
    }
  }
}
"""


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.skipif(EIGEN is None, reason="no Eigen from cmeel-eigen")
def test_packed_weights_give_bit_identical_results(tmp_path):
    program = tmp_path / "packed.cpp"
    program.write_text(PROGRAM)
    sources = [
        program,
        *(CPP / name for name in ("kernels/gru_forward.cpp", "runtime/parallel.cpp", "runtime/cpu_quota.cpp")),
    ]
    include = [f"-I{CPP}", "-isystem", str(EIGEN)]
    command = [COMPILER, "-std=c++17", "-ffp-contract=off", "-pthread", *include, *map(str, sources)]
    subprocess.run([*command, "-o", str(tmp_path / "packed")], check=True)
    result = subprocess.run([str(tmp_path / "packed")], check=True, capture_output=True, text=True)
    assert result.stdout == "1" * 8
