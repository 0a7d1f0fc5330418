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
// Parameters lie as in Keras: kernel (F, 3H), recurrent_kernel (H, 3H), biases (3H), gates in the order z, r, n.
#pragma once

#include "runtime/parallel.hpp"
#include "simd/packet.hpp"

namespace fastgru {

enum class Activation { tanh, relu, linear };
enum class RecurrentActivation { sigmoid, hard_sigmoid, hard_sigmoid_tfjs };

struct GruShape {
  Index batch, steps, features, units;
};

struct GruOptions {
  Activation activation = Activation::tanh;
  RecurrentActivation recurrent_activation = RecurrentActivation::sigmoid;
  bool reset_after = true;
};

// C-contiguous; a null bias is zero.
template <class T>
struct GruParameters {
  const T* kernel;            // (F, 3H)
  const T* recurrent_kernel;  // (H, 3H)
  const T* bias;              // (3H) or null
  const T* recurrent_bias;    // (3H) or null
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

// How a batch is cut into groups of rows that go through time together, by its shape alone: the order in which the
// gradients of the weights are summed follows from it, so the threads may not matter.
//
// Small weights: a power of two of `parts`, each of whose groups one thread takes through time by itself; their
// gradients are summed apart and then added in order. Nothing but those sums passes between threads.
// Large weights: one part, whose rows or units the threads share step by step.
class BatchPlan {
 public:
  static constexpr Index kRowsTogether = 64;         // more would push the states out of the L2 cache
  static constexpr Index kSharedRowsTogether = 256;  // of large weights, loading which is what costs
  static constexpr std::size_t kSmallWeights = std::size_t{512} << 10;

  template <class T>
  static BatchPlan of(const GruShape& s) {
    const double bytes = 3.0 * static_cast<double>(s.units) * static_cast<double>(s.features + s.units) * sizeof(T);
    if (bytes > kSmallWeights) return BatchPlan(s.batch, 1, kSharedRowsTogether);
    const Index parts = s.batch >= 512 ? 16 : s.batch >= 128 ? 8 : s.batch >= 32 ? 4 : s.batch >= 8 ? 2 : 1;
    return BatchPlan(s.batch, parts, kRowsTogether);
  }

  // Whether up to `threads` of them split each step by units, of which there are `blocks` registers: with large
  // weights and few rows it is better that each thread loads a part of the weights than all of them.
  bool by_units(Index threads, Index blocks) const {
    constexpr Index kRowsWorthAllWeights = 64;
    return threads > 1 && !small_weights() && batch_ < threads * kRowsWorthAllWeights && blocks >= 2 * threads;
  }

  // Whether a thread takes its parts through time by itself.
  bool small_weights() const { return most_rows_ == kRowsTogether; }
  Index parts() const { return parts_; }
  Index groups_in_part() const { return groups_in_part_; }
  // Rows of a group: [begin, end) of the batch.
  Range rows(Index part, Index group) const {
    const Range all = split(batch_, part, parts_), own = split(all.size(), group, groups_in_part_);
    return {all.begin + own.begin, all.begin + own.end};
  }
  Index largest_group() const { return largest_group_; }

 private:
  BatchPlan(Index batch, Index parts, Index most_rows) : batch_(batch), parts_(parts), most_rows_(most_rows) {
    const Index part = (batch + parts - 1) / parts;
    groups_in_part_ = (part + most_rows - 1) / most_rows;
    largest_group_ = (part + groups_in_part_ - 1) / groups_in_part_;
  }

  Index batch_, parts_, most_rows_, groups_in_part_, largest_group_;
};

// What forward leaves for backward: the activated gates and the states; padded lanes hold anything. Each group of rows
// of the plan has its own piece, so that threads do not write side by side:
//     gates  [T][block][row][G][L]       n, z, r and (reset_after) q after their activations
//     states [T + 1][row][state_stride]  h before step t; states[0] is the initial state
template <class T>
struct GruTape {
  T* gates = nullptr;
  T* states = nullptr;

  // Whether it is too large to wait in the caches for backward: then it is written past them.
  static bool outgrows_caches(const GruShape& s, const UnitBlocks<T>& b) {
    constexpr Index kCached = Index{16} << 20;
    return gates_size(s, b) > kCached / static_cast<Index>(sizeof(T));
  }

  // The piece of the group that begins at `row`.
  GruTape piece(Index row, const GruShape& s, const UnitBlocks<T>& b) const {
    return {gates + row * s.steps * b.count * b.gates_row, states + row * (s.steps + 1) * b.state_stride};
  }

  static Index gates_size(const GruShape& s, const UnitBlocks<T>& b) {
    return s.steps * b.count * s.batch * b.gates_row;
  }
  static Index states_size(const GruShape& s, const UnitBlocks<T>& b) {
    return (s.steps + 1) * s.batch * b.state_stride;
  }
};

}  // namespace fastgru
