"""Operations that list artifacts: of a run, of a project, of a collection."""

from typing import Any

from tests.wandb_server.artifacts import alias_node, artifact_node, collection_node
from tests.wandb_server.graphql import Variables, connection, operation
from tests.wandb_server.runs import of_run, project_node
from tests.wandb_server.state import Artifact, Run, State, encode


@operation("RunOutputArtifacts")
def run_output_artifacts(state: State, variables: Variables) -> dict[str, Any]:
    def logged(run: Run) -> list[Artifact]:
        return [each for each in state.artifacts.values() if each.run is run and each.state == "COMMITTED"]

    return _run_artifacts(state, variables, logged)


@operation("RunInputArtifacts")
def run_input_artifacts(state: State, variables: Variables) -> dict[str, Any]:
    return _run_artifacts(state, variables, lambda run: [state.artifacts[each] for each in run.used])


def _run_artifacts(state: State, variables: Variables, of: Any) -> dict[str, Any]:
    run = state.run(variables.get("entity"), variables["project"], variables["run"])
    nodes = [artifact_node(state, artifact) for artifact in (of(run) if run else [])]
    return of_run(state, variables, artifacts=connection(nodes, variables))


@operation(
    "ProjectArtifacts", "ProjectArtifactCollections", "ProjectArtifactCollection", "ProjectArtifactTypes",
    "ProjectArtifactType", "ArtifactTypeArtifactCollections",
)  # fmt: skip
def project_artifacts(state: State, variables: Variables) -> dict[str, Any]:
    """Types, collections and versions of a project, as `Api().artifacts(type, name)` reads them."""
    entity, project = variables.get("entity") or state.entity, variables["project"]
    here = [each for key, each in state.collections.items() if key[:2] == (entity, project)]
    wanted = variables.get("type")
    typed = [each for each in here if wanted in (None, each.type)]
    name = variables.get("collection") or variables.get("name")
    one = next((each for each in typed if each.name == name), None)
    versions = sorted(one.committed, key=lambda each: -each.index) if one else []
    page = connection([artifact_node(state, each) for each in versions], variables)
    for edge, version in zip(page["edges"], versions[int(variables.get("cursor") or 0) :], strict=False):
        edge["version"] = f"v{version.index}"
    found = {
        "artifactTypes": connection([_type_node(each) for each in sorted({each.type for each in here})], variables),
        "artifactCollections": connection([collection_node(state, each) for each in typed], variables),
        "artifactType": None,
    }
    if wanted is None or typed:
        collection = one and collection_node(state, one) | {"artifacts": page}
        lists = {"artifactCollections": found["artifactCollections"], "artifactCollection": collection}
        found["artifactType"] = _type_node(wanted or "") | lists
    return {"project": project_node(state, *state.project(entity, project)) | found}


def _type_node(name: str) -> dict[str, Any]:
    node = {"__typename": "ArtifactType", "id": encode("Type", name), "name": name}
    return node | {"description": None, "createdAt": ""}


@operation("ArtifactCollectionAliases")
def artifact_collection_aliases(state: State, variables: Variables) -> dict[str, Any]:
    collection = next(each for each in state.collections.values() if each.id == variables["id"])
    nodes = [alias_node(alias, version) for version in collection.committed for alias in version.aliases]
    return {"artifactCollection": collection_node(state, collection) | {"aliases": connection(nodes, variables)}}
