"""Saved workspaces (UpsertView2) and reports (upsertView) of the wandb-workspaces package."""

import json
from typing import Any

from tests.wandb_server.graphql import Variables, connection, operation
from tests.wandb_server.runs import project_node
from tests.wandb_server.state import State, View, encode


def _node(state: State, view: View) -> dict[str, Any]:
    return {
        "id": view.id,
        "type": view.type,
        "name": view.name,
        "displayName": view.display_name,
        "description": view.description,
        "project": project_node(state, view.entity, view.project),
        "spec": json.dumps(view.spec),
        "createdAt": view.created,
        "updatedAt": view.created,
        "user": {"name": view.entity, "username": view.entity},
        "previewUrl": None,
    }


@operation("UpsertView2", "upsertView")
def upsert_view(state: State, variables: Variables) -> dict[str, Any]:
    entity, project = state.project(variables.get("entityName"), variables.get("projectName"))
    known = state.views.get(variables.get("id") or "")
    view = View(
        id=known.id if known else encode("View", next(state.ids)),
        entity=entity,
        project=project,
        name=variables["name"],
        type=variables["type"],
        display_name=variables["displayName"],
        description=variables["description"],
        spec=json.loads(variables["spec"]),
    )
    state.views[view.id] = view
    return {"upsertView": {"view": _node(state, view), "inserted": known is None}}


@operation("View", "ProjectViews")
def views_of_project(state: State, variables: Variables) -> dict[str, Any]:
    entity = variables.get("entityName") or variables.get("entity") or state.entity
    project = variables.get("projectName") or variables.get("project")
    kind, name = variables.get("viewType", "runs"), variables.get("viewName")
    found = [
        _node(state, view)
        for view in state.views.values()
        if (view.entity, view.project, view.type) == (entity, project, kind) and name in (None, view.name)
    ]
    return {"project": {"allViews": connection(found)}}


@operation("SpecificReport")
def specific_report(state: State, variables: Variables) -> dict[str, Any]:
    view = state.views.get(variables["reportId"])
    return {"view": view and _node(state, view)}


@operation("deleteView")
def delete_view(state: State, variables: Variables) -> dict[str, Any]:
    gone = state.views.pop(variables["id"], None)
    return {"deleteView": {"success": gone is not None, "pendingDrafts": None, "__typename": "DeleteViewPayload"}}
