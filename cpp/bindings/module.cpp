// The extension module, compiled once per instruction set. Each function checks its arguments, allocates, releases the
// GIL and calls a kernel; it does no arithmetic itself.
//
// All arguments are checked first, with the GIL. Kernels receive plain pointers. Local variables hold the arrays, and
// are destroyed only after the GIL has been acquired again.
#include "bindings/call.hpp"
#include "runtime/cpu_quota.hpp"
#include "simd/activations.hpp"

namespace fastgru::bindings {
namespace {

using namespace py::literals;

// --- Activations ------------------------------------------------------------------------------------------------

template <class T>
using Function = Vec<T> (*)(Vec<T>);

template <class T, class... Recurrent, class... Candidate>
Function<T> function_of(const std::string& name, ActivationList<Recurrent...>, ActivationList<Candidate...>) {
  const Choice<Function<T>> functions[] = {
      {Recurrent::name, Recurrent::apply}..., {Candidate::name, Candidate::apply}..., {"exp", exp<T>}};
  return choose(name, "name", functions);
}

template <class T>
py::array activate_typed(const py::object& object, const std::string& name) {
  using V = Vec<T>;
  const Function<T> function = function_of<T>(name, RecurrentActivations<T>{}, Activations<T>{});
  const Input<T> x = read<T>(object, "x", {"N"}, "", "x");
  const Index count = x.holder.shape(0);
  py::array y = new_array<T>({count});
  const T* const from = x.data();
  T* const to = pointer<T>(y);
  call([&] {
    for (Index i = 0; i < count; i += V::lanes)
      function(V::load_first(from + i, count - i)).store_first(to + i, count - i);
  });
  return y;
}

py::array activate(const py::object& x, const std::string& name) {
  const bool single = require_floating(require_array(x, "x"), "x") == 'f';
  return (single ? activate_typed<float> : activate_typed<double>)(x, name);
}

// The names of a list, in order.
template <class... Functions>
py::tuple names_of(ActivationList<Functions...>) {
  return py::make_tuple(Functions::name...);
}

// --- Threads ----------------------------------------------------------------------------------------------------

void set_num_threads_checked(int count) {
  constexpr int most = 1024;
  if (count < 1 || count > most) {
    throw py::value_error("count: expected 1 to " + std::to_string(most) + " threads, got " + std::to_string(count));
  }
  set_num_threads(count);
}

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

}  // namespace

// All functions are safe without the GIL. Shared state (the pool, the free workspaces) is locked. A tape raises if a
// second thread uses it, and its properties are atomic. Arrays belong to their callers.
PYBIND11_MODULE(FASTGRU_MODULE, m, py::mod_gil_not_used()) {
  m.doc() = "fastgru's kernels for one instruction set; the documented functions are in fastgru.functional.";
  m.attr("__compiler__") = compiler();
  m.attr("__lanes__") = static_cast<int>(Vec<float>::lanes);
  m.attr("ACTIVATIONS") = names_of(Activations<float>{});
  m.attr("RECURRENT_ACTIVATIONS") = names_of(RecurrentActivations<float>{});

  MainThread::remember();
  py::detail::npy_api::get();  // imports NumPy's C API now, because imports fail during interpreter shutdown

  bind_gru(m);
  bind_heads(m);
  bind_optimizers(m);
  m.def("activate", &activate, "x"_a, "name"_a);
  m.def("set_num_threads", &set_num_threads_checked, "count"_a);
  m.def("get_num_threads", &num_threads);
  m.def("default_threads", &default_threads, "root"_a = "");
  m.def("cpu_quota", &cpu_quota, "root"_a = "");
  m.def("bytes_allocated", &bytes_allocated);
}

}  // namespace fastgru::bindings
