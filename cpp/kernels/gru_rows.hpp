// Which rows of a batch go through time together, and which of them are at work in a step.
//
// Rows are taken by falling length, so that in every step those still at work are the first of their group: a row's
// position in that order is its place. What is stored for a step is as many rows as work in it; padding is neither
// computed nor stored. Where all sequences are equally long, places are the batch's rows.
#pragma once

#include "kernels/gru.hpp"
#include "runtime/parallel.hpp"
#include "runtime/workspace.hpp"

namespace fastgru {

// How a batch is cut into groups of rows that go through time together, by its shape alone: the order in which the
// gradients of the weights are summed follows from it, so the threads may not matter.
//
// Small weights: a power of two of `parts`, each of whose groups one thread takes through time by itself, whichever is
// free; their gradients are summed apart and then added in order. Nothing but those sums passes between threads.
// Large weights: one part, whose rows or units the threads share step by step.
class BatchPlan {
 public:
  static constexpr Index kRowsTogether = 64;         // more would push the states out of the L2 cache
  static constexpr Index kSharedRowsTogether = 256;  // of large weights, loading which is what costs
  static constexpr std::size_t kSmallWeights = std::size_t{512} << 10;

  template <class T>
  static BatchPlan of(const GruShape& s) {
    const double bytes = 3.0 * static_cast<double>(s.units) * static_cast<double>(s.features + s.units) * sizeof(T);
    if (bytes > kSmallWeights) return BatchPlan(s.batch, 1, kSharedRowsTogether);
    const Index parts = s.batch >= 512 ? 16 : s.batch >= 128 ? 8 : s.batch >= 32 ? 4 : s.batch >= 8 ? 2 : 1;
    return BatchPlan(s.batch, parts, kRowsTogether);
  }

  // Whether up to `threads` of them split each step by units, of which there are `blocks` registers: with large
  // weights and few rows it is better that each thread loads a part of the weights than all of them.
  bool by_units(Index threads, Index blocks) const {
    constexpr Index kRowsWorthAllWeights = 64;
    return threads > 1 && !small_weights() && batch_ < threads * kRowsWorthAllWeights && blocks >= 2 * threads;
  }

  // Whether a thread takes its parts through time by itself.
  bool small_weights() const { return most_rows_ == kRowsTogether; }
  Index parts() const { return parts_; }
  Index groups_in_part() const { return groups_in_part_; }
  // Rows of a group: [begin, end) of the batch.
  Range rows(Index part, Index group) const {
    const Range all = split(batch_, part, parts_), own = split(all.size(), group, groups_in_part_);
    return {all.begin + own.begin, all.begin + own.end};
  }
  Index largest_group() const { return largest_group_; }

 private:
  BatchPlan(Index batch, Index parts, Index most_rows) : batch_(batch), parts_(parts), most_rows_(most_rows) {
    const Index part = (batch + parts - 1) / parts;
    groups_in_part_ = (part + most_rows - 1) / most_rows;
    largest_group_ = (part + groups_in_part_ - 1) / groups_in_part_;
  }

  Index batch_, parts_, most_rows_, groups_in_part_, largest_group_;
};

// Where the sequence at a place lies. By default all are as long as the batch and lie in its order; if they are to be
// read from their ends, the strides of x say so. With lengths, each has an end of its own.
struct SequenceMap {
  const Index* order = nullptr;    // (N) row of the batch at each place, or null: the same
  const Index* lengths = nullptr;  // (N) by place, falling; null if `order` is
  Index steps = 0;                 // T
  bool backwards = false;          // read from the end; only with lengths
  bool outputs_like_x = false;     // an output stands where the step of x stands that it read, not in order

  bool different_lengths() const { return order != nullptr; }
  Index row(Index place) const { return order == nullptr ? place : order[place]; }
  Index length(Index place) const { return order == nullptr ? steps : lengths[place]; }
  Index input_step(Index place, Index step) const { return backwards ? lengths[place] - 1 - step : step; }
  Index output_step(Index place, Index step) const { return outputs_like_x ? input_step(place, step) : step; }
};

// How a team shares the parts of a batch: sequences of different lengths lie by falling length, so parts fall in work.
inline Items::Shares shares_of_parts(const SequenceMap& map) {
  return map.different_lengths() ? Items::Shares::dealt : Items::Shares::contiguous;
}

// A group of rows that go through time together.
struct RowGroup {
  Index first, rows;     // places
  Index steps;           // of its longest sequence
  Index pairs_before;    // pairs of a row and a step in the groups before it
  const Index* offsets;  // (steps + 1) pairs before each step; null where all rows work in all steps

  Index offset(Index step) const { return offsets == nullptr ? step * rows : offsets[step]; }
  Index at_work(Index step) const { return offsets == nullptr ? rows : offsets[step + 1] - offsets[step]; }
  Index pairs() const { return offset(steps); }
  // Where the states before a step lie, in rows: those that began, then after each step those that worked in it.
  Index state_offset(Index step) const { return step == 0 ? 0 : rows + offset(step - 1); }
};

// The groups of a plan.
class RowGroups {
 public:
  RowGroups(const BatchPlan& plan, const SequenceMap& map, Workspace& workspace) : plan_(plan), map_(map) {
    if (!map.different_lengths()) return;
    const Index count = plan.parts() * plan.groups_in_part();
    groups_ = workspace.take<RowGroup>(count);
    Index pairs = 0;
    for (Index part = 0; part < plan.parts(); ++part) {
      for (Index index = 0; index < plan.groups_in_part(); ++index) {
        const Range rows = plan.rows(part, index);
        const Index steps = rows.size() > 0 ? map.lengths[rows.begin] : 0;
        Index* const offsets = workspace.take<Index>(steps + 1);
        Index working = rows.size();
        offsets[0] = 0;
        for (Index step = 0; step < steps; ++step) {
          while (map.lengths[rows.begin + working - 1] <= step) --working;  // the first is longer
          offsets[step + 1] = offsets[step] + working;
        }
        groups_[part * plan.groups_in_part() + index] = {rows.begin, rows.size(), steps, pairs, offsets};
        pairs += offsets[steps];
      }
    }
  }

  RowGroup group(Index part, Index index) const {
    if (groups_ != nullptr) return groups_[part * plan_.groups_in_part() + index];
    const Range rows = plan_.rows(part, index);
    return {rows.begin, rows.size(), map_.steps, rows.begin * map_.steps, nullptr};
  }

 private:
  const BatchPlan& plan_;
  const SequenceMap& map_;
  RowGroup* groups_ = nullptr;
};

}  // namespace fastgru
