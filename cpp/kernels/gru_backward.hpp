// GRU backward: gradients of a loss L, given its gradients for the outputs and/or the last state.
//
// d_a is the gradient for a. From d_h(T) = d_last_state back through time (elementwise part: gru_cell.hpp):
//
//     d_h(t)      += d_outputs(t)
//     d_z, d_r, d_n, d_q from d_h(t), the tape and h(t-1)
//     d_h(t-1)     = d_h(t) * z + [d_z d_r d_q] U^T          d_initial_state = d_h(0)
//     d_x(t)       = [d_n d_z d_r] W^T                       where wanted
//     d_kernel    += x(t)^T [d_z d_r d_n]                    d_bias           += [d_z d_r d_n]
//     d_recurrent += h(t-1)^T [d_z d_r d_q]                  d_recurrent_bias += [d_z d_r d_q]
//
// With reset_after=false, d_q = d_n, and n's columns of d_recurrent get (r * h(t-1))^T d_n.
//
// With recurrent masks each gate has its own product, and the weight gradients use the masked states of forward:
//
//     d_h(t-1)     = d_h(t) * z + m_z * (d_z Uz^T) + m_r * (d_r Ur^T) + m_n * (d_q Un^T)
//     d_recurrent += [(m_z * h)^T d_z   (m_r * h)^T d_r   (m_n * h)^T d_q]
//     d_(r * h)    = m_n * (d_n Un^T)   and (m_n * r * h)^T d_n        with reset_after=false
//
// Each sequence starts at its own end. If the last output is repeated after the end, the gradients for the repeated
// outputs are added to the last output's. There d_x is zero.
//
// Every output is overwritten, also if N or T is 0 (then with zeros; d_initial_state = d_last_state). No output may
// overlap another output or an input. Terms of a weight's gradient are added in an order that depends on the shape
// alone, never on the threads: parts and groups of rows, chunks of steps, steps, rows. 2 N T 3H (F + 2H) flops, and
// 2 N T 3H F more for d_x.
// Memory comes from the workspace only: one chunk per thread, and one copy of the weight gradients for each part of the
// batch except the first (PyTorch's layout: for each part; large weights have one part). It does not grow with T.
#pragma once

#include "kernels/gru_gradients.hpp"
#include "kernels/gru_tape.hpp"
#include "runtime/parallel.hpp"
#include "runtime/workspace.hpp"

namespace fastgru {

template <class T>
struct GruBackwardArguments {
  GruShape shape;
  GruOptions options;
  GruParameters<T> parameters;  // as in forward; the biases are not read
  Sequences<const T> x;         // this and the next four: as in forward
  SequenceMap sequences;
  RecurrentMasks<T> recurrent_masks;
  bool repeat_last_output = false;
  GruTape<T> tape;                  // from forward; not changed
  Sequences<const T> d_outputs;     // (N, T, H) or null
  const T* d_last_state = nullptr;  // (N, H) or null

  Sequences<T> d_x;              // (N, T, F) or null
  T* d_initial_state = nullptr;  // (N, H) or null
  WeightGradients<T> d_weights;  // in the layout of the weights
};

template <class T>
void gru_backward(const GruBackwardArguments<T>& arguments, Workspace& workspace, Cancellation* cancellation);

}  // namespace fastgru
