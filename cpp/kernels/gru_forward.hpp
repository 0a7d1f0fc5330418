// GRU forward over a batch of sequences; the equations stand in gru.hpp.
//
//   in    x (N, T, F), initial_state (N, H) or null for zeros, parameters
//   out   outputs (N, T, H) where wanted: h after each step; last_state (N, H) where wanted
//   tape  where given, everything gru_backward needs; without it the memory does not grow with T
//
// Where lengths are given, a sequence's state is that after its last step, the initial one if it has none, and nothing
// of x behind its end is read. Recurrent masks multiply the state in the gates' products only; z * h, the outputs and
// the last state are not masked.
//
// Nothing overlaps. T = 0 gives the initial state, N = 0 nothing. A row's results depend on that row alone and are
// the same bits whatever the batch, the tile or the number of threads. 2 N T 3H (F + H) flops in products; memory is
// taken from the workspace only. Interrupted (see Cancellation), the outputs are unspecified.
#pragma once

#include "kernels/gru_tape.hpp"
#include "kernels/gru_weights.hpp"
#include "runtime/parallel.hpp"
#include "runtime/workspace.hpp"

namespace fastgru {

// T is the type of arithmetic, Element the one that packed weights are stored in.
template <class T, class Element = T>
struct GruForwardArguments {
  GruShape shape;
  GruOptions options;
  GruParameters<T> parameters;
  // Weights packed before, for the same units, features and `reset_after` (else std::invalid_argument); or null:
  // `parameters` are packed in this call.
  const ForwardWeights<T, Element>* packed = nullptr;
  Sequences<const T> x;
  SequenceMap sequences;             // steps as in shape
  const T* initial_state = nullptr;  // C-contiguous
  RecurrentMasks<T> recurrent_masks;
  Sequences<T> outputs;
  bool repeat_last_output = false;  // behind the end of a sequence; else zeros
  T* last_state = nullptr;          // C-contiguous
  GruTape<T> tape;                  // both pointers or neither
};

template <class T, class Element>
void gru_forward(const GruForwardArguments<T, Element>& arguments, Workspace& workspace, Cancellation* cancellation);

}  // namespace fastgru
