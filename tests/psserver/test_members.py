"""Who takes part: when somebody counts as lost, and which numbers are given."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from psserver.errors import RefusedError
from psserver.members import Members
from psserver.messages import Hello
from psserver.place import here, process_exists
from psserver.wire import Alive, Goodbye, Heartbeat, Parameters, Pull, Refusal, Report
from tests.psserver.conftest import Clock, Rows, ServerFactory, Talker
from tests.psserver.running import ROOT, SIZE, Running, until
from worker import ParameterClient

EVALUATOR = Hello("evaluator", "", 0, 0, None, "h", "elsewhere", 1, False)


def test_a_dead_process_on_this_host_is_noticed_at_once_and_a_zombie_counts_as_dead(
    make_server: ServerFactory,
) -> None:
    server = make_server(heartbeat_timeout=1000.0)
    with subprocess.Popen(["sleep", "60"]) as process:
        worker = Talker(server, "a", place=here(), pid=process.pid)
        worker.pull()
        server.tick()
        assert server.members.workers[0].state == "computing"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{process.pid}/stat").exists(), "a zombie"
        assert not process_exists(process.pid)
        server.tick()
        assert server.members.workers[0].state == "lost"


def test_the_same_process_number_elsewhere_means_nothing(make_server: ServerFactory) -> None:
    server = make_server(heartbeat_timeout=1000.0)
    Talker(server, "a", place="another host", pid=2**22 + 1)
    server.tick()
    assert server.members.workers[0].present


def test_heartbeats_keep_a_slow_worker_a_member() -> None:
    with Running("tcp://127.0.0.1:*", heartbeat_timeout=0.6) as running:
        with ParameterClient(running.address, SIZE) as client:
            snapshot = client.pull()
            time.sleep(1.5)
            client.push(snapshot, 1.0, np.ones(SIZE, np.float32))
        # a client that leaves does not wait long for the answer to its goodbye
        until(lambda: any(kind == "left" for kind, *_ in running.rows.events), 10.0)
        assert [kind for kind, *_ in running.rows.events if kind != "interrupted"] == ["joined", "left"]


KILLED = "import sys, time; from worker import ParameterClient\n"
KILLED += (
    f"c = ParameterClient(sys.argv[1], {SIZE}); c.join(); c.pull(); print('computing', flush=True); time.sleep(60)"
)


def test_a_killed_worker_is_noticed_within_a_tick_and_its_rank_is_free() -> None:
    with Running("tcp://127.0.0.1:*") as running:
        script = [sys.executable, "-c", KILLED, running.address]
        with subprocess.Popen(script, stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(RefusedError, match="rank"):
                ParameterClient(running.address, SIZE, rank=0, patience=0.0).__enter__()
            process.kill()
            until(lambda: running.server.journal.progress.lost == 1, 3.0)
        with ParameterClient(running.address, SIZE, rank=0) as client:
            assert client.welcome.worker == 0
        assert running.server.trajectory.current.holders == 0


def test_nobody_is_silent_while_messages_wait_to_be_heard(make_server: ServerFactory, clock: Clock) -> None:
    server = make_server(heartbeat_timeout=5.0)
    Talker(server, "a")
    clock.now += 60
    server.tick(heard_all=False)
    assert server.members.workers[0].present
    server.tick()
    assert server.members.workers[0].state == "lost"


def test_nobody_is_silent_for_the_time_the_server_was_away(make_server: ServerFactory, clock: Clock) -> None:
    server = make_server(heartbeat_timeout=5.0)
    Talker(server, "a")
    clock.now += 60
    server.excuse(58)
    server.tick()
    assert server.members.workers[0].present
    clock.now += 4
    server.tick()
    assert server.members.workers[0].state == "lost"


def test_a_late_message_of_a_lost_member_is_answered_that_it_is_unknown(
    make_server: ServerFactory, clock: Clock
) -> None:
    server = make_server(heartbeat_timeout=1.0)
    worker = Talker(server, "a")
    worker.pull()
    clock.now += 2
    server.tick()
    assert isinstance(server.handle("x", Heartbeat("a")), Alive)
    for reply in (worker.push(), server.handle("a", Goodbye("done", "", 1))):
        assert isinstance(reply, Refusal)
        assert reply.code == "unknown"
    assert server.version == 0


def test_a_worker_that_was_lost_over_frames_never_has_its_version_overwritten(
    make_server: ServerFactory, clock: Clock
) -> None:
    server = make_server(updates=1000, heartbeat_timeout=1.0)
    lost = Talker(server, "a")
    lost.pull()
    assert lost.given is not None
    read = lost.given.values.copy()
    clock.now += 2
    server.tick()
    other = Talker(server, "b")
    other.pull()
    for _ in range(30):
        other.push()
    np.testing.assert_array_equal(lost.given.values, read)


def test_a_lost_evaluator_does_not_hold_up_the_end(make_server: ServerFactory, clock: Clock, rows: Rows) -> None:
    server = make_server(updates=1, heartbeat_timeout=5.0, drain_timeout=1000.0)
    evaluator, worker = Talker(server, "e", role="evaluator"), Talker(server, "w")
    worker.pull()
    worker.push()
    server.handle("w", Goodbye("done", "", 1))
    final = evaluator.pull()
    assert isinstance(final, Parameters)
    assert final.final
    server.tick()
    assert server.phase == "draining"
    clock.now += 6
    server.tick()
    assert server.phase == "done"
    assert server.journal.progress.lost == 0, "it counts workers"


def test_evaluators_have_numbers_of_their_own_and_each_once() -> None:
    members = Members(10.0)
    numbers = [members.join(key, EVALUATOR, 0.0).number for key in "abc"]
    leaving = members.find("b")
    assert leaving is not None
    members.part(leaving, "left")
    numbers.append(members.join("d", EVALUATOR, 0.0).number)
    assert numbers == [0, 1, 2, 1]
    assert sorted(m.number for m in members) == [0, 1, 2]
    assert members.join("d", EVALUATOR, 1.0).number == 1, "it comes again"
    assert members.workers == []


def test_a_worker_that_comes_again_gets_the_averaged_buffers(make_server: ServerFactory, clock: Clock) -> None:
    server = make_server(heartbeat_timeout=1.0)
    first = Talker(server, "a")
    first.pull()
    first.push(buffers=np.full(2, 3.0, np.float32))
    other = Talker(server, "b")
    other.pull()
    other.push(buffers=np.full(2, np.nan, np.float32))
    server.handle("a", Goodbye("failed", "", 1))
    other.push(buffers=np.full(2, 5.0, np.float32))
    again = Talker(server, "c", rank=0)
    again.pull()
    assert again.given is not None
    assert again.given.buffers is not None
    assert again.given.buffers.tolist() == [5.0, 5.0], "no statistics that are not finite are ever averaged in"


def test_a_hello_that_comes_twice_leaves_the_gradients_memory_as_it_is(
    make_server: ServerFactory, tmp_path: Path
) -> None:
    server = make_server(shared_memory=True, shared_memory_dir=str(tmp_path))
    slots = [Talker(server, "a", place=here(), pid=os.getpid(), shared_memory=True).reply for _ in range(2)]
    assert slots[0] == slots[1]


def test_another_kernel_is_never_offered_this_hosts_memory(make_server: ServerFactory, tmp_path: Path) -> None:
    server = make_server(shared_memory=True, shared_memory_dir=str(tmp_path))
    worker = Talker(server, "a", place="another kernel", shared_memory=True)
    assert worker.reply is not None
    assert worker.reply.gradient is None  # type: ignore[union-attr]


def test_a_report_of_a_version_that_was_lost_is_dropped_and_told(make_server: ServerFactory, rows: Rows) -> None:
    server = make_server()
    Talker(server, "e", role="evaluator")
    server.handle("e", Pull())
    server.handle("e", Report(5, {"loss": 1.0}))
    assert rows.evaluations == []
    assert rows.events[-1][2] == "evaluation of update 5 dropped: the newest one is 0"
