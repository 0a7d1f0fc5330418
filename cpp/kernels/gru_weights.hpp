// The parameters of a GRU as the kernels read them: packed per unit block, padded with zeros.
//
//          forward                                   backward (transposed)
//   x  [ Wn Wz Wr ]  input     [block][F][3][L]      d_x  = [d_n d_z d_r] W^T   panels over F
//   h  [ Uz Ur Uq ]  recurrent [block][H][3][L]      d_h += [d_z d_r d_q] U^T   panels over H
//
// One unit block of the tutorial's GRU(64) on 28 features is (28 + 64) x 3 x 16 floats, 17.7 KB: it stays in the
// L1 cache while all rows of a batch tile pass. Packing touches each weight once a call.
#pragma once

#include <algorithm>

#include "kernels/gemm.hpp"
#include "kernels/gru.hpp"
#include "runtime/workspace.hpp"

namespace fastgru {

// Position of a gate slot's weights; q shares n's of the recurrent kernel.
inline constexpr Index gate_position(WeightLayout layout, int slot) {
  const bool keras = layout == WeightLayout::keras;
  return slot == GateSlots::z ? (keras ? 0 : 1) : slot == GateSlots::r ? (keras ? 1 : 0) : 2;
}

// A caller's matrix of weights, as it lies.
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

template <class T>
struct ForwardWeights {
  static constexpr Index L = Vec<T>::lanes;

  GruShape shape;
  bool reset_after;
  Index blocks;
  T* input;                   // [block][F][n, z, r][L]
  T* recurrent;               // [block][H][z, r, q][L], or without q where the reset comes before
  T* bias;                    // [block][n, z, r, q][L]
  PackedMatrix<T> candidate;  // Un (H, H), reset before only

  ForwardWeights(const GruShape& s, const GruOptions& options, Workspace& workspace)
      : shape(s),
        reset_after(options.reset_after),
        blocks(round_up_to_lanes<T>(s.units) / L),
        input(workspace.take<T>(checked_multiply(blocks * 3 * L, s.features))),
        recurrent(workspace.take<T>(checked_multiply(blocks * recurrent_gates() * L, s.units))),
        bias(workspace.take<T>(blocks * 4 * L)) {
    if (!reset_after) {
      candidate = PackedMatrix<T>(workspace.take<T>(PackedMatrix<T>::size(s.units, s.units)), s.units, s.units);
    }
  }

  Index recurrent_gates() const { return reset_after ? 3 : 2; }
  const T* input_block(Index block) const { return input + block * shape.features * 3 * L; }
  const T* recurrent_block(Index block) const { return recurrent + block * shape.units * recurrent_gates() * L; }
  const T* bias_block(Index block) const { return bias + block * 4 * L; }

  // Packing falls into independent items: the blocks, then the panels of `candidate`.
  Index items() const { return blocks + (reset_after ? 0 : candidate.panels()); }
  void pack(const GruParameters<T>& parameters, Index item) const {
    const GateMatrix<T> input_matrix{parameters.kernel, parameters.layout, shape.features, shape.units};
    const GateMatrix<T> recurrent_matrix{parameters.recurrent_kernel, parameters.layout, shape.units, shape.units};
    if (item >= blocks) {
      return candidate.pack(item - blocks, recurrent_matrix.at(GateSlots::n, 0), recurrent_matrix.depth_stride(),
                            recurrent_matrix.unit_stride());
    }
    const Index unit = item * L;
    pack_gates(const_cast<T*>(input_block(item)), input_matrix, GateSlots::n, 3, unit);
    pack_gates(const_cast<T*>(recurrent_block(item)), recurrent_matrix, GateSlots::z,
               static_cast<int>(recurrent_gates()), unit);
    pack_bias(bias + item * 4 * L, parameters, unit, shape.units - unit);
  }

 private:
  // to [k][slot][L], for the units from `unit` on.
  static void pack_gates(T* to, const GateMatrix<T>& from, int first_slot, int slots, Index unit) {
    const Index count = from.units - unit;
    for (int s = 0; s < slots; ++s) {
      const T* const source = from.at(first_slot + s, unit);
      if (from.unit_stride() == 1) {
        for (Index k = 0; k < from.depth; ++k) {
          Vec<T>::load_first(source + k * from.depth_stride(), count).store(to + (k * slots + s) * L);
        }
      } else {
        transpose(to + s * L, slots * L, source, from.depth, std::min(count, L));
      }
    }
  }

  // to[k * stride + lane] = from[lane * depth + k], zeros in the lanes from `count` on; by squares, so that each cache
  // line of `from` is read once.
  static void transpose(T* to, Index stride, const T* from, Index depth, Index count) {
    for (Index first = 0; first < depth; first += L) {
      const Index end = std::min(first + L, depth);
      for (Index lane = 0; lane < L; ++lane) {
        for (Index k = first; k < end; ++k) to[k * stride + lane] = lane < count ? from[lane * depth + k] : T(0);
      }
    }
  }

  // What each accumulator starts from. z and r take both biases; so does n where the reset comes before.
  void pack_bias(T* to, const GruParameters<T>& parameters, Index unit, Index count) const {
    const auto part = [&](const T* bias, int slot) {
      if (bias == nullptr) return Vec<T>(T(0));
      return Vec<T>::load_first(bias + gate_position(parameters.layout, slot) * shape.units + unit, count);
    };
    for (const int slot : {GateSlots::z, GateSlots::r}) {
      (part(parameters.bias, slot) + part(parameters.recurrent_bias, slot)).store(to + slot * L);
    }
    const Vec<T> n = part(parameters.bias, GateSlots::n), q = part(parameters.recurrent_bias, GateSlots::n);
    (reset_after ? n : n + q).store(to + GateSlots::n * L);
    (reset_after ? q : Vec<T>(T(0))).store(to + GateSlots::q * L);
  }
};

// Transposed weights whose depth is the gates as backward leaves them: per block, `slots` packets in a row.
template <class T>
class TransposedWeights {
 public:
  static constexpr Index L = Vec<T>::lanes;

  TransposedWeights() = default;
  TransposedWeights(Index rows, Index units, int first_slot, int slots, Workspace& workspace)
      : rows_(rows), units_(units), first_slot_(first_slot), slots_(slots) {
    const Index depth = checked_multiply(round_up_to_lanes<T>(units), Index{slots});
    matrix_ = PackedMatrix<T>(workspace.take<T>(checked_multiply(depth, round_up_to_lanes<T>(rows))), depth, rows);
  }

  void pack(const GateMatrix<T>& weights, Index panel) const {
    Index k = 0;
    for (Index unit = 0; unit < units_; unit += L) {
      const Index count = units_ - unit < L ? units_ - unit : L;
      for (int slot = first_slot_; slot < first_slot_ + slots_; ++slot, k += L) {
        matrix_.pack_rows(panel, k, count, weights.at(slot, unit), weights.unit_stride(), weights.depth_stride());
        matrix_.zero_rows(panel, k + count, L - count);
      }
    }
  }

  const PackedMatrix<T>& matrix() const { return matrix_; }

  // The matching view of A: gates [block][row][gates_row], `block_stride` elements between blocks.
  SegmentedRows<T> gates(const T* first, const UnitBlocks<T>& blocks, Index block_stride) const {
    return {first + first_slot_ * L, blocks.gates_row, slots_ * L, blocks.count, block_stride};
  }

 private:
  PackedMatrix<T> matrix_;
  Index rows_ = 0, units_ = 0;
  int first_slot_ = 0, slots_ = 0;
};

}  // namespace fastgru
