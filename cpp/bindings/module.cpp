// The extension module, compiled once per instruction set: check, allocate, drop the GIL, call. No mathematics.
//
// Each function checks every argument first, with the GIL; what it then hands to a kernel is plain pointers, while the
// arrays behind them are held by local variables, which are destroyed only after the GIL has been taken back.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <memory>

#include "bindings/checked_array.hpp"
#include "kernels/adam.hpp"
#include "kernels/dense.hpp"
#include "kernels/gru_backward.hpp"
#include "kernels/gru_forward.hpp"
#include "kernels/softmax_cross_entropy.hpp"
#include "runtime/parallel.hpp"
#include "runtime/workspace.hpp"
#include "simd/activations.hpp"

namespace fastgru::bindings {
namespace {

using namespace py::literals;

// Ctrl-C inside a long call: asked on the calling thread, which holds no GIL then.
bool python_wants_to_stop() {
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

std::string text(Index number) { return std::to_string(number); }

constexpr Choice<Activation> kActivations[] = {
    {"tanh", Activation::tanh}, {"relu", Activation::relu}, {"linear", Activation::linear}};
constexpr Choice<RecurrentActivation> kRecurrentActivations[] = {
    {"sigmoid", RecurrentActivation::sigmoid},
    {"hard_sigmoid", RecurrentActivation::hard_sigmoid},
    {"hard_sigmoid_tfjs", RecurrentActivation::hard_sigmoid_tfjs}};
constexpr Choice<AdamForm> kAdamForms[] = {
    {"keras", AdamForm::keras}, {"tfjs", AdamForm::tfjs}, {"pytorch", AdamForm::pytorch}};

// --- The tape -----------------------------------------------------------------------------------------------

// What gru_forward records for gru_backward. Its memory is kept when it is used again.
class Tape {
 public:
  bool recorded = false;
  char dtype = 0;
  GruShape shape{};
  GruOptions options;
  bool go_backwards = false;
  bool has_bias = false, has_recurrent_bias = false;
  py::object x, kernel, recurrent_kernel;  // as they were checked: views of the caller's arrays, or copies

  template <class T>
  GruTape<T> reserve(const GruShape& s, bool reset_after) {
    const UnitBlocks<T> blocks(s.units, reset_after);
    const Index rows = checked_multiply(s.batch, checked_multiply(s.steps + 1, Index{sizeof(T)}));
    gates_.reserve(checked_multiply(rows, checked_multiply(blocks.count, blocks.gates_row)));
    states_.reserve(checked_multiply(rows, blocks.state_stride));
    return memory<T>();
  }
  template <class T>
  GruTape<T> memory() const {
    return {reinterpret_cast<T*>(gates_.memory.get()), reinterpret_cast<T*>(states_.memory.get())};
  }
  std::size_t nbytes() const { return gates_.size + states_.size; }

  // A tape serves one call at a time; without the GIL a second thread could come in between.
  class Use {
   public:
    explicit Use(Tape& tape) : tape_(tape) {
      if (tape_.in_use_.exchange(true)) {
        throw std::runtime_error("tape: expected one that no other call is using, got one in use by another thread");
      }
    }
    ~Use() { tape_.in_use_.store(false); }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    Tape& tape_;
  };

 private:
  struct Buffer {
    AlignedMemory memory;
    std::size_t size = 0;
    void reserve(Index bytes) {
      if (static_cast<std::size_t>(bytes) <= size && memory != nullptr) return;
      memory.reset();
      size = 0;
      memory = allocate_aligned(static_cast<std::size_t>(bytes));
      size = static_cast<std::size_t>(bytes);
    }
  };
  Buffer gates_, states_;
  std::atomic<bool> in_use_{false};
};

// --- GRU ----------------------------------------------------------------------------------------------------

template <class T>
Sequences<const T> sequences(const Input<T>& input, bool from_the_end) {
  const Index steps = input.holder.shape(1), stride = input.stride(1);
  if (!from_the_end || steps == 0) return {input.data(), input.stride(0), stride};
  return {input.data() + (steps - 1) * stride, input.stride(0), -stride};
}

// The (2, 3H) and (3H) forms of a bias.
template <class T>
struct Bias {
  std::optional<Input<T>> array;
  const T* input = nullptr;
  const T* recurrent = nullptr;

  Bias(const py::object& object, Index units) {
    if (object.is_none()) return;
    const py::array given = require_array(object, "bias");
    const bool two = given.ndim() == 2;
    const Shape shape = two ? Shape{Index{2}, 3 * units} : Shape{3 * units};
    array = read<T>(object, "bias", shape,
                    "recurrent_kernel has " + text(units) + " units, one row or (input, recurrent)", "x");
    input = array->data();
    if (two) recurrent = input + 3 * units;
  }
};

template <class T>
py::tuple gru_forward_typed(const py::object& x_object, const py::object& kernel_object,
                            const py::object& recurrent_object, const py::object& bias_object,
                            const py::object& initial_object, const GruOptions& options, bool go_backwards,
                            bool return_sequences, Tape* tape) {
  const Input<T> recurrent = read<T>(recurrent_object, "recurrent_kernel", {"H", "3H"}, "", "x");
  const Index units = recurrent.holder.shape(0);
  if (units < 1 || recurrent.holder.shape(1) % 3 != 0 || recurrent.holder.shape(1) / 3 != units) {
    throw py::value_error("recurrent_kernel: expected shape (H, 3H) with H >= 1, got " + shape_text(recurrent.holder));
  }
  const Input<T> kernel =
      read<T>(kernel_object, "kernel", {"F", 3 * units}, "recurrent_kernel has " + text(units) + " units", "x");
  const Index features = kernel.holder.shape(0);
  const Input<T> x = read<T>(x_object, "x", {"N", "T", features}, "kernel has " + text(features) + " input features",
                             "x", Layout::last_axis_contiguous);
  const Bias<T> bias(bias_object, units);
  const Index batch = x.holder.shape(0), steps = x.holder.shape(1);
  const auto initial =
      read_optional<T>(initial_object, "initial_state", {batch, units},
                       "x has " + text(batch) + " rows and recurrent_kernel " + text(units) + " units", "x");

  GruForwardArguments<T> arguments;
  arguments.shape = {batch, steps, features, units};
  arguments.options = options;
  arguments.parameters = {kernel.data(), recurrent.data(), bias.input, bias.recurrent};
  arguments.x = sequences(x, go_backwards);
  arguments.initial_state = pointer<T>(initial);
  checked_multiply(checked_multiply(batch, steps + 1), checked_multiply(units, Index{4 * sizeof(T)}));
  if (tape != nullptr) {
    tape->recorded = false;
    arguments.tape = tape->reserve<T>(arguments.shape, options.reset_after);
  }
  std::optional<py::array> outputs;
  if (return_sequences) {
    outputs = new_array<T>({batch, steps, units});
    arguments.outputs = {pointer<T>(*outputs), steps * units, units};
  }
  py::array state = new_array<T>({batch, units});
  arguments.last_state = pointer<T>(state);

  call_interruptible([&](Cancellation* cancellation) {
    BorrowedWorkspace workspace;
    gru_forward(arguments, *workspace, cancellation);
  });
  if (tape != nullptr) {
    tape->dtype = sizeof(T) == 4 ? 'f' : 'd';
    tape->shape = arguments.shape;
    tape->options = options;
    tape->go_backwards = go_backwards;
    tape->has_bias = bias.input != nullptr;
    tape->has_recurrent_bias = bias.recurrent != nullptr;
    // Views of their own: assigning to x.shape later changes the caller's array object, not these.
    tape->x = x.holder.attr("view")();
    tape->kernel = kernel.holder.attr("view")();
    tape->recurrent_kernel = recurrent.holder.attr("view")();
    tape->recorded = true;
  }
  return py::make_tuple(outputs ? py::object(*outputs) : py::none(), state);
}

py::tuple gru_forward_checked(const py::object& x, const py::object& kernel, const py::object& recurrent_kernel,
                              const py::object& bias, const py::object& initial_state, const std::string& activation,
                              const std::string& recurrent_activation, bool reset_after, bool go_backwards,
                              bool return_sequences, Tape* tape) {
  const GruOptions options{choose(activation, "activation", kActivations),
                           choose(recurrent_activation, "recurrent_activation", kRecurrentActivations), reset_after};
  const auto typed =
      require_floating(require_array(x, "x"), "x") == 'f' ? gru_forward_typed<float> : gru_forward_typed<double>;
  std::optional<Tape::Use> use;
  if (tape != nullptr) use.emplace(*tape);
  return typed(x, kernel, recurrent_kernel, bias, initial_state, options, go_backwards, return_sequences, tape);
}

template <class T>
py::tuple gru_backward_typed(const Tape& tape, const py::object& d_outputs_object, const py::object& d_state_object,
                             bool input_gradient, const py::object& d_kernel_object,
                             const py::object& d_recurrent_object, const py::object& d_bias_object) {
  const GruShape& s = tape.shape;
  const char* like = "the tape";
  const std::string why = "that is what the tape recorded";
  const auto d_outputs = read_optional<T>(d_outputs_object, "d_outputs", {s.batch, s.steps, s.units}, why, like,
                                          Layout::last_axis_contiguous);
  const auto d_state = read_optional<T>(d_state_object, "d_state", {s.batch, s.units}, why, like);
  if (!d_outputs && !d_state) {
    throw py::value_error(
        "d_outputs, d_state: expected a gradient of the outputs, of the last state, or both, got neither");
  }
  if (!tape.has_bias && !d_bias_object.is_none()) {
    throw py::value_error("d_bias: expected None because the tape was recorded without a bias, got an array");
  }
  py::array d_kernel = write_to_or_new<T>(d_kernel_object, "d_kernel", {s.features, 3 * s.units}, why, like);
  py::array d_recurrent =
      write_to_or_new<T>(d_recurrent_object, "d_recurrent_kernel", {s.units, 3 * s.units}, why, like);
  std::optional<py::array> d_bias, d_x;
  if (tape.has_bias) {
    const std::vector<Index> shape =
        tape.has_recurrent_bias ? std::vector<Index>{2, 3 * s.units} : std::vector<Index>{3 * s.units};
    d_bias = write_to_or_new<T>(d_bias_object, "d_bias", shape, why, like);
  }
  const auto kernel = tape.kernel.cast<py::array>(), recurrent = tape.recurrent_kernel.cast<py::array>();
  std::vector<Extent> outputs{{"d_kernel", d_kernel}, {"d_recurrent_kernel", d_recurrent}};
  std::vector<Extent> inputs{{"x", tape.x.cast<py::array>()}, {"kernel", kernel}, {"recurrent_kernel", recurrent}};
  if (d_bias) outputs.emplace_back("d_bias", *d_bias);
  if (d_outputs) inputs.emplace_back("d_outputs", d_outputs->holder);
  if (d_state) inputs.emplace_back("d_state", d_state->holder);
  require_apart(outputs, inputs);
  if (input_gradient) d_x = new_array<T>({s.batch, s.steps, s.features});
  py::array d_initial = new_array<T>({s.batch, s.units});

  GruBackwardArguments<T> arguments;
  arguments.shape = s;
  arguments.options = tape.options;
  arguments.parameters = {static_cast<const T*>(kernel.data()), static_cast<const T*>(recurrent.data()), nullptr,
                          nullptr};
  arguments.x = sequences(Input<T>{tape.x.cast<py::array>()}, tape.go_backwards);
  arguments.tape = tape.memory<T>();
  if (d_outputs) arguments.d_outputs = sequences(*d_outputs, false);
  arguments.d_last_state = pointer<T>(d_state);
  if (d_x) {
    const Index last = tape.go_backwards && s.steps > 0 ? s.steps - 1 : 0;
    arguments.d_x = {pointer<T>(*d_x) + last * s.features, s.steps * s.features,
                     tape.go_backwards ? -s.features : s.features};
  }
  arguments.d_initial_state = pointer<T>(d_initial);
  arguments.d_kernel = pointer<T>(d_kernel);
  arguments.d_recurrent_kernel = pointer<T>(d_recurrent);
  arguments.d_bias = pointer<T>(d_bias);
  if (tape.has_recurrent_bias) arguments.d_recurrent_bias = arguments.d_bias + 3 * s.units;

  call_interruptible([&](Cancellation* cancellation) {
    BorrowedWorkspace workspace;
    gru_backward(arguments, *workspace, cancellation);
  });
  return py::make_tuple(d_x ? py::object(*d_x) : py::none(), d_initial, d_kernel, d_recurrent,
                        d_bias ? py::object(*d_bias) : py::none());
}

py::tuple gru_backward_checked(Tape& tape, const py::object& d_outputs, const py::object& d_state, bool input_gradient,
                               const py::object& d_kernel, const py::object& d_recurrent_kernel,
                               const py::object& d_bias) {
  const Tape::Use use(tape);
  if (!tape.recorded) throw py::value_error("tape: expected one that gru_forward has recorded on, got an empty one");
  const auto typed = tape.dtype == 'f' ? gru_backward_typed<float> : gru_backward_typed<double>;
  return typed(tape, d_outputs, d_state, input_gradient, d_kernel, d_recurrent_kernel, d_bias);
}

// --- Dense --------------------------------------------------------------------------------------------------

template <class T>
DenseShape dense_shape(const Input<T>& kernel, const py::object& x) {
  const Index features = kernel.holder.shape(0), columns = kernel.holder.shape(1);
  if (features < 1 || columns < 1) {
    throw py::value_error("kernel: expected shape (F, C) with F, C >= 1, got " + shape_text(kernel.holder));
  }
  const py::array array = require_array(x, "x");
  require_shape(array, "x", {"N", features}, "kernel has " + text(features) + " input features");
  return {array.shape(0), features, columns};
}

template <class T>
py::array dense_forward_typed(const py::object& x_object, const py::object& kernel_object,
                              const py::object& bias_object) {
  const Input<T> kernel = read<T>(kernel_object, "kernel", {"F", "C"}, "", "x");
  const DenseShape shape = dense_shape(kernel, x_object);
  const Input<T> x = read<T>(x_object, "x", {"N", shape.features}, "", "x");
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

py::array dense_forward_checked(const py::object& x, const py::object& kernel, const py::object& bias) {
  const bool single = require_floating(require_array(x, "x"), "x") == 'f';
  return (single ? dense_forward_typed<float> : dense_forward_typed<double>)(x, kernel, bias);
}

template <class T>
py::tuple dense_backward_typed(const py::object& x_object, const py::object& kernel_object,
                               const py::object& d_y_object, bool input_gradient, const py::object& d_kernel_object,
                               const py::object& d_bias_object) {
  const Input<T> kernel = read<T>(kernel_object, "kernel", {"F", "C"}, "", "x");
  const DenseShape shape = dense_shape(kernel, x_object);
  const Input<T> x = read<T>(x_object, "x", {"N", shape.features}, "", "x");
  const std::string why = "x has " + text(shape.rows) + " rows and kernel " + text(shape.columns) + " columns";
  const Input<T> d_y = read<T>(d_y_object, "d_y", {shape.rows, shape.columns}, why, "x");
  py::array d_kernel =
      write_to_or_new<T>(d_kernel_object, "d_kernel", {shape.features, shape.columns}, "kernel has that shape", "x");
  py::array d_bias = write_to_or_new<T>(d_bias_object, "d_bias", {shape.columns}, why, "x");
  require_apart({{"d_kernel", d_kernel}, {"d_bias", d_bias}},
                {{"x", x.holder}, {"kernel", kernel.holder}, {"d_y", d_y.holder}});
  std::optional<py::array> d_x;
  if (input_gradient) d_x = new_array<T>({shape.rows, shape.features});
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
                                 bool input_gradient, const py::object& d_kernel, const py::object& d_bias) {
  const bool single = require_floating(require_array(x, "x"), "x") == 'f';
  return (single ? dense_backward_typed<float> : dense_backward_typed<double>)(x, kernel, d_y, input_gradient, d_kernel,
                                                                               d_bias);
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

// Labels as int64, each a class.
py::array read_labels(const py::array& given, Index rows, Index classes) {
  require_shape(given, "labels", {rows}, "logits has " + text(rows) + " rows");
  // Always a copy: the kernel reads them without the GIL, when another thread might change what was checked.
  const auto labels =
      py::module_::import("numpy")
          .attr("array")(given, py::arg("dtype") = py::dtype::of<std::int64_t>(), py::arg("order") = "C")
          .cast<py::array>();
  const auto* values = static_cast<const std::int64_t*>(labels.data());
  for (Index row = 0; row < rows; ++row) {
    if (values[row] < 0 || values[row] >= classes) {
      throw py::value_error("labels: expected classes from 0 to " + text(classes - 1) + " because logits has " +
                            text(classes) + " columns, got " + std::to_string(values[row]) + " at index " + text(row));
    }
  }
  return labels;
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
    labels = read_labels(given, rows, classes);
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

// --- Adam ---------------------------------------------------------------------------------------------------

template <class T>
void adam_typed(const py::object& parameters_object, const py::object& gradient_object, const py::object& m_object,
                const py::object& v_object, AdamArguments<T> arguments) {
  py::array parameters = write_to<T>(parameters_object, "parameters", {"P"}, "", "parameters");
  const Index count = parameters.shape(0);
  const std::string why = "parameters has " + text(count) + " elements";
  const Input<T> gradient = read<T>(gradient_object, "gradient", {count}, why, "parameters");
  py::array m = write_to<T>(m_object, "m", {count}, why, "parameters");
  py::array v = write_to<T>(v_object, "v", {count}, why, "parameters");
  require_apart({{"parameters", parameters}, {"m", m}, {"v", v}}, {{"gradient", gradient.holder}});
  arguments.count = count;
  arguments.parameters = pointer<T>(parameters);
  arguments.gradient = gradient.data();
  arguments.m = pointer<T>(m);
  arguments.v = pointer<T>(v);
  call([&] { adam(arguments); });
}

template <class T>
AdamArguments<T> adam_arguments(long step, double learning_rate, double beta_1, double beta_2, double epsilon,
                                const std::string& form) {
  AdamArguments<T> arguments{};
  arguments.step = step;
  arguments.learning_rate = learning_rate;
  arguments.beta_1 = beta_1;
  arguments.beta_2 = beta_2;
  arguments.epsilon = epsilon;
  arguments.form = choose(form, "form", kAdamForms);
  return arguments;
}

void adam_checked(const py::object& parameters, const py::object& gradient, const py::object& m, const py::object& v,
                  long step, double learning_rate, double beta_1, double beta_2, double epsilon,
                  const std::string& form) {
  if (step < 1) throw py::value_error("step: expected 1 for the first update, got " + std::to_string(step));
  if (require_floating(require_array(parameters, "parameters"), "parameters") == 'f') {
    adam_typed<float>(parameters, gradient, m, v,
                      adam_arguments<float>(step, learning_rate, beta_1, beta_2, epsilon, form));
  } else {
    adam_typed<double>(parameters, gradient, m, v,
                       adam_arguments<double>(step, learning_rate, beta_1, beta_2, epsilon, form));
  }
}

// --- Activations, for the tests of their stated errors ------------------------------------------------------

template <class T>
void apply_activation(const std::string& name, const T* x, T* y, Index count) {
  using V = Vec<T>;
  using Function = V (*)(V);
  const Choice<Function> functions[] = {
      {"sigmoid", [](V v) { return Sigmoid<T>::apply(v); }},
      {"hard_sigmoid", [](V v) { return HardSigmoidKeras3<T>::apply(v); }},
      {"hard_sigmoid_tfjs", [](V v) { return HardSigmoidTfjs<T>::apply(v); }},
      {"tanh", [](V v) { return Tanh<T>::apply(v); }},
      {"relu", [](V v) { return Relu<T>::apply(v); }},
      {"linear", [](V v) { return Linear<T>::apply(v); }},
      {"exp", [](V v) { return exp(v); }},
  };
  const Function function = choose(name, "name", functions);
  for (Index i = 0; i < count; i += V::lanes) function(V::load_first(x + i, count - i)).store_first(y + i, count - i);
}

template <class T>
py::array activate_typed(const py::object& object, const std::string& name) {
  const Input<T> x = read<T>(object, "x", {"N"}, "", "x");
  py::array y = py::array_t<T>(x.holder.shape(0));
  apply_activation<T>(name, x.data(), pointer<T>(y), x.holder.shape(0));
  return y;
}

py::array activate(const py::object& x, const std::string& name) {
  const bool single = require_floating(require_array(x, "x"), "x") == 'f';
  return (single ? activate_typed<float> : activate_typed<double>)(x, name);
}

// --- Threads ------------------------------------------------------------------------------------------------

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

// The functions are safe without the GIL: what they share (the pool, the free workspaces) is locked, and arrays and
// tapes belong to their callers.
PYBIND11_MODULE(FASTGRU_MODULE, m, py::mod_gil_not_used()) {
  m.doc() = "fastgru's kernels for one instruction set; the documented functions are in fastgru.functional.";
  m.attr("__compiler__") = compiler();
  m.attr("__lanes__") = static_cast<int>(Vec<float>::lanes);

  py::class_<Tape>(m, "GRUTape")
      .def(py::init<>())
      .def_readonly("recorded", &Tape::recorded)
      .def_property_readonly("nbytes", &Tape::nbytes);

  m.def("gru_forward", &gru_forward_checked, "x"_a, "kernel"_a, "recurrent_kernel"_a, "bias"_a, "initial_state"_a,
        py::kw_only(), "activation"_a, "recurrent_activation"_a, "reset_after"_a, "go_backwards"_a,
        "return_sequences"_a, "tape"_a.none(true));
  m.def("gru_backward", &gru_backward_checked, "tape"_a, "d_outputs"_a, "d_state"_a, py::kw_only(), "input_gradient"_a,
        "d_kernel"_a, "d_recurrent_kernel"_a, "d_bias"_a);
  m.def("dense_forward", &dense_forward_checked, "x"_a, "kernel"_a, "bias"_a);
  m.def("dense_backward", &dense_backward_checked, "x"_a, "kernel"_a, "d_y"_a, py::kw_only(), "input_gradient"_a,
        "d_kernel"_a, "d_bias"_a);
  m.def("softmax", &softmax_checked, "logits"_a);
  m.def("softmax_cross_entropy", &softmax_cross_entropy_checked, "logits"_a, "labels"_a, py::kw_only(), "gradient"_a);
  m.def("adam", &adam_checked, "parameters"_a, "gradient"_a, "m"_a, "v"_a, py::kw_only(), "step"_a, "learning_rate"_a,
        "beta_1"_a, "beta_2"_a, "epsilon"_a, "form"_a);
  m.def("activate", &activate, "x"_a, "name"_a);
  m.def("set_num_threads", &set_num_threads_checked, "count"_a);
  m.def("get_num_threads", &num_threads);
  m.def("bytes_allocated", &bytes_allocated);
}

}  // namespace fastgru::bindings
