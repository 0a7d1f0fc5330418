// Releases and acquires the GIL, also while the interpreter shuts down.
//
// Before Python 3.14, a thread that acquires the GIL after another thread has started to finalize the interpreter is
// ended by pthread_exit. glibc then unwinds its stack as for an exception. Destructors would change reference counts
// without the GIL, and std::terminate would end the process at a noexcept function (destructors included). Therefore
// such a thread blocks for ever, as it does in Python 3.14; the process ends without it.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

#include <utility>

namespace fastgru::bindings {

namespace py = pybind11;

// Calls f(), which may acquire the GIL through C functions, and must not throw.
template <class F>
auto stop_if_ended(F&& f) noexcept {
  try {
    return std::forward<F>(f)();
  } catch (...) {  // only pthread_exit; this handler must never return
    for (;;) ::pause();
  }
}

class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() {
    stop_if_ended([this] { PyEval_RestoreThread(state_); });
  }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace fastgru::bindings
