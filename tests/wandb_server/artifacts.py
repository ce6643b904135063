"""Operations on artifacts: their life runs create, manifest, files, commit; only committed versions can be found."""

import json
from typing import Any

from tests.wandb_server.graphql import Variables, connection, operation
from tests.wandb_server.runs import project_node, run_node
from tests.wandb_server.state import Artifact, Collection, State, encode


def collection_node(state: State, collection: Collection) -> dict[str, Any]:
    latest = collection.find("latest")
    return {
        "__typename": "ArtifactSequence",
        "id": collection.id,
        "name": collection.name,
        "description": None,
        "createdAt": collection.versions[0].created,
        "updatedAt": None,
        "state": "READY",
        "digestAlgorithm": "MANIFEST_MD5",
        "project": project_node(state, collection.entity, collection.project),
        "type": {"name": collection.type},
        "tags": {"edges": []},
        "latestArtifact": None if latest is None else {"id": latest.id, "versionIndex": latest.index},
    }


def alias_node(alias: str, artifact: Artifact) -> dict[str, Any]:
    return {"__typename": "ArtifactAlias", "id": encode("Alias", artifact.id, alias), "alias": alias}


def artifact_node(state: State, artifact: Artifact) -> dict[str, Any]:
    collection = collection_node(state, artifact.collection)
    aliases = [alias_node(alias, artifact) | {"artifactCollection": collection} for alias in artifact.aliases]
    url = None if artifact.manifest_key is None else state.url(artifact.manifest_key)
    return {
        "__typename": "Artifact",
        "id": artifact.id,
        "state": artifact.state,
        "artifactSequence": collection,
        "artifactType": {"name": artifact.type},
        "versionIndex": artifact.index,
        "digest": artifact.digest,
        "digestAlgorithm": artifact.algorithm,
        "description": artifact.description,
        "metadata": json.dumps(artifact.metadata),
        "ttlDurationSeconds": artifact.ttl,
        "ttlIsInherited": artifact.ttl < 0,
        "tags": [{"__typename": "Tag", "id": encode("Tag", tag), "name": tag} for tag in artifact.tags],
        "historyStep": None,
        "size": artifact.size,
        "commitHash": encode("commit", artifact.id),
        "fileCount": len(artifact.manifest.get("contents", {})),
        "createdAt": artifact.created,
        "updatedAt": artifact.created,
        "aliases": aliases,
        "currentManifest": {"file": {"directUrl": url}},
        "createdBy": None if artifact.run is None else run_node(state, artifact.run),
        "usedBy": connection([run_node(state, run) for run in artifact.used_by]),
    }


def _named(state: State, variables: Variables, name: str) -> Artifact | None:
    """The version that `collection`, `collection:alias` or `collection:v1` stands for."""
    name, _, alias = name.partition(":")
    entity, project = variables.get("entity") or state.entity, variables["project"]
    collection = state.collections.get((entity, project, name))
    return collection and collection.find(alias or "latest")


@operation("CreateArtifact")
def create_artifact(state: State, variables: Variables) -> dict[str, Any]:
    wanted = variables.get("input") or variables
    entity, project = state.project(wanted.get("entityName"), wanted.get("projectName"))
    name = wanted.get("artifactCollectionName") or wanted["artifactCollectionNames"][0]
    collection = state.collections.get((entity, project, name))
    if collection is None:
        number = encode("Collection", next(state.ids))
        collection = Collection(entity, project, name, wanted["artifactTypeName"], number)
        state.collections[entity, project, name] = collection
    if collection.type != wanted["artifactTypeName"]:
        raise ValueError(f"artifact {name} is of type {collection.type}, not {wanted['artifactTypeName']}")
    aliases = [item["alias"] for item in wanted.get("aliases") or []]
    same = [version for version in collection.committed if version.digest == wanted["digest"]]
    if same and wanted.get("enableDigestDeduplication"):  # the content is there: the aliases move to it
        artifact = same[-1]
        _move_aliases(artifact, [*aliases, "latest"])
    else:
        artifact = _new_version(state, collection, wanted, aliases)
    return {"createArtifact": {"artifact": artifact_node(state, artifact)}}


def _new_version(state: State, collection: Collection, wanted: dict[str, Any], aliases: list[str]) -> Artifact:
    run = None
    if wanted.get("runName"):
        run = state.run(collection.entity, collection.project, wanted["runName"])
    artifact = Artifact(
        collection=collection,
        index=0,  # given when it is committed
        type=collection.type,
        digest=wanted["digest"],
        id=encode("Artifact", next(state.ids)),
        client_id=wanted.get("clientID"),
        run=run,
        metadata=json.loads(wanted.get("metadata") or "{}"),
        description=wanted.get("description"),
        algorithm=wanted.get("digestAlgorithm") or "MANIFEST_MD5",
        pending_aliases=aliases,
        tags=[item["tagName"] for item in wanted.get("tags") or []],
    )
    collection.versions.append(artifact)
    state.artifacts[artifact.id] = artifact
    return artifact


def _move_aliases(artifact: Artifact, aliases: list[str]) -> None:
    """Put aliases on this version and take them from the collection's others."""
    for other in artifact.collection.versions:
        other.aliases = [alias for alias in other.aliases if alias not in aliases]
    artifact.aliases += list(dict.fromkeys(aliases))


@operation("CreateArtifactManifest")
def create_artifact_manifest(state: State, variables: Variables) -> dict[str, Any]:
    return {"createArtifactManifest": _manifest(state, state.artifacts[variables["artifactID"]])}


@operation("UpdateArtifactManifest")
def update_artifact_manifest(state: State, variables: Variables) -> dict[str, Any]:
    wanted = variables["artifactManifestID"]
    owner = next(each for each in state.artifacts.values() if encode("Manifest", each.id) == wanted)
    return {"updateArtifactManifest": _manifest(state, owner)}


def _manifest(state: State, artifact: Artifact) -> dict[str, Any]:
    artifact.manifest_key = f"manifests/{artifact.id}"
    file = {"id": encode("File", artifact.id), "uploadUrl": state.url(artifact.manifest_key), "uploadHeaders": []}
    return {"artifactManifest": {"id": encode("Manifest", artifact.id), "file": file}}


def manifest_arrived(state: State, key: str, body: bytes) -> None:
    """Read the manifest when it is uploaded."""
    if key.startswith("manifests/"):
        state.artifacts[key.removeprefix("manifests/")].manifest = json.loads(body)


@operation("CreateArtifactFiles")
def create_artifact_files(state: State, variables: Variables) -> dict[str, Any]:
    """Where to put each file; no URL for content that an earlier version of the collection holds."""
    nodes = []
    for spec in variables["input"]["artifactFiles"]:
        artifact = state.artifacts[spec["artifactID"]]
        earlier = _holder(state, artifact, spec["name"], spec.get("md5"))
        owner = earlier or artifact
        artifact.blobs[spec["name"]] = key = owner.blobs.get(spec["name"]) or f"artifacts/{artifact.id}/{spec['name']}"
        nodes.append({
            "id": encode("File", key),
            "name": spec["name"],
            "displayName": spec["name"],
            "storagePath": key,
            "uploadUrl": None if earlier else state.url(key),
            "uploadHeaders": [],
            "uploadMultipartUrls": None,
            "artifact": {"id": owner.id},
        })  # fmt: skip
    return {"createArtifactFiles": {"files": connection(nodes)}}


def _holder(state: State, artifact: Artifact, name: str, digest: str | None) -> Artifact | None:
    for version in artifact.collection.committed:
        if version.manifest.get("contents", {}).get(name, {}).get("digest") == digest and name in version.blobs:
            return version
    return None


@operation("CommitArtifact")
def commit_artifact(state: State, variables: Variables) -> dict[str, Any]:
    artifact = state.artifacts[variables["artifactID"]]
    stored = [name for name, entry in artifact.manifest["contents"].items() if "ref" not in entry]
    missing = [name for name in stored if artifact.blobs.get(name) not in state.blobs]
    if missing:
        raise ValueError(f"{artifact.collection.name}: committed without its files {missing}")
    if artifact.state != "COMMITTED":
        artifact.index = len([each for each in artifact.collection.versions if each.state != "PENDING"])
        artifact.state = "COMMITTED"
        _move_aliases(artifact, [*artifact.pending_aliases, "latest"])
    return {"commitArtifact": {"artifact": artifact_node(state, artifact)}}


@operation("UseArtifact")
def use_artifact(state: State, variables: Variables) -> dict[str, Any]:
    wanted = variables.get("input") or variables
    artifact = state.artifacts[wanted["artifactID"]]
    run = state.run(wanted["entityName"], wanted["projectName"], wanted["runName"])
    if artifact.id not in run.used:
        run.used.append(artifact.id)
        artifact.used_by.append(run)
    return {"useArtifact": {"artifact": artifact_node(state, artifact)}}


@operation("ArtifactByID", "ArtifactCreatedBy", "ArtifactUsedBy", "FetchArtifactManifest", "ArtifactManifest")
def artifact_by_id(state: State, variables: Variables) -> dict[str, Any]:
    artifact = state.artifacts.get(variables.get("id") or variables.get("artifact_id"))
    return {"artifact": artifact and artifact_node(state, artifact)}


@operation("FetchLinkedArtifacts")
def fetch_linked_artifacts(state: State, variables: Variables) -> dict[str, Any]:
    artifact = state.artifacts[variables["artifactID"]]
    return {"artifact": {"artifactMemberships": connection([_membership(state, artifact)])}}


@operation("ClientIDMapping")
def client_id_mapping(state: State, variables: Variables) -> dict[str, Any]:
    found = (artifact.id for artifact in state.artifacts.values() if artifact.client_id == variables["clientID"])
    return {"clientIDMapping": {"serverID": next(found)}}


@operation("ArtifactType")
def artifact_type(state: State, variables: Variables) -> dict[str, Any]:
    artifact = _named(state, variables, variables["name"])
    return {"project": {"artifact": artifact and artifact_node(state, artifact)}}


def _membership(state: State, artifact: Artifact) -> dict[str, Any]:
    return {
        "__typename": "ArtifactCollectionMembership",
        "id": encode("Membership", artifact.id),
        "versionIndex": artifact.index,
        "createdAt": artifact.created,
        "aliases": [alias_node(alias, artifact) for alias in artifact.aliases],
        "artifactCollection": collection_node(state, artifact.collection),
        "artifact": artifact_node(state, artifact),
    }


@operation("ArtifactMembershipByName")
def artifact_membership_by_name(state: State, variables: Variables) -> dict[str, Any]:
    key = (variables.get("entity") or state.entity, variables["project"])
    if key not in state.projects:
        return {"project": None}
    artifact = _named(state, variables, variables["name"])
    return {"project": {"artifactCollectionMembership": artifact and _membership(state, artifact)}}


@operation("GetArtifactMembershipFileUrls", "ArtifactMembershipFiles")
def artifact_files(state: State, variables: Variables) -> dict[str, Any]:
    artifact = _named(state, variables, f"{variables['collection']}:{variables['alias']}")
    names = variables.get("fileNames") or list(artifact.blobs)
    page = connection([state.file_node(name, artifact.blobs[name]) for name in names], variables)
    collection = collection_node(state, artifact.collection) | {"artifactMembership": {"files": page}}
    return {"project": {"artifactCollection": collection}}


@operation("GetArtifactFileUrls", "ArtifactFileURLsByManifestEntries")
def artifact_file_urls(state: State, variables: Variables) -> dict[str, Any]:
    artifact = state.artifacts[variables["id"]]
    page = connection([state.file_node(name, key) for name, key in artifact.blobs.items()], variables)
    return {"artifact": {"files": page, "filesByManifestEntries": page}}


@operation("UpdateArtifact")
def update_artifact(state: State, variables: Variables) -> dict[str, Any]:
    wanted = variables.get("input") or variables
    artifact = state.artifacts[wanted["artifactID"]]
    if wanted.get("metadata") is not None:
        artifact.metadata = json.loads(wanted["metadata"])
    if wanted.get("description") is not None:
        artifact.description = wanted["description"]
    if wanted.get("ttlDurationSeconds") is not None:
        artifact.ttl = wanted["ttlDurationSeconds"]
    gone = {item["tagName"] for item in wanted.get("tagsToDelete") or []}
    artifact.tags = [tag for tag in artifact.tags if tag not in gone]
    artifact.tags += [item["tagName"] for item in wanted.get("tagsToAdd") or []]
    answer = {"artifact": artifact_node(state, artifact)}
    return {"result": answer, "updateArtifact": answer}


@operation("AddAliases")
def add_aliases(state: State, variables: Variables) -> dict[str, Any]:
    wanted = variables["input"]
    _move_aliases(state.artifacts[wanted["artifactID"]], [item["alias"] for item in wanted["aliases"]])
    return {"result": {"success": True}}


@operation("DeleteAliases")
def delete_aliases(state: State, variables: Variables) -> dict[str, Any]:
    wanted = variables["input"]
    artifact, gone = state.artifacts[wanted["artifactID"]], {item["alias"] for item in wanted["aliases"]}
    artifact.aliases = [alias for alias in artifact.aliases if alias not in gone]
    return {"result": {"success": True}}


@operation("DeleteArtifact")
def delete_artifact(state: State, variables: Variables) -> dict[str, Any]:
    """W&B refuses to delete a version that has aliases, unless they are to go with it."""
    wanted = variables["input"]
    artifact = state.artifacts[wanted["artifactID"]]
    if artifact.aliases and not wanted.get("deleteAliases"):
        raise ValueError(f"{artifact.name} still has aliases {artifact.aliases}")
    artifact.aliases = []
    artifact.state = "DELETED"
    return {"result": {"artifact": {"id": artifact.id}}}
