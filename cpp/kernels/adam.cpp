#include "kernels/adam.hpp"

#include <algorithm>
#include <cmath>

#include "runtime/parallel.hpp"

namespace fastgru {
namespace {

constexpr Index kPacketsWorthAThread = 1 << 10;

// The step's constants, computed in double once, and the update of one packet.
template <class T>
struct KerasForm {
  using V = Vec<T>;
  V alpha, epsilon, one_minus_beta_1, one_minus_beta_2;

  explicit KerasForm(const AdamArguments<T>& a)
      : alpha(T(a.learning_rate * std::sqrt(1.0 - std::pow(a.beta_2, a.step)) / (1.0 - std::pow(a.beta_1, a.step)))),
        epsilon(T(a.epsilon)),
        one_minus_beta_1(T(1.0 - a.beta_1)),
        one_minus_beta_2(T(1.0 - a.beta_2)) {}

  FASTGRU_INLINE V update(V p, V g, V& m, V& v) const {
    m = m + (g - m) * one_minus_beta_1;
    v = v + (g * g - v) * one_minus_beta_2;
    return p - m * alpha / (sqrt(v) + epsilon);
  }
};

template <class T>
struct TfjsForm {
  using V = Vec<T>;
  V rate, epsilon, beta_1, beta_2, one_minus_beta_1, one_minus_beta_2, correction_1, correction_2;

  explicit TfjsForm(const AdamArguments<T>& a)
      : rate(T(a.learning_rate)),
        epsilon(T(a.epsilon)),
        beta_1(T(a.beta_1)),
        beta_2(T(a.beta_2)),
        one_minus_beta_1(T(1.0 - a.beta_1)),
        one_minus_beta_2(T(1.0 - a.beta_2)),
        correction_1(T(1.0 - std::pow(a.beta_1, a.step))),
        correction_2(T(1.0 - std::pow(a.beta_2, a.step))) {}

  FASTGRU_INLINE V update(V p, V g, V& m, V& v) const {
    m = m * beta_1 + g * one_minus_beta_1;
    v = v * beta_2 + g * g * one_minus_beta_2;
    return p - m / correction_1 / (sqrt(v / correction_2) + epsilon) * rate;
  }
};

template <class T>
struct PytorchForm {
  using V = Vec<T>;
  V step_size, epsilon, beta_2, one_minus_beta_1, one_minus_beta_2, sqrt_correction_2;

  explicit PytorchForm(const AdamArguments<T>& a)
      : step_size(T(a.learning_rate / (1.0 - std::pow(a.beta_1, a.step)))),
        epsilon(T(a.epsilon)),
        beta_2(T(a.beta_2)),
        one_minus_beta_1(T(1.0 - a.beta_1)),
        one_minus_beta_2(T(1.0 - a.beta_2)),
        sqrt_correction_2(T(std::sqrt(1.0 - std::pow(a.beta_2, a.step)))) {}

  FASTGRU_INLINE V update(V p, V g, V& m, V& v) const {
    m = m + (g - m) * one_minus_beta_1;
    v = v * beta_2 + g * g * one_minus_beta_2;
    return p - step_size * (m / (sqrt(v) / sqrt_correction_2 + epsilon));
  }
};

template <class Form, class T>
void run(const AdamArguments<T>& a) {
  using V = Vec<T>;
  const Form form(a);
  const Index packets = (a.count + V::lanes - 1) / V::lanes;
  const int threads =
      static_cast<int>(std::max<Index>(1, std::min<Index>(num_threads(), packets / kPacketsWorthAThread)));
  parallel(threads, nullptr, [&](Team& team) {
    const Range share = team.share(packets);
    for (Index i = share.begin * V::lanes; i < share.end * V::lanes; i += V::lanes) {
      const Index count = a.count - i;
      V m = V::load_first(a.m + i, count), v = V::load_first(a.v + i, count);
      const V p = form.update(V::load_first(a.parameters + i, count), V::load_first(a.gradient + i, count), m, v);
      p.store_first(a.parameters + i, count);
      m.store_first(a.m + i, count);
      v.store_first(a.v + i, count);
    }
  });
}

}  // namespace

template <class T>
void adam(const AdamArguments<T>& a) {
  switch (a.form) {
    case AdamForm::keras: return run<KerasForm<T>>(a);
    case AdamForm::tfjs: return run<TfjsForm<T>>(a);
    case AdamForm::pytorch: return run<PytorchForm<T>>(a);
  }
}

template void adam(const AdamArguments<float>&);
template void adam(const AdamArguments<double>&);

}  // namespace fastgru
