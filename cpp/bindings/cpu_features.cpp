// Detects the instruction sets that this CPU can run, in a module that every CPU of the architecture can load. The
// compiler's run-time support also checks that the operating system saves the wide registers.
//
// This compiled module is imported first, and it refuses sub-interpreters: NumPy does not support them. pybind11's
// modules hang in a sub-interpreter that shares the GIL, because their PyInit acquires the GIL with the thread state of
// the main interpreter. Therefore this module uses Python's own C API.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

namespace {

// The instruction sets of CMakeLists.txt that this CPU can run, best first.
PyObject* supported(PyObject*, PyObject*) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
    return Py_BuildValue("[sss]", "avx512", "avx2", "baseline");
  }
  if (avx2) return Py_BuildValue("[ss]", "avx2", "baseline");
  return Py_BuildValue("[s]", "baseline");
#elif defined(__aarch64__)
  return Py_BuildValue("[s]", "neon");
#else
  return Py_BuildValue("[s]", "baseline");
#endif
}

int execute(PyObject* module) {
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
    PyErr_SetString(PyExc_ImportError,
                    "fastgru: expected the main interpreter of the process because NumPy does not support "
                    "sub-interpreters, got a sub-interpreter; import fastgru in the main interpreter, or in a process "
                    "of its own (mod_wsgi: WSGIApplicationGroup %{GLOBAL})");
    return -1;
  }
  return PyModule_AddStringConstant(module, "__version__", FASTGRU_VERSION);
}

PyMethodDef methods[] = {{"supported", supported, METH_NOARGS,
                          PyDoc_STR("supported()\n--\n\nInstruction sets this CPU can run, best first.")},
                         {nullptr, nullptr, 0, nullptr}};

// Py_mod_exec runs in sub-interpreters of every kind.
PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void*>(execute)},
#if PY_VERSION_HEX >= 0x030C0000
                            {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
                            {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
                            {0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_cpu_features",
                          PyDoc_STR("Which of fastgru's instruction sets this CPU can run, and the package's version."),
                          0,
                          methods,
                          slots,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__cpu_features() { return PyModuleDef_Init(&definition); }
