// The parameters of a GRU as the kernels read them: packed per unit block, padded with zeros.
//
//          forward                                   backward (transposed)
//   x  [ Wn Wz Wr ]  input     [block][F][3][L]      d_x  = [d_n d_z d_r] W^T   panels over F
//   h  [ Uz Ur Uq ]  recurrent [block][H][3][L]      d_h += [d_z d_r d_q] U^T   panels over H
//
// One unit block of the tutorial's GRU(64) on 28 features is (28 + 64) x 3 x 16 floats, 17.7 KB: it stays in the
// L1 cache while all rows of a batch tile pass. Packing touches each weight once a call, shared by the team.
#pragma once

#include "kernels/gemm.hpp"
#include "kernels/gru.hpp"
#include "runtime/parallel.hpp"
#include "runtime/workspace.hpp"

namespace fastgru {

// Position of a gate slot's columns in Keras' order z, r, n; q shares n's columns of the recurrent kernel.
inline constexpr Index keras_gate(int slot) { return slot == GateSlots::z ? 0 : slot == GateSlots::r ? 1 : 2; }

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

  // The team's members pack a share each; a barrier must follow before anyone reads.
  void pack(const GruParameters<T>& parameters, Team& team) const {
    const Range share = team.share(blocks);
    for (Index block = share.begin; block < share.end; ++block) {
      const Index unit = block * L, count = shape.units - unit;
      pack_gates(const_cast<T*>(input_block(block)), parameters.kernel + unit, shape.features, GateSlots::n, 3, count);
      pack_gates(const_cast<T*>(recurrent_block(block)), parameters.recurrent_kernel + unit, shape.units, GateSlots::z,
                 static_cast<int>(recurrent_gates()), count);
      pack_bias(bias + block * 4 * L, parameters, unit, count);
    }
    if (!reset_after) {
      const Range panels = team.share(candidate.panels());
      const Index columns = 3 * shape.units;
      for (Index p = panels.begin; p < panels.end; ++p) {
        candidate.pack(p, parameters.recurrent_kernel + keras_gate(GateSlots::n) * shape.units, columns, 1);
      }
    }
  }

 private:
  void pack_gates(T* to, const T* from, Index depth, int first_slot, int slots, Index count) const {
    for (Index k = 0; k < depth; ++k, from += 3 * shape.units) {
      for (int slot = first_slot; slot < first_slot + slots; ++slot, to += L) {
        Vec<T>::load_first(from + keras_gate(slot) * shape.units, count).store(to);
      }
    }
  }
  // What each accumulator starts from. z and r take both biases; so does n where the reset comes before.
  void pack_bias(T* to, const GruParameters<T>& parameters, Index unit, Index count) const {
    const auto part = [&](const T* bias, int slot) {
      if (bias == nullptr) return Vec<T>(T(0));
      return Vec<T>::load_first(bias + keras_gate(slot) * shape.units + unit, count);
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

  // `weights` (rows, 3H), gates in Keras' order. A barrier must follow.
  void pack(const T* weights, Team& team) const {
    const Range share = team.share(matrix_.panels());
    for (Index p = share.begin; p < share.end; ++p) {
      Index k = 0;
      for (Index unit = 0; unit < units_; unit += L) {
        const Index count = units_ - unit < L ? units_ - unit : L;
        for (int slot = first_slot_; slot < first_slot_ + slots_; ++slot, k += L) {
          matrix_.pack_rows(p, k, count, weights + keras_gate(slot) * units_ + unit, 1, 3 * units_);
          matrix_.zero_rows(p, k + count, L - count);
        }
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
