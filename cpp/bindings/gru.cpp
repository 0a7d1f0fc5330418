// The GRU kernels and their tape.
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <numeric>

#include "bindings/call.hpp"
#include "kernels/gru_backward.hpp"
#include "kernels/gru_forward.hpp"
#include "runtime/workspace.hpp"

namespace fastgru::bindings {
namespace {

using namespace py::literals;

constexpr Choice<WeightLayout> kWeightLayouts[] = {{"keras", WeightLayout::keras}, {"torch", WeightLayout::torch}};
constexpr Choice<bool> kPaddedOutputs[] = {{"repeat", true}, {"zeros", false}};
constexpr Choice<bool> kOutputOrders[] = {{"input", true}, {"processing", false}};

// --- Reading order of sequences -----------------------------------------------------------------------------

// The lengths of a batch's sequences, from which end and in which order they are read, and the order of their outputs.
struct Reading {
  bool backwards = false, outputs_like_x = false, repeat_last_output = true;
  bool different_lengths = false;
  std::vector<Index> order, lengths;  // see SequenceMap; empty if all sequences are as long as the batch

  // Number of (row, step) pairs.
  Index pairs(const GruShape& s) const {
    if (!different_lengths) return checked_multiply(s.batch, s.steps);
    Index sum = 0;
    for (const Index length : lengths) sum += length;
    return sum;
  }

  SequenceMap map(const GruShape& s) const {
    if (!different_lengths) return {nullptr, nullptr, s.steps, false, false};  // strides express the direction
    return {order.data(), lengths.data(), s.steps, backwards, outputs_like_x};
  }

  // Sequences (N, T, ...) for the kernels. If all have the same length, negative strides express reading from the end.
  template <class T>
  Sequences<T> from(T* data, Index row_stride, Index step_stride, Index steps, bool reversed) const {
    if (different_lengths || !reversed || steps == 0) return {data, row_stride, step_stride};
    return {data + (steps - 1) * step_stride, row_stride, -step_stride};
  }

  void take_lengths(const py::object& object, Index batch, Index steps) {
    different_lengths = false;
    if (object.is_none()) return;
    const py::array given = require_array(object, "lengths");
    const char kind = given.dtype().kind();
    if (kind != 'i' && kind != 'u') {
      throw py::type_error("lengths: expected integers, got " + std::string(py::str(given.dtype())));
    }
    const py::array checked = read_classes(given, "lengths", "lengths", batch, steps + 1,
                                           "x has " + text(batch) + " rows", "x has " + text(steps) + " steps");
    const auto* values = static_cast<const std::int64_t*>(checked.data());
    if (std::all_of(values, values + batch, [&](std::int64_t length) { return length == steps; })) return;
    different_lengths = true;
    order.resize(static_cast<std::size_t>(batch));
    lengths.resize(static_cast<std::size_t>(batch));
    std::iota(order.begin(), order.end(), Index{0});
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return values[a] > values[b]; });
    std::transform(order.begin(), order.end(), lengths.begin(), [&](Index row) { return values[row]; });
  }
};

// --- The tape -----------------------------------------------------------------------------------------------

// The tape of gru_forward for gru_backward. It keeps its memory between calls.
class Tape {
 public:
  std::atomic<bool> recorded{false};  // read without Use
  char dtype = 0;
  GruShape shape{};
  GruOptions options;
  WeightLayout layout = WeightLayout::keras;
  Reading reading;
  bool has_bias = false, has_recurrent_bias = false;
  // The checked arrays: views of the caller's arrays, or copies.
  py::object x, kernel, recurrent_kernel, recurrent_mask;

  template <class T>
  GruTape<T> reserve(const GruShape& s, bool reset_after) {
    const UnitBlocks<T> blocks(s.units, reset_after);
    const Index pairs = reading.pairs(s), bytes = Index{sizeof(T)};
    gates_.reserve(checked_multiply(GruTape<T>::gates_size(pairs, blocks), bytes));
    states_.reserve(checked_multiply(GruTape<T>::states_size(pairs, s.batch, blocks), bytes));
    return memory<T>();
  }
  template <class T>
  GruTape<T> memory() const {
    return {reinterpret_cast<T*>(gates_.memory.get()), reinterpret_cast<T*>(states_.memory.get())};
  }
  // Records the arguments of a call, except its masks.
  template <class T>
  void record(const GruForwardArguments<T>& arguments, const py::array& given_x, const py::array& given_kernel,
              const py::array& given_recurrent_kernel) {
    dtype = sizeof(T) == 4 ? 'f' : 'd';
    shape = arguments.shape;
    options = arguments.options;
    layout = arguments.parameters.layout;
    has_bias = arguments.parameters.bias != nullptr;
    has_recurrent_bias = arguments.parameters.recurrent_bias != nullptr;
    // Separate views: a later assignment to x.shape changes the caller's array object, but not these.
    x = given_x.attr("view")();
    kernel = given_kernel.attr("view")();
    recurrent_kernel = given_recurrent_kernel.attr("view")();
  }
  // Safe while another thread records: returns the size of each buffer before or after it.
  std::size_t nbytes() const { return gates_.size.load() + states_.size.load(); }

  // Releases the recorded arrays, but keeps the memory.
  void clear() {
    recorded = false;
    x = kernel = recurrent_kernel = recurrent_mask = py::none();
  }

  // Locks the tape for one call: kernels run without the GIL, so a second thread could use it at the same time.
  class Use {
   public:
    explicit Use(Tape& tape) : tape_(tape) {
      if (tape_.in_use_.exchange(true)) {
        throw std::runtime_error(
            "tape: expected a tape that is not in use, got one in use by another thread; use one tape per thread");
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
    std::atomic<std::size_t> size{0};
    void reserve(Index bytes) {
      if (static_cast<std::size_t>(bytes) <= size.load() && memory != nullptr) return;
      size.store(0);
      memory.reset();
      memory = allocate_aligned(static_cast<std::size_t>(bytes));
      size.store(static_cast<std::size_t>(bytes));
    }
  };
  Buffer gates_, states_;
  std::atomic<bool> in_use_{false};
};

// --- The kernels --------------------------------------------------------------------------------------------

template <class T>
Sequences<const T> sequences(const Input<T>& input, const Reading& reading, bool reversed) {
  return reading.from(input.data(), input.stride(0), input.stride(1), input.holder.shape(1), reversed);
}
template <class T>
Sequences<T> sequences(py::array& output, const Reading& reading, bool reversed) {
  constexpr Index size{sizeof(T)};
  return reading.from(pointer<T>(output), output.strides(0) / size, output.strides(1) / size, output.shape(1),
                      reversed);
}

// A bias as (3H), (2, 3H) or a tuple of two (3H).
template <class T>
struct Bias {
  std::vector<Input<T>> arrays;
  const T* input = nullptr;
  const T* recurrent = nullptr;

  Bias(const py::object& object, Index units) {
    if (object.is_none()) return;
    const std::string why = "recurrent_kernel has " + text(units) + " units";
    if (py::isinstance<py::tuple>(object)) {
      const auto pair = py::reinterpret_borrow<py::tuple>(object);
      if (pair.size() != 2) {
        throw py::value_error("bias: expected a tuple (input, recurrent), got one of " +
                              text(static_cast<Index>(pair.size())));
      }
      arrays = {read<T>(pair[0], "bias[0]", {3 * units}, why, "x"), read<T>(pair[1], "bias[1]", {3 * units}, why, "x")};
      input = arrays[0].data();
      recurrent = arrays[1].data();
      return;
    }
    const bool two = require_array(object, "bias").ndim() == 2;
    const Shape shape = two ? Shape{Index{2}, 3 * units} : Shape{3 * units};
    arrays = {read<T>(object, "bias", shape, why + ", one row or (input, recurrent)", "x")};
    input = arrays[0].data();
    if (two) recurrent = input + 3 * units;
  }

  const py::array* array(std::size_t index) const { return index < arrays.size() ? &arrays[index].holder : nullptr; }
};

// The shape of a weight matrix.
std::vector<Index> weights_shape(WeightLayout layout, Index depth, Index units) {
  if (layout == WeightLayout::keras) return {depth, 3 * units};
  return {3 * units, depth};
}

// The parameters of a layer. Their shapes give the sizes F and H.
template <class T>
struct Weights {
  WeightLayout layout;
  Input<T> recurrent;
  Index units;
  Input<T> kernel;
  Index features;
  Bias<T> bias;

  Weights(const py::object& kernel_object, const py::object& recurrent_object, const py::object& bias_object,
          WeightLayout weight_layout)
      : layout(weight_layout),
        recurrent(read<T>(recurrent_object, "recurrent_kernel", shape_of("H", "3H"), "", "x")),
        units(checked_units()),
        kernel(read<T>(kernel_object, "kernel", shape_of("F", 3 * units),
                       "recurrent_kernel has " + text(units) + " units", "x")),
        features(kernel.holder.shape(depth_axis())),
        bias(bias_object, units) {}

  GruParameters<T> parameters() const { return {layout, kernel.data(), recurrent.data(), bias.input, bias.recurrent}; }

 private:
  int depth_axis() const { return layout == WeightLayout::keras ? 0 : 1; }
  template <class Depth, class Gates>
  Shape shape_of(Depth depth, Gates gates) const {
    return layout == WeightLayout::keras ? Shape{depth, gates} : Shape{gates, depth};
  }
  Index checked_units() const {
    const Index count = recurrent.holder.shape(depth_axis()), gates = recurrent.holder.shape(1 - depth_axis());
    if (count >= 1 && gates % 3 == 0 && gates / 3 == count) return count;
    throw py::value_error("recurrent_kernel: expected shape " + text_of(shape_of("H", "3H")) + " with H >= 1, got " +
                          shape_text(recurrent.holder));
  }
};

// A mask (N, H), or one per gate (3, N, H).
template <class T>
std::optional<Input<T>> read_masks(const py::object& object, const GruShape& s, const std::string& why) {
  if (object.is_none()) return std::nullopt;
  const bool each = require_array(object, "recurrent_mask").ndim() == 3;
  const Shape shape = each ? Shape{Index{3}, s.batch, s.units} : Shape{s.batch, s.units};
  return read<T>(object, "recurrent_mask", shape, why + ", one mask or (z, r, n)", "x");
}
template <class T>
RecurrentMasks<T> masks_of(const py::array& array, const GruShape& s) {
  return {static_cast<const T*>(array.data()), s.units, array.ndim() == 3 ? s.batch * s.units : 0};
}

template <class T>
py::tuple gru_forward_typed(const py::object& x_object, const py::object& kernel_object,
                            const py::object& recurrent_object, const py::object& bias_object,
                            const py::object& initial_object, const GruOptions& options, WeightLayout layout,
                            Reading& reading, const py::object& lengths, const py::object& mask_object,
                            bool return_sequences, const py::object& out, Tape* tape) {
  const Weights<T> weights(kernel_object, recurrent_object, bias_object, layout);
  const Index units = weights.units, features = weights.features;
  const Input<T> x = read<T>(x_object, "x", {"N", "T", features}, "kernel has " + text(features) + " input features",
                             "x", Layout::last_axis_contiguous);
  const Index batch = x.holder.shape(0), steps = x.holder.shape(1);
  const std::string why = "x has " + text(batch) + " rows and recurrent_kernel " + text(units) + " units";
  const auto initial = read_optional<T>(initial_object, "initial_state", {batch, units}, why, "x");
  const auto mask = read_masks<T>(mask_object, {batch, steps, features, units}, why);
  reading.take_lengths(lengths, batch, steps);

  GruForwardArguments<T> arguments;
  arguments.shape = {batch, steps, features, units};
  arguments.options = options;
  arguments.parameters = weights.parameters();
  arguments.x = sequences(x, reading, reading.backwards);
  arguments.sequences = reading.map(arguments.shape);
  arguments.initial_state = pointer<T>(initial);
  if (mask) arguments.recurrent_masks = masks_of<T>(mask->holder, arguments.shape);
  checked_multiply(checked_multiply(batch, steps + 1), checked_multiply(units, Index{4 * sizeof(T)}));
  if (tape != nullptr) arguments.tape = tape->reserve<T>(arguments.shape, options.reset_after);
  std::optional<py::array> outputs;
  if (!return_sequences && !out.is_none()) {
    throw py::value_error("out: expected None because return_sequences is False, got an array");
  }
  if (return_sequences) {
    outputs = out.is_none() ? new_array<T>({batch, steps, units})
                            : write_to_rows<T>(out, "out", {batch, steps, units}, why, "x");
    if (!out.is_none()) {
      const auto given_lengths = lengths.is_none() ? std::nullopt : std::optional(require_array(lengths, "lengths"));
      require_apart({{"out", &*outputs}},
                    {{"x", &x.holder},
                     {"kernel", &weights.kernel.holder},
                     {"recurrent_kernel", &weights.recurrent.holder},
                     {weights.bias.arrays.size() == 2 ? "bias[0]" : "bias", weights.bias.array(0)},
                     {"bias[1]", weights.bias.array(1)},
                     {"initial_state", array_of(initial)},
                     {"lengths", given_lengths ? &*given_lengths : nullptr},
                     {"recurrent_mask", array_of(mask)}});
    }
    arguments.outputs = sequences<T>(*outputs, reading, reading.backwards && reading.outputs_like_x);
    arguments.repeat_last_output = reading.repeat_last_output;
  }
  py::array state = new_array<T>({batch, units});
  arguments.last_state = pointer<T>(state);

  call_interruptible([&](Cancellation* cancellation) {
    BorrowedWorkspace workspace;
    gru_forward(arguments, *workspace, cancellation);
  });
  if (tape != nullptr) {
    tape->record(arguments, x.holder, weights.kernel.holder, weights.recurrent.holder);
    tape->recurrent_mask = mask ? mask->holder.attr("view")() : py::none();
    tape->recorded = true;
  }
  return py::make_tuple(outputs ? py::object(*outputs) : py::none(), state);
}

py::tuple gru_forward_checked(const py::object& x, const py::object& kernel, const py::object& recurrent_kernel,
                              const py::object& bias, const py::object& initial_state, const std::string& activation,
                              const std::string& recurrent_activation, bool reset_after, bool go_backwards,
                              const py::object& lengths, const std::string& padded_outputs,
                              const std::string& output_order, const py::object& recurrent_mask,
                              const std::string& weight_layout, bool return_sequences, const py::object& out,
                              Tape* tape) {
  const GruOptions options{choose(activation, "activation", Activations<float>::names),
                           choose(recurrent_activation, "recurrent_activation", RecurrentActivations<float>::names),
                           reset_after};
  const auto typed =
      require_floating(require_array(x, "x"), "x") == 'f' ? gru_forward_typed<float> : gru_forward_typed<double>;
  std::optional<Tape::Use> use;
  if (tape != nullptr) use.emplace(*tape);
  Reading own;
  Reading& reading = tape != nullptr ? tape->reading : own;
  if (tape != nullptr) tape->recorded = false;
  reading.backwards = go_backwards;
  reading.repeat_last_output = choose(padded_outputs, "padded_outputs", kPaddedOutputs);
  reading.outputs_like_x = choose(output_order, "output_order", kOutputOrders);
  return typed(x, kernel, recurrent_kernel, bias, initial_state, options,
               choose(weight_layout, "weight_layout", kWeightLayouts), reading, lengths, recurrent_mask,
               return_sequences, out, tape);
}

// The current memory of x and the weights: the recorded arrays, or `inputs` of the same shapes and contents.
template <class T>
struct TapeInputs {
  Input<T> x, kernel, recurrent_kernel;

  TapeInputs(const Tape& tape, const py::object& inputs)
      : x{tape.x.cast<py::array>()},
        kernel{tape.kernel.cast<py::array>()},
        recurrent_kernel{tape.recurrent_kernel.cast<py::array>()} {
    if (inputs.is_none()) return;
    const GruShape& s = tape.shape;
    if (!py::isinstance<py::tuple>(inputs) || py::len(inputs) != 3) {
      throw py::type_error("inputs: expected a tuple (x, kernel, recurrent_kernel), got " +
                           std::string(py::str(py::type::of(inputs).attr("__name__"))));
    }
    const auto given = py::reinterpret_borrow<py::tuple>(inputs);
    const auto shape = [](const std::vector<Index>& sizes) { return Shape(sizes.begin(), sizes.end()); };
    const char *why = "the tape recorded that shape", *like = "the tape";
    x = read<T>(given[0], "inputs[0]", {s.batch, s.steps, s.features}, why, like, Layout::last_axis_contiguous);
    kernel = read<T>(given[1], "inputs[1]", shape(weights_shape(tape.layout, s.features, s.units)), why, like);
    recurrent_kernel = read<T>(given[2], "inputs[2]", shape(weights_shape(tape.layout, s.units, s.units)), why, like);
  }
};

// The gradients of the weights: new arrays, or the given output arrays.
template <class T>
struct Gradients {
  py::array kernel, recurrent;
  std::optional<py::array> bias;

  Gradients(const Tape& tape, const py::object& d_kernel, const py::object& d_recurrent, const py::object& d_bias,
            const std::string& why, const char* like)
      : kernel(write_to_or_new<T>(d_kernel, "d_kernel",
                                  weights_shape(tape.layout, tape.shape.features, tape.shape.units), why, like)),
        recurrent(write_to_or_new<T>(d_recurrent, "d_recurrent_kernel",
                                     weights_shape(tape.layout, tape.shape.units, tape.shape.units), why, like)) {
    if (!tape.has_bias) return;
    std::vector<Index> shape{3 * tape.shape.units};
    if (tape.has_recurrent_bias) shape.insert(shape.begin(), 2);
    bias = write_to_or_new<T>(d_bias, "d_bias", shape, why, like);
  }

  WeightGradients<T> pointers(const Tape& tape) {
    T* const first = pointer<T>(bias);
    return {pointer<T>(kernel), pointer<T>(recurrent), first,
            tape.has_recurrent_bias ? first + 3 * tape.shape.units : nullptr};
  }
};

template <class T>
py::tuple gru_backward_typed(const Tape& tape, const py::object& d_outputs_object, const py::object& d_state_object,
                             const py::object& inputs_object, const py::object& input_gradient,
                             const py::object& d_kernel_object, const py::object& d_recurrent_object,
                             const py::object& d_bias_object) {
  const GruShape& s = tape.shape;
  const char* like = "the tape";
  const std::string why = "the tape recorded that shape";
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
  Gradients<T> gradients(tape, d_kernel_object, d_recurrent_object, d_bias_object, why, like);
  const TapeInputs<T> now(tape, inputs_object);
  std::optional<py::array> d_x, mask;
  if (!tape.recurrent_mask.is_none()) mask = tape.recurrent_mask.cast<py::array>();
  const bool given_d_x = !py::isinstance<py::bool_>(input_gradient);
  if (given_d_x) {
    d_x = write_to_rows<T>(input_gradient, "input_gradient", {s.batch, s.steps, s.features}, why, like);
  } else if (input_gradient.cast<bool>()) {
    d_x = new_array<T>({s.batch, s.steps, s.features});
  }
  require_apart({{"d_kernel", array_of(d_kernel_object, gradients.kernel)},
                 {"d_recurrent_kernel", array_of(d_recurrent_object, gradients.recurrent)},
                 {"d_bias", gradients.bias && !d_bias_object.is_none() ? &*gradients.bias : nullptr},
                 {"input_gradient", given_d_x ? &*d_x : nullptr}},
                {{"x", &now.x.holder},
                 {"kernel", &now.kernel.holder},
                 {"recurrent_kernel", &now.recurrent_kernel.holder},
                 {"recurrent_mask", mask ? &*mask : nullptr},
                 {"d_outputs", array_of(d_outputs)},
                 {"d_state", array_of(d_state)}});
  py::array d_initial = new_array<T>({s.batch, s.units});

  GruBackwardArguments<T> arguments;
  arguments.shape = s;
  arguments.options = tape.options;
  arguments.parameters = {tape.layout, now.kernel.data(), now.recurrent_kernel.data(), nullptr, nullptr};
  const Reading& reading = tape.reading;
  arguments.x = sequences(now.x, reading, reading.backwards);
  arguments.sequences = reading.map(s);
  if (mask) arguments.recurrent_masks = masks_of<T>(*mask, s);
  arguments.repeat_last_output = reading.repeat_last_output;
  arguments.tape = tape.memory<T>();
  if (d_outputs) arguments.d_outputs = sequences(*d_outputs, reading, reading.backwards && reading.outputs_like_x);
  arguments.d_last_state = pointer<T>(d_state);
  if (d_x) arguments.d_x = sequences<T>(*d_x, reading, reading.backwards);
  arguments.d_initial_state = pointer<T>(d_initial);
  arguments.d_weights = gradients.pointers(tape);

  call_interruptible([&](Cancellation* cancellation) {
    BorrowedWorkspace workspace;
    gru_backward(arguments, *workspace, cancellation);
  });
  return py::make_tuple(d_x ? py::object(*d_x) : py::none(), d_initial, gradients.kernel, gradients.recurrent,
                        gradients.bias ? py::object(*gradients.bias) : py::none());
}

py::tuple gru_backward_checked(Tape& tape, const py::object& d_outputs, const py::object& d_state,
                               const py::object& input_gradient, const py::object& inputs, const py::object& d_kernel,
                               const py::object& d_recurrent_kernel, const py::object& d_bias) {
  const Tape::Use use(tape);
  if (!tape.recorded)
    throw py::value_error("tape: expected a recorded tape, got an empty one; pass it to gru_forward first");
  const auto typed = tape.dtype == 'f' ? gru_backward_typed<float> : gru_backward_typed<double>;
  return typed(tape, d_outputs, d_state, inputs, input_gradient, d_kernel, d_recurrent_kernel, d_bias);
}

}  // namespace

void bind_gru(py::module_& m) {
  py::class_<Tape>(m, "GRUTape")
      .def(py::init<>())
      .def_property_readonly("recorded", [](const Tape& tape) { return tape.recorded.load(); })
      .def_property_readonly("nbytes", &Tape::nbytes)
      .def("clear", [](Tape& tape) {
        const Tape::Use use(tape);
        tape.clear();
      });

  m.def("gru_forward", &gru_forward_checked, "x"_a, "kernel"_a, "recurrent_kernel"_a, "bias"_a, "initial_state"_a,
        "activation"_a, "recurrent_activation"_a, "reset_after"_a, "go_backwards"_a, "lengths"_a, "padded_outputs"_a,
        "output_order"_a, "recurrent_mask"_a, "weight_layout"_a, "return_sequences"_a, "out"_a, "tape"_a.none(true));
  m.def("gru_backward", &gru_backward_checked, "tape"_a, "d_outputs"_a, "d_state"_a, "input_gradient"_a, "inputs"_a,
        "d_kernel"_a, "d_recurrent_kernel"_a, "d_bias"_a);
}

}  // namespace fastgru::bindings
