// The elementwise half of a GRU step, forward and backward: the equations of gru.hpp on one register of units.
//
// gemm.hpp computes the products with W and U; these functions turn the products into gates and states. They are chosen
// by activation once per pass and process several rows per call.
#pragma once

#include "kernels/gru.hpp"
#include "simd/activations.hpp"

namespace fastgru {

// Every pointer points to the first row of the same block of units; gates are [row][G][L].
template <class T>
struct ForwardTile {
  T* gates;         // in: pre-activations; out: n, z, r (q is unchanged)
  T* tape;          // out, reset_after only: the same gates for backward, or null
  bool stream;      // whether the tape is written with non-temporal stores
  Index gates_row;  // elements between two rows of gates
  const T* h;       // in: states before the step
  T* h_next;        // out: states after it; must not overlap h
  Index h_row;      // elements between two rows of h, h_next and reset_h
  const T* n_h;     // in, reset_after=false only: h, or m_n * h with recurrent masks
  Index n_h_row;    // elements between two of its rows
  T* reset_h;       // out, reset_after=false only: r * n_h
  Index rows;
};

template <class T, class Act, class Rec>
struct ForwardCell {
  using V = Vec<T>;
  static constexpr Index L = V::lanes;

  static FASTGRU_INLINE V interpolate(V z, V h, V n) { return fma(z, h - n, n); }  // z h + (1 - z) n

  // Two sweeps over the rows, because n depends on r. In one sweep, a row is a chain of dependent operations (sigmoid,
  // then tanh) that is longer than the processor's out-of-order window, and most of each row would be waiting.
  static void reset_after(const ForwardTile<T>& tile) {
    T* gates = tile.gates;
    for (Index row = 0; row < tile.rows; ++row, gates += tile.gates_row) {
      const V z = Rec::apply(V::load(gates + GateSlots::z * L));
      const V r = Rec::apply(V::load(gates + GateSlots::r * L));
      z.store(gates + GateSlots::z * L);
      r.store(gates + GateSlots::r * L);
    }
    if (tile.tape == nullptr) {
      reset_after_states(tile, [](Index, V, V, V, V) {});
    } else if (tile.stream) {
      reset_after_states(tile, [&](Index row, V n, V z, V r, V q) {
        T* const tape = tile.tape + row * tile.gates_row;
        n.stream(tape + GateSlots::n * L);
        z.stream(tape + GateSlots::z * L);
        r.stream(tape + GateSlots::r * L);
        q.stream(tape + GateSlots::q * L);
      });
    } else {
      reset_after_states(tile, [&](Index row, V n, V z, V r, V q) {
        T* const tape = tile.tape + row * tile.gates_row;
        n.store(tape + GateSlots::n * L);
        z.store(tape + GateSlots::z * L);
        r.store(tape + GateSlots::r * L);
        q.store(tape + GateSlots::q * L);
      });
    }
  }
  template <class Keep>
  static FASTGRU_INLINE void reset_after_states(const ForwardTile<T>& tile, Keep&& keep) {
    const T* gates = tile.gates;
    for (Index row = 0; row < tile.rows; ++row, gates += tile.gates_row) {
      const V z = V::load(gates + GateSlots::z * L), r = V::load(gates + GateSlots::r * L);
      const V q = V::load(gates + GateSlots::q * L);
      const V n = Act::apply(fma(r, q, V::load(gates + GateSlots::n * L)));
      interpolate(z, V::load(tile.h + row * tile.h_row), n).store(tile.h_next + row * tile.h_row);
      keep(row, n, z, r, q);
    }
  }

  // reset_after=false takes two stages, with the product (r * h) Un between them.
  static void reset_before_gates(const ForwardTile<T>& tile) {
    T* gates = tile.gates;
    for (Index row = 0; row < tile.rows; ++row, gates += tile.gates_row) {
      const V z = Rec::apply(V::load(gates + GateSlots::z * L));
      const V r = Rec::apply(V::load(gates + GateSlots::r * L));
      (r * V::load(tile.n_h + row * tile.n_h_row)).store(tile.reset_h + row * tile.h_row);
      z.store(gates + GateSlots::z * L);
      r.store(gates + GateSlots::r * L);
    }
  }
  static void reset_before_state(const ForwardTile<T>& tile) {
    T* gates = tile.gates;
    for (Index row = 0; row < tile.rows; ++row, gates += tile.gates_row) {
      const V z = V::load(gates + GateSlots::z * L);
      const V n = Act::apply(V::load(gates + GateSlots::n * L));
      const V h = V::load(tile.h + row * tile.h_row);
      interpolate(z, h, n).store(tile.h_next + row * tile.h_row);
      n.store(gates + GateSlots::n * L);
    }
  }
};

// d_x is the gradient of the loss with respect to x; here d_z, d_r, d_n, d_q are those of the pre-activations.
template <class T>
struct BackwardTile {
  const T* gates;  // in: n, z, r, q from the tape
  Index gates_row;
  const T* h;  // in: states before the step, from the tape
  Index h_row;
  T* d_gates;  // out: d_n, d_z, d_r, d_q in the same slots
  T* d_h;      // in: gradient of the states after the step; out: the part of d_h before it that is d_h * z
  Index d_h_row;
  const T* d_reset_h;  // in, reset_after=false, second stage only: gradient of r * h, times m_n; rows d_h_row apart
  Index rows;
};

template <class T, class Act, class Rec>
struct BackwardCell {
  using V = Vec<T>;
  static constexpr Index L = V::lanes;

  //  h' = z h + (1 - z) n:   d_z = d_h' (h - n) z',   d_n = d_h' (1 - z) n',   d_h = d_h' z
  struct Blend {
    V d_z, d_n, d_h;
    FASTGRU_INLINE Blend(V d_h_next, V z, V n, V h)
        : d_z(d_h_next * (h - n) * Rec::derivative(z)),
          d_n((d_h_next - d_h_next * z) * Act::derivative(n)),
          d_h(d_h_next * z) {}
  };

  static void reset_after(const BackwardTile<T>& tile) {
    const T* gates = tile.gates;
    T* d_gates = tile.d_gates;
    for (Index row = 0; row < tile.rows; ++row, gates += tile.gates_row, d_gates += tile.gates_row) {
      const V n = V::load(gates + GateSlots::n * L), z = V::load(gates + GateSlots::z * L);
      const V r = V::load(gates + GateSlots::r * L), q = V::load(gates + GateSlots::q * L);
      T* const d_h = tile.d_h + row * tile.d_h_row;
      const Blend d(V::load(d_h), z, n, V::load(tile.h + row * tile.h_row));
      d.d_h.store(d_h);
      d.d_n.store(d_gates + GateSlots::n * L);
      d.d_z.store(d_gates + GateSlots::z * L);
      (d.d_n * q * Rec::derivative(r)).store(d_gates + GateSlots::r * L);  // n depends on r * q
      (d.d_n * r).store(d_gates + GateSlots::q * L);
    }
  }

  // Two stages: the gradient of r depends on the gradient of r * h, which is the product (m_n *) d_n Un^T.
  static void reset_before_candidate(const BackwardTile<T>& tile) {
    const T* gates = tile.gates;
    T* d_gates = tile.d_gates;
    for (Index row = 0; row < tile.rows; ++row, gates += tile.gates_row, d_gates += tile.gates_row) {
      T* const d_h = tile.d_h + row * tile.d_h_row;
      const Blend d(V::load(d_h), V::load(gates + GateSlots::z * L), V::load(gates + GateSlots::n * L),
                    V::load(tile.h + row * tile.h_row));
      d.d_h.store(d_h);
      d.d_n.store(d_gates + GateSlots::n * L);
      d.d_z.store(d_gates + GateSlots::z * L);
    }
  }
  static void reset_before_reset(const BackwardTile<T>& tile) {
    const T* gates = tile.gates;
    T* d_gates = tile.d_gates;
    for (Index row = 0; row < tile.rows; ++row, gates += tile.gates_row, d_gates += tile.gates_row) {
      const V r = V::load(gates + GateSlots::r * L);
      const V d_reset_h = V::load(tile.d_reset_h + row * tile.d_h_row);
      T* const d_h = tile.d_h + row * tile.d_h_row;
      fma(d_reset_h, r, V::load(d_h)).store(d_h);
      (d_reset_h * V::load(tile.h + row * tile.h_row) * Rec::derivative(r)).store(d_gates + GateSlots::r * L);
    }
  }
};

// f(Cell<T, Act, Rec>{}) for the activations in `options`.
template <template <class, class, class> class Cell, class T, class F>
auto with_cell(const GruOptions& options, F&& f) {
  return Activations<T>::visit(options.activation, [&](auto act) {
    return RecurrentActivations<T>::visit(options.recurrent_activation,
                                          [&](auto rec) { return f(Cell<T, decltype(act), decltype(rec)>{}); });
  });
}

}  // namespace fastgru
