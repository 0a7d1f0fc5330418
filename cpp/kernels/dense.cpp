#include "kernels/dense.hpp"

#include <algorithm>

#include "kernels/cost.hpp"
#include "runtime/parallel.hpp"

namespace fastgru {
namespace {

// Rows that are summed in registers before a weight gradient is written. Determines the order of summation.
constexpr Index kChunkRows = 256;

double work(const DenseShape& s) { return cost::product(s.rows, s.features, s.columns); }

// `rows` rows of c = a B + bias.
template <class T>
void multiply_rows(const T* a, const Packed<T>& b, const T* bias, T* c, Index rows) {
  using V = Vec<T>;
  const Index columns = b.columns();
  for (Index p = 0; p < b.panels(); ++p) {
    multiply_panel<T>(
        BlockedRows<T>{a, b.depth(), b.depth()}, rows, b.panel(p),
        [&](Index, Index column) { return bias == nullptr ? V(T(0)) : V::load_first(bias + column, columns - column); },
        [&](Index row, Index column, V sum) { sum.store_first(c + row * columns + column, columns - column); });
  }
}

// f(index among the M rows, index among the N rows, count) for each contiguous run of rows in `share`.
template <class F>
void for_each_run(const Index* which, Range share, F&& f) {
  if (which == nullptr) return f(share.begin, share.begin, share.size());
  for (Index begin = share.begin, end = begin; begin < share.end; begin = end) {
    while (++end < share.end && which[end] == which[end - 1] + 1) {
    }
    f(begin, which[begin], end - begin);
  }
}

// Sets the unselected rows of d_x to zero: those before and between the rows of `share`, and those after row M - 1.
template <class T>
void clear_other_rows(const DenseShape& s, Range share, T* d_x) {
  if (s.which == nullptr) return;
  const auto clear = [&](Index from, Index to) { std::fill(d_x + from * s.features, d_x + to * s.features, T(0)); };
  for (Index row = share.begin; row < share.end; ++row) {
    clear(row == 0 ? 0 : s.which[row - 1] + 1, s.which[row]);
    if (row == s.rows - 1) clear(s.which[row] + 1, s.all_rows);
  }
}

// Tile `tile` of d_kernel's rows and panel p of its columns: (+)= x^T d_y over one chunk.
template <class T>
void add_product(const T* x_tiles, Index tile, const DenseShape& s, const Panel<T>& d_y, Index depth, T* d_kernel,
                 bool overwrite) {
  using V = Vec<T>;
  const Index first_row = tile * kTileRows;
  with_constant<kPanelRegisters>(d_y.registers, [&](auto registers) {
    with_constant<kTileRows>(std::min<Index>(kTileRows, s.features - first_row), [&](auto tile_rows) {
      constexpr int R = decltype(tile_rows)::value, P = decltype(registers)::value;
      V acc[R][P];
      for (int r = 0; r < R; ++r) {
        for (int v = 0; v < P; ++v) acc[r][v] = V(T(0));
      }
      multiply_add(acc, TileMajor<T>{x_tiles + tile * depth * kTileRows}, d_y.data, P * V::lanes, depth);
      for (int r = 0; r < R; ++r) {
        for (int v = 0; v < P; ++v) {
          const Index column = d_y.first_column + v * V::lanes, count = s.columns - column;
          T* to = d_kernel + (first_row + r) * s.columns + column;
          (overwrite ? acc[r][v] : V::load_first(to, count) + acc[r][v]).store_first(to, count);
        }
      }
    });
  });
}

template <class T>
void add_bias_gradient(const Packed<T>& d_y, T* d_bias, bool overwrite) {
  using V = Vec<T>;
  for (Index p = 0; p < d_y.panels(); ++p) {
    const auto panel = d_y.panel(p);
    const Index width = panel.registers * V::lanes;
    for (Index within = 0; within < width; within += V::lanes) {
      const Index column = panel.first_column + within, count = d_y.columns() - column;
      V sum = overwrite ? V(T(0)) : V::load_first(d_bias + column, count);
      for (Index row = 0; row < d_y.depth(); ++row) sum = sum + V::load(panel.data + row * width + within);
      sum.store_first(d_bias + column, count);
    }
  }
}

}  // namespace

template <class T>
void dense_forward(const DenseShape& s, const T* x, const T* kernel, const T* bias, T* y, Workspace& workspace) {
  if (s.rows == 0 || s.columns == 0) return;
  Packed<T> packed(workspace, s.features, s.columns);
  for (Index p = 0; p < packed.panels(); ++p) packed.pack(p, kernel, s.columns, 1);
  parallel(cost::threads_for(work(s)), cost::operations<T>(work(s)), nullptr, [&](Team& team) noexcept {
    for_each_run(s.which, team.share(s.rows), [&](Index row, Index from, Index count) {
      multiply_rows(x + from * s.features, packed, bias, y + row * s.columns, count);
    });
  });
}

template <class T>
void dense_backward(const DenseBackwardArguments<T>& a, Workspace& workspace) {
  const DenseShape& s = a.shape;
  const Index depth_taken = std::min(kChunkRows, s.rows);
  T* const x_tiles = workspace.take<T>(tiles_size<T>(depth_taken, s.features));
  T* const d_y_memory = workspace.take<T>(Packed<T>::size(depth_taken, s.columns));
  Packed<T> transposed;
  if (a.d_x != nullptr) {
    transposed = Packed<T>(workspace, s.columns, s.features);
    for (Index p = 0; p < transposed.panels(); ++p) transposed.pack(p, a.kernel, 1, s.columns);
  }
  if (s.rows == 0) {
    std::fill_n(a.d_kernel, s.features * s.columns, T(0));
    if (a.d_bias != nullptr) std::fill_n(a.d_bias, s.columns, T(0));
    if (a.d_x != nullptr) std::fill_n(a.d_x, s.all_rows * s.features, T(0));
    return;
  }
  const Index tiles = (s.features + kTileRows - 1) / kTileRows;
  parallel(cost::threads_for(work(s)), cost::operations<T>(work(s)), nullptr, [&](Team& team) noexcept {
    if (a.d_x != nullptr) {
      clear_other_rows(s, team.share(s.rows), a.d_x);
      for_each_run(s.which, team.share(s.rows), [&](Index row, Index to, Index count) {
        multiply_rows<T>(a.d_y + row * s.columns, transposed, nullptr, a.d_x + to * s.features, count);
      });
    }
    for (Index first = 0; first < s.rows; first += kChunkRows) {
      const Index depth = std::min(kChunkRows, s.rows - first);
      Packed<T> d_y(d_y_memory, depth, s.columns);
      const Range panels = team.share(d_y.panels());
      for (Index p = panels.begin; p < panels.end; ++p) d_y.pack(p, a.d_y + first * s.columns, s.columns, 1);
      const Range rows = team.share(depth);
      for (Index row = rows.begin; row < rows.end; ++row) {
        const Index from = s.which == nullptr ? first + row : s.which[first + row];
        pack_into_tiles(x_tiles, depth, row, a.x + from * s.features, s.features);
      }
      team.barrier();
      const Range items = team.share(d_y.panels() * tiles);
      for (Index item = items.begin; item < items.end; ++item) {
        add_product(x_tiles, item % tiles, s, d_y.panel(item / tiles), depth, a.d_kernel, first == 0);
      }
      if (team.index() == 0 && a.d_bias != nullptr) {
        add_bias_gradient(d_y, a.d_bias, first == 0);
      }
      team.barrier();
    }
  });
}

template void dense_forward(const DenseShape&, const float*, const float*, const float*, float*, Workspace&);
template void dense_forward(const DenseShape&, const double*, const double*, const double*, double*, Workspace&);
template void dense_backward(const DenseBackwardArguments<float>&, Workspace&);
template void dense_backward(const DenseBackwardArguments<double>&, Workspace&);

}  // namespace fastgru
