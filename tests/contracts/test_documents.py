"""The documents of a catalog pass public validators: OpenAPI 3.1 and AsyncAPI 3.0."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from majordomus.contracts import catalog, openapi
from tests.cli.inspect.test_contracts import worker
from tests.contracts.test_contracts import put, takes_query, takes_record, takes_stream

NODE = Path(__file__).parent / "node"
PARSER = NODE / "node_modules/@asyncapi/parser/package.json"
NODE_SECONDS = 400
"""The parser needs 4 s of a processor to load. With `nice 15`, beside two programs that compute, it
gets a thirtieth of one, and that takes over 100 s."""


def documents() -> dict[str, catalog.Catalog]:
    from majordomus import Worker

    other = Worker()
    for function in (put, takes_record, takes_query, takes_stream):
        other.add(f"odd name/{function.__name__}", function)
    return {
        "commands": catalog.of_handlers(worker.handlers),
        "kinds": catalog.of_handlers(other.handlers),
    }


@pytest.mark.parametrize("name", ["commands", "kinds"])
def test_openapi_document_is_valid(name: str) -> None:
    document = openapi.openapi(documents()[name])
    OpenAPIV31SpecValidator(document).validate()
    assert len(document["paths"]) == len(documents()[name])


def test_openapi_validator_finds_a_seeded_error() -> None:
    document = openapi.openapi(documents()["commands"])
    del document["info"]["title"]
    assert list(OpenAPIV31SpecValidator(document).iter_errors())


@pytest.mark.skipif(not PARSER.exists(), reason="the AsyncAPI parser is not here: npm ci in node")
@pytest.mark.timeout(NODE_SECONDS + 20)
def test_asyncapi_document_is_valid() -> None:
    made = {name: openapi.asyncapi(found) for name, found in documents().items()}
    made["seeded"] = openapi.asyncapi({})
    del made["seeded"]["info"]
    done = subprocess.run(
        ["node", str(NODE / "validate.js")],
        input=json.dumps(made),
        capture_output=True,
        text=True,
        timeout=NODE_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    errors = json.loads(done.stdout)
    assert errors.pop("seeded")
    assert errors == {"commands": [], "kinds": []}


def test_every_reference_of_a_document_is_there() -> None:
    for name, found in documents().items():
        for made in (openapi.openapi(found), openapi.asyncapi(found)):
            text = json.dumps(made)
            for part in text.split('"$ref": "#/components/schemas/')[1:]:
                assert part.partition('"')[0] in made["components"]["schemas"], name
