// Softmax over classes, and cross-entropy from logits, with loss and gradient in one numerically stable pass.
//
//     p(n, c) = exp(l(n, c) - m) / s,   m = max over c of l(n, c),   s = sum over c of exp(l(n, c) - m)
//     loss(n) = sum over c of t(n, c) (log s + m - l(n, c))          t: target, or 1 at the label
//     d_logits(n, c) = scale * (p(n, c) * sum of t(n, :) - t(n, c))
//
// Finite logits cause no underflow or overflow; a NaN affects its own row only. All matrices are (N, C) and
// C-contiguous, C >= 1. probabilities and d_logits may be the memory of logits; nothing else may overlap. Nothing is
// allocated.
#pragma once

#include <cstdint>

#include "simd/packet.hpp"

namespace fastgru {

template <class T>
void softmax(Index rows, Index classes, const T* logits, T* probabilities);

template <class T>
struct CrossEntropyArguments {
  Index rows, classes;
  const T* logits;
  const std::int64_t* labels = nullptr;  // (N), each in [0, C); or
  const T* targets = nullptr;            // (N, C)
  T scale;                               // of the gradient, 1 / N for the mean loss
  T* d_logits = nullptr;                 // or null
  double* losses;                        // (N)
  bool* correct;                         // (N): the largest logit has the index of the largest target
};

template <class T>
void softmax_cross_entropy(const CrossEntropyArguments<T>& arguments);

}  // namespace fastgru
