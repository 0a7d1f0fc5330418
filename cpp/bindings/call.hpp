// Runs kernels: releases the GIL, flushes denormals, and lets Ctrl-C interrupt long calls.
#pragma once

#include <pthread.h>

#include <atomic>

#include "bindings/checked_array.hpp"
#include "bindings/gil.hpp"
#include "runtime/denormals.hpp"
#include "runtime/parallel.hpp"

namespace fastgru::bindings {

// Runs kernel() without the GIL and with denormals flushed to zero on this thread.
template <class Kernel>
void call(Kernel&& kernel) {
  const WithoutGil no_gil;
  const FlushDenormals flush;
  kernel();
}

// Python's main thread, the only one that runs signal handlers. Its id is read once, at import: during interpreter
// shutdown nothing can be imported, but kernels may still run.
class MainThread {
 public:
  static void remember() {
    ident() = py::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>();
    // In a forked child, the thread that called fork is the main thread.
    pthread_atfork(nullptr, nullptr, [] { ident() = PyThread_get_thread_ident(); });
  }
  static bool is_this() { return PyThread_get_thread_ident() == ident(); }

 private:
  static std::atomic<unsigned long>& ident() {
    static std::atomic<unsigned long> instance{0};
    return instance;
  }
};

// The poll function of a Cancellation: whether a signal handler has raised. Runs on the main thread, without the GIL.
inline bool python_wants_to_stop() noexcept {
  return stop_if_ended([] {
    PyEval_RestoreThread(PyGILState_GetThisThreadState());
    const bool stop = PyErr_CheckSignals() != 0;
    PyEval_SaveThread();
    return stop;
  });
}

// Like call(), for kernel(cancellation). Raises the exception of a signal handler that ran meanwhile. Only the main
// thread polls, because signal handlers run on no other thread.
template <class Kernel>
void call_interruptible(Kernel&& kernel) {
  Cancellation cancellation(MainThread::is_this() ? python_wants_to_stop : nullptr);
  call([&] { kernel(&cancellation); });
  if (cancellation.requested()) throw py::error_already_set();
}

inline std::string text(Index number) { return std::to_string(number); }

// Checked integers from 0 to `classes` - 1, as int64; `what` names them in messages.
inline py::array read_classes(const py::array& given, const char* name, const char* what, Index rows, Index classes,
                              const std::string& why_rows, const std::string& why_classes) {
  require_shape(given, name, {rows}, why_rows);
  // Always a copy: the kernel runs without the GIL, and another thread could change the checked values.
  py::array copy = copy_as(given, py::dtype::of<std::int64_t>());
  const auto* values = static_cast<const std::int64_t*>(copy.data());
  for (Index row = 0; row < rows; ++row) {
    if (values[row] < 0 || values[row] >= classes) {
      throw py::value_error(std::string(name) + ": expected " + what + " from 0 to " + text(classes - 1) + " because " +
                            why_classes + ", got " + std::to_string(values[row]) + " at index " + text(row));
    }
  }
  return copy;
}

// Each file of bindings adds its functions to the module.
void bind_gru(py::module_& m);
void bind_heads(py::module_& m);
void bind_optimizers(py::module_& m);

}  // namespace fastgru::bindings
