#include "kernels/optimizers.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "kernels/cost.hpp"
#include "runtime/parallel.hpp"

namespace fastgru {
namespace {

// Each rule computes the constants of the step once, in double. It updates one register of parameters p and states s.
// The second moment in the denominator of Adam: v, or with AMSGrad the largest v so far.
template <bool kAmsgrad, class V>
FASTGRU_INLINE V second_moment(V* s) {
  if constexpr (kAmsgrad) return s[2] = larger(s[2], s[1]);
  return s[1];
}

template <class T, bool kAmsgrad>
struct KerasAdam {
  using V = Vec<T>;
  V alpha, epsilon, one_minus_beta_1, one_minus_beta_2;

  explicit KerasAdam(const AdamSettings& a)
      : alpha(T(a.learning_rate * std::sqrt(1.0 - std::pow(a.beta_2, a.step)) / (1.0 - std::pow(a.beta_1, a.step)))),
        epsilon(T(a.epsilon)),
        one_minus_beta_1(T(1.0 - a.beta_1)),
        one_minus_beta_2(T(1.0 - a.beta_2)) {}

  FASTGRU_INLINE V update(V p, V g, V* s) const {
    s[0] = s[0] + (g - s[0]) * one_minus_beta_1;
    s[1] = s[1] + (g * g - s[1]) * one_minus_beta_2;
    return p - s[0] * alpha / (sqrt(second_moment<kAmsgrad>(s)) + epsilon);
  }
};

template <class T>
struct TfjsAdam {
  using V = Vec<T>;
  V rate, epsilon, beta_1, beta_2, one_minus_beta_1, one_minus_beta_2, correction_1, correction_2;

  explicit TfjsAdam(const AdamSettings& a)
      : rate(T(a.learning_rate)),
        epsilon(T(a.epsilon)),
        beta_1(T(a.beta_1)),
        beta_2(T(a.beta_2)),
        one_minus_beta_1(T(1.0 - a.beta_1)),
        one_minus_beta_2(T(1.0 - a.beta_2)),
        correction_1(T(1.0 - std::pow(a.beta_1, a.step))),
        correction_2(T(1.0 - std::pow(a.beta_2, a.step))) {}

  FASTGRU_INLINE V update(V p, V g, V* s) const {
    s[0] = s[0] * beta_1 + g * one_minus_beta_1;
    s[1] = s[1] * beta_2 + g * g * one_minus_beta_2;
    return p - s[0] / correction_1 / (sqrt(s[1] / correction_2) + epsilon) * rate;
  }
};

template <class T, bool kAmsgrad>
struct PytorchAdam {
  using V = Vec<T>;
  V step_size, epsilon, beta_2, one_minus_beta_1, one_minus_beta_2, sqrt_correction_2;

  explicit PytorchAdam(const AdamSettings& a)
      : step_size(T(a.learning_rate / (1.0 - std::pow(a.beta_1, a.step)))),
        epsilon(T(a.epsilon)),
        beta_2(T(a.beta_2)),
        one_minus_beta_1(T(1.0 - a.beta_1)),
        one_minus_beta_2(T(1.0 - a.beta_2)),
        sqrt_correction_2(T(std::sqrt(1.0 - std::pow(a.beta_2, a.step)))) {}

  FASTGRU_INLINE V update(V p, V g, V* s) const {
    s[0] = s[0] + (g - s[0]) * one_minus_beta_1;
    s[1] = s[1] * beta_2 + g * g * one_minus_beta_2;
    return p - step_size * (s[0] / (sqrt(second_moment<kAmsgrad>(s)) / sqrt_correction_2 + epsilon));
  }
};

template <class T, bool kNesterov>
struct KerasMomentum {
  using V = Vec<T>;
  V rate, momentum;

  explicit KerasMomentum(const SgdSettings& a) : rate(T(a.learning_rate)), momentum(T(a.momentum)) {}

  FASTGRU_INLINE V update(V p, V g, V* s) const {
    s[0] = s[0] * momentum - g * rate;
    return p + (kNesterov ? s[0] * momentum - g * rate : s[0]);
  }
};

template <class T, bool kNesterov>
struct PytorchMomentum {
  using V = Vec<T>;
  V rate, momentum;

  explicit PytorchMomentum(const SgdSettings& a) : rate(T(a.learning_rate)), momentum(T(a.momentum)) {}

  FASTGRU_INLINE V update(V p, V g, V* s) const {
    s[0] = s[0] * momentum + g;
    return p - (kNesterov ? g + s[0] * momentum : s[0]) * rate;
  }
};

template <class T>
struct PlainSgd {
  using V = Vec<T>;
  V rate;

  explicit PlainSgd(const SgdSettings& a) : rate(T(a.learning_rate)) {}

  FASTGRU_INLINE V update(V p, V g, V*) const { return p - g * rate; }
};

template <class T, MomentumForm kForm, bool kMomentum, bool kCentered>
struct Rmsprop {
  using V = Vec<T>;
  V rate, rho, one_minus_rho, momentum, epsilon;

  explicit Rmsprop(const RmspropSettings& a)
      : rate(T(a.learning_rate)),
        rho(T(a.rho)),
        one_minus_rho(T(1.0 - a.rho)),
        momentum(T(a.momentum)),
        epsilon(T(a.epsilon)) {}

  FASTGRU_INLINE V update(V p, V g, V* s) const {
    s[0] = s[0] * rho + g * g * one_minus_rho;
    V variance = s[0];
    if constexpr (kCentered) {
      s[2] = s[2] * rho + g * one_minus_rho;
      variance = variance - s[2] * s[2];
    }
    if constexpr (kForm == MomentumForm::keras) {
      const V step = g * rate / sqrt(variance + epsilon);
      if constexpr (!kMomentum) return p - step;
      s[1] = s[1] * momentum + step;
      return p - s[1];
    } else {
      const V step = g / (sqrt(variance) + epsilon);
      if constexpr (!kMomentum) return p - step * rate;
      s[1] = s[1] * momentum + step;
      return p - s[1] * rate;
    }
  }
};

// Limits of the settings. Beyond them an update can overflow although no square of a gradient did (gradients below
// 1.8e19 in float32). Adding less than 1e31 to a float of at most 3.4e38 cannot make it infinite, however often:
// 1e31 is half the distance of neighbouring floats there. For the same reason momentum sums to at most 2^24 times a
// gradient, which stays below 1e31 at rates up to 1e3. If the states do not bound the quotient, an update is at most
// the rate times the gradient divided by epsilon. A factor of parameters or momentum is applied in every update, so it
// must not exceed 1.
constexpr double kLargestRate = 1e3;
constexpr double kLargestRateOverEpsilon = 1e11;
constexpr double kLeastEpsilon = 1e-30;  // smaller values may be 0 in float32, and 0 / 0 is NaN

bool is_risky(double rate, double epsilon) {
  rate = std::abs(rate);
  return !(rate <= kLargestRate && rate <= kLargestRateOverEpsilon * epsilon && epsilon >= kLeastEpsilon);
}
bool is_risky(const AdamSettings& a) { return is_risky(a.learning_rate, a.epsilon); }
bool is_risky(const SgdSettings& a) { return is_risky(a.learning_rate, 1.0) || !(a.momentum <= 1.0); }
bool is_risky(const RmspropSettings& a) {
  // Centered: rounding can make the variance smaller than -epsilon, and then it has no root.
  return a.centered || is_risky(a.learning_rate, a.epsilon) || !(a.momentum <= 1.0);
}

template <class T>
bool has_finite(const T* values, Index count) {
  return std::all_of(values, values + count, [](T value) { return std::isfinite(value); });
}

template <class T>
bool has_finite_squares(const T* values, Index count) {
  using V = Vec<T>;
  constexpr int kChains = 4;  // independent chains hide the latency of additions
  V sums[kChains];
  for (V& sum : sums) sum = V(T(0));
  Index i = 0;
  for (; i + kChains * V::lanes <= count; i += kChains * V::lanes) {
    for (int k = 0; k < kChains; ++k) {
      const V value = V::load(values + i + k * V::lanes);
      sums[k] = fma(value, value, sums[k]);
    }
  }
  for (; i < count; i += V::lanes) {
    const V value = V::load_first(values + i, count - i);
    sums[0] = fma(value, value, sums[0]);
  }
  T lanes[V::lanes];
  ((sums[0] + sums[1]) + (sums[2] + sums[3])).store(lanes);
  return has_finite(lanes, V::lanes);
}

// One update with one rule, register by register.
template <bool kPrepare, class Rule, class T>
class Pass {
 public:
  using V = Vec<T>;
  Pass(const FlatBuffers<T>& buffers, const Rule& rule, double kept)
      : b_(buffers), rule_(rule), scale_(T(buffers.scale)), kept_(T(kept)), clip_(T(buffers.clip)) {}

  void update(Range elements) const {
    for (Index i = elements.begin; i < elements.end; i += V::lanes) {
      const Index count = elements.end - i;
      V s[3];
      compute(i, count, s).store_first(b_.parameters + i, count);
      for (int k = 0; k < 3; ++k) {
        if (b_.states[k] != nullptr) s[k].store_first(b_.states[k] + i, count);
      }
    }
  }

  // Whether every value that `update` would write is finite.
  bool stays_finite(Range elements) const {
    for (Index i = elements.begin; i < elements.end; i += V::lanes) {
      const Index count = std::min<Index>(elements.end - i, V::lanes);
      V results[4];
      results[3] = compute(i, count, results);
      for (const V& result : results) {
        T lanes[V::lanes];
        result.store(lanes);
        if (!has_finite(lanes, count)) return false;
      }
    }
    return true;
  }

 private:
  // Returns the new parameters of a register, and writes its new states to `s`.
  FASTGRU_INLINE V compute(Index i, Index count, V* s) const {
    V g = V::load_first(b_.gradient + i, count);
    V p = V::load_first(b_.parameters + i, count);
    if constexpr (kPrepare) {
      g = at_least(at_most(g * scale_, clip_), -clip_);
      p = p * kept_;
    }
    for (int k = 0; k < 3; ++k) s[k] = b_.states[k] != nullptr ? V::load_first(b_.states[k] + i, count) : V(T(0));
    return rule_.update(p, g, s);
  }

  const FlatBuffers<T>& b_;
  const Rule& rule_;
  const V scale_, kept_;
  const T clip_;
};

template <bool kPrepare, class Rule, class T>
Outcome sweep(const FlatBuffers<T>& b, const Rule& rule, double kept, bool risky) {
  const Pass<kPrepare, Rule, T> pass(b, rule, kept);
  const Index registers = round_up_to_lanes<T>(b.count) / Vec<T>::lanes;
  const double work = cost::kUpdatedRegister * static_cast<double>(registers);
  std::atomic<bool> doubtful{risky}, bad_gradient{false}, bad_result{false};
  parallel(cost::threads_for(work), cost::operations<T>(work), nullptr, [&](Team& team) noexcept {
    const Range share = team.share(registers);
    const Range elements{share.begin * Vec<T>::lanes, std::min<Index>(share.end * Vec<T>::lanes, b.count)};
    if (!has_finite_squares(b.gradient + elements.begin, elements.size())) doubtful = true;
    team.barrier();
    if (doubtful) {
      if (!has_finite(b.gradient + elements.begin, elements.size())) {
        bad_gradient = true;
      } else if (!pass.stays_finite(elements)) {
        bad_result = true;
      }
      team.barrier();
      if (bad_gradient || bad_result) return;
    }
    pass.update(elements);
  });
  if (bad_gradient) return Outcome::gradient_not_finite;
  return bad_result ? Outcome::result_not_finite : Outcome::updated;
}

template <class Rule, class T, class Settings>
Outcome run(const FlatBuffers<T>& buffers, const Settings& settings) {
  const Rule rule(settings);
  const double kept = 1.0 - settings.learning_rate * buffers.weight_decay;  // of the parameters
  const bool risky = is_risky(settings) || !(std::abs(buffers.scale) <= 1.0) || !(std::abs(kept) <= 1.0);
  if (buffers.scale == 1.0 && std::isinf(buffers.clip) && buffers.weight_decay == 0.0) {
    return sweep<false>(buffers, rule, kept, risky);
  }
  return sweep<true>(buffers, rule, kept, risky);
}

template <class T, MomentumForm kForm>
Outcome run_rmsprop(const FlatBuffers<T>& b, const RmspropSettings& a) {
  if (a.momentum == 0.0) {
    return a.centered ? run<Rmsprop<T, kForm, false, true>>(b, a) : run<Rmsprop<T, kForm, false, false>>(b, a);
  }
  return a.centered ? run<Rmsprop<T, kForm, true, true>>(b, a) : run<Rmsprop<T, kForm, true, false>>(b, a);
}

}  // namespace

template <class T>
Outcome adam(const FlatBuffers<T>& buffers, const AdamSettings& settings) {
  const bool amsgrad = settings.amsgrad;
  if (settings.form == AdamForm::keras) {
    return amsgrad ? run<KerasAdam<T, true>>(buffers, settings) : run<KerasAdam<T, false>>(buffers, settings);
  }
  if (settings.form == AdamForm::tfjs) return run<TfjsAdam<T>>(buffers, settings);
  return amsgrad ? run<PytorchAdam<T, true>>(buffers, settings) : run<PytorchAdam<T, false>>(buffers, settings);
}

template <class T>
Outcome sgd(const FlatBuffers<T>& b, const SgdSettings& a) {
  if (a.momentum == 0.0) return run<PlainSgd<T>>(b, a);
  if (a.form == MomentumForm::keras) {
    return a.nesterov ? run<KerasMomentum<T, true>>(b, a) : run<KerasMomentum<T, false>>(b, a);
  }
  return a.nesterov ? run<PytorchMomentum<T, true>>(b, a) : run<PytorchMomentum<T, false>>(b, a);
}

template <class T>
Outcome rmsprop(const FlatBuffers<T>& buffers, const RmspropSettings& settings) {
  if (settings.form == MomentumForm::keras) return run_rmsprop<T, MomentumForm::keras>(buffers, settings);
  return run_rmsprop<T, MomentumForm::pytorch>(buffers, settings);
}

template <class T>
double sum_of_squares(const T* values, Index count) {
  constexpr Index kBlock = 4096;  // squares are summed per block, in eight chains
  constexpr Index kChains = 8;
  double total = 0.0;
  for (Index begin = 0; begin < count; begin += kBlock) {
    const Index end = std::min(begin + kBlock, count);
    double sums[kChains] = {};
    for (Index i = begin; i < end; ++i) {
      const double value = static_cast<double>(values[i]);
      sums[(i - begin) % kChains] += value * value;
    }
    for (const double sum : sums) total += sum;
  }
  return total;
}

#define FASTGRU_INSTANTIATE(T)                                             \
  template Outcome adam(const FlatBuffers<T>&, const AdamSettings&);       \
  template Outcome sgd(const FlatBuffers<T>&, const SgdSettings&);         \
  template Outcome rmsprop(const FlatBuffers<T>&, const RmspropSettings&); \
  template double sum_of_squares(const T*, Index);
FASTGRU_INSTANTIATE(float)
FASTGRU_INSTANTIATE(double)
#undef FASTGRU_INSTANTIATE

}  // namespace fastgru
