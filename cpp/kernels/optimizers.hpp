// Optimizers: each update is one pass over a flat buffer of parameters, with the exact formulas of the frameworks.
//
//     g = clip(scale * gradient),  p -= rate decay p    first, if requested; t = 1, 2, ... counts the updates
//
//   Adam (Kingma and Ba 2015)          m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2
//     keras     p -= alpha m / (sqrt(v) + eps),       alpha = rate sqrt(1 - b2^t) / (1 - b1^t)
//     tfjs      p -= rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//     pytorch   p -= rate / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
//   AMSGrad (Reddi et al. 2018)        w = max(w, v), and w for v in p's update (keras, pytorch)
//   AdamW (Loshchilov and Hutter 2019)  the same with decay, which every rule has
//   SGD
//     keras     m = momentum m - rate g,   p += m                        nesterov: p += momentum m - rate g
//     pytorch   m = momentum m + g,        p -= rate m                   nesterov: p -= rate (g + momentum m)
//   RMSprop (Hinton 2012)              v = rho v + (1 - rho) g^2      centered: a = rho a + (1 - rho) g, v - a^2 for v
//     keras     d = rate g / sqrt(v + eps),     m = momentum m + d,   p -= m
//     pytorch   d = g / (sqrt(v) + eps),        m = momentum m + d,   p -= rate m
//
// Adam's last two forms are the paper's algorithm and differ in rounding only. Keras' epsilon is the paper's "epsilon
// hat" and has a different meaning. Nothing is allocated; elements do not depend on each other.
//
// Each thread first sums the squares of its share of the gradient, which is then in its cache. The threads write only
// if all sums are finite: then every element is finite, and no square overflows. Otherwise, and with settings that can
// make an update overflow, the threads check each element, and compute the update once without writing it. States must
// be zeros or results of such updates: their squares are not summed. without writing it. States are taken to be zeros
// or those that such updates left: their squares are not added up.
#pragma once

#include <limits>

#include "simd/packet.hpp"

namespace fastgru {

// The buffers of an update. States that a rule does not need are null.
template <class T>
struct FlatBuffers {
  Index count;
  T* parameters;      // in and out, (count)
  const T* gradient;  // (count)
  T* states[3];       // in and out, (count) each
  double scale = 1.0;
  double clip = std::numeric_limits<double>::infinity();  // the largest absolute value of g
  double weight_decay = 0.0;
};

enum class AdamForm { keras, tfjs, pytorch };

struct AdamSettings {  // states: m; v; w, if amsgrad
  long step;           // t: 1 for the first update
  double learning_rate, beta_1, beta_2, epsilon;
  bool amsgrad;  // not with AdamForm::tfjs
  AdamForm form;
};

enum class MomentumForm { keras, pytorch };

struct SgdSettings {  // states: m, if there is momentum
  double learning_rate, momentum;
  bool nesterov;
  MomentumForm form;
};

struct RmspropSettings {  // states: v; m, if there is momentum; a, if it is centered
  double learning_rate, rho, momentum, epsilon;
  bool centered;
  MomentumForm form;
};

// Result of an update. On failure neither parameters nor states have been written.
enum class Outcome {
  updated,
  gradient_not_finite,  // an element of the gradient is NaN or infinite
  result_not_finite,    // a parameter or a state would become NaN or infinite
};

template <class T>
Outcome adam(const FlatBuffers<T>& buffers, const AdamSettings& settings);
template <class T>
Outcome sgd(const FlatBuffers<T>& buffers, const SgdSettings& settings);
template <class T>
Outcome rmsprop(const FlatBuffers<T>& buffers, const RmspropSettings& settings);

// The sum of squares in double, in an order that depends on the count alone.
template <class T>
double sum_of_squares(const T* values, Index count);

}  // namespace fastgru
