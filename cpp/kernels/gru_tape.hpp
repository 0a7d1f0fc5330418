// The tape between forward and backward.
//
// It stores the activated gates and the states; padded lanes are unspecified. Each group of rows (gru_schedule.hpp) has
// its own section of both arrays, so that threads do not write to the same cache lines:
//
//     gates  [T][block][row][G][L]       n, z, r and (reset_after) q after their activations
//     states [T + 1][row][state_stride]  h before step t; states[0] is the initial state
//
// With different lengths, each step has only its active rows.
#pragma once

#include "kernels/gru_schedule.hpp"

namespace fastgru {

template <class T>
struct GruTape {
  T* gates = nullptr;
  T* states = nullptr;

  // Sizes for a number of (row, step) pairs.
  static Index gates_size(Index pairs, const UnitBlocks<T>& b) {
    return checked_multiply(pairs, b.count * b.gates_row);
  }
  static Index states_size(Index pairs, Index rows, const UnitBlocks<T>& b) {
    return checked_multiply(pairs + rows, b.state_stride);
  }

  // Whether the tape is larger than the caches; it is then written with non-temporal stores.
  static bool outgrows_caches(Index pairs, const UnitBlocks<T>& b) {
    constexpr Index kCached = Index{16} << 20;
    return gates_size(pairs, b) > kCached / static_cast<Index>(sizeof(T));
  }
};

// The gates and states of a group: its section of the tape, or scratch in a pass without a tape. Scratch holds the
// states of two steps, used alternately, and the gates of one step.
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

  // Rows are gates_row elements apart.
  T* gates(Index step, Index block, Index row) const {
    const Index before = taped_ ? group_.offset(step) * blocks_.count + block * group_.active_rows(step)  //
                                : block * group_.rows;
    return gates_ + (before + row) * blocks_.gates_row;
  }
  // The states before the step; rows are state_stride elements apart.
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
