// The cost model: estimates the work of a call and the number of threads for it.
//
// The unit of work is one multiply-add of a product, for one element. Other operations count as the multiply-adds that
// take as long. These numbers decide which thread computes an element. The order of summation follows from the shape
// alone (gru_schedule.hpp, and the chunks of gru_backward.cpp and dense.cpp).
#pragma once

#include <algorithm>

#include "runtime/parallel.hpp"
#include "simd/packet.hpp"

namespace fastgru::cost {

// The least work for which another thread is used: 7 us with AVX-512, 13 us with AVX2.
inline constexpr double kWorthAThread = 1 << 18;

inline constexpr double kSoftmaxElement = 64;    // an exponential; sums are added element by element
inline constexpr double kUpdatedRegister = 256;  // of an optimizer: includes a root and a division

inline double product(Index rows, Index depth, Index columns) {
  return static_cast<double>(rows) * static_cast<double>(depth) * static_cast<double>(columns);
}

// Threads for work that can be split anywhere.
inline int threads_for(double work) {
  return std::max(1, static_cast<int>(std::min<double>(num_threads(), work / kWorthAThread)));
}
// Threads for a pass over all time steps that is split into `parts`. One step of a small part is less work than
// kWorthAThread, but all steps run on the same threads.
inline int threads_for_parts(Index parts) { return static_cast<int>(std::min<Index>(num_threads(), parts)); }

// `work` in SIMD instructions, the unit that `parallel` expects.
template <class T>
double operations(double work) {
  return work / Vec<T>::lanes;
}

// --- The GRU's rows: tiles with fewer rows are slower, and each group of rows loads the weights again -------------

inline constexpr Index kRowsWorthAThread = 4;
inline constexpr Index kRowsWorthAPart = 8;              // if the number of threads decides the number of parts
inline constexpr Index kRowsWorthAllWeights = 64;        // for large weights; with fewer, threads split the units
inline constexpr Index kRowsTogether = 64;               // more rows would evict the states from the L2 cache
inline constexpr Index kRowsTogetherLargeWeights = 256;  // loading the weights dominates
inline constexpr double kSmallWeights = 512 << 10;       // bytes

}  // namespace fastgru::cost
