#include "kernels/gru_backward.hpp"

#include <algorithm>
#include <array>

#include "kernels/gemm.hpp"
#include "kernels/gru_cell.hpp"
#include "kernels/gru_weights.hpp"

namespace fastgru {
namespace {

// Backward goes through time in chunks: all gate gradients of up to this many (row, step) pairs first; then the
// products for the weights over the whole chunk. At H = 64 a chunk's operands take 0.7 MB and stay in the L2 cache. The
// number fixes the order of summation, so it may not depend on the threads.
constexpr Index kChunkDepth = 512;

constexpr Index kRowsWorthAThread = 4;

// What a thread adds up at a time of the parts' sums: elements enough that claiming them costs nothing beside.
constexpr Index kStretch = 2048;

template <class T>
struct CellFunctions {
  using Function = void (*)(const BackwardTile<T>&);
  Function reset_after, reset_before_candidate, reset_before_reset;

  template <class Cell>
  static CellFunctions of(Cell) {
    return {Cell::reset_after, Cell::reset_before_candidate, Cell::reset_before_reset};
  }
};

// What a team, or a thread that works alone, needs for one chunk. `depth` counts (step, row) pairs, the row running
// fastest.
template <class T>
struct ChunkMemory {
  T* d_gates;  // [block][depth][G][L]
  T* x;        // tiles of (depth, F)
  T* h;        // tiles of (depth, H): states before the step; with masks those of each gate, by depth and then by gate
  T* reset_h;  // tiles of (depth, H): r * h, masked for n; reset before only
  T* d_h;      // [row][state_stride], what flows from step to step
  T* d_reset_h;  // the same layout, reset before only
};

// The sums over time and rows: those of the whole batch, or of a part of it. They lie as in Keras.
template <class T>
struct WeightGradients {
  T* kernel;            // (F, 3H)
  T* recurrent_kernel;  // (H, 3H)
  T* bias;              // (3H) or null
  T* recurrent_bias;    // (3H) or null
};

// A group of rows that goes back through time, and how a team shares it: by rows, the same ones in all steps or a share
// of those at work in each, or by units.
template <class T>
struct Group : RowGroup {
  GruTape<T> tape;  // its piece
  bool by_units;
  bool meets;  // after each stage, because a row's gradients pass between threads
  Range blocks;

  // The rows to take of those at work in a step.
  Range rows_at(Index step, const Team& team) const {
    return by_units ? Range{0, this->at_work(step)} : team.share(this->at_work(step));
  }
};

// What a thread does of one step.
struct StepWork {
  Index step;
  Index at, depth;  // the step's rows within the chunk, and the chunk's
  Range rows;
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
        masked_(arguments.recurrent_masks),
        plan_(BatchPlan::of<T>(shape_)),
        blocks_(shape_.units, reset_after_),
        cell_(with_cell<BackwardCell, T>(a_.options, [](auto cell) { return CellFunctions<T>::of(cell); })),
        groups_(plan_, a_.sequences, workspace),
        chunk_steps_(std::min(std::max(kChunkDepth / plan_.largest_group(), Index{1}), shape_.steps)) {
    const int gates = recurrent_gates();
    if (masked_) {
      for (int gate = 0; gate < gates; ++gate) {
        recurrent_[gate] = TransposedWeights<T>(shape_.units, shape_.units, GateSlots::z + gate, 1, workspace);
      }
    } else {
      recurrent_[0] = TransposedWeights<T>(shape_.units, shape_.units, GateSlots::z, gates, workspace);
    }
    if (!reset_after_) {
      candidate_ = TransposedWeights<T>(shape_.units, shape_.units, GateSlots::n, 1, workspace);
    }
    if (a_.d_x) kernel_ = TransposedWeights<T>(shape_.features, shape_.units, GateSlots::n, 3, workspace);

    const Index limit = num_threads();
    by_units_ = plan_.by_units(limit, blocks_.count);
    const Index useful = by_units_               ? blocks_.count
                         : plan_.small_weights() ? plan_.parts()
                                                 : (shape_.batch + kRowsWorthAThread - 1) / kRowsWorthAThread;
    threads_ = static_cast<int>(std::min(limit, useful));
    const Index crews = plan_.small_weights() ? threads_ : 1;
    memory_ = workspace.take<ChunkMemory<T>>(crews);
    for (Index crew = 0; crew < crews; ++crew) memory_[crew] = take_memory(workspace);
    sums_ = workspace.take<WeightGradients<T>>(plan_.parts());
    for (Index part = 0; part < plan_.parts(); ++part) {
      const bool in_place = part == 0 && !transposed();
      sums_[part] = in_place ? wanted() : take_sums(workspace);
    }
  }

  void run(Cancellation* cancellation) {
    const double operations = 2 * shape_.multiply_adds() / L;
    const Index results = transposed() ? 3 * blocks_.count : plan_.parts() > 1 ? stretches() : 0;  // not in place yet
    if (plan_.small_weights()) {
      Items packing(packing_items()), parts(plan_.parts(), shares_of_parts(a_.sequences)), delivery(results);
      parallel_items(threads_, operations, cancellation, [&](Team& team) noexcept {
        packing.run(team, [&](Index item) noexcept { pack(item); });
        Team alone = team.alone();
        parts.run(team, [&](Index part) noexcept { run_part(part, memory_[team.index()], alone); });
        delivery.run(team, [&](Index result) noexcept { deliver(result); });
      });
      return;
    }
    parallel(threads_, operations, cancellation, [&](Team& team) noexcept {
      const auto share = [&](Index count, const auto& body) {
        const Range own = team.share(count);
        for (Index item = own.begin; item < own.end; ++item) body(item);
        team.barrier();
      };
      share(packing_items(), [&](Index item) { pack(item); });
      run_part(0, memory_[0], team);
      team.barrier();
      share(results, [&](Index result) { deliver(result); });
    });
  }

 private:
  bool transposed() const { return a_.parameters.layout == WeightLayout::torch; }
  WeightGradients<T> wanted() const { return {a_.d_kernel, a_.d_recurrent_kernel, a_.d_bias, a_.d_recurrent_bias}; }

  // The gates whose products h itself enters: z, r and, reset after, q.
  int recurrent_gates() const { return reset_after_ ? 3 : 2; }

  // Packing falls into independent items: the panels of all matrices.
  Index packing_items() const {
    Index items = candidate_.matrix().panels() + kernel_.matrix().panels();
    for (const TransposedWeights<T>& weights : recurrent_) items += weights.matrix().panels();
    return items;
  }
  void pack(Index item) const {
    const WeightLayout layout = a_.parameters.layout;
    const GateMatrix<T> kernel{a_.parameters.kernel, layout, shape_.features, shape_.units};
    const GateMatrix<T> recurrent{a_.parameters.recurrent_kernel, layout, shape_.units, shape_.units};
    for (const TransposedWeights<T>& weights : recurrent_) {
      if (item < weights.matrix().panels()) return weights.pack(recurrent, item);
      item -= weights.matrix().panels();
    }
    if (item < candidate_.matrix().panels()) return candidate_.pack(recurrent, item);
    kernel_.pack(kernel, item - candidate_.matrix().panels());
  }

  ChunkMemory<T> take_memory(Workspace& workspace) const {
    const Index depth = chunk_steps_ * plan_.largest_group();
    const Index state = plan_.largest_group() * blocks_.state_stride;
    const auto when_reset_before = [&](Index count) { return reset_after_ ? nullptr : workspace.take<T>(count); };
    return {workspace.take_pages<T>(checked_multiply(depth, blocks_.count * blocks_.gates_row)),
            workspace.take<T>(tiles_size<T>(depth, shape_.features)),
            workspace.take<T>(tiles_size<T>(depth * (masked_ ? recurrent_gates() : 1), shape_.units)),
            when_reset_before(tiles_size<T>(depth, shape_.units)),
            workspace.take<T>(state),
            when_reset_before(state)};
  }

  WeightGradients<T> take_sums(Workspace& workspace) const {
    const Index columns = 3 * shape_.units;
    const auto bias = [&](const T* wanted) { return wanted == nullptr ? nullptr : workspace.take<T>(columns); };
    return {workspace.take_pages<T>(shape_.features * columns), workspace.take<T>(shape_.units * columns),
            bias(a_.d_bias), bias(a_.d_recurrent_bias)};
  }

  void run_part(Index part, const ChunkMemory<T>& memory, Team& team) const {
    bool overwrite = true;  // the first chunk's sums; later ones add to them
    for (Index index = 0; index < plan_.groups_in_part(); ++index) {
      const RowGroup rows = groups_.group(part, index);
      const bool meets = by_units_ || (rows.offsets != nullptr && !plan_.small_weights());
      const Group<T> group{rows, a_.tape.piece(rows.pairs_before, rows.first, blocks_), by_units_, meets,
                           by_units_ ? team.share(blocks_.count) : Range{0, blocks_.count}};
      start(group, memory, team);
      for (Index end = group.steps; end > 0;) {
        const Index begin = chunk_begin(group, end);
        const Index depth = group.offset(end) - group.offset(begin);
        for (Index step = end; step-- > begin;) {
          const Index at = group.offset(step) - group.offset(begin);
          back_one_step(group, {step, at, depth, group.rows_at(step, team)}, memory, team);
        }
        team.barrier();  // the whole chunk's gate gradients are there
        if (team.proceed()) {
          add_weight_gradients(depth, overwrite, memory, sums_[part], team);
        }
        overwrite = false;
        team.barrier();  // before the next chunk overwrites them
        end = begin;
      }
      finish(group, memory, team);
      team.barrier();  // the next rows are shared out otherwise, and use the same memory
    }
    if (overwrite && team.index() == 0) clear(sums_[part]);  // not one of its sequences had a step
  }

  // The first step of the chunk that ends before step `end`.
  Index chunk_begin(const RowGroup& group, Index end) const {
    if (group.offsets == nullptr) return std::max(end - chunk_steps_, Index{0});
    const Index most = chunk_steps_ * plan_.largest_group();
    Index begin = end - 1;
    while (begin > 0 && group.offset(end) - group.offset(begin - 1) <= most) --begin;
    return begin;
  }

  void clear(const WeightGradients<T>& sums) const {
    const Index columns = 3 * shape_.units;
    std::fill_n(sums.kernel, shape_.features * columns, T(0));
    std::fill_n(sums.recurrent_kernel, shape_.units * columns, T(0));
    for (T* bias : {sums.bias, sums.recurrent_bias}) {
      if (bias != nullptr) std::fill_n(bias, columns, T(0));
    }
  }

  // Adds the parts' sums up. Where results lie as the sums do, an item is a stretch of one of the arrays: what a thread
  // writes lies together then, and few cache lines are written by two threads. As PyTorch lays weights out, it is one
  // gate of one block of units, whose rows of depths lie together.
  void deliver(Index item) const {
    if (transposed()) return deliver_transposed(static_cast<int>(item / blocks_.count), item % blocks_.count * L);
    for (const auto& [which, size] : summed_arrays()) {
      const Index count = stretches(size);
      if (item < count) return deliver_stretch(which, item * kStretch, std::min(size, (item + 1) * kStretch));
      item -= count;
    }
  }

  using SummedArray = T* WeightGradients<T>::*;
  struct SizedArray {
    SummedArray which;
    Index size;
  };
  std::array<SizedArray, 4> summed_arrays() const {
    const Index columns = 3 * shape_.units;
    return {{{&WeightGradients<T>::kernel, shape_.features * columns},
             {&WeightGradients<T>::recurrent_kernel, shape_.units * columns},
             {&WeightGradients<T>::bias, a_.d_bias == nullptr ? 0 : columns},
             {&WeightGradients<T>::recurrent_bias, a_.d_recurrent_bias == nullptr ? 0 : columns}}};
  }
  static Index stretches(Index size) { return (size + kStretch - 1) / kStretch; }
  Index stretches() const {
    Index count = 0;
    for (const SizedArray& array : summed_arrays()) count += stretches(array.size);
    return count;
  }

  void deliver_stretch(SummedArray which, Index begin, Index end) const {
    for (Index at = begin; at < end; at += L) {
      sum_of_parts(which, at, end - at).store_first(wanted().*which + at, end - at);
    }
  }

  void deliver_transposed(int slot, Index unit) const {
    const Index count = std::min(shape_.units - unit, L);
    deliver_squares(&WeightGradients<T>::kernel, shape_.features, slot, unit, count);
    deliver_squares(&WeightGradients<T>::recurrent_kernel, shape_.units, slot, unit, count);
    for (const SummedArray bias : {&WeightGradients<T>::bias, &WeightGradients<T>::recurrent_bias}) {
      T* const to = wanted().*bias;
      if (to == nullptr) continue;
      const Index at = gate_position(WeightLayout::torch, slot) * shape_.units + unit;
      sum_of_parts(bias, sum_position(0, slot, unit), count).store_first(to + at, count);
    }
  }

  // By squares, so that each cache line is written once.
  void deliver_squares(SummedArray which, Index depth, int slot, Index unit, Index count) const {
    T* const to = wanted().*which + (gate_position(WeightLayout::torch, slot) * shape_.units + unit) * depth;
    for (Index first = 0; first < depth; first += L) {
      T square[L][L];
      const Index used = std::min(depth - first, L);
      for (Index k = 0; k < used; ++k) {
        sum_of_parts(which, sum_position(first + k, slot, unit), count).store(square[k]);
      }
      for (Index lane = 0; lane < count; ++lane) {
        for (Index k = 0; k < used; ++k) to[lane * depth + first + k] = square[k][lane];
      }
    }
  }

  // Where the sums for depth k and a gate's units from `unit` on lie.
  Index sum_position(Index k, int slot, Index unit) const {
    return (k * 3 + gate_position(WeightLayout::keras, slot)) * shape_.units + unit;
  }

  // The sum of all parts, in order, for up to L elements.
  V sum_of_parts(SummedArray which, Index at, Index count) const {
    V sum = V::load_first(sums_[0].*which + at, count);
    for (Index part = 1; part < plan_.parts(); ++part) {
      sum = sum + V::load_first(sums_[part].*which + at, count);
    }
    return sum;
  }

  static void meet(const Group<T>& group, Team& team) {
    if (group.meets) team.barrier();
  }

  // The chunk's gate gradients of one block, from `at` (a depth) on.
  T* d_gates_at(const ChunkMemory<T>& memory, Index block, Index at, Index depth) const {
    return memory.d_gates + (block * depth + at) * blocks_.gates_row;
  }

  // d_h of each row behind its last step; it stays there until the row is at work.
  void start(const Group<T>& group, const ChunkMemory<T>& memory, Team& team) const {
    const SequenceMap& map = a_.sequences;
    const Range own = team.share(group.rows);
    for (Index row = own.begin; row < own.end; ++row) {
      const Index place = group.first + row;
      T* d_h = memory.d_h + row * blocks_.state_stride;
      std::fill_n(d_h, blocks_.state_stride, T(0));
      if (a_.d_last_state != nullptr) {
        std::copy_n(a_.d_last_state + map.row(place) * shape_.units, shape_.units, d_h);
      }
      if (map.different_lengths()) cross_padding(place, d_h);
    }
    meet(group, team);
  }

  // Padding: the gradients of outputs that repeat the last one are the last one's; those of x are zero.
  void cross_padding(Index place, T* d_h) const {
    const SequenceMap& map = a_.sequences;
    const Index length = map.length(place);
    // Backwards and in x's order nothing was repeated.
    if (a_.d_outputs && a_.repeat_last_output && length > 0 && !(map.backwards && map.outputs_like_x)) {
      for (Index step = length; step < shape_.steps; ++step) {
        const T* d_output = a_.d_outputs.at(map.row(place), step);
        for (Index unit = 0; unit < shape_.units; ++unit) d_h[unit] += d_output[unit];
      }
    }
    if (a_.d_x) {
      for (Index step = length; step < shape_.steps; ++step) {
        std::fill_n(a_.d_x.at(map.row(place), step), shape_.features, T(0));
      }
    }
  }

  void finish(const Group<T>& group, const ChunkMemory<T>& memory, Team& team) const {
    if (a_.d_initial_state == nullptr) return;
    const Range own = team.share(group.rows);
    for (Index row = own.begin; row < own.end; ++row) {
      std::copy_n(memory.d_h + row * blocks_.state_stride, shape_.units,
                  a_.d_initial_state + a_.sequences.row(group.first + row) * shape_.units);
    }
  }

  // One step of a group: leaves d_h(t-1), and this step's part of the chunk.
  void back_one_step(const Group<T>& group, const StepWork& work, const ChunkMemory<T>& memory, Team& team) const {
    const bool proceed = team.proceed() && work.rows.size() > 0;  // who does not still comes to the barriers
    if (proceed) {
      add_output_gradients(group, work, memory);
      for_each_cell(group, work, memory, reset_after_ ? cell_.reset_after : cell_.reset_before_candidate);
    }
    meet(group, team);
    if (!reset_after_) {
      if (proceed) store_reset_gradients(group, work, memory, team);
      meet(group, team);
      if (proceed) for_each_cell(group, work, memory, cell_.reset_before_reset);
      meet(group, team);
    }
    if (proceed) {
      add_state_gradients(group, work, memory, team);
      if (a_.d_x) store_input_gradients(group, work, memory, team);
      keep_operands(group, work, memory, team);
    }
    meet(group, team);
  }

  void add_output_gradients(const Group<T>& group, const StepWork& work, const ChunkMemory<T>& memory) const {
    if (!a_.d_outputs) return;
    const SequenceMap& map = a_.sequences;
    for (Index row = work.rows.begin; row < work.rows.end; ++row) {
      const Index place = group.first + row;
      const T* d_output = a_.d_outputs.at(map.row(place), map.output_step(place, work.step));
      T* d_h = memory.d_h + row * blocks_.state_stride;
      for (Index unit = group.blocks.begin * L; unit < group.blocks.end * L; unit += L) {
        (V::load(d_h + unit) + V::load_first(d_output + unit, shape_.units - unit)).store(d_h + unit);
      }
    }
  }

  const T* tape_gates(const Group<T>& group, Index row, Index step, Index block) const {
    const Index pairs = group.offset(step) * blocks_.count + block * group.at_work(step) + row;
    return group.tape.gates + pairs * blocks_.gates_row;
  }
  const T* tape_state(const Group<T>& group, Index row, Index step) const {
    return group.tape.states + (group.state_offset(step) + row) * blocks_.state_stride;
  }

  void for_each_cell(const Group<T>& group, const StepWork& work, const ChunkMemory<T>& memory,
                     typename CellFunctions<T>::Function cell) const {
    const Index row = work.rows.begin;
    for (Index block = group.blocks.begin; block < group.blocks.end; ++block) {
      const Index in_row = row * blocks_.state_stride + block * L;
      cell({tape_gates(group, row, work.step, block), blocks_.gates_row, tape_state(group, row, work.step) + block * L,
            blocks_.state_stride, d_gates_at(memory, block, work.at + row, work.depth), memory.d_h + in_row,
            blocks_.state_stride, reset_after_ ? nullptr : memory.d_reset_h + in_row, work.rows.size()});
    }
    if (group.blocks.end == blocks_.count) clear_padding(work, memory);
  }

  // An infinity in x or h makes NaN of a padded unit (infinity * 0), and the products over gates run over padding too.
  void clear_padding(const StepWork& work, const ChunkMemory<T>& memory) const {
    const Index used = shape_.units - (blocks_.count - 1) * L;
    if (used == L) return;
    T* d_gates = d_gates_at(memory, blocks_.count - 1, work.at + work.rows.begin, work.depth);
    for (Index packet = 0; packet < work.rows.size() * blocks_.gates_row / L; ++packet, d_gates += L) {
      V::load_first(d_gates, used).store(d_gates);
    }
  }

  Range own_panels(const PackedMatrix<T>& matrix, const Group<T>& group, const Team& team) const {
    return group.by_units ? team.share(matrix.panels()) : Range{0, matrix.panels()};
  }

  // to(row, :) = finished(row, :, first(row, :) + the step's gate gradients times transposed weights).
  template <class First, class Finished>
  void multiply_gates(const TransposedWeights<T>& weights, const Group<T>& group, const StepWork& work,
                      const ChunkMemory<T>& memory, const Team& team, T* to, First&& first, Finished&& finished) const {
    const Range own = work.rows, panels = own_panels(weights.matrix(), group, team);
    T* const rows = to + own.begin * blocks_.state_stride;
    const auto gates =
        weights.gates(d_gates_at(memory, 0, work.at + own.begin, work.depth), blocks_, work.depth * blocks_.gates_row);
    for (Index p = panels.begin; p < panels.end; ++p) {
      multiply_panel<T>(
          gates, own.size(), weights.matrix().panel(p), [&](Index row, Index column) { return first(row, column); },
          [&](Index row, Index column, V sum) {
            finished(row, column, sum).store(rows + row * blocks_.state_stride + column);
          });
    }
  }

  // The mask of a gate for the row-th of a step's rows.
  V mask_at(int gate, const Group<T>& group, const StepWork& work, Index row, Index unit) const {
    return a_.recurrent_masks.at(gate, a_.sequences.row(group.first + work.rows.begin + row), unit);
  }

  // Reset before: the gradient of r * h, d_n Un^T, with masks m_n * (d_n Un^T).
  void store_reset_gradients(const Group<T>& group, const StepWork& work, const ChunkMemory<T>& memory,
                             const Team& team) const {
    const auto zero = [](Index, Index) { return V(T(0)); };
    if (!masked_) {
      multiply_gates(candidate_, group, work, memory, team, memory.d_reset_h, zero,
                     [](Index, Index, V sum) { return sum; });
      return;
    }
    multiply_gates(candidate_, group, work, memory, team, memory.d_reset_h, zero, [&](Index row, Index unit, V sum) {
      return mask_at(RecurrentMasks<T>::n, group, work, row, unit) * sum;
    });
  }

  // d_h += [d_z d_r d_q] U^T, or with masks d_h += m_z * (d_z Uz^T), and so for the other gates.
  void add_state_gradients(const Group<T>& group, const StepWork& work, const ChunkMemory<T>& memory,
                           const Team& team) const {
    const T* const rows = memory.d_h + work.rows.begin * blocks_.state_stride;
    const auto d_h = [&](Index row, Index column) { return V::load(rows + row * blocks_.state_stride + column); };
    if (!masked_) {
      multiply_gates(recurrent_[0], group, work, memory, team, memory.d_h, d_h,
                     [](Index, Index, V sum) { return sum; });
      return;
    }
    for (int gate = 0; gate < recurrent_gates(); ++gate) {
      multiply_gates(
          recurrent_[gate], group, work, memory, team, memory.d_h, [](Index, Index) { return V(T(0)); },
          [&](Index row, Index unit, V sum) {
            return fma(mask_at(gate, group, work, row, unit), sum, d_h(row, unit));
          });
    }
  }

  void store_input_gradients(const Group<T>& group, const StepWork& work, const ChunkMemory<T>& memory,
                             const Team& team) const {
    const SequenceMap& map = a_.sequences;
    const Range own = work.rows, panels = own_panels(kernel_.matrix(), group, team);
    const auto gates =
        kernel_.gates(d_gates_at(memory, 0, work.at + own.begin, work.depth), blocks_, work.depth * blocks_.gates_row);
    for (Index p = panels.begin; p < panels.end; ++p) {
      multiply_panel<T>(
          gates, own.size(), kernel_.matrix().panel(p), [](Index, Index) { return V(T(0)); },
          [&](Index row, Index column, V sum) {
            const Index place = group.first + own.begin + row;
            T* const d_x = a_.d_x.at(map.row(place), map.input_step(place, work.step));
            sum.store_first(d_x + column, shape_.features - column);
          });
    }
  }

  // The left operands of the weight gradients, stored by depth while they are at hand.
  void keep_operands(const Group<T>& group, const StepWork& work, const ChunkMemory<T>& memory,
                     const Team& team) const {
    const SequenceMap& map = a_.sequences;
    const Index depth = work.depth;
    const Range own = group.by_units ? team.share(work.rows.size()) : work.rows;
    for (Index row = own.begin; row < own.end; ++row) {
      const Index place = group.first + row, at = work.at + row;
      const Index in_batch = map.row(place), units = shape_.units;
      const T* h = tape_state(group, row, work.step);
      pack_into_tiles(memory.x, depth, at, a_.x.at(in_batch, map.input_step(place, work.step)), shape_.features);
      if (masked_) {
        const int gates = recurrent_gates();
        for (int gate = 0; gate < gates; ++gate) {
          const T* const mask = a_.recurrent_masks.row(gate, in_batch);
          pack_into_tiles(memory.h, gates * depth, gates * at + gate, h, mask, units);
        }
      } else {
        pack_into_tiles(memory.h, depth, at, h, units);
      }
      if (reset_after_) continue;
      T* reset_h = memory.d_reset_h + row * blocks_.state_stride;  // its gradient has been used up
      for (Index block = 0; block < blocks_.count; ++block) {
        const V r = V::load(tape_gates(group, row, work.step, block) + GateSlots::r * L);
        (r * V::load(h + block * L)).store(reset_h + block * L);
      }
      if (masked_) {
        const T* const mask = a_.recurrent_masks.row(RecurrentMasks<T>::n, in_batch);
        pack_into_tiles(memory.reset_h, depth, at, reset_h, mask, units);
      } else {
        pack_into_tiles(memory.reset_h, depth, at, reset_h, units);
      }
    }
  }

  // Second half of a chunk. The work is cut by block of columns and tile of rows of the weights, so that every
  // element is summed by one thread over the whole depth.
  void add_weight_gradients(Index depth, bool overwrite, const ChunkMemory<T>& memory, const WeightGradients<T>& to,
                            const Team& team) const {
    const Index input_tiles = (shape_.features + kTileRows - 1) / kTileRows;
    const Index recurrent_tiles = (shape_.units + kTileRows - 1) / kTileRows;
    const Index tiles = input_tiles + recurrent_tiles;
    const Range share = team.share(blocks_.count * tiles);
    for (Index item = share.begin; item < share.end; ++item) {
      const Index block = item / tiles, tile = item % tiles;
      if (tile < input_tiles) {
        add_product<3>(tile_of(memory.x, tile, depth), tile, shape_.features, block, GateSlots::n, depth, memory,
                       to.kernel, overwrite);
      } else if (reset_after_) {
        add_state_product<3>(tile - input_tiles, block, depth, memory, to, overwrite);
      } else {
        add_state_product<2>(tile - input_tiles, block, depth, memory, to, overwrite);
        add_product<1>(tile_of(memory.reset_h, tile - input_tiles, depth), tile - input_tiles, shape_.units, block,
                       GateSlots::n, depth, memory, to.recurrent_kernel, overwrite);
      }
      if (tile == 0) add_bias_gradients(block, depth, overwrite, memory, to);
    }
  }

  static TileMajor<T> tile_of(const T* operand, Index tile, Index depth) {
    return {operand + tile * depth * kTileRows};
  }

  // What z, r and, with Gates = 3, q have of the recurrent weights: their gradients times h, or times an h for each.
  template <int Gates>
  void add_state_product(Index tile, Index block, Index depth, const ChunkMemory<T>& memory,
                         const WeightGradients<T>& to, bool overwrite) const {
    if (masked_) {
      add_product<Gates>(TileMajorOfEach<T, Gates>{memory.h + tile * Gates * depth * kTileRows}, tile, shape_.units,
                         block, GateSlots::z, depth, memory, to.recurrent_kernel, overwrite);
    } else {
      add_product<Gates>(tile_of(memory.h, tile, depth), tile, shape_.units, block, GateSlots::z, depth, memory,
                         to.recurrent_kernel, overwrite);
    }
  }

  // d_weights(tile of rows, gates of the block) (+)= A^T d_gates, for Slots neighbouring slots; `operand` is the tile
  // of A.
  template <int Slots, class A>
  void add_product(A operand, Index tile, Index count, Index block, int first_slot, Index depth,
                   const ChunkMemory<T>& memory, T* d_weights, bool overwrite) const {
    const Index first_row = tile * kTileRows, unit = block * L;
    const T* d_gates = d_gates_at(memory, block, 0, depth) + first_slot * L;
    with_constant<kTileRows>(std::min<Index>(kTileRows, count - first_row), [&](auto tile_rows) {
      constexpr int R = decltype(tile_rows)::value;
      V acc[R][Slots];
      for (int r = 0; r < R; ++r) {
        for (int s = 0; s < Slots; ++s) acc[r][s] = V(T(0));
      }
      multiply_add(acc, operand, d_gates, blocks_.gates_row, depth);
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

  void add_bias_gradients(Index block, Index depth, bool overwrite, const ChunkMemory<T>& memory,
                          const WeightGradients<T>& to) const {
    if (to.bias == nullptr && to.recurrent_bias == nullptr) return;
    const int recurrent_n = reset_after_ ? GateSlots::q : GateSlots::n;
    V n(T(0)), z(T(0)), r(T(0)), q(T(0));
    const T* d_gates = d_gates_at(memory, block, 0, depth);
    for (Index k = 0; k < depth; ++k, d_gates += blocks_.gates_row) {
      n = n + V::load(d_gates + GateSlots::n * L);
      z = z + V::load(d_gates + GateSlots::z * L);
      r = r + V::load(d_gates + GateSlots::r * L);
      q = q + V::load(d_gates + recurrent_n * L);
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

  const GruBackwardArguments<T>& a_;
  const GruShape& shape_;
  const bool reset_after_, masked_;
  const BatchPlan plan_;
  const UnitBlocks<T> blocks_;
  const CellFunctions<T> cell_;
  TransposedWeights<T> recurrent_[3];  // the first has z, r and q together, or with masks each has one of them
  TransposedWeights<T> candidate_, kernel_;
  const RowGroups groups_;
  const Index chunk_steps_;
  bool by_units_ = false;
  int threads_ = 1;
  ChunkMemory<T>* memory_ = nullptr;    // a thread's each, or the team's
  WeightGradients<T>* sums_ = nullptr;  // a part's each; the first are the results, unless those lie as in PyTorch
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
  BackwardPass<T>(a, workspace).run(cancellation);
}

template void gru_backward(const GruBackwardArguments<float>&, Workspace&, Cancellation*);
template void gru_backward(const GruBackwardArguments<double>&, Workspace&, Cancellation*);

}  // namespace fastgru
