// Layers before and after a GRU: dense layers, softmax with cross-entropy, embeddings.
#include <pybind11/stl.h>

#include "bindings/call.hpp"
#include "kernels/dense.hpp"
#include "kernels/softmax_cross_entropy.hpp"
#include "runtime/workspace.hpp"

namespace fastgru::bindings {
namespace {

using namespace py::literals;

// --- Dense --------------------------------------------------------------------------------------------------

template <class T>
DenseShape dense_shape(const Input<T>& kernel, const py::object& x) {
  const Index features = kernel.holder.shape(0), columns = kernel.holder.shape(1);
  if (features < 1 || columns < 1) {
    throw py::value_error("kernel: expected shape (F, C) with F, C >= 1, got " + shape_text(kernel.holder));
  }
  const py::array array = require_array(x, "x");
  require_shape(array, "x", {"N", features}, "kernel has " + text(features) + " input features");
  return {array.shape(0), features, columns, array.shape(0)};
}

// Stores the selected rows of x in `shape`. The returned copy must live as long as the shape.
py::object read_which(const py::object& object, DenseShape& shape) {
  if (object.is_none()) return object;
  const py::array given = require_array(object, "rows");
  const char kind = given.dtype().kind();
  if (kind != 'i' && kind != 'u') {
    throw py::type_error("rows: expected integers, got " + std::string(py::str(given.dtype())));
  }
  require_shape(given, "rows", {"M"}, "");
  const std::string why = "x has " + text(shape.all_rows) + " rows";
  py::array rows = read_classes(given, "rows", "rows", given.shape(0), shape.all_rows, "", why);
  const auto* const which = static_cast<const Index*>(rows.data());
  for (py::ssize_t i = 1; i < rows.shape(0); ++i) {
    if (which[i] <= which[i - 1]) {
      throw py::value_error("rows: expected ascending numbers, got " + text(which[i]) + " after " + text(which[i - 1]) +
                            " at index " + text(i));
    }
  }
  shape.rows = rows.shape(0);
  shape.which = which;
  return std::move(rows);
}

template <class T>
py::array dense_forward_typed(const py::object& x_object, const py::object& kernel_object,
                              const py::object& bias_object, const py::object& rows) {
  const Input<T> kernel = read<T>(kernel_object, "kernel", {"F", "C"}, "", "x");
  DenseShape shape = dense_shape(kernel, x_object);
  const Input<T> x = read<T>(x_object, "x", {"N", shape.features}, "", "x");
  const py::object which = read_which(rows, shape);
  const auto bias =
      read_optional<T>(bias_object, "bias", {shape.columns}, "kernel has " + text(shape.columns) + " columns", "x");
  py::array y = new_array<T>({shape.rows, shape.columns});
  T* const to = pointer<T>(y);
  call([&] {
    BorrowedWorkspace workspace;
    dense_forward(shape, x.data(), kernel.data(), pointer<T>(bias), to, *workspace);
  });
  return y;
}

py::array dense_forward_checked(const py::object& x, const py::object& kernel, const py::object& bias,
                                const py::object& rows) {
  const bool single = require_floating(require_array(x, "x"), "x") == 'f';
  return (single ? dense_forward_typed<float> : dense_forward_typed<double>)(x, kernel, bias, rows);
}

template <class T>
py::tuple dense_backward_typed(const py::object& x_object, const py::object& kernel_object,
                               const py::object& d_y_object, const py::object& rows, bool input_gradient,
                               const py::object& d_kernel_object, const py::object& d_bias_object) {
  const Input<T> kernel = read<T>(kernel_object, "kernel", {"F", "C"}, "", "x");
  DenseShape shape = dense_shape(kernel, x_object);
  const Input<T> x = read<T>(x_object, "x", {"N", shape.features}, "", "x");
  const py::object which = read_which(rows, shape);
  const std::string why = std::string(which.is_none() ? "x has " : "rows has ") + text(shape.rows) +
                          " rows and kernel " + text(shape.columns) + " columns";
  const Input<T> d_y = read<T>(d_y_object, "d_y", {shape.rows, shape.columns}, why, "x");
  py::array d_kernel =
      write_to_or_new<T>(d_kernel_object, "d_kernel", {shape.features, shape.columns}, "kernel has that shape", "x");
  py::array d_bias = write_to_or_new<T>(d_bias_object, "d_bias", {shape.columns}, why, "x");
  const auto given_rows = rows.is_none() ? std::nullopt : std::optional(require_array(rows, "rows"));
  require_apart({{"d_kernel", array_of(d_kernel_object, d_kernel)}, {"d_bias", array_of(d_bias_object, d_bias)}},
                {{"x", &x.holder},
                 {"kernel", &kernel.holder},
                 {"d_y", &d_y.holder},
                 {"rows", given_rows ? &*given_rows : nullptr}});
  std::optional<py::array> d_x;
  if (input_gradient) d_x = new_array<T>({shape.all_rows, shape.features});
  DenseBackwardArguments<T> arguments{};
  arguments.shape = shape;
  arguments.x = x.data();
  arguments.kernel = kernel.data();
  arguments.d_y = d_y.data();
  arguments.d_x = pointer<T>(d_x);
  arguments.d_kernel = pointer<T>(d_kernel);
  arguments.d_bias = pointer<T>(d_bias);
  call([&] {
    BorrowedWorkspace workspace;
    dense_backward(arguments, *workspace);
  });
  return py::make_tuple(d_x ? py::object(*d_x) : py::none(), d_kernel, d_bias);
}

py::tuple dense_backward_checked(const py::object& x, const py::object& kernel, const py::object& d_y,
                                 const py::object& rows, bool input_gradient, const py::object& d_kernel,
                                 const py::object& d_bias) {
  const bool single = require_floating(require_array(x, "x"), "x") == 'f';
  return (single ? dense_backward_typed<float> : dense_backward_typed<double>)(x, kernel, d_y, rows, input_gradient,
                                                                               d_kernel, d_bias);
}

// --- Softmax and cross-entropy ------------------------------------------------------------------------------

template <class T>
Input<T> read_logits(const py::object& object) {
  Input<T> logits = read<T>(object, "logits", {"N", "C"}, "", "logits");
  if (logits.holder.shape(1) < 1) {
    throw py::value_error("logits: expected at least one class, got shape " + shape_text(logits.holder));
  }
  return logits;
}

template <class T>
py::array softmax_typed(const py::object& object) {
  const Input<T> logits = read_logits<T>(object);
  const Index rows = logits.holder.shape(0), classes = logits.holder.shape(1);
  py::array probabilities = new_array<T>({rows, classes});
  T* const to = pointer<T>(probabilities);
  call([&] { softmax(rows, classes, logits.data(), to); });
  return probabilities;
}

py::array softmax_checked(const py::object& logits) {
  const bool single = require_floating(require_array(logits, "logits"), "logits") == 'f';
  return (single ? softmax_typed<float> : softmax_typed<double>)(logits);
}

template <class T>
py::tuple softmax_cross_entropy_typed(const py::object& logits_object, const py::object& labels_object, bool gradient) {
  const Input<T> logits = read_logits<T>(logits_object);
  const Index rows = logits.holder.shape(0), classes = logits.holder.shape(1);
  const py::array given = require_array(labels_object, "labels");
  const char kind = given.dtype().kind();
  std::optional<py::array> labels;
  std::optional<Input<T>> targets;
  if (kind == 'i' || kind == 'u') {
    labels = read_classes(given, "labels", "classes", rows, classes, "logits has " + text(rows) + " rows",
                          "logits has " + text(classes) + " columns");
  } else if (kind == 'f' && given.ndim() == 2) {
    targets = read<T>(given, "labels", {rows, classes}, "logits has that shape", "logits");
  } else {
    throw py::type_error("labels: expected integers (N,), or targets (N, C) in the dtype of logits, got " +
                         std::string(py::str(given.dtype())) + " of shape " + shape_text(given));
  }
  py::array losses = new_array<double>({rows});
  py::array correct = new_array<bool>({rows});
  std::optional<py::array> d_logits;
  if (gradient) d_logits = new_array<T>({rows, classes});
  CrossEntropyArguments<T> arguments{};
  arguments.rows = rows;
  arguments.classes = classes;
  arguments.logits = logits.data();
  if (labels) arguments.labels = static_cast<const std::int64_t*>(labels->data());
  arguments.targets = pointer<T>(targets);
  arguments.scale = rows > 0 ? T(1.0 / static_cast<double>(rows)) : T(0);
  arguments.d_logits = pointer<T>(d_logits);
  arguments.losses = pointer<double>(losses);
  arguments.correct = pointer<bool>(correct);
  call([&] { softmax_cross_entropy(arguments); });
  return py::make_tuple(losses, correct, d_logits ? py::object(*d_logits) : py::none());
}

py::tuple softmax_cross_entropy_checked(const py::object& logits, const py::object& labels, bool gradient) {
  const bool single = require_floating(require_array(logits, "logits"), "logits") == 'f';
  return (single ? softmax_cross_entropy_typed<float> : softmax_cross_entropy_typed<double>)(logits, labels, gradient);
}

// --- Classes ------------------------------------------------------------------------------------------------

// Whether all numbers are from 0 to `classes` - 1. `numbers` must be aligned.
bool all_are_classes(const py::array_t<std::int64_t, py::array::c_style>& numbers, std::uint64_t classes) {
  const std::int64_t* const begin = numbers.data();
  return std::all_of(begin, begin + numbers.size(),
                     [&](std::int64_t number) { return static_cast<std::uint64_t>(number) < classes; });
}

// --- Embedding ----------------------------------------------------------------------------------------------

// d_table[tokens[i]] += d_y[i], in the order of i.
void embedding_backward_checked(const py::object& tokens_object, const py::object& d_y_object,
                                const py::object& d_table_object) {
  const py::array d_table_array = require_array(d_table_object, "d_table");
  const auto typed = [&](auto zero) {
    using T = decltype(zero);
    py::array d_table = write_to<T>(d_table_object, "d_table", {"V", "D"}, "", "d_table");
    const Index rows = d_table.shape(0), columns = d_table.shape(1);
    const Input<T> d_y =
        read<T>(d_y_object, "d_y", {"M", columns}, "d_table has " + text(columns) + " columns", "d_table");
    const Index count = d_y.holder.shape(0);
    const py::array given = require_array(tokens_object, "tokens");
    if (given.dtype().kind() != 'i' && given.dtype().kind() != 'u') {
      throw py::type_error("tokens: expected integers, got " + std::string(py::str(given.dtype())));
    }
    const py::array tokens = read_classes(given, "tokens", "rows", count, rows, "d_y has " + text(count) + " rows",
                                          "d_table has " + text(rows) + " rows");
    require_apart({{"d_table", &d_table}}, {{"tokens", &given}, {"d_y", &d_y.holder}});
    const auto* token = static_cast<const std::int64_t*>(tokens.data());
    T* const to = pointer<T>(d_table);
    const T* from = d_y.data();
    call([&] {
      for (Index i = 0; i < count; ++i, from += columns) {
        T* const row = to + token[i] * columns;
        for (Index k = 0; k < columns; ++k) row[k] += from[k];
      }
    });
  };
  if (require_floating(d_table_array, "d_table") == 'f') {
    typed(0.0F);
  } else {
    typed(0.0);
  }
}

}  // namespace

void bind_heads(py::module_& m) {
  m.def("dense_forward", &dense_forward_checked, "x"_a, "kernel"_a, "bias"_a, "rows"_a);
  m.def("dense_backward", &dense_backward_checked, "x"_a, "kernel"_a, "d_y"_a, "rows"_a, "input_gradient"_a,
        "d_kernel"_a, "d_bias"_a);
  m.def("softmax", &softmax_checked, "logits"_a);
  m.def("softmax_cross_entropy", &softmax_cross_entropy_checked, "logits"_a, "labels"_a, "gradient"_a);
  m.def("all_are_classes", &all_are_classes, "numbers"_a.noconvert(), "classes"_a);
  m.def("embedding_backward", &embedding_backward_checked, "tokens"_a, "d_y"_a, "d_table"_a);
}

}  // namespace fastgru::bindings
