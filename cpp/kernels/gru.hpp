// What a GRU is here: sizes, options, parameters, and the tape between forward and backward.
//
// Axes:   N batch rows, T time steps, F input features, H hidden units, L lanes of a SIMD register.
// Gates:  z update, r reset, n candidate (Keras calls it h), q = h Un + b_rn, the recurrent half of the
//         candidate where the reset gate is applied after the product.
//
//     z  = rec(x Wz + h Uz + b_z)                     h' = z * h + (1 - z) * n
//     r  = rec(x Wr + h Ur + b_r)
//     n  = act(x Wn + b_n + r * (h Un + b_rn))        reset_after  (cuDNN, PyTorch, Keras' default)
//     n  = act(x Wn + b_n + b_rn + (r * h) Un)        reset before (the 2014 paper, TensorFlow.js)
//
// Recurrent dropout replaces h by m * h in the products alone, with a mask m for each gate; z * h is not masked:
//
//     (m_z * h) Uz    (m_r * h) Ur    (m_n * h) Un, or (r * m_n * h) Un where the reset comes before
//
// Parameters lie as in Keras or as in PyTorch: see WeightLayout.
#pragma once

#include "runtime/workspace.hpp"
#include "simd/activations.hpp"
#include "simd/packet.hpp"

namespace fastgru {

struct GruShape {
  Index batch, steps, features, units;

  // Multiply-adds of forward's products; backward has twice as many, and those for the gradients of x.
  double multiply_adds() const {
    return 3.0 * static_cast<double>(batch) * static_cast<double>(steps) * static_cast<double>(units) *
           static_cast<double>(features + units);
  }
};

struct GruOptions {
  std::size_t activation = 0;            // index in Activations
  std::size_t recurrent_activation = 0;  // index in RecurrentActivations
  bool reset_after = true;
};

// How a matrix of weights lies. A weight has a gate, a unit, and a depth k: the feature of x or the unit of h that it
// multiplies. K is F or H.
//     keras  (K, 3H), gates z, r, n, biases too        torch  (3H, K), gates r, z, n, biases too
enum class WeightLayout { keras, torch };

// C-contiguous; a null bias is zero.
template <class T>
struct GruParameters {
  WeightLayout layout;
  const T* kernel;            // (F, 3H) or (3H, F)
  const T* recurrent_kernel;  // (H, 3H) or (3H, H)
  const T* bias;              // (3H) or null
  const T* recurrent_bias;    // (3H) or null
};

// The masks m_z, m_r, m_n of recurrent dropout, in this order whatever the layout of the weights. C-contiguous (3, N,
// H); or (N, H), one mask for the three gates. Null: no masks, and h enters the products as it is.
template <class T>
struct RecurrentMasks {
  enum Gate : int { z, r, n };

  const T* data = nullptr;
  Index units = 0;
  Index gate_stride = 0;  // N H, or 0 for one mask

  explicit operator bool() const { return data != nullptr; }
  const T* row(int gate, Index row) const { return data + gate * gate_stride + row * units; }
  // The factors of the units from `unit` on; zeros after the last unit.
  FASTGRU_INLINE Vec<T> at(int gate, Index row, Index unit) const {
    return Vec<T>::load_first(this->row(gate, row) + unit, units - unit);
  }
};

// A batch of sequences (N, T, ...): the last axis contiguous, the others at any stride, negative ones too.
// T may be const. A null `data` means: not given, or not wanted.
template <class T>
struct Sequences {
  T* data = nullptr;
  Index row_stride = 0, step_stride = 0;

  T* at(Index row, Index step) const { return data + row * row_stride + step * step_stride; }
  explicit operator bool() const { return data != nullptr; }
};

// Where the gates lie in a kernel's memory: per unit block of L units and per row, G packets in this order. It
// puts what x multiplies (n, z, r) and what h multiplies (z, r, q) side by side, so that both products load three
// neighbouring packets.
struct GateSlots {
  enum : int { n = 0, z = 1, r = 2, q = 3 };
  static constexpr int count(bool reset_after) { return reset_after ? 4 : 3; }
};

// The sizes of the padded, blocked forms of H.
template <class T>
struct UnitBlocks {
  Index count;         // ceil(H / L)
  Index gates_row;     // elements of one row of gates within a block: G * L
  Index state_stride;  // elements between two rows of h

  UnitBlocks(Index units, bool reset_after)
      : count(round_up_to_lanes<T>(units) / Vec<T>::lanes),
        gates_row(GateSlots::count(reset_after) * Vec<T>::lanes),
        state_stride(round_up_to_lanes<T>(units)) {
    // Rows a multiple of 2 KiB apart would all compete for the same few sets of the L1 cache.
    if (state_stride * static_cast<Index>(sizeof(T)) % 2048 == 0) state_stride += Vec<T>::lanes;
  }
};

// What forward leaves for backward: the activated gates and the states; padded lanes hold anything. Each group of rows
// of the plan has its own piece, so that threads do not write side by side:
//     gates  [T][block][row][G][L]       n, z, r and (reset_after) q after their activations
//     states [T + 1][row][state_stride]  h before step t; states[0] is the initial state
// Where sequences differ in length, a step has only the rows that are at work in it (gru_rows.hpp).
template <class T>
struct GruTape {
  T* gates = nullptr;
  T* states = nullptr;

  // Sizes for so many pairs of a row and a step.
  static Index gates_size(Index pairs, const UnitBlocks<T>& b) {
    return checked_multiply(pairs, b.count * b.gates_row);
  }
  static Index states_size(Index pairs, Index rows, const UnitBlocks<T>& b) {
    return checked_multiply(pairs + rows, b.state_stride);
  }

  // Whether it is too large to wait in the caches for backward: then it is written past them.
  static bool outgrows_caches(Index pairs, const UnitBlocks<T>& b) {
    constexpr Index kCached = Index{16} << 20;
    return gates_size(pairs, b) > kCached / static_cast<Index>(sizeof(T));
  }

  // The piece of a group of rows, with so many pairs and rows in the groups before it.
  GruTape piece(Index pairs_before, Index rows_before, const UnitBlocks<T>& b) const {
    return {gates + pairs_before * b.count * b.gates_row, states + (pairs_before + rows_before) * b.state_stride};
  }
};

}  // namespace fastgru
