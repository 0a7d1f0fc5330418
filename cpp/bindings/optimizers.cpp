// The optimizers.
#include "kernels/optimizers.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "bindings/call.hpp"

namespace fastgru::bindings {
namespace {

using namespace py::literals;

constexpr Choice<AdamForm> kAdamForms[] = {
    {"keras", AdamForm::keras}, {"tfjs", AdamForm::tfjs}, {"pytorch", AdamForm::pytorch}};
constexpr Choice<MomentumForm> kMomentumForms[] = {{"keras", MomentumForm::keras}, {"pytorch", MomentumForm::pytorch}};

// An optimizer state under the name of its argument; None if it is absent.
struct State {
  const char* name;
  const py::object& array;
};

// What is done to gradient and parameters before the rule.
struct Preparation {
  double weight_decay, scale;
  std::optional<double> clip;
};

double checked_scale(double scale) {
  if (!std::isfinite(scale)) throw py::value_error("scale: expected a finite number, got " + std::to_string(scale));
  return scale;
}

// Raises FloatingPointError if the update was not made.
template <class T>
void require_updated(Outcome outcome, const Input<T>& gradient) {
  if (outcome == Outcome::gradient_not_finite) {
    const T* const begin = gradient.data();
    const T* const end = begin + gradient.holder.shape(0);
    const T* const bad = std::find_if(begin, end, [](T value) { return !std::isfinite(value); });
    const std::string what = bad == end ? "NaN or infinity" : std::to_string(*bad) + " at index " + text(bad - begin);
    PyErr_SetString(
        PyExc_FloatingPointError,
        ("gradient: expected finite numbers, got " + what + "; parameters and states are unchanged").c_str());
    throw py::error_already_set();
  }
  if (outcome == Outcome::result_not_finite) {
    PyErr_SetString(
        PyExc_FloatingPointError,
        "parameters: expected finite numbers after the update, got NaN or infinity; parameters and states are "
        "unchanged; lower the learning rate or weight decay, raise epsilon, or clip the gradient");
    throw py::error_already_set();
  }
}

// Calls update(buffers) after checking parameters, gradient and states.
template <class T, class Update>
void optimize_typed(const py::object& parameters_object, const py::object& gradient_object,
                    const std::vector<State>& states, const Preparation& preparation, Update&& update) {
  py::array parameters = write_to<T>(parameters_object, "parameters", {"P"}, "", "parameters");
  const Index count = parameters.shape(0);
  const std::string why = "parameters has " + text(count) + " elements";
  const Input<T> gradient = read<T>(gradient_object, "gradient", {count}, why, "parameters");
  FlatBuffers<T> buffers{};
  buffers.count = count;
  buffers.parameters = pointer<T>(parameters);
  buffers.gradient = gradient.data();
  buffers.scale = checked_scale(preparation.scale);
  buffers.clip = preparation.clip.value_or(std::numeric_limits<double>::infinity());
  buffers.weight_decay = preparation.weight_decay;
  if (!(buffers.clip > 0)) {
    throw py::value_error("clip: expected a number above 0, got " + std::to_string(*preparation.clip));
  }
  std::optional<py::array> held[3];
  Argument given[3];
  for (std::size_t i = 0; i < states.size(); ++i) {
    if (states[i].array.is_none()) continue;
    py::array state = write_to<T>(states[i].array, states[i].name, {count}, why, "parameters");
    buffers.states[i] = pointer<T>(state);
    given[i] = {states[i].name, &held[i].emplace(std::move(state))};
  }
  require_apart({{"parameters", &parameters}, given[0], given[1], given[2]}, {{"gradient", &gradient.holder}});
  Outcome outcome = Outcome::updated;
  call([&] { outcome = update(buffers); });
  require_updated(outcome, gradient);
}

template <class Update>
void optimize(const py::object& parameters, const py::object& gradient, const std::vector<State>& states,
              const Preparation& preparation, Update&& update) {
  if (require_floating(require_array(parameters, "parameters"), "parameters") == 'f') {
    optimize_typed<float>(parameters, gradient, states, preparation, update);
  } else {
    optimize_typed<double>(parameters, gradient, states, preparation, update);
  }
}

void require_state(const py::object& array, const char* name, const char* why) {
  if (array.is_none()) throw py::value_error(std::string(name) + ": expected an array because " + why + ", got None");
}

void adam_checked(const py::object& parameters, const py::object& gradient, const py::object& m, const py::object& v,
                  const py::object& v_max, long step, double learning_rate, double beta_1, double beta_2,
                  double epsilon, bool amsgrad, const std::string& form, double weight_decay, double scale,
                  std::optional<double> clip) {
  if (step < 1) throw py::value_error("step: expected 1 for the first update, got " + std::to_string(step));
  const AdamSettings settings{step, learning_rate, beta_1, beta_2, epsilon, amsgrad, choose(form, "form", kAdamForms)};
  require_state(m, "m", "Adam has two moments");
  require_state(v, "v", "Adam has two moments");
  if (amsgrad) require_state(v_max, "v_max", "amsgrad is True");
  if (amsgrad && settings.form == AdamForm::tfjs) {
    throw py::value_error("amsgrad: expected False because form is 'tfjs', whose Adam has no AMSGrad, got True");
  }
  optimize(parameters, gradient, {{"m", m}, {"v", v}, {"v_max", v_max}}, {weight_decay, scale, clip},
           [&](const auto& b) { return adam(b, settings); });
}

void sgd_checked(const py::object& parameters, const py::object& gradient, const py::object& m, double learning_rate,
                 double momentum, bool nesterov, const std::string& form, double weight_decay, double scale,
                 std::optional<double> clip) {
  const SgdSettings settings{learning_rate, momentum, nesterov, choose(form, "form", kMomentumForms)};
  if (momentum != 0.0) require_state(m, "m", "there is momentum");
  optimize(parameters, gradient, {{"m", m}}, {weight_decay, scale, clip},
           [&](const auto& b) { return sgd(b, settings); });
}

void rmsprop_checked(const py::object& parameters, const py::object& gradient, const py::object& v, const py::object& m,
                     const py::object& a, double learning_rate, double rho, double momentum, double epsilon,
                     bool centered, const std::string& form, double weight_decay, double scale,
                     std::optional<double> clip) {
  const RmspropSettings settings{learning_rate, rho, momentum, epsilon, centered, choose(form, "form", kMomentumForms)};
  require_state(v, "v", "RMSprop averages squares");
  if (momentum != 0.0) require_state(m, "m", "there is momentum");
  if (centered) require_state(a, "a", "centered is True");
  optimize(parameters, gradient, {{"v", v}, {"m", m}, {"a", a}}, {weight_decay, scale, clip},
           [&](const auto& b) { return rmsprop(b, settings); });
}

double sum_of_squares_checked(const py::object& x) {
  const auto typed = [&](auto zero) {
    using T = decltype(zero);
    const Input<T> values = read<T>(x, "x", {"P"}, "", "x");
    double sum = 0.0;
    call([&] { sum = sum_of_squares(values.data(), values.holder.shape(0)); });
    return sum;
  };
  return require_floating(require_array(x, "x"), "x") == 'f' ? typed(0.0F) : typed(0.0);
}

}  // namespace

void bind_optimizers(py::module_& m) {
  m.def("adam", &adam_checked, "parameters"_a, "gradient"_a, "m"_a, "v"_a, "v_max"_a, "step"_a, "learning_rate"_a,
        "beta_1"_a, "beta_2"_a, "epsilon"_a, "amsgrad"_a, "form"_a, "weight_decay"_a, "scale"_a, "clip"_a.none(true));
  m.def("sgd", &sgd_checked, "parameters"_a, "gradient"_a, "m"_a, "learning_rate"_a, "momentum"_a, "nesterov"_a,
        "form"_a, "weight_decay"_a, "scale"_a, "clip"_a.none(true));
  m.def("rmsprop", &rmsprop_checked, "parameters"_a, "gradient"_a, "v"_a, "m"_a, "a"_a, "learning_rate"_a, "rho"_a,
        "momentum"_a, "epsilon"_a, "centered"_a, "form"_a, "weight_decay"_a, "scale"_a, "clip"_a.none(true));
  m.def("sum_of_squares", &sum_of_squares_checked, "x"_a);
}

}  // namespace fastgru::bindings
