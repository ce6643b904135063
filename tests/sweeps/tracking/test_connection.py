import pytest

from moe.errors import UserError
from sweeps.tracking.connection import connection
from sweeps.tracking.media import typed


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """No W&B setting at all."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path


def test_without_a_key_runs_are_offline(bare):
    assert connection().mode == "offline"


def test_with_a_key_runs_are_online_and_the_key_is_not_told(bare, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cret" * 7)
    mode, why = connection().mode, connection().why
    assert mode == "online"
    assert "s3cret" not in why


def test_a_stored_key_counts_for_its_own_server_alone(bare, monkeypatch):
    (bare / "netrc").write_text("machine wandb.example.org login user password " + "x" * 40)
    (bare / "netrc").chmod(0o600)
    assert connection().mode == "offline"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert connection().mode == "online"


def test_a_column_of_numbers_and_words_is_words():
    rows = [["1", "a", "", "1.5"], ["2", "3", "0.5", "nan"]]
    assert list(typed(rows)[0]) == [1.0, "a", None, 1.5]
    assert list(typed(rows)[1])[:3] == [2.0, "3", 0.5]


@pytest.mark.parametrize(("value", "mode"), [("disabled", "disabled"), ("offline", "offline"), ("dryrun", "offline")])
def test_wandb_mode_decides(bare, monkeypatch, value, mode):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", value)
    assert connection().mode == mode


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WANDB_MODE", "banana"), ("WANDB_MODE", "Offline"), ("WANDB_BASE_URL", "notaurl"), ("WANDB_PROJECT", "a/b"),
        ("WANDB_PROJECT", "x" * 200), ("WANDB_RESUME", "perhaps"), ("WANDB_SILENT", "maybe"), ("WANDB_RUN_ID", "a/b"),
    ],
)  # fmt: skip
def test_a_setting_that_wandb_does_not_take_is_one_sentence_that_names_it(bare, monkeypatch, name, value):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=rf'^{name}="{value}" is no setting of W&B: .*; mend or unset it$'):
        connection()
