"""The simulator: the same bytes from the same seed, a plain loop's numbers without staleness, theory's with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from launch import Experiment, Run, load_experiment, simulate
from launch.build import make_task
from launch.supervisor import RunFailed
from psserver import load_checkpoint
from worker import Shard, Task

CONSTANT = ["rule.name=momentum_sgd", "tuner.target=constant", "tuner.loop=open", "tuner.lr_factor=1.0"]


def files(run: Run) -> dict[str, bytes]:
    """Every file of a run; the experiment too, which names no folder."""
    return {str(p.relative_to(run.path)): p.read_bytes() for p in sorted(run.path.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("staleness", ["round-robin", "memoryless", "none"])
def test_the_same_seed_gives_the_same_bytes(staleness: Any, tmp_path: Path) -> None:
    settings = ["train.updates=120", "train.workers=5", "evaluate.every=50", "checkpoint.every=60"]
    settings += ["task.arguments.width=4", "task.arguments.batch=8"]
    one, two = (simulate("digits_async16", tmp_path / n, staleness=staleness, settings=settings) for n in "ab")
    assert {"metrics.jsonl", "arrivals.jsonl", "summary.json"} < set(files(one))
    assert sum(name.endswith("safetensors") for name in files(one)) == 2
    assert files(one) == files(two)


def test_another_seed_gives_other_bytes(tmp_path: Path) -> None:
    runs = [
        simulate("quadratic", tmp_path / str(seed), settings=[f"train.seed={seed}", "train.updates=50"])
        for seed in (1, 2)
    ]
    assert runs[0].metrics != runs[1].metrics
    assert runs[0].state_dict()["x"].tolist() != runs[1].state_dict()["x"].tolist()


def plain_loop(task: Task, experiment: Experiment, rate: float, momentum: float) -> tuple[list[float], list[Any]]:
    """Momentum SGD in displacement form as one writes it in torch, without any of the server's code."""
    train = experiment.train
    torch.manual_seed(train.seed)
    model = task.model().train()
    parameters = list(model.parameters())
    previous = [p.detach().clone() for p in parameters]
    batches = task.batches(Shard(0, 1, train.seed))
    losses = []
    for _ in range(train.updates):
        loss = task.loss(model, next(batches))
        gradients = torch.autograd.grad(loss, parameters)
        losses.append(loss.item())
        with torch.no_grad():
            for k, (x, g) in enumerate(zip(parameters, gradients, strict=True)):
                step = (x - previous[k]) * momentum - g * rate
                previous[k] = x.clone()
                x.add_(step)
    return losses, [p.detach() for p in parameters]


@pytest.mark.parametrize(("name", "rate"), [("quadratic", 0.3), ("digits_async16", 0.05)])
def test_one_worker_without_staleness_is_a_plain_loop_bit_for_bit(name: str, rate: float, tmp_path: Path) -> None:
    settings = [*CONSTANT, "train.workers=1", "train.updates=200", f"tuner.learning_rate={rate}", "tuner.momentum=0.8"]
    experiment = load_experiment(name, settings)
    run = simulate(experiment, tmp_path / "run", staleness="none")
    losses, parameters = plain_loop(make_task(experiment), experiment, rate, 0.8)
    assert [row["loss"] for row in run.metrics] == losses
    trained = run.state_dict()
    named = [trained[key] for key, _ in make_task(experiment).model().named_parameters()]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(named, parameters, strict=True))


@pytest.mark.parametrize("momentum", [-0.3, 0.0, 0.5, 0.9])
def test_without_staleness_total_momentum_is_the_algorithms_in_spite_of_noise(momentum: float, tmp_path: Path) -> None:
    settings = [*CONSTANT, "train.updates=300", "tuner.learning_rate=0.1", f"tuner.momentum={momentum}"]
    run = simulate("quadratic", tmp_path / "run", staleness="none", settings=settings)
    measured = [row["total_momentum"] for row in run.metrics][1:]
    assert measured == pytest.approx([momentum] * 299, abs=1e-4)
    assert all(row["staleness"] == 0 for row in run.metrics)


@pytest.mark.parametrize("workers", [2, 7, 16])
def test_round_robin_is_always_as_stale_as_there_are_other_workers(workers: int, tmp_path: Path) -> None:
    settings = [*CONSTANT, "train.updates=100", f"train.workers={workers}", "tuner.learning_rate=0.001"]
    rows = simulate("quadratic", tmp_path / "run", settings=settings).metrics
    assert [row["staleness"] for row in rows] == [min(k, workers - 1) for k in range(100)]
    assert [row["worker"] for row in rows] == [k % workers for k in range(100)]


@pytest.mark.parametrize("staleness", ["gamma", "stragglers"])
@pytest.mark.parametrize("mode", ["asynchronous", "synchronous"])
def test_service_times_give_the_same_bytes_and_the_time_of_the_events(
    staleness: Any, mode: str, tmp_path: Path
) -> None:
    settings = ["train.updates=25", "train.workers=6", f"server.mode={mode}", "task.arguments.size=20"]
    one, two = (simulate("quadratic", tmp_path / n, staleness=staleness, settings=settings) for n in "ab")
    assert files(one) == files(two)
    seconds = np.diff([row["seconds"] for row in one.metrics])
    assert (seconds > 0).all()
    assert len(set(seconds)) == 24
    # A round takes as long as the slowest of its workers, who needs a second, or four, on average.
    expected = {("asynchronous", "gamma"): 1 / 6, ("asynchronous", "stragglers"): 1 / 5.25}
    if mode == "asynchronous":
        assert seconds.mean() == pytest.approx(expected[mode, staleness], rel=0.4)
    else:
        assert seconds.mean() > (4.0 if staleness == "stragglers" else 1.0)


@pytest.mark.parametrize("staleness", ["memoryless", "stragglers"])
def test_a_trace_repeats_the_recorded_run(staleness: Any, tmp_path: Path) -> None:
    settings = ["train.updates=80", "train.workers=5", "task.arguments.size=20"]
    recorded = simulate("quadratic", tmp_path / "recorded", staleness=staleness, settings=settings)
    settings.append(f"simulate.trace={recorded.path}")
    traced = simulate("quadratic", tmp_path / "traced", staleness="trace", settings=settings)
    assert (traced.path / "arrivals.jsonl").read_bytes() == (recorded.path / "arrivals.jsonl").read_bytes()
    without_time = [[{**row, "seconds": 0} for row in run.metrics] for run in (recorded, traced)]
    assert without_time[0] == without_time[1]


def test_a_trace_keeps_its_order_with_another_tuner_and_ends_where_that_diverges(tmp_path: Path) -> None:
    settings = ["train.updates=80", "train.workers=5", "task.arguments.size=20"]
    recorded = simulate("quadratic", tmp_path / "recorded", staleness="gamma", settings=settings)
    settings += [*CONSTANT, f"simulate.trace={recorded.path}", "simulate.staleness=trace"]
    other = simulate("quadratic", tmp_path / "other", settings=[*settings, "tuner.learning_rate=0.001"])
    order = [[(row["worker"], row["version"]) for row in run.metrics] for run in (recorded, other)]
    assert order[0] == order[1]
    assert recorded.metrics[-1]["loss"] != other.metrics[-1]["loss"]
    with pytest.raises(RunFailed, match="a gradient of the recorded order was refused"):
        simulate("quadratic", tmp_path / "wild", settings=[*settings, "tuner.learning_rate=10000"])


def test_hundreds_of_workers_need_one_model_and_no_processes(tmp_path: Path) -> None:
    settings = [*CONSTANT, "train.updates=520", "train.workers=500", "tuner.learning_rate=1e-5"]
    run = simulate("quadratic", tmp_path / "run", settings=[*settings, "task.arguments.size=20"])
    assert [row["staleness"] for row in run.metrics[-10:]] == [499] * 10


def memoryless_trajectory(seed: int, workers: int, folder: Path) -> np.ndarray:
    """x_0 … x_25 of ½x² under memoryless staleness and α = 0.4, followed from the versions alone."""
    task = "task.arguments={size=1, h_min=1.0, h_max=1.0, noise=0.0}"
    settings = [*CONSTANT, task, "train.updates=25", f"train.workers={workers}", f"train.seed={seed}"]
    settings += ["tuner.learning_rate=0.4", "tuner.momentum=0.0", "evaluate.every=0", "checkpoint.every=0"]
    x = [1.0]
    for row in simulate("quadratic", folder, staleness="memoryless", settings=settings).metrics:
        assert row["gradient_norm"] == pytest.approx(abs(x[row["version"]]), rel=1e-4, abs=1e-6)
        x.append(x[-1] - 0.4 * x[row["version"]])
    return np.array(x)


def test_asynchrony_begets_momentum(tmp_path: Path) -> None:
    """With μ = 0, E[x_{t+1} − x_t] = (1 − 1/M) E[x_t − x_{t−1}] − (α/M) E[∇f(x_t)] (Mitliagkas et al. 2016)."""
    workers = 4
    mean = np.mean([memoryless_trajectory(s, workers, tmp_path / str(s)) for s in range(60)], axis=0)
    moves = np.diff(mean)
    (momentum, rate), *_ = np.linalg.lstsq(np.stack([moves[:-1], -mean[1:-1]], axis=1), moves[1:], rcond=None)
    assert momentum == pytest.approx(1 - 1 / workers, abs=0.06)
    assert rate == pytest.approx(0.4 / workers, abs=0.03)


def test_a_bound_on_staleness_holds_and_the_run_completes(tmp_path: Path) -> None:
    settings = [*CONSTANT, "train.updates=300", "train.workers=6", "server.max_staleness=3", "tuner.momentum=0.0"]
    run = simulate("quadratic", tmp_path / "run", staleness="memoryless", settings=settings)
    assert len(run.metrics) == run.summary["updates"] == 300
    assert max(row["staleness"] for row in run.metrics) == 3
    assert run.summary["pushes_rejected"] == 0


def test_synchronous_rounds_are_one_worker_with_the_mean_gradient(tmp_path: Path) -> None:
    base = [*CONSTANT, "train.updates=100", "train.workers=4", "tuner.learning_rate=0.3", "tuner.momentum=0.5"]
    run = simulate("quadratic", tmp_path / "run", settings=[*base, "server.mode=synchronous"])
    rows, arrivals = run.metrics, (tmp_path / "run" / "arrivals.jsonl").read_text().splitlines()
    assert all((row["staleness"], row["worker"]) == (0, None) for row in rows)
    assert len(arrivals) == run.summary["pushes_applied"] == 400
    task = make_task(load_experiment(run.path))
    streams = [task.batches(Shard(rank, 4, 1)) for rank in range(4)]
    model = task.model()
    x = model.get_parameter("x").detach().clone()
    previous = x.clone()
    for _ in range(100):
        noise = torch.stack([next(stream)[0] for stream in streams]).mean(0)
        h: Any = model.h
        x, previous = x + 0.5 * (x - previous) - 0.3 * (h * x + noise), x
    assert torch.allclose(run.state_dict()["x"], x, rtol=1e-4, atol=1e-5)


def test_adam_without_staleness_is_torchs(tmp_path: Path) -> None:
    settings = [*CONSTANT, "rule.name=adam", "rule.beta2=0.999", "tuner.learning_rate=0.01", "tuner.momentum=0.9"]
    experiment = load_experiment("digits_async16", [*settings, "train.workers=1", "train.updates=100"])
    run = simulate(experiment, tmp_path / "run", staleness="none")
    task = make_task(experiment)
    torch.manual_seed(experiment.train.seed)
    model = task.model()
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    batches = task.batches(Shard(0, 1, experiment.train.seed))
    losses = []
    for _ in range(100):
        adam.zero_grad()
        loss = task.loss(model, next(batches))
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert [row["loss"] for row in run.metrics] == pytest.approx(losses, rel=1e-2, abs=1e-3)
    assert all(row["total_momentum"] == pytest.approx(0.9, abs=0.2) for row in run.metrics[50:])


def test_a_run_that_diverges_fails_and_says_so(tmp_path: Path) -> None:
    settings = [*CONSTANT, "tuner.learning_rate=1000", "train.updates=500"]
    with pytest.raises(RunFailed, match="diverged"):
        simulate("quadratic", tmp_path / "run", settings=settings)
    assert Run(tmp_path / "run").summary["reason"] == "failed"


def test_a_checkpoint_holds_what_the_run_returns(tmp_path: Path) -> None:
    run = simulate("digits_async16", tmp_path / "run", settings=["train.updates=30", "checkpoint.every=10"])
    assert run.checkpoint().name == "update-00000030.safetensors"
    model = make_task(load_experiment(run.path)).model()
    model.load_state_dict(run.state_dict())
    flat = nn.utils.parameters_to_vector(model.parameters()).detach()
    assert torch.equal(flat, load_checkpoint(run.checkpoint())["parameters"])
