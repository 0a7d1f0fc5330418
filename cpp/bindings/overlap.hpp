// Finds arguments that share memory. An array that a kernel writes must not overlap any other of its arguments.
#pragma once

#include <pybind11/numpy.h>

#include <initializer_list>

namespace fastgru::bindings {

namespace py = pybind11;

// An argument and the bytes that its elements lie within; `array` may be null for one that was not given.
struct Argument {
  Argument() = default;
  Argument(const char* name, const py::array* array);
  const char* name = "";
  const py::array* array = nullptr;
  const char* begin = nullptr;
  const char* end = nullptr;
};

// A ValueError where two elements of an output share a byte, or an output shares one with another output or an input.
// Exact: arrays may lie between each other's rows. All have at most two axes besides those that are contiguous. Arrays
// whose extents are apart, which nearly all are, cost a comparison.
void require_apart(std::initializer_list<Argument> outputs, std::initializer_list<Argument> inputs);

}  // namespace fastgru::bindings
