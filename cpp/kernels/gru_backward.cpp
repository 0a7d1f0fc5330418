#include "kernels/gru_backward.hpp"

#include <algorithm>

#include "kernels/gemm.hpp"
#include "kernels/gru_cell.hpp"
#include "kernels/gru_gradients.hpp"
#include "kernels/gru_weights.hpp"

namespace fastgru {
namespace {

// Backward runs through time in chunks of up to this many (row, step) pairs: first all gate gradients of the chunk,
// then the products for the weights. At H = 64 the operands of a chunk take 0.7 MB and stay in the L2 cache. The number
// determines the order of summation, so it must not depend on the threads.
constexpr Index kChunkDepth = 512;

template <class T>
struct CellFunctions {
  using Function = void (*)(const BackwardTile<T>&);
  Function reset_after, reset_before_candidate, reset_before_reset;

  template <class Cell>
  static CellFunctions of(Cell) {
    return {Cell::reset_after, Cell::reset_before_candidate, Cell::reset_before_reset};
  }
};

// The constants of a call.
template <class T>
struct BackwardCall {
  const GruBackwardArguments<T>& a;
  const BackwardWeights<T>& weights;
  const UnitBlocks<T>& blocks;
  const CellFunctions<T> cell;
  const Index chunk_steps, chunk_depth;  // maximum steps, and (row, step) pairs, of a chunk

  bool masked() const { return bool(a.recurrent_masks); }
  int recurrent_gates() const { return GateSlots::recurrent(a.options.reset_after); }
};

// Scratch for one chunk, per team or per thread that works alone. `depth` counts (step, row) pairs; the row varies
// fastest.
template <class T>
struct ChunkMemory {
  T* d_gates;    // [block][depth][G][L]
  T* x;          // tiles of (depth, F)
  T* h;          // tiles of (depth, H): states before the step; with masks one per gate, by depth and then by gate
  T* reset_h;    // tiles of (depth, H): r * h, times m_n with masks; reset_after=false only
  T* d_h;        // [row][state_stride], carried from step to step
  T* d_reset_h;  // the same layout, reset_after=false only
};

// One step: its rows, and their offset in the chunk.
struct Step {
  Index index;
  Index at, depth;  // offset of the step's rows, and depth of the chunk
  Range rows;
};

// Runs one member's share of a group of rows backward through all steps.
template <class T>
class BackwardGroup {
  using V = Vec<T>;
  static constexpr Index L = V::lanes;

 public:
  BackwardGroup(const BackwardCall<T>& call, const GroupShare& share, const ChunkMemory<T>& memory)
      : call_(call),
        a_(call.a),
        shape_(a_.shape),
        blocks_(call.blocks),
        share_(share),
        group_(share.group),
        memory_(memory),
        tape_(a_.tape, group_, blocks_) {}

  // Adds to `sums`, or overwrites them. Returns whether the next group must overwrite them.
  bool run(const WeightGradients<T>& sums, bool overwrite) const {
    Team& team = share_.team;
    start();
    for (Index end = group_.steps; end > 0;) {
      const Index begin = chunk_begin(end);
      const Index depth = group_.offset(end) - group_.offset(begin);
      for (Index step = end; step-- > begin;) {
        back_one_step({step, group_.offset(step) - group_.offset(begin), depth, share_.rows_at(step)});
      }
      team.barrier();  // until all gate gradients of the chunk are written
      if (team.proceed()) add_weight_gradients(depth, overwrite, sums);
      overwrite = false;
      team.barrier();  // until the gate gradients of the chunk are read
      end = begin;
    }
    finish();
    team.barrier();  // the next group is split differently and uses the same memory
    return overwrite;
  }

 private:
  Index row_in_batch(Index row) const { return a_.sequences.row(group_.first + row); }

  // The first step of the chunk that ends before step `end`.
  Index chunk_begin(Index end) const {
    if (group_.offsets == nullptr) return std::max(end - call_.chunk_steps, Index{0});
    Index begin = end - 1;
    while (begin > 0 && group_.offset(end) - group_.offset(begin - 1) <= call_.chunk_depth) --begin;
    return begin;
  }

  // The chunk's gate gradients of one block, from depth `at` on.
  T* d_gates(Index block, Index at, Index depth) const {
    return memory_.d_gates + (block * depth + at) * blocks_.gates_row;
  }
  T* d_h(Index row) const { return memory_.d_h + row * blocks_.state_stride; }

  // Initialises d_h of each row after its last step; it is unchanged until the row is active.
  void start() const {
    const SequenceMap& map = a_.sequences;
    const Range own = share_.team.share(group_.rows);
    for (Index row = own.begin; row < own.end; ++row) {
      std::fill_n(d_h(row), blocks_.state_stride, T(0));
      if (a_.d_last_state != nullptr) {
        std::copy_n(a_.d_last_state + row_in_batch(row) * shape_.units, shape_.units, d_h(row));
      }
      if (map.different_lengths()) cross_padding(group_.first + row, d_h(row));
    }
    share_.synchronize();
  }

  // Padding: gradients of outputs that repeat the last one are added to its gradient; those of x are zero.
  void cross_padding(Index position, T* d_h) const {
    const SequenceMap& map = a_.sequences;
    const Index length = map.length(position), row = map.row(position);
    if (a_.d_outputs && a_.repeat_last_output && map.has_repeated_outputs(position)) {
      for (Index step = length; step < shape_.steps; ++step) {
        const T* d_output = a_.d_outputs.at(row, step);
        for (Index unit = 0; unit < shape_.units; ++unit) d_h[unit] += d_output[unit];
      }
    }
    if (!a_.d_x) return;
    for (Index step = length; step < shape_.steps; ++step) std::fill_n(a_.d_x.at(row, step), shape_.features, T(0));
  }

  void finish() const {
    if (a_.d_initial_state == nullptr) return;
    const Range own = share_.team.share(group_.rows);
    for (Index row = own.begin; row < own.end; ++row) {
      std::copy_n(d_h(row), shape_.units, a_.d_initial_state + row_in_batch(row) * shape_.units);
    }
  }

  // Computes d_h(t-1) and this step's rows of the chunk.
  void back_one_step(const Step& step) const {
    const bool after = a_.options.reset_after;
    const bool proceed = share_.team.proceed() && step.rows.size() > 0;  // barriers follow in any case
    if (proceed) {
      add_output_gradients(step);
      for_each_cell(step, after ? call_.cell.reset_after : call_.cell.reset_before_candidate);
    }
    share_.synchronize();
    if (!after) {
      if (proceed) store_reset_gradients(step);
      share_.synchronize();
      if (proceed) for_each_cell(step, call_.cell.reset_before_reset);
      share_.synchronize();
    }
    if (proceed) {
      add_state_gradients(step);
      if (a_.d_x) store_input_gradients(step);
      keep_operands(step);
    }
    share_.synchronize();
  }

  void add_output_gradients(const Step& step) const {
    if (!a_.d_outputs) return;
    const SequenceMap& map = a_.sequences;
    for (Index row = step.rows.begin; row < step.rows.end; ++row) {
      const Index position = group_.first + row;
      const T* d_output = a_.d_outputs.at(map.row(position), map.output_step(position, step.index));
      T* const to = d_h(row);
      for (Index unit = share_.blocks.begin * L; unit < share_.blocks.end * L; unit += L) {
        (V::load(to + unit) + V::load_first(d_output + unit, shape_.units - unit)).store(to + unit);
      }
    }
  }

  void for_each_cell(const Step& step, typename CellFunctions<T>::Function cell) const {
    const Index row = step.rows.begin;
    for (Index block = share_.blocks.begin; block < share_.blocks.end; ++block) {
      const Index in_rows = row * blocks_.state_stride + block * L;
      cell({tape_.gates(step.index, block, row), blocks_.gates_row, tape_.states(step.index, row) + block * L,
            blocks_.state_stride, d_gates(block, step.at + row, step.depth), memory_.d_h + in_rows,
            blocks_.state_stride, a_.options.reset_after ? nullptr : memory_.d_reset_h + in_rows, step.rows.size()});
    }
    if (share_.blocks.end == blocks_.count) clear_padding(step);
  }

  // An infinity in x or h makes a padded unit NaN (infinity * 0), and the products over gates include padding.
  void clear_padding(const Step& step) const {
    const Index used = shape_.units - (blocks_.count - 1) * L;
    if (used == L) return;
    T* at = d_gates(blocks_.count - 1, step.at + step.rows.begin, step.depth);
    for (T* const end = at + step.rows.size() * blocks_.gates_row; at < end; at += L) V::load_first(at, used).store(at);
  }

  // sink(row, column, init(row, column) + gate gradients x transposed weights), with `row` relative to the step's rows.
  template <class Init, class Sink>
  FASTGRU_INLINE void multiply_gates(const TransposedWeights<T>& weights, const Step& step, Init&& init,
                                     Sink&& sink) const {
    const auto gates =
        weights.gates(d_gates(0, step.at + step.rows.begin, step.depth), blocks_, step.depth * blocks_.gates_row);
    const Range panels = share_.panels(weights.matrix().panels());
    for (Index p = panels.begin; p < panels.end; ++p) {
      multiply_panel<T>(gates, step.rows.size(), weights.matrix().panel(p), init, sink);
    }
  }
  struct Zero {
    FASTGRU_INLINE V operator()(Index, Index) const { return V(T(0)); }
  };

  // The mask of a gate; `row` is relative to the step's rows.
  V mask_at(int gate, const Step& step, Index row, Index unit) const {
    return a_.recurrent_masks.at(gate, row_in_batch(step.rows.begin + row), unit);
  }

  // reset_after=false: the gradient of r * h, d_n Un^T, with masks m_n * (d_n Un^T).
  void store_reset_gradients(const Step& step) const {
    T* const rows = memory_.d_reset_h + step.rows.begin * blocks_.state_stride;
    const auto to = [&](Index row, Index unit) { return rows + row * blocks_.state_stride + unit; };
    if (call_.masked()) {
      multiply_gates(call_.weights.candidate, step, Zero{}, [&](Index row, Index unit, V sum) {
        (mask_at(RecurrentMasks<T>::n, step, row, unit) * sum).store(to(row, unit));
      });
    } else {
      multiply_gates(call_.weights.candidate, step, Zero{},
                     [&](Index row, Index unit, V sum) { sum.store(to(row, unit)); });
    }
  }

  // d_h += [d_z d_r d_q] U^T; with masks d_h += m_z * (d_z Uz^T), and the same for the other gates.
  void add_state_gradients(const Step& step) const {
    T* const rows = d_h(step.rows.begin);
    const auto at = [&](Index row, Index unit) { return rows + row * blocks_.state_stride + unit; };
    if (!call_.masked()) {
      multiply_gates(
          call_.weights.recurrent[0], step, [&](Index row, Index unit) { return V::load(at(row, unit)); },
          [&](Index row, Index unit, V sum) { sum.store(at(row, unit)); });
      return;
    }
    for (int gate = 0; gate < call_.recurrent_gates(); ++gate) {
      multiply_gates(call_.weights.recurrent[gate], step, Zero{}, [&](Index row, Index unit, V sum) {
        fma(mask_at(gate, step, row, unit), sum, V::load(at(row, unit))).store(at(row, unit));
      });
    }
  }

  void store_input_gradients(const Step& step) const {
    const SequenceMap& map = a_.sequences;
    multiply_gates(call_.weights.kernel, step, Zero{}, [&](Index row, Index column, V sum) {
      const Index position = group_.first + step.rows.begin + row;
      T* const d_x = a_.d_x.at(map.row(position), map.input_step(position, step.index));
      sum.store_first(d_x + column, shape_.features - column);
    });
  }

  // Packs the left operands of the weight gradients by depth while they are in the cache.
  void keep_operands(const Step& step) const {
    const SequenceMap& map = a_.sequences;
    const Range own = share_.by_units ? share_.team.share(step.rows.size()) : step.rows;
    for (Index row = own.begin; row < own.end; ++row) {
      const Index position = group_.first + row, at = step.at + row;
      const T* const x = a_.x.at(map.row(position), map.input_step(position, step.index));
      pack_into_tiles(memory_.x, step.depth, at, x, shape_.features);
      keep_states(step, row, at);
    }
  }
  void keep_states(const Step& step, Index row, Index at) const {
    const Index depth = step.depth, units = shape_.units, in_batch = row_in_batch(row);
    const int gates = call_.recurrent_gates();
    const T* const h = tape_.states(step.index, row);
    if (call_.masked()) {
      for (int gate = 0; gate < gates; ++gate) {
        const T* const mask = a_.recurrent_masks.row(gate, in_batch);
        pack_into_tiles(memory_.h, gates * depth, gates * at + gate, h, mask, units);
      }
    } else {
      pack_into_tiles(memory_.h, depth, at, h, units);
    }
    if (a_.options.reset_after) return;
    T* const reset_h = memory_.d_reset_h + row * blocks_.state_stride;  // reuses the memory of its gradient
    for (Index block = 0; block < blocks_.count; ++block) {
      const V r = V::load(tape_.gates(step.index, block, row) + GateSlots::r * L);
      (r * V::load(h + block * L)).store(reset_h + block * L);
    }
    if (call_.masked()) {
      const T* const mask = a_.recurrent_masks.row(RecurrentMasks<T>::n, in_batch);
      pack_into_tiles(memory_.reset_h, depth, at, reset_h, mask, units);
    } else {
      pack_into_tiles(memory_.reset_h, depth, at, reset_h, units);
    }
  }

  // Second half of a chunk. The work is split by block of units and tile of rows of the weights, so that one thread
  // sums an element over the whole depth.
  void add_weight_gradients(Index depth, bool overwrite, const WeightGradients<T>& to) const {
    const Index input_tiles = (shape_.features + kTileRows - 1) / kTileRows;
    const Index recurrent_tiles = (shape_.units + kTileRows - 1) / kTileRows;
    const Index tiles = input_tiles + recurrent_tiles;
    const Range share = share_.team.share(blocks_.count * tiles);
    for (Index item = share.begin; item < share.end; ++item) {
      const Index block = item / tiles, tile = item % tiles, of_h = tile - input_tiles;
      if (tile < input_tiles) {
        add_product<3>(tile_of(memory_.x, tile, depth), tile, shape_.features, block, GateSlots::n, depth, to.kernel,
                       overwrite);
      } else if (a_.options.reset_after) {
        add_state_product<3>(of_h, block, depth, to.recurrent_kernel, overwrite);
      } else {
        add_state_product<2>(of_h, block, depth, to.recurrent_kernel, overwrite);
        add_product<1>(tile_of(memory_.reset_h, of_h, depth), of_h, shape_.units, block, GateSlots::n, depth,
                       to.recurrent_kernel, overwrite);
      }
      if (tile == 0) add_bias_gradients(block, depth, overwrite, to);
    }
  }

  static TileMajor<T> tile_of(const T* operand, Index tile, Index depth) {
    return {operand + tile * depth * kTileRows};
  }

  // Gradients of the recurrent weights of z, r and, with Gates = 3, q: h^T times the gates' gradients. With masks each
  // gate has its own h.
  template <int Gates>
  void add_state_product(Index tile, Index block, Index depth, T* d_weights, bool overwrite) const {
    const Index units = shape_.units;
    if (call_.masked()) {
      const TileMajorOfEach<T, Gates> operand{memory_.h + tile * Gates * depth * kTileRows};
      add_product<Gates>(operand, tile, units, block, GateSlots::z, depth, d_weights, overwrite);
    } else {
      add_product<Gates>(tile_of(memory_.h, tile, depth), tile, units, block, GateSlots::z, depth, d_weights,
                         overwrite);
    }
  }

  // d_weights(tile of rows, gates of the block) (+)= A^T d_gates, for Slots neighbouring slots; `operand` is the tile
  // of A.
  template <int Slots, class A>
  void add_product(A operand, Index tile, Index count, Index block, int first_slot, Index depth, T* d_weights,
                   bool overwrite) const {
    const Index first_row = tile * kTileRows, unit = block * L;
    const T* gates = d_gates(block, 0, depth) + first_slot * L;
    with_constant<kTileRows>(std::min<Index>(kTileRows, count - first_row), [&](auto tile_rows) {
      constexpr int R = decltype(tile_rows)::value;
      V acc[R][Slots];
      for (int r = 0; r < R; ++r) {
        for (int s = 0; s < Slots; ++s) acc[r][s] = V(T(0));
      }
      multiply_add(acc, operand, gates, blocks_.gates_row, depth);
      for (int r = 0; r < R; ++r) {
        for (int s = 0; s < Slots; ++s) {
          const Index gate = gate_position(WeightLayout::keras, first_slot + s);
          T* to = d_weights + ((first_row + r) * 3 + gate) * shape_.units + unit;
          add_to(to, acc[r][s], shape_.units - unit, overwrite);
        }
      }
    });
  }

  static FASTGRU_INLINE void add_to(T* to, V sum, Index count, bool overwrite) {
    (overwrite ? sum : V::load_first(to, count) + sum).store_first(to, count);
  }

  void add_bias_gradients(Index block, Index depth, bool overwrite, const WeightGradients<T>& to) const {
    if (to.bias == nullptr && to.recurrent_bias == nullptr) return;
    const int recurrent_n = a_.options.reset_after ? GateSlots::q : GateSlots::n;
    V n(T(0)), z(T(0)), r(T(0)), q(T(0));
    const T* gates = d_gates(block, 0, depth);
    for (Index k = 0; k < depth; ++k, gates += blocks_.gates_row) {
      n = n + V::load(gates + GateSlots::n * L);
      z = z + V::load(gates + GateSlots::z * L);
      r = r + V::load(gates + GateSlots::r * L);
      q = q + V::load(gates + recurrent_n * L);
    }
    const Index unit = block * L, count = shape_.units - unit;
    const auto store = [&](T* bias, V sum_of_n) {
      if (bias == nullptr) return;
      const auto add = [&](int slot, V sum) {
        add_to(bias + gate_position(WeightLayout::keras, slot) * shape_.units + unit, sum, count, overwrite);
      };
      add(GateSlots::z, z);
      add(GateSlots::r, r);
      add(GateSlots::n, sum_of_n);
    };
    store(to.bias, n);
    store(to.recurrent_bias, q);
  }

  const BackwardCall<T>& call_;
  const GruBackwardArguments<T>& a_;
  const GruShape& shape_;
  const UnitBlocks<T>& blocks_;
  const GroupShare& share_;
  const RowGroup& group_;
  const ChunkMemory<T>& memory_;
  const TapeView<T> tape_;
};

template <class T>
ChunkMemory<T> take_chunk(const BackwardCall<T>& call, Index rows, Workspace& workspace) {
  const GruShape& s = call.a.shape;
  const Index depth = call.chunk_depth, state = rows * call.blocks.state_stride;
  const auto when_reset_before = [&](Index count) {
    return call.a.options.reset_after ? nullptr : workspace.take<T>(count);
  };
  return {workspace.take_pages<T>(checked_multiply(depth, call.blocks.count * call.blocks.gates_row)),
          workspace.take<T>(tiles_size<T>(depth, s.features)),
          workspace.take<T>(tiles_size<T>(depth * (call.masked() ? call.recurrent_gates() : 1), s.units)),
          when_reset_before(tiles_size<T>(depth, s.units)),
          workspace.take<T>(state),
          when_reset_before(state)};
}

// No rows or no steps: d_initial_state = d_last_state, and all other gradients are zero.
template <class T>
void backward_of_nothing(const GruBackwardArguments<T>& a) {
  a.d_weights.clear(a.shape);
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
  const GruShape& shape = a.shape;
  if (shape.batch == 0 || shape.steps == 0 || shape.units == 0) return backward_of_nothing(a);
  const bool after = a.options.reset_after;
  const UnitBlocks<T> blocks(shape.units, after);
  BackwardWeights<T> weights(shape, after, bool(a.recurrent_masks), bool(a.d_x), workspace);
  const Schedule schedule(shape, a.sequences, blocks, true, workspace);
  const Index rows = schedule.largest_group();
  const Index chunk_steps = std::min(std::max(kChunkDepth / rows, Index{1}), shape.steps);
  const auto functions = [](auto cell) { return CellFunctions<T>::of(cell); };
  const BackwardCall<T> call{a,           weights,           blocks, with_cell<BackwardCell, T>(a.options, functions),
                             chunk_steps, chunk_steps * rows};
  ChunkMemory<T>* const memory = workspace.take<ChunkMemory<T>>(schedule.sets());
  for (Index set = 0; set < schedule.sets(); ++set) memory[set] = take_chunk(call, rows, workspace);
  const GradientSums<T> sums(shape, a.parameters.layout, a.d_weights, schedule.parts(), workspace);

  schedule.run(
      cost::operations<T>(2 * shape.multiply_adds()), cancellation, weights.items(),
      [&](Index item) noexcept { weights.pack(shape, a.parameters, item); },
      [&](Index part, Team& team, Index member) noexcept {
        bool overwrite = true;  // by the first chunk; later chunks add
        for (Index index = 0; index < schedule.groups_in_part(); ++index) {
          const GroupShare share = schedule.share(part, index, team);
          const BackwardGroup<T> group(call, share, memory[schedule.alone() ? member : 0]);
          overwrite = group.run(sums.of_part(part), overwrite);
        }
        if (overwrite && team.index() == 0) sums.of_part(part).clear(shape);  // no sequence had a step
      },
      sums.items(), [&](Index item) noexcept { sums.add(item); });
}

template void gru_backward(const GruBackwardArguments<float>&, Workspace&, Cancellation*);
template void gru_backward(const GruBackwardArguments<double>&, Workspace&, Cancellation*);

}  // namespace fastgru
