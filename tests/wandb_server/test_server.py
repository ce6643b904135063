"""The double itself: what it does not know or cannot have is said, and nothing outlives it."""

import contextlib
import http.client
import json
from base64 import b64encode

import pytest

from tests.wandb_server.server import WandbServer


def post(server, path, message):
    key = b64encode(f"api:{server.key}".encode()).decode()
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", path, json.dumps(message), {"Authorization": f"Basic {key}"})
        return connection.getresponse().status


def test_an_unknown_operation_is_named(wandb_server):
    import wandb

    with pytest.raises(Exception, match="unknown operation Fortune"):
        wandb.Api()._service_api.execute_graphql("query Fortune { tell }")
    assert wandb_server.unknown == ["Fortune"]
    wandb_server.unknown.clear()


def test_a_gap_in_a_stream_is_an_error_and_an_overlap_none(wandb_server):
    query = "mutation UpsertBucket { upsertBucket }"
    assert post(wandb_server, "/graphql", {"query": query, "variables": {"project": "moe", "name": "aa"}}) == 200

    def send(offset, *steps):
        content = [json.dumps({"_step": step}) for step in steps]
        chunk = {"wandb-history.jsonl": {"offset": offset, "content": content}}
        return post(wandb_server, "/files/me/moe/aa/file_stream", {"files": chunk})

    assert (send(0, 0, 1), send(1, 1, 2)) == (200, 200)
    assert wandb_server.run("aa").series("_step") == [0, 1, 2]
    assert send(4, 4) == 400
    assert "from line 4" in wandb_server.errors.pop()


def test_processes_end_with_the_server(tmp_path):
    with WandbServer(tmp_path) as server:
        process = server.python("-c", "import time; time.sleep(600)")
        assert process.poll() is None
    assert process.returncode == -9
