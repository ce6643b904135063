"""Operations on runs, projects and the user."""

import json
import math
import time
from typing import Any

from tests.wandb_server import filters
from tests.wandb_server.graphql import Variables, connection, operation
from tests.wandb_server.state import Run, State, encode, now

# what the double can do; features that are off make the client take an older path
FEATURES = (
    "LARGE_FILENAMES",
    "ARTIFACT_TAGS",
    "CLIENT_IDS",
    "ARTIFACT_COLLECTION_MEMBERSHIP_FILES",
    "USE_ARTIFACT_WITH_ENTITY_AND_PROJECT_INFORMATION",
    "PROJECT_ARTIFACT_COLLECTION_MEMBERSHIP",
    "TOTAL_COUNT_IN_FILE_CONNECTION",
    "MARK_RUN_FILES_UPLOADED",
    "SWEEPS_QUERY_FILTERING",
    "ARTIFACT_DIGEST_ALGORITHM",
)


@operation("ServerFeaturesQuery")
def server_features(state: State, variables: Variables) -> dict[str, Any]:
    return {"serverInfo": {"features": [{"name": name, "isEnabled": True} for name in FEATURES]}}


@operation("Viewer", "GetViewer", "GetDefaultEntity")
def viewer(state: State, variables: Variables) -> dict[str, Any]:
    user = {
        "id": encode("User", 1),
        "name": state.entity,
        "entity": state.entity,
        "username": state.entity,
        "email": None,
        "admin": False,
        "flags": "{}",
        "deletedAt": None,
        "apiKeys": {"edges": []},
        "teams": {"edges": []},
    }
    return {"viewer": user}


@operation("OrganizationCoreWeaveOrganizationID", "XXHashDigestsEnabled")
def entity_facts(state: State, variables: Variables) -> dict[str, Any]:
    return {"entity": {"organization": {"coreWeaveOrganizationId": None}, "xxhashDigestsEnabled": False}}


def project_node(state: State, entity: str, project: str) -> dict[str, Any]:
    number = state.projects[entity, project]
    return {
        "__typename": "Project",
        "id": encode("Project", "v1", project, entity),
        "internalId": encode("ProjectInternalId", number),  # the client decodes the number
        "name": project,
        "entityName": entity,
        "entity": {"id": encode("Entity", entity), "name": entity},
        "createdAt": now(),
        "isBenchmark": False,
        "readOnly": False,
        "description": None,
        "access": "USER_READ",
        "views": None,
        "user": None,
    }


def run_node(state: State, run: Run) -> dict[str, Any]:
    rows = run.history
    return {
        "__typename": "Run",
        "id": run.id,
        "name": run.name,
        "displayName": run.display_name,
        "project": project_node(state, run.entity, run.project),
        "projectId": state.projects[run.entity, run.project],
        "state": run.state,
        "config": json.dumps(run.raw_config),
        "summaryMetrics": json.dumps(run.summary),
        "systemMetrics": run.event_lines[-1] if run.event_lines else "{}",
        "tags": run.tags,
        "group": run.group,
        "jobType": run.job_type,
        "sweepName": run.sweep,
        "notes": run.notes,
        "description": run.notes,
        "commit": None,
        "readOnly": False,
        "createdAt": run.created,
        "heartbeatAt": run.heard_at,
        "user": {"name": run.entity, "username": run.entity},
        "historyLineCount": len(rows),
        "eventsLineCount": len(run.event_lines),
        "logLineCount": len(run.streams.get("output.log", [])),
        "historyKeys": {"lastStep": rows[-1].get("_step", -1) if rows else -1, "sets": [], "keys": {}},
        "exitcode": run.exit_code,
        "shouldStop": run.stop_asked,
        "running": run.state == "running",
        "failed": run.state == "failed",
        "stopped": run.stop_asked,  # which W&B's own launch agent asks running runs for
    }


def _asked(state: State, variables: Variables) -> Run | None:
    name = variables.get("name") or variables.get("run") or variables.get("runName") or variables.get("runId")
    entity = variables.get("entity") or variables.get("entityName")
    return state.run(entity, variables.get("project") or variables.get("projectName"), name)


def of_run(state: State, variables: Variables, **fields: Any) -> dict[str, Any]:
    """`project { run { ... } }`, with null for what does not exist."""
    run = _asked(state, variables)
    if run is None:
        return {"project": {"run": None}}
    project = project_node(state, run.entity, run.project)
    return {"project": project | {"run": run_node(state, run) | fields}}


@operation("UpsertBucket")
def upsert_bucket(state: State, variables: Variables) -> dict[str, Any]:
    inserted = False
    if variables.get("id"):  # from the public API, which leaves the run's state alone
        run = state.run_by_id(variables["id"])
    else:  # from the process of the run
        run = _asked(state, variables)
        if run is None:
            inserted = True
            run = state.make_run(variables.get("entity"), variables.get("project"), variables["name"])
        run.reported = variables.get("state") or "running"
        run.heard = time.monotonic()
    _update(state, run, variables)
    run.upserts.append(variables)
    return {"upsertBucket": {"bucket": run_node(state, run), "inserted": inserted}}


def _update(state: State, run: Run, variables: Variables) -> None:
    given = {key: value for key, value in variables.items() if value is not None}
    if "config" in given:
        run.raw_config = json.loads(given["config"])
    if "summaryMetrics" in given:
        run.summary = json.loads(given["summaryMetrics"])
    run.display_name = given.get("displayName") or given.get("display_name") or run.display_name
    run.group = given.get("groupName", run.group)
    run.job_type = given.get("jobType", run.job_type)
    run.notes = given.get("notes", run.notes)
    run.tags = given.get("tags", run.tags)
    if given.get("sweep"):
        run.sweep = given["sweep"]
        sweep = state.sweeps.get(run.sweep)
        if sweep and run not in sweep.runs:
            sweep.runs.append(run)


@operation("RunResumeStatus")
def run_resume_status(state: State, variables: Variables) -> dict[str, Any]:
    entity, project = state.project(variables.get("entity"), variables.get("project"))
    run = _asked(state, variables)
    bucket = None
    if run is not None:
        internal = run.raw_config.get("_wandb", {}).get("value", {})
        bucket = run_node(state, run) | {
            "historyTail": json.dumps(run.history_lines[-1:]),
            "eventsTail": json.dumps(run.event_lines[-1:]),
            "wandbConfig": json.dumps({"t": internal.get("t")}),
        }
    return {"model": project_node(state, entity, project) | {"bucket": bucket}}


@operation("CreateRunFiles")
def create_run_files(state: State, variables: Variables) -> dict[str, Any]:
    run = _asked(state, variables)
    files = []
    for name in variables["files"]:
        run.files[name] = f"runs/{run.path}/{name}"
        files.append({"name": name, "uploadUrl": state.url(run.files[name])})
    return {"createRunFiles": {"runID": run.id, "uploadHeaders": [], "files": files}}


@operation("MarkRunFilesUploaded")
def mark_run_files_uploaded(state: State, variables: Variables) -> dict[str, Any]:
    return {"markRunFilesUploaded": {"success": True}}


@operation("RunFiles")
def run_files(state: State, variables: Variables) -> dict[str, Any]:
    run = _asked(state, variables)
    names, pattern = variables.get("fileNames"), variables.get("pattern")
    nodes = [
        state.file_node(name, key)
        for name, key in run.files.items()
        if key in state.blobs and (not names or name in names) and (not pattern or _like(name, pattern))
    ]
    return of_run(state, variables, fileCount=len(nodes), files=connection(nodes, variables, "fileLimit"))


def _like(name: str, pattern: str) -> bool:
    """MySQL's LIKE, for patterns such as `%.json`."""
    parts = pattern.split("%")
    return name.startswith(parts[0]) and name.endswith(parts[-1])


@operation("Run", "RunHistoryKeys", "RunState", "QueryRunInfo", "RunStoppedStatus")
def run_query(state: State, variables: Variables) -> dict[str, Any]:
    return of_run(state, variables)


@operation("Runs")
def runs_query(state: State, variables: Variables) -> dict[str, Any]:
    entity, project = variables.get("entity") or state.entity, variables["project"]
    if (entity, project) not in state.projects:
        return {"project": None}
    query = json.loads(variables.get("filters") or "{}")
    here = [run for run in state.runs.values() if (run.entity, run.project) == (entity, project)]
    found = [run for run in here if filters.matches(run, query)]
    found = filters.ordered(found, variables.get("order") or "+created_at")
    page = connection([run_node(state, run) for run in found], variables)
    return {"project": project_node(state, entity, project) | {"runCount": len(found), "runs": page}}


@operation("RunFullHistory")
def run_full_history(state: State, variables: Variables) -> dict[str, Any]:
    run = _asked(state, variables)
    samples = variables.get("samples") or 500
    history, events = _thinned(run.history_lines, samples), _thinned(run.event_lines, samples)
    return of_run(state, variables, history=history, events=events)


@operation("HistoryPage")
def history_page(state: State, variables: Variables) -> dict[str, Any]:
    run = _asked(state, variables)
    steps = range(int(variables["minStep"]), int(variables["maxStep"]))
    return of_run(state, variables, history=[line for line in run.history_lines if json.loads(line)["_step"] in steps])


@operation("RunSampledHistory", "SampledHistoryPage")
def sampled_history(state: State, variables: Variables) -> dict[str, Any]:
    run = _asked(state, variables)
    specs = [json.loads(spec) for spec in variables.get("specs") or [variables["spec"]]]
    return of_run(state, variables, sampledHistory=[sample(run, spec) for spec in specs])


def sample(run: Run, spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows from minStep to maxStep, both included, that have all the keys, these keys alone."""
    keys = spec.get("keys") or []
    first, last = spec.get("minStep", 0), spec.get("maxStep", math.inf)
    rows = [
        {key: row[key] for key in keys}
        for row in run.history
        if first <= row["_step"] <= last and all(key in row for key in keys)
    ]
    return _thinned(rows, spec.get("samples") or 500)


@operation("RunParquetHistory")
def run_parquet_history(state: State, variables: Variables) -> dict[str, Any]:
    """No run is exported to parquet here: everything is live."""
    run = _asked(state, variables)
    return of_run(state, variables, parquetHistory={"parquetUrls": [], "liveData": run.history})


def _thinned(lines: list[Any], samples: int) -> list[Any]:
    stride = -(-len(lines) // samples) or 1
    return lines[::stride]


@operation("DeleteRun")
def delete_run(state: State, variables: Variables) -> dict[str, Any]:
    run = state.run_by_id(variables["id"])
    del state.runs[run.path]
    state.deleted.append(run.path)
    for sweep in state.sweeps.values():
        if run in sweep.runs:
            sweep.runs.remove(run)
    return {"deleteRun": {"clientMutationId": None}}


@operation("StopRun")
def stop_run(state: State, variables: Variables) -> dict[str, Any]:
    state.run_by_id(variables["id"]).stop_asked = True
    return {"stopRun": {"success": True}}


@operation("UpdateRunState")
def update_run_state(state: State, variables: Variables) -> dict[str, Any]:
    run = state.run_by_id(variables["input"]["id"])
    if run.sweep:
        raise ValueError("the state of a sweep's run cannot be set")
    run.reported = variables["input"]["state"]
    return {"updateRunState": {"success": True}}


@operation("GetProjects")
def get_projects(state: State, variables: Variables) -> dict[str, Any]:
    entity = variables.get("entity") or state.entity
    nodes = [project_node(state, *key) for key in state.projects if key[0] == entity]
    return {"models": connection(nodes, variables)}


@operation("GetProject", "ProjectInternalId", "IsProjectReadOnly")
def get_project(state: State, variables: Variables) -> dict[str, Any]:
    entity = variables.get("entity") or variables.get("entityName")
    project = variables.get("projectName") or variables.get("project") or variables.get("name")
    known = (entity, project) in state.projects
    return {"project": project_node(state, entity, project) if known else None}


@operation("CreateProject")
def create_project(state: State, variables: Variables) -> dict[str, Any]:
    wanted = variables["input"]
    node = project_node(state, *state.project(wanted.get("entityName"), wanted["name"]))
    return {"result": {"project": node, "model": node, "inserted": True}}
