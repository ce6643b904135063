"""What the real client does while the server fails, hangs or is gone."""

import time

import pytest

from tests.wandb_server.faults import Fault, wait_until

pytestmark = pytest.mark.slow

STEPS = 20


def log_a_run(name="aa", **settings):
    import wandb

    run = wandb.init(project="moe", id=name, settings=wandb.Settings(**settings))
    begin = time.monotonic()
    for step in range(STEPS):
        run.log({"step": step})
    took = time.monotonic() - begin
    run.finish()
    return took


def arrived(server, name="aa"):
    there = server.run(name)
    return there.state == "finished" and there.series("step") == list(range(STEPS)) and "config.yaml" in there.files


@pytest.mark.parametrize("kind", ["status", "cut"])
def test_everything_arrives_after_seconds_without_a_server(wandb_server, kind):
    import wandb

    run = wandb.init(project="moe", id="aa")
    fault = wandb_server.faults.lasting(3, kind)
    begin = time.monotonic()
    for step in range(STEPS):
        run.log({"step": step})
    assert time.monotonic() - begin < 1, "logging does not wait for the server"
    run.finish()
    assert fault.hits
    assert arrived(wandb_server)


def test_errors_are_tried_again(wandb_server):
    fault = wandb_server.faults.fail(2)
    log_a_run()
    assert fault.hits == 2
    assert arrived(wandb_server)


def test_an_answer_that_is_lost_doubles_nothing(wandb_server):
    wandb_server.faults.add(Fault("lose", "file_stream", count=1))
    log_a_run()
    assert arrived(wandb_server)


def test_a_hanging_file_stream_does_not_hold_up_the_logging(wandb_server):
    fault = wandb_server.faults.add(Fault("hang", "file_stream", seconds=1, count=1))
    assert log_a_run() < 0.8
    assert fault.hits
    assert arrived(wandb_server)


def test_a_refused_file_stream_is_given_up_in_silence(wandb_server):
    """403 is final to the client: `finish` returns as if all were well, and the server still waits for the run."""
    wandb_server.faults.fail(1, 403, "file_stream")
    log_a_run()
    assert wandb_server.run("aa").state == "running"
    assert wandb_server.run("aa").series("step") == []


def test_finish_waits_no_longer_than_it_is_told(wandb_server):
    """What did not get through stays in the run's folder, and `wandb sync` brings it."""
    import wandb

    run = wandb.init(project="moe", id="aa", settings=wandb.Settings(finish_timeout=1))
    with wandb_server.faults.during("cut"):
        for step in range(STEPS):
            run.log({"step": step})
        begin = time.monotonic()
        run.finish()
        assert time.monotonic() - begin < 3
    assert wandb_server.run("aa").state == "running"
    folder = run.settings.sync_dir
    wandb.teardown()
    process = wandb_server.client("sync", "--include-online", folder)
    process.communicate(timeout=60)
    assert arrived(wandb_server)


def test_init_without_a_server_gives_up_in_time(wandb_server):
    import wandb

    wandb_server.faults.add(Fault("cut"))
    begin = time.monotonic()
    with pytest.raises(wandb.errors.CommError, match="Timed out"):
        wandb.init(project="moe", id="aa", settings=wandb.Settings(init_timeout=1))
    assert time.monotonic() - begin < 5


def test_a_stop_that_was_asked_for_interrupts_the_process(wandb_server):
    """The client looks every 15 seconds and then raises KeyboardInterrupt in the main thread."""
    import wandb

    script = "import time, wandb\nrun = wandb.init(project='moe', id='aa')\nrun.log({'step': 0})\ntime.sleep(60)"
    process = wandb_server.python("-c", script)
    wait_until(lambda: wandb_server.runs() and wandb_server.runs()[0].history, what="history")
    wandb.Api().run("me/moe/aa").stop()
    output, _ = process.communicate(timeout=40)
    assert "KeyboardInterrupt" in output
    assert (wandb_server.run("aa").state, wandb_server.run("aa").exit_code) == ("failed", 255)
