// The GRU's sizes, options and parameters, and the memory layout of its gates and states.
//
// Axes:   N batch rows, T time steps, F input features, H hidden units, L lanes of a SIMD register.
// Gates:  z update, r reset, n candidate (h in Keras), q = h Un + b_rn: the recurrent half of the candidate, used
//         only with reset_after.
//
//     z  = rec(x Wz + h Uz + b_z)                     h' = z * h + (1 - z) * n
//     r  = rec(x Wr + h Ur + b_r)
//     n  = act(x Wn + b_n + r * (h Un + b_rn))        reset_after=true   (cuDNN, PyTorch, Keras' default)
//     n  = act(x Wn + b_n + b_rn + (r * h) Un)        reset_after=false  (the 2014 paper, TensorFlow.js)
//
// Recurrent dropout replaces h by m * h in the products only, with one mask m per gate; z * h is not masked:
//
//     (m_z * h) Uz    (m_r * h) Ur    (m_n * h) Un, or (r * m_n * h) Un with reset_after=false
//
// Parameters have Keras' or PyTorch's layout: see WeightLayout.
#pragma once

#include "runtime/workspace.hpp"
#include "simd/activations.hpp"
#include "simd/packet.hpp"

namespace fastgru {

struct GruShape {
  Index batch, steps, features, units;

  // Multiply-adds of the products in forward. Backward has twice as many, plus those for the gradients of x.
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

// Memory layout of a weight matrix. A weight belongs to a gate, a unit and a depth k: the feature of x or the unit of h
// that it multiplies. K is F or H.
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

// The masks m_z, m_r, m_n of recurrent dropout, in this order for either layout of the weights. C-contiguous (3, N, H);
// or (N, H), one mask for all three gates. Null: no masks.
template <class T>
struct RecurrentMasks {
  enum Gate : int { z, r, n };

  const T* data = nullptr;
  Index units = 0;
  Index gate_stride = 0;  // N H, or 0 for one mask

  explicit operator bool() const { return data != nullptr; }
  const T* row(int gate, Index row) const { return data + gate * gate_stride + row * units; }
  // The mask values of the units from `unit` on; zeros after the last unit.
  FASTGRU_INLINE Vec<T> at(int gate, Index row, Index unit) const {
    return Vec<T>::load_first(this->row(gate, row) + unit, units - unit);
  }
};

// A batch of sequences (N, T, ...). The last axis is contiguous; the others have any stride, also a negative one.
// T may be const. A null `data` means: not given, or not wanted.
template <class T>
struct Sequences {
  T* data = nullptr;
  Index row_stride = 0, step_stride = 0;

  T* at(Index row, Index step) const { return data + row * row_stride + step * step_stride; }
  explicit operator bool() const { return data != nullptr; }
};

// Order of the gates in memory: for each block of L units and each row, G registers in this order. The gates that x
// multiplies (n, z, r) are adjacent, and so are those that h multiplies (z, r, q): each product loads three adjacent
// registers.
struct GateSlots {
  enum : int { n = 0, z = 1, r = 2, q = 3 };
  static constexpr int count(bool reset_after) { return reset_after ? 4 : 3; }
  // The gates from z on that h itself multiplies: z, r and, with reset_after, q.
  static constexpr int recurrent(bool reset_after) { return reset_after ? 3 : 2; }
};

// The sizes of H in blocks of L units, with padding.
template <class T>
struct UnitBlocks {
  Index count;         // ceil(H / L)
  Index gates_row;     // elements of one row of gates within a block: G L
  Index state_stride;  // elements between two rows of h

  UnitBlocks(Index units, bool reset_after)
      : count(round_up_to_lanes<T>(units) / Vec<T>::lanes),
        gates_row(GateSlots::count(reset_after) * Vec<T>::lanes),
        state_stride(round_up_to_lanes<T>(units)) {
    // Rows a multiple of 2 KiB apart would map to the same few sets of the L1 cache.
    if (state_stride * static_cast<Index>(sizeof(T)) % 2048 == 0) state_stride += Vec<T>::lanes;
  }
};

}  // namespace fastgru
