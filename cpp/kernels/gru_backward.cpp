#include "kernels/gru_backward.hpp"

#include <algorithm>

#include "kernels/gemm.hpp"
#include "kernels/gru_cell.hpp"
#include "kernels/gru_weights.hpp"

namespace fastgru {
namespace {

// Backward goes through time in chunks: all gate gradients of up to this many (row, step) pairs first, split by
// rows; then the products for the weights over the whole chunk, split by columns. At H = 64 a chunk's operands
// take 0.7 MB, which the second half finds in the L2 caches that the first half left it in.
constexpr Index kChunkDepth = 512;
// Rows that go through time together; those of a larger batch take turns. Both numbers fix the order of summation,
// so they may depend on the shape but not on the threads.
constexpr Index kRowsTogether = 256;

constexpr Index kRowsWorthAThread = 4;

template <class T>
struct CellFunctions {
  using Function = void (*)(const BackwardTile<T>&);
  Function reset_after, reset_before_candidate, reset_before_reset;

  template <class Cell>
  static CellFunctions of(Cell) {
    return {Cell::reset_after, Cell::reset_before_candidate, Cell::reset_before_reset};
  }
};

// What the two halves of a chunk share. `depth` counts (step, row) pairs, the row running fastest.
template <class T>
struct ChunkMemory {
  T* d_gates;  // [block][depth][G][L]
  T* x;        // tiles of (depth, F)
  T* h;        // tiles of (depth, H): states before the step
  T* reset_h;  // tiles of (depth, H): r * h, reset before only
};

template <class T>
class BackwardPass {
  using V = Vec<T>;
  static constexpr Index L = V::lanes;

 public:
  BackwardPass(const GruBackwardArguments<T>& arguments, Workspace& workspace)
      : a_(arguments),
        shape_(arguments.shape),
        reset_after_(arguments.options.reset_after),
        blocks_(shape_.units, reset_after_),
        cell_(with_cell<BackwardCell, T>(a_.options, [](auto cell) { return CellFunctions<T>::of(cell); })),
        recurrent_(shape_.units, shape_.units, GateSlots::z, reset_after_ ? 3 : 2, workspace),
        rows_together_(std::min(kRowsTogether, shape_.batch)),
        chunk_steps_(std::min(std::max(kChunkDepth / rows_together_, Index{1}), shape_.steps)) {
    if (!reset_after_) {
      candidate_ = TransposedWeights<T>(shape_.units, shape_.units, GateSlots::n, 1, workspace);
    }
    if (a_.d_x) kernel_ = TransposedWeights<T>(shape_.features, shape_.units, GateSlots::n, 3, workspace);
    const Index depth = chunk_steps_ * rows_together_;
    chunk_.d_gates = workspace.take<T>(checked_multiply(depth, blocks_.count * blocks_.gates_row));
    chunk_.x = workspace.take<T>(tiles_size<T>(depth, shape_.features));
    chunk_.h = workspace.take<T>(tiles_size<T>(depth, shape_.units));
    chunk_.reset_h = reset_after_ ? nullptr : workspace.take<T>(tiles_size<T>(depth, shape_.units));
    d_h_ = workspace.take<T>(rows_together_ * blocks_.state_stride);
    d_reset_h_ = reset_after_ ? nullptr : workspace.take<T>(rows_together_ * blocks_.state_stride);
  }

  void run(Team& team) {
    recurrent_.pack(a_.parameters.recurrent_kernel, team);
    if (!reset_after_) candidate_.pack(a_.parameters.recurrent_kernel, team);
    if (a_.d_x) kernel_.pack(a_.parameters.kernel, team);
    team.barrier();

    bool overwrite = true;  // the first chunk's sums; later ones add to them
    for (Index first = 0; first < shape_.batch; first += rows_together_) {
      const Index rows = std::min(rows_together_, shape_.batch - first);
      const Range own = team.share(rows);
      start(first, own);
      for (Index end = shape_.steps; end > 0; end -= std::min(end, chunk_steps_)) {
        const Index begin = std::max(end - chunk_steps_, Index{0});
        const Index depth = (end - begin) * rows;
        for (Index step = end; step-- > begin;) {
          if (own.size() > 0 && team.proceed()) back_one_step(first, own, step, (step - begin) * rows, depth);
        }
        team.barrier();  // the whole chunk's gate gradients are there
        if (team.proceed()) add_weight_gradients(depth, overwrite, team);
        overwrite = false;
        team.barrier();  // before the next chunk overwrites them
      }
      finish(first, own);
      team.barrier();  // the next rows are shared out otherwise, and use the same d_h_
    }
  }

 private:
  // The chunk's gate gradients of one block, from `at` (a depth) on.
  T* d_gates_at(Index block, Index at, Index depth) const {
    return chunk_.d_gates + (block * depth + at) * blocks_.gates_row;
  }

  void start(Index first, Range own) const {
    for (Index row = own.begin; row < own.end; ++row) {
      T* d_h = d_h_ + row * blocks_.state_stride;
      std::fill_n(d_h, blocks_.state_stride, T(0));
      if (a_.d_last_state != nullptr) {
        std::copy_n(a_.d_last_state + (first + row) * shape_.units, shape_.units, d_h);
      }
    }
  }

  void finish(Index first, Range own) const {
    if (a_.d_initial_state == nullptr) return;
    for (Index row = own.begin; row < own.end; ++row) {
      std::copy_n(d_h_ + row * blocks_.state_stride, shape_.units, a_.d_initial_state + (first + row) * shape_.units);
    }
  }

  // Rows `own` of the group that begins at `first`, one step: leaves d_h(t-1), and this step's part of the chunk
  // from depth `at` on.
  void back_one_step(Index first, Range own, Index step, Index at, Index depth) const {
    add_output_gradients(first, own, step);
    for_each_cell(first, own, step, at, depth, reset_after_ ? cell_.reset_after : cell_.reset_before_candidate);
    if (!reset_after_) {
      multiply_gates(candidate_, own, at, depth, d_reset_h_, false);
      for_each_cell(first, own, step, at, depth, cell_.reset_before_reset);
    }
    multiply_gates(recurrent_, own, at, depth, d_h_, true);
    if (a_.d_x) store_input_gradients(first, own, step, at, depth);
    keep_operands(first, own, step, at, depth);
  }

  void add_output_gradients(Index first, Range own, Index step) const {
    if (!a_.d_outputs) return;
    for (Index row = own.begin; row < own.end; ++row) {
      const T* d_output = a_.d_outputs.at(first + row, step);
      T* d_h = d_h_ + row * blocks_.state_stride;
      for (Index unit = 0; unit < shape_.units; unit += L) {
        (V::load(d_h + unit) + V::load_first(d_output + unit, shape_.units - unit)).store(d_h + unit);
      }
    }
  }

  const T* tape_gates(Index row, Index step, Index block) const {
    return a_.tape.gates + ((step * blocks_.count + block) * shape_.batch + row) * blocks_.gates_row;
  }
  const T* tape_state(Index row, Index step) const {
    return a_.tape.states + (step * shape_.batch + row) * blocks_.state_stride;
  }

  void for_each_cell(Index first, Range own, Index step, Index at, Index depth,
                     typename CellFunctions<T>::Function cell) const {
    for (Index block = 0; block < blocks_.count; ++block) {
      const Index in_row = own.begin * blocks_.state_stride + block * L;
      cell({tape_gates(first + own.begin, step, block), blocks_.gates_row,
            tape_state(first + own.begin, step) + block * L, blocks_.state_stride,
            d_gates_at(block, at + own.begin, depth), d_h_ + in_row, blocks_.state_stride,
            reset_after_ ? nullptr : d_reset_h_ + in_row, own.size()});
    }
    clear_padding(own, at, depth);
  }

  // An infinity in x or h makes NaN of a padded unit (infinity * 0), and the products over gates run over padding too.
  void clear_padding(Range own, Index at, Index depth) const {
    const Index used = shape_.units - (blocks_.count - 1) * L;
    if (used == L) return;
    T* d_gates = d_gates_at(blocks_.count - 1, at + own.begin, depth);
    for (Index packet = 0; packet < own.size() * blocks_.gates_row / L; ++packet, d_gates += L) {
      V::load_first(d_gates, used).store(d_gates);
    }
  }

  // to(row, :) (+)= the gate gradients of the step at `at`, times transposed weights.
  void multiply_gates(const TransposedWeights<T>& weights, Range own, Index at, Index depth, T* to, bool add) const {
    T* const rows = to + own.begin * blocks_.state_stride;
    const auto gates = weights.gates(d_gates_at(0, at + own.begin, depth), blocks_, depth * blocks_.gates_row);
    for (Index p = 0; p < weights.matrix().panels(); ++p) {
      multiply_panel<T>(
          gates, own.size(), weights.matrix().panel(p),
          [&](Index row, Index column) { return add ? V::load(rows + row * blocks_.state_stride + column) : V(T(0)); },
          [&](Index row, Index column, V sum) { sum.store(rows + row * blocks_.state_stride + column); });
    }
  }

  void store_input_gradients(Index first, Range own, Index step, Index at, Index depth) const {
    const auto gates = kernel_.gates(d_gates_at(0, at + own.begin, depth), blocks_, depth * blocks_.gates_row);
    for (Index p = 0; p < kernel_.matrix().panels(); ++p) {
      multiply_panel<T>(
          gates, own.size(), kernel_.matrix().panel(p), [](Index, Index) { return V(T(0)); },
          [&](Index row, Index column, V sum) {
            sum.store_first(a_.d_x.at(first + own.begin + row, step) + column, shape_.features - column);
          });
    }
  }

  // The left operands of the weight gradients, stored by depth while they are at hand.
  void keep_operands(Index first, Range own, Index step, Index at, Index depth) const {
    for (Index row = own.begin; row < own.end; ++row) {
      const T* h = tape_state(first + row, step);
      pack_into_tiles(chunk_.x, depth, at + row, a_.x.at(first + row, step), shape_.features);
      pack_into_tiles(chunk_.h, depth, at + row, h, shape_.units);
      if (reset_after_) continue;
      T* reset_h = d_reset_h_ + row * blocks_.state_stride;  // its gradient has been used up
      for (Index block = 0; block < blocks_.count; ++block) {
        const V r = V::load(tape_gates(first + row, step, block) + GateSlots::r * L);
        (r * V::load(h + block * L)).store(reset_h + block * L);
      }
      pack_into_tiles(chunk_.reset_h, depth, at + row, reset_h, shape_.units);
    }
  }

  // Second half of a chunk. The work is cut by block of columns and tile of rows of the weights, so that every
  // element is summed by one thread over the whole depth.
  void add_weight_gradients(Index depth, bool overwrite, Team& team) const {
    const Index input_tiles = (shape_.features + kTileRows - 1) / kTileRows;
    const Index recurrent_tiles = (shape_.units + kTileRows - 1) / kTileRows;
    const Index tiles = input_tiles + recurrent_tiles;
    const Range share = team.share(blocks_.count * tiles);
    for (Index item = share.begin; item < share.end; ++item) {
      const Index block = item / tiles, tile = item % tiles;
      if (tile < input_tiles) {
        add_product<3>(chunk_.x, tile, shape_.features, block, GateSlots::n, depth, a_.d_kernel, overwrite);
      } else if (reset_after_) {
        add_product<3>(chunk_.h, tile - input_tiles, shape_.units, block, GateSlots::z, depth, a_.d_recurrent_kernel,
                       overwrite);
      } else {
        add_product<2>(chunk_.h, tile - input_tiles, shape_.units, block, GateSlots::z, depth, a_.d_recurrent_kernel,
                       overwrite);
        add_product<1>(chunk_.reset_h, tile - input_tiles, shape_.units, block, GateSlots::n, depth,
                       a_.d_recurrent_kernel, overwrite);
      }
      if (tile == 0) add_bias_gradients(block, depth, overwrite);
    }
  }

  // d_weights(tile of rows, gates of the block) (+)= A^T d_gates, for Slots neighbouring slots.
  template <int Slots>
  void add_product(const T* operand, Index tile, Index count, Index block, int first_slot, Index depth, T* d_weights,
                   bool overwrite) const {
    const Index first_row = tile * kTileRows, unit = block * L;
    const T* d_gates = d_gates_at(block, 0, depth) + first_slot * L;
    with_constant<kTileRows>(std::min<Index>(kTileRows, count - first_row), [&](auto tile_rows) {
      constexpr int R = decltype(tile_rows)::value;
      V acc[R][Slots];
      for (int r = 0; r < R; ++r) {
        for (int s = 0; s < Slots; ++s) acc[r][s] = V(T(0));
      }
      multiply_add(acc, TileMajor<T>{operand + tile * depth * kTileRows}, d_gates, blocks_.gates_row, depth);
      for (int r = 0; r < R; ++r) {
        for (int s = 0; s < Slots; ++s) {
          T* to = d_weights + (first_row + r) * 3 * shape_.units + keras_gate(first_slot + s) * shape_.units + unit;
          add_to(to, acc[r][s], shape_.units - unit, overwrite);
        }
      }
    });
  }

  static FASTGRU_INLINE void add_to(T* to, V sum, Index count, bool overwrite) {
    (overwrite ? sum : V::load_first(to, count) + sum).store_first(to, count);
  }

  void add_bias_gradients(Index block, Index depth, bool overwrite) const {
    if (a_.d_bias == nullptr && a_.d_recurrent_bias == nullptr) return;
    const int recurrent_n = reset_after_ ? GateSlots::q : GateSlots::n;
    V n(T(0)), z(T(0)), r(T(0)), q(T(0));
    const T* d_gates = d_gates_at(block, 0, depth);
    for (Index k = 0; k < depth; ++k, d_gates += blocks_.gates_row) {
      n = n + V::load(d_gates + GateSlots::n * L);
      z = z + V::load(d_gates + GateSlots::z * L);
      r = r + V::load(d_gates + GateSlots::r * L);
      q = q + V::load(d_gates + recurrent_n * L);
    }
    const Index unit = block * L, count = shape_.units - unit;
    const auto store = [&](T* to, V sum_of_n) {
      if (to == nullptr) return;
      add_to(to + keras_gate(GateSlots::z) * shape_.units + unit, z, count, overwrite);
      add_to(to + keras_gate(GateSlots::r) * shape_.units + unit, r, count, overwrite);
      add_to(to + keras_gate(GateSlots::n) * shape_.units + unit, sum_of_n, count, overwrite);
    };
    store(a_.d_bias, n);
    store(a_.d_recurrent_bias, q);
  }

  const GruBackwardArguments<T>& a_;
  const GruShape& shape_;
  const bool reset_after_;
  const UnitBlocks<T> blocks_;
  const CellFunctions<T> cell_;
  TransposedWeights<T> recurrent_, candidate_, kernel_;
  const Index rows_together_, chunk_steps_;
  ChunkMemory<T> chunk_{};
  T* d_h_ = nullptr;        // [row][state_stride], what flows from step to step
  T* d_reset_h_ = nullptr;  // the same layout, reset before only
};

// No rows or no steps: nothing flows but d_last_state, straight to d_initial_state.
template <class T>
void backward_of_nothing(const GruBackwardArguments<T>& a) {
  const Index columns = 3 * a.shape.units;
  std::fill_n(a.d_kernel, a.shape.features * columns, T(0));
  std::fill_n(a.d_recurrent_kernel, a.shape.units * columns, T(0));
  for (T* bias : {a.d_bias, a.d_recurrent_bias}) {
    if (bias != nullptr) std::fill_n(bias, columns, T(0));
  }
  if (a.d_initial_state == nullptr) return;
  const Index count = a.shape.batch * a.shape.units;
  if (a.d_last_state != nullptr) {
    std::copy_n(a.d_last_state, count, a.d_initial_state);
  } else {
    std::fill_n(a.d_initial_state, count, T(0));
  }
}

}  // namespace

template <class T>
void gru_backward(const GruBackwardArguments<T>& a, Workspace& workspace, Cancellation* cancellation) {
  if (a.shape.batch == 0 || a.shape.steps == 0 || a.shape.units == 0) return backward_of_nothing(a);
  BackwardPass<T> pass(a, workspace);
  const Index useful = (a.shape.batch + kRowsWorthAThread - 1) / kRowsWorthAThread;
  parallel(static_cast<int>(std::min<Index>(num_threads(), useful)), cancellation, [&](Team& team) { pass.run(team); });
}

template void gru_backward(const GruBackwardArguments<float>&, Workspace&, Cancellation*);
template void gru_backward(const GruBackwardArguments<double>&, Workspace&, Cancellation*);

}  // namespace fastgru
