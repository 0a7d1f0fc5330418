// Packed weights of a GRU, in the layout that the kernels read: by block of L units, padded with zeros.
//
//          forward                                   backward (transposed)
//   x  [ Wn Wz Wr ]  input     [block][F][3][L]      d_x  = [d_n d_z d_r] W^T   panels over F
//   h  [ Uz Ur Uq ]  recurrent [block][H][3][L]      d_h += [d_z d_r d_q] U^T   panels over H
//
// One block of the tutorial's GRU(64) on 28 features is (28 + 64) x 3 x 16 floats, 17.7 KB: it stays in the L1 cache
// while all rows of a group are processed. Both are views of a Workspace's memory. Packing consists of independent
// items, so that the threads of a call can share it.
#pragma once

#include <algorithm>

#include "kernels/gemm.hpp"
#include "kernels/gru.hpp"
#include "runtime/workspace.hpp"

namespace fastgru {

// Index of a gate's columns in a weight matrix; q has the same recurrent weights as n.
inline constexpr Index gate_position(WeightLayout layout, int slot) {
  const bool keras = layout == WeightLayout::keras;
  return slot == GateSlots::z ? (keras ? 0 : 1) : slot == GateSlots::r ? (keras ? 1 : 0) : 2;
}

// A weight matrix of the caller, in its original layout.
template <class T>
struct GateMatrix {
  const T* data;
  WeightLayout layout;
  Index depth, units;

  Index unit_stride() const { return layout == WeightLayout::keras ? 1 : depth; }
  Index depth_stride() const { return layout == WeightLayout::keras ? 3 * units : 1; }
  const T* at(int slot, Index unit) const {
    return data + (gate_position(layout, slot) * units + unit) * unit_stride();
  }
};

// T is the type of the arithmetic and of the biases, Element the storage type of the packed matrices.
template <class T, class Element = T>
struct ForwardWeights {
  static constexpr Index L = Vec<T>::lanes;

  Index units = 0, blocks = 0;
  bool reset_after = true;
  Packed<T, Element> input;      // a panel is a block: [F][n, z, r][L]
  Packed<T, Element> recurrent;  // a panel is a block: [H][z, r, q][L], without q if reset_after=false
  Packed<T, Element> candidate;  // Un (H, H), reset_after=false only
  T* bias = nullptr;             // [block][n, z, r, q][L]

  ForwardWeights() = default;
  // Allocates without packing; valid until `memory` is reset.
  ForwardWeights(const GruShape& s, bool after, Workspace& memory)
      : units(s.units),
        blocks(round_up_to_lanes<T>(s.units) / L),
        reset_after(after),
        input(memory, s.features, blocks * 3 * L, blocks),
        recurrent(memory, s.units, blocks * (after ? 3 : 2) * L, blocks),
        bias(memory.take<T>(blocks * 4 * L)) {
    if (!after) candidate = Packed<T, Element>(memory, s.units, s.units);
  }

  // Whether these weights belong to a GRU of this shape and `reset_after`.
  bool fit(const GruShape& s, bool after) const {
    return units == s.units && input.depth() == s.features && reset_after == after;
  }
  const T* bias_of(Index block) const { return bias + block * 4 * L; }

  // The items are the blocks, then the panels of `candidate`.
  Index items() const { return blocks + candidate.panels(); }
  void pack(const GruParameters<T>& parameters, Index item) {
    const GateMatrix<T> kernel{parameters.kernel, parameters.layout, input.depth(), units};
    const GateMatrix<T> recurrent_kernel{parameters.recurrent_kernel, parameters.layout, units, units};
    if (item >= blocks) {
      return candidate.pack(item - blocks, recurrent_kernel.at(GateSlots::n, 0), recurrent_kernel.depth_stride(),
                            recurrent_kernel.unit_stride());
    }
    pack_block(input, item, kernel, GateSlots::n);
    pack_block(recurrent, item, recurrent_kernel, GateSlots::z);
    pack_bias(parameters, item);
  }

 private:
  // Packs the weights of neighbouring gates for a block of units.
  static void pack_block(Packed<T, Element>& to, Index block, const GateMatrix<T>& from, int first_slot) {
    const Index unit = block * L, count = std::min(L, from.units - unit);
    for (int slot = 0; slot < to.panel(block).registers; ++slot) {
      to.pack_register(block, slot, 0, from.depth, from.at(first_slot + slot, unit), from.depth_stride(),
                       from.unit_stride(), count);
    }
  }

  // The initial values of the accumulators. z and r take both biases; so does n if reset_after=false.
  void pack_bias(const GruParameters<T>& parameters, Index block) {
    T* const to = bias + block * 4 * L;
    const auto of_gate = [&](const T* biases, int slot) {
      if (biases == nullptr) return Vec<T>(T(0));
      const Index unit = block * L;
      return Vec<T>::load_first(biases + gate_position(parameters.layout, slot) * units + unit, units - unit);
    };
    for (const int slot : {GateSlots::z, GateSlots::r}) {
      (of_gate(parameters.bias, slot) + of_gate(parameters.recurrent_bias, slot)).store(to + slot * L);
    }
    const Vec<T> n = of_gate(parameters.bias, GateSlots::n), q = of_gate(parameters.recurrent_bias, GateSlots::n);
    (reset_after ? n : n + q).store(to + GateSlots::n * L);
    (reset_after ? q : Vec<T>(T(0))).store(to + GateSlots::q * L);
  }
};

// Weights that a predictor packs once and keeps between calls, with their memory. Later changes of the parameters have
// no effect on them.
template <class T, class Element = T>
class OwnedForwardWeights {
 public:
  OwnedForwardWeights(const GruShape& s, bool reset_after, const GruParameters<T>& parameters)
      : view_(s, reset_after, memory_) {
    for (Index item = 0; item < view_.items(); ++item) view_.pack(parameters, item);
  }
  OwnedForwardWeights(const OwnedForwardWeights&) = delete;
  OwnedForwardWeights& operator=(const OwnedForwardWeights&) = delete;

  const ForwardWeights<T, Element>& view() const { return view_; }

 private:
  Workspace memory_;
  ForwardWeights<T, Element> view_;
};

// Transposed weights, whose depth has the layout of backward's gate gradients: `slots` adjacent registers per block.
template <class T>
class TransposedWeights {
 public:
  static constexpr Index L = Vec<T>::lanes;

  TransposedWeights() = default;
  TransposedWeights(Index rows, Index units, int first_slot, int slots, Workspace& memory)
      : matrix_(memory, checked_multiply(round_up_to_lanes<T>(units), Index{slots}), rows),
        units_(units),
        first_slot_(first_slot),
        slots_(slots) {}

  void pack(const GateMatrix<T>& weights, Index panel) {
    Index k = 0;
    for (Index unit = 0; unit < units_; unit += L) {
      const Index count = std::min(L, units_ - unit);
      for (int slot = first_slot_; slot < first_slot_ + slots_; ++slot, k += L) {
        matrix_.pack(panel, k, count, weights.at(slot, unit), weights.unit_stride(), weights.depth_stride());
        matrix_.zero(panel, k + count, L - count);
      }
    }
  }

  const Packed<T>& matrix() const { return matrix_; }

  // The matching view of A: gates [block][row][gates_row], `block_stride` elements between blocks.
  BlockedRows<T> gates(const T* first, const UnitBlocks<T>& blocks, Index block_stride) const {
    return {first + first_slot_ * L, blocks.gates_row, slots_ * L, blocks.count, block_stride};
  }

 private:
  Packed<T> matrix_;
  Index units_ = 0;
  int first_slot_ = 0, slots_ = 0;
};

template <class T>
struct BackwardWeights {
  TransposedWeights<T> recurrent[3];  // z, r and q in the first; with masks one gate in each
  TransposedWeights<T> candidate;     // Un, reset_after=false only
  TransposedWeights<T> kernel;        // only if the gradients of x are wanted

  BackwardWeights(const GruShape& s, bool reset_after, bool masked, bool input_gradient, Workspace& memory) {
    const int gates = GateSlots::recurrent(reset_after);
    for (int gate = 0; gate < (masked ? gates : 1); ++gate) {
      recurrent[gate] = TransposedWeights<T>(s.units, s.units, GateSlots::z + gate, masked ? 1 : gates, memory);
    }
    if (!reset_after) candidate = TransposedWeights<T>(s.units, s.units, GateSlots::n, 1, memory);
    if (input_gradient) kernel = TransposedWeights<T>(s.features, s.units, GateSlots::n, 3, memory);
  }

  // The items are the panels of all matrices.
  Index items() const {
    Index items = candidate.matrix().panels() + kernel.matrix().panels();
    for (const TransposedWeights<T>& weights : recurrent) items += weights.matrix().panels();
    return items;
  }
  void pack(const GruShape& s, const GruParameters<T>& parameters, Index item) {
    const GateMatrix<T> of_x{parameters.kernel, parameters.layout, s.features, s.units};
    const GateMatrix<T> of_h{parameters.recurrent_kernel, parameters.layout, s.units, s.units};
    for (TransposedWeights<T>* weights : {&recurrent[0], &recurrent[1], &recurrent[2], &candidate}) {
      if (item < weights->matrix().panels()) return weights->pack(of_h, item);
      item -= weights->matrix().panels();
    }
    kernel.pack(of_x, item);
  }
};

}  // namespace fastgru
