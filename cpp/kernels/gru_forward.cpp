#include "kernels/gru_forward.hpp"

#include <algorithm>

#include "kernels/gemm.hpp"
#include "kernels/gru_cell.hpp"
#include "kernels/gru_weights.hpp"

namespace fastgru {
namespace {

// Rows that one thread takes through time together. Each step loads a block's weights into the L1 cache once for
// all of them; more rows would push the states out of the L2 cache without sharing that load much better.
constexpr Index kRowsTogether = 64;

// Fewer rows than this are not worth a thread of their own.
constexpr Index kRowsWorthAThread = 4;

// The functions of one pass's activations.
template <class T>
struct CellFunctions {
  using Function = void (*)(const ForwardTile<T>&);
  Function reset_after, reset_before_gates, reset_before_state;

  template <class Cell>
  static CellFunctions of(Cell) {
    return {Cell::reset_after, Cell::reset_before_gates, Cell::reset_before_state};
  }
};

// Where a tile of rows keeps gates and states: in the tape while training, else in scratch that each step reuses.
template <class T>
struct TileMemory {
  T* gates;
  Index gates_step, gates_block;  // strides between steps and between unit blocks
  T* states;
  Index states_step;
  bool taped;
  T* reset_h;  // r * h, reset before only

  T* gates_at(Index step, Index block) const { return gates + step * gates_step + block * gates_block; }
  // Without a tape two buffers take turns.
  T* states_at(Index step) const { return states + (taped ? step : step % 2) * states_step; }
};

template <class T>
class ForwardPass {
  using V = Vec<T>;
  static constexpr Index L = V::lanes;

 public:
  ForwardPass(const GruForwardArguments<T>& arguments, const ForwardWeights<T>& weights, const UnitBlocks<T>& blocks)
      : a_(arguments),
        weights_(weights),
        blocks_(blocks),
        cell_(with_cell<ForwardCell, T>(arguments.options, [](auto cell) { return CellFunctions<T>::of(cell); })) {}

  // Rows [first, first + rows) through all steps.
  void run(Index first, Index rows, const TileMemory<T>& memory, Team& team) const {
    start(first, rows, memory);
    for (Index step = 0; step < a_.shape.steps; ++step) {
      if (!team.proceed()) return;
      if (a_.options.reset_after) {
        step_reset_after(first, rows, step, memory);
      } else {
        step_reset_before(first, rows, step, memory);
      }
    }
    if (a_.last_state != nullptr) {
      const T* h = memory.states_at(a_.shape.steps);
      for (Index row = 0; row < rows; ++row) {
        std::copy_n(h + row * blocks_.state_stride, a_.shape.units, a_.last_state + (first + row) * a_.shape.units);
      }
    }
  }

 private:
  // states[0] = initial_state or 0. Padded units stay finite for finite inputs; nothing reads them but their own lanes.
  void start(Index first, Index rows, const TileMemory<T>& memory) const {
    T* h = memory.states_at(0);
    std::fill_n(h, rows * blocks_.state_stride, T(0));
    if (a_.initial_state == nullptr) return;
    for (Index row = 0; row < rows; ++row) {
      std::copy_n(a_.initial_state + (first + row) * a_.shape.units, a_.shape.units, h + row * blocks_.state_stride);
    }
  }

  ForwardTile<T> cell_tile(Index block, Index row, Index rows, Index step, T* gates, const TileMemory<T>& m) const {
    const Index at = row * blocks_.state_stride + block * L;
    return {gates,
            blocks_.gates_row,
            m.states_at(step) + at,
            m.states_at(step + 1) + at,
            blocks_.state_stride,
            m.reset_h == nullptr ? nullptr : m.reset_h + at,
            rows};
  }

  void store_outputs(Index block, Index first, Index rows, Index step, const T* h_next) const {
    if (!a_.outputs) return;
    const Index count = a_.shape.units - block * L;
    for (Index row = 0; row < rows; ++row) {
      V::load(h_next + row * blocks_.state_stride).store_first(a_.outputs.at(first + row, step) + block * L, count);
    }
  }

  // [n z r] = b + x [Wn Wz Wr];  [z r q] += h [Uz Ur Uq], q starting from its own bias.
  template <int R>
  void products_reset_after(Index block, const T* x, const T* h, T* gates) const {
    const T* bias = weights_.bias_block(block);
    V acc[R][3];
    for (int row = 0; row < R; ++row) {
      for (int slot = 0; slot < 3; ++slot) acc[row][slot] = V::load(bias + slot * L);
    }
    multiply_add(acc, RowMajor<T>{x, a_.x.row_stride}, weights_.input_block(block), 3 * L, a_.shape.features);
    const V q = V::load(bias + GateSlots::q * L);
    for (int row = 0; row < R; ++row) {  // n is complete: its register goes to q
      acc[row][0].store(gates + row * blocks_.gates_row + GateSlots::n * L);
      acc[row][0] = acc[row][1];
      acc[row][1] = acc[row][2];
      acc[row][2] = q;
    }
    multiply_add(acc, RowMajor<T>{h, blocks_.state_stride}, weights_.recurrent_block(block), 3 * L, a_.shape.units);
    for (int row = 0; row < R; ++row) {
      for (int slot = 0; slot < 3; ++slot) {
        acc[row][slot].store(gates + row * blocks_.gates_row + (GateSlots::z + slot) * L);
      }
    }
  }

  void step_reset_after(Index first, Index rows, Index step, const TileMemory<T>& memory) const {
    const T* h = memory.states_at(step);
    for (Index block = 0; block < blocks_.count; ++block) {
      for_each_tile(rows, [&](Index row, Index count) {
        T* gates = memory.gates_at(step, block) + (memory.taped ? row * blocks_.gates_row : 0);
        with_constant<kTileRows>(count, [&](auto tile_rows) {
          products_reset_after<decltype(tile_rows)::value>(block, a_.x.at(first + row, step),
                                                           h + row * blocks_.state_stride, gates);
        });
        const ForwardTile<T> tile = cell_tile(block, row, count, step, gates, memory);
        cell_.reset_after(tile);
        store_outputs(block, first + row, count, step, tile.h_next);
      });
    }
  }

  // [n z r] = b + x [Wn Wz Wr];  [z r] += h [Uz Ur].
  template <int R>
  void products_reset_before(Index block, const T* x, const T* h, T* gates) const {
    const T* bias = weights_.bias_block(block);
    V all[R][3], recurrent[R][2];
    for (int row = 0; row < R; ++row) {
      for (int slot = 0; slot < 3; ++slot) all[row][slot] = V::load(bias + slot * L);
    }
    multiply_add(all, RowMajor<T>{x, a_.x.row_stride}, weights_.input_block(block), 3 * L, a_.shape.features);
    for (int row = 0; row < R; ++row) {
      all[row][0].store(gates + row * blocks_.gates_row + GateSlots::n * L);
      recurrent[row][0] = all[row][1];
      recurrent[row][1] = all[row][2];
    }
    multiply_add(recurrent, RowMajor<T>{h, blocks_.state_stride}, weights_.recurrent_block(block), 2 * L,
                 a_.shape.units);
    for (int row = 0; row < R; ++row) {
      recurrent[row][0].store(gates + row * blocks_.gates_row + GateSlots::z * L);
      recurrent[row][1].store(gates + row * blocks_.gates_row + GateSlots::r * L);
    }
  }

  void step_reset_before(Index first, Index rows, Index step, const TileMemory<T>& memory) const {
    const T* h = memory.states_at(step);
    for (Index block = 0; block < blocks_.count; ++block) {
      for_each_tile(rows, [&](Index row, Index count) {
        T* gates = memory.gates_at(step, block) + row * blocks_.gates_row;
        with_constant<kTileRows>(count, [&](auto tile_rows) {
          products_reset_before<decltype(tile_rows)::value>(block, a_.x.at(first + row, step),
                                                            h + row * blocks_.state_stride, gates);
        });
        cell_.reset_before_gates(cell_tile(block, row, count, step, gates, memory));
      });
    }
    // n += (r * h) Un, for which every unit's r * h had to be known.
    const SegmentedRows<T> reset_h{memory.reset_h, blocks_.state_stride, a_.shape.units};
    for (Index p = 0; p < weights_.candidate.panels(); ++p) {
      const auto slot_n = [&](Index row, Index column) {
        return memory.gates_at(step, column / L) + row * blocks_.gates_row + GateSlots::n * L;
      };
      multiply_panel<T>(
          reset_h, rows, weights_.candidate.panel(p),
          [&](Index row, Index column) { return V::load(slot_n(row, column)); },
          [&](Index row, Index column, V n) { n.store(slot_n(row, column)); });
    }
    for (Index block = 0; block < blocks_.count; ++block) {
      const ForwardTile<T> tile = cell_tile(block, 0, rows, step, memory.gates_at(step, block), memory);
      cell_.reset_before_state(tile);
      store_outputs(block, first, rows, step, tile.h_next);
    }
  }

  const GruForwardArguments<T>& a_;
  const ForwardWeights<T>& weights_;
  const UnitBlocks<T>& blocks_;
  const CellFunctions<T> cell_;
};

}  // namespace

template <class T>
void gru_forward(const GruForwardArguments<T>& a, Workspace& workspace, Cancellation* cancellation) {
  const GruShape& shape = a.shape;
  if (shape.batch == 0 || shape.units == 0) return;
  const UnitBlocks<T> blocks(shape.units, a.options.reset_after);
  const ForwardWeights<T> weights(shape, a.options, workspace);
  const ForwardPass<T> pass(a, weights, blocks);

  const Index useful = (shape.batch + kRowsWorthAThread - 1) / kRowsWorthAThread;
  const int threads = static_cast<int>(std::min<Index>(num_threads(), useful));

  // Scratch a thread: two states and r * h, and gates for one tile (reset after) or all blocks (reset before).
  const bool taped = a.tape.gates != nullptr;
  const Index tile_rows = std::min(kRowsTogether, (shape.batch + threads - 1) / threads);
  const Index states_size = tile_rows * blocks.state_stride;
  const Index scratch_rows = a.options.reset_after ? std::min<Index>(kTileRows, tile_rows) : tile_rows;
  const Index gates_block = a.options.reset_after ? 0 : scratch_rows * blocks.gates_row;
  const Index gates_size = a.options.reset_after ? scratch_rows * blocks.gates_row : blocks.count * gates_block;
  T* const reset_h = a.options.reset_after ? nullptr : workspace.take<T>(threads * states_size);
  T* const states = taped ? nullptr : workspace.take<T>(threads * 2 * states_size);
  T* const gates = taped ? nullptr : workspace.take<T>(threads * gates_size);

  parallel(threads, cancellation, [&](Team& team) {
    weights.pack(a.parameters, team);
    team.barrier();
    const Range share = team.share(shape.batch);
    const Index tiles = (share.size() + tile_rows - 1) / tile_rows;
    T* const own_reset_h = reset_h == nullptr ? nullptr : reset_h + team.index() * states_size;
    for (Index tile = 0; tile < tiles; ++tile) {
      const Range rows = split(share.size(), tile, tiles);
      const Index first = share.begin + rows.begin;
      const TileMemory<T> memory = taped ? TileMemory<T>{a.tape.gates + first * blocks.gates_row,
                                                         blocks.count * shape.batch * blocks.gates_row,
                                                         shape.batch * blocks.gates_row,
                                                         a.tape.states + first * blocks.state_stride,
                                                         shape.batch * blocks.state_stride,
                                                         true,
                                                         own_reset_h}
                                         : TileMemory<T>{gates + team.index() * gates_size,
                                                         0,
                                                         gates_block,
                                                         states + team.index() * 2 * states_size,
                                                         states_size,
                                                         false,
                                                         own_reset_h};
      pass.run(first, rows.size(), memory, team);
    }
  });
}

template void gru_forward(const GruForwardArguments<float>&, Workspace&, Cancellation*);
template void gru_forward(const GruForwardArguments<double>&, Workspace&, Cancellation*);

}  // namespace fastgru
