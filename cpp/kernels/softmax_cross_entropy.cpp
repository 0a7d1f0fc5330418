#include "kernels/softmax_cross_entropy.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/cost.hpp"
#include "runtime/parallel.hpp"
#include "simd/activations.hpp"

namespace fastgru {
namespace {

// Runs body(range of rows) on the number of threads that the cost model gives.
template <class T, class Body>
void parallel_rows(Index rows, Index classes, Body&& body) {
  const double work = cost::product(rows, 1, classes) * cost::kSoftmaxElement;
  parallel(cost::threads_for(work), cost::operations<T>(work), nullptr,
           [&](Team& team) noexcept { body(team.share(rows)); });
}

// The largest element, or NaN if the first element is NaN; a later NaN reaches the sum through exp.
template <class T>
T largest(const T* row, Index count) {
  T result = row[0];
  for (Index c = 1; c < count; ++c) result = result < row[c] ? row[c] : result;
  return result;
}

// The sum of exp(from[c] - m), in the order of c for any register width; to[c] receives the terms if `to` is not null.
template <class T>
T sum_of_exp(const T* from, Index count, T m, T* to) {
  using V = Vec<T>;
  T sum = T(0);
  for (Index c = 0; c < count; c += V::lanes) {
    T lanes[V::lanes];
    const V terms = exp(V::load_first(from + c, count - c) - V(m));
    terms.store(lanes);
    for (Index lane = 0; lane < std::min<Index>(V::lanes, count - c); ++lane) sum += lanes[lane];
    if (to != nullptr) terms.store_first(to + c, count - c);
  }
  return sum;
}

// sum over c of t(c) (m - l(c)), and the sum of t. A target of 0 adds 0, even if the logit is infinite.
template <class T>
double distance_from_largest(const T* logits, const T* targets, Index classes, T m, double& total) {
  double distance = 0.0;
  total = 0.0;
  for (Index c = 0; c < classes; ++c) {
    if (targets[c] == T(0)) continue;
    total += static_cast<double>(targets[c]);
    distance += static_cast<double>(targets[c]) * (static_cast<double>(m) - static_cast<double>(logits[c]));
  }
  return distance;
}

template <class T>
void cross_entropy_row(const CrossEntropyArguments<T>& a, Index row) {
  const Index classes = a.classes;
  const T* logits = a.logits + row * classes;
  const T* targets = a.targets == nullptr ? nullptr : a.targets + row * classes;
  const Index label =
      targets == nullptr ? static_cast<Index>(a.labels[row]) : std::max_element(targets, targets + classes) - targets;
  const T m = largest(logits, classes);
  a.correct[row] = std::max_element(logits, logits + classes) - logits == label;

  // Reads all logits before it writes: d_logits may be the same memory.
  double total = 1.0;
  const double distance = targets == nullptr ? static_cast<double>(m) - static_cast<double>(logits[label])
                                             : distance_from_largest(logits, targets, classes, m, total);
  T* const d_logits = a.d_logits == nullptr ? nullptr : a.d_logits + row * classes;
  const T sum = sum_of_exp(logits, classes, m, d_logits);
  a.losses[row] = total * std::log(static_cast<double>(sum)) + distance;

  if (d_logits == nullptr) return;
  const T factor = static_cast<T>(total) / sum;
  for (Index c = 0; c < classes; ++c) {
    const T target = targets == nullptr ? T(c == label) : targets[c];
    d_logits[c] = (d_logits[c] * factor - target) * a.scale;
  }
}

}  // namespace

template <class T>
void softmax(Index rows, Index classes, const T* logits, T* probabilities) {
  parallel_rows<T>(rows, classes, [&](Range share) {
    for (Index row = share.begin; row < share.end; ++row) {
      const T* from = logits + row * classes;
      T* to = probabilities + row * classes;
      const T sum = sum_of_exp(from, classes, largest(from, classes), to);
      for (Index c = 0; c < classes; ++c) to[c] /= sum;
    }
  });
}

template <class T>
void softmax_cross_entropy(const CrossEntropyArguments<T>& a) {
  parallel_rows<T>(a.rows, a.classes, [&](Range share) {
    for (Index row = share.begin; row < share.end; ++row) cross_entropy_row(a, row);
  });
}

template void softmax(Index, Index, const float*, float*);
template void softmax(Index, Index, const double*, double*);
template void softmax_cross_entropy(const CrossEntropyArguments<float>&);
template void softmax_cross_entropy(const CrossEntropyArguments<double>&);

}  // namespace fastgru
