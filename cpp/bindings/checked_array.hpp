// Converts a Python argument to a pointer with strides, or raises one clear error.
//
// pybind11's array_t silently converts and copies. Therefore arrays arrive as py::object and are checked here, all of
// them with the GIL and before anything is allocated. An error names the argument, the expected value with the reason,
// and the given value. A readable array is copied only if a kernel cannot read it in place: foreign byte order,
// unaligned memory, or a last axis that is not contiguous. A writable array is never copied.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <vector>

#include "bindings/gil.hpp"
#include "bindings/overlap.hpp"
#include "bindings/result_array.hpp"
#include "simd/packet.hpp"

namespace fastgru::bindings {

namespace py = pybind11;

// One expected axis: a size, or a letter for any size, which the message shows.
struct Axis {
  Axis(Index size) : size(size), label(std::to_string(size)) {}
  Axis(const char* letter) : size(-1), label(letter) {}
  Index size;
  std::string label;
};
using Shape = std::vector<Axis>;

inline std::string tuple_text(const std::vector<std::string>& parts) {
  std::string text = "(";
  for (std::size_t i = 0; i < parts.size(); ++i) text += (i ? ", " : "") + parts[i];
  return text + (parts.size() == 1 ? ",)" : ")");
}
inline std::string text_of(const Shape& shape) {
  std::vector<std::string> parts;
  for (const Axis& axis : shape) parts.push_back(axis.label);
  return tuple_text(parts);
}
inline std::string shape_text(const py::array& array) {
  std::vector<std::string> parts;
  for (py::ssize_t i = 0; i < array.ndim(); ++i) parts.push_back(std::to_string(array.shape(i)));
  return tuple_text(parts);
}

// Whether `array` is a numpy.ma array. The kernels would ignore its mask.
inline bool is_masked(const py::object& array) {
  const auto* const plain = reinterpret_cast<PyTypeObject*>(py::detail::npy_api::get().PyArray_Type_);
  if (Py_TYPE(array.ptr()) == plain) return false;
  return py::isinstance(array, py::module_::import("numpy.ma").attr("MaskedArray"));
}

inline py::array require_array(const py::object& object, const char* name) {
  if (!py::isinstance<py::array>(object)) {
    throw py::type_error(std::string(name) + ": expected a NumPy array, got " +
                         std::string(py::str(py::type::of(object).attr("__name__"))) +
                         "; convert it with numpy.asarray");
  }
  if (is_masked(object)) {
    throw py::type_error(
        std::string(name) +
        ": expected an array without a mask because the mask would be ignored, got a masked array; fill it with " +
        name + ".filled(...)");
  }
  return py::reinterpret_borrow<py::array>(object);
}

// 'f' for float32 or 'd' for float64, in either byte order.
inline char require_floating(const py::array& array, const char* name) {
  const char kind = array.dtype().kind();
  const py::ssize_t size = array.itemsize();
  if (kind == 'f' && size == 4) return 'f';
  if (kind == 'f' && size == 8) return 'd';
  throw py::type_error(std::string(name) + ": expected float32 or float64, got " + std::string(py::str(array.dtype())) +
                       "; convert it with " + name + ".astype('float32')");
}

template <class T>
constexpr const char* dtype_name() {
  return sizeof(T) == 4 ? "float32" : "float64";
}

inline void require_shape(const py::array& array, const char* name, const Shape& expected, const std::string& why) {
  bool fits = array.ndim() == static_cast<py::ssize_t>(expected.size());
  for (std::size_t i = 0; fits && i < expected.size(); ++i) {
    fits = expected[i].size < 0 || expected[i].size == array.shape(static_cast<py::ssize_t>(i));
  }
  if (fits) return;
  throw py::value_error(std::string(name) + ": expected shape " + text_of(expected) + (why.empty() ? "" : " because ") +
                        why + ", got " + shape_text(array));
}

template <class T>
void require_dtype(const py::array& array, const char* name, const char* like) {
  if (require_floating(array, name) == (sizeof(T) == 4 ? 'f' : 'd')) return;
  throw py::type_error(std::string(name) + ": expected " + dtype_name<T>() + " like " + like + ", got " +
                       std::string(py::str(array.dtype())));
}

inline bool is_native(const py::array& array) {
  return array.dtype().attr("isnative").cast<bool>() && (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
}
template <class T>
bool last_axis_is_contiguous(const py::array& array) {
  const py::ssize_t last = array.ndim() - 1;
  return array.shape(last) <= 1 || array.strides(last) == static_cast<py::ssize_t>(sizeof(T));
}
inline bool is_c_contiguous(const py::array& array) { return (array.flags() & py::array::c_style) != 0; }

// A checked input. `holder` keeps the memory alive: the caller's array or a copy.
template <class T>
struct Input {
  py::array holder;
  const T* data() const { return static_cast<const T*>(holder.data()); }
  // Number of elements between two indices of an axis.
  Index stride(py::ssize_t axis) const { return holder.strides(axis) / static_cast<Index>(sizeof(T)); }
};

// A C-contiguous, aligned copy with the given dtype in native byte order. Uses NumPy's C API, which works when nothing
// can be imported any more; it releases the GIL for large arrays.
inline py::array copy_as(const py::array& array, const py::dtype& dtype) {
  using Api = py::detail::npy_api;
  constexpr int ensure_copy = 0x0020;  // NPY_ARRAY_ENSURECOPY
  constexpr int flags = Api::NPY_ARRAY_C_CONTIGUOUS_ | Api::NPY_ARRAY_ALIGNED_ | Api::NPY_ARRAY_FORCECAST_ |
                        Api::NPY_ARRAY_ENSUREARRAY_ | ensure_copy;
  const Api& api = Api::get();
  PyObject* const steals_dtype = dtype.inc_ref().ptr();
  PyObject* const copy =
      stop_if_ended([&] { return api.PyArray_FromAny_(array.ptr(), steals_dtype, 0, 0, flags, nullptr); });
  if (copy == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::array>(copy);
}

enum class Layout { c_contiguous, last_axis_contiguous };

template <class T>
Input<T> read(const py::object& object, const char* name, const Shape& shape, const std::string& why, const char* like,
              Layout layout = Layout::c_contiguous) {
  const py::array array = require_array(object, name);
  require_dtype<T>(array, name, like);
  require_shape(array, name, shape, why);
  const bool whole = layout == Layout::c_contiguous;
  if (is_native(array) && (whole ? is_c_contiguous(array) : last_axis_is_contiguous<T>(array))) return {array};
  return {copy_as(array, py::dtype::of<T>())};
}

template <class T>
std::optional<Input<T>> read_optional(const py::object& object, const char* name, const Shape& shape,
                                      const std::string& why, const char* like, Layout layout = Layout::c_contiguous) {
  if (object.is_none()) return std::nullopt;
  return read<T>(object, name, shape, why, like, layout);
}

// A checked output array: C-contiguous, writable, never copied.
template <class T>
py::array write_to(const py::object& object, const char* name, const Shape& shape, const std::string& why,
                   const char* like) {
  const py::array array = require_array(object, name);
  require_dtype<T>(array, name, like);
  require_shape(array, name, shape, why);
  if (!array.writeable()) throw py::value_error(std::string(name) + ": expected a writable array, got a read-only one");
  if (!is_native(array) || !is_c_contiguous(array)) {
    throw py::value_error(
        std::string(name) +
        ": expected a C-contiguous, aligned array in native byte order to write to, got one with strides " +
        std::string(py::str(array.attr("strides"))));
  }
  return array;
}

// The same, for an array of which only the last axis has to be contiguous.
template <class T>
py::array write_to_rows(const py::object& object, const char* name, const Shape& shape, const std::string& why,
                        const char* like) {
  const py::array array = require_array(object, name);
  require_dtype<T>(array, name, like);
  require_shape(array, name, shape, why);
  if (!array.writeable()) throw py::value_error(std::string(name) + ": expected a writable array, got a read-only one");
  if (!is_native(array) || !last_axis_is_contiguous<T>(array)) {
    throw py::value_error(std::string(name) +
                          ": expected an aligned array in native byte order with a contiguous last axis to write to, "
                          "got one with strides " +
                          std::string(py::str(array.attr("strides"))));
  }
  return array;
}

// The checked `object`, or a new array if it is None.
template <class T>
py::array write_to_or_new(const py::object& object, const char* name, const std::vector<Index>& shape,
                          const std::string& why, const char* like) {
  if (object.is_none()) return new_array<T>({shape.begin(), shape.end()});
  return write_to<T>(object, name, Shape(shape.begin(), shape.end()), why, like);
}

template <class T>
T* pointer(py::array& array) {
  return static_cast<T*>(array.mutable_data());
}
template <class T>
T* pointer(std::optional<py::array>& array) {
  return array ? pointer<T>(*array) : nullptr;
}
template <class T>
const T* pointer(const std::optional<Input<T>>& input) {
  return input ? input->data() : nullptr;
}

// For require_apart, which ignores null.
template <class T>
const py::array* array_of(const std::optional<Input<T>>& input) {
  return input ? &input->holder : nullptr;
}
// A new array cannot overlap others, so only a given output is compared.
inline const py::array* array_of(const py::object& given, const py::array& output) {
  return given.is_none() ? nullptr : &output;
}

// The index of `given` in `names`; raises a ValueError that lists them.
template <std::size_t N>
std::size_t choose(const std::string& given, const char* argument, const char* const (&names)[N]) {
  std::string list;
  for (std::size_t index = 0; index < N; ++index) {
    if (given == names[index]) return index;
    list += (index == 0 ? "'" : ", '") + std::string(names[index]) + "'";
  }
  throw py::value_error(std::string(argument) + ": expected one of " + list + ", got '" + given + "'");
}

template <class Value>
struct Choice {
  const char* name;
  Value value;
};
// The value of the choice named `given`.
template <class Value, std::size_t N>
Value choose(const std::string& given, const char* argument, const Choice<Value> (&choices)[N]) {
  const char* names[N];
  for (std::size_t index = 0; index < N; ++index) names[index] = choices[index].name;
  return choices[choose(given, argument, names)].value;
}

}  // namespace fastgru::bindings
