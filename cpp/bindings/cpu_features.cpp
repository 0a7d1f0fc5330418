// A module that any CPU of the architecture can load: which instruction sets this one can run. It asks the compiler's
// run-time support, which also checks that the operating system saves the wide registers.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

namespace {

// The instruction sets of CMakeLists.txt that can run here, best first.
std::vector<std::string> supported() {
  std::vector<std::string> names;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
    names.push_back("avx512");
  }
  if (avx2) names.push_back("avx2");
  names.push_back("baseline");
#elif defined(__aarch64__)
  names.push_back("neon");
#else
  names.push_back("baseline");
#endif
  return names;
}

}  // namespace

PYBIND11_MODULE(_cpu_features, m, pybind11::mod_gil_not_used()) {
  m.doc() = "Which of fastgru's instruction sets this CPU can run, and the version of the package.";
  m.attr("__version__") = FASTGRU_VERSION;
  m.def("supported", &supported);
}
