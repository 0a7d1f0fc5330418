#include "kernels/gru_forward.hpp"

#include <algorithm>
#include <stdexcept>

#include "kernels/gemm.hpp"
#include "kernels/gru_cell.hpp"

namespace fastgru {
namespace {

// Puts the scratch of each thread on its own pages: prefetchers read past the end of one thread's scratch and would
// take the next thread's lines out of its cache.
template <class T>
T* take_apart(Workspace& workspace, Index count) {
  return workspace.take_pages<T>(count + 4096 / Index{sizeof(T)});
}

// The cell functions for the activations of a pass.
template <class T>
struct CellFunctions {
  using Function = void (*)(const ForwardTile<T>&);
  Function reset_after, reset_before_gates, reset_before_state;

  template <class Cell>
  static CellFunctions of(Cell) {
    return {Cell::reset_after, Cell::reset_before_gates, Cell::reset_before_state};
  }
};

// Scratch of a thread; null if it is not needed. If the threads share the rows of a group, they share the first four.
template <class T>
struct ForwardScratch {
  T* states;   // without a tape: two steps, used alternately
  T* masked;   // with recurrent masks: masked states of two steps, used alternately, [row][block][z, r, n][L]
  T* gates;    // without a tape, reset_after=false: all blocks of one step
  T* reset_h;  // reset_after=false: r * h
  T* tile;     // reset_after: gates of one tile
  T* x;        // with different lengths: inputs of one step
};

// The constants of a call.
template <class T, class Element>
struct ForwardCall {
  const GruForwardArguments<T, Element>& a;
  const ForwardWeights<T, Element>& weights;
  const UnitBlocks<T> blocks;
  const CellFunctions<T> cell;
  bool stream = false;  // write the tape with non-temporal stores

  bool taped() const { return a.tape.gates != nullptr; }
  bool masked() const { return bool(a.recurrent_masks); }
};

// One step: its rows of the group, and x from the first of them on.
template <class T>
struct Step {
  Index index;
  Range rows;
  RowMajor<T> x;
};

// Runs one member's share of a group of rows through all steps.
template <class T, class Element>
class ForwardGroup {
  using V = Vec<T>;
  static constexpr Index L = V::lanes;

 public:
  ForwardGroup(const ForwardCall<T, Element>& call, const GroupShare& share, const ForwardScratch<T>& scratch)
      : call_(call),
        a_(call.a),
        weights_(call.weights),
        blocks_(call.blocks),
        share_(share),
        group_(share.group),
        scratch_(scratch),
        tape_(call.taped() ? TapeView<T>(a_.tape, group_, blocks_)
                           : TapeView<T>(scratch.gates, scratch.states, group_, blocks_)) {}

  void run() const {
    const Range all = share_.rows(group_.rows);
    if (all.size() == 0 && !share_.needs_barriers) return;
    start(all);
    share_.synchronize();
    for (Index index = 0; index < group_.steps; ++index) {
      const Range rows = share_.rows_at(index);
      const bool proceed = share_.team.proceed() && rows.size() > 0;  // barriers follow in any case
      if (!proceed && !share_.needs_barriers) break;
      const Step<T> step{index, rows, proceed ? inputs(index, rows) : RowMajor<T>{}};
      if (a_.options.reset_after) {
        if (proceed) reset_after(step);
      } else {
        if (proceed) reset_before_gates(step);
        share_.synchronize();
        if (proceed) reset_before_candidate(step);
        share_.synchronize();
        if (proceed) reset_before_states(step);
      }
      share_.synchronize();
    }
    if (call_.stream) fence_streams();
    finish(all);
  }

  // Outputs after the ends of sequences. Call it once the sequences are complete.
  void fill_padding() const {
    const SequenceMap& map = a_.sequences;
    if (!a_.outputs || !map.different_lengths()) return;
    const Range own = share_.team.share(group_.rows);
    for (Index position = group_.first + own.begin; position < group_.first + own.end; ++position) {
      const Index length = map.length(position), row = map.row(position), units = a_.shape.units;
      const bool repeat = a_.repeat_last_output && map.has_repeated_outputs(position);
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
  Index row_in_batch(Index row) const { return a_.sequences.row(group_.first + row); }

  // x for some rows of a step: a view of the caller's array, or gathered from the current step of each sequence.
  RowMajor<T> inputs(Index step, Range rows) const {
    const SequenceMap& map = a_.sequences;
    if (!map.different_lengths()) return {a_.x.at(group_.first + rows.begin, step), a_.x.row_stride};
    const Index features = a_.shape.features;
    for (Index row = rows.begin; row < rows.end; ++row) {
      const Index position = group_.first + row;
      std::copy_n(a_.x.at(map.row(position), map.input_step(position, step)), features, scratch_.x + row * features);
    }
    return {scratch_.x + rows.begin * features, features};
  }

  Index masked_stride() const { return 3 * blocks_.state_stride; }
  T* masked_at(Index step, Index row) const {
    return scratch_.masked + (step % 2 * group_.rows + row) * masked_stride();
  }

  // states[0] = initial_state or 0. Padded units stay finite for finite inputs and affect no other lane.
  void start(Range rows) const {
    const Range blocks = share_.blocks;
    const Index begin = blocks.begin * L;
    const Index end = blocks.end == blocks_.count ? blocks_.state_stride : blocks.end * L;
    const Index used = std::min(end, a_.shape.units);
    for (Index row = rows.begin; row < rows.end; ++row) {
      T* const h = tape_.states(0, row);
      std::fill(h + begin, h + end, T(0));
      if (a_.initial_state == nullptr) continue;
      const T* from = a_.initial_state + row_in_batch(row) * a_.shape.units;
      std::copy(from + begin, from + used, h + begin);
    }
    if (!call_.masked()) return;
    for (Index block = blocks.begin; block < blocks.end; ++block) mask_states(0, block, rows);
  }

  // m_z * h, m_r * h and m_n * h of a block of units, for the products of a step.
  void mask_states(Index step, Index block, Range rows) const {
    const T* h = tape_.states(step, rows.begin) + block * L;
    for (Index row = rows.begin; row < rows.end; ++row, h += blocks_.state_stride) {
      T* const to = masked_at(step, row) + block * 3 * L;
      for (int gate = 0; gate < 3; ++gate) {
        (V::load(h) * a_.recurrent_masks.at(gate, row_in_batch(row), block * L)).store(to + gate * L);
      }
    }
  }

  void finish(Range rows) const {
    if (a_.last_state == nullptr) return;
    const Index begin = share_.blocks.begin * L, end = std::min(share_.blocks.end * L, a_.shape.units);
    for (Index row = rows.begin; row < rows.end; ++row) {
      const T* h = tape_.states(a_.sequences.length(group_.first + row), row);
      std::copy(h + begin, h + end, a_.last_state + row_in_batch(row) * a_.shape.units + begin);
    }
  }

  ForwardTile<T> cell_tile(Index step, Index block, Range rows, T* gates) const {
    const Index row = rows.begin;
    const bool apart = a_.options.reset_after && call_.taped();  // `gates` points to scratch_.tile, not to the tape
    const T* const h = tape_.states(step, row) + block * L;
    const bool masked = call_.masked();
    return {gates,
            apart ? tape_.gates(step, block, row) : nullptr,
            call_.stream,
            blocks_.gates_row,
            h,
            tape_.states(step + 1, row) + block * L,
            blocks_.state_stride,
            masked ? masked_at(step, row) + (block * 3 + RecurrentMasks<T>::n) * L : h,
            masked ? masked_stride() : blocks_.state_stride,
            a_.options.reset_after ? nullptr : scratch_.reset_h + row * blocks_.state_stride + block * L,
            rows.size()};
  }

  // Copies new states to the outputs, and with masks to the masked states of the next step.
  void pass_states_on(Index step, Index block, Range rows) const {
    const SequenceMap& map = a_.sequences;
    if (a_.outputs) {
      const T* h = tape_.states(step + 1, rows.begin) + block * L;
      for (Index row = rows.begin; row < rows.end; ++row, h += blocks_.state_stride) {
        const Index position = group_.first + row;
        T* const output = a_.outputs.at(map.row(position), map.output_step(position, step)) + block * L;
        V::load(h).store_first(output, a_.shape.units - block * L);
      }
    }
    if (call_.masked()) mask_states(step + 1, block, rows);
  }

  // acc += h U for the block's first gates: z, r and, with Gates = 3, n. With masks each gate has its own h.
  template <bool Masked, int R, int Gates>
  FASTGRU_INLINE void multiply_states(V (&acc)[R][Gates], Index step, Index block, Index row) const {
    const Element* weights = weights_.recurrent.panel(block).data;
    const Index units = a_.shape.units;
    if constexpr (Masked) {
      const T* h = masked_at(step, row);
      for (Index unit = 0; unit < units; unit += L, h += 3 * L, weights += Gates * L * L) {
        multiply_add(acc, RowMajorOfEach<T, L>{h, masked_stride()}, weights, Gates * L, std::min(L, units - unit));
      }
    } else {
      multiply_add(acc, RowMajor<T>{tape_.states(step, row), blocks_.state_stride}, weights, Gates * L, units);
    }
  }

  // [n z r] = b + x [Wn Wz Wr];  [z r (q)] += h [Uz Ur (Uq)]; q starts from its own bias.
  template <bool Masked, int R, int Gates>
  void multiply_tile(const Step<T>& step, Index block, Index row, T* gates) const {
    const T* bias = weights_.bias_of(block);
    V of_x[R][3], of_h[R][Gates];
    for (int r = 0; r < R; ++r) {
      for (int slot = 0; slot < 3; ++slot) of_x[r][slot] = V::load(bias + slot * L);
    }
    const RowMajor<T> x{step.x.data + (row - step.rows.begin) * step.x.stride, step.x.stride};
    multiply_add(of_x, x, weights_.input.panel(block).data, 3 * L, a_.shape.features);
    const V q = V::load(bias + GateSlots::q * L);
    for (int r = 0; r < R; ++r) {  // n is complete, and q takes its register
      of_x[r][0].store(gates + r * blocks_.gates_row + GateSlots::n * L);
      of_h[r][0] = of_x[r][1];
      of_h[r][1] = of_x[r][2];
      if constexpr (Gates == 3) of_h[r][2] = q;
    }
    multiply_states<Masked>(of_h, step.index, block, row);
    for (int r = 0; r < R; ++r) {
      for (int slot = 0; slot < Gates; ++slot) {
        of_h[r][slot].store(gates + r * blocks_.gates_row + (GateSlots::z + slot) * L);
      }
    }
  }
  // The same, for a number of rows known at run time.
  template <int Gates>
  FASTGRU_INLINE void multiply(const Step<T>& step, Index block, Range rows, T* gates) const {
    with_constant<kTileRows>(rows.size(), [&](auto count) {
      constexpr int R = decltype(count)::value;
      call_.masked() ? multiply_tile<true, R, Gates>(step, block, rows.begin, gates)
                     : multiply_tile<false, R, Gates>(step, block, rows.begin, gates);
    });
  }

  // A whole step, one tile at a time.
  void reset_after(const Step<T>& step) const {
    for (Index block = share_.blocks.begin; block < share_.blocks.end; ++block) {
      for_each_tile(step.rows, [&](Range rows) {
        multiply<3>(step, block, rows, scratch_.tile);
        call_.cell.reset_after(cell_tile(step.index, block, rows, scratch_.tile));
        pass_states_on(step.index, block, rows);
      });
    }
  }

  // z, r and r * h.
  void reset_before_gates(const Step<T>& step) const {
    for (Index block = share_.blocks.begin; block < share_.blocks.end; ++block) {
      for_each_tile(step.rows, [&](Range rows) {
        T* const gates = tape_.gates(step.index, block, rows.begin);
        multiply<2>(step, block, rows, gates);
        call_.cell.reset_before_gates(cell_tile(step.index, block, rows, gates));
      });
    }
  }

  // n += (r * h) Un, which needs r * h of every unit.
  void reset_before_candidate(const Step<T>& step) const {
    const Index row = step.rows.begin;
    const BlockedRows<T> reset_h{scratch_.reset_h + row * blocks_.state_stride, blocks_.state_stride, a_.shape.units};
    const auto slot_n = [&](Index r, Index column) {
      return tape_.gates(step.index, column / L, row + r) + GateSlots::n * L;
    };
    const Range panels = share_.panels(weights_.candidate.panels());
    for (Index p = panels.begin; p < panels.end; ++p) {
      multiply_panel<T>(
          reset_h, step.rows.size(), weights_.candidate.panel(p),
          [&](Index r, Index column) { return V::load(slot_n(r, column)); },
          [&](Index r, Index column, V n) { n.store(slot_n(r, column)); });
    }
  }

  void reset_before_states(const Step<T>& step) const {
    for (Index block = share_.blocks.begin; block < share_.blocks.end; ++block) {
      T* const gates = tape_.gates(step.index, block, step.rows.begin);
      call_.cell.reset_before_state(cell_tile(step.index, block, step.rows, gates));
      pass_states_on(step.index, block, step.rows);
    }
  }

  const ForwardCall<T, Element>& call_;
  const GruForwardArguments<T, Element>& a_;
  const ForwardWeights<T, Element>& weights_;
  const UnitBlocks<T>& blocks_;
  const GroupShare& share_;
  const RowGroup& group_;
  const ForwardScratch<T>& scratch_;
  const TapeView<T> tape_;
};

// Allocates scratch for each thread. Threads that share rows share the buffers that pass between them.
template <class T, class Element>
ForwardScratch<T>* take_scratch(const ForwardCall<T, Element>& call, const Schedule& schedule, Workspace& workspace) {
  const UnitBlocks<T>& blocks = call.blocks;
  const bool after = call.a.options.reset_after;
  const auto take = [&](bool wanted, Index rows, Index row_size) {
    return wanted ? take_apart<T>(workspace, rows * row_size) : nullptr;
  };
  const Index rows = schedule.largest_group();
  ForwardScratch<T>* const scratch = workspace.take<ForwardScratch<T>>(schedule.threads());
  for (Index thread = 0; thread < schedule.threads(); ++thread) {
    ForwardScratch<T>& s = scratch[thread] = scratch[0];
    if (thread < schedule.sets()) {
      s.states = take(!call.taped(), rows, 2 * blocks.state_stride);
      s.masked = take(call.masked(), rows, 2 * 3 * blocks.state_stride);
      s.gates = take(!call.taped() && !after, rows, blocks.count * blocks.gates_row);
      s.reset_h = take(!after, rows, blocks.state_stride);
    }
    s.tile = take(after, kTileRows, blocks.gates_row);
    s.x = take(call.a.sequences.different_lengths(), rows, call.a.shape.features);
  }
  return scratch;
}

}  // namespace

template <class T, class Element>
void gru_forward(const GruForwardArguments<T, Element>& a, Workspace& workspace, Cancellation* cancellation) {
  if (a.shape.batch == 0 || a.shape.units == 0) return;
  if (a.packed != nullptr && !a.packed->fit(a.shape, a.options.reset_after)) {
    throw std::invalid_argument("packed: expected weights of this shape and form, got those of another GRU");
  }
  ForwardWeights<T, Element> own;
  if (a.packed == nullptr) own = ForwardWeights<T, Element>(a.shape, a.options.reset_after, workspace);
  const auto functions = [](auto cell) { return CellFunctions<T>::of(cell); };
  ForwardCall<T, Element> call{a, a.packed == nullptr ? own : *a.packed,
                               UnitBlocks<T>(a.shape.units, a.options.reset_after),
                               with_cell<ForwardCell, T>(a.options, functions)};
  const Schedule schedule(a.shape, a.sequences, call.blocks, call.taped(), workspace);
  const ForwardScratch<T>* const scratch = take_scratch(call, schedule, workspace);
  call.stream = call.taped() && a.options.reset_after && GruTape<T>::outgrows_caches(schedule.pairs(), call.blocks);

  schedule.run(
      cost::operations<T>(a.shape.multiply_adds()), cancellation, own.items(),
      [&](Index item) noexcept { own.pack(a.parameters, item); },
      [&](Index part, Team& team, Index member) noexcept {
        for (Index index = 0; index < schedule.groups_in_part(); ++index) {
          const GroupShare share = schedule.share(part, index, team);
          const ForwardGroup<T, Element> group(call, share, scratch[member]);
          group.run();
          team.barrier();  // the next group is split differently and uses the same scratch
          group.fill_padding();
        }
      },
      0, [](Index) noexcept {});
}

template void gru_forward(const GruForwardArguments<float>&, Workspace&, Cancellation*);
template void gru_forward(const GruForwardArguments<double>&, Workspace&, Cancellation*);

}  // namespace fastgru
