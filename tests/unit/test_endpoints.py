import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.endpoints import ClusterError, Endpoints

ENDPOINTS = Endpoints(
    name="test",
    kubevirt="stand-in",
    kubeconfig=Path("/state home/kubeconfigs/admin.yaml"),
    ca_cert=Path("/state home/ca.crt"),
    gateway_url="https://127.0.0.1:1",
    guests_url="http://127.0.0.1:2",
    audit_log=Path("/state home/audit.log"),
    access_log=Path("/state home/access.log"),
    temporal_address="127.0.0.1:3",
    temporal_ui="http://127.0.0.1:4",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("endpoints")


texts = st.text().filter(lambda text: text.isprintable())
paths = texts.map(lambda text: Path("/", text))


@given(st.builds(Endpoints, **{f.name: paths if f.type is Path else texts for f in dataclasses.fields(Endpoints)}))
def test_what_was_saved_is_loaded(folder: Path, endpoints: Endpoints) -> None:
    endpoints.save(folder / "endpoints.json")
    assert Endpoints.load(folder / "endpoints.json") == endpoints


def test_no_file_means_that_no_cluster_is_up(folder: Path) -> None:
    with pytest.raises(ClusterError, match=r"No cluster is up\. Type `make up`"):
        Endpoints.load(folder / "none.json")


WHOLE = json.loads(json.dumps(dataclasses.asdict(ENDPOINTS), default=str))


@pytest.mark.parametrize(
    "text",
    [
        "",
        json.dumps(WHOLE)[:-9],
        "[]",
        "null",
        json.dumps(WHOLE | {"kubeconfig": 7}),
        json.dumps(WHOLE | {"of a later version": "x"}),
        json.dumps({key: value for key, value in WHOLE.items() if key != "ca_cert"}),
        json.dumps({key: value for key, value in WHOLE.items() if key != "guests_url"}),
    ],
    ids=["empty", "cut off", "a list", "null", "no path", "one too many", "a path too few", "a text too few"],
)
def test_a_file_of_another_version_is_named_with_what_to_do(folder: Path, text: str) -> None:
    file = folder / "other.json"
    file.write_text(text)
    with pytest.raises(ClusterError, match=f"{file} is not what this version of virtflow writes .*`make down`"):
        Endpoints.load(file)
