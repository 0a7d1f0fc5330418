#include "kernels/gru_forward.hpp"

#include <algorithm>

#include "kernels/gemm.hpp"
#include "kernels/gru_cell.hpp"
#include "kernels/gru_weights.hpp"

namespace fastgru {
namespace {

// Threads' scratch lies on different pages: prefetchers run past the end of what one thread uses, and would take the
// next thread's lines out of its cache.
template <class T>
constexpr Index whole_pages(Index count) {
  constexpr Index page = 4096 / sizeof(T);
  return (count + 2 * page - 1) / page * page;
}

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

// Where a group of rows keeps gates and states: in the tape while training, else in scratch that each step reuses.
template <class T>
struct GroupMemory {
  GruTape<T> tape;  // this group's piece, or null
  bool stream;      // the tape past the caches
  Index rows;       // of the group: what the strides follow from
  T* states;        // without a tape: two steps' that take turns
  T* gates;         // without a tape, reset before: all blocks' of one step
  T* reset_h;       // reset before: r * h
  T* tile;          // this thread's, reset after: one tile's gates
};

// What one thread does of a group in each step: some rows of all units, or some units of all rows.
struct Cut {
  Range rows, blocks;
  bool by_units;  // then the team meets after each stage, because every unit reads all states
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

  // The group of rows that begins at `first`, through all steps.
  void run(Index first, const Cut& cut, const GroupMemory<T>& memory, Team& team) const {
    if (cut.rows.size() == 0 && !cut.by_units) return;
    start(first, cut, memory);
    meet(cut, team);
    for (Index step = 0; step < a_.shape.steps; ++step) {
      const bool proceed = team.proceed();  // who does not still comes to the barriers
      if (!proceed && !cut.by_units) return;
      if (a_.options.reset_after) {
        if (proceed) step_reset_after(first, cut, step, memory);
      } else {
        if (proceed) reset_before_gates(first, cut, step, memory);
        meet(cut, team);
        if (proceed) reset_before_candidate(cut, step, memory, team);
        meet(cut, team);
        if (proceed) reset_before_states(first, cut, step, memory);
      }
      meet(cut, team);
    }
    if (memory.stream) fence_streams();
    finish(first, cut, memory);
  }

 private:
  static void meet(const Cut& cut, Team& team) {
    if (cut.by_units) team.barrier();
  }

  T* states_at(const GroupMemory<T>& m, Index step, Index row = 0) const {
    return (m.tape.states != nullptr ? m.tape.states + step * m.rows * blocks_.state_stride
                                     : m.states + step % 2 * m.rows * blocks_.state_stride) +
           row * blocks_.state_stride;
  }
  T* gates_at(const GroupMemory<T>& m, Index step, Index block, Index row) const {
    T* const base =
        m.tape.gates != nullptr ? m.tape.gates + step * blocks_.count * m.rows * blocks_.gates_row : m.gates;
    return base + (block * m.rows + row) * blocks_.gates_row;
  }

  // states[0] = initial_state or 0. Padded units stay finite for finite inputs; nothing reads them but their own lanes.
  void start(Index first, const Cut& cut, const GroupMemory<T>& memory) const {
    const Index begin = cut.blocks.begin * L;
    const Index end = cut.blocks.end == blocks_.count ? blocks_.state_stride : cut.blocks.end * L;
    const Index used = std::min(end, a_.shape.units);
    for (Index row = cut.rows.begin; row < cut.rows.end; ++row) {
      T* const h = states_at(memory, 0, row);
      std::fill(h + begin, h + end, T(0));
      if (a_.initial_state == nullptr) continue;
      const T* from = a_.initial_state + (first + row) * a_.shape.units;
      std::copy(from + begin, from + used, h + begin);
    }
  }

  void finish(Index first, const Cut& cut, const GroupMemory<T>& memory) const {
    if (a_.last_state == nullptr) return;
    const Index begin = cut.blocks.begin * L, end = std::min(cut.blocks.end * L, a_.shape.units);
    for (Index row = cut.rows.begin; row < cut.rows.end; ++row) {
      const T* h = states_at(memory, a_.shape.steps, row);
      std::copy(h + begin, h + end, a_.last_state + (first + row) * a_.shape.units + begin);
    }
  }

  ForwardTile<T> cell_tile(Index block, Index row, Index rows, Index step, T* gates, const GroupMemory<T>& m) const {
    const bool apart = a_.options.reset_after && m.tape.gates != nullptr;  // gates are in m.tile, not in the tape
    return {gates,
            apart ? gates_at(m, step, block, row) : nullptr,
            m.stream,
            blocks_.gates_row,
            states_at(m, step, row) + block * L,
            states_at(m, step + 1, row) + block * L,
            blocks_.state_stride,
            m.reset_h == nullptr ? nullptr : m.reset_h + row * blocks_.state_stride + block * L,
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

  void step_reset_after(Index first, const Cut& cut, Index step, const GroupMemory<T>& memory) const {
    for (Index block = cut.blocks.begin; block < cut.blocks.end; ++block) {
      for_each_tile(cut.rows.size(), [&](Index tile, Index count) {
        const Index row = cut.rows.begin + tile;
        with_constant<kTileRows>(count, [&](auto tile_rows) {
          products_reset_after<decltype(tile_rows)::value>(block, a_.x.at(first + row, step),
                                                           states_at(memory, step, row), memory.tile);
        });
        const ForwardTile<T> cell = cell_tile(block, row, count, step, memory.tile, memory);
        cell_.reset_after(cell);
        store_outputs(block, first + row, count, step, cell.h_next);
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

  void reset_before_gates(Index first, const Cut& cut, Index step, const GroupMemory<T>& memory) const {
    for (Index block = cut.blocks.begin; block < cut.blocks.end; ++block) {
      for_each_tile(cut.rows.size(), [&](Index tile, Index count) {
        const Index row = cut.rows.begin + tile;
        T* const gates = gates_at(memory, step, block, row);
        with_constant<kTileRows>(count, [&](auto tile_rows) {
          products_reset_before<decltype(tile_rows)::value>(block, a_.x.at(first + row, step),
                                                            states_at(memory, step, row), gates);
        });
        cell_.reset_before_gates(cell_tile(block, row, count, step, gates, memory));
      });
    }
  }

  // n += (r * h) Un, for which every unit's r * h has to be known.
  void reset_before_candidate(const Cut& cut, Index step, const GroupMemory<T>& memory, const Team& team) const {
    const Index row = cut.rows.begin;
    const SegmentedRows<T> reset_h{memory.reset_h + row * blocks_.state_stride, blocks_.state_stride, a_.shape.units};
    const Index panels = weights_.candidate.panels();
    const Range own = cut.by_units ? team.share(panels) : Range{0, panels};
    for (Index p = own.begin; p < own.end; ++p) {
      const auto slot_n = [&](Index r, Index column) {
        return gates_at(memory, step, column / L, row + r) + GateSlots::n * L;
      };
      multiply_panel<T>(
          reset_h, cut.rows.size(), weights_.candidate.panel(p),
          [&](Index r, Index column) { return V::load(slot_n(r, column)); },
          [&](Index r, Index column, V n) { n.store(slot_n(r, column)); });
    }
  }

  void reset_before_states(Index first, const Cut& cut, Index step, const GroupMemory<T>& memory) const {
    const Index row = cut.rows.begin, rows = cut.rows.size();
    for (Index block = cut.blocks.begin; block < cut.blocks.end; ++block) {
      const ForwardTile<T> tile = cell_tile(block, row, rows, step, gates_at(memory, step, block, row), memory);
      cell_.reset_before_state(tile);
      store_outputs(block, first + row, rows, step, tile.h_next);
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
  const bool reset_after = a.options.reset_after, taped = a.tape.gates != nullptr;
  const UnitBlocks<T> blocks(shape.units, reset_after);
  const ForwardWeights<T> weights(shape, a.options, workspace);
  const ForwardPass<T> pass(a, weights, blocks);
  const BatchPlan plan = BatchPlan::of<T>(shape);

  const Index limit = num_threads();
  const bool by_units = plan.by_units(limit, blocks.count);
  // With a tape its pieces go to the threads whole; without one the rows can be cut anywhere.
  const bool by_parts = taped && plan.small_weights();
  const Index useful = by_units   ? blocks.count
                       : by_parts ? plan.parts()
                                  : (shape.batch + kRowsWorthAThread - 1) / kRowsWorthAThread;
  const int threads = static_cast<int>(std::min(limit, useful));

  // Scratch, a set for each thread or one for all.
  const Index own_rows = (shape.batch + threads - 1) / threads;
  const Index together = by_units || taped ? plan.largest_group() : std::min(own_rows, BatchPlan::kRowsTogether);
  const Index sets = by_units ? 1 : threads;
  const auto scratch = [&](Index rows, Index row_size, Index count, bool wanted) {
    const Index size = whole_pages<T>(rows * row_size);
    T* const memory = wanted ? workspace.take_pages<T>(size * count) : nullptr;
    return [=](Index set) { return wanted ? memory + set % count * size : nullptr; };
  };
  const auto tile = scratch(kTileRows, blocks.gates_row, threads, reset_after);
  const auto states = scratch(together, 2 * blocks.state_stride, sets, !taped);
  const auto gates = scratch(together, blocks.count * blocks.gates_row, sets, !taped && !reset_after);
  const auto reset_h = scratch(together, blocks.state_stride, sets, !reset_after);

  const bool stream = taped && reset_after && GruTape<T>::outgrows_caches(shape, blocks);

  parallel(threads, cancellation, [&](Team& team) {
    weights.pack(a.parameters, team);
    team.barrier();
    Team alone = team.alone();
    const Index own = team.index();
    const auto memory_of = [&](const Range& group) {
      const GruTape<T> tape = taped ? a.tape.piece(group.begin, shape, blocks) : GruTape<T>{};
      return GroupMemory<T>{tape, stream, group.size(), states(own), gates(own), reset_h(own), tile(own)};
    };
    const Range all_blocks{0, blocks.count};
    if (by_units || (taped && !by_parts)) {
      for (Index group = 0; group < plan.groups_in_part(); ++group) {
        const Range rows = plan.rows(0, group);
        const Cut cut = by_units ? Cut{{0, rows.size()}, team.share(blocks.count), true}
                                 : Cut{team.share(rows.size()), all_blocks, false};
        pass.run(rows.begin, cut, memory_of(rows), team);
        team.barrier();  // the next group is shared out otherwise, and uses the same scratch
      }
    } else if (by_parts) {
      const Range parts = team.share(plan.parts());
      for (Index part = parts.begin; part < parts.end; ++part) {
        for (Index group = 0; group < plan.groups_in_part(); ++group) {
          const Range rows = plan.rows(part, group);
          pass.run(rows.begin, {{0, rows.size()}, all_blocks, false}, memory_of(rows), alone);
        }
      }
    } else {
      const Range share = team.share(shape.batch);
      const Index groups = (share.size() + together - 1) / together;
      for (Index group = 0; group < groups; ++group) {
        const Range within = split(share.size(), group, groups);
        const Range rows{share.begin + within.begin, share.begin + within.end};
        pass.run(rows.begin, {{0, rows.size()}, all_blocks, false}, memory_of(rows), alone);
      }
    }
  });
}

template void gru_forward(const GruForwardArguments<float>&, Workspace&, Cancellation*);
template void gru_forward(const GruForwardArguments<double>&, Workspace&, Cancellation*);

}  // namespace fastgru
