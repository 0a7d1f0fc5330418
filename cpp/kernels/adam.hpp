// Adam (Kingma and Ba 2015) as one pass over a flat buffer of parameters, in the exact form of three frameworks.
//
//     m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2          t = 1, 2, ...
//
//     keras     p -= alpha m / (sqrt(v) + eps),       alpha = rate sqrt(1 - b2^t) / (1 - b1^t)
//     tfjs      p -= rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//     pytorch   p -= rate / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
//
// The last two are the paper's algorithm and differ in rounding only; Keras' epsilon is the paper's "epsilon hat", and
// so means something else. The moments are updated as each framework does: m += (g - m)(1 - b1) in Keras and PyTorch.
// Nothing is allocated; elements do not depend on each other.
#pragma once

#include "simd/packet.hpp"

namespace fastgru {

enum class AdamForm { keras, tfjs, pytorch };

template <class T>
struct AdamArguments {
  Index count;
  T* parameters;      // in and out, (count)
  const T* gradient;  // (count)
  T* m;               // in and out, (count)
  T* v;               // in and out, (count)
  long step;          // t: 1 for the first update
  double learning_rate, beta_1, beta_2, epsilon;
  AdamForm form;
};

template <class T>
void adam(const AdamArguments<T>& arguments);

}  // namespace fastgru
