// How the bindings call kernels: without the GIL, and where a call can last long, so that Ctrl-C ends it.
#pragma once

#include "bindings/checked_array.hpp"
#include "runtime/parallel.hpp"

namespace fastgru::bindings {

// Ctrl-C inside a long call: asked on the calling thread, which holds no GIL then.
inline bool python_wants_to_stop() {
  const py::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

// Runs kernel(cancellation) without the GIL; raises what a signal handler raised meanwhile.
template <class Kernel>
void call_interruptible(Kernel&& kernel) {
  // Python runs signal handlers on its main thread alone, so no other thread need ask; a daemon thread that took the
  // GIL while the interpreter shuts down would be ended in the middle of the kernel.
  const auto main_thread = py::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>();
  Cancellation cancellation(PyThread_get_thread_ident() == main_thread ? python_wants_to_stop : nullptr);
  {
    const py::gil_scoped_release no_gil;
    kernel(&cancellation);
  }
  if (cancellation.requested()) throw py::error_already_set();
}

template <class Kernel>
void call(Kernel&& kernel) {
  const py::gil_scoped_release no_gil;
  kernel();
}

inline std::string text(Index number) { return std::to_string(number); }

// Integers from 0 to `classes` - 1 as int64; `what` is what they are called.
inline py::array read_classes(const py::array& given, const char* name, const char* what, Index rows, Index classes,
                              const std::string& why_rows, const std::string& why_classes) {
  require_shape(given, name, {rows}, why_rows);
  // Always a copy: the kernel reads them without the GIL, when another thread might change what was checked.
  const auto copy = py::module_::import("numpy")
                        .attr("array")(given, py::arg("dtype") = py::dtype::of<std::int64_t>(), py::arg("order") = "C")
                        .cast<py::array>();
  const auto* values = static_cast<const std::int64_t*>(copy.data());
  for (Index row = 0; row < rows; ++row) {
    if (values[row] < 0 || values[row] >= classes) {
      throw py::value_error(std::string(name) + ": expected " + what + " from 0 to " + text(classes - 1) + " because " +
                            why_classes + ", got " + std::to_string(values[row]) + " at index " + text(row));
    }
  }
  return copy;
}

// What each of the files of bindings adds to the module.
void bind_gru(py::module_& m);
void bind_heads(py::module_& m);
void bind_optimizers(py::module_& m);

}  // namespace fastgru::bindings
