// The tape between forward and backward.
//
// It keeps the activated gates and the states; padded lanes hold anything. Each group of rows (gru_schedule.hpp) has
// memory of its own within both arrays, so that threads do not write side by side:
//
//     gates  [T][block][row][G][L]       n, z, r and (reset_after) q after their activations
//     states [T + 1][row][state_stride]  h before step t; states[0] is the initial state
//
// Where sequences differ in length, a step has only the rows that are at work in it.
#pragma once

#include "kernels/gru_schedule.hpp"

namespace fastgru {

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
};

// A group's gates and states: what the tape has of them, or scratch, in which the steps of a pass without a tape take
// turns: two steps of states, one of gates.
template <class T>
class TapeView {
 public:
  TapeView(const GruTape<T>& tape, const RowGroup& group, const UnitBlocks<T>& blocks)
      : group_(group),
        blocks_(blocks),
        taped_(true),
        gates_(tape.gates + group.pairs_before * blocks.count * blocks.gates_row),
        states_(tape.states + (group.pairs_before + group.first) * blocks.state_stride) {}
  TapeView(T* gates, T* states, const RowGroup& group, const UnitBlocks<T>& blocks)
      : group_(group), blocks_(blocks), taped_(false), gates_(gates), states_(states) {}

  // Rows lie gates_row apart.
  T* gates(Index step, Index block, Index row) const {
    const Index before = taped_ ? group_.offset(step) * blocks_.count + block * group_.at_work(step)  //
                                : block * group_.rows;
    return gates_ + (before + row) * blocks_.gates_row;
  }
  // Those before the step; rows lie state_stride apart.
  T* states(Index step, Index row) const {
    const Index before = taped_ ? group_.state_offset(step) : step % 2 * group_.rows;
    return states_ + (before + row) * blocks_.state_stride;
  }

 private:
  const RowGroup& group_;
  const UnitBlocks<T>& blocks_;
  const bool taped_;
  T* const gates_;
  T* const states_;
};

}  // namespace fastgru
