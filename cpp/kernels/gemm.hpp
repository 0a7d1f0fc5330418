// Register-blocked matrix multiplication: the only file that depends on the tile size.
//
// Lanes are columns. A tile of R rows x V registers of C stays in registers while k runs over the depth once, in
// ascending order:
//
//         V registers of B(k, :)         C(r, :) += A(r, k) * B(k, :)
//        [ b0 | b1 | b2 ]                one broadcast of A, V fused multiply-adds
//   a0 > [    |    |    ]
//   ..                                   Every element of C is one chain of additions over k in any tile:
//   a7 > [    |    |    ]                a row's result does not depend on other rows.
//
// R = 8, V = 3 needs 24 accumulators, 3 registers of B and a broadcast: 28 of the 32 registers of AVX-512 and
// NEON. With 16 registers (AVX2, SSE2), R = 4.
#pragma once

#include <type_traits>

#include "kernels/packed.hpp"
#include "runtime/parallel.hpp"
#include "simd/packet.hpp"

namespace fastgru {

inline constexpr int kTileRows = kVectorRegisters == 32 ? 8 : 4;

// f(std::integral_constant<int, n>) for a run-time n in [1, N].
template <int N, class F>
FASTGRU_INLINE void with_constant(Index n, F&& f) {
  if constexpr (N == 1) {
    f(std::integral_constant<int, 1>{});
  } else if (n == N) {
    f(std::integral_constant<int, N>{});
  } else {
    with_constant<N - 1>(n, f);
  }
}

// f(Range) for tiles of at most kTileRows of `rows`, of nearly equal size: 10 rows give 5 + 5, not 8 + 2, because tiles
// with fewer rows are slower.
template <class F>
FASTGRU_INLINE void for_each_tile(Range rows, F&& f) {
  const Index tiles = (rows.size() + kTileRows - 1) / kTileRows;
  for (Index tile = 0; tile < tiles; ++tile) {
    const Range within = split(rows.size(), tile, tiles);
    f(Range{rows.begin + within.begin, rows.begin + within.end});
  }
}

// --- Memory layouts of A ----------------------------------------------------------------------------------

// A(r, k) = data[r * stride + k]: activations of a batch, one row each.
template <class T>
struct RowMajor {
  const T* data;
  Index stride;
  FASTGRU_INLINE T operator()(Index r, Index k) const { return data[r * stride + k]; }
};

// A(r, k) = data[k * kTileRows + r]: one tile of a matrix whose depth is the slow axis; see pack_into_tiles.
template <class T>
struct TileMajor {
  const T* data;
  FASTGRU_INLINE T operator()(Index r, Index k) const { return data[k * kTileRows + r]; }
};

// One A for each register v of B, each `Count` elements behind the one before, a compile-time offset:
// A_v(r, k) = data[r * stride + v * Count + k] for k < Count.
template <class T, int Count>
struct RowMajorOfEach {
  const T* data;
  Index stride;
  FASTGRU_INLINE T operator()(Index r, Index k, Index v) const { return data[r * stride + v * Count + k]; }
};

// A TileMajor for each of V registers, ordered by depth, then register: A_v(r, k) = data[(k * V + v) * kTileRows + r].
template <class T, int V>
struct TileMajorOfEach {
  const T* data;
  FASTGRU_INLINE T operator()(Index r, Index k, Index v) const { return data[(k * V + v) * kTileRows + r]; }
};

// acc += A B with B(k, v) at b[k * b_stride + v * lanes]. If `a` takes a register index, each register of B has its own
// A. T is the type of the arithmetic, Element the storage type of B.
template <int R, int V, class T, class A, class Element>
FASTGRU_INLINE void multiply_add(Vec<T> (&acc)[R][V], A a, const Element* b, Index b_stride, Index depth) {
  for (Index k = 0; k < depth; ++k, b += b_stride) {
    Vec<T> row_of_b[V];
    for (int v = 0; v < V; ++v) row_of_b[v] = Vec<T>::load(b + v * Vec<T>::lanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      if constexpr (std::is_invocable_v<A, Index, Index>) {
        const Vec<T> scalar(a(r, k));
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[r][v] = fma(scalar, row_of_b[v], acc[r][v]);
      } else {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[r][v] = fma(Vec<T>(a(r, k, v)), row_of_b[v], acc[r][v]);
      }
    }
  }
}

// Rows of A whose depth is stored in equal blocks, `block_stride` elements apart: k = (block, within). The default is
// one block.
template <class T>
struct BlockedRows {
  const T* data;
  Index row_stride;
  Index depth;  // per block
  Index blocks = 1;
  Index block_stride = 0;
};

// C(r, c) = init(r, c) + A B for `rows` rows and the columns of one panel, a register at a time.
// init(r, c) -> Vec<T> and sink(r, c, Vec<T>) receive the row and the register's first column.
template <class T, class Element, class Init, class Sink>
FASTGRU_INLINE void multiply_panel(const BlockedRows<T>& a, Index rows, const Panel<Element>& b, Init&& init,
                                   Sink&& sink) {
  constexpr Index L = Vec<T>::lanes;
  with_constant<kPanelRegisters>(b.registers, [&](auto registers) {
    constexpr int V = decltype(registers)::value;
    for_each_tile({0, rows}, [&](Range tile) {
      const Index first = tile.begin;
      with_constant<kTileRows>(tile.size(), [&](auto tile_rows) {
        constexpr int R = decltype(tile_rows)::value;
        Vec<T> acc[R][V];
        // Always unrolled: otherwise GCC keeps `acc` in memory if the bodies of `init` and `sink` are long.
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) acc[r][v] = init(first + r, b.first_column + v * L);
        }
        const T* block = a.data + first * a.row_stride;
        const Element* weights = b.data;
        for (Index index = 0; index < a.blocks; ++index) {
          multiply_add(acc, RowMajor<T>{block, a.row_stride}, weights, V * L, a.depth);
          block += a.block_stride;
          weights += a.depth * V * L;
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) sink(first + r, b.first_column + v * L, acc[r][v]);
        }
      });
    });
  });
}

// --- A packed by depth, for weight gradients --------------------------------------------------------------

// Number of elements of the tiles for `count` columns of `depth` rows.
template <class T>
inline Index tiles_size(Index depth, Index count) {
  return (count + kTileRows - 1) / kTileRows * kTileRows * depth;
}

// Writes one row (one depth k) of a depth x count matrix into its tiles: tile[k][column within the tile].
template <class T>
FASTGRU_INLINE void pack_into_tiles(T* tiles, Index depth, Index k, const T* row, Index count) {
  T* to = tiles + k * kTileRows;
  Index c = 0;
  for (; c + kTileRows <= count; c += kTileRows, to += depth * kTileRows) {
    std::memcpy(to, row + c, kTileRows * sizeof(T));
  }
  for (; c < count; ++c) *to++ = row[c];
}

// The same, for a row multiplied by `factors`.
template <class T>
FASTGRU_INLINE void pack_into_tiles(T* tiles, Index depth, Index k, const T* row, const T* factors, Index count) {
  T* to = tiles + k * kTileRows;
  Index c = 0;
  for (; c + kTileRows <= count; c += kTileRows, to += depth * kTileRows) {
    for (int i = 0; i < kTileRows; ++i) to[i] = row[c + i] * factors[c + i];
  }
  for (; c < count; ++c) *to++ = row[c] * factors[c];
}

}  // namespace fastgru
