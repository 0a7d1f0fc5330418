// Finds arguments that share memory. An array that a kernel writes must not overlap any other of its arguments.
#pragma once

#include <pybind11/numpy.h>

#include <initializer_list>

namespace fastgru::bindings {

namespace py = pybind11;

// An argument and the range of bytes that contains its elements. `array` is null if the argument was not given.
struct Argument {
  Argument() = default;
  Argument(const char* name, const py::array* array);
  const char* name = "";
  const py::array* array = nullptr;
  const char* begin = nullptr;
  const char* end = nullptr;
};

// Raises a ValueError if two elements of an output share a byte, or an output shares a byte with another output or an
// input. The check is exact: an array may lie between the rows of another. All arrays must have at most two
// non-contiguous axes. Arrays with disjoint ranges, the usual case, cost one comparison.
void require_apart(std::initializer_list<Argument> outputs, std::initializer_list<Argument> inputs);

}  // namespace fastgru::bindings
