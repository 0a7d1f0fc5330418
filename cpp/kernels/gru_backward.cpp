#include "kernels/gru_backward.hpp"

#include <algorithm>

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
  T* d_gates;    // [block][depth][G][L]
  T* x;          // tiles of (depth, F)
  T* h;          // tiles of (depth, H): states before the step
  T* reset_h;    // tiles of (depth, H): r * h, reset before only
  T* d_h;        // [row][state_stride], what flows from step to step
  T* d_reset_h;  // the same layout, reset before only
};

// The sums over time and rows: those of the whole batch, or of a part of it.
template <class T>
struct WeightGradients {
  T* kernel;            // (F, 3H)
  T* recurrent_kernel;  // (H, 3H)
  T* bias;              // (3H) or null
  T* recurrent_bias;    // (3H) or null
};

// The group of rows at work, and which of it a thread does in each step: some rows of all units, or some units of all
// rows.
template <class T>
struct Group {
  Index first, rows;  // of the batch
  GruTape<T> tape;    // its piece
  Range own_rows, own_blocks;
  bool by_units;  // then the team meets after each stage, because every product reads all units
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
        plan_(BatchPlan::of<T>(shape_)),
        blocks_(shape_.units, reset_after_),
        cell_(with_cell<BackwardCell, T>(a_.options, [](auto cell) { return CellFunctions<T>::of(cell); })),
        recurrent_(shape_.units, shape_.units, GateSlots::z, reset_after_ ? 3 : 2, workspace),
        chunk_steps_(std::min(std::max(kChunkDepth / plan_.largest_group(), Index{1}), shape_.steps)) {
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
    sums_[0] = {a_.d_kernel, a_.d_recurrent_kernel, a_.d_bias, a_.d_recurrent_bias};
    for (Index part = 1; part < plan_.parts(); ++part) sums_[part] = take_sums(workspace);
  }

  int threads() const { return threads_; }

  void run(Team& team) {
    recurrent_.pack(a_.parameters.recurrent_kernel, team);
    if (!reset_after_) candidate_.pack(a_.parameters.recurrent_kernel, team);
    if (a_.d_x) kernel_.pack(a_.parameters.kernel, team);
    team.barrier();
    if (!plan_.small_weights()) return run_part(0, memory_[0], team);

    Team alone = team.alone();
    const Range own = team.share(plan_.parts());
    for (Index part = own.begin; part < own.end; ++part) {
      run_part(part, memory_[team.index()], alone);
    }
    team.barrier();
    add_parts(team);
  }

 private:
  ChunkMemory<T> take_memory(Workspace& workspace) const {
    const Index depth = chunk_steps_ * plan_.largest_group();
    const Index state = plan_.largest_group() * blocks_.state_stride;
    const auto when_reset_before = [&](Index count) { return reset_after_ ? nullptr : workspace.take<T>(count); };
    return {workspace.take_pages<T>(checked_multiply(depth, blocks_.count * blocks_.gates_row)),
            workspace.take<T>(tiles_size<T>(depth, shape_.features)),
            workspace.take<T>(tiles_size<T>(depth, shape_.units)),
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
      const Range rows = plan_.rows(part, index);
      const Range all_rows{0, rows.size()}, all_blocks{0, blocks_.count};
      const Group<T> group{rows.begin,
                           rows.size(),
                           a_.tape.piece(rows.begin, shape_, blocks_),
                           by_units_ ? all_rows : team.share(rows.size()),
                           by_units_ ? team.share(blocks_.count) : all_blocks,
                           by_units_};
      start(group, memory, team);
      for (Index end = shape_.steps; end > 0; end -= std::min(end, chunk_steps_)) {
        const Index begin = std::max(end - chunk_steps_, Index{0});
        const Index depth = (end - begin) * group.rows;
        for (Index step = end; step-- > begin;) {
          back_one_step(group, step, (step - begin) * group.rows, depth, memory, team);
        }
        team.barrier();  // the whole chunk's gate gradients are there
        if (team.proceed()) {
          add_weight_gradients(depth, overwrite, memory, sums_[part], team);
        }
        overwrite = false;
        team.barrier();  // before the next chunk overwrites them
      }
      finish(group, memory, team);
      team.barrier();  // the next rows are shared out otherwise, and use the same memory
    }
  }

  // The sums of all parts into those of the first, in order.
  void add_parts(Team& team) const {
    const auto add = [&](T* WeightGradients<T>::* which, Index size) {
      T* const to = sums_[0].*which;
      if (to == nullptr) return;
      const Range own = team.share((size + L - 1) / L);
      for (Index i = own.begin * L; i < own.end * L; i += L) {
        const Index count = size - i;
        V sum = V::load_first(to + i, count);
        for (Index part = 1; part < plan_.parts(); ++part) {
          sum = sum + V::load_first(sums_[part].*which + i, count);
        }
        sum.store_first(to + i, count);
      }
    };
    add(&WeightGradients<T>::kernel, shape_.features * 3 * shape_.units);
    add(&WeightGradients<T>::recurrent_kernel, shape_.units * 3 * shape_.units);
    add(&WeightGradients<T>::bias, 3 * shape_.units);
    add(&WeightGradients<T>::recurrent_bias, 3 * shape_.units);
  }

  static void meet(const Group<T>& group, Team& team) {
    if (group.by_units) team.barrier();
  }

  // The chunk's gate gradients of one block, from `at` (a depth) on.
  T* d_gates_at(const ChunkMemory<T>& memory, Index block, Index at, Index depth) const {
    return memory.d_gates + (block * depth + at) * blocks_.gates_row;
  }

  void start(const Group<T>& group, const ChunkMemory<T>& memory, Team& team) const {
    const Range own = team.share(group.rows);
    for (Index row = own.begin; row < own.end; ++row) {
      T* d_h = memory.d_h + row * blocks_.state_stride;
      std::fill_n(d_h, blocks_.state_stride, T(0));
      if (a_.d_last_state != nullptr) {
        std::copy_n(a_.d_last_state + (group.first + row) * shape_.units, shape_.units, d_h);
      }
    }
    meet(group, team);
  }

  void finish(const Group<T>& group, const ChunkMemory<T>& memory, Team& team) const {
    if (a_.d_initial_state == nullptr) return;
    const Range own = team.share(group.rows);
    for (Index row = own.begin; row < own.end; ++row) {
      std::copy_n(memory.d_h + row * blocks_.state_stride, shape_.units,
                  a_.d_initial_state + (group.first + row) * shape_.units);
    }
  }

  // One step of a group: leaves d_h(t-1), and this step's part of the chunk from depth `at` on.
  void back_one_step(const Group<T>& group, Index step, Index at, Index depth, const ChunkMemory<T>& memory,
                     Team& team) const {
    const bool proceed = team.proceed() && group.own_rows.size() > 0;  // who does not still comes to the barriers
    if (proceed) {
      add_output_gradients(group, step, memory);
      for_each_cell(group, step, at, depth, memory, reset_after_ ? cell_.reset_after : cell_.reset_before_candidate);
    }
    meet(group, team);
    if (!reset_after_) {
      if (proceed) multiply_gates(candidate_, group, at, depth, memory, memory.d_reset_h, false, team);
      meet(group, team);
      if (proceed) for_each_cell(group, step, at, depth, memory, cell_.reset_before_reset);
      meet(group, team);
    }
    if (proceed) {
      multiply_gates(recurrent_, group, at, depth, memory, memory.d_h, true, team);
      if (a_.d_x) store_input_gradients(group, step, at, depth, memory, team);
      keep_operands(group, step, at, depth, memory, team);
    }
    meet(group, team);
  }

  void add_output_gradients(const Group<T>& group, Index step, const ChunkMemory<T>& memory) const {
    if (!a_.d_outputs) return;
    for (Index row = group.own_rows.begin; row < group.own_rows.end; ++row) {
      const T* d_output = a_.d_outputs.at(group.first + row, step);
      T* d_h = memory.d_h + row * blocks_.state_stride;
      for (Index unit = group.own_blocks.begin * L; unit < group.own_blocks.end * L; unit += L) {
        (V::load(d_h + unit) + V::load_first(d_output + unit, shape_.units - unit)).store(d_h + unit);
      }
    }
  }

  const T* tape_gates(const Group<T>& group, Index row, Index step, Index block) const {
    return group.tape.gates + ((step * blocks_.count + block) * group.rows + row) * blocks_.gates_row;
  }
  const T* tape_state(const Group<T>& group, Index row, Index step) const {
    return group.tape.states + (step * group.rows + row) * blocks_.state_stride;
  }

  void for_each_cell(const Group<T>& group, Index step, Index at, Index depth, const ChunkMemory<T>& memory,
                     typename CellFunctions<T>::Function cell) const {
    const Index row = group.own_rows.begin;
    for (Index block = group.own_blocks.begin; block < group.own_blocks.end; ++block) {
      const Index in_row = row * blocks_.state_stride + block * L;
      cell({tape_gates(group, row, step, block), blocks_.gates_row, tape_state(group, row, step) + block * L,
            blocks_.state_stride, d_gates_at(memory, block, at + row, depth), memory.d_h + in_row, blocks_.state_stride,
            reset_after_ ? nullptr : memory.d_reset_h + in_row, group.own_rows.size()});
    }
    if (group.own_blocks.end == blocks_.count) clear_padding(group.own_rows, at, depth, memory);
  }

  // An infinity in x or h makes NaN of a padded unit (infinity * 0), and the products over gates run over padding too.
  void clear_padding(Range own, Index at, Index depth, const ChunkMemory<T>& memory) const {
    const Index used = shape_.units - (blocks_.count - 1) * L;
    if (used == L) return;
    T* d_gates = d_gates_at(memory, blocks_.count - 1, at + own.begin, depth);
    for (Index packet = 0; packet < own.size() * blocks_.gates_row / L; ++packet, d_gates += L) {
      V::load_first(d_gates, used).store(d_gates);
    }
  }

  Range own_panels(const PackedMatrix<T>& matrix, const Group<T>& group, const Team& team) const {
    return group.by_units ? team.share(matrix.panels()) : Range{0, matrix.panels()};
  }

  // to(row, :) (+)= the gate gradients of the step at `at`, times transposed weights.
  void multiply_gates(const TransposedWeights<T>& weights, const Group<T>& group, Index at, Index depth,
                      const ChunkMemory<T>& memory, T* to, bool add, const Team& team) const {
    const Range own = group.own_rows, panels = own_panels(weights.matrix(), group, team);
    T* const rows = to + own.begin * blocks_.state_stride;
    const auto gates = weights.gates(d_gates_at(memory, 0, at + own.begin, depth), blocks_, depth * blocks_.gates_row);
    for (Index p = panels.begin; p < panels.end; ++p) {
      multiply_panel<T>(
          gates, own.size(), weights.matrix().panel(p),
          [&](Index row, Index column) { return add ? V::load(rows + row * blocks_.state_stride + column) : V(T(0)); },
          [&](Index row, Index column, V sum) { sum.store(rows + row * blocks_.state_stride + column); });
    }
  }

  void store_input_gradients(const Group<T>& group, Index step, Index at, Index depth, const ChunkMemory<T>& memory,
                             const Team& team) const {
    const Range own = group.own_rows, panels = own_panels(kernel_.matrix(), group, team);
    const auto gates = kernel_.gates(d_gates_at(memory, 0, at + own.begin, depth), blocks_, depth * blocks_.gates_row);
    for (Index p = panels.begin; p < panels.end; ++p) {
      multiply_panel<T>(
          gates, own.size(), kernel_.matrix().panel(p), [](Index, Index) { return V(T(0)); },
          [&](Index row, Index column, V sum) {
            sum.store_first(a_.d_x.at(group.first + own.begin + row, step) + column, shape_.features - column);
          });
    }
  }

  // The left operands of the weight gradients, stored by depth while they are at hand.
  void keep_operands(const Group<T>& group, Index step, Index at, Index depth, const ChunkMemory<T>& memory,
                     const Team& team) const {
    const Range own = group.by_units ? team.share(group.rows) : group.own_rows;
    for (Index row = own.begin; row < own.end; ++row) {
      const T* h = tape_state(group, row, step);
      pack_into_tiles(memory.x, depth, at + row, a_.x.at(group.first + row, step), shape_.features);
      pack_into_tiles(memory.h, depth, at + row, h, shape_.units);
      if (reset_after_) continue;
      T* reset_h = memory.d_reset_h + row * blocks_.state_stride;  // its gradient has been used up
      for (Index block = 0; block < blocks_.count; ++block) {
        const V r = V::load(tape_gates(group, row, step, block) + GateSlots::r * L);
        (r * V::load(h + block * L)).store(reset_h + block * L);
      }
      pack_into_tiles(memory.reset_h, depth, at + row, reset_h, shape_.units);
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
        add_product<3>(memory.x, tile, shape_.features, block, GateSlots::n, depth, memory, to.kernel, overwrite);
      } else if (reset_after_) {
        add_product<3>(memory.h, tile - input_tiles, shape_.units, block, GateSlots::z, depth, memory,
                       to.recurrent_kernel, overwrite);
      } else {
        add_product<2>(memory.h, tile - input_tiles, shape_.units, block, GateSlots::z, depth, memory,
                       to.recurrent_kernel, overwrite);
        add_product<1>(memory.reset_h, tile - input_tiles, shape_.units, block, GateSlots::n, depth, memory,
                       to.recurrent_kernel, overwrite);
      }
      if (tile == 0) add_bias_gradients(block, depth, overwrite, memory, to);
    }
  }

  // d_weights(tile of rows, gates of the block) (+)= A^T d_gates, for Slots neighbouring slots.
  template <int Slots>
  void add_product(const T* operand, Index tile, Index count, Index block, int first_slot, Index depth,
                   const ChunkMemory<T>& memory, T* d_weights, bool overwrite) const {
    const Index first_row = tile * kTileRows, unit = block * L;
    const T* d_gates = d_gates_at(memory, block, 0, depth) + first_slot * L;
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
      add_to(bias + keras_gate(GateSlots::z) * shape_.units + unit, z, count, overwrite);
      add_to(bias + keras_gate(GateSlots::r) * shape_.units + unit, r, count, overwrite);
      add_to(bias + keras_gate(GateSlots::n) * shape_.units + unit, sum_of_n, count, overwrite);
    };
    store(to.bias, n);
    store(to.recurrent_bias, q);
  }

  const GruBackwardArguments<T>& a_;
  const GruShape& shape_;
  const bool reset_after_;
  const BatchPlan plan_;
  const UnitBlocks<T> blocks_;
  const CellFunctions<T> cell_;
  TransposedWeights<T> recurrent_, candidate_, kernel_;
  const Index chunk_steps_;
  bool by_units_ = false;
  int threads_ = 1;
  ChunkMemory<T>* memory_ = nullptr;    // a thread's each, or the team's
  WeightGradients<T>* sums_ = nullptr;  // a part's each; the first are the results
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
  parallel(pass.threads(), cancellation, [&](Team& team) { pass.run(team); });
}

template void gru_backward(const GruBackwardArguments<float>&, Workspace&, Cancellation*);
template void gru_backward(const GruBackwardArguments<double>&, Workspace&, Cancellation*);

}  // namespace fastgru
