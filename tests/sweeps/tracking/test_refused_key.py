"""A key that is refused, that cannot be one, or that is missing: one sentence, at the start of every command."""

import pytest

from sweeps.launching import plan, register_planned
from sweeps.runs.store import RunStore
from sweeps.tracking.record import set_unconfirmed
from sweeps.tracking.sync import sync
from sweeps.training.trial import train
from tests.conftest import TINY, tiny_config, tiny_store
from tests.wandb_server.faults import Fault

WRONG = "0" * 40
MEND = "put another one there, or unset it and store one by `wandb login --relogin`"
NO_KEY = "no W&B key is configured (`wandb login` stores one)"
KEYS = {  # what is in the environment, what a fault answers, and the reason that is given
    "wrong": (WRONG, None, "invalid API key"),
    "401": (WRONG, 401, "the test wants it so"),
    "403": (WRONG, 403, "the test wants it so"),
    "short": ("abc", None, "API key must have 40+ characters, has 3"),
    "copied with a space": (f" {WRONG}", None, "there is white space around it"),
}


@pytest.fixture
def key(wandb_server, monkeypatch):
    """Sets a key, or none; returns what is to be said of it."""

    def configure(name):
        if name == "none":
            monkeypatch.delenv("WANDB_API_KEY")
            monkeypatch.delenv("WANDB_MODE")
            return NO_KEY
        value, status, reason = KEYS[name]
        monkeypatch.setenv("WANDB_API_KEY", value)
        if status:
            wandb_server.faults.add(Fault("status", status=status))
        return f"{wandb_server.url} refuses the key in WANDB_API_KEY ({reason}); {MEND}"

    return configure


def write_spec(folder):
    lines = ["name: little", "method: grid", "parameters:", "  seed: {values: [0, 1]}"]
    lines += [f"  {path}: {{value: {value!r}}}" for path, value in TINY.items()]
    (folder / "little.yaml").write_text("\n".join(lines) + "\n")
    return str(folder / "little.yaml")


@pytest.mark.parametrize("name", [*KEYS, "none"])
def test_commands_that_need_the_server_say_what_is_wrong_with_the_key(moe, key, tmp_path, name):
    tiny_store()
    spec = write_spec(tmp_path)
    register_planned(*plan(spec, {}), "local")
    run = RunStore().create(tiny_config())
    set_unconfirmed(run, unconfirmed=True)
    sentence = key(name)

    def said(*words, code):
        ended, out, err = moe(*words)
        assert ended == code
        (line,) = [line for line in (out + err).splitlines() if sentence in line]
        assert WRONG not in out + err
        return line

    said("doctor", code=0)
    assert said("sweep", "launch", spec, "--backend", "wandb", code=2).startswith("error: --backend wandb: ")
    said("runs", "sync", code=2 if name == "none" else 1)
    said("runs", "sync", run.id, code=2 if name == "none" else 1)
    assert said("sweep", "dashboard", "little", code=2).startswith("error: the dashboard needs a W&B server: ")
    said("sweep", "status", "me/moe/ab12cd34", code=2)
    said("probe", "--run", "me/moe/ab12cd34", code=2)


@pytest.mark.slow
def test_training_and_probing_go_on_offline(wandb_server, moe, key, monkeypatch):
    """A key with a space in it, as it is copied, ended both: W&B's client refused the offline run too."""
    tiny_store()
    sentence = key("copied with a space")
    run = RunStore().run(tiny_config().identity())
    kept = f"W&B: {sentence}; this attempt is kept offline for `moe runs sync`"
    code, _, said = moe("train", *(f"--{path}={value}" for path, value in TINY.items()))
    assert (code, said.splitlines()) == (0, [kept])
    code, _, said = moe("probe", "--run", run.id, "--probe", "routing", "--images", "tiny")
    assert (code, said.splitlines()) == (0, [kept])
    monkeypatch.setenv("WANDB_API_KEY", wandb_server.key)
    assert sync([run], lambda _line: None) == []
    assert wandb_server.run(run.id).series("epoch") == [0, 1, 2]
    assert "probe/tiny/routing/load_cv2" in wandb_server.run(run.id).summary


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_a_mode_that_needs_no_key_does_not_look_at_it(key, monkeypatch, capsys, mode):
    tiny_store()
    key("copied with a space")
    monkeypatch.setenv("WANDB_MODE", mode)
    assert train(tiny_config(train__epochs=1), report=lambda _line: None).finished
    assert capsys.readouterr().err == ""


def test_a_stored_key_is_named_by_its_file(wandb_server, moe, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY")
    _, out, _ = moe("doctor")
    assert f"-> {NO_KEY}; sweeps run" in out  # though WANDB_MODE says online
    monkeypatch.delenv("WANDB_MODE")
    netrc = tmp_path / "wandb_server" / "netrc"
    netrc.write_text(f"machine {wandb_server.url.removeprefix('http://')} login user password {WRONG}\n")
    _, out, _ = moe("doctor")
    assert f"refuses the key in {netrc} (invalid API key); `wandb login --relogin` stores another one" in out
