// Register-blocked matrix multiplication: the only place that knows tiles.
//
// Lanes are columns. A tile of R rows x V packets of C lives in registers while the depth k runs once, in
// order:
//
//         V packets of B(k, :)           C(r, :) += A(r, k) * B(k, :)
//        [ b0 | b1 | b2 ]                one broadcast of A, V fused multiply-adds
//   a0 > [    |    |    ]
//   ..                                   Every element of C is one chain of additions over k, whatever the
//   a7 > [    |    |    ]                tile it falls into: a row's result depends on no other row.
//
// R = 8, V = 3 needs 24 accumulators, 3 packets of B and a broadcast: 28 of the 32 registers of AVX-512 and
// NEON. With 16 registers (AVX2, SSE2), R = 4.
#pragma once

#include <type_traits>

#include "simd/packet.hpp"

namespace fastgru {

inline constexpr int kTileRows = kVectorRegisters == 32 ? 8 : 4;
inline constexpr int kTilePackets = 3;

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

// f(first, count) for `rows` cut into tiles of at most kTileRows, as even as they can be: 10 rows are 5 + 5, not
// 8 + 2, because a tile's speed falls with its rows.
template <class F>
FASTGRU_INLINE void for_each_tile(Index rows, F&& f) {
  const Index tiles = (rows + kTileRows - 1) / kTileRows;
  for (Index tile = 0; tile < tiles; ++tile) {
    const Index begin = rows * tile / tiles, end = rows * (tile + 1) / tiles;
    f(begin, end - begin);
  }
}

// --- The ways A can lie in memory -------------------------------------------------------------------------

// A(r, k) = data[r * stride + k]: activations of a batch, a row each.
template <class T>
struct RowMajor {
  const T* data;
  Index stride;
  FASTGRU_INLINE T operator()(Index r, Index k) const { return data[r * stride + k]; }
};

// A(r, k) = data[k * kTileRows + r]: one tile of a matrix stored by depth; see pack_tiles.
template <class T>
struct TileMajor {
  const T* data;
  FASTGRU_INLINE T operator()(Index r, Index k) const { return data[k * kTileRows + r]; }
};

// An A for each packet v of B, side by side within a piece of `Piece` depths, so that an element's offset from its row
// is a constant: A_v(r, k) = data[r * stride + v * Piece + k] for k < Piece. Pieces follow each other in a row.
template <class T, int Piece>
struct RowMajorOfEach {
  const T* data;
  Index stride;
  FASTGRU_INLINE T operator()(Index r, Index k, Index v) const { return data[r * stride + v * Piece + k]; }
};

// A TileMajor for each of V packets, by depth and then by packet: A_v(r, k) = data[(k * V + v) * kTileRows + r].
template <class T, int V>
struct TileMajorOfEach {
  const T* data;
  FASTGRU_INLINE T operator()(Index r, Index k, Index v) const { return data[(k * V + v) * kTileRows + r]; }
};

// acc += A B with B(k, v) at b[k * b_stride + v * lanes]; each packet of B with its own A, if there is one for each.
template <int R, int V, class T, class A>
FASTGRU_INLINE void multiply_add(Vec<T> (&acc)[R][V], A a, const T* b, Index b_stride, Index depth) {
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

// --- B packed for multiply_add ----------------------------------------------------------------------------

// A depth x columns matrix as panels of at most kTilePackets packets of columns, each panel contiguous:
// panel[k][packet][lane], the last packet filled with zeros. The memory is the caller's.
template <class T>
class PackedMatrix {
 public:
  static constexpr int L = Vec<T>::lanes;

  static Index size(Index depth, Index columns) { return depth * round_up_to_lanes<T>(columns); }

  PackedMatrix() = default;
  PackedMatrix(T* memory, Index depth, Index columns)
      : data_(memory), depth_(depth), columns_(columns), packets_(round_up_to_lanes<T>(columns) / L) {}

  struct Panel {
    T* data;
    Index first_column;
    int packets;
  };
  Index panels() const { return (packets_ + kTilePackets - 1) / kTilePackets; }
  Panel panel(Index p) const {
    const Index begin = packets_ * p / panels(), end = packets_ * (p + 1) / panels();
    return {data_ + begin * L * depth_, begin * L, static_cast<int>(end - begin)};
  }
  Index depth() const { return depth_; }
  Index columns() const { return columns_; }

  // Fills panel p with B(k, c) = from[k * k_stride + c * c_stride].
  void pack(Index p, const T* from, Index k_stride, Index c_stride) const {
    pack_rows(p, 0, depth_, from, k_stride, c_stride);
  }
  // The same for the depths [k0, k0 + count) alone; `from` points at B(k0, 0).
  void pack_rows(Index p, Index k0, Index count, const T* from, Index k_stride, Index c_stride) const {
    const Panel to = panel(p);
    const Index width = to.packets * L;
    const Index used = columns_ - to.first_column < width ? columns_ - to.first_column : width;
    T* const base = to.data + k0 * width;
    for (Index c = used; c < width; ++c) {
      for (Index k = 0; k < count; ++k) base[k * width + c] = T(0);
    }
    const T* source = from + to.first_column * c_stride;
    if (c_stride == 1) {
      for (Index k = 0; k < count; ++k) {
        for (Index c = 0; c < used; c += L) {
          Vec<T>::load_first(source + k * k_stride + c, used - c).store(base + k * width + c);
        }
      }
    } else {
      for (Index c = 0; c < used; ++c) {
        for (Index k = 0; k < count; ++k) base[k * width + c] = source[k * k_stride + c * c_stride];
      }
    }
  }
  void zero_rows(Index p, Index k0, Index count) const {
    const Panel to = panel(p);
    std::memset(static_cast<void*>(to.data + k0 * to.packets * L), 0,
                static_cast<std::size_t>(count * to.packets * L) * sizeof(T));
  }

 private:
  T* data_ = nullptr;
  Index depth_ = 0, columns_ = 0, packets_ = 0;
};

// Rows of A whose depth lies in equal, separate pieces: k = (segment, within). One piece is the ordinary case.
template <class T>
struct SegmentedRows {
  const T* data;
  Index row_stride;
  Index depth;
  Index segments = 1;
  Index segment_stride = 0;
};

// For `rows` rows and the columns of one panel: C(r, c) = init(r, c) + A B, a packet at a time.
// init(r, c) -> Vec<T> and sink(r, c, Vec<T>) get the row and the packet's first column.
template <class T, class Init, class Sink>
FASTGRU_INLINE void multiply_panel(const SegmentedRows<T>& a, Index rows, const typename PackedMatrix<T>::Panel& b,
                                   Init&& init, Sink&& sink) {
  constexpr Index L = Vec<T>::lanes;
  with_constant<kTilePackets>(b.packets, [&](auto packets) {
    constexpr int V = decltype(packets)::value;
    for_each_tile(rows, [&](Index first, Index count) {
      with_constant<kTileRows>(count, [&](auto tile_rows) {
        constexpr int R = decltype(tile_rows)::value;
        Vec<T> acc[R][V];
        for (int r = 0; r < R; ++r) {
          for (int v = 0; v < V; ++v) acc[r][v] = init(first + r, b.first_column + v * L);
        }
        const T* segment = a.data + first * a.row_stride;
        const T* weights = b.data;
        for (Index s = 0; s < a.segments; ++s) {
          multiply_add(acc, RowMajor<T>{segment, a.row_stride}, weights, V * L, a.depth);
          segment += a.segment_stride;
          weights += a.depth * V * L;
        }
        for (int r = 0; r < R; ++r) {
          for (int v = 0; v < V; ++v) sink(first + r, b.first_column + v * L, acc[r][v]);
        }
      });
    });
  });
}

// --- A stored by depth, for gradients of weights ----------------------------------------------------------

// Elements that `count` columns of `depth` rows need as tiles.
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

// The same for a row times `factors`.
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
