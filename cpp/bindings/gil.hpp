// Dropping the GIL and taking it back, also while the interpreter shuts down.
//
// Before Python 3.14, a thread that asks for the GIL once another one finalizes the interpreter is ended by
// pthread_exit. glibc then unwinds its stack as for an exception: through destructors, which would change reference
// counts without the GIL, and through noexcept functions (destructors, too), where std::terminate ends the process.
// Such a thread stops for good instead, as it does in Python 3.14; the process ends without it.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

#include <utility>

namespace fastgru::bindings {

namespace py = pybind11;

// f(), which calls functions of C that may take the GIL, and nothing that throws.
template <class F>
auto stop_if_ended(F&& f) noexcept {
  try {
    return std::forward<F>(f)();
  } catch (...) {  // only pthread_exit: it may be caught, but not left
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
