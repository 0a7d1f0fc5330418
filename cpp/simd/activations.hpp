// The activations of a GRU on SIMD registers, and their derivatives in terms of their outputs.
//
// To add an activation, write a struct with `name`, `apply` and `derivative`, and append it to the list at the end of
// this file. The bindings, the GRU's cell and Python's list of names are generated from that list.
//
// sigmoid and tanh share one exponential. With y = n ln 2 + r, |r| <= ln 2 / 2, and the diagonal Pade
// approximant of exp split into its even part E and odd part O,
//
//     exp(y) = 2^n (E(r) + O(r)) / (E(r) - O(r)),
//
// Each function combines the quotient with the one division that it needs anyway:
//
//     sigmoid(x) = 1 / (1 + exp(-x))                 = (E - O) / ((E - O) + s (E + O)),       s = 2^n,
//     tanh(x)    = (1 - exp(-2x)) / (1 + exp(-2x))   = (E (1 - s) - O (1 + s)) / (E (1 + s) - O (1 - s)).
//
// For tanh, n = 0 gives exactly -O / E, so that the relative error stays small near x = 0.
// The error of the approximant is 6e-9 (float, order 3) and 2e-19 (double, order 6), both below rounding.
//
// Measured against a correctly rounded result (tests/test_activations.py asserts these):
//     function      float                 double               domain
//     sigmoid       3 ULP                 3 ULP                all x; below -87 (-708) it stays at sigmoid of
//                                                              the bound, under 1.7e-38 (3.4e-308), not 0
//     tanh          5 ULP                 5 ULP                all x; |x| > 9.1 (19.1) gives +-1
// NaN gives NaN; an infinity gives the limit.
#pragma once

#include "simd/packet.hpp"

namespace fastgru {

namespace detail {

// Exponent constants. ln2_high has enough trailing zero bits that n * ln2_high is exact, so the reduction is accurate
// without FMA too. Adding `magic` rounds to nearest and leaves n + bias in the low bits of the mantissa. A left shift
// then makes it the exponent field of 2^n.
template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  using Bits = std::int32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr float magic = 12582912.0F + 127.0F;  // 1.5 * 2^23 + bias
  static constexpr float log2_e = 1.44269504088896341F;
  static constexpr float ln2_high = 0.693359375F;
  static constexpr float ln2_low = -2.12194440054690583e-4F;
  static constexpr float sigmoid_bound = 87.0F;
  static constexpr float tanh_bound = 9.1F;
};

template <>
struct ExpConstants<double> {
  using Bits = std::int64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr double magic = 6755399441055744.0 + 1023.0;  // 1.5 * 2^52 + bias
  static constexpr double log2_e = 1.4426950408889634074;
  static constexpr double ln2_high = 0.693147180369123816490;
  static constexpr double ln2_low = 1.90821492927058770002e-10;
  static constexpr double sigmoid_bound = 708.0;
  static constexpr double tanh_bound = 19.1;
};

// E(r), O(r) of the Pade approximant, scaled so that E(0) = 1.
FASTGRU_INLINE void exp_pade(Vec<float> r, Vec<float>& even, Vec<float>& odd) {  // order (3, 3)
  const Vec<float> r2 = r * r;
  even = fma(r2, Vec<float>(1.0F / 10.0F), Vec<float>(1.0F));
  odd = r * fma(r2, Vec<float>(1.0F / 120.0F), Vec<float>(0.5F));
}
FASTGRU_INLINE void exp_pade(Vec<double> r, Vec<double>& even, Vec<double>& odd) {  // order (6, 6)
  const Vec<double> r2 = r * r;
  even = fma(r2, Vec<double>(1.0 / 665280.0), Vec<double>(1.0 / 792.0));
  even = fma(even, r2, Vec<double>(5.0 / 44.0));
  even = fma(even, r2, Vec<double>(1.0));
  odd = fma(r2, Vec<double>(1.0 / 15840.0), Vec<double>(1.0 / 66.0));
  odd = r * fma(odd, r2, Vec<double>(0.5));
}

// 2^n from t = n + magic.
template <class T>
FASTGRU_INLINE Vec<T> power_of_two(Vec<T> t) {
  using Raw = typename Vec<T>::Raw;
  typedef typename ExpConstants<T>::Bits Bits __attribute__((vector_size(sizeof(Raw))));
  return (Raw)((Bits)t.raw << ExpConstants<T>::mantissa_bits);
}

// exp(y) = scale * (even + odd) / (even - odd), for |y| within the exponent range of T.
template <class T>
struct SplitExp {
  Vec<T> even, odd, scale;

  explicit FASTGRU_INLINE SplitExp(Vec<T> y) {
    using C = ExpConstants<T>;
    const Vec<T> t = fma(y, Vec<T>(C::log2_e), Vec<T>(C::magic));
    const Vec<T> n = t - Vec<T>(C::magic);
    const Vec<T> r = fma(n, Vec<T>(-C::ln2_low), fma(n, Vec<T>(-C::ln2_high), y));
    exp_pade(r, even, odd);
    scale = power_of_two<T>(t);
  }
};

}  // namespace detail

template <class T>
FASTGRU_INLINE Vec<T> exp(Vec<T> x) {  // for x <= 0 (softmax only); exp(bound) below the bound
  const detail::SplitExp<T> e(at_least(x, -detail::ExpConstants<T>::sigmoid_bound));
  return e.scale * ((e.even + e.odd) / (e.even - e.odd));
}

// --- Recurrent activations, y = f(x); f.derivative(y) is f'(x) in terms of y -------------------------------

template <class T>
struct Sigmoid {
  static constexpr const char* name = "sigmoid";
  static FASTGRU_INLINE Vec<T> apply(Vec<T> x) {
    constexpr T bound = detail::ExpConstants<T>::sigmoid_bound;
    const detail::SplitExp<T> e(-at_least(at_most(x, bound), -bound));
    const Vec<T> denominator = e.even - e.odd;
    return denominator / fma(e.scale, e.even + e.odd, denominator);
  }
  static FASTGRU_INLINE Vec<T> derivative(Vec<T> y) { return y * (Vec<T>(T(1)) - y); }
};

// clip(slope x + 1/2, 0, 1) with slope = kNumerator / kDenominator.
template <class T, int kNumerator, int kDenominator>
struct HardSigmoid {
  static constexpr T slope = T(kNumerator) / T(kDenominator);
  static FASTGRU_INLINE Vec<T> apply(Vec<T> x) {
    return at_least(at_most(fma(x, Vec<T>(slope), Vec<T>(T(0.5))), T(1)), T(0));
  }
  static FASTGRU_INLINE Vec<T> derivative(Vec<T> y) {
    return where_below(y, T(1), where_above(y, T(0), Vec<T>(slope)));
  }
};
template <class T>
struct HardSigmoidKeras3 : HardSigmoid<T, 1, 6> {  // Keras 3, PyTorch
  static constexpr const char* name = "hard_sigmoid";
};
template <class T>
struct HardSigmoidTfjs : HardSigmoid<T, 1, 5> {  // TensorFlow.js, Keras 1 and 2, ONNX' default
  static constexpr const char* name = "hard_sigmoid_tfjs";
};

// --- Activations of the candidate -------------------------------------------------------------------------

template <class T>
struct Tanh {
  static constexpr const char* name = "tanh";
  static FASTGRU_INLINE Vec<T> apply(Vec<T> x) {
    constexpr T bound = detail::ExpConstants<T>::tanh_bound;
    const Vec<T> clamped = at_least(at_most(x, bound), -bound);
    const detail::SplitExp<T> e(clamped * Vec<T>(T(-2)));
    const Vec<T> minus = Vec<T>(T(1)) - e.scale, plus = Vec<T>(T(1)) + e.scale;
    return fma(-e.odd, plus, e.even * minus) / fma(-e.odd, minus, e.even * plus);
  }
  static FASTGRU_INLINE Vec<T> derivative(Vec<T> y) { return fma(-y, y, Vec<T>(T(1))); }
};

template <class T>
struct Relu {
  static constexpr const char* name = "relu";
  static FASTGRU_INLINE Vec<T> apply(Vec<T> x) { return at_least(x, T(0)); }
  static FASTGRU_INLINE Vec<T> derivative(Vec<T> y) { return where_above(y, T(0), Vec<T>(T(1))); }
};

template <class T>
struct Linear {
  static constexpr const char* name = "linear";
  static FASTGRU_INLINE Vec<T> apply(Vec<T> x) { return x; }
  static FASTGRU_INLINE Vec<T> derivative(Vec<T>) { return Vec<T>(T(1)); }
};

// --- The lists --------------------------------------------------------------------------------------------

template <class... Functions>
struct ActivationList {
  static constexpr const char* names[] = {Functions::name...};

  // f(Function{}) for the function at `index`; all results must have one type.
  template <class F>
  static auto visit(std::size_t index, F&& f) {
    return visit_from<F, Functions...>(index, f);
  }

 private:
  template <class F, class First, class... Rest>
  static auto visit_from(std::size_t index, F& f) {
    if constexpr (sizeof...(Rest) > 0) {
      if (index > 0) return visit_from<F, Rest...>(index - 1, f);
    }
    return f(First{});
  }
};

// An activation is identified by its index in its list; the first of each list is the default.
template <class T>
using Activations = ActivationList<Tanh<T>, Relu<T>, Linear<T>>;  // of the candidate
template <class T>
using RecurrentActivations = ActivationList<Sigmoid<T>, HardSigmoidKeras3<T>, HardSigmoidTfjs<T>>;  // of the gates

}  // namespace fastgru
