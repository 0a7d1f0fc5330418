// The cost model: how much work a call is, and how many threads it is worth.
//
// The unit of work is one multiply-add of a product, for one element; other operations count as the multiply-adds that
// take as long. These numbers decide who computes, never in which order terms are added: that follows from the shape
// alone (gru_schedule.hpp, and the chunks of gru_backward.cpp and dense.cpp).
#pragma once

#include <algorithm>

#include "runtime/parallel.hpp"
#include "simd/packet.hpp"

namespace fastgru::cost {

// A thread's share below this is not worth waking it: 7 us with AVX-512, 13 us with AVX2.
inline constexpr double kWorthAThread = 1 << 18;

inline constexpr double kSoftmaxElement = 64;    // an exponential; sums are added element by element
inline constexpr double kUpdatedRegister = 256;  // of an optimizer, a root and a division among others

inline double product(Index rows, Index depth, Index columns) {
  return static_cast<double>(rows) * static_cast<double>(depth) * static_cast<double>(columns);
}

// Threads for work that can be divided anywhere.
inline int threads_for(double work) {
  return std::max(1, static_cast<int>(std::min<double>(num_threads(), work / kWorthAThread)));
}
// Threads for a pass through time, which falls into so many parts: one step of the fewest rows is less work than
// kWorthAThread, but the steps follow each other on the same threads.
inline int threads_for_parts(Index parts) { return static_cast<int>(std::min<Index>(num_threads(), parts)); }

// The work as `parallel` takes it: in instructions on whole registers.
template <class T>
double operations(double work) {
  return work / Vec<T>::lanes;
}

// --- The GRU's rows: a register tile's speed falls with its rows, and each group of rows loads the weights --------

inline constexpr Index kRowsWorthAThread = 4;
inline constexpr Index kRowsWorthAPart = 8;              // of those that the threads' number decides
inline constexpr Index kRowsWorthAllWeights = 64;        // with large weights; with fewer a thread takes some units
inline constexpr Index kRowsTogether = 64;               // more would push the states out of the L2 cache
inline constexpr Index kRowsTogetherLargeWeights = 256;  // loading which is what costs
inline constexpr double kSmallWeights = 512 << 10;       // bytes

}  // namespace fastgru::cost
