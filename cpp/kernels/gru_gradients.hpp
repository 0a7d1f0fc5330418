// Sums of the GRU's weight gradients: one sum for each part of the batch, in Keras' layout, and the reduction of those
// sums to the result, in the layout of the weights.
#pragma once

#include <algorithm>
#include <array>

#include "kernels/gru_weights.hpp"
#include "runtime/workspace.hpp"

namespace fastgru {

template <class T>
struct WeightGradients {
  T* kernel = nullptr;            // (F, 3H); results in the layout of the weights
  T* recurrent_kernel = nullptr;  // (H, 3H)
  T* bias = nullptr;              // (3H) or null
  T* recurrent_bias = nullptr;    // (3H) or null

  void clear(const GruShape& s) const {
    const Index columns = 3 * s.units;
    std::fill_n(kernel, s.features * columns, T(0));
    std::fill_n(recurrent_kernel, s.units * columns, T(0));
    for (T* one : {bias, recurrent_bias}) {
      if (one != nullptr) std::fill_n(one, columns, T(0));
    }
  }
};

template <class T>
class GradientSums {
  using V = Vec<T>;
  static constexpr Index L = V::lanes;
  using Array = T* WeightGradients<T>::*;

 public:
  // The sums of the first part are `results` itself, unless that has PyTorch's layout.
  GradientSums(const GruShape& s, WeightLayout layout, const WeightGradients<T>& results, Index parts,
               Workspace& workspace)
      : shape_(s),
        transposed_(layout == WeightLayout::torch),
        results_(results),
        parts_(parts),
        sums_(workspace.take<WeightGradients<T>>(parts)) {
    const Index columns = 3 * s.units;
    const auto bias = [&](const T* wanted) { return wanted == nullptr ? nullptr : workspace.take<T>(columns); };
    for (Index part = 0; part < parts; ++part) {
      sums_[part] = results;
      if (part == 0 && !transposed_) continue;
      sums_[part] = {workspace.take_pages<T>(s.features * columns), workspace.take<T>(s.units * columns),
                     bias(results.bias), bias(results.recurrent_bias)};
    }
  }

  const WeightGradients<T>& of_part(Index part) const { return sums_[part]; }

  // The reduction consists of independent items. In Keras' layout an item is kItem neighbouring elements of one array,
  // so that a thread writes contiguous memory and few cache lines are written by two threads. In PyTorch's layout an
  // item is one gate of one block of units, whose rows are contiguous.
  Index items() const {
    if (transposed_) return 3 * blocks();
    if (parts_ == 1) return 0;
    Index count = 0;
    for (const auto& [which, size] : arrays()) count += (size + kItem - 1) / kItem;
    return count;
  }
  void add(Index item) const {
    if (transposed_) return add_transposed(static_cast<int>(item / blocks()), item % blocks() * L);
    for (const auto& [which, size] : arrays()) {
      const Index count = (size + kItem - 1) / kItem;
      if (item < count) {
        const Index end = std::min(size, (item + 1) * kItem);
        for (Index at = item * kItem; at < end; at += L) {
          sum_of_parts(which, at, end - at).store_first(results_.*which + at, end - at);
        }
        return;
      }
      item -= count;
    }
  }

 private:
  static constexpr Index kItem = 2048;  // large enough that the cost of claiming an item is negligible

  Index blocks() const { return round_up_to_lanes<T>(shape_.units) / L; }

  struct SizedArray {
    Array which;
    Index size;
  };
  std::array<SizedArray, 4> arrays() const {
    const Index columns = 3 * shape_.units;
    return {{{&WeightGradients<T>::kernel, shape_.features * columns},
             {&WeightGradients<T>::recurrent_kernel, shape_.units * columns},
             {&WeightGradients<T>::bias, results_.bias == nullptr ? 0 : columns},
             {&WeightGradients<T>::recurrent_bias, results_.recurrent_bias == nullptr ? 0 : columns}}};
  }

  void add_transposed(int slot, Index unit) const {
    const Index count = std::min(shape_.units - unit, L);
    add_squares(&WeightGradients<T>::kernel, shape_.features, slot, unit, count);
    add_squares(&WeightGradients<T>::recurrent_kernel, shape_.units, slot, unit, count);
    for (const Array bias : {&WeightGradients<T>::bias, &WeightGradients<T>::recurrent_bias}) {
      if (results_.*bias == nullptr) continue;
      const Index at = gate_position(WeightLayout::torch, slot) * shape_.units + unit;
      sum_of_parts(bias, position(0, slot, unit), count).store_first(results_.*bias + at, count);
    }
  }

  // Transposes squares of L x L elements, so that each cache line is written once.
  void add_squares(Array which, Index depth, int slot, Index unit, Index count) const {
    T* const to = results_.*which + (gate_position(WeightLayout::torch, slot) * shape_.units + unit) * depth;
    for (Index first = 0; first < depth; first += L) {
      T square[L][L];
      const Index used = std::min(depth - first, L);
      for (Index k = 0; k < used; ++k) sum_of_parts(which, position(first + k, slot, unit), count).store(square[k]);
      for (Index lane = 0; lane < count; ++lane) {
        for (Index k = 0; k < used; ++k) to[lane * depth + first + k] = square[k][lane];
      }
    }
  }

  // Offset of the sums for depth k and a gate's units from `unit` on.
  Index position(Index k, int slot, Index unit) const {
    return (k * 3 + gate_position(WeightLayout::keras, slot)) * shape_.units + unit;
  }

  // The sum of up to L elements over all parts, in ascending order.
  V sum_of_parts(Array which, Index at, Index count) const {
    V sum = V::load_first(sums_[0].*which + at, count);
    for (Index part = 1; part < parts_; ++part) sum = sum + V::load_first(sums_[part].*which + at, count);
    return sum;
  }

  const GruShape& shape_;
  const bool transposed_;
  const WeightGradients<T> results_;
  const Index parts_;
  WeightGradients<T>* const sums_;
};

}  // namespace fastgru
