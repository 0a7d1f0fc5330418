"""The benchmarks' harness: statistics, order, and checks before timing. No speed is asserted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not part of this source tree", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import answers, contenders, harness, options, problem, shapes, worker  # noqa: E402
from benchmarks.questions import dropin, keras_layer, pauses  # noqa: E402

PROBLEM = problem.Problem("inference", 2, 3, 4, 5)
STATE = np.arange(1, 11, dtype=np.float32).reshape(2, 5)


class FakeWorker:
    """Answers immediately, and records the order of measurements."""

    alive = True

    def __init__(self, name, journal, state=STATE, dies=False):
        self.name, self.journal, self.state, self.dies = name, journal, state, dies

    def send(self, *, results, **request):
        assert request["do"] == "setup"
        save_file({"state": self.state}, results)
        self.results = results

    def receive(self, timeout):
        return {"results": self.results}

    def ask(self, timeout, *, do, repeats):
        assert do == "time"
        self.journal.append(self.name)
        if self.dies:
            raise worker.WorkerError("the process died: exit code 7")
        return {"seconds": 0.001 * len(self.journal), "repeat": 0.01}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(harness, "COOL_DOWN_SECONDS", 0)


@pytest.fixture
def crew(monkeypatch):
    """A crew of fake workers, to which tests add others."""
    with harness.Crew(threads=1) as crew:
        crew.journal = []
        crew.fakes = {
            name: FakeWorker(name, crew.journal) for name in ("fastgru", "fastgru-before", *contenders.SGEMMS)
        }
        monkeypatch.setattr(crew, "gather", lambda names: {n: crew.fakes[n] for n in names if n in crew.fakes})

        def add(name, **options):
            crew.fakes[name] = FakeWorker(name, crew.journal, **options)
            monkeypatch.setitem(contenders.BY_NAME, name, contenders.Contender(name, name, name))

        crew.add = add
        yield crew


def test_median_and_spread():
    assert harness.median([5.0, 1.0, 3.0]) == 3.0
    assert harness.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)
    assert harness.spread([1.0]) == 0


def test_repeats_fill_the_least_time():
    assert harness.repeats_for(10.0) == 1
    assert harness.repeats_for(harness.LEAST_SECONDS / 3) == 3
    assert harness.repeats_for(0.0) > 1


def test_contenders_take_turns_round_after_round(crew):
    crew.add("peer")
    rows = harness.measure(PROBLEM, ["fastgru", "peer"], crew, rounds=3)
    names = [*contenders.SGEMMS, "fastgru", "peer"]
    assert crew.journal == [name for name in names for _ in range(2)] + 3 * names  # calibrated twice, then in turn
    assert [len(row.seconds) for row in rows] == [3] * 4
    assert max(row.share_of_sgemm for row in rows if row.contender in contenders.SGEMMS) == 1


def test_wrong_answers_are_refused_and_not_timed(crew):
    crew.add("wrong", state=STATE * np.float32(1 + 5 * answers.TOLERANCE))
    crew.add("transposed", state=STATE.T.copy())
    crew.add("nan", state=np.full_like(STATE, np.nan))
    crew.add("close", state=STATE * np.float32(1 + answers.TOLERANCE / 5))
    rows = {row.contender: row for row in harness.measure(PROBLEM, ["wrong", "transposed", "nan", "close"], crew, 1)}
    for name in ("wrong", "transposed", "nan"):
        assert rows[name].skipped.startswith("answers differ")
        assert name not in crew.journal
    assert not rows["close"].skipped
    assert 0 < rows["close"].error < answers.TOLERANCE


def test_a_contender_that_dies_is_named_and_the_others_continue(crew):
    crew.add("mortal", dies=True)
    rows = {row.contender: row for row in harness.measure(PROBLEM, ["mortal", "fastgru"], crew, rounds=2)}
    assert "exit code 7" in rows["mortal"].skipped
    assert crew.journal.count("mortal") == 1
    assert len(rows["fastgru"].seconds) == 2


def test_a_missing_peer_is_skipped_by_name(monkeypatch):
    for name, program in (("no-module", "no_such_peer"), ("no-program", "tfjs")):
        monkeypatch.setitem(contenders.BY_NAME, name, contenders.Contender(name, name, program))
    monkeypatch.setenv("FASTGRU_NODE_MODULES", "/no/such/folder")
    with harness.Crew(threads=1) as crew:
        assert crew.gather(["no-module", "no-program"]) == {}
        assert "no_such_peer" in crew.missing["no-module"]
        assert crew.missing["no-program"]


def test_a_process_that_dies_or_hangs_raises():
    dying = worker.Worker("dying", [sys.executable, "-c", "raise SystemExit('no more')"], worker.environment(1))
    with pytest.raises(worker.WorkerError, match="exit code 1, no more"):
        dying.hello(30)
    dying.stop()
    hanging = worker.Worker("hanging", [sys.executable, "-c", "import time; time.sleep(60)"], worker.environment(1))
    with pytest.raises(worker.WorkerError, match="no answer within"):
        hanging.hello(0.1)
    hanging.stop()
    assert not hanging.alive


def test_workers_choose_their_own_kernels(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("FASTGRU_ISA", "baseline")
    env = worker.environment(3, {"FASTGRU_ISA": "avx2"})
    assert "OPENBLAS_CORETYPE" not in env
    assert env["FASTGRU_ISA"] == "avx2"
    assert env["OMP_NUM_THREADS"] == "3"


def test_flops_are_those_of_the_products():
    tutorial = shapes.tutorial("training", 1)
    assert tutorial.flops(head=False) == 28 * (35_328 + 59_904)
    assert tutorial.flops() - tutorial.flops(head=False) == 3 * 2 * 64 * 10
    assert shapes.tutorial("inference", 2).flops() == 2 * 28 * 35_328


@pytest.mark.slow
@pytest.mark.parametrize("question", ["training", "inference"])
def test_fastgru_and_sgemm_run_a_tiny_round(question):
    tiny = problem.Problem(question, 2, 3, 4, 5)
    names = [
        name for name in ("fastgru", "fastgru-fit", "fastgru-before") if not contenders.BY_NAME[name].refusal(tiny)
    ]
    with harness.Crew(threads=1) as crew:
        rows = harness.measure(tiny, names, crew, rounds=1)
    assert [row.contender for row in rows] == [*contenders.SGEMMS, *names]
    for row in rows:
        assert not row.skipped
        assert row.flops_per_second > 0


def test_another_build_takes_part_only_with_its_interpreter(tmp_path):
    with harness.Crew(threads=1) as crew:
        assert crew.gather([contenders.OTHER]) == {}
        assert crew.missing == {contenders.OTHER: "pass --against PYTHON"}
    python = tmp_path / "python"  # reports a version that identifies it
    python.write_text('#!/bin/sh\necho \'{"versions": {"other": "build"}}\'\n')
    python.chmod(0o755)
    with harness.Crew(threads=1, other_python=str(python)) as crew:
        assert list(crew.gather([contenders.OTHER])) == [contenders.OTHER]
        assert crew.versions == {"other": "build"}


@pytest.mark.parametrize("variant", ["one layer", "two layers", "bidirectional", "packed, T/2 in the mean"])
def test_the_drop_in_and_pytorch_run_a_tiny_round(variant, torch, monkeypatch):
    [chosen] = [v for v in dropin.VARIANTS if v.name == variant]
    monkeypatch.setattr(dropin.MatrixProduct, "size", 16)
    turns = dropin.contenders(chosen, 3, 4, threads=2)
    assert list(turns) == ["pytorch", "pytorch-1", "accelerated", "accelerated-1", "without-gru", "sgemm"]
    for name, turn in turns.items():
        assert turn.measure() > 0
        assert torch.get_num_threads() == (1 if name.endswith("-1") else turn.torch_threads)


def test_a_drop_in_with_other_losses_is_not_timed(torch, monkeypatch):
    monkeypatch.setattr(
        "fastgru.torch.accelerate", lambda gru: torch.nn.GRU(gru.input_size, gru.hidden_size, batch_first=True)
    )
    with pytest.raises(answers.AnswersDifferError, match="losses"):
        dropin.contenders(dropin.VARIANTS[0], 3, 4, threads=2)


def test_the_products_of_a_drop_in_step_are_counted(torch):
    rows, units, features = 5, 7, dropin.FEATURES
    a_pair = {  # multiply-adds per row, step and direction: forward; then weights, states and, above x, inputs
        "one layer": (features + units) + (features + units) + units,
        "two layers": (features + units) * 2 + units + (2 * units) + (2 * units) + units + units,
        "bidirectional": 2 * ((features + units) * 2 + units),
    }
    for variant in dropin.VARIANTS[:3]:
        gru = torch.nn.GRU(features, units, **variant.options)
        expected = 2.0 * rows * dropin.STEPS * 3 * units * a_pair[variant.name]
        assert dropin.product_flops(gru, variant, rows) == expected
    [packed] = [variant for variant in dropin.VARIANTS if variant.packed]
    assert packed.lengths(28).tolist() == list(range(1, 29))


def test_pauses_are_measured(monkeypatch):
    monkeypatch.setattr(pauses, "COOL_DOWN_SECONDS", 0.0)
    monkeypatch.setattr(pauses, "PAUSES", (0.0, 1e-4))
    result = pauses.run(options.Options(threads=1, rounds=1, quick=True), crew=None)
    assert [row["pause"] for row in result.rows] == [0.0, 1e-4] * len(pauses.QUICK_SHAPES)
    assert all(len(seconds) == pauses.CALLS for row in result.rows for seconds in row["seconds"])


def test_keras_trains_equally_with_either_layer(keras, monkeypatch):
    del keras
    monkeypatch.setattr(keras_layer, "SAMPLES", 64)
    found = keras_layer.contenders(32)
    assert {"fastgru.keras", "keras"} <= found.keys()
    for training in found.values():
        training.measure()
        assert training.seconds[0] > 0
