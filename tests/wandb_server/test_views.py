"""Workspaces and reports: the operations of wandb-workspaces, by that package where it is installed."""

import json

import pytest

pytestmark = pytest.mark.slow

SAVE = """
mutation UpsertView2($id: ID, $entityName: String, $projectName: String, $type: String, $name: String,
                     $displayName: String, $description: String, $spec: String) {
    upsertView(input: {id: $id, entityName: $entityName, projectName: $projectName, name: $name, type: $type,
                       displayName: $displayName, description: $description, spec: $spec}) {
        view { id name } inserted
    }
}
"""


def test_a_workspace_is_saved_and_changed(wandb_server):
    import wandb

    variables = {"entityName": "me", "projectName": "moe", "type": "project-view", "name": "nw-abc-v"}
    variables |= {"displayName": "paper", "description": "", "spec": json.dumps({"section": {}})}
    execute = wandb.Api()._service_api.execute_graphql
    first = execute(SAVE, variables)["upsertView"]
    second = execute(SAVE, variables | {"id": first["view"]["id"], "displayName": "better"})["upsertView"]
    assert (first["inserted"], second["inserted"]) == (True, False)
    (view,) = wandb_server.state.views.values()
    assert (view.display_name, view.type, view.spec) == ("better", "project-view", {"section": {}})
    assert [project.name for project in wandb.Api().projects("me")] == ["moe"]


def test_the_package_saves_and_loads_a_workspace(wandb_server):
    workspaces = pytest.importorskip("wandb_workspaces.workspaces")
    panels = pytest.importorskip("wandb_workspaces.reports.v2")

    section = workspaces.Section(name="Loss", panels=[panels.LinePlot(x="epoch", y=["train/loss"])])
    workspace = workspaces.Workspace(entity="me", project="moe", name="paper", sections=[section])
    workspace.save()
    (view,) = wandb_server.state.views.values()
    assert (view.display_name, view.type) == ("paper", "project-view")
    assert "train/loss" in json.dumps(view.spec)
    loaded = workspaces.Workspace.from_url(workspace.url)
    assert loaded.sections[0].name == "Loss"


def test_the_package_saves_and_loads_a_report(wandb_server):
    reports = pytest.importorskip("wandb_workspaces.reports.v2")

    report = reports.Report(entity="me", project="moe", title="Beyond routing", blocks=[reports.H1("Loss")])
    report.save()
    (view,) = wandb_server.state.views.values()
    assert (view.display_name, view.type) == ("Beyond routing", "runs")
    assert reports.Report.from_url(report.url).title == "Beyond routing"
    assert report.delete()
    assert not wandb_server.state.views
