// GRU forward over a batch of sequences; gru.hpp has the equations.
//
//   in    x (N, T, F), initial_state (N, H) or null for zeros, parameters
//   out   outputs (N, T, H) or null: h after each step; last_state (N, H) or null
//   tape  or null: everything that gru_backward needs; without a tape the memory does not grow with T
//
// With lengths, a sequence's last state is the state after its last step, or the initial state if it has no steps. x is
// not read after the end of a sequence. Recurrent masks multiply the state in the products of the gates only; z * h,
// the outputs and the last state are not masked.
//
// No arrays may overlap. T = 0 gives the initial state; N = 0 is a no-op. A row's results depend on that row alone:
// they are bit-identical for any batch, tile and number of threads. 2 N T 3H (F + H) flops in products. Memory comes
// from the workspace only. After a cancelled call (see Cancellation) the outputs are unspecified.
#pragma once

#include "kernels/gru_tape.hpp"
#include "kernels/gru_weights.hpp"
#include "runtime/parallel.hpp"
#include "runtime/workspace.hpp"

namespace fastgru {

// T is the type of the arithmetic, Element the storage type of packed weights.
template <class T, class Element = T>
struct GruForwardArguments {
  GruShape shape;
  GruOptions options;
  GruParameters<T> parameters;
  // Packed weights of the same units, features and `reset_after` (otherwise std::invalid_argument). Null: this call
  // packs `parameters`.
  const ForwardWeights<T, Element>* packed = nullptr;
  Sequences<const T> x;
  SequenceMap sequences;             // steps as in shape
  const T* initial_state = nullptr;  // C-contiguous
  RecurrentMasks<T> recurrent_masks;
  Sequences<T> outputs;
  bool repeat_last_output = false;  // after the end of a sequence; otherwise zeros
  T* last_state = nullptr;          // C-contiguous
  GruTape<T> tape;                  // both pointers or neither
};

template <class T, class Element>
void gru_forward(const GruForwardArguments<T, Element>& arguments, Workspace& workspace, Cancellation* cancellation);

}  // namespace fastgru
