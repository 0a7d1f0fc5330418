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

// Into how many slices rows that can be cut anywhere are cut: some more than there are threads, but not so small that
// loading the weights for each costs more than it brings.
Index number_of_slices(Index rows, Index threads) {
  constexpr Index kRowsWorthASlice = 8;
  const Index fewest = std::min((rows + threads - 1) / threads, kRowsWorthASlice);
  const Index wanted = std::min((rows + 2 * threads - 1) / (2 * threads), BatchPlan::kRowsTogether);
  const Index size = std::max(fewest, wanted);
  return (rows + size - 1) / size;
}

// Equally long rows of the batch as a group of its own, outside of the plan.
RowGroup rows_alone(Range rows, Index steps) { return {rows.begin, rows.size(), steps, 0, nullptr}; }

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
  T* masked;        // with recurrent masks: two steps' masked states that take turns, [row][block][z, r, n][L]
  T* gates;         // without a tape, reset before: all blocks' of one step
  T* reset_h;       // reset before: r * h
  T* tile;          // this thread's, reset after: one tile's gates
  T* x;             // this thread's, where sequences differ in length: one step's inputs
};

// What one thread does of a group in each step.
struct Cut {
  enum Kind {
    own_rows,        // some rows of all units, the same in all steps
    rows_of_a_step,  // a share of the rows at work in the step
    by_units,        // some units of all rows
  };
  Kind kind;
  Range own, blocks;  // own: of `own_rows`

  // Whether the team meets after each stage, because a row's states pass between threads.
  bool meets() const { return kind != own_rows; }
  // The rows to take of so many.
  Range rows(Index count, const Team& team) const {
    if (kind == by_units) return {0, count};
    if (kind == rows_of_a_step) return team.share(count);
    return {std::min(own.begin, count), std::min(own.end, count)};
  }
};

// Rows of x for one step.
template <class T>
struct StepInputs {
  const T* data;
  Index stride;

  const T* row(Index row) const { return data + row * stride; }
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

  // A group of rows, through all steps.
  void run(const RowGroup& group, const Cut& cut, const GroupMemory<T>& memory, Team& team) const {
    const Range all = cut.rows(group.rows, team);
    if (all.size() == 0 && !cut.meets()) return;
    start(group, all, cut.blocks, memory);
    meet(cut, team);
    const bool masked(a_.recurrent_masks);
    for (Index step = 0; step < group.steps; ++step) {
      const Range rows = cut.rows(group.at_work(step), team);
      const bool proceed = team.proceed() && rows.size() > 0;  // who does not still comes to the barriers
      if (!proceed && !cut.meets()) break;
      const StepInputs<T> x = proceed ? inputs(group, rows, step, memory) : StepInputs<T>{};
      if (a_.options.reset_after) {
        if (proceed)
          masked ? step_reset_after<true>(group, rows, cut.blocks, step, x, memory)
                 : step_reset_after<false>(group, rows, cut.blocks, step, x, memory);
      } else {
        if (proceed)
          masked ? reset_before_gates<true>(group, rows, cut.blocks, step, x, memory)
                 : reset_before_gates<false>(group, rows, cut.blocks, step, x, memory);
        meet(cut, team);
        if (proceed) reset_before_candidate(group, rows, cut.kind == Cut::by_units, step, memory, team);
        meet(cut, team);
        if (proceed) reset_before_states(group, rows, cut.blocks, step, memory);
      }
      meet(cut, team);
    }
    if (memory.stream) fence_streams();
    finish(group, all, cut.blocks, memory);
  }

  // Outputs behind the ends of sequences, once those are complete.
  void fill_padding(Range places) const {
    const SequenceMap& map = a_.sequences;
    if (!a_.outputs) return;
    for (Index place = places.begin; place < places.end; ++place) {
      const Index length = map.length(place), row = map.row(place), units = a_.shape.units;
      // Backwards and in x's order padding comes before the sequence: there is no output to repeat.
      const bool repeat = a_.repeat_last_output && length > 0 && !(map.backwards && map.outputs_like_x);
      for (Index step = length; step < a_.shape.steps; ++step) {
        if (repeat) {
          std::copy_n(a_.outputs.at(row, length - 1), units, a_.outputs.at(row, step));
        } else {
          std::fill_n(a_.outputs.at(row, step), units, T(0));
        }
      }
    }
  }

 private:
  static void meet(const Cut& cut, Team& team) {
    if (cut.meets()) team.barrier();
  }

  // x for some rows of a step: as it lies, or gathered from where the sequences have got to.
  StepInputs<T> inputs(const RowGroup& group, Range rows, Index step, const GroupMemory<T>& m) const {
    const SequenceMap& map = a_.sequences;
    if (!map.different_lengths()) return {a_.x.at(group.first, step), a_.x.row_stride};
    const Index features = a_.shape.features;
    for (Index row = rows.begin; row < rows.end; ++row) {
      const Index place = group.first + row;
      std::copy_n(a_.x.at(map.row(place), map.input_step(place, step)), features, m.x + row * features);
    }
    return {m.x, features};
  }

  T* states_at(const RowGroup& group, const GroupMemory<T>& m, Index step, Index row = 0) const {
    return (m.tape.states != nullptr ? m.tape.states + group.state_offset(step) * blocks_.state_stride
                                     : m.states + step % 2 * m.rows * blocks_.state_stride) +
           row * blocks_.state_stride;
  }
  Index masked_stride() const { return 3 * blocks_.state_stride; }
  T* masked_at(const GroupMemory<T>& m, Index step, Index row) const {
    return m.masked + (step % 2 * m.rows + row) * masked_stride();
  }
  T* gates_at(const RowGroup& group, const GroupMemory<T>& m, Index step, Index block, Index row) const {
    if (m.tape.gates == nullptr) return m.gates + (block * m.rows + row) * blocks_.gates_row;
    const Index pairs = group.offset(step) * blocks_.count + block * group.at_work(step) + row;
    return m.tape.gates + pairs * blocks_.gates_row;
  }

  // states[0] = initial_state or 0. Padded units stay finite for finite inputs; nothing reads them but their own lanes.
  void start(const RowGroup& group, Range rows, Range blocks, const GroupMemory<T>& memory) const {
    const Index begin = blocks.begin * L;
    const Index end = blocks.end == blocks_.count ? blocks_.state_stride : blocks.end * L;
    const Index used = std::min(end, a_.shape.units);
    for (Index row = rows.begin; row < rows.end; ++row) {
      T* const h = states_at(group, memory, 0, row);
      std::fill(h + begin, h + end, T(0));
      if (a_.initial_state == nullptr) continue;
      const Index place = group.first + row;
      const T* from = a_.initial_state + a_.sequences.row(place) * a_.shape.units;
      std::copy(from + begin, from + used, h + begin);
    }
    if (!a_.recurrent_masks) return;
    for (Index block = blocks.begin; block < blocks.end; ++block) {
      mask_states(group, block, rows.begin, rows.size(), 0, states_at(group, memory, 0, rows.begin) + block * L,
                  memory);
    }
  }

  // m_z * h, m_r * h and m_n * h of a block of units, for the products of `step`.
  void mask_states(const RowGroup& group, Index block, Index first, Index rows, Index step, const T* states,
                   const GroupMemory<T>& m) const {
    for (Index row = 0; row < rows; ++row) {
      const V h = V::load(states + row * blocks_.state_stride);
      const Index in_batch = a_.sequences.row(group.first + first + row);
      T* const to = masked_at(m, step, first + row) + block * 3 * L;
      for (int gate = 0; gate < 3; ++gate) {
        (h * a_.recurrent_masks.at(gate, in_batch, block * L)).store(to + gate * L);
      }
    }
  }

  void finish(const RowGroup& group, Range rows, Range blocks, const GroupMemory<T>& memory) const {
    if (a_.last_state == nullptr) return;
    const Index begin = blocks.begin * L, end = std::min(blocks.end * L, a_.shape.units);
    for (Index row = rows.begin; row < rows.end; ++row) {
      const Index place = group.first + row;
      const T* h = states_at(group, memory, a_.sequences.length(place), row);
      std::copy(h + begin, h + end, a_.last_state + a_.sequences.row(place) * a_.shape.units + begin);
    }
  }

  ForwardTile<T> cell_tile(const RowGroup& group, Index block, Index row, Index rows, Index step, T* gates,
                           const GroupMemory<T>& m) const {
    const bool apart = a_.options.reset_after && m.tape.gates != nullptr;  // gates are in m.tile, not in the tape
    const T* const h = states_at(group, m, step, row) + block * L;
    const bool masked(a_.recurrent_masks);
    return {gates,
            apart ? gates_at(group, m, step, block, row) : nullptr,
            m.stream,
            blocks_.gates_row,
            h,
            states_at(group, m, step + 1, row) + block * L,
            blocks_.state_stride,
            masked ? masked_at(m, step, row) + (block * 3 + RecurrentMasks<T>::n) * L : h,
            masked ? masked_stride() : blocks_.state_stride,
            m.reset_h == nullptr ? nullptr : m.reset_h + row * blocks_.state_stride + block * L,
            rows};
  }

  // What becomes of new states: they are outputs, and masked the next step's operands.
  void pass_states_on(const RowGroup& group, Index block, Index first, Index rows, Index step, const T* h_next,
                      const GroupMemory<T>& m) const {
    const SequenceMap& map = a_.sequences;
    const Index count = a_.shape.units - block * L;
    if (a_.outputs) {
      for (Index row = 0; row < rows; ++row) {
        const Index place = group.first + first + row;
        T* const output = a_.outputs.at(map.row(place), map.output_step(place, step)) + block * L;
        V::load(h_next + row * blocks_.state_stride).store_first(output, count);
      }
    }
    if (a_.recurrent_masks) mask_states(group, block, first, rows, step + 1, h_next, m);
  }

  // What the gates' products of a step take for h.
  template <bool Masked>
  const T* operand_at(const RowGroup& group, const GroupMemory<T>& m, Index step, Index row) const {
    return Masked ? masked_at(m, step, row) : states_at(group, m, step, row);
  }

  // acc += h U for the block's first gates: z, r and, with Gates = 3, n. With masks each gate has an h of its own.
  template <bool Masked, int R, int Gates>
  FASTGRU_INLINE void multiply_states(V (&acc)[R][Gates], const T* h, Index block) const {
    const T* weights = weights_.recurrent_block(block);
    const Index units = a_.shape.units;
    if constexpr (Masked) {
      for (Index unit = 0; unit < units; unit += L, h += 3 * L, weights += Gates * L * L) {
        multiply_add(acc, RowMajorOfEach<T, L>{h, masked_stride()}, weights, Gates * L, std::min(L, units - unit));
      }
    } else {
      multiply_add(acc, RowMajor<T>{h, blocks_.state_stride}, weights, Gates * L, units);
    }
  }

  // [n z r] = b + x [Wn Wz Wr];  [z r q] += h [Uz Ur Uq], q starting from its own bias.
  template <bool Masked, int R>
  void products_reset_after(Index block, StepInputs<T> x, const T* h, T* gates) const {
    const T* bias = weights_.bias_block(block);
    V acc[R][3];
    for (int row = 0; row < R; ++row) {
      for (int slot = 0; slot < 3; ++slot) acc[row][slot] = V::load(bias + slot * L);
    }
    multiply_add(acc, RowMajor<T>{x.data, x.stride}, weights_.input_block(block), 3 * L, a_.shape.features);
    const V q = V::load(bias + GateSlots::q * L);
    for (int row = 0; row < R; ++row) {  // n is complete: its register goes to q
      acc[row][0].store(gates + row * blocks_.gates_row + GateSlots::n * L);
      acc[row][0] = acc[row][1];
      acc[row][1] = acc[row][2];
      acc[row][2] = q;
    }
    multiply_states<Masked>(acc, h, block);
    for (int row = 0; row < R; ++row) {
      for (int slot = 0; slot < 3; ++slot) {
        acc[row][slot].store(gates + row * blocks_.gates_row + (GateSlots::z + slot) * L);
      }
    }
  }

  template <bool Masked>
  void step_reset_after(const RowGroup& group, Range rows, Range blocks, Index step, StepInputs<T> x,
                        const GroupMemory<T>& memory) const {
    for (Index block = blocks.begin; block < blocks.end; ++block) {
      for_each_tile(rows.size(), [&](Index tile, Index count) {
        const Index row = rows.begin + tile;
        with_constant<kTileRows>(count, [&](auto tile_rows) {
          products_reset_after<Masked, decltype(tile_rows)::value>(
              block, {x.row(row), x.stride}, operand_at<Masked>(group, memory, step, row), memory.tile);
        });
        const ForwardTile<T> cell = cell_tile(group, block, row, count, step, memory.tile, memory);
        cell_.reset_after(cell);
        pass_states_on(group, block, row, count, step, cell.h_next, memory);
      });
    }
  }

  // [n z r] = b + x [Wn Wz Wr];  [z r] += h [Uz Ur].
  template <bool Masked, int R>
  void products_reset_before(Index block, StepInputs<T> x, const T* h, T* gates) const {
    const T* bias = weights_.bias_block(block);
    V all[R][3], recurrent[R][2];
    for (int row = 0; row < R; ++row) {
      for (int slot = 0; slot < 3; ++slot) all[row][slot] = V::load(bias + slot * L);
    }
    multiply_add(all, RowMajor<T>{x.data, x.stride}, weights_.input_block(block), 3 * L, a_.shape.features);
    for (int row = 0; row < R; ++row) {
      all[row][0].store(gates + row * blocks_.gates_row + GateSlots::n * L);
      recurrent[row][0] = all[row][1];
      recurrent[row][1] = all[row][2];
    }
    multiply_states<Masked>(recurrent, h, block);
    for (int row = 0; row < R; ++row) {
      recurrent[row][0].store(gates + row * blocks_.gates_row + GateSlots::z * L);
      recurrent[row][1].store(gates + row * blocks_.gates_row + GateSlots::r * L);
    }
  }

  template <bool Masked>
  void reset_before_gates(const RowGroup& group, Range rows, Range blocks, Index step, StepInputs<T> x,
                          const GroupMemory<T>& memory) const {
    for (Index block = blocks.begin; block < blocks.end; ++block) {
      for_each_tile(rows.size(), [&](Index tile, Index count) {
        const Index row = rows.begin + tile;
        T* const gates = gates_at(group, memory, step, block, row);
        with_constant<kTileRows>(count, [&](auto tile_rows) {
          products_reset_before<Masked, decltype(tile_rows)::value>(
              block, {x.row(row), x.stride}, operand_at<Masked>(group, memory, step, row), gates);
        });
        cell_.reset_before_gates(cell_tile(group, block, row, count, step, gates, memory));
      });
    }
  }

  // n += (r * h) Un, for which every unit's r * h has to be known.
  void reset_before_candidate(const RowGroup& group, Range rows, bool by_units, Index step,
                              const GroupMemory<T>& memory, const Team& team) const {
    const Index row = rows.begin;
    const SegmentedRows<T> reset_h{memory.reset_h + row * blocks_.state_stride, blocks_.state_stride, a_.shape.units};
    const Index panels = weights_.candidate.panels();
    const Range own = by_units ? team.share(panels) : Range{0, panels};
    for (Index p = own.begin; p < own.end; ++p) {
      const auto slot_n = [&](Index r, Index column) {
        return gates_at(group, memory, step, column / L, row + r) + GateSlots::n * L;
      };
      multiply_panel<T>(
          reset_h, rows.size(), weights_.candidate.panel(p),
          [&](Index r, Index column) { return V::load(slot_n(r, column)); },
          [&](Index r, Index column, V n) { n.store(slot_n(r, column)); });
    }
  }

  void reset_before_states(const RowGroup& group, Range rows, Range blocks, Index step,
                           const GroupMemory<T>& memory) const {
    const Index row = rows.begin;
    for (Index block = blocks.begin; block < blocks.end; ++block) {
      T* const gates = gates_at(group, memory, step, block, row);
      const ForwardTile<T> tile = cell_tile(group, block, row, rows.size(), step, gates, memory);
      cell_.reset_before_state(tile);
      pass_states_on(group, block, row, rows.size(), step, tile.h_next, memory);
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
  const bool different = a.sequences.different_lengths();
  const UnitBlocks<T> blocks(shape.units, reset_after);
  const ForwardWeights<T> weights(shape, a.options, workspace);
  const ForwardPass<T> pass(a, weights, blocks);
  const BatchPlan plan = BatchPlan::of<T>(shape);
  const RowGroups groups(plan, a.sequences, workspace);

  // Small weights: whoever is free takes the next rows through time by itself; with a tape or different lengths those
  // are the plan's parts, else the rows can be cut anywhere. Large weights: the threads share them out.
  const bool by_parts = taped || different, small_weights = plan.small_weights();
  const Index limit = num_threads();
  const bool by_units = plan.by_units(limit, blocks.count);
  const bool by_groups = !small_weights && (by_units || by_parts);
  const Cut::Kind kind = by_units ? Cut::by_units : by_groups && different ? Cut::rows_of_a_step : Cut::own_rows;
  const Index useful = by_units                    ? blocks.count
                       : small_weights && by_parts ? plan.parts()
                                                   : (shape.batch + kRowsWorthAThread - 1) / kRowsWorthAThread;
  const int threads = static_cast<int>(std::min(limit, useful));
  const Index slices = number_of_slices(shape.batch, threads);

  // Scratch, a set for each thread; one for all where rows' states pass between them.
  const Index own_rows = (shape.batch + threads - 1) / threads;
  const Index together = by_parts || by_units ? plan.largest_group()
                         : small_weights      ? (shape.batch + slices - 1) / slices
                                              : std::min(own_rows, BatchPlan::kRowsTogether);
  const Index sets = kind == Cut::own_rows ? threads : 1;
  const auto scratch = [&](Index rows, Index row_size, Index count, bool wanted) {
    const Index size = whole_pages<T>(rows * row_size);
    T* const memory = wanted ? workspace.take_pages<T>(size * count) : nullptr;
    return [=](Index set) { return wanted ? memory + set % count * size : nullptr; };
  };
  const auto tile = scratch(kTileRows, blocks.gates_row, threads, reset_after);
  const auto states = scratch(together, 2 * blocks.state_stride, sets, !taped);
  const auto masked =  // one set also where threads have rows of their own in the same group
      scratch(together, 2 * 3 * blocks.state_stride, by_groups ? 1 : threads, bool(a.recurrent_masks));
  const auto gates = scratch(together, blocks.count * blocks.gates_row, sets, !taped && !reset_after);
  const auto reset_h = scratch(together, blocks.state_stride, sets, !reset_after);
  const auto x = scratch(together, shape.features, threads, different);

  Index pairs = shape.batch * shape.steps;
  if (different) {
    const RowGroup last = groups.group(plan.parts() - 1, plan.groups_in_part() - 1);
    pairs = last.pairs_before + last.pairs();
  }
  const bool stream = taped && reset_after && GruTape<T>::outgrows_caches(pairs, blocks);
  const auto memory_of = [&](const RowGroup& group, const Team& team) {
    const GruTape<T> tape = taped ? a.tape.piece(group.pairs_before, group.first, blocks) : GruTape<T>{};
    const Index own = team.index();
    return GroupMemory<T>{tape,       stream,       group.rows, states(own), masked(own),
                          gates(own), reset_h(own), tile(own),  x(own)};
  };
  const auto run_alone = [&](const RowGroup& group, const Team& member) {
    Team alone = member.alone();
    pass.run(group, {Cut::own_rows, {0, group.rows}, {0, blocks.count}}, memory_of(group, member), alone);
    if (different) pass.fill_padding({group.first, group.first + group.rows});
  };
  const double operations = shape.multiply_adds() / Vec<T>::lanes;

  if (small_weights) {
    Items packing(weights.items()), pieces(by_parts ? plan.parts() : slices, shares_of_parts(a.sequences));
    parallel_items(threads, operations, cancellation, [&](Team& team) noexcept {
      packing.run(team, [&](Index item) noexcept { weights.pack(a.parameters, item); });
      pieces.run(team, [&](Index piece) noexcept {
        if (!by_parts) return run_alone(rows_alone(split(shape.batch, piece, slices), shape.steps), team);
        for (Index index = 0; index < plan.groups_in_part(); ++index) run_alone(groups.group(piece, index), team);
      });
    });
    return;
  }
  parallel(threads, operations, cancellation, [&](Team& team) noexcept {
    const Range packing = team.share(weights.items());
    for (Index item = packing.begin; item < packing.end; ++item) weights.pack(a.parameters, item);
    team.barrier();
    if (by_groups) {
      for (Index index = 0; index < plan.groups_in_part(); ++index) {
        const RowGroup group = groups.group(0, index);
        const Cut cut{kind, team.share(group.rows), by_units ? team.share(blocks.count) : Range{0, blocks.count}};
        pass.run(group, cut, memory_of(group, team), team);
        team.barrier();  // the next group is shared out otherwise, and uses the same scratch
      }
      if (different) pass.fill_padding(team.share(shape.batch));
    } else {
      const Range share = team.share(shape.batch);
      const Index count = (share.size() + together - 1) / together;
      for (Index index = 0; index < count; ++index) {
        const Range within = split(share.size(), index, count);
        run_alone(rows_alone({share.begin + within.begin, share.begin + within.end}, shape.steps), team);
      }
    }
  });
}

template void gru_forward(const GruForwardArguments<float>&, Workspace&, Cancellation*);
template void gru_forward(const GruForwardArguments<double>&, Workspace&, Cancellation*);

}  // namespace fastgru
